# SPDX-License-Identifier: MIT
"""What is known of the variables of a program while it is lowered, and which of them must be in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from functorch_lite.compiler.lowering.places import Held, Place
from functorch_lite.compiler.lowering.rules import Element
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.core.program import Literal, Program, Var


@dataclass(slots=True)
class Scope:
    """What is known while a program is lowered: its schedule, places of its variables, and where some are wanted."""

    schedule: Schedule
    places: dict[Any, Place]
    wanted: dict[Any, Place] = field(default_factory=dict)
    held: dict[Any, Element] = field(default_factory=dict)
    stacks: dict[Any, Any] = field(default_factory=dict)
    elements: dict[tuple[Any, int], Element] = field(default_factory=dict)  # of small arrays, by position
    needed: set[Var] = field(default_factory=set)


def scope_of(schedule: Schedule, program: Program, inputs: Sequence[Any]) -> Scope:
    """What is known at the start: where the inputs are."""
    if {*map(type, inputs)} == {Place}:
        return Scope(schedule, dict(zip(program.inputs, inputs, strict=True)))
    scope = Scope(schedule, {})
    for var, given in zip(program.inputs, inputs, strict=True):
        if type(given) is Place:
            scope.places[var] = given
        elif type(given) is Held:
            scope.held[var] = given.element
            if given.place is not None:
                scope.places[var] = given.place
        else:
            scope.stacks[var] = given
    return scope


def needed(schedule: Schedule) -> set[Any]:
    """The variables that are read outside the group that computes them, and maybe literals."""
    found: set[Any] = set()
    for group in schedule.groups:
        for equation in group.equations:
            if group.domain is None and schedule.is_in_memory(equation.inputs):
                found.update(equation.inputs)
                continue
            for atom in equation.inputs:
                _need(schedule, atom, group, found)
    outputs = schedule.program.outputs
    if schedule.is_in_memory(outputs):
        found.update(outputs)
        return found
    for atom in outputs:
        _need(schedule, atom, None, found)
    return found


def _need(schedule: Schedule, atom: Any, reader: Group | None, found: set[Var]) -> None:
    """Note what must be in memory for a group that reads this atom (None: for whoever)."""
    if type(atom) is Literal:
        return
    if atom not in schedule.alias and atom not in schedule.movement:
        if schedule.home.get(atom) is not reader or reader is None:
            found.add(atom)
        return
    for source in schedule.sources(atom):
        root = schedule.root(source)
        if root in schedule.movement:
            _need(schedule, root, None, found)
        elif schedule.home.get(root) is not reader or reader is None:
            found.add(root)

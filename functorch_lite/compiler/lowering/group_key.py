# SPDX-License-Identifier: MIT
"""A key that is equal for groups whose kernels are equal, found without lowering them.

The equations of a group are written with numbers for the arrays that it reads and for what it computes, with all that
a kernel depends on: primitives, parameters, types, constants, index maps, where in the domain each value is, and which
values are stored. Groups with one key share a kernel: the layers of a network, the leaves of an optimizer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.core.program import Equation, Literal, Var

_NUMBERS = (bool, float, complex, np.generic)


class GroupKey(NamedTuple):
    """The key (None: there is none), and the arrays in memory that the group reads, in the order of its parameters."""

    key: Any
    inputs: list[Any]


def group_key(group: Group, schedule: Schedule, stored: Sequence[Var]) -> GroupKey:
    """The key of a group whose kernel computes `stored`."""
    writer = _Writer(schedule)
    place = {v: k for k, v in enumerate(stored)}
    items: list[Any] = [group.domain, group.reduced]
    own = writer.own
    for equation in group.equations:
        out = equation.outputs[0]
        read = tuple([writer.operand(a) for a in equation.inputs])
        own[out] = len(own)
        items.append((equation.prim, writer.params(equation.params), read, out.aval, group.axes[out],
                      out in group.ends, place.get(out)))
    return GroupKey(tuple(items) if writer.hashable else None, list(writer.inputs))


class _Writer:
    def __init__(self, schedule: Schedule):
        self.movement: dict[Any, Equation] = cast(Any, schedule.movement)
        self.alias = schedule.alias
        self.own: dict[Any, int] = {}
        self.inputs: dict[Any, int] = {}
        self.hashable = True

    def operand(self, atom: Any) -> Any:
        """A number of the group, an array that it reads, a constant, or an index map of these."""
        found = self.own.get(atom)
        if found is not None:
            return found
        if type(atom) is Literal and atom.aval.size == 1:
            return "number", atom.aval, np.asarray(atom.value, atom.aval.dtype).tobytes()
        equation = self.movement.get(atom)
        if equation is None or atom in self.alias:
            return "array", self.inputs.setdefault(atom, len(self.inputs)), atom.aval
        read = tuple([self.operand(a) for a in equation.inputs])
        return "map", equation.prim, self.params(equation.params), read, atom.aval

    def params(self, params: dict[str, Any]) -> Any:
        if not params:
            return ()
        items = tuple([(name, type(value), _exact(value)) for name, value in params.items()])
        try:
            hash(items)
        except TypeError:
            self.hashable = False
        return items


def _exact(value: Any) -> Any:
    """A parameter such that equal ones are the same: 0.0 is not -0.0, 1 is not True."""
    if type(value) is tuple:
        return tuple([_exact(v) for v in value])
    if isinstance(value, _NUMBERS):
        return repr(value)
    return value

# SPDX-License-Identifier: MIT
"""Running a tape backwards: where an eager gradient has been here before, by one piece of generated code.

A tape of planned pullbacks (`transforms.pullbacks`) is a row of plans and how they are connected. The same row comes
again in each step of a training loop; when it has come a few times, its plans are joined to one program, whose code
runs the whole backward pass. It computes what `Tape.backward` does, in the same order.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite.backends.registry import knows_devices, on_device
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.core.aval import aval_of
from functorch_lite.core.linear import Tape
from functorch_lite.core.numpy_code import numpy_code
from functorch_lite.core.program import Atom, Equation, Program, Var
from functorch_lite.core.tracer import current_trace, root
from functorch_lite.transforms.pullbacks import Step, add_to, walk_back

SIGHTINGS = 20
"""How often a row of plans comes before it gets code of its own: writing takes as long as tens of backward passes."""
LONGEST = 1000
"""The number of plans in a row that gets code of its own: what runs that long gains little by it."""
MOST = 256
"""How many rows are remembered."""

_rows: dict[Any, Any] = {}  # how often a row of plans has come, then its code


def backward(tape: Tape, cts: Sequence[Any], consume: bool = False) -> list[Any]:
    """`tape.backward(cts, consume)`."""
    entries = tape.entries
    if not 1 < len(entries) <= LONGEST or current_trace() is not root or tape.home is not np:
        return tape.backward(cts, consume)
    row: list[Any] = [len(tape.inputs)]
    given: list[Any] = []
    for e in entries:
        if type(e) is not tuple:
            return tape.backward(cts, consume)
        plan, operands, values, index = e
        row += (plan, index)
        row += operands
        given += values
    for o, c in zip(tape.outputs, cts, strict=True):
        if o is None or c is None:
            row.append(None)
        else:
            row += (o, c.shape, c.dtype)
            given.append(c)
    run = _code_for(tuple(row), tape, cts)
    if run is None or (knows_devices() and any(map(on_device, given))):
        return tape.backward(cts, consume)
    if consume:
        entries.clear()  # from here on, `given` alone holds the values
        del e, values
    return run(given)


def _code_for(row: tuple[Any, ...], tape: Tape, cts: Sequence[Any]) -> Callable[[list[Any]], list[Any]] | None:
    """The code for this row of plans, if it has come often enough."""
    found = _rows.get(row, 0)
    if type(found) is not int:
        return found
    if len(_rows) >= MOST:
        _rows.clear()
    run = _written(tape, cts) if found + 1 >= SIGHTINGS else None
    _rows[row] = run or found + 1
    return run


def _written(tape: Tape, cts: Sequence[Any]) -> Callable[[list[Any]], list[Any]]:
    """The code of the whole backward pass: from the needed values and the cotangents to those of the inputs."""
    values = [[Var(v.aval) for v in plan.program.inputs[:-1]] for plan, *_ in tape.entries]
    steps = [
        Step(plan, v, operands, index) for v, (plan, operands, _, index) in zip(values, tape.entries, strict=True)
    ]
    seeds = [(o, Var(aval_of(c))) for o, c in zip(tape.outputs, cts, strict=True)
             if o is not None and c is not None]
    known: dict[Any, Atom] = {}
    equations: list[Equation] = []
    for name, var in seeds:
        add_to(known, name, var, equations)
    equations += walk_back(steps, known)
    found = [known.get(i) for i in tape.inputs]
    inputs = (*[v for group in values for v in group], *[v for _, v in seeds])
    outputs = tuple([a for a in found if a is not None])
    run = numpy_code(eliminate_dead_code(Program(inputs, tuple(equations), outputs, "backward")), from_list=True)
    if len(outputs) == len(found):
        return run
    nonzero = [a is not None for a in found]
    return lambda given: _spread(run(given), nonzero)


def _spread(values, flags):
    it = iter(values)
    return [next(it) if f else None for f in flags]

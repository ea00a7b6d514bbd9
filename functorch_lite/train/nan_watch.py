# SPDX-License-Identifier: MIT
"""Finding where the first NaN or infinity of a training step comes from.

When a metric or a leaf of the state is no longer finite, the step is run again on the state before it, equation by
equation, and the bad value is followed back to the equation that made it out of finite ones: into loops and branches,
past `where`s that drop a bad value, to the user's line.
"""

import cmath
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.backends.registry import on_device
from functorch_lite.compiler.trust.locate import BODY_RUNS, Part, values_of, without_effects
from functorch_lite.core import dtypes
from functorch_lite.core.primitive import Kind
from functorch_lite.core.program import Equation, Literal
from functorch_lite.errors import FunctorchLiteError, Source
from functorch_lite.transforms import closure_convert, make_program


class NonFiniteError(FunctorchLiteError, ArithmeticError):
    """A metric or a leaf of the state is no longer finite.

    step: the number of the step; path: of the leaf; primitive: what made the first bad value, or "". state, batch:
    what that step was given, to look at in a debugger.
    """

    def __init__(self, message: str, *, source: Source | None, step: int, path: str, primitive: str, given: Any):
        super().__init__(message, source=source)
        self.step = step
        self.path = path
        self.primitive = primitive
        self.state, self.batch = given


@dataclass(frozen=True, eq=False)
class Origin:
    """An equation that made a bad value.

    result: its bad output; part, values: the program it stands in, and the value of each variable there;
    where: the iterations of loops around it.
    """

    equation: Equation
    result: Any
    part: Part
    values: Mapping[Any, Any]
    where: tuple[str, ...] = ()

    @property
    def operands(self) -> list[Any]:
        """The values of its inputs."""
        return [_value(a, self.values) for a in self.equation.inputs]


class NanWatch:
    """Looks at what each step returns; for `fit(nan_watch=True)`."""

    def __init__(self, step: Callable[[Any, Any], Any]):
        self._step = step
        self._copies = getattr(step, "_donates", False)

    def before(self, state: Any) -> Any:
        """What must be kept of the state to run the step again: a copy where the step is given its memory."""
        return tree.map(lambda leaf: leaf.copy() if hasattr(leaf, "copy") else leaf, state) if self._copies else state

    def check(self, before: Any, batch: Any, state: Any, metrics: Mapping[str, Any], step: int) -> None:
        """Raise NonFiniteError if a metric, or a leaf of `state` that was finite before, is not finite."""
        leaves = tree.leaves((state, metrics))
        bad = [i for i, leaf in enumerate(leaves) if not is_finite(leaf)]
        if not bad:
            return
        earlier = tree.leaves(before)
        bad = [i for i in bad if i >= len(earlier) or is_finite(earlier[i])]
        if bad:
            self._report(before, batch, (state, metrics), step, bad)

    def _report(self, before, batch, result, step, bad):
        paths, leaves = tree.paths(result), tree.leaves(result)
        number = next((i for i in bad if paths[i].startswith("[1]")), bad[0])  # a metric, if there is one
        path = _metric_name(paths[number][3:]) if paths[number].startswith("[1]") else f"state{paths[number][3:]}"
        lines = [f"step {step}: `{path}` is no longer finite: {described(leaves[number])}."]
        found: list[Origin] = []
        cause = None
        try:
            part, names = self._traced(before, batch)
            found, more = explained(part, names, number)
            lines += more
        except Exception as error:  # the finding of the value is worth more than why its origin stays unknown
            lines.append(f"Where it comes from is unknown: tracing the step raised {type(error).__name__}.")
            cause = error
        first = found[0] if found else None
        raise NonFiniteError(
            "\n".join(lines), source=first.equation.source if first else None, step=step, path=path,
            primitive=first.equation.prim.name if first else "", given=(before, batch),
        ) from cause

    def _traced(self, before: Any, batch: Any) -> tuple[Part, list[str]]:
        """The step as a program with the values of its inputs, and what these are called."""
        _, captured = closure_convert(self._step, before, batch)
        program = make_program(self._step)(before, batch)
        leaves = [*captured, *tree.leaves((before, batch))]
        args = [
            leaf if on_device(leaf) else np.asarray(leaf, v.aval.dtype)
            for leaf, v in zip(leaves, program.inputs, strict=True)
        ]
        given = [f"`state{p}`" for p in tree.paths(before)] + [f"`batch{p}`" for p in tree.paths(batch)]
        return Part(without_effects(program), args), ["a captured array"] * len(captured) + given


def _metric_name(path: str) -> str:
    """`['loss']` -> `loss`; what a metric object holds keeps its path."""
    return path[2:-2] if path.count("[") == 1 and path.endswith("']") else path


def explained(part: Part, names: Sequence[str], output: int) -> tuple[list[Origin], list[str]]:
    """Where an output that is not finite comes from (the first bad value, the first of its kind), and that in words."""
    values = values_of(part)
    atom = part.program.outputs[output]
    if is_finite(_value(atom, values)):
        return [], ["Run equation by equation it stays finite; jit(step, verify=True) tells if it is miscompiled."]
    last = _maker(part, values, atom, _nans if _nans(_value(atom, values)).any() else _infinities)
    if not isinstance(last, Origin):
        return [], _of_input(part, names, last)
    first = _infinity_behind(last)
    lines = [] if first is None else [f"It becomes NaN by `{last.equation.prim.name}` at {last.equation.source}."]
    first = first or last
    where = f" in {', '.join(first.where)}" if first.where else ""
    made = described(_value(first.result, first.values))
    operands = ", ".join(described(v) for v in first.operands) or "nothing"
    lines.append(f"The first bad value is made{where} by `{first.equation.prim.name}`: {made},")
    return [first, last], [*lines, f"from {operands}."]


def _of_input(part: Part, names: Sequence[str], atom: Any) -> list[str]:
    if atom not in part.program.inputs:
        return ["It comes from a constant of the step."]
    return [f"It is in what the step was given: {names[part.program.inputs.index(atom)]}."]


def _infinity_behind(nan: Origin) -> Origin | None:
    """The equation that made the infinity of which a NaN was made (log(0) * 0), if there is one."""
    for atom in nan.equation.inputs:
        if _infinities(_value(atom, nan.values)).any():
            found = _maker(nan.part, nan.values, atom, _infinities)
            if isinstance(found, Origin):
                return replace(found, where=nan.where + found.where)
    return None


# --- following a bad value back ---------------------------------------------------------------------------------------


def _maker(part: Part, values: Mapping[Any, Any], atom: Any, bad: Callable[[Any], Any]) -> Any:
    """The equation that makes a bad value out of good ones, as an Origin; or the constant or input that brings it."""
    producers = {v: e for e in part.program.equations for v in e.outputs}
    while True:
        equation = producers.get(atom) if type(atom) is not Literal else None
        if equation is None:
            return atom
        before = _bringing(equation, values, atom, bad)
        if before is None:
            break
        atom = before
    return _inside(equation, values, bad) or Origin(equation, atom, part, values)


def _bringing(equation: Equation, values: Mapping[Any, Any], out: Any, bad: Callable[[Any], Any]) -> Any:
    """An operand that brings the bad value of `out`, or None."""
    marks = bad(values[out])
    for atom in equation.inputs:
        operand = bad(_value(atom, values))
        if equation.prim.kind is Kind.ELEMENTWISE and operand.shape == marks.shape:
            operand = operand & marks
        if operand.any():
            return atom
    return None


def _inside(equation: Equation, values: Mapping[Any, Any], bad: Callable[[Any], Any]) -> Origin | None:
    """The equation within a loop, branch or call that makes the bad value."""
    runs = BODY_RUNS.get(equation.prim)
    if runs is None:
        return None
    args = [_value(a, values) for a in equation.inputs]
    for number, part in enumerate(runs(args, **equation.params)):
        inner = values_of(part)
        for atom in part.program.outputs:
            if bad(_value(atom, inner)).any():
                found = _maker(part, inner, atom, bad)
                where = (f"iteration {number} of a {equation.prim.name}",) if equation.prim.name in _LOOPS else ()
                return replace(found, where=where + found.where) if isinstance(found, Origin) else None
    return None


_LOOPS = ("scan", "while")


def _value(atom: Any, values: Mapping[Any, Any]) -> Any:
    return atom.value if type(atom) is Literal else values[atom]


# --- what is bad ------------------------------------------------------------------------------------------------------


def is_finite(value: Any) -> bool:
    """Whether no number in an array or scalar is NaN or infinite; integers and anything else are finite."""
    if isinstance(value, float) or (type(value) is np.ndarray and not value.ndim and value.dtype.kind == "f"):
        return math.isfinite(value)
    if isinstance(value, complex):
        return cmath.isfinite(value)
    if not hasattr(value, "dtype") or not dtypes.is_inexact(value.dtype):
        return True
    return bool(np.isfinite(value).all())


def _nans(value: Any) -> Any:
    return _marks(value, np.isnan)


def _infinities(value: Any) -> Any:
    return _marks(value, np.isinf)


def _marks(value: Any, test: Callable[[Any], Any]) -> Any:
    if not hasattr(value, "dtype") or not dtypes.is_inexact(value.dtype):
        return np.zeros(np.shape(value) if hasattr(value, "dtype") else (), bool)
    return test(value)


def described(value: Any) -> str:
    """`float32[128] with 2 NaN, others in [-1, 0.5]`; of a scalar its value."""
    array = np.asarray(value.get() if on_device(value) else value)
    if array.ndim == 0:
        return f"{array.dtype}[] {array}"
    kind = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
    if not array.size or array.dtype.kind == "c" or not hasattr(array, "min"):
        return kind
    numbers = array.astype(np.float64) if dtypes.is_inexact(array.dtype) else array
    finite = numbers[np.isfinite(numbers)]
    tests = {"NaN": np.isnan, "inf": np.isposinf, "-inf": np.isneginf}
    odd = ", ".join(f"{test(numbers).sum()} {name}" for name, test in tests.items() if test(numbers).any())
    if not finite.size:
        return f"{kind} with {odd}"
    span = f"in [{finite.min():.4g}, {finite.max():.4g}]"
    return f"{kind} with {odd}, others {span}" if odd else f"{kind} {span}"

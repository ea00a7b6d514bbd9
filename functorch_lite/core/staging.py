# SPDX-License-Identifier: MIT
"""Staging: run a Python function on tracers that write down what it does, as a `Program`.

Everything computed while staging is recorded, functions of constants included (omnistaging). A captured array above
4 KB or on a device, and every captured tracer of an outer transform, becomes an input of the program, never a
constant in it.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.backends.registry import home, on_device
from functorch_lite.core.aval import Aval, Stack, StackAval, aval_of
from functorch_lite.core.known_trees import KnownTrees
from functorch_lite.core.program import AVAL, Atom, Equation, Literal, Program, Var
from functorch_lite.core.rules import RuleTable, shape_rules
from functorch_lite.core.tracer import Tag, Trace, Tracer, current_trace, reset_trace, root, set_trace
from functorch_lite.errors import user_source

LITERAL_BYTES = 4096
FEW = 8  # arguments, which a comprehension goes through faster than builtins do
_TAG, _VARIABLE = attrgetter("tag"), attrgetter("variable")

staging_rules = RuleTable(
    "staging", "(trace, args, **params) -> out: for primitives whose parameters are Python functions"
)


class StagingTracer(Tracer):
    """An array that does not exist yet: a variable of the program being written."""

    __slots__ = ("variable",)

    def __init__(self, tag: Tag, var: Var, weak: bool = False):
        self.tag = tag
        self.variable = var
        self.weak = weak

    @property
    def aval(self):
        return self.variable.aval


class Staged(NamedTuple):
    """A program and the values of its first inputs, which the function captured."""

    program: Program
    captured: list[Any]


class StagingTrace(Trace):
    """Writes an equation for each primitive.

    blocks: what was traced once for it (transforms/repeated.py). trees: those whose leaves are known.
    """

    __slots__ = ("equations", "captured", "literal_bytes", "blocks", "trees", "_known", "_keep")

    def __init__(self, name: str, parent: Trace, transform: str = "jit", literal_bytes: float = LITERAL_BYTES):
        self.tag = Tag(transform, name)
        self.parent = parent
        self.literal_bytes = literal_bytes
        self.equations: list[Equation] = []
        self.captured: dict[int, tuple[Var, Any]] = {}
        self.blocks: dict[Any, Any] = {}
        self.trees = KnownTrees()
        self._known: dict[int, Literal] = {}
        self._keep: list[Any] = []

    def process(self, prim, args, params):
        rule = staging_rules.get(prim)
        if rule is not None:
            return rule(self, args, **params)
        return self.emit(prim, args, params)

    def emit(self, prim, args, params):
        """Write the equation of `prim`, typed by its shape rule."""
        tag = self.tag
        atoms = self.atoms(args)
        out = shape_rules[prim](*map(AVAL, atoms), **params)
        outputs = tuple(map(Var, out)) if prim.multiple else (Var(out),)
        self.equations.append(Equation(prim, atoms, outputs, params, user_source()))
        return list(map(StagingTracer, repeat(tag), outputs)) if prim.multiple else StagingTracer(tag, outputs[0])

    def end(self) -> None:
        """Let go of what only the traced function needs; an escaped tracer says so from here on."""
        self.tag.end()
        self.blocks.clear()
        self.trees.clear()

    def inputs(self, avals: Sequence[Aval | StackAval], weak: Sequence[bool]) -> list[StagingTracer]:
        """New program inputs."""
        return list(map(StagingTracer, repeat(self.tag), map(Var, avals), weak))

    def atoms(self, values: Sequence[Any]) -> tuple[Atom, ...]:
        """The variables and literals that stand for values in this program."""
        if len(values) > FEW and {*map(type, values)} == {StagingTracer} and {*map(_TAG, values)} == {self.tag}:
            return tuple(map(_VARIABLE, values))
        tag = self.tag
        return tuple([v.variable if type(v) is StagingTracer and v.tag is tag else self.atom(v) for v in values])

    def atom(self, value: Any) -> Atom:
        """The variable or literal that stands for `value` in this program."""
        if type(value) is StagingTracer and value.tag is self.tag:
            return value.variable
        found = self.captured.get(id(value))
        if found is not None:
            return found[0]
        aval = aval_of(value)
        if self._must_capture(value, aval):
            var = Var(aval)
            self.captured[id(value)] = (var, value)
            return var
        return self._literal(value, aval)

    def _must_capture(self, value, aval):
        if isinstance(value, Tracer) or type(value) is Stack or on_device(value):
            return True
        return aval.size * aval.dtype.itemsize > self.literal_bytes

    def _literal(self, value, aval):
        if not aval.shape and not hasattr(value, "strides"):
            return Literal(value, aval)
        found = self._known.get(id(value))
        if found is None:
            found = self._known[id(value)] = Literal(value.copy() if isinstance(value, np.ndarray) else value, aval)
            self._keep.append(value)
        return found

    def finish(self, inputs: Sequence[StagingTracer], outputs: Sequence[Any]) -> Staged:
        """The program from `inputs` to `outputs`, captured values first."""
        out_atoms = self.atoms(outputs)
        captured = list(self.captured.values())
        in_vars = tuple(v for v, _ in captured) + tuple(map(_VARIABLE, inputs))
        program = Program(in_vars, tuple(self.equations), out_atoms, self.tag.name)
        return Staged(program, [value for _, value in captured])


def staging_trace() -> StagingTrace | None:
    """The innermost staged function that is being traced, None outside of all."""
    trace = current_trace()
    while trace is not root:
        if type(trace) is StagingTrace:
            return trace
        trace = trace.parent
    return None


def stage(
    fun: Callable[..., Sequence[Any]], avals: Sequence[Aval | StackAval], *, name: str = "f", transform: str = "jit",
    weak: Sequence[bool] = (), literal_bytes: float = LITERAL_BYTES, paths: Callable[[], list[str]] | None = None,
) -> Staged:
    """Run `fun` on one tracer for each of `avals` and return the program of what it did.

    paths: names the tracers in errors.
    """
    trace = StagingTrace(name, current_trace(), transform, literal_bytes)
    flags = weak or [False] * len(avals)
    inputs = trace.inputs(avals, flags)
    if paths is not None:
        trace.tag.arguments = inputs, paths
    token = set_trace(trace)
    try:
        return trace.finish(inputs, fun(*inputs))
    finally:
        reset_trace(token)
        trace.end()


def stage_closed(fun: Callable[..., Sequence[Any]], avals: Sequence[Aval | StackAval], *, name: str = "f") -> Program:
    """The program of a function that captures no tracer (one derived from another program), for any device."""
    token = home.set(np)
    try:
        program, captured = stage(fun, avals, name=name, literal_bytes=float("inf"))
    finally:
        home.reset(token)
    assert not captured, "a derived program captured a tracer"
    return program

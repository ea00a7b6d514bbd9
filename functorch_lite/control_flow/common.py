# SPDX-License-Identifier: MIT
"""What the loops and branches share: staging user functions to programs, and checking that types stay the same."""

from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite import tree
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, StackAval, aval_of
from functorch_lite.core.program import Program, Var, memoized
from functorch_lite.core.staging import stage, stage_closed
from functorch_lite.core.tracer import bind
from functorch_lite.errors import DTypeError, ShapeError, TreeError
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.higher_order import checkpoint_p
from functorch_lite.transforms.arguments import FlatFunction, canonical_leaves, check_outputs, is_weak, name_of
from functorch_lite.transforms.programs import Linearized


def flatten_values(what: str, fun: Callable[..., Any], value: Any, name: str) -> tuple[list[Any], list[bool], Any]:
    """Leaves (as arrays), which of them were Python scalars, and the structure."""
    leaves, treedef = tree.flatten(value)
    values, weak = canonical_leaves(what, fun, leaves, lambda: [name + p for p in tree.paths(value)])
    return values, weak, treedef


def stage_function(
    what: str, fun: Callable[..., Any], avals: Sequence[Any], rebuild: Callable[[Sequence[Any]], tuple[Any, ...]],
    weak: Sequence[bool] = (),
) -> tuple[Program, list[Any], Any, list[bool]]:
    """The program of `fun`, what it captured, the structure of its result, and which results are Python scalars."""
    flat_fun = FlatFunction(fun, lambda flat: (rebuild(flat), {}))
    out_weak: list[bool] = []

    def run(*tracers):
        outs = flat_fun(*tracers)
        check_outputs(what, fun, outs, flat_fun.out_tree)
        out_weak[:] = [is_weak(o) for o in outs]
        return outs

    program, captured = stage(run, avals, name=name_of(fun), transform=what, weak=weak)
    return program, captured, flat_fun.out_tree, out_weak


def check_carry(what: str, fun: Callable[..., Any], init_tree, out_tree, init_avals, out_avals, init: Any) -> None:
    """Refuse a loop body whose carry changes structure, shape or dtype, naming the leaf."""
    if out_tree != init_tree:
        a, b = tree.unflatten(init_tree, init_avals), tree.unflatten(out_tree, out_avals)
        message = tree.first_difference(a, b, is_leaf=lambda x: isinstance(x, Aval))
        raise TreeError(f"{what}: {name_of(fun)} must return a carry with the structure of the one it gets: {message}")
    for path, want, got in zip(tree.paths(init), init_avals, out_avals, strict=True):
        if want != got:
            kind = ShapeError if want.shape != got.shape else DTypeError
            raise kind(
                f"{what}: {name_of(fun)} must keep the type of the carry: "
                f"`carry{path}` comes in as {want} and goes out as {got}. "
                "Convert one with .astype or reshape, or change the initial value."
            )


def settle_weak(
    staged: Callable[[list[Any], list[bool]], tuple[Program, list[Any], Any, list[bool]]], carry: list[Any],
    weak: list[bool], carry_tree: Any, part: Callable[[Any], Any] = lambda out_tree: out_tree,
) -> tuple[list[Any], list[bool], tuple[Program, list[Any], Any, list[bool]]]:
    """The carry, which of it stays a Python scalar, and the staged body, once the body keeps both.

    An initial Python scalar gets the dtype that the body gives it, and stays one if the body makes one of it.
    part: the structure of the carry in that of the body's result, where the carry comes first.
    """
    while True:
        found = staged(carry, weak)
        body, _, out_tree, out_weak = found
        if not any(weak) or part(out_tree) != carry_tree:
            return carry, weak, found
        n = len(carry)
        promoted = _promoted(carry, weak, body.out_avals[:n])
        still = [a and b for a, b in zip(weak, out_weak[:n], strict=True)]
        if still == weak and all(a is b for a, b in zip(promoted, carry, strict=True)):
            return carry, weak, found
        carry, weak = promoted, still


def _promoted(values, weak, out_avals):
    """Initial Python scalars converted to the dtype that the body gives them, where that is wider."""
    result = []
    for v, w, out in zip(values, weak, out_avals, strict=True):
        aval = aval_of(v)
        if w and aval.dtype != out.dtype and aval.shape == out.shape == () and _widens(aval.dtype, out.dtype):
            v = convert(v, out.dtype)
        result.append(v)
    return result


def _widens(old, new):
    order = "biufc"
    return order.index(dtypes.dtype_kind(new)) >= order.index(dtypes.dtype_kind(old))


def merge_captured(programs: Sequence[Program], captured: Sequence[Sequence[Any]]) -> tuple[list[Program], list[Any]]:
    """The programs with one common list of captured inputs in front."""
    merged: dict[int, Any] = {id(v): v for values in captured for v in values}
    order = list(merged)
    result = []
    for program, values in zip(programs, captured, strict=True):
        own = {id(v): var for v, var in zip(values, program.inputs[: len(values)], strict=True)}
        front = tuple(own.get(key) or Var(aval_of(merged[key])) for key in order)
        result.append(
            Program((*front, *program.inputs[len(values) :]), program.equations, program.outputs, program.name)
        )
    return result, list(merged.values())


def recomputing(program: Program) -> Program:
    """A branch or loop body that keeps run-time stacks for its reverse pass, so that it computes them again there."""

    def fun(*args):
        return bind(checkpoint_p, *args, program=program, policy=None)

    return memoized(program, "recomputing", lambda: stage_closed(fun, program.in_avals, name=program.name))


def has_stacks(parts: Linearized, n_outs: int) -> bool:
    """Whether a residual of a linearized program is a run-time stack, which cannot itself be put into an array."""
    return any(isinstance(a, StackAval) for a in parts.forward.out_avals[n_outs:])

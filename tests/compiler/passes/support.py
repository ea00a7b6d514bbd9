# SPDX-License-Identifier: MIT
"""What the tests of passes share: programs of functions of primitives, boundary values, and what holds for any pass."""

from pathlib import Path

import numpy as np

from functorch_lite.compiler.passes.algebra import simplify
from functorch_lite.compiler.passes.canonical import canonicalize
from functorch_lite.compiler.passes.common import eliminate_common
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.compiler.passes.fold import fold_constants
from functorch_lite.compiler.passes.hoist import hoist_invariants
from functorch_lite.compiler.passes.inline import inline_calls
from functorch_lite.compiler.passes.merge import merge_calls
from functorch_lite.compiler.passes.recompute import recompute_in_scans
from functorch_lite.compiler.passes.roll import roll_blocks
from functorch_lite.core.aval import aval_of
from functorch_lite.core.check import check_program
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.core.program import program_text
from functorch_lite.core.staging import stage

GOLDEN = Path(__file__).parent / "golden"
PASSES = (
    merge_calls, inline_calls, eliminate_dead_code, fold_constants, canonicalize, eliminate_common, roll_blocks,
    simplify, eliminate_common, hoist_invariants, recompute_in_scans, eliminate_dead_code,
)


def program_of(fun, *args):
    """The program of `fun`, a function of arrays that returns a list."""
    program, captured = stage(fun, [aval_of(a) for a in args], name=getattr(fun, "__name__", "f"))
    assert not captured
    return program


def boundary(dtype, shape=()):
    """Values at which arithmetic is special, cycled through to fill `shape`; without a shape, each once."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        values = [False, True]
    elif dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = [0, 1, 2, 3, limits.max, limits.min, limits.max - 1, limits.min + 1, 7]
    else:
        limits = np.finfo(dtype)
        values = [0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, limits.max, limits.tiny, -limits.smallest_subnormal, 3]
    values = np.array(values, dtype)
    return np.resize(values, shape) if shape else values


def bits(value):
    """The value as unsigned integers, every NaN alike."""
    value = np.asarray(value)
    if value.dtype.kind == "c":
        return bits(np.stack([value.real, value.imag]))
    if value.dtype.kind != "f":
        return value
    value = np.where(np.isnan(value), value.dtype.type(np.nan), value).astype(value.dtype)
    return np.ascontiguousarray(value).view(f"u{value.dtype.itemsize}")


def run(program, args):
    with np.errstate(all="ignore"):
        return Evaluator(program)(*args)


def check_same_bits(before, after, args):
    """Both programs give the same types and bits."""
    for want, got in zip(run(before, args), run(after, args), strict=True):
        assert (np.shape(want), np.asarray(want).dtype) == (np.shape(got), np.asarray(got).dtype)
        np.testing.assert_array_equal(bits(want), bits(got), err_msg=f"{before}\n{after}")


def check_pass(transform, program, args=None):
    """What holds for any pass and program; the result of the pass.

    The result is well formed, takes and returns the same types, gives the same bits, is left alone when it comes again,
    and has its effects in the same order.
    """
    result = transform(program)
    check_program(result)
    assert result.in_avals == program.in_avals and result.out_avals == program.out_avals
    again = transform(result)
    assert program_text(again, exact=True) == program_text(result, exact=True)
    assert effects(result) == effects(program)
    if args is not None:
        check_same_bits(program, result, args)
    return result


def effects(program):
    """The effects of the top level and of called programs, in order."""
    found = []
    for eqn in program.equations:
        if eqn.prim.effect:
            found.append((eqn.prim.name, tuple(eqn.params.values())))
        elif eqn.prim.name in ("jit", "checkpoint"):
            found += effects(eqn.params["program"])
    return found


def check_golden_pass(check_golden, transform, name, program, args=None):
    """`check_pass`, and the texts before and after are those of `golden/<name>.txt`."""
    result = check_pass(transform, program, args)
    check_golden(GOLDEN / f"{name}.txt", f"{program}\n\n{transform.__name__}\n\n{result}\n")
    return result

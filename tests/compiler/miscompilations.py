# SPDX-License-Identifier: MIT
"""Compiler bugs, put in on purpose: what verification must find.

Each is a context manager in BUGS that breaks one rule of the compiler, with a function and arguments that it compiles
wrongly. `python -m tests.compiler.miscompilations NAME FILE` runs a reproducer with the bug in place.
"""

import runpy
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import functorch_lite as fl
from functorch_lite.compiler import native as native
from functorch_lite.compiler.codegen.llvm import carried, scalar_ops
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.lowering import group as lowering_group
from functorch_lite.compiler.lowering import program as lowering_program
from functorch_lite.compiler.lowering.rules import elementwise_rules
from functorch_lite.compiler.memory.plan import by_input
from functorch_lite.compiler.passes import common
from functorch_lite.compiler.passes.algebra import RULES
from functorch_lite.compiler.schedule import maps
from functorch_lite.primitives.elementwise import add_p, sub_p
from functorch_lite.primitives.movement import slice_p


class Bug(NamedTuple):
    """What breaks the compiler, a function it then compiles wrongly, its arguments, and words of the message."""

    breaks: Callable[[], AbstractContextManager[Any]]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    words: tuple[str, ...]


def _random(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


# --- the rules, broken ----------------------------------------------------------------------------------------------


def _swapped_sub():
    rule = elementwise_rules[sub_p]
    return mock.patch.dict(elementwise_rules, {sub_p: lambda at, a, b: rule(at, b, a)})


def _zero_for_max():
    before = lowering_group.identity
    return mock.patch.object(lowering_group, "identity", lambda combine, kind: 0 if combine == "max" else before(
        combine, kind))


def _short_loops():
    before = Builder.loop

    def loop(self, extent, *, vector=False):
        short = vector and isinstance(extent, int) and extent > 4
        return before(self, extent - 1 if short else extent, vector=vector)

    return mock.patch.object(Builder, "loop", loop)


def _no_mask_at_the_end():
    return mock.patch.object(carried, "kept", lambda w, c, value: value)


def _slices_forget_their_strides():
    def rule(shape, out, /, *, start, limit, strides):
        return maps.AxisMap(tuple(range(len(shape))), (1,) * len(shape), shape == out)

    def element(point, reads, index, *, start, limit, strides):
        return reads[0]([i + s for i, s in zip(index, start, strict=True)])

    return _both(mock.patch.dict(maps._MAPS, {slice_p: rule}),
                 mock.patch.dict(lowering_group.movement_rules, {slice_p: element}))


def _shares_memory_it_still_reads():
    def shareable(group, lowering, stored):
        return by_input([
            (i, k) for k, v in enumerate(stored) for i, a in enumerate(lowering.inputs) if a.aval == v.aval])

    return mock.patch.object(lowering_program, "_shareable", shareable)


def _nan_is_less():
    def less(e, kind, a, b):
        return e.compare("ult" if kind[0] == "f" else "slt", *e.same_lanes(a, b))

    return mock.patch.dict(scalar_ops.SCALAR_OPS, {"lt": less})


def _same_whatever_the_parameters():
    return mock.patch.object(common, "_equal_one", lambda candidates, eqn: next(iter(candidates), None))


def _bfloat16_truncates():
    def truncate(e, a):
        bits = e.convert("bitcast", a, "i32")
        return e.convert("trunc", e.binary("lshr", bits, e.constant(16, "i32", a.lanes)), "i16")

    return mock.patch.object(scalar_ops, "f32_to_bf16", truncate)


def _loops_stop_early():
    before = Builder.reduce

    def reduce(self, extent, initial, body, *, combine=(), vector=False):
        short = self.function.name == "program" and not combine
        return before(self, extent - 1 if short else extent, initial, body, combine=combine, vector=vector)

    return mock.patch.object(Builder, "reduce", reduce)


def _minus_is_plus():
    return mock.patch.dict(RULES, {sub_p: lambda eqn, rewriter: rewriter.emit(add_p, *eqn.inputs)})


def _branches_exchanged():
    before = lowering_program.Builder.branch

    def branch(self, condition, then, otherwise=lambda: None):
        return before(self, condition, otherwise, then)

    return mock.patch.object(lowering_program.Builder, "branch", branch)


@contextmanager
def _both(*managers):
    with ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        yield


# --- what they break ------------------------------------------------------------------------------------------------


def _twice_read(x, w):
    a = x @ w
    b = a[::-1] + a
    return b @ w


def _scanned(x):
    return fl.lax.scan(lambda c, row: (c + row, c * row), x[0], x)


BUGS: dict[str, Bug] = {
    "swapped operands": Bug(_swapped_sub, lambda x: np.tanh(x * 2 - x), (_random(33),), ("kernel", "sub")),
    "wrong identity": Bug(
        _zero_for_max, lambda x: np.max(x, axis=1) + 1, (-abs(_random(4, 9)),), ("kernel", "reduce_max")),
    "loops too short": Bug(_short_loops, lambda x: x * 2 + 1, (_random(37),), ("kernel", "mul")),
    "no mask at the end": Bug(
        _no_mask_at_the_end, lambda x: np.sum(np.exp(x)), (_random(37),), ("kernel", "exp", "reduce_sum")),
    "wrong stride": Bug(_slices_forget_their_strides, lambda x: x[1:31:3] * 2, (_random(40),), ("kernel", "slice")),
    "memory shared too early": Bug(
        _shares_memory_it_still_reads, _twice_read, (_random(8, 8), _random(8, 8)), ("between kernels", "rev")),
    "NaN is less": Bug(
        _nan_is_less, lambda x: np.where(x < 1, x, 2.0), (np.array([0.5, np.nan, 3.0], np.float32),), ("kernel", "lt")),
    "different parameters, one value": Bug(
        _same_whatever_the_parameters, lambda x: np.sum(x, axis=0) - np.sum(x, axis=1), (_random(5, 5),),
        ("pass eliminate_common", "reduce_sum")),
    "truncated rounding": Bug(
        _bfloat16_truncates, lambda x: x.astype(fl.numpy.bfloat16), (_random(20),), ("kernel", "convert")),
    "last iteration skipped": Bug(_loops_stop_early, _scanned, (_random(6, 4),), ("step scan", "scan")),
    "wrong rewriting": Bug(
        _minus_is_plus, lambda x, y: (x * y - y) * 2, (_random(7), _random(7)), ("pass simplify", "sub")),
    "wrong branch": Bug(
        _branches_exchanged, lambda x: fl.lax.cond(x[0] > 0, np.sin, np.cos, x), (_random(5),), ("step cond",)),
}


if __name__ == "__main__":
    with BUGS[sys.argv[1]].breaks():
        runpy.run_path(sys.argv[2], run_name="__main__")

# SPDX-License-Identifier: MIT
"""Quick code with small tiles: the same bits as the usual code, in the same memory; and who takes its place."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite.compiler import cost, native, pipeline
from functorch_lite.compiler.lowering.cutting import AS_USUAL, SHORT
from functorch_lite.compiler.runtime import engine, saved
from functorch_lite.compiler.runtime import executable as executables
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.compiler.runtime.tiers import MOST_SHORT, PER_LINE, improver, may_be_short, pays
from tests.compiler.support import kernel_module


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path):
    before = fl.config.cache_dir
    fl.config.update(cache_dir=str(tmp_path))
    objects.forget()
    yield
    improver.finish()
    fl.config.update(cache_dir=before)
    objects.forget()


def normal(*shape, dtype: Any = np.float32):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def executable_of(f):
    return next(reversed(f._cache.values())).executable


def softmax(x):
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


def conv(x, w, strides=(1, 1)):
    return lax.conv_general_dilated(x, w, strides, "SAME")


def gradients(x, w, strides):
    return fl.grad(lambda x, w: np.sum(np.tanh(conv(x, w, strides))), (0, 1))(x, w)


def attend(q, k):
    return fl.nn.scaled_dot_product_attention(q, k, k[..., :10], is_causal=True)


def gru(w, u, xs):
    return lax.scan(lambda h, x: ((h + np.tanh(x @ w + h @ u)) * np.float32(0.5), h), np.zeros_like(xs[0]), xs)


PRODUCTS = [
    (lambda x, y: x @ y, normal(m, k), normal(k, n))
    for m, k, n in [(4, 4, 4), (5, 3, 7), (37, 29, 53), (64, 64, 64), (1, 70, 90), (257, 2, 8), (31, 300, 100),
                    (130, 40, 200)]
] + [
    (lambda x, y: x.T @ y, normal(60, 70), normal(60, 90)),
    (lambda x, y: x @ y.T, normal(60, 70), normal(90, 70)),
    (lambda x, y: x.T @ y.T, normal(70, 60), normal(90, 70)),
    (lambda x, y: x @ y, normal(3, 20, 30), normal(3, 30, 40)),
    (lambda x, y: x @ y, normal(20, 30, dtype=np.float64), normal(30, 40, dtype=np.float64)),
    (lambda x, y: x @ y, normal(20, 30).astype(np.complex64), (1j * normal(30, 40)).astype(np.complex64)),
    (lambda x, y: x @ y, normal(20, 30).astype(np.float16), normal(30, 40).astype(np.float16)),
    (lambda x, y: x @ y, np.arange(600).reshape(20, 30), np.arange(1200).reshape(30, 40)),
    (lambda x, w: np.maximum(x @ w + np.float32(1), 0), normal(256, 128), normal(128, 64)),
    (lambda x, w: softmax(x @ w), normal(300, 40), normal(40, 120)),
    (lambda x, w: np.sum(np.tanh(x @ w)), normal(200, 50), normal(50, 120)),
    (lambda x, w: np.sum(np.tanh(x @ w), axis=0), normal(200, 50), normal(50, 120)),
    (lambda x, w: (np.tanh(x @ w), np.sum(np.tanh(x @ w), axis=0)), normal(256, 300), normal(300, 96)),
    (lambda x, w: x @ w.astype(np.float32), normal(8, 1024), normal(1024, 512).astype(np.float16)),
    (lambda x, w: np.tanh(x * 2) @ w, normal(200, 60), normal(60, 300)),
    (lambda x, w: fl.grad(lambda w: np.mean(softmax(np.tanh(x @ w) @ w.T) ** 2))(w), normal(100, 30), normal(30, 40)),
    (lambda x, w: conv(x, w).reshape(2, -1) @ np.ones((5 * 17 * 19, 9), np.float32), normal(2, 3, 17, 19),
     normal(5, 3, 3, 3)),
    (lambda x, w: np.tanh(conv(x, w)) @ np.ones((14, 9), np.float32), normal(2, 32, 14, 14), normal(40, 32, 3, 3)),
    (lambda x, w: fl.grad(lambda w: np.sum((conv(x, w) @ conv(x, w)) ** 2))(w), normal(2, 8, 9, 9),
     normal(16, 8, 3, 3)),
    (lambda w, xs: gru(w, w * 2, xs), normal(24, 24), normal(5, 10, 24)),
    (conv, normal(2, 32, 14, 14), normal(40, 32, 1, 1)),
    (lambda x, w: fl.grad(lambda w: np.sum(np.tanh(conv(conv(x, w), w[:32].reshape(32, 32, 1, 1)))))(w),
     normal(2, 32, 9, 9), normal(32, 32, 1, 1)),
    (lambda x, w: fl.grad(lambda w: np.mean((conv(x, w) @ conv(x, w)) ** 2))(w), normal(9, 16, 8, 8),
     normal(70, 16, 3, 3)),
    (conv, normal(2, 32, 14, 14), normal(40, 32, 3, 3)),
    (conv, normal(2, 3, 30, 40), normal(6, 3, 5, 5)),
    (lambda x, w: conv(x, w, (2, 2)), normal(2, 3, 33, 30), normal(20, 3, 7, 7)),
    (lambda x, w: lax.conv_general_dilated(x, w, (1, 1), [(2, 2), (2, 2)], lhs_dilation=(2, 2)),
     normal(2, 20, 16, 16), normal(11, 20, 4, 4)),
    (lambda x, w: lax.conv_general_dilated(x, w, (1, 1, 1), "SAME"), normal(2, 8, 6, 9, 10), normal(16, 8, 3, 3, 3)),
    (lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", feature_group_count=32), normal(2, 32, 12, 40),
     normal(32, 1, 3, 3)),
    (lambda x, w: fl.nn.MaxPool2d(2)(np.maximum(conv(x, w), 0)), normal(2, 3, 32, 32), normal(10, 3, 5, 5)),
    (lambda x, w: gradients(x, w, (1, 1)), normal(8, 24, 16, 16), normal(40, 24, 3, 3)),
    (lambda x, w: gradients(x, w, (2, 2)), normal(4, 3, 40, 40), normal(64, 3, 7, 7)),
    (lambda x, w: gradients(x, w, (1, 1)), normal(4, 20, 9, 9), normal(33, 20, 1, 1)),
    (lambda x, w: gradients(x, w, (1, 1)), normal(3, 16, 12, 12), normal(16, 16, 5, 5)),
    (lambda x, w: gradients(x, w, (2, 2)), normal(4, 3, 40, 40), normal(8, 3, 3, 3)),
    (lambda x, w: gradients(x, w, (2, 2)), normal(4, 1, 70, 70), normal(7, 1, 5, 5)),
    (lambda x, w: gradients(x, w, (1, 3)), normal(2, 2, 40, 90), normal(16, 2, 3, 5)),
    (attend, normal(3, 100, 16), normal(3, 90, 16)),
    (lambda q, k: fl.grad(lambda q, k: np.sum(np.tanh(attend(q, k))), (0, 1))(q, k), normal(2, 70, 24),
     normal(2, 70, 24)),
]


@pytest.mark.parametrize(("fun", "x", "y"), PRODUCTS)
def test_small_tiles_give_the_same_bits(fun, x, y):
    f = fl.jit(fun)
    first = fl.tree.leaves(f(x, y))
    executable = executable_of(f)
    assert executable.is_quick and executable.short
    executable.improve()
    assert not executable.is_quick and not executable.short
    for a, b in zip(fl.tree.leaves(f(x, y)), first, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(("fun", "x", "y"), PRODUCTS)
def test_the_better_code_is_lowered_anew_and_has_room(fun, x, y):
    optimized = pipeline.optimize(fl.jit(fun).lower(x, y).program)
    usual, short = (native.lower_program(optimized, cutting) for cutting in (AS_USUAL, SHORT))
    sizes = [low.plan().size for low in (usual, short)]
    assert sizes[0] <= sizes[1]
    assert len(usual.constants) == len(short.constants)


def test_there_is_less_code():
    x, y = normal(256, 128), normal(128, 256)
    f = fl.jit(lambda x, y: x @ y)
    f(x, y)
    executable = executable_of(f)
    short = executable.ir
    executable.improve()
    assert short.count("\n") < executable.ir.count("\n") / 2


def test_code_that_needs_more_memory_keeps_its_tiles():
    x, y = normal(50, 60), normal(60, 70)
    f = fl.jit(lambda x, y: np.tanh(x @ y) @ y.T)
    first = f(x, y)
    executable = executable_of(f)
    lowered = executable.lowered
    room, executable.arena_bytes = executable.arena_bytes, 0
    executable.improve()
    assert executable.lowered is lowered and not executable.is_quick
    executable.arena_bytes = room
    assert f(x, y).tobytes() == first.tobytes()


def test_constants_live_as_long_as_code_that_has_their_addresses():
    x, y = normal(60, 60, dtype=np.complex128), normal(60, 8, dtype=np.complex128)
    f = fl.jit(lambda x, y: fl.scipy.linalg.solve_triangular(x, y, lower=True) @ y.T)
    f(x, y)
    executable = executable_of(f)
    assert executable.short and executable.constants
    constants = [weakref.ref(c) for c in executable.constants]
    executable.improve()
    assert not executable.short
    gc.collect()
    assert all(c() is not None for c in constants)


def test_short_code_is_found_on_disk_and_improved_later():
    x, y = normal(100, 60), normal(60, 70)

    def made():
        objects.forget()
        f = fl.jit(lambda x, y: np.tanh(x @ y) * np.float32(2))
        return f, f(x, y)

    _, first = made()
    f, again = made()
    executable = executable_of(f)
    assert isinstance(executable, saved.SavedExecutable) and executable.is_quick and executable.short
    assert f(x, y).tobytes() == again.tobytes() == first.tobytes()
    improver.finish()
    assert not executable.is_quick and not executable.short
    assert f(x, y).tobytes() == first.tobytes()
    f, again = made()
    assert not executable_of(f).is_quick and again.tobytes() == first.tobytes()


def test_a_longer_first_call_has_small_tiles_in_well_made_code(monkeypatch):
    monkeypatch.setattr(executables, "pays", lambda *_: False)
    x, y = normal(50, 60), normal(60, 70)
    for kept in (False, True):
        objects.forget()
        f = fl.jit(lambda x, y: x @ y)
        first = f(x, y)
        executable = executable_of(f)
        assert executable.is_quick and executable.short and isinstance(executable, saved.SavedExecutable) == kept
        assert kept or executable.level == engine.USUAL
    executable.improve()
    assert not executable.is_quick and f(x, y).tobytes() == first.tobytes()
    assert executable.ir == f.lower(x, y).as_text("llvm")


def lines_of(f):
    return executable_of(f).ir.count("\n")


def test_what_runs_long_has_large_tiles_and_loops_over_kernels(monkeypatch):
    x, w = normal(2, 32, 14, 14), normal(40, 32, 3, 3)
    for fun, *args in ((conv, x, w), (lambda x, y: x @ y, normal(50, 60), normal(60, 70))):
        short, long = fl.jit(fun), fl.jit(fun)
        with monkeypatch.context() as patch:
            first = short(*args)
            patch.setattr(native, "may_be_short", lambda _: False)
            assert long(*args).tobytes() == first.tobytes()
        assert executable_of(long).short and lines_of(short) <= lines_of(long)
        executable_of(long).improve()
        assert executable_of(long).ir == long.lower(*args).as_text("llvm")


def test_what_has_no_products_is_lowered_as_usual(monkeypatch):
    f = fl.jit(lambda x: np.tanh(x) + np.sum(x))
    f(normal(40, 30))
    assert not executable_of(f).short
    monkeypatch.setattr(executables, "_is_bounded", lambda *_: False)
    g = fl.jit(lambda x, y: x.T @ y)
    x, y = normal(50, 60), normal(50, 70)
    g(x, y)
    assert not executable_of(g).short and executable_of(g).ir == g.lower(x, y).as_text("llvm")


def test_products_are_found():
    def found(fun, *args):
        return cost.has_products(fl.jit(fun).lower(*args).program)

    x, w = normal(10, 20), normal(20, 20)
    assert found(lambda x, w: lax.scan(lambda c, _: (c @ w, None), x, None, length=7)[0], x, w)
    assert not found(lambda x, w: x + w[:10], x, w)
    assert found(conv, normal(1, 2, 5, 5), normal(3, 2, 3, 3))
    assert not found(lambda x, w: np.sort(x) + w[:10], x, w)


def test_multiplications_are_counted():
    def count(fun, *args):
        return cost.multiplications(fl.jit(fun).lower(*args).program)

    x, w = normal(10, 20), normal(20, 20)
    assert count(lambda x, w: np.tanh(x @ w), x, w) == 4000
    assert count(lambda x, w: lax.scan(lambda c, _: (c @ w, None), x, None, length=7)[0], x, w) == 28000
    assert count(lambda x, w: lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ w, x), x, w) == np.inf
    assert count(conv, normal(1, 2, 5, 5), normal(3, 2, 3, 3)) == 3 * 25 * 18
    assert not may_be_short(MOST_SHORT * 2) and may_be_short(4000)


def test_an_operation_of_a_tile_counts_less():
    ir, work = "\n" * 100, int(2 * PER_LINE * 100)
    assert not pays(work, ir) and pays(work, ir, work / 2) and not pays(work * 3, ir, work) and pays(work // 3, ir)
    assert not pays(5 * work, ir, np.inf) and not pays(2 * work, ir, np.inf, short=True)


def test_quickly_made_transposes_have_no_shuffles():
    x, y = normal(60, 70), normal(90, 70)
    f = fl.jit(lambda x, y: x @ y.T)
    f(x, y)
    executable = executable_of(f)
    kernel = next(k for k in executable.lowered.kernels if "dot_general" in k.name)
    assert "transpose_32_simple" in kernel_module(kernel, quick=True)
    assert "transpose_32_simple" not in kernel_module(kernel)


@pytest.mark.parametrize("columns", [40, 300, 2500, 5000])
@pytest.mark.parametrize("rows", [29, 256])
@pytest.mark.parametrize("fun", [
    lambda x, w, y: np.tanh(x @ w) * y,
    lambda x, w, y: (np.tanh(x @ w) * y, x @ w),
    lambda x, w, y: (y - np.float32(0.1) * (x @ w)),
    lambda x, w, y: softmax(x @ w),
    lambda x, w, y: np.sum(np.tanh(x @ w) * y),
])
def test_wide_epilogues_have_room_in_the_better_code(fun, rows, columns):
    x, w, y = normal(rows, 20), normal(20, columns), normal(rows, columns)
    f = fl.jit(fun, donate_argnums=2)
    optimized = pipeline.optimize(f.lower(x, w, y).program)
    usual, short = (native.lower_program(optimized, cutting) for cutting in (AS_USUAL, SHORT))
    sizes = [low.plan().size for low in (usual, short)]
    assert sizes[0] <= sizes[1]
    first = fl.tree.leaves(f(x, w, y.copy()))
    executable = executable_of(f)
    assert executable.short
    executable.improve()
    assert executable.ir == f.lower(x, w, y).as_text("llvm")
    for a, b in zip(fl.tree.leaves(f(x, w, y.copy())), first, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(("fun", "rows", "columns"), [
    (lambda x, y: softmax(x @ y), 300, 300), (lambda x, y: np.maximum(x @ y, 0) @ y.T, 256, 500),
    (lambda x, y: np.sort(x @ y, 0) + np.cumsum(x @ y, 1), 400, 400),
], ids=("softmax", "relu", "sort"))
def test_forecasts_cover_first_calls_and_compiled_ones(fun, rows, columns):
    args = normal(rows, 200), normal(200, columns)
    f = fl.jit(fun)
    f(*args)
    lowered = f.lower(*args)
    assert executable_of(f).arena_bytes <= f.memory(*args).temporaries
    compiled = lowered.compile()._executable  # short code on disk does not take its place
    assert not compiled.short and compiled.arena_bytes == lowered.memory_analysis().temporaries

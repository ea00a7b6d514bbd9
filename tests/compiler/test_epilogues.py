# SPDX-License-Identifier: MIT
"""Products with what follows them in one kernel: against the evaluator and the interpreter, next to guard pages."""

import itertools
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite import lax, nn
from functorch_lite import numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.lowering import product_tiles
from functorch_lite.compiler.schedule import epilogues, parallel
from functorch_lite.compiler.schedule.fusion import Schedule
from functorch_lite.compiler.schedule.parallel import shared_loops
from functorch_lite.compiler.schedule.printer import schedule_text
from functorch_lite.core.evaluate import Evaluator
from tests.compiler import products
from tests.compiler.products import check_stays_inside, check_threads
from tests.compiler.test_programs_three_ways import check

F32 = np.float32
SIZES = ((1, 300, 70), (70, 1, 33), (65, 17, 1), (2, 3, 37), (13, 8, 16), (29, 5, 61), (64, 64, 64), (97, 31, 103),
         (33, 400, 50), (150, 20, 96), (31, 30, 300), (512, 4, 64), (530, 70, 40), (20, 1100, 131))  # fmt: skip


def floats(*shape: int, dtype: Any = F32) -> np.ndarray:
    return (np.random.default_rng(shape).standard_normal(shape) / 2).astype(dtype)


def operands(m: int, k: int, n: int, dtype: Any = F32) -> list[np.ndarray]:
    """x, w, a number a column, a number a row, and one an element."""
    shapes = (m, k), (k, n), (n,), (m, 1), (m, n)
    return [floats(*s, dtype=dtype) for s in shapes]


CHAINS = {
    "bias": lambda p, b, c, r: p + b,
    "bias of rows": lambda p, b, c, r: p * c + b,
    "relu": lambda p, b, c, r: fnp.maximum(p + b, p.dtype.type(0)),
    "gelu": lambda p, b, c, r: nn.gelu(p + b),
    "tanh": lambda p, b, c, r: fnp.tanh(p),
    "sigmoid": lambda p, b, c, r: nn.sigmoid(p) * p,
    "residual": lambda p, b, c, r: r + p * p.dtype.type(0.5),
    "update": lambda p, b, c, r: r - p.dtype.type(0.01) * p,
    "select": lambda p, b, c, r: fnp.where(r > 0, p, c),
    "cast": lambda p, b, c, r: ((p + b).astype(np.float64) * np.float64(1.5)).astype(p.dtype),
    "cast down": lambda p, b, c, r: p.astype(np.float16),
    "signs": lambda p, b, c, r: p > b,
    "three": lambda p, b, c, r: (p + b, fnp.tanh(p + b), p * r),
    "kept": lambda p, b, c, r: (p, p + r),
    "bias gradient": lambda p, b, c, r: (p * r, (p * r).sum(0)),
}


REDUCING = {
    "softmax": lambda p, b, c, r: nn.softmax(p + b, -1),
    "norm": lambda p, b, c, r: (p - p.mean(1, keepdims=True)) / (p.var(1, keepdims=True) + p.dtype.type(1)),
    "largest": lambda p, b, c, r: fnp.max(p * b, 1),
    "sums of rows": lambda p, b, c, r: (p.sum(1), (p * p).sum(1) + c[:, 0], p * r),
    "kept": lambda p, b, c, r: (p, fnp.tanh(p).sum(1)),
    "loss": lambda p, b, c, r: ((p + b - r) ** 2).sum(),
    "loss and gradient": lambda p, b, c, r: (((p - r) ** 2).mean(), p - r, p),
    "two losses": lambda p, b, c, r: (fnp.abs(p).max() + b[0], (p * c).sum()),
}  # fmt: skip


def layer(chain):
    return lambda x, w, b, c, r: chain(x @ w, b, c, r)


def schedule_of(fun, *args) -> str:
    return schedule_text(Schedule(pipeline.optimize(fl.make_program(fun)(*args))))


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_chains_of_products_of_many_sizes(name, sizes):
    interpreted = math.prod(sizes) < 9_000 and name in ("bias", "residual", "three")
    check(layer(CHAINS[name]), operands(*sizes), interpreted=interpreted)


@pytest.fixture
def every_size(monkeypatch):
    """Have reductions of a product in its kernel, however small it is."""
    monkeypatch.setattr(epilogues, "LARGE_REDUCED", 1)


@pytest.mark.parametrize("name", REDUCING)
def test_reductions_of_products_of_many_sizes(name, every_size):
    for sizes in (*SIZES, (0, 5, 7), (5, 0, 7), (5, 7, 0)):
        if min(sizes) or name not in ("softmax", "largest", "two losses"):
            interpreted = sizes == (29, 5, 61) and name in ("norm", "loss and gradient")
            check(layer(REDUCING[name]), operands(*sizes), interpreted=interpreted)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["sums of rows", "kept", "loss and gradient"])
def test_reductions_in_other_precisions(name, dtype, every_size):
    check(layer(REDUCING[name]), operands(21, 19, 35, dtype), interpreted=False)


def test_reductions_of_batched_products(every_size):
    x, y = floats(5, 9, 11), floats(5, 11, 33)
    check(lambda x, y: (nn.softmax(x @ y, -1), (x @ y).sum()), [x, y], interpreted=False)
    check(lambda x, y: nn.softmax((x @ y).reshape(5, 9, 3, 11), -1), [x, y], interpreted=False)
    check(lambda x, y: ((x.reshape(45, 11) @ y[0]).reshape(5, 9, 33) ** 2).sum(), [x, y], interpreted=False)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["relu", "residual", "kept", "cast"])
def test_chains_in_other_precisions(name, dtype):
    check(layer(CHAINS[name]), operands(21, 19, 35, dtype), interpreted=name == "residual")


def test_chains_of_integers():
    args = [(a * 9).astype(np.int32) for a in operands(21, 19, 35)]
    check(lambda x, w, b, c, r: fnp.maximum(x @ w + b, c) - r, args, [True])


def test_half_precision_is_rounded_before_the_chain():
    x, w = (floats(*s, dtype=np.float16) for s in ((9, 300), (300, 40)))
    executable = check(lambda x, w: (x @ w).astype(F32) * F32(3), [x, w])
    (out,) = executable(x, w)
    np.testing.assert_array_equal(out / F32(3), (out / F32(3)).astype(np.float16).astype(F32))


LAYOUTS = {
    "transposed left": lambda x, w, b, c, r: fnp.tanh(x.reshape(x.shape[::-1]).T @ w + b),
    "transposed right": lambda x, w, b, c, r: fnp.tanh(x @ w.reshape(w.shape[::-1]).T + b),
    "reversed": lambda x, w, b, c, r: fnp.tanh(w.T @ x.T + c.T),
    "in more axes": lambda x, w, b, c, r: fnp.tanh((x @ w).reshape(4, -1, w.shape[1]) + b),
    "bias of an inner axis": lambda x, w, b, c, r: (x @ w).reshape(4, -1, w.shape[1]) + c.reshape(4, -1, 1)[:1],
    "heads": lambda x, w, b, c, r: (x @ w).reshape(x.shape[0], -1, 7) * b[:7],
    "turned": lambda x, w, b, c, r: (x @ w).T + c.T,
    "sliced": lambda x, w, b, c, r: (x @ w)[1:] + b,
    "flat": lambda x, w, b, c, r: fnp.tanh((x @ w).reshape(-1)),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("sizes", [(20, 6, 35), (64, 300, 70)], ids=str)
def test_layouts_of_operands_and_results(name, sizes):
    check(LAYOUTS[name], operands(*sizes), interpreted=False)


BATCHED = {**products.BATCHED, "inner": ("bk,bk->b", (80, 7), (80, 7))}


@pytest.mark.parametrize("name", BATCHED)
def test_batched_products(name):
    spec, *shapes = BATCHED[name]
    x, y = (floats(*s) for s in shapes)
    full = floats(*np.einsum(spec, x, y).shape)
    check(lambda x, y, b, full: fnp.tanh(fnp.einsum(spec, x, y) + b) * full, [x, y, full[..., :1].copy(), full],
          interpreted=name == "shared")


def test_a_batch_with_its_own_bias():
    x, y, b = floats(6, 9, 11), floats(6, 11, 33), floats(6, 1, 33)
    check(lambda x, y, b: fnp.maximum(x @ y + b, F32(0)), [x, y, b])


def test_infinities_and_nan():
    x, w, b, c, r = operands(20, 19, 35)
    x[2, 3], w[4, 5], b[6], r[0, 0] = np.inf, np.nan, -np.inf, np.nan
    check(layer(CHAINS["residual"]), [x, w, b, c, r])
    check(layer(CHAINS["relu"]), [x, w, b, c, r])


@given(st.tuples(*[st.integers(1, 80)] * 3), st.sampled_from(sorted(CHAINS)), st.booleans())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_random_sizes(sizes, name, transposed):
    x, w, *others = operands(*sizes)
    fun = layer(CHAINS[name])
    if transposed:
        x, fun = x.T.copy(), lambda x, *rest: layer(CHAINS[name])(x.T, *rest)
    check(fun, [x, w, *others], interpreted=False)


# --- blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "residual", "three", "kept", "bias gradient", "softmax", "loss"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_jobs_blocks_of_k_and_boxes(monkeypatch, name, order, every_size):
    for constant, value in (("DEPTH_BYTES", 64), ("DIRECT_BYTES", 1 << 10), ("PACKED_BYTES", 4 << 10),
                            ("BOX_BYTES", 1 << 10), ("MANY_ROWS", 60)):  # fmt: skip
        monkeypatch.setattr(product_tiles, constant, value)
    for sums in (0, 128 << 10):
        monkeypatch.setattr(product_tiles, "SUMS_BYTES", sums)
        for sizes in ((50, 40, 70), (96, 12, 64), (70, 33, 290)):
            x, *rest = operands(*sizes)
            check(lambda x, *rest: layer((CHAINS | REDUCING)[name])(x.transpose(order), *rest),
                  [np.array(x.transpose(order), order="C"), *rest], interpreted=False)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", ["residual", "three", "kept", "bias gradient", "softmax", "loss and gradient"])
def test_kernels_stay_inside_their_arrays(name, at_end, every_size):
    for sizes in ((1, 9, 70), (7, 40, 17), (97, 31, 103), (33, 400, 50)):
        check_stays_inside(layer((CHAINS | REDUCING)[name]), operands(*sizes), at_end)


@pytest.fixture
def eager(monkeypatch):
    """Share every loop that may be shared, however short."""
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)
    monkeypatch.setattr(parallel, "GRAIN_NS", 0.0)


@pytest.mark.parametrize("name", [*CHAINS, *REDUCING])
@pytest.mark.parametrize("sizes", [(97, 31, 103), (530, 70, 40), (120, 40, 600)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(name, sizes, eager, every_size):
    check_threads(layer((CHAINS | REDUCING)[name]), operands(*sizes))


def test_the_loop_of_the_tiles_is_the_one_that_is_shared():
    for sizes in ((768, 128, 512), (768, 512, 128), (128, 784, 256), (4096, 64, 64)):
        program = pipeline.optimize(fl.make_program(layer(CHAINS["relu"]))(*operands(*sizes)))
        (kernel,) = native.compile_native(program, program).lowered.kernels
        loops = shared_loops(kernel)
        shared = [s for s in parallel.every(kernel.body) if id(s) in loops]
        assert any(getattr(s, "op", "") == "fma" for s in parallel.every(shared))


# --- what is fused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(CHAINS) - {"bias gradient"}))
def test_a_chain_and_its_product_are_one_kernel(name):
    text = schedule_of(layer(CHAINS[name]), *operands(20, 30, 40))
    assert text.count("\n") == 1 and text.startswith("kernel 20x40 = dot_general")


def test_the_sums_of_a_bias_are_complete_after_the_kernel():
    text = schedule_of(layer(CHAINS["bias gradient"]), *operands(20, 30, 40))
    assert text == "kernel 20x40 = dot_general mul reduce_sum*\n"


@pytest.mark.parametrize("fun", [
    lambda x, w, b, c, r: (x @ w)[::-1] + r,
    lambda x, w, b, c, r: (x @ w)[:, None] + r[:, :, None].transpose(0, 2, 1) * fnp.ones((1, 3, 1), F32),
    lambda x, w, b, c, r: nn.softmax(x @ w, 0),
    lambda x, w, b, c, r: (v := x @ w + r) / fnp.sum(v),
], ids=["another order", "read again and again", "columns", "spread again"])
def test_what_is_no_chain_is_left_alone(fun, every_size):
    assert "step dot_general" in schedule_of(fun, *operands(20, 30, 40))


@pytest.mark.parametrize("name", REDUCING)
def test_reductions_are_in_the_kernel_of_the_product(name, every_size):
    text = schedule_of(layer(REDUCING[name]), *operands(20, 30, 40))
    assert text.count("\n") == 1 and text.startswith("kernel 20x40 in rows of ")


@pytest.mark.parametrize("sizes", [(64, 100, 1024), (1, 30, 40), (600, 400, 64)], ids=str)
def test_reductions_of_rows_that_are_not_whole_are_left_alone(sizes, every_size):
    assert "step dot_general" in schedule_of(layer(REDUCING["softmax"]), *operands(*sizes))


def test_a_second_reader_reads_what_is_stored():
    def two(x, w, b, c, r):
        p = x @ w
        return fnp.tanh(p + b), fnp.cumsum(p, 0)

    args = operands(40, 30, 50)
    assert schedule_of(two, *args).startswith("kernel 40x50 = dot_general add tanh")
    check(two, args)


def test_a_chain_that_needs_what_needs_the_product_is_left_alone():
    def normalized(x, w, b, c, r):
        p = x @ w
        return p / (F32(1) + fnp.cumsum(p * p, 0)[-1:])

    args = operands(40, 30, 50)
    text = schedule_of(normalized, *args)
    assert "kernel 40x50 = dot_general mul\n" in text and text.count("dot_general") == 1
    check(normalized, args)


def test_a_chain_that_also_reads_the_product_in_another_order_is_left_alone():
    def mixed(x, w, b, c, r):
        p = x @ w
        return p + p.T.reshape(p.shape)

    args = operands(40, 30, 50)
    assert schedule_of(mixed, *args).startswith("step dot_general")
    check(mixed, args, interpreted=False)


def test_the_later_of_two_products_takes_the_chain():
    def cell(x, w, h, u, b):
        return fnp.tanh(x @ w + h @ u + b)

    args = floats(40, 30), floats(30, 50), floats(40, 50), floats(50, 50), floats(50)
    assert schedule_of(cell, *args) == "step dot_general\nkernel 40x50 = dot_general add add tanh\n"
    check(cell, args)


def test_equal_products_share_a_kernel_with_or_without_a_chain():
    def alike(x, ws, bs):
        return [fnp.maximum(x @ w + b, F32(0)) for w, b in zip(ws, bs, strict=True)]

    def unlike(x, ws, bs):
        return [fnp.tanh(x @ ws[0]), *(fnp.cumsum(x @ w, 0) for w in ws[1:])]

    args = floats(20, 30), [floats(30, 40) + k for k in range(3)], list(floats(3, 40))
    assert schedule_of(alike, *args) == "kernel 20x40 = dot_general add max\n" * 3
    program = pipeline.optimize(fl.make_program(alike)(*args))
    assert len(native.compile_native(program, program).lowered.kernels) == 1
    assert schedule_of(unlike, *args).count("step dot_general") == 3


def test_chains_of_long_rows_in_blocks_of_columns_move_little():
    args = operands(64, 100, 1024)
    assert schedule_of(layer(CHAINS["relu"]), *args).startswith("kernel 64x1024 = dot_general")
    assert schedule_of(layer(CHAINS["residual"]), *args).startswith("step dot_general")
    assert schedule_of(layer(CHAINS["relu"]), *operands(600, 500, 1024)).startswith("step dot_general")
    assert schedule_of(layer(CHAINS["residual"]), *operands(600, 50, 1024)).startswith("kernel 600x1024 = dot_general")


def test_the_sizes_of_blocks_are_those_of_the_lowering():
    assert epilogues.PACKED_BYTES == product_tiles.PACKED_BYTES and epilogues.MANY_ROWS == product_tiles.MANY_ROWS
    assert epilogues.DEPTH * 4 == product_tiles.DEPTH_BYTES


# --- memory ---------------------------------------------------------------------------------------------------------


def test_a_fused_product_needs_no_memory():
    args = operands(256, 64, 128)
    assert fl.jit(layer(CHAINS["relu"])).memory(*args).temporaries < 64 << 10
    assert fl.jit(layer(CHAINS["residual"])).memory(*args).temporaries < 64 << 10


@pytest.mark.parametrize("depth", [20, 500])
def test_an_updated_carry_stays_in_its_place(depth):
    def train(w, xs, ys):
        def step(w, xy):
            return w - F32(0.01) * (xy[0].T @ xy[1]), None

        return lax.scan(step, w, (xs, ys))[0]

    args = [floats(40, 50), floats(3, depth, 40), floats(3, depth, 50)]
    check(train, args, interpreted=depth < 100)
    text = fl.jit(train).lower(*args).as_text("loop_ir")
    assert "  copy" not in text.split("\n\n")[0].split("for ")[1]


def test_a_product_of_its_own_carry_is_not_written_over_it():
    def power(w, b):
        return lax.fori_loop(0, 4, lambda i, w: fnp.tanh(w @ w + b) + w, w)

    check(power, [floats(40, 40), floats(40)])


def test_donated_weights_are_updated_in_their_place():
    fun = fl.jit(lambda w, x, y: w - F32(0.01) * (x.T @ y), donate_argnums=0)
    for depth in (30, 500):
        w, x, y = floats(40, 50), floats(depth, 40), floats(depth, 50)
        expected = w - F32(0.01) * (x.T @ y)
        np.testing.assert_allclose(fun(w.copy(), x, y), expected, 1e-5, 1e-5)


def test_gradients_of_a_network_are_the_evaluator_s():
    def loss(params, x):
        for w, b in params:
            x = fnp.tanh(x @ w + b)
        return (x * x).mean()

    sizes = (30, 70, 40, 10)
    params = [(floats(a, b), floats(b)) for a, b in itertools.pairwise(sizes)]
    program = fl.make_program(lambda p, x: fl.grad(loss)(p, x))(params, floats(90, 30))
    flat = [*itertools.chain(*params), floats(90, 30)]
    executable = native.compile_native(program, pipeline.optimize(program))
    for found, expected in zip(executable(*flat), Evaluator(program)(*flat), strict=True):
        np.testing.assert_allclose(found, expected, 1e-4, 1e-6)


def test_long_sums_after_a_product_of_few_columns_are_shared_in_parts():
    fun = layer(CHAINS["bias gradient"])
    args = operands(6000, 5, 64)
    executable = check(fun, args, interpreted=False)
    (kernel,) = executable.lowered.kernels
    assert kernel.scratch  # the sums of the parts
    loops = shared_loops(kernel)
    assert len([s for s in parallel.every(kernel.body) if id(s) in loops]) >= 2


def test_what_follows_sums_down_a_large_array_is_another_kernel():
    def step(x, b):
        return b - F32(0.1) * (x * x).sum(0)

    small, large = (schedule_of(step, floats(n, 64), floats(64)) for n in (100, 1024))
    assert small.count("\n") == 1
    assert large == "kernel 1024x64 in rows of 1024 = mul reduce_sum\nkernel 64 = mul sub\n"
    check(step, [floats(1024, 64), floats(64)], interpreted=False)
    check(lambda x: x - fnp.mean(x, 0), [floats(1024, 64)], interpreted=False)

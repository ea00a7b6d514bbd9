# SPDX-License-Identifier: MIT
"""Products with what computes their operands in one kernel: against the evaluator, next to guard pages."""

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite import numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.lowering import computed_product, product_tiles
from functorch_lite.compiler.schedule import parallel, prologues
from functorch_lite.compiler.schedule.fusion import Schedule
from functorch_lite.compiler.schedule.printer import schedule_text
from functorch_lite.core.evaluate import Evaluator
from tests.compiler import products
from tests.compiler.products import check_stays_inside, check_threads
from tests.compiler.test_programs_three_ways import check

F32 = np.float32
BF16 = ml_dtypes.bfloat16
SIZES = ((1, 300, 70), (70, 1, 33), (65, 17, 1), (2, 3, 37), (4, 130, 17), (13, 8, 16), (29, 5, 61), (64, 64, 64),
         (97, 31, 103), (33, 400, 50), (31, 30, 300), (530, 70, 40), (20, 1100, 131), (600, 129, 65))  # fmt: skip


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    """Make a prologue of whatever may be one, however small."""
    monkeypatch.setattr(prologues, "LARGE", 1)
    monkeypatch.setattr(prologues, "NARROW", 1 << 20)


def floats(*shape: int, dtype: Any = F32) -> np.ndarray:
    return (np.random.default_rng(shape).standard_normal(shape) / 2).astype(dtype)


def operands(m: int, k: int, n: int, dtype: Any = F32) -> list[np.ndarray]:
    """x, w; for a prologue: a number for each row and for each column of x, and of w; arrays like x and like w."""
    shapes = (m, k), (k, n), (m, 1), (k,), (k, 1), (n,), (m, k), (k, n)
    return [floats(*s, dtype=dtype) for s in shapes]


def weak(x: Any, number: float) -> Any:
    return x.dtype.type(number)


CHAINS = {
    "scale": lambda w, r, c, g: w * weak(w, 0.5),
    "columns": lambda w, r, c, g: w * c,
    "rows": lambda w, r, c, g: w * r + c,
    "mask": lambda w, r, c, g: fnp.where(g > 0, w, weak(w, 0)),
    "product": lambda w, r, c, g: w * g,
    "tanh": lambda w, r, c, g: fnp.tanh(w) - c,
    "cast": lambda w, r, c, g: w.astype(BF16).astype(w.dtype),
    "triangle": lambda w, r, c, g: fnp.tril(w * weak(w, 2)) + c,
}


def right(chain):
    return lambda x, w, xr, xc, wr, wc, xg, wg: x @ chain(w, wr, wc, wg)


def left(chain):
    return lambda x, w, xr, xc, wr, wc, xg, wg: chain(x, xr, xc, xg) @ w


def both(chain):
    return lambda x, w, xr, xc, wr, wc, xg, wg: chain(x, xr, xc, xg) @ chain(w, wr, wc, wg) + wc


SIDES = {"left": left, "right": right, "both": both}


def schedule_of(fun, *args) -> str:
    return schedule_text(Schedule(pipeline.optimize(fl.make_program(fun)(*args))))


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", CHAINS)
def test_prologues_of_products_of_many_sizes(name, side):
    for sizes in SIZES:
        interpreted = side == "both" and sizes == (13, 8, 16)
        check(SIDES[side](CHAINS[name]), operands(*sizes), interpreted=interpreted)


@pytest.mark.parametrize("sizes", [(0, 5, 7), (5, 0, 7), (5, 7, 0), (1, 1, 1)], ids=str)
def test_products_of_nothing(sizes):
    check(both(CHAINS["rows"]), operands(*sizes), interpreted=False)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BF16], ids=str)
@pytest.mark.parametrize("side", SIDES)
def test_other_precisions(side, dtype):
    for sizes in ((21, 19, 35), (3, 70, 40), (40, 130, 70)):
        check(SIDES[side](CHAINS["rows"]), operands(*sizes, dtype), interpreted=False)


def test_integers():
    args = [(a * 9).astype(np.int32) for a in operands(21, 19, 35)]
    check(both(CHAINS["rows"]), args, [True])


@pytest.mark.parametrize("dtype", [np.float16, BF16, np.int8, np.uint8, np.bool_], ids=str)
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_casts_from_narrower_types(rows, dtype):
    x, w = floats(rows, 70), (floats(70, 50) * 9).astype(dtype)
    check(lambda x, w: x @ w.astype(F32), [x, w], interpreted=False)
    check(lambda x, w: w.T.astype(F32) @ x.T, [x, w], interpreted=False)


@pytest.mark.parametrize("dtype", [np.float16, BF16], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_half_precision_is_widened_on_the_way(sizes, dtype):
    x, w, *_ = operands(*sizes, dtype=dtype)
    check(lambda x, w: x @ w, [x, w], interpreted=False)
    check(lambda x, w: w.T @ x.T, [x, w], interpreted=False)


LAYOUTS = {
    "transposed left": lambda x, w, xr, xc, wr, wc, xg, wg: (x * xr + xc).reshape(x.shape[::-1]).T @ w,
    "transposed left before": lambda x, w, xr, xc, wr, wc, xg, wg: fnp.tanh(x.reshape(x.shape[::-1]).T) @ w,
    "transposed right": lambda x, w, xr, xc, wr, wc, xg, wg: x @ (w * wg).reshape(w.shape[::-1]).T,
    "transposed both": lambda x, w, xr, xc, wr, wc, xg, wg: (w * wc).T @ (x * xr).T,
    "columns of the turned": lambda x, w, xr, xc, wr, wc, xg, wg: (w * wr).T @ (x * xc).T,
    "of itself": lambda x, w, xr, xc, wr, wc, xg, wg: (x * xr).T @ (x * xr),
    "of itself, one side": lambda x, w, xr, xc, wr, wc, xg, wg: x.T @ (x * xr),
    "in more axes": lambda x, w, xr, xc, wr, wc, xg, wg: x @ (w.reshape(-1, 5, w.shape[1]) * wc).reshape(w.shape),
    "numbers of an inner axis": lambda x, w, xr, xc, wr, wc, xg, wg: x @ (
        w.reshape(-1, 5, w.shape[1]) * wr.reshape(-1, 5, 1)[:1]).reshape(w.shape),
    "sliced": lambda x, w, xr, xc, wr, wc, xg, wg: x[:, 5:] @ (w[5:] * wg[:-5]),
    "turned round": lambda x, w, xr, xc, wr, wc, xg, wg: x @ (w[::-1] * wg),
    "vector": lambda x, w, xr, xc, wr, wc, xg, wg: (x * xg) @ xc,
    "vector on the left": lambda x, w, xr, xc, wr, wc, xg, wg: xc @ fnp.tanh(w),
    "inner": lambda x, w, xr, xc, wr, wc, xg, wg: fnp.vdot(x * xg, xg + x),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("sizes", [(20, 10, 35), (64, 300, 70), (3, 200, 130)], ids=str)
def test_layouts_of_operands(name, sizes):
    check(LAYOUTS[name], operands(*sizes), interpreted=False)


BATCHED = {
    **products.BATCHED,
    "two contracted, crossed": ("ikl,lkj->ij", (30, 4, 5), (5, 4, 36)),
    "heads": ("bqhd,bkhd->bhqk", (2, 9, 3, 8), (2, 7, 3, 8)),
}


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("name", BATCHED)
def test_batched_products(name, side):
    spec, *shapes = BATCHED[name]
    x, y = (floats(*s) for s in shapes)

    def product(x, y, a, b):
        x = fnp.tanh(x) * a if side != "right" else x
        y = y * b + b if side != "left" else y
        return fnp.einsum(spec, x, y)

    check(product, [x, y, x[..., :1].copy(), y[..., :1].copy()], interpreted=name == "shared")


def test_infinities_and_nan():
    args = operands(20, 19, 35)
    args[0][2, 3], args[1][4, 5], args[3][6], args[7][0, 0] = np.inf, np.nan, -np.inf, np.nan
    check(both(CHAINS["rows"]), args, interpreted=False)
    check(right(CHAINS["mask"]), args, interpreted=False)


@given(st.tuples(*[st.integers(1, 80)] * 3), st.sampled_from(sorted(CHAINS)), st.sampled_from(sorted(SIDES)))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_random_sizes(sizes, name, side):
    check(SIDES[side](CHAINS[name]), operands(*sizes), interpreted=False)


@pytest.mark.parametrize("side", SIDES)
def test_the_bits_are_those_of_an_operand_in_memory(side, monkeypatch):
    for sizes in ((64, 64, 64), (97, 31, 103), (530, 70, 40), (7, 200, 130)):
        args = operands(*sizes)
        found = []
        for least in (1, 1 << 60):
            monkeypatch.setattr(prologues, "LARGE", least)
            program = fl.make_program(SIDES[side](CHAINS["rows"]))(*args)
            found.append(native.compile_native(program, pipeline.optimize(program))(*args)[0])
        np.testing.assert_array_equal(*found)


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_jobs_blocks_of_k_and_rows(monkeypatch, side, order):
    for constant, value in (("DEPTH_BYTES", 64), ("DIRECT_BYTES", 1 << 10), ("PACKED_BYTES", 4 << 10),
                            ("BOX_BYTES", 1 << 10), ("MANY_ROWS", 60)):  # fmt: skip
        monkeypatch.setattr(product_tiles, constant, value)
    monkeypatch.setattr(computed_product, "ROWS_BYTES", 1 << 10)
    monkeypatch.setattr(prologues, "is_one_job", lambda product: True)
    for sizes in ((50, 40, 70), (96, 12, 64), (70, 33, 290)):
        x, *rest = operands(*sizes)
        check(lambda x, *rest: SIDES[side](CHAINS["rows"])(x.transpose(order), *rest),
              [np.array(x.transpose(order), order="C"), *rest], interpreted=False)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("side", SIDES)
def test_kernels_stay_inside_their_arrays(side, at_end):
    for sizes in ((1, 9, 70), (7, 40, 17), (97, 31, 103), (33, 400, 50)):
        check_stays_inside(SIDES[side](CHAINS["product"]), operands(*sizes), at_end)


@pytest.fixture
def eager(monkeypatch):
    """Share every loop that may be shared, however short."""
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)
    monkeypatch.setattr(parallel, "GRAIN_NS", 0.0)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("sizes", [(97, 31, 103), (530, 70, 40), (120, 40, 600), (3, 300, 700)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(side, sizes, eager):
    check_threads(SIDES[side](CHAINS["rows"]), operands(*sizes))


# --- what is fused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAINS)
def test_what_computes_an_operand_is_in_the_kernel_of_the_product(name):
    args = operands(20, 30, 40)
    for side in SIDES.values():
        text = schedule_of(side(CHAINS[name]), *args)
        assert text.count("\n") == 1 and text.startswith("kernel 20x40 = ") and "dot_general" in text
    assert fl.jit(right(CHAINS[name])).memory(*args).temporaries <= 2 * 30 * 40 * 4 + 4096


def test_a_prologue_and_an_epilogue():
    text = schedule_of(both(CHAINS["product"]), *operands(20, 30, 40))
    assert text == "kernel 20x40 = mul mul dot_general add\n"


@pytest.mark.parametrize("fun", [
    lambda x, w, xr, xc, wr, wc, xg, wg: (x @ (w * wg), w * wg),
    lambda x, w, xr, xc, wr, wc, xg, wg: x @ (w / w.sum(1, keepdims=True)),
    lambda x, w, xr, xc, wr, wc, xg, wg: x @ (w * wg)[::-1],
    lambda x, w, xr, xc, wr, wc, xg, wg: (x @ (v := fnp.tanh(w * wg)), xg @ v),
    lambda x, w, xr, xc, wr, wc, xg, wg: x @ (w * wg * (wg + wr) * fnp.where(w > 0, wg, w[::-1] * wg[::-1])),
], ids=["wanted itself", "numbers of a reduction", "another order", "costly, again", "reads much"])
def test_what_is_no_prologue_is_left_alone(fun):
    args = operands(20, 30, 40)
    text = schedule_of(fun, *args)
    assert "step dot_general" in text or "kernel 20x40 = dot_general" in text
    check(fun, args, interpreted=False)


def test_small_operands_are_left_alone(monkeypatch):
    monkeypatch.undo()
    assert "step dot_general" in schedule_of(right(CHAINS["scale"]), *operands(20, 30, 40))
    assert "step dot_general" not in schedule_of(right(CHAINS["scale"]), *operands(20, 300, 400))


def test_left_operands_of_several_jobs_are_left_alone():
    assert "step dot_general" in schedule_of(left(CHAINS["scale"]), *operands(60, 30, 1024))
    assert "step dot_general" not in schedule_of(left(CHAINS["scale"]), *operands(600, 30, 1024))


def test_left_operands_that_serve_many_columns_are_left_alone(monkeypatch):
    monkeypatch.undo()
    assert "step dot_general" in schedule_of(left(CHAINS["scale"]), *operands(1024, 70, 200))
    assert "step dot_general" not in schedule_of(left(CHAINS["scale"]), *operands(1024, 70, 100))


def test_weights_in_half_precision_are_cast_in_each_product_that_reads_them():
    def loss(w, x, y):
        return fnp.sum(fnp.square(x @ w.astype(F32) - y))

    args = floats(50, 40, dtype=BF16), floats(30, 50), floats(30, 40)
    text = schedule_of(lambda *a: fl.grad(loss, argnums=(0, 1))(*a), *args)
    assert text.count("convert dot_general") == 2 and "= convert\n" not in text
    check(lambda *a: fl.grad(loss, argnums=(0, 1))(*a), args, interpreted=False)


def test_a_mask_that_no_epilogue_took_goes_into_the_products():
    def step(h, g, x, w):
        masked = fnp.where(h > 0, g, F32(0))
        return masked @ w.T

    args = floats(30, 50), floats(30, 50), floats(30, 70), floats(60, 50)
    assert schedule_of(step, *args).count("\n") == 1
    check(step, args, interpreted=False)


def test_gradients_of_a_network_are_the_evaluator_s():
    def loss(params, x):
        for w, b in params:
            x = fnp.maximum(x @ w.astype(F32) + b, F32(0))
        return (x * x).mean()

    sizes = (30, 70, 40, 10)
    params = [(floats(a, b, dtype=BF16), floats(b)) for a, b in itertools.pairwise(sizes)]
    program = fl.make_program(lambda p, x: fl.grad(loss)(p, x))(params, floats(90, 30))
    flat = [*itertools.chain(*params), floats(90, 30)]
    executable = native.compile_native(program, pipeline.optimize(program))
    for found, expected in zip(executable(*flat), Evaluator(program)(*flat), strict=True):
        np.testing.assert_allclose(np.asarray(found, F32), np.asarray(expected, F32), 1e-2, 1e-5)


def test_equal_products_with_equal_prologues_share_a_kernel():
    def alike(x, ws):
        return [x @ w.astype(F32) for w in ws]

    args = floats(20, 30), [floats(30, 40, dtype=BF16) for _ in range(3)]
    assert schedule_of(alike, *args) == "kernel 20x40 = convert dot_general\n" * 3
    program = pipeline.optimize(fl.make_program(alike)(*args))
    assert len(native.compile_native(program, program).lowered.kernels) == 1


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_carry_that_a_prologue_reads_is_not_written_over():
    def power(w, b):
        return lax.fori_loop(0, 4, lambda i, w: fnp.tanh(b @ (w * b)) + w, w)

    check(power, [floats(40, 40), floats(40, 40)], interpreted=False)


def test_donated_weights_that_a_prologue_reads_are_updated_after():
    fun = fl.jit(lambda w, x: w - F32(0.01) * (x @ fnp.tanh(w)), donate_argnums=0)
    for size in (40, 300):
        w, x = floats(size, size), floats(size, size)
        expected = w - F32(0.01) * (x @ np.tanh(w))
        np.testing.assert_allclose(fun(w.copy(), x), expected, 1e-5, 1e-5)


@pytest.mark.parametrize("side", (0, 1), ids=("image", "kernel"))
def test_operands_of_convolutions_with_epilogues_are_written_first(side):
    def fun(x, w, bias, *, gain):
        x, w = (x * gain, w) if side == 0 else (x, w * gain)
        return lax.conv_general_dilated(x, w, (1, 1), "SAME") + bias

    x, w, bias = floats(4, 8, 12, 12), floats(16, 8, 3, 3), floats(1, 16, 1, 1)
    check(lambda x, w, bias: fun(x, w, bias, gain=x.dtype.type(0.5)), [x, w, bias], interpreted=False)

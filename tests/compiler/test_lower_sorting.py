# SPDX-License-Identifier: MIT
"""Sorting kernels against the eval rules, exactly: lengths, dtypes, ties, NaN, infinities and signed zeros."""

import functools

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.lowering import networks, radix, selection, sorting
from functorch_lite.primitives import sorting as p
from functorch_lite.primitives.indexing import index_order_p
from tests.compiler import comparing

RNG = np.random.default_rng(11)
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
LENGTHS = (0, 1, 2, 7, radix.SHORT, radix.SHORT + 1, 1000)
check = functools.partial(comparing.check, signs=True)


def special(shape, dtype):
    """Floats with many ties, signed zeros, infinities and NaNs."""
    x = np.round(comparing.array(RNG, shape, "float64"))
    which = RNG.integers(0, 12, shape)
    for k, value in enumerate((np.nan, np.inf, -np.inf, -0.0, 0.0)):
        x[which == k] = value
    return x.astype(comparing.array(RNG, (), dtype).dtype)


def whole(shape, dtype):
    """Integers of the whole range of a dtype, and some ties."""
    info = np.iinfo(dtype)
    x = RNG.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    x.reshape(-1)[::3] = 0
    return x


def iota(shape):
    return np.broadcast_to(np.arange(shape[-1]), shape)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_sort_and_argsort_of_every_length(n, dtype):
    for rows in ((), (3,)):
        for draw in (special, lambda *a: comparing.array(RNG, *a)):
            x = draw((*rows, n), dtype)
            check(p.sort_p, x, num_keys=1, stable=True)
            check(p.sort_p, x, iota(x.shape), num_keys=1, stable=True)


@pytest.mark.parametrize("dtype", (*INTEGERS, "bool"))
def test_sort_of_integers(dtype):
    for shape in ((5,), (3, 40), (700,), (2, 130)):
        x = whole(shape, dtype) if dtype != "bool" else RNG.random(shape) < 0.5
        check(p.sort_p, x, num_keys=1, stable=True)
        check(p.sort_p, x, iota(shape), num_keys=1, stable=True)
        check(p.top_k_p, x, k=3)
        if dtype != "bool":
            check(index_order_p, x)


@pytest.mark.parametrize("dtype", FLOATS)
def test_sort_of_floats_with_special_values(dtype):
    for shape in ((5,), (3, 40), (700,), (2, 130)):
        x = special(shape, dtype)
        check(p.sort_p, x, num_keys=1, stable=True)
        check(p.sort_p, x, iota(shape), num_keys=1, stable=True)
        check(p.top_k_p, x, k=4)


@pytest.mark.parametrize("dtype", ("float32", "float64", "int32", "int8"))
def test_sort_of_ten_thousand(dtype):
    for x in (comparing.array(RNG, (10_000,), dtype), np.sort(comparing.array(RNG, (10_000,), dtype))[::-1]):
        check(p.sort_p, x, num_keys=1, stable=False)
        check(p.sort_p, x, iota(x.shape), num_keys=1, stable=True)


@pytest.mark.parametrize("shape", ((6,), (300,), (3, 50), (2, 99)), ids=str)
@pytest.mark.parametrize("dtype", ("complex64", "complex128"))
def test_complex_numbers_sort_by_their_parts(dtype, shape):
    real = np.dtype(dtype).type(0).real.dtype.name
    x = np.empty(shape, dtype)
    x.real, x.imag = special(shape, real), special(shape, real)
    for operands in ((x,), (x, iota(shape)), (iota(shape) // 9, x)):
        check(p.sort_p, *operands, num_keys=len(operands), stable=True, exact=not np.isnan(x).any())
        check(p.sort_p, *operands, iota(shape), num_keys=len(operands), stable=True)


@pytest.mark.parametrize("shape", ((9,), (200,), (3, 21), (2, 150)), ids=str)
def test_several_keys_and_payloads(shape):
    small, wide = RNG.integers(0, 3, shape), RNG.integers(0, 3, shape).astype(np.int8)
    payload = [comparing.array(RNG, shape, d) for d in ("float32", "complex128", "bool", "bfloat16")]
    for keys in ((small, special(shape, "float64")), (wide, special(shape, "float16")), (wide, small, wide[..., ::-1])):
        for num_keys in range(1, len(keys) + 1):
            check(p.sort_p, *keys, *payload, num_keys=num_keys, stable=True)


@pytest.mark.parametrize("k", (0, 1, 2, 7, sorting.LISTED, sorting.LISTED + 1, 500))
def test_top_k_of_every_size(k):
    for n in {k, k + 1, k + 37, k + 2 * sorting.BLOCK + 5}:
        for rows in ((), (3,)):
            for dtype in ("float32", "float64"):
                check(p.top_k_p, special((*rows, n), dtype), k=k)
                check(p.top_k_p, comparing.array(RNG, (*rows, n), dtype), k=k)


@pytest.mark.parametrize("n", (1, 2, 5, networks.WRITTEN_OUT, networks.WRITTEN_OUT + 1, 100))
@pytest.mark.parametrize("rows", (4, 37))
def test_rows_sorted_in_step(rows, n):
    for dtype in ("float32", "float64", "int8"):
        draw = special if dtype[0] == "f" else whole
        x = draw((rows, n), dtype)
        check(p.sort_p, x, num_keys=1, stable=True)
        check(p.sort_p, x, iota(x.shape), num_keys=1, stable=True)
        check(p.top_k_p, x, k=(n + 1) // 2)


@pytest.mark.parametrize("n", range(70))
def test_a_network_sorts(n):
    x = RNG.integers(0, 9, (50, n))
    expected = np.sort(x)
    for i, j in networks.comparisons(n):
        x[:, i], x[:, j] = np.minimum(x[:, i], x[:, j]), np.maximum(x[:, i], x[:, j])
    np.testing.assert_array_equal(x, expected)


def test_top_k_of_ascending_and_of_equal_entries():
    for x in (np.arange(3000), np.arange(3000)[::-1], np.zeros(3000, int), np.full(3000, np.iinfo(int).min)):
        check(p.top_k_p, x, k=5)
        check(p.top_k_p, x.astype(np.float32), k=5)
        check(p.top_k_p, x, k=100)


@pytest.mark.parametrize("n", [80, 131])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64, np.bool_, np.float16])
def test_top_k_of_rows_with_few_entries_that_are_not_the_smallest(dtype, n):
    lowest = -np.inf if np.dtype(dtype).kind == "f" else False if dtype is np.bool_ else np.iinfo(dtype).min
    for most in (0, 2, n // 2):
        x = np.full((6, n), lowest, dtype)
        for row in x[1:]:
            row[RNG.integers(0, n, most)] = RNG.integers(0, 2, most).astype(dtype)
        check(p.top_k_p, x, k=10)
        check(p.top_k_p, x, k=40)


@pytest.mark.parametrize("dtype", (*INTEGERS, *FLOATS, "complex64"))
def test_long_rows_are_sorted_in_parts(dtype, monkeypatch):
    monkeypatch.setattr(radix, "LONG", 128)
    draw = whole if dtype in INTEGERS else special if dtype in FLOATS else lambda *a: comparing.array(RNG, *a)
    for shape in ((128,), (131,), (2, 700)):
        x = draw(shape, dtype)
        check(p.sort_p, x, num_keys=1, stable=True)
        check(p.sort_p, x, iota(shape), num_keys=1, stable=True)
        check(index_order_p, np.zeros_like(x) if dtype != "complex64" else x.real)


def test_threads_share_the_parts_of_a_long_row():
    x = RNG.standard_normal(radix.LONG + 5).astype(np.float32)
    for threads in (1, 2, 4):
        with fl.config(num_threads=threads):
            np.testing.assert_array_equal(fl.jit(np.sort)(x), np.sort(x))
            np.testing.assert_array_equal(fl.jit(np.argsort)(x), np.argsort(x, kind="stable"))


@pytest.mark.parametrize("dtype", (*INTEGERS, *FLOATS))
def test_many_of_the_largest_are_selected(dtype):
    draw = whole if dtype in INTEGERS else special
    n = 256 * np.dtype("float64").itemsize
    for shape in ((n,), (3, n + 5)):
        x = draw(shape, dtype)
        for k in (sorting.LISTED + 1, n // selection.SHARE):
            assert selection.pays(shape[-1], k, x.dtype.itemsize)
            check(p.top_k_p, x, k=k)
            check(p.top_k_p, np.zeros_like(x), k=k)


@pytest.mark.parametrize("payload", ("int32", "uint32", "float32"))
@pytest.mark.parametrize("dtype", ("bool", "int8", "uint16", "int32", "uint32"))
def test_integer_keys_and_a_number_each(dtype, payload):
    for shape in ((300,), (3, 1000)):
        x = whole(shape, dtype) if dtype != "bool" else RNG.random(shape) < 0.5
        y = special(shape, payload) if payload == "float32" else whole(shape, payload)
        check(p.sort_p, x, y, num_keys=1, stable=True)


def test_words_in_no_near_cache_have_lines_fetched():
    def fetches(n):
        text = fl.jit(np.argsort).lower(np.zeros(n, np.float32)).as_text("loop_ir")
        return text.count("prefetch keys")

    assert fetches(10_000) == 0 and fetches(100_000) and fetches(radix.LONG)

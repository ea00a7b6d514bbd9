# SPDX-License-Identifier: MIT
"""Kernels of matrix products and convolutions against the eval rules: records, sizes, strides, dtypes, widths."""

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.nodes import Loop, Prefetch
from functorch_lite.compiler.loop_ir.verify import verify
from functorch_lite.compiler.lowering import product_parts, product_tiles
from functorch_lite.compiler.lowering.contraction import bilinear_kernel, product_of
from functorch_lite.compiler.lowering.convolution import convolution_of
from functorch_lite.compiler.lowering.cutting import SHORT
from functorch_lite.compiler.lowering.tiles import Machine, cuts, even_cuts, panels_of
from functorch_lite.compiler.native import compile_native
from functorch_lite.compiler.schedule.parallel import WORTH_AWAKE_NS, every, shared_loops, time_of
from functorch_lite.core.aval import Aval
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.convolution import conv_general_dilated_p
from tests.compiler.guarded import Guarded
from tests.compiler.support import run_kernel
from tests.laws.test_eval import cast
from tests.records.contraction import RECORDS as CONTRACTION
from tests.records.convolution import RECORDS as CONVOLUTION

DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "int32", "uint64", "bool", "complex64", "complex128")
RTOL = {"f4": 1e-5, "c8": 1e-5, "f8": 1e-13, "c16": 1e-13, "f2": 2e-3, "V2": 1.6e-2}
MACHINES = (Machine(64, 32), Machine(32, 16), Machine(16, 32))
NONE = ((), ())
RNG = np.random.default_rng(5)


def array(shape, dtype) -> Any:
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    if dtype.kind in "biu":
        return np.asarray(RNG.integers(0, 2 if dtype.kind == "b" else 9, shape), dtype)
    drawn = RNG.standard_normal(shape)
    return np.asarray(drawn + 1j * RNG.standard_normal(shape) if dtype.kind == "c" else drawn, dtype)


def laid_out(x, order):
    """x as a view whose memory has the axes in this order: (the memory, the view)."""
    order = list(order)
    memory = np.array(x.transpose(order), order="C")
    return memory, memory.transpose(sorted(range(x.ndim), key=order.__getitem__))


def kernel(prim, x, y, params, machine=MACHINES[0]):
    """The kernel for operands laid out as they are, and its output's type."""
    out = shape_rules[prim](Aval(x.shape, x.dtype), Aval(y.shape, y.dtype), **params)
    strides = [tuple(s // a.itemsize for s in a.strides) for a in (x, y)]
    if prim is dot_general_p:
        problem = product_of(x.shape, strides[0], y.shape, strides[1], **params)
    else:
        problem = convolution_of(x.shape, y.shape, out.shape, *strides, **params)
    return bilinear_kernel("kernel", out.dtype, problem, (x.size, y.size, out.size), machine), out


def assert_close(found, expected, terms):
    """Within the rounding of sums of so many products, relative to the largest."""
    rtol = RTOL.get(found.dtype.str[1:], 0)
    if found.dtype.kind == "V":
        found, expected = found.astype(np.float32), np.asarray(expected).astype(np.float32)
    if not rtol:
        np.testing.assert_array_equal(found, expected)
    elif found.size:
        largest = np.abs(expected).max(initial=0, where=np.isfinite(expected))
        np.testing.assert_allclose(found, expected, rtol, rtol * max(largest, np.sqrt(terms)))


def check(prim, x, y, params, machine=MACHINES[0], orders=None):
    """The kernel's output is the eval rule's."""
    given = [laid_out(a, order) for a, order in zip((x, y), orders or (range(x.ndim), range(y.ndim)), strict=True)]
    function, aval = kernel(prim, given[0][1], given[1][1], params, machine)
    verify(function)
    out = np.full(aval.shape, 1, aval.dtype)
    run_kernel(function, [given[0][0], given[1][0], out], machine.vector_bytes)
    with np.errstate(all="ignore"):
        assert_close(out, eval_rules[prim](np, x, y, **params), x.size)


def check_dot(x, y, contract, batch=NONE, **how):
    check(dot_general_p, x, y, {"contract": contract, "batch": batch}, **how)


def check_convolution(x, w, strides, padding, lhs=None, rhs=None, groups=1, batch_groups=1, **how):
    ones = (1,) * len(strides)
    params = {"strides": strides, "padding": padding, "lhs_dilation": lhs or ones, "rhs_dilation": rhs or ones,
              "groups": groups, "batch_groups": batch_groups}
    check(conv_general_dilated_p, x, w, params, **how)


# --- cuts -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(1, 300))
def test_cuts_cover_everything_once_in_at_most_two_sizes(n, most):
    for found, largest in ((cuts(n, most), most), (even_cuts(n, most), most + most // 4)):
        starts = [(c.start + k * c.size, c.size) for c in found for k in range(c.count)]
        assert [s for s, _ in starts] == list(np.cumsum([0, *(size for _, size in starts)])[:-1])
        assert sum(size for _, size in starts) == n
        assert max(size for _, size in starts) <= largest and len({c.size for c in found}) == len(found) <= 2


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(MACHINES), st.sampled_from(("f32", "f64", "i8")))
def test_panels_cover_the_columns_with_tiles_that_fit(rows, columns, machine, kind):
    found = panels_of(rows, columns, kind, machine)
    assert sum(p.count * p.size for p in found) == columns
    for p in found:
        assert p.width <= machine.lanes(kind) and sum(c.count * c.size for c in p.rows) == rows
        assert all(c.size * p.vectors + p.vectors < machine.registers for c in p.rows if c.size > 1)


# --- matrix products ------------------------------------------------------------------------------------------------

SIZES = ((1, 1, 1), (2, 3, 4), (8, 16, 8), (9, 17, 33), (40, 50, 60), (1, 40, 37), (37, 1, 40), (1, 1, 300),
         (33, 100, 700), (3, 130, 300), (200, 70, 260), (40, 1301, 521))


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_of_operands_in_every_order(size, machine):
    m, n, k = size
    for dtype in ("float32", "float64"):
        x, y = array((m, k), dtype), array((k, n), dtype)
        for orders in itertools.product(((0, 1), (1, 0)), repeat=2):
            check_dot(x, y, ((1,), (0,)), machine=machine, orders=orders)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_every_dtype(dtype):
    for m, n, k in ((5, 21, 9), (40, 35, 20), (1, 7, 40)):
        check_dot(array((m, k), dtype), array((k, n), dtype), ((1,), (0,)))
        check_dot(array((3, m, k), dtype), array((3, n, k), dtype), ((2,), (2,)), ((0,), (0,)))


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("size", ((1, 40, 37), (37, 1, 40), (6, 40, 100), (1, 1, 300), (9, 17, 33), (200, 70, 260),
                                  (130, 260, 300), (300, 300, 570)), ids=str)
def test_complex_products_of_operands_in_every_order(size, machine):
    m, n, k = size
    for dtype in ("complex64", "complex128"):
        x, y = array((m, k), dtype), array((k, n), dtype)
        for orders in itertools.product(((0, 1), (1, 0)), repeat=2):
            check_dot(x, y, ((1,), (0,)), machine=machine, orders=orders)


@pytest.mark.parametrize("size", ((9, 40, 50), (140, 300, 300)), ids=str)
def test_complex_operands_are_read_as_they_lie(size):
    """The parts of a product's result are nowhere but in registers and in the output."""
    m, n, k = size
    function, _ = kernel(dot_general_p, array((m, k), "complex64"), array((k, n), "complex64"),
                         {"contract": ((1,), (0,)), "batch": NONE})
    assert [b.name for b in function.scratch] == ["packed"]


WAYS = {  # what of each size is in the kernel, when neither operand is transposed and when x is
    (130, 300, 490): ({"packed"}, {"packed", "fetched"}), (140, 300, 600): ({"packed"}, {"packed", "ordered"}),
    (130, 260, 512): ({"packed"}, {"packed", "ordered"}),
    (300, 300, 2200): ({"packed", "fetched"}, {"packed", "ordered", "fetched"}),
    (65, 1040, 100): ({"packed"},) * 2, (600, 130, 400): ({"packed"}, {"packed", "fetched"}),
    (600, 40, 100): (set(), {"fetched"}), (20, 1000, 90): (set(), set()), (20, 1100, 90): ({"packed"},) * 2,
    (16, 1100, 90): (set(), set()), (32, 512, 90): ({"packed"},) * 2, (32, 500, 90): (set(), set()),
    (20, 20000, 1): (set(), set()),
    (3, 700, 200): (set(), set()), (1, 3000, 50): (set(), set()),
    (128, 128, 90): ({"packed"}, {"packed", "fetched"}), (128, 128, 60): (set(), {"fetched"}),
    (128, 100, 140): (set(), {"fetched"}), (160, 100, 140): ({"packed"}, {"packed", "fetched"}),
}


@pytest.mark.parametrize("size", WAYS, ids=str)
def test_large_products_in_jobs_blocks_and_copied_rows(size):
    m, n, k = size
    x, y = array((m, k), "float32"), array((k, n), "float32")
    for orders in itertools.product(((0, 1), (1, 0)), repeat=2):
        check_dot(x, y, ((1,), (0,)), orders=orders)
    for layout, expected in zip((x, np.asfortranarray(x)), WAYS[size], strict=True):
        function, _ = kernel(dot_general_p, layout, y, {"contract": ((1,), (0,)), "batch": NONE})
        fetched = {"fetched"} if any(type(s) is Prefetch and s.near for s in every(function.body)) else set()
        assert {b.name for b in function.scratch} | fetched == expected


@pytest.mark.parametrize("examples", (1, 7, 8, 9))
def test_many_products_are_in_one_job_each(examples):
    """Threads share the loop around them; where that is short, blocks of columns."""
    how = ((2,), (1,)), ((0,), (0,))
    for m, n, k in ((40, 530, 70), (33, 1, 17), (64, 1100, 31)):
        x, y = array((examples, m, k), "float32"), array((examples, k, n), "float32")
        check_dot(x, y, *how)
        if examples * n > 1:
            function, _ = kernel(dot_general_p, x, y, {"contract": how[0], "batch": how[1]})
            packed = [b.size for b in function.scratch if b.name == "packed"]
            wide = 512 if n > 1000 else n // 16 * 16
            assert not packed or (packed[0] >= wide * k) == (examples >= 8)


def test_products_with_more_rows_than_are_copied_at_a_time(monkeypatch):
    monkeypatch.setattr(product_tiles, "ORDERED_BYTES", 100_000)
    monkeypatch.setattr(product_tiles, "ORDERED_ROWS", 16)
    for m, n, k in ((400, 70, 300), (133, 256, 512)):
        for order in ((0, 1), (1, 0)):
            check_dot(array((m, k), "float64"), array((k, n), "float64"), ((1,), (0,)), orders=(order, (0, 1)))


def test_what_was_in_the_output_is_not_added():
    """Blocks of k but the first add to the output; the first does not, whatever is there."""
    x, y = array((70, 1200), "float32"), array((1200, 80), "float32")
    function, aval = kernel(dot_general_p, x, y, {"contract": ((1,), (0,)), "batch": NONE})
    out = np.full(aval.shape, np.nan, np.float32)
    run_kernel(function, [x, y, out])
    assert_close(out, x @ y, 1200)


def test_threads_share_a_product_as_one_loop_of_jobs():
    """Blocks of columns share nothing; so do tiles of rows where columns are few."""
    for (m, n, k), alone in (((128, 512, 768), 0), ((768, 128, 128), 0), ((40, 40, 40), None)):
        function, _ = kernel(dot_general_p, array((m, k), "float32"), array((k, n), "float32"),
                             {"contract": ((1,), (0,)), "batch": NONE})
        shared = shared_loops(function)
        if alone is None:
            assert not shared
        else:
            assert all(id(s) in shared for s in function.body if type(s) is Loop and time_of(s) > WORTH_AWAKE_NS)


@pytest.mark.parametrize(("size", "jobs"), (((256, 256, 256), 8), ((300, 256, 280), 8), ((320, 320, 320), 4),
                                            ((512, 512, 512), 8), ((128, 2048, 128), 4), ((2048, 2048, 2048), 16)),
                         ids=str)
def test_light_products_are_few_jobs_of_wide_panels(size, jobs):
    m, n, k = size
    function, _ = kernel(dot_general_p, array((m, k), "float32"), array((k, n), "float32"),
                         {"contract": ((1,), (0,)), "batch": NONE})
    loops = [s for s in function.body if type(s) is Loop]
    assert loops[0].extent == jobs and set(shared_loops(function)) == {id(loops[0])}


FEW_COLUMNS = {(96, 96, 96): [2], (128, 128, 128): [4], (144, 144, 144): [4, 2], (160, 160, 160): [2],
               (208, 208, 208): [4, 2], (240, 240, 240): [4, 2]}


@pytest.mark.parametrize("order", ("nn", "tn", "nt", "tt"))
@pytest.mark.parametrize("size", FEW_COLUMNS, ids=str)
def test_panels_of_few_columns_are_each_threads_own(size, order):
    """Jobs that are alike, and one for each half of the rows where columns are left over; nobody copies for others."""
    m, n, k = size
    x, y = (k, m) if order[0] == "t" else (m, k), (n, k) if order[1] == "t" else (k, n)
    contract = (0 if order[0] == "t" else 1,), (1 if order[1] == "t" else 0,)
    function, _ = kernel(dot_general_p, array(x, "float32"), array(y, "float32"), {"contract": contract, "batch": NONE})
    shared = shared_loops(function)
    assert [s.extent for s in function.body if type(s) is Loop] == FEW_COLUMNS[size]
    assert all(id(s) in shared and shared[id(s)].own for s in function.body)


@pytest.mark.parametrize("size", ((101, 139, 77), (144, 144, 144), (131, 200, 130), (208, 213, 150), (90, 366, 150),
                                  (336, 336, 336)),
                         ids=str)
def test_columns_that_are_left_over_are_right(size):
    m, n, k = size
    check_dot(array((m, k), "float32"), array((k, n), "float32"), ((1,), (0,)), NONE)
    check_dot(array((k, m), "float32"), array((n, k), "float32"), ((0,), (1,)), NONE)


@pytest.mark.parametrize("threads", (1, 2, 4))
def test_products_are_the_same_bits_on_any_number_of_threads(threads):
    for m, n, k in ((128, 512, 768), (768, 128, 384), (512, 512, 512), (144, 150, 144), (128, 128, 128),
                    (100, 120, 5000)):
        x, y = array((k, m), "float32"), array((k, n), "float32")
        with fl.config(num_threads=threads):
            found = fl.jit(lambda x, y: x.T @ y)(x, y)
        with fl.config(num_threads=1):
            np.testing.assert_array_equal(found, fl.jit(lambda x, y: x.T @ y)(x, y))


# --- much k -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "parts"), (((128, 4096, 128), 8), ((128, 2048, 128), 4), ((64, 16384, 64), 8),
                                             ((100, 5000, 120), 8), ((128, 4096, 256), 4), ((256, 4096, 256), 1),
                                             ((128, 512, 128), 1), ((16, 65536, 64), 1), ((33, 8191, 129), 1)))
def test_few_rows_and_columns_of_much_k_are_sums_of_parts_of_it(size, parts):
    m, k, n = size
    x, y = array((m, k), "float32"), array((k, n), "float32")
    function = kernel(dot_general_p, x, y, {"contract": ((1,), (0,)), "batch": NONE})[0]
    assert [b.size // (m * n) for b in function.scratch if b.name == "k_parts"] == [parts] * (parts > 1)
    shared = shared_loops(function)
    assert parts == 1 or parts in [s.extent for s in every(function.body) if id(s) in shared]


@pytest.mark.parametrize("order", ("nn", "tn", "nt", "tt"))
@pytest.mark.parametrize("size", ((33, 72, 40), (50, 80, 37), (35, 96, 64)), ids=str)
def test_parts_of_k_add_up(size, order, monkeypatch):
    """With the same bits in code made quickly."""
    monkeypatch.setattr(product_parts, "WORTH", 1)
    monkeypatch.setattr(product_parts, "TIMES", 1)
    monkeypatch.setattr(product_parts, "LEAST_DEPTH", 5)
    m, k, n = size
    x = array((m, k) if order[0] == "n" else (k, m), "float32")
    y = array((k, n) if order[1] == "n" else (n, k), "float32")
    contract = ((1 if order[0] == "n" else 0,), (0 if order[1] == "n" else 1,))
    found = np.empty((2, m, n), np.float32)
    for out, machine in zip(found, (MACHINES[0], Machine(64, 32, SHORT)), strict=True):
        check(dot_general_p, x, y, {"contract": contract, "batch": NONE}, machine)
        function, _ = kernel(dot_general_p, x, y, {"contract": contract, "batch": NONE}, machine)
        assert "k_parts" in [b.name for b in function.scratch]
        run_kernel(function, [x, y, out], 64)
    np.testing.assert_array_equal(found[0], found[1])


def test_an_epilogue_follows_the_sum_of_all_parts_of_k():
    x, y, bias = array((64, 4096), "float32"), array((4096, 128), "float32"), array(128, "float32")
    f = fl.jit(lambda x, y, b: np.tanh(1e-2 * (x @ y) + b))
    lowered = f.lower(x, y, bias)
    assert len(lowered.as_text("schedule").splitlines()) == 1
    assert "k_parts" in lowered.as_text("loop_ir")
    np.testing.assert_allclose(f(x, y, bias), np.tanh(1e-2 * (x @ y) + bias), 1e-4, 1e-4)


def test_blocks_of_k_have_some_of_the_outermost_of_several_axes():
    """Panels of all of two long axes would be narrower than a tile."""
    x, y = array((8, 140, 300), "float32"), array((8, 300, 300), "float32")
    params = {"contract": ((0, 2), (0, 2)), "batch": NONE}
    function = kernel(dot_general_p, x, y, params)[0]
    (packed,) = [b for b in function.scratch if b.name == "packed"]
    assert packed.size % 300 == 0
    assert packed.size < 300 * 300
    check(dot_general_p, x, y, params)


def test_tiles_of_little_k_fetch_the_lines_of_a_large_output():
    for m, k, n, fetched in ((512, 128, 1024, {"out"}), (512, 128, 256, set()), (512, 384, 1024, set())):
        x, y = array((m, k), "float32"), array((k, n), "float32")
        function = kernel(dot_general_p, x, y, {"contract": ((1,), (0,)), "batch": NONE})[0]
        assert {s.buffer.name for s in every(function.body) if isinstance(s, Prefetch)} == fetched
    check(dot_general_p, array((140, 64), "float32"), array((64, 2080), "float32"), {"contract": ((1,), (0,)),
                                                                                   "batch": NONE})


def test_products_of_operands_with_axes_in_every_order():
    x, y = array((2, 3, 4, 5), "float64"), array((3, 5, 2, 7), "float64")
    for left in itertools.permutations(range(4)):
        check_dot(x, y, ((3, 1), (1, 0)), ((0,), (2,)), orders=(left, (0, 1, 2, 3)))
        check_dot(y, x, ((1,), (3,)), ((0,), (1,)), orders=((2, 1, 3, 0), left))


@st.composite
def products(draw):
    """Operands with 0 to 2 batch, free and contracted axes of sizes up to 40, in memory in any order."""
    axes = [draw(st.lists(st.integers(1, 40 if n == 1 else 6), max_size=n)) for n in (1, 2, 2, draw(st.integers(1, 2)))]
    batch, free_x, free_y, contracted = axes
    nb, nc = len(batch), len(contracted)
    shapes = [*batch, *free_x, *contracted], [*batch, *contracted, *free_y]
    params = {"contract": (tuple(range(nb + len(free_x), nb + len(free_x) + nc)), tuple(range(nb, nb + nc))),
              "batch": (tuple(range(nb)), tuple(range(nb)))}
    dtype = draw(st.sampled_from(("float32", "float64", "int32", "complex64")))
    orders = [draw(st.permutations(range(len(s)))) for s in shapes]
    return shapes, params, dtype, orders, draw(st.sampled_from(MACHINES))


@given(products())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_random_products(case):
    (left, right), params, dtype, orders, machine = case
    check(dot_general_p, array(left, dtype), array(right, dtype), params, machine, orders)


@pytest.mark.parametrize("dtype", ("float32", "complex64"))
@pytest.mark.parametrize("at_end", (True, False))
def test_kernels_touch_no_memory_outside_their_arrays(at_end, dtype):
    for m, n, k in ((1, 7, 19), (9, 37, 5), (40, 50, 70), (140, 270, 260)):
        for order in ((0, 1), (1, 0)):
            x, y = laid_out(array((m, k), dtype), order), laid_out(array((k, n), dtype), order)
            function, aval = kernel(dot_general_p, x[1], y[1], {"contract": ((1,), (0,)), "batch": NONE})
            guarded = [Guarded(a.size, np.dtype(dtype), at_end) for a in (x[0], y[0], np.empty(aval.shape))]
            for g, a in zip(guarded, (x[0], y[0]), strict=False):
                g.array[:] = a.ravel()
            run_kernel(function, [g.array for g in guarded])
            assert all(g.untouched() for g in guarded)
            assert_close(guarded[2].array.reshape(m, n), x[1] @ y[1], k)


def test_products_keep_infinities_and_nan():
    x, y = array((9, 20), "float32"), array((20, 35), "float32")
    x[2, 3], x[4, 5], y[6, 7] = np.inf, np.nan, -np.inf
    check_dot(x, y, ((1,), (0,)))
    check_dot(x, np.ascontiguousarray(y.T), ((1,), (1,)))


# --- convolutions ---------------------------------------------------------------------------------------------------

CONVOLUTIONS: tuple[Any, ...] = (
    ((2, 3, 28, 28), (5, 3, 3, 3), (1, 1), ((1, 1), (1, 1))), ((2, 3, 29, 70), (17, 3, 3, 3), (2, 2), ((1, 1), (1, 1))),
    ((1, 3, 20, 33), (20, 3, 7, 7), (2, 2), ((3, 3), (3, 3))),
    ((1, 2, 9, 9), (3, 2, 3, 3), (1, 1), ((1, 2), (1, 2)), (2, 2)),
    ((3, 8, 14, 14), (7, 8, 14, 14), (1, 1), ((1, 1), (1, 1))),
    ((3, 8, 16, 16), (7, 8, 7, 7), (1, 1), ((1, 0), (1, 0)), None, (2, 2)),
    ((2, 8, 9, 11), (6, 8, 1, 1), (1, 1), ((0, 0), (0, 0))), ((4, 6, 5, 5), (3, 6, 5, 5), (1, 1), ((0, 0), (0, 0))),
    ((2, 6, 12, 40), (6, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), None, None, 6), ((1, 2, 300), (2, 2, 9), (3,), ((4, 4),)),
    ((2, 2, 5, 6), (4, 2, 2, 3), (3, 2), ((2, 4), (-1, 5)), (2, 5), (3, 1), 1, 2),
    ((1, 1, 4, 4), (1, 1, 1, 1), (1, 1), ((0, 0), (0, 0)), (3, 2)),
)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions_equal_their_eval_rule(case, machine):
    x, w, *settings_ = case
    for dtype in ("float32", "float64"):
        check_convolution(array(x, dtype), array(w, dtype), *settings_, machine=machine)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "int32", "uint8", "complex64", "complex128"))
def test_convolutions_of_every_dtype(dtype):
    for x, w, *settings_ in (*CONVOLUTIONS[:1], *CONVOLUTIONS[3:5], *CONVOLUTIONS[8:11]):
        check_convolution(array(x, dtype), array(w, dtype), *settings_)


def test_convolutions_of_operands_in_every_order():
    x, w = array((2, 4, 6, 20), "float64"), array((3, 4, 3, 2), "float64")
    for order in itertools.permutations(range(4)):
        check_convolution(x, w, (1, 2), ((1, 1), (0, 1)), orders=(order, (1, 0, 3, 2)))
        check_convolution(w, x, (1, 1), ((3, 4), (9, 10)), orders=((1, 0, 2, 3), order))


@st.composite
def convolutions(draw):
    """Convolutions over one or two axes with every setting."""
    n = draw(st.integers(1, 2))
    numbers = [[draw(st.integers(1, most)) for _ in range(n)] for most in (20, 5, 3, 3, 3)]
    size, window, strides, lhs, rhs = numbers
    padding = tuple((draw(st.integers(-1, 3)), draw(st.integers(0, 3)) + r * k)
                    for r, k in zip(rhs, window, strict=True))
    parts, kind = draw(st.integers(1, 3)), draw(st.sampled_from(("groups", "batch_groups")))
    examples, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x = examples * (parts if kind == "batch_groups" else 1), channels * (parts if kind == "groups" else 1), *size
    w = draw(st.integers(1, 5)) * parts, channels, *window
    return x, w, tuple(strides), padding, tuple(lhs), tuple(rhs), {kind: parts}, draw(st.sampled_from(MACHINES))


@given(convolutions())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_random_convolutions(case):
    x, w, strides, padding, lhs, rhs, parts, machine = case
    check_convolution(array(x, "float64"), array(w, "float64"), strides, padding, lhs, rhs, machine=machine, **parts)


# --- the interpreter, records and programs --------------------------------------------------------------------------


def test_the_interpreter_computes_what_compiled_kernels_do():
    params = {"contract": ((1,), (1,)), "batch": NONE}
    cases = [(dot_general_p, array((9, 20), "float32"), array((35, 20), "float32"), params)]
    first = {"contract": ((0,), (0,)), "batch": NONE}
    cases.append((dot_general_p, array((24, 130), "float32"), array((24, 70), "float32"), first))
    cases.append((dot_general_p, array((24, 13), "complex64"), array((24, 40), "complex64"), first))
    params = {"strides": (2, 1), "padding": ((1, 1), (1, 0)), "lhs_dilation": (1, 1), "rhs_dilation": (1, 1),
              "groups": 1, "batch_groups": 1}
    cases.append((conv_general_dilated_p, array((1, 2, 6, 18), "float32"), array((3, 2, 3, 3), "float32"), params))
    for prim, x, y, params in cases:
        function, aval = kernel(prim, x, y, params)
        out = np.empty(aval.shape, aval.dtype)
        scratch = [np.zeros(b.size, np.float32) for b in function.scratch]
        interpret(function, [*(a.view(np.float32) for a in (x, y, out)), *scratch])
        assert_close(out, eval_rules[prim](np, x, y, **params), x.size)


@pytest.fixture
def compared(monkeypatch):
    """Every kernel is run, and compared, where its primitive is evaluated; the primitives that were evaluated."""
    met = []
    rules = {prim: eval_rules[prim] for prim in (dot_general_p, conv_general_dilated_p)}

    def watch(prim):
        def evaluate(xp, x, y, **params):
            met.append(prim)
            expected = np.asarray(rules[prim](np, x, y, **params))
            if x.size and y.size and expected.size:
                x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
                function, aval = kernel(prim, x, y, params)
                out = np.empty(aval.shape, aval.dtype)
                run_kernel(function, [x, y, out])
                assert_close(out, expected, x.size)
            return rules[prim](xp, x, y, **params)

        monkeypatch.setitem(eval_rules, prim, evaluate)

    for prim in rules:
        watch(prim)
    return met


@pytest.mark.parametrize("record", (*CONTRACTION, *CONVOLUTION), ids=lambda record: record.name)
def test_kernels_give_what_the_records_evaluate(record, compared):
    """`compared` asserts, wherever one of the two primitives is evaluated."""
    for sample in record.draw():
        for name in (None, *record.dtypes):
            kind = "c" if name and name.startswith("complex") else "f"
            if name is None or any(np.asarray(a).dtype.kind == kind for a in sample.args):
                record.flat(*(sample.args if name is None else cast(sample.args, name)))
    assert compared


def compiled(fun, *args):
    """A function run as native code, and the executable."""
    program = fl.make_program(fun)(*args)
    executable = compile_native(program, program)
    verify(executable.lowered.function)
    return executable(*args), executable


def test_programs_read_permuted_operands_where_they_are_and_share_kernels():
    x = array((6, 5), "float64")
    (out,), executable = compiled(lambda x: fl.numpy.matmul(x.T, x) + fl.numpy.matmul(x.T, x + 1), x)
    np.testing.assert_allclose(out, x.T @ x + x.T @ (x + 1), 1e-12)
    names = [k.name for k in executable.lowered.kernels if k.name.startswith("dot_general")]
    assert len(names) == 1 and not executable.lowered.steps


def test_programs_with_products_of_nothing_are_zeros():
    x = array((3, 0), "float32")
    (out,), _ = compiled(lambda x, y: fl.lax.dot_general(x, y, (((1,), (0,)), NONE)), x, x.T.copy())
    np.testing.assert_array_equal(out, np.zeros((3, 3), np.float32))


def test_the_gradients_of_a_convolution_are_native():
    x, w = array((3, 2, 8, 9), "float64"), array((4, 2, 3, 3), "float64")

    def loss(x, w):
        return (fl.lax.conv_general_dilated(x, w, (2, 1), "SAME") ** 2).sum()

    outs, executable = compiled(fl.grad(loss, (0, 1)), x, w)
    for found, expected in zip(outs, fl.grad(loss, (0, 1))(x, w), strict=True):
        np.testing.assert_allclose(found, expected, 1e-11)
    assert not [s.equation.prim.name for s in executable.lowered.steps]

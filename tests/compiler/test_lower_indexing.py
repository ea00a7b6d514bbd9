# SPDX-License-Identifier: MIT
"""Indexing kernels against the eval rules: every record, sizes, modes, index kinds, and statuses for bad indices."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import numpy as jnp
from functorch_lite.compiler.lowering import indexing
from functorch_lite.compiler.lowering.indexing import OUT_OF_RANGE
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.errors import BoundsError
from functorch_lite.primitives import blocks
from functorch_lite.primitives import indexing as p
from functorch_lite.primitives.matrix import permute_rows_p
from tests.compiler import comparing
from tests.compiler.comparing import check
from tests.compiler.support import rule_kernel, run_kernel, run_rule

RNG = np.random.default_rng(7)
DTYPES = ("float32", "float64", "float16", "bfloat16", "int32", "uint8", "bool", "complex64", "complex128")
OUTSIDE = ("clip", "wrap", "fill", "zero")
SHAPES = (((5,), 1, (7,)), ((5, 3), 1, (2, 2)), ((4, 3), 2, (11,)), ((7, 2, 17), 1, (4,)), ((3, 2, 2), 2, (1,)),
          ((1, 5), 1, (3,)), ((9,), 1, ()), ((6, 4), 1, (0,)), ((6, 0), 1, (3,)), ((4, 16), 1, (37,)))

BLOCKS = ((4, 3, 5), (2, 3, 5), (2, 1, 5), (1, 2, 3), (4, 3, 1), (2, 2, 1), (0, 3, 5))


def array(shape, dtype):
    return comparing.array(RNG, shape, dtype)


def status(prim, *arrays, **params):
    arrays = [np.asarray(a) for a in arrays]
    avals = [Aval(a.shape, a.dtype) for a in arrays]
    out = shape_rules[prim](*avals, **params)
    return run_kernel(rule_kernel(prim, avals, [out], params), [*arrays, np.empty(out.shape, out.dtype)])


def drawn_indices(sizes, shape, mode, dtype=np.int64):
    low, high = {"unchecked": (0, 1), "raise": (-1, 1)}.get(mode, (-3, 3))
    return [RNG.integers(low * n, high * n, shape).astype(dtype) for n in sizes]


@pytest.mark.parametrize("mode", p.MODES)
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_gather_equals_its_eval_rule(case, mode):
    shape, k, where = case
    for dtype in ("float32", "complex128"):
        check(p.gather_p, array(shape, dtype), *drawn_indices(shape[:k], where, mode), mode=mode)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ("raise", "fill"))
def test_gather_of_every_dtype(dtype, mode):
    for shape in ((6,), (6, 5)):
        check(p.gather_p, array(shape, dtype), *drawn_indices((6,), (9,), mode), mode=mode)


@pytest.mark.parametrize("dtype", ("int8", "int16", "int32", "uint8", "uint32", "uint64"))
@pytest.mark.parametrize("mode", ("raise", *OUTSIDE))
def test_gather_by_every_kind_of_index(dtype, mode):
    i = RNG.integers(0, 7, 21) if mode == "raise" else RNG.integers(0, 120, 21) * (-1 if dtype[0] == "i" else 1)
    check(p.gather_p, array((7, 3), "float64"), i.astype(dtype), mode=mode)
    check(p.gather_p, array((300,), "float64"), i.astype(dtype), mode=mode)


@pytest.mark.parametrize("mode", ("fill", "zero"))
def test_gather_from_an_empty_axis_fills(mode):
    check(p.gather_p, np.zeros((0, 3), np.float32), np.array([0, 4]), mode=mode)
    check(p.gather_p, np.zeros((0, 3), np.complex64), np.array([0, 4]), mode=mode)


@pytest.mark.parametrize("bad", (5, -6, 2**40))
@pytest.mark.parametrize("where", (0, 17, 36))
def test_an_index_out_of_range_leaves_with_a_status(bad, where):
    i = RNG.integers(-5, 5, 37)
    x, rows = array((5,), "float64"), array((5, 3), "float32")
    assert status(p.gather_p, x, i, mode="raise") == 0
    i[where] = bad
    for args in ((p.gather_p, x, i), (p.gather_p, rows, np.zeros(37, int), np.clip(i, -3, 3))):
        assert status(*args, mode="raise") == OUT_OF_RANGE
        with pytest.raises(BoundsError):
            eval_rules[args[0]](np, *args[1:], mode="raise")
    for combine in ("set", "add"):
        assert status(p.scatter_p, x, array((37,), "float64"), i, combine=combine, mode="raise") == OUT_OF_RANGE


def test_indexing_an_empty_axis_leaves_with_a_status():
    for mode in ("raise", "clip", "wrap"):
        assert status(p.gather_p, np.zeros((0, 2)), np.array([0]), mode=mode) == OUT_OF_RANGE
        empty = np.zeros((0, 2)), np.ones((1, 2)), np.array([0])
        assert status(p.scatter_p, *empty, combine="add", mode=mode) == OUT_OF_RANGE


def primitive(combine):
    return p.scatter_p if combine in ("set", "add") else p.scatter_reduce_p


@pytest.mark.parametrize("combine", ("set", "add", "multiply", "min", "max"))
@pytest.mark.parametrize("mode", p.MODES)
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_scatter_equals_its_eval_rule(case, mode, combine):
    shape, k, where = case
    for dtype in ("float64", "complex64"):
        x, updates = array(shape, dtype), array((*where, *shape[k:]), dtype)
        check(primitive(combine), x, updates, *drawn_indices(shape[:k], where, mode), combine=combine, mode=mode)


@pytest.mark.parametrize("combine", ("set", "add", "multiply", "min", "max"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_of_every_dtype(dtype, combine):
    for row in ((), (5,)):
        x, updates = array((6, *row), dtype), array((40, *row), dtype)
        check(primitive(combine), x, updates, RNG.integers(-9, 9, 40), combine=combine, mode="fill")


@pytest.fixture
def short(monkeypatch):
    """Treat short rows and copies as if they were long."""
    monkeypatch.setattr(indexing, "LONG_BYTES", 0)
    monkeypatch.setattr(indexing, "PART_BYTES", 1)


@pytest.mark.parametrize("combine", ("set", "add", "multiply", "min", "max"))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", (1, 6, 7, 16, 24))
def test_scatter_in_parts_of_rows(width, dtype, combine, short):
    x, updates = array((5, width), dtype), array((30, width), dtype)
    for mode in ("raise", "fill"):
        check(primitive(combine), x, updates, RNG.integers(-5, 5, 30), combine=combine, mode=mode)


@pytest.mark.parametrize(("rows", "width", "parts"), [(4096, 256, 2), (4096, 768, 4), (4096, 1024, 8), (4096, 64, 1),
                                                       (100, 1024, 1), (4096, 257, 1), (4096, 4099 * 2, 2)])
def test_long_rows_are_scattered_in_equal_parts(rows, width, parts):
    assert indexing.parts_of_rows(rows, width, 4) == parts


@pytest.mark.parametrize("combine", ("set", "add", "multiply", "min", "max"))
@pytest.mark.parametrize("dtype", ("float32", "float16", "complex64"))
def test_what_begins_as_a_number_is_written_where_it_ends(dtype, combine):
    """The number is not kept for who reads it too, and a bad index is told before anything else."""
    def run(i, updates):
        number = jnp.full((6, 5), 2, dtype)
        changed = getattr(jnp.at(number)[i], combine)(updates)
        return changed, number * 3, changed + number

    i, updates = RNG.integers(-6, 6, 20), array((20, 5), dtype)
    expected = Evaluator(fl.make_program(run)(i, updates))(i, updates)
    for found, e in zip(fl.jit(run)(i, updates), expected, strict=True):
        np.testing.assert_array_equal(found, e)
    with pytest.raises(BoundsError):
        fl.jit(run)(i + 7, updates)


@pytest.mark.parametrize("combine", ("min", "max"))
def test_an_extremum_with_nan_is_nan(combine):
    x = np.array([1.0, np.nan, 3.0, -np.inf])
    updates, i = np.array([np.nan, 2.0, 5.0, -0.0, np.inf]), np.array([0, 1, 2, 3, 3])
    check(p.scatter_reduce_p, x, updates, i, combine=combine, mode="raise")
    pairs = np.array([1 + 2j, complex(1, np.nan), complex(np.nan, 0), 1 - 1j, 0j])
    for shift in range(5):
        new = np.roll(pairs, shift)
        check(p.scatter_reduce_p, pairs, new, np.arange(5), combine=combine, mode="raise")


def test_of_many_updates_of_one_place_the_last_wins():
    i = RNG.integers(0, 3, 1000)
    found = run_rule(p.scatter_p, np.zeros(3), np.arange(1000.0), i, combine="set", mode="raise")
    np.testing.assert_array_equal(found, [np.flatnonzero(i == k)[-1] for k in range(3)])


@pytest.mark.parametrize("dtype", ("float32", "float16", "bool", "complex128"))
@pytest.mark.parametrize("sizes", BLOCKS, ids=str)
def test_blocks_equal_their_eval_rules(sizes, dtype):
    x, update = array((4, 3, 5), dtype), array(sizes, dtype)
    for starts in ((0, 0, 0), (1, 1, 2), (9, -3, 1), (-(2**62), 2**62, 2**62)):
        starts = [np.int64(s) for s in starts]
        check(blocks.dynamic_slice_p, x, *starts, sizes=sizes)
        check(blocks.dynamic_update_slice_p, x, update, *starts)
    for lead in ((4,), (2, 3), (0,)):
        starts = [RNG.integers(-2, 7, lead) for _ in sizes]
        x, update = array((*lead, 4, 3, 5), dtype), array((*lead, *sizes), dtype)
        check(blocks.dynamic_slice_p, x, *starts, sizes=sizes)
        check(blocks.dynamic_update_slice_p, x, update, *starts)


def test_starts_of_every_kind_are_clamped():
    x = array((300, 2), "float32")
    for start in (np.uint8(255), np.int8(-128), np.uint64(2**63 + 5), np.uint32(2**32 - 1), np.int32(77)):
        check(blocks.dynamic_slice_p, x, start, np.int16(-1), sizes=(3, 2))


def test_a_block_of_a_scalar():
    check(blocks.dynamic_slice_p, np.float32(3), sizes=())
    check(blocks.dynamic_update_slice_p, np.float32(3), np.float32(4))


@pytest.mark.parametrize("inverse", (False, True))
@pytest.mark.parametrize("dtype", ("float32", "complex64", "bool"))
def test_permute_rows_equals_its_eval_rule(inverse, dtype):
    for lead in ((), (3,), (2, 2)):
        order = np.array([RNG.permutation(5) for _ in range(int(np.prod(lead)))], np.int32).reshape(*lead, 5)
        for n in (1, 4, 0):
            check(permute_rows_p, array((*lead, 5, n), dtype), order, inverse=inverse)


def test_positions_that_are_repeated_have_the_shortest_dtype():
    x, index = np.arange(90_000.0).reshape(300, 300), RNG.integers(-300, 300, (200, 300))
    program = fl.make_program(lambda x, i: np.take_along_axis(x, i, 0))(x, index)
    assert np.dtype(np.int16) in [a.dtype for a in program.in_avals]
    take = fl.jit(lambda x, i: np.take_along_axis(x, i, 0))
    np.testing.assert_array_equal(take(x, index), np.take_along_axis(x, index, 0))
    index[3, 4] = 300
    with pytest.raises(IndexError, match="300"):
        take(x, index)
    put = fl.jit(lambda x, i, v: fl.numpy.at(x)[i, np.arange(300)].add(v))
    index[3, 4] = 0
    want = x.copy()
    np.add.at(want, (index, np.arange(300)), 1.0)
    np.testing.assert_array_equal(put(x, index, np.ones((200, 300))), want)

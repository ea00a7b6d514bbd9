# SPDX-License-Identifier: MIT
"""Lowerings that move, repeat, reduce or draw elements, against the eval rules: records, shapes, sizes."""

import importlib
import itertools

import numpy as np
import pytest

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Index
from functorch_lite.compiler.lowering.movement import matching_axes, reshaped
from functorch_lite.compiler.lowering.rules import Reduction, reduction_rules
from functorch_lite.primitives import broadcast, matrix, movement, random_bits, reduction
from tests.compiler.equations import case, check_all
from tests.compiler.test_lower_elementwise import DTYPES, boundary, records_of

for _family in ("broadcast", "movement", "matrix", "reduction", "random_bits"):
    importlib.import_module(f"functorch_lite.compiler.lowering.{_family}")

SIZES = (0, 1, 3, 16, 17, 33)
SHAPES = {
    24: ((24,), (4, 6), (2, 3, 4), (6, 4), (1, 24), (2, 2, 6), (3, 8), (4, 1, 6), (8, 3, 1), (2, 12)),
    1: ((), (1,), (1, 1, 1)),
    0: ((0,), (0, 3), (2, 0)),
    60: ((3, 4, 5), (60,), (12, 5), (5, 12), (3, 20), (4, 15), (6, 10), (3, 2, 2, 5)),
}


def numbers(shape, dtype="f4"):
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


@pytest.mark.parametrize("lanes_bytes", (64, 32))
@pytest.mark.parametrize("family", ("broadcast", "movement", "random_bits", "reduction"))
def test_records(family, lanes_bytes):
    check_all(list(records_of(family)), lanes_bytes=lanes_bytes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype):
    x = np.resize(boundary(dtype), (3, 17))
    square, value = np.resize(boundary(dtype), (2, 3, 3)), boundary(dtype)[0]
    check_all([
        case("reshape", movement.reshape_p, x, shape=(17, 3)),
        case("permute", movement.permute_dims_p, x, axes=(1, 0)),
        case("rev", movement.rev_p, x, axes=(1,)),
        case("slice", movement.slice_p, x, start=(0, 1), limit=(3, 16), strides=(2, 3)),
        case("pad", movement.pad_p, x, value, config=((1, 0, 1), (-1, 2, 2))),
        case("concatenate", movement.concatenate_p, x, x[:, :5], axis=1),
        case("concatenate", movement.concatenate_p, x, x[:1], axis=0),
        case("broadcast", broadcast.broadcast_in_dim_p, x[:, :1], shape=(3, 4), dims=(0, 1)),
        case("iota", broadcast.iota_p, dtype=dtype, shape=(2, 17), axis=1) if dtype.kind != "b" else
        case("iota", broadcast.iota_p, dtype=np.dtype(bool), shape=(2,), axis=0),
        case("tril", matrix.triangle_p, square, k=0, lower=True),
        case("triu", matrix.triangle_p, square, k=-1, lower=False),
        case("diagonal", matrix.diagonal_p, square),
        case("diagonal_matrix", matrix.diagonal_matrix_p, x),
        case("identity", matrix.identity_p, square),
    ])


@pytest.mark.parametrize("size", SHAPES)
def test_reshape_between_all_shapes(size):
    both = itertools.product(SHAPES[size], repeat=2)
    check_all([case("reshape", movement.reshape_p, numbers(a), shape=b) for a, b in both])


def test_reshape_divides_only_what_it_must():
    b = Builder("divides")
    i, j = Index.of(b.integer()), Index.of(b.integer())
    assert [x.key for x in reshaped(b, [i, j], (4, 6), (4, 6, 1))] == [i.key, j.key, Index().key]
    assert [x.key for x in reshaped(b, [i, j], (4, 6), (24,))] == [(i * 6 + j).key]
    assert [x.key for x in reshaped(b, [i * 6], (24,), (4, 6))] == [i.key, Index().key]
    assert not b.function.body
    reshaped(b, [i, j], (24, 7), (4, 6, 7))
    assert [v.op for v in b.function.body] == ["index", "div", "rem"]


def test_axes_that_match():
    assert matching_axes((4, 6), (2, 2, 6)) == [([0], [0, 1]), ([1], [2])]
    assert matching_axes((2, 3), (3, 2)) == [([0, 1], [0, 1])]
    assert matching_axes((), (1,)) == [([], [0])]


def test_pads_of_every_kind():
    amounts = list(itertools.product((-2, 0, 3), (-1, 0, 2), (0, 2)))
    rng = np.random.default_rng(0)
    found = [case("pad", movement.pad_p, numbers((n,)), np.float32(-1), config=(c,))
             for n in (0, 1, 5, 17) for c in amounts if n + max(n - 1, 0) * c[2] + c[0] + c[1] >= 0]
    for _ in range(40):
        shape = tuple(int(n) for n in rng.integers(2, 6, 3))
        config = tuple(amounts[k] for k in rng.integers(0, len(amounts), 3))
        if all(n + (n - 1) * i + lo + hi >= 0 for n, (lo, hi, i) in zip(shape, config, strict=True)):
            found.append(case("pad", movement.pad_p, numbers(shape, "c8"), np.complex64(-1j), config=config))
    check_all(found)


def test_concatenate_along_every_axis():
    x = numbers((3, 4, 17))
    parts = [np.split(x, (1, n // 2, n // 2), axis) for axis, n in enumerate(x.shape)]
    check_all([case("concatenate", movement.concatenate_p, *part, axis=k) for k, part in enumerate(parts)])


@pytest.mark.parametrize("lanes_bytes", (64, 32))
def test_sizes(lanes_bytes):
    found = []
    for n in SIZES:
        x, ones = numbers((2, n)), numbers((n,), "i8")
        found += [
            case("rev", movement.rev_p, x, axes=(0, 1)), case("iota", broadcast.iota_p, dtype=np.dtype("f8"),
                                                              shape=(n, 3), axis=0),
            case("permute", movement.permute_dims_p, x, axes=(1, 0)),
            case("broadcast", broadcast.broadcast_in_dim_p, ones, shape=(n, 2), dims=(0,)),
            case("identity", matrix.identity_p, np.zeros((n, n))),
            case("logsumexp", reduction.logsumexp_p, x, axes=(1,)), case("all", reduction.logsumexp_p, x, axes=(0, 1)),
            case("columns", reduction.logsumexp_p, x, axes=(0,)),
        ]
    check_all(found, lanes_bytes=lanes_bytes)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.kind != "c"], ids=str)
def test_positions_of_extrema(dtype):
    rng = np.random.default_rng(0)
    values = boundary(dtype)
    found = []
    for shape, axis in (((40,), 0), ((2, 33), 1), ((5, 17), 0), ((3, 4, 5), 1), ((3, 1, 2), 1)):
        for drawn in (rng.choice(values, shape), rng.choice(values[:3], shape)):
            found += [case(p.name, p, drawn, axis=axis) for p in (reduction.argmax_p, reduction.argmin_p)]
    check_all(found)


@pytest.mark.parametrize("dtype", ("f4", "f8", "f2"))
def test_logsumexp_over_any_axes(dtype):
    x = np.random.default_rng(0).standard_normal((3, 4, 17)).astype(dtype) * 10
    x[0, 0] = -np.inf
    x[1, 1, 1] = np.inf
    x[2, 2, 2] = np.nan
    axes = [a for k in range(4) for a in itertools.combinations(range(3), k)]
    check_all([case("logsumexp", reduction.logsumexp_p, x, axes=a) for a in axes], factor=2)


@pytest.mark.parametrize("dtype", ("f4", "f8", "c8", "c16"))
def test_negligible(dtype):
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((2, 5)) * 100).astype(dtype)
    values[1, 2] *= 1000
    x = (10.0 ** rng.uniform(-16, 0, (2, 5, 5))).astype(dtype)
    check_all([case("negligible", matrix.negligible_p, x, values),
               case("nan", matrix.negligible_p, x, np.full_like(values, np.nan)),
               case("none", matrix.negligible_p, x, values[:, :0])])


def test_random_bits_of_every_size():
    key = np.array([[1, 2], [0xFFFFFFFF, 7]], np.uint32)
    found = [case("bits", random_bits.random_bits_p, key, shape=(n, 3), bit_width=w)
             for n in SIZES for w in (8, 16, 32, 64)]
    found += [case("split", random_bits.split_key_p, key, shape=(n,)) for n in SIZES]
    found += [case("one", random_bits.random_bits_p, key[0], shape=(), bit_width=32),
              case("many", random_bits.random_bits_p, key[0], shape=(1000, 50), bit_width=32)]
    check_all(found)


def test_reductions_state_how_they_combine():
    expected = {broadcast.reduce_sum_p: "add", reduction.reduce_max_p: "max", reduction.reduce_min_p: "min",
                reduction.reduce_prod_p: "mul", reduction.reduce_and_p: "and", reduction.reduce_or_p: "or"}
    assert {p: reduction_rules[p] for p in expected} == {p: Reduction(c) for p, c in expected.items()}

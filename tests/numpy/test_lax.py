# SPDX-License-Identifier: MIT
"""`lax` against NumPy and against convolutions and windows written as loops."""

import itertools

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.lax as lax
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.staging import stage

rng = np.random.default_rng(0)
A, B = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))


def both(function, *arrays):
    """The value of a function, eager; checked to be the same staged."""
    eager = function(*arrays)
    program, captured = stage(lambda *xs: [function(*xs)], [Aval(x.shape, x.dtype) for x in arrays])
    found = evaluator(program)(*captured, *arrays)[0]
    np.testing.assert_allclose(found, eager, rtol=1e-12)
    return eager


@pytest.mark.parametrize(
    "name, like",
    [
        ("neg", np.negative),
        ("sign", np.sign),
        ("abs", np.abs),
        ("floor", np.floor),
        ("ceil", np.ceil),
        ("exp", np.exp),
        ("exp2", np.exp2),
        ("expm1", np.expm1),
        ("sin", np.sin),
        ("cos", np.cos),
        ("tan", np.tan),
        ("sinh", np.sinh),
        ("cosh", np.cosh),
        ("tanh", np.tanh),
        ("asinh", np.arcsinh),
        ("cbrt", np.cbrt),
        ("square", np.square),
        ("is_finite", np.isfinite),
        ("logistic", lambda x: 1 / (1 + np.exp(-x))),
        ("atan", np.arctan),
    ],
)
def test_unary(name, like):
    np.testing.assert_allclose(both(getattr(lax, name), A), like(A))


@pytest.mark.parametrize(
    "name, like",
    [
        ("add", np.add),
        ("sub", np.subtract),
        ("mul", np.multiply),
        ("div", np.divide),
        ("rem", np.fmod),
        ("max", np.maximum),
        ("min", np.minimum),
        ("atan2", np.arctan2),
        ("eq", np.equal),
        ("lt", np.less),
        ("ge", np.greater_equal),
        ("nextafter", np.nextafter),
    ],
)
def test_binary(name, like):
    np.testing.assert_allclose(both(getattr(lax, name), A, B), like(A, B))


def test_rounding_and_shifts():
    np.testing.assert_array_equal(both(lax.round, np.array([0.5, 1.5, -2.5])), [1, 2, -3])
    np.testing.assert_array_equal(both(lambda x: lax.round(x, 1), np.array([0.5, 1.5, -2.5])), [0, 2, -2])
    np.testing.assert_array_equal(both(lambda x: lax.shift_right_logical(x, 1), np.array([-2], np.int32)), [2**31 - 1])


def test_slices():
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(both(lambda x: lax.slice(x, (0, 1, 0), (2, 3, 4), (1, 1, 2)), x), x[:, 1:, ::2])
    np.testing.assert_array_equal(both(lambda x: lax.slice_in_dim(x, -2, None, axis=1), x), x[:, -2:])
    np.testing.assert_array_equal(both(lambda x: lax.index_in_dim(x, -1, 2, False), x), x[..., -1])
    np.testing.assert_array_equal(
        both(lambda x, i: lax.dynamic_slice(x, (i, 0, i), (1, 2, 2)), x, np.int64(1)), x[1:, :2, 1:3]
    )
    np.testing.assert_array_equal(both(lambda x, i: lax.dynamic_slice_in_dim(x, i, 2, 2), x, np.int64(9)), x[..., 2:])
    np.testing.assert_array_equal(
        both(lambda x, i: lax.dynamic_index_in_dim(x, i, 1, False), x, np.int64(-1)), x[:, -1]
    )
    wanted = x.copy()
    wanted[:, 1] = 0
    np.testing.assert_array_equal(
        both(lambda x, i: lax.dynamic_update_index_in_dim(x, np.zeros((2, 4)), i, 1), x, np.int64(1)), wanted
    )
    np.testing.assert_array_equal(both(lambda x: lax.collapse(x, 1), x), x.reshape(2, 12))
    np.testing.assert_array_equal(
        both(lambda x: lax.pad(x, 1.0, [(0, 0, 0), (1, 0, 0), (0, -1, 1)]), x).shape, (2, 4, 6)
    )


def test_sorting():
    x, y = np.array([3, 1, 3, 2]), np.array([0.0, 1.0, -1.0, 2.0])
    keys, values = lax.sort((x, y), num_keys=2)
    np.testing.assert_array_equal(keys, [1, 2, 3, 3])
    np.testing.assert_array_equal(values, [1, 2, -1, 0])
    np.testing.assert_array_equal(both(lambda x: lax.sort(x, 0), A), np.sort(A, 0))
    values, places = lax.top_k(y, 2)
    np.testing.assert_array_equal(values, [2, 1])
    np.testing.assert_array_equal(places, [3, 1])


def test_running_reductions():
    np.testing.assert_allclose(both(lambda x: lax.cumsum(x, 1, reverse=True), A), np.cumsum(A[:, ::-1], 1)[:, ::-1])
    np.testing.assert_allclose(both(lambda x: lax.cummax(x, 1), A), np.maximum.accumulate(A, 1))
    np.testing.assert_allclose(both(lambda x: lax.cumlogsumexp(x, 1), A), np.logaddexp.accumulate(A, 1))
    np.testing.assert_allclose(both(lambda x: lax.reduce_sum(x, (0,)), A), A.sum(0))


def test_products():
    x, y = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 5))
    np.testing.assert_allclose(both(lambda x, y: lax.dot_general(x, y, (((2,), (1,)), ((0,), (0,)))), x, y), x @ y)
    np.testing.assert_allclose(both(lax.batch_matmul, x, y), x @ y)


def test_choice():
    np.testing.assert_array_equal(both(lambda x: lax.select(x > 0, x, -x), A), np.abs(A))
    np.testing.assert_array_equal(
        lax.select_n(np.array([0, 1, 2]), np.zeros(3), np.ones(3), np.full(3, 2.0)), [0, 1, 2]
    )
    np.testing.assert_array_equal(lax.select_n(np.array([True, False]), np.zeros(2), np.ones(2)), [1, 0])
    np.testing.assert_array_equal(both(lambda x: lax.clamp(-0.5, x, 0.5), A), np.clip(A, -0.5, 0.5))


def loop_conv(x, w, strides, pads, lhs_dilation, rhs_dilation, groups):
    """A convolution of [N, C, H, W] with [O, I, H, W] by its definition."""
    n, c, *size = x.shape
    spread = np.zeros((n, c, *[(s - 1) * d + 1 for s, d in zip(size, lhs_dilation, strict=True)]))
    spread[:, :, :: lhs_dilation[0], :: lhs_dilation[1]] = x
    spread = np.pad(spread, [(0, 0), (0, 0), *pads])
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], rhs_dilation, strict=True)]
    out = [(m - r) // s + 1 for m, r, s in zip(spread.shape[2:], reach, strides, strict=True)]
    found = np.zeros((n, w.shape[0], *out))
    per = w.shape[0] // groups
    for o, i, j in itertools.product(range(w.shape[0]), range(out[0]), range(out[1])):
        part = spread[
            :,
            (o // per) * w.shape[1] : (o // per + 1) * w.shape[1],
            i * strides[0] : i * strides[0] + reach[0] : rhs_dilation[0],
            j * strides[1] : j * strides[1] + reach[1] : rhs_dilation[1],
        ]
        found[:, o, i, j] = (part * w[o]).sum((1, 2, 3))
    return found


@pytest.mark.parametrize(
    "strides, pads, lhs_dilation, rhs_dilation, groups",
    [
        ((1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1), 1),
        ((2, 1), ((1, 2), (0, 1)), (1, 1), (1, 1), 2),
        ((1, 2), ((2, 2), (1, 1)), (2, 1), (1, 2), 1),
    ],
)
def test_convolution(strides, pads, lhs_dilation, rhs_dilation, groups):
    x, w = rng.normal(size=(2, 4, 6, 5)), rng.normal(size=(6, 4 // groups, 3, 2))
    wanted = loop_conv(x, w, strides, pads, lhs_dilation, rhs_dilation, groups)
    found = both(
        lambda x, w: lax.conv_general_dilated(
            x, w, strides, pads, lhs_dilation, rhs_dilation, feature_group_count=groups
        ),
        x,
        w,
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    last = lax.conv_general_dilated(
        np.moveaxis(x, 1, -1),
        np.transpose(w, (2, 3, 1, 0)),
        strides,
        pads,
        lhs_dilation,
        rhs_dilation,
        ("NHWC", "HWIO", "NHWC"),
        groups,
    )
    np.testing.assert_allclose(np.moveaxis(last, -1, 1), wanted, rtol=1e-10)


def test_same_padding_keeps_the_size():
    x, w = rng.normal(size=(1, 2, 7, 8)), rng.normal(size=(3, 2, 3, 2))
    assert lax.conv(x, w, (1, 1), "SAME").shape == (1, 3, 7, 8)
    assert lax.conv(x, w, (2, 2), "SAME").shape == (1, 3, 4, 4)
    assert lax.conv(x, w, (1, 1), "VALID").shape == (1, 3, 5, 7)
    with pytest.raises(ValueError, match="'SAME'"):
        lax.conv(x, w, (1, 1), "FULL")


def test_transposed_convolution_is_the_transpose_of_a_convolution():
    x, w = rng.normal(size=(1, 8, 8, 2)), rng.normal(size=(3, 3, 2, 5))
    y = lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    ct = rng.normal(size=y.shape)
    back = lax.conv_transpose(ct, w, (2, 2), "SAME", transpose_kernel=True)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(back, x), np.vdot(ct, y), rtol=1e-10)


def test_windows():
    x = rng.normal(size=(1, 6, 6, 1))
    found = both(lambda x: lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), x)
    np.testing.assert_array_equal(found[0, ..., 0], x[0, ..., 0].reshape(3, 2, 3, 2).max((1, 3)))
    found = both(lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), None, "SAME"), x)
    assert found.shape == x.shape
    np.testing.assert_allclose(found[0, 0, 0, 0], x[0, :2, :2, 0].sum())
    with pytest.raises(ValueError, match="add, max or min"):
        lax.reduce_window(x, 0.0, lax.mul, (1, 1, 1, 1))


X, STARTS, J = rng.normal(size=(5, 6, 7)), rng.integers(-2, 9, 4), rng.integers(-2, 9, (4, 3))
BLOCKS = {
    "of one array": (lambda x, i: lax.dynamic_slice(x, (i, 0, 1), (2, 6, 7)), (None, 0), (X, STARTS)),
    "windows of one array": (lambda x, i: lax.dynamic_slice(x, (1, i, i), (2, 3, 2)), (None, 0), (X, STARTS)),
    "windows of a row": (lambda x, i: lax.dynamic_slice(x, (i,), (3,)), (None, 0), (X[0, 0], STARTS)),
    "whole": (lambda x, i: lax.dynamic_slice(x, (i, i, i), (5, 6, 7)), (None, 0), (X, STARTS)),
    "of their own": (lambda x, i: lax.dynamic_slice(x, (i, 2), (3, 2)), (0, 0), (X[:4], STARTS)),
    "unsigned": (lambda x, i: lax.dynamic_slice(x, (i, i), (3, 2)), (0, 0), (X[:4], np.uint64([0, 2, 3, 2**64 - 1]))),
    "put": (lambda x, i: lax.dynamic_update_slice(x, x[:2] * 3, (i, 0)), (0, 0), (X[:4], STARTS)),
    "put into one array": (lambda x, i: lax.dynamic_update_slice(x, x[:2, :3] * 3, (i, i)), (None, 0), (X[0], STARTS)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_each_example_has_a_block_of_its_own(name):
    fun, axes, (x, i) = BLOCKS[name]
    rows = [fun(x if axes[0] is None else x[k], i[k]) for k in range(4)]
    for transform in (lambda f: f, fl.jit):
        np.testing.assert_array_equal(transform(fl.vmap(fun, axes))(x, i), np.stack(rows))
    gradient = fl.jit(fl.grad(lambda x: (fl.vmap(fun, axes)(x, i) ** 3).sum()))(x)
    alone = sum(fl.grad(lambda x, k=k: (fun(x if axes[0] is None else x[k], i[k]) ** 3).sum())(x) for k in range(4))
    np.testing.assert_allclose(gradient, alone, rtol=1e-12)


def test_blocks_of_examples_of_examples():
    def block(x, i):
        return lax.dynamic_slice(x, (i, i), (2, 3))

    each, shared, own = (fl.vmap(fl.vmap(block, axes), outer) for axes, outer in [
        ((None, 0), (None, 0)), ((None, 0), (0, 0)), ((0, 0), (None, 1))])
    np.testing.assert_array_equal(fl.jit(each)(X[0], J)[2, 1], block(X[0], J[2, 1]))
    np.testing.assert_array_equal(fl.jit(shared)(X[:4], J)[2, 1], block(X[2], J[2, 1]))
    np.testing.assert_array_equal(fl.jit(own)(X[:4], J)[2, 1], block(X[1], J[1, 2]))


def test_windows_of_one_array_copy_it_for_no_example():
    windows = fl.vmap(lambda x, i: lax.dynamic_slice(x, (i, 0), (3, 100)), (None, 0))
    forecast = fl.jit(windows).memory(np.ones((1000, 100)), np.arange(500))
    assert forecast.temporaries < 500 * 1000 * 8

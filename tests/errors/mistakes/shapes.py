# SPDX-License-Identifier: MIT
"""Shapes and dtypes that do not fit, indices out of range, functions that take no traced arrays, devices."""

import numpy as np

import functorch_lite as fl
from tests.errors.device import on_gpu

X = np.ones((2, 3))
W = np.ones((4, 5))


def _jit_grad(f):
    return fl.jit(fl.grad(f))


# --- shapes under jit(grad(...)) ----------------------------------------------------------------------------------


def matmul_of_two_arguments():
    def loss(params, x):
        return np.sum(x @ params["w"])

    _jit_grad(loss)({"w": W}, X)


def matmul_of_a_computed_array():
    def loss(w):
        return np.sum(np.tanh(X) @ w.T)

    _jit_grad(loss)(W)


def matmul_with_a_scalar():
    _jit_grad(lambda w: np.sum(w @ np.float64(2.0)))(W)


def matmul_of_batches():
    _jit_grad(lambda x, y: np.sum(x @ y))(np.ones((2, 3, 4)), np.ones((3, 4, 5)))


def matmul_under_vmap():
    fl.vmap(lambda x, w: x @ w, in_axes=(0, None))(X, W)


def add_of_two_arguments():
    def loss(params):
        return np.sum(params["w"] + params["b"])

    _jit_grad(loss)({"w": W, "b": np.ones(4)})


def subtract_of_a_constant():
    target = np.ones(4)
    _jit_grad(lambda x: np.sum((x - target) ** 2))(X)


def where_of_three_shapes():
    _jit_grad(lambda x: np.sum(np.where(x > 0, x, np.ones(4))))(X)


def concatenate_of_two_arguments():
    _jit_grad(lambda x, w: np.sum(np.concatenate([x, w], axis=0)))(X, W)


def stack_of_two_arguments():
    _jit_grad(lambda x, w: np.sum(np.stack([x, w])))(X, W)


def reshape_to_another_size():
    _jit_grad(lambda x: np.sum(x.reshape(4, 2)))(X)


def reshape_of_unknown_remainder():
    _jit_grad(lambda x: np.sum(x.reshape(4, -1)))(X)


def broadcast_to_fewer_axes():
    _jit_grad(lambda x: np.sum(np.broadcast_to(x, (3,))))(X)


def transpose_of_wrong_axes():
    _jit_grad(lambda x: np.sum(np.transpose(x, (0, 2))))(X)


def sum_over_an_axis_out_of_range():
    _jit_grad(lambda x: np.sum(np.sum(x, axis=2)))(X)


def squeeze_of_a_long_axis():
    _jit_grad(lambda x: np.sum(np.squeeze(x, 0)))(X)


def einsum_of_different_sizes():
    _jit_grad(lambda x, w: np.einsum("ij,jk->", x, w))(X, W)


def dot_of_vectors_of_different_size():
    _jit_grad(lambda x, y: np.dot(x, y))(np.ones(3), np.ones(4))


# --- dtypes -------------------------------------------------------------------------------------------------------


def float8_mixed_with_float8():
    small = X.astype("float8_e4m3fn") if hasattr(np, "float8_e4m3fn") else fl.numpy.asarray(X, "float8_e4m3fn")
    other = fl.numpy.asarray(X, "float8_e5m2")
    fl.jit(lambda x, y: x + y)(small, other)


def promotion_is_strict():
    with fl.config(promotion="strict"):
        fl.jit(lambda x, n: x * n)(X.astype(np.float32), np.arange(3))


def python_integer_too_large():
    fl.jit(lambda x: x + 300)(np.arange(3, dtype=np.uint8))


def bitwise_and_of_floats():
    fl.jit(lambda x: x & 1)(X)


def negative_of_booleans():
    fl.jit(lambda x: -x)(X > 0)


# --- indices ------------------------------------------------------------------------------------------------------


def gather_out_of_range_under_jit():
    def pick(x, i):
        doubled = 2 * x
        return doubled[i]

    fl.jit(pick)(X, np.array([0, 5]))


def gather_out_of_range_under_grad():
    fl.grad(lambda x: x[np.array([0, 5])].sum())(X)


def index_out_of_range():
    fl.jit(lambda x: x[2])(X)


def too_many_indices():
    fl.jit(lambda x: x[0, 0, 0])(X)


def index_of_a_float():
    fl.jit(lambda x: x[1.0])(X)


def index_of_a_float_array():
    fl.jit(lambda x, i: x[i])(X, np.array([0.0]))


def index_of_a_string():
    fl.jit(lambda x: x["w"])(X)


def scatter_out_of_range_under_jit():
    def put(x, i):
        return x.at[i].set(0.0)

    fl.jit(put)(X, 7)


def scatter_of_another_shape():
    fl.jit(lambda x: x.at[0].set(np.ones(4)))(X)


# --- functions and attributes -------------------------------------------------------------------------------------


def numpy_function_without_a_rule():
    fl.jit(lambda x: np.busday_count(x, x))(X)


def numpy_function_without_a_rule_under_grad():
    fl.grad(lambda x: np.sum(np.is_busday(x)))(X[0])


def ufunc_of_python():
    fl.jit(lambda x: np.frompyfunc(lambda v: v + 1, 1, 1)(x))(X)


def attribute_that_is_not_there():
    fl.jit(lambda x: x.cuda())(X)


def operand_of_a_wrong_type():
    fl.jit(lambda x: x + "1")(X)


def function_of_a_wrong_type():
    fl.jit(lambda x: np.add(x, {"b": 1}))(X)


# --- devices and NumPy's own errors -------------------------------------------------------------------------------


def arrays_on_two_devices():
    with on_gpu(X) as y:
        fl.grad(lambda x: np.sum(x * y))(X)


def numpy_raises_under_grad():
    fl.grad(lambda x: np.linalg.inv(x).sum())(np.zeros((2, 2)))


def numpy_raises_under_jit():
    def solve(x):
        scaled = 0 * x
        return np.linalg.inv(scaled)

    fl.jit(solve)(np.eye(2))


# --- errors that show when a program runs again -------------------------------------------------------------------


@fl.jit
def _pick(x, i):
    doubled = 2 * x
    return doubled[i].sum()


def gather_out_of_range_under_grad_of_jit():
    fl.grad(_pick)(X, np.array([0, 5]))


def gather_out_of_range_under_jit_of_vmap_of_jit():
    fl.jit(fl.vmap(_pick, in_axes=(None, 0)))(X, np.array([[0, 5], [0, 1]]))


def gather_out_of_range_in_a_recomputed_function():
    fl.jit(fl.grad(fl.checkpoint(_pick)))(X, np.array([0, 5]))

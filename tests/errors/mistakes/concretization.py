# SPDX-License-Identifier: MIT
"""Asking a traced array for its value, keeping it too long, or changing it in place."""

import math

import numpy as np

import functorch_lite as fl

X = np.array([1.0, 2.0, 3.0])


# --- a value that is not known ------------------------------------------------------------------------------------


@fl.jit
def _relu(x):
    if x > 0:
        return x
    return 0.0


def if_under_jit():
    _relu(1.0)


def if_under_vmap():
    def relu(x):
        return x if x > 0 else 0.0

    fl.vmap(relu)(X)


def if_under_jit_of_grad():
    def f(x):
        if x < 1:
            return x * x
        return x

    fl.jit(fl.grad(f))(2.0)


def while_under_jit():
    def halve(x):
        while x > 1:
            x = x / 2
        return x

    fl.jit(halve)(8.0)


def and_under_jit():
    fl.jit(lambda x: x > 0 and x < 1)(0.5)


def assert_under_jit():
    def checked(x):
        assert (x > 0).all()
        return x

    fl.jit(checked)(X)


def range_under_jit():
    def power(x, n):
        y = 1.0
        for _ in range(n):
            y = y * x
        return y

    fl.jit(power)(2.0, 3)


def float_under_jit():
    fl.jit(lambda x: float(x))(1.0)


def int_under_jit():
    fl.jit(lambda x: int(x))(1.0)


def int_of_an_integer_under_jit():
    fl.jit(lambda n: [0] * int(n))(2)


def complex_under_jit():
    fl.jit(lambda x: complex(x))(1.0)


def item_under_jit():
    fl.jit(lambda x: x.sum().item())(X)


def tolist_under_jit():
    fl.jit(lambda x: x.tolist())(X)


def zeros_of_a_traced_size():
    fl.jit(lambda n: fl.numpy.zeros(n))(3)


def arange_of_a_traced_size():
    fl.jit(lambda n: fl.numpy.arange(n))(3)


def reshape_to_a_traced_size():
    fl.jit(lambda x, n: x.reshape(n, 1))(X, 3)


def list_indexed_by_a_traced_integer():
    fl.jit(lambda i: ["a", "b"][i])(1)


def array_indexed_by_a_traced_integer():
    table = np.arange(3.0)
    fl.jit(lambda i: table[i])(1)


def slice_with_a_traced_bound():
    fl.jit(lambda x, n: x[:n])(X, 2)


def mask_under_jit():
    fl.jit(lambda x: x[x > 0])(X)


def nonzero_under_jit():
    fl.jit(lambda x: np.nonzero(x))(X)


def unique_under_jit():
    fl.jit(lambda x: np.unique(x))(X)


def where_of_one_argument_under_jit():
    fl.jit(lambda x: np.where(x > 0))(X)


def asarray_under_jit():
    fl.jit(lambda x: np.asarray(x))(X)


def asarray_under_grad():
    fl.grad(lambda x: np.sum(np.asarray(x)))(X)


def array_of_a_list_under_jit():
    fl.jit(lambda x: np.array([x[0], x[1]]))(X)


def assignment_into_an_array():
    def f(x):
        out = np.zeros(3)
        out[0] = x
        return out

    fl.jit(f)(1.0)


def list_of_a_traced_scalar():
    fl.jit(lambda x: list(x))(1.0)


def len_of_a_traced_scalar():
    fl.jit(lambda x: len(x))(1.0)


def math_function_under_vmap():
    fl.vmap(lambda x: math.sin(x))(X)


# --- in place -----------------------------------------------------------------------------------------------------


def item_assignment():
    def f(x):
        x[0] = 1.0
        return x

    fl.jit(f)(X)


def item_addition():
    def f(x):
        x[0] += 1.0
        return np.sum(x)

    fl.grad(f)(X)


def item_deletion():
    def f(x):
        del x[0]
        return x

    fl.jit(f)(X)


def out_argument():
    fl.jit(lambda x: np.add(x, 1.0, out=x))(X)


def out_argument_of_a_reduction():
    total = np.zeros(())
    fl.jit(lambda x: np.sum(x, out=total))(X)


# --- leaks --------------------------------------------------------------------------------------------------------


def leak_from_grad():
    kept = []

    def f(x):
        kept.append(x * 2)
        return np.sum(x)

    fl.grad(f)(X)
    np.sin(kept[0])


def leak_from_vmap():
    kept = []
    fl.vmap(lambda x: kept.append(x))(X)
    kept[0] + 1


def leak_from_jit():
    kept = []

    @fl.jit
    def f(x):
        kept.append(x + 1)
        return x

    f(X)
    kept[0] * 2


def leak_into_another_jit():
    kept = []
    fl.jit(lambda x: kept.append(x))(X)
    fl.jit(lambda y: y + kept[0])(X)


def leak_is_converted():
    kept = []
    fl.jit(lambda x: kept.append(x))(X)
    np.asarray(kept[0])


def leak_as_an_argument():
    kept = []
    fl.jit(lambda x: kept.append(x))(X)
    fl.grad(lambda x: np.sum(x))(kept[0])

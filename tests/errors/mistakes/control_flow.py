# SPDX-License-Identifier: MIT
"""Loops and branches whose parts do not fit, axis names, custom derivatives."""

import numpy as np

import functorch_lite as fl
from functorch_lite import lax

X = np.array([1.0, 2.0, 3.0])


# --- branches -----------------------------------------------------------------------------------------------------


def cond_of_different_structure():
    def both(x):
        return {"a": x, "b": x}

    def one(x):
        return {"a": x}

    lax.cond(True, both, one, X)


def cond_of_different_shape():
    lax.cond(True, lambda x: {"y": x}, lambda x: {"y": x[:2]}, X)


def cond_of_different_dtype():
    lax.cond(True, lambda x: x, lambda x: x.astype(np.int32), X)


def cond_of_a_vector():
    lax.cond(X > 0, lambda x: x, lambda x: -x, X)


def cond_of_a_string():
    lax.cond("yes", lambda x: x, lambda x: -x, X)


def cond_without_functions():
    lax.cond(True, 1.0, 2.0)


def switch_of_a_float():
    lax.switch(0.5, [lambda x: x, lambda x: -x], X)


def switch_without_branches():
    lax.switch(0, [], X)


# --- loops --------------------------------------------------------------------------------------------------------


def scan_changes_the_structure():
    lax.scan(lambda carry, x: ((carry, x), None), 0.0, X)


def scan_changes_the_shape():
    def step(carry, x):
        return {"h": np.stack([carry["h"], x])}, x

    lax.scan(step, {"h": 0.0}, X)


def scan_changes_the_dtype():
    lax.scan(lambda carry, x: (carry + x, None), np.float32(0.0), X)


def scan_returns_no_pair():
    lax.scan(lambda carry, x: carry + x, 0.0, X)


def scan_over_different_lengths():
    lax.scan(lambda carry, x: (carry, None), 0.0, {"a": X, "b": X[:2]})


def scan_over_a_scalar():
    lax.scan(lambda carry, x: (carry, None), 0.0, {"a": X, "b": 1.0})


def scan_without_a_length():
    lax.scan(lambda carry, x: (carry, None), 0.0)


def while_loop_changes_the_shape():
    lax.while_loop(lambda x: x[0] < 3, lambda x: x[:2], X)


def while_loop_changes_the_structure():
    lax.while_loop(lambda s: s[0] < 3, lambda s: s[0] + 1, (0, X))


def while_loop_changes_the_dtype():
    lax.while_loop(lambda x: x < 3, lambda x: x + 0.5, np.int32(0))


def while_loop_condition_is_a_vector():
    lax.while_loop(lambda x: x < 3, lambda x: x + 1, X)


def while_loop_condition_is_a_number():
    lax.while_loop(lambda x: x, lambda x: x - 1, 3.0)


def fori_loop_up_to_a_float():
    lax.fori_loop(0, 3.0, lambda i, x: x, X)


def error_inside_a_scan_under_jit():
    table = np.ones(2)

    def step(carry, i):
        row = fl.numpy.take(table, i)
        return carry + row, None

    fl.jit(lambda indices: lax.scan(step, 0.0, indices)[0])(np.array([0, 9]))


# --- axis names ---------------------------------------------------------------------------------------------------


def psum_without_vmap():
    lax.psum(X, "batch")


def psum_over_another_name():
    fl.vmap(lambda x: lax.psum(x, "batch"), axis_name="rows")(X)


def axis_index_without_vmap():
    fl.jit(lambda x: x + lax.axis_index("i"))(X)


# --- custom derivatives -------------------------------------------------------------------------------------------


def custom_jvp_without_a_rule():
    square = fl.custom_jvp(lambda x: x * x)
    square(3.0)


def custom_jvp_rule_returns_no_pair():
    square = fl.custom_jvp(lambda x: x * x)
    square.defjvp(lambda primals, tangents: 2.0 * primals[0] * tangents[0])
    fl.grad(square)(3.0)


def custom_jvp_tangent_of_another_shape():
    total = fl.custom_jvp(lambda x: np.sum(x))
    total.defjvp(lambda primals, tangents: (np.sum(primals[0]), tangents[0]))
    fl.grad(total)(X)


def custom_jvp_tangent_of_another_structure():
    both = fl.custom_jvp(lambda x: (x, x))
    both.defjvp(lambda primals, tangents: ((primals[0], primals[0]), tangents[0]))
    fl.jvp(both, (X,), (X,))


def custom_jvp_rule_of_wrong_arity():
    square = fl.custom_jvp(lambda x: x * x)
    square.defjvp(lambda primals: (primals[0], primals[0]))
    fl.grad(square)(3.0)


def custom_vjp_without_a_rule():
    square = fl.custom_vjp(lambda x: x * x)
    fl.grad(square)(3.0)


def custom_vjp_fwd_returns_no_pair():
    square = fl.custom_vjp(lambda x: x * x)
    square.defvjp(lambda x: x * x, lambda x, ct: (2.0 * x * ct,))
    fl.grad(square)(3.0)


def custom_vjp_bwd_returns_too_few():
    product = fl.custom_vjp(lambda x, y: x * y)
    product.defvjp(lambda x, y: (x * y, (x, y)), lambda res, ct: (res[1] * ct,))
    fl.grad(product)(3.0, 4.0)


def custom_vjp_bwd_returns_an_array():
    square = fl.custom_vjp(lambda x: x * x)
    square.defvjp(lambda x: (x * x, x), lambda x, ct: 2.0 * x * ct)
    fl.grad(square)(3.0)


def custom_vjp_cotangent_of_another_shape():
    total = fl.custom_vjp(lambda x: np.sum(x))
    total.defvjp(lambda x: (np.sum(x), None), lambda _, ct: (ct,))
    fl.grad(total)(X)


def custom_vjp_cotangent_of_another_dtype():
    total = fl.custom_vjp(lambda x: np.sum(x))
    total.defvjp(lambda x: (np.sum(x), None), lambda _, ct: (ct * np.ones(3, np.complex128),))
    fl.grad(total)(X)


def custom_vjp_cotangent_of_another_structure():
    total = fl.custom_vjp(lambda params: np.sum(params["w"]))
    total.defvjp(lambda params: (np.sum(params["w"]), None), lambda _, ct: ({"w": ct * X, "b": ct},))
    fl.grad(total)({"w": X})


# --- callbacks ----------------------------------------------------------------------------------------------------


def callback_returns_another_shape():
    fl.jit(lambda x: fl.pure_callback(lambda a: a[:2], fl.ShapeDtype((3,), np.float64), x))(X)


def callback_returns_another_structure():
    fl.jit(lambda x: fl.pure_callback(lambda a: (a, a), fl.ShapeDtype((3,), np.float64), x))(X)

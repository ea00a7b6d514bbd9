# SPDX-License-Identifier: MIT
"""Wrong arguments to the transforms: types, dtypes, axes, tangents, static and donated arguments, settings."""

import numpy as np

import functorch_lite as fl

X = np.array([1.0, 2.0, 3.0])


class _Config:
    def __repr__(self):
        return "Config(depth=2)"


def _scale(params, x):
    return np.sum(params["w"] * x)


# --- types --------------------------------------------------------------------------------------------------------


def grad_of_no_function():
    fl.grad(3.0)


def grad_of_a_string():
    fl.grad(_scale)({"w": X, "name": "linear"}, X)


def vmap_over_an_object():
    fl.vmap(lambda x, settings: x)(X, [_Config()])


def jit_of_a_string():
    fl.jit(lambda x, mode: x)(X, "train")


def jit_of_an_object_in_a_list():
    fl.jit(lambda layers: layers[0])([X, _Config()])


def jvp_of_an_object():
    fl.jvp(lambda x: x, (_Config(),), (1.0,))


def vjp_of_a_string():
    fl.vjp(lambda x: x, "text")


def jit_returns_a_string():
    fl.jit(lambda x: {"value": x, "name": "linear"})(X)


def vmap_returns_an_object():
    fl.vmap(lambda x: (x, _Config()))(X)


# --- dtypes and outputs of grad -----------------------------------------------------------------------------------


def grad_of_an_integer():
    fl.grad(lambda x: x * x)(3)


def grad_of_an_integer_leaf():
    fl.grad(lambda params: params["w"].sum())({"w": X, "steps": np.arange(3)})


def grad_of_a_vector_function():
    fl.grad(lambda x: 2 * x)(X)


def grad_of_a_complex_function():
    fl.grad(lambda x: np.sum(x * 1j))(X)


def grad_of_an_integer_function():
    fl.grad(lambda x: np.argmax(x))(X)


def grad_of_a_pair():
    fl.grad(lambda x: (np.sum(x), x))(X)


def grad_of_nothing():
    fl.grad(lambda x: None)(X)


def grad_of_a_string_result():
    fl.grad(lambda x: "done")(X)


def grad_with_aux_of_a_scalar():
    fl.grad(lambda x: np.sum(x), has_aux=True)(X)


def grad_argnums_out_of_range():
    fl.grad(_scale, argnums=2)({"w": X}, X)


def grad_argnums_of_a_name():
    fl.grad(_scale, argnums="params")({"w": X}, X)


def grad_holomorphic_of_a_real_input():
    fl.grad(lambda x: np.sum(x), holomorphic=True)(X)


def jacrev_of_an_integer():
    fl.jacrev(lambda x: x * x)(np.arange(3))


# --- tangents and cotangents --------------------------------------------------------------------------------------


def jvp_tangents_of_another_structure():
    fl.jvp(_scale, ({"w": X}, X), ({"b": X}, X))


def jvp_tangents_not_in_a_tuple():
    fl.jvp(lambda x: x, X, X)


def jvp_tangent_of_another_shape():
    fl.jvp(_scale, ({"w": X}, X), ({"w": X[:2]}, X))


def jvp_tangent_of_another_dtype():
    fl.jvp(lambda x: x, (X.astype(np.float32),), (X,))


def vjp_cotangent_of_another_structure():
    _, pullback = fl.vjp(lambda x: {"a": x, "b": x}, X)
    pullback({"a": X})


def vjp_cotangent_of_another_shape():
    _, pullback = fl.vjp(lambda x: {"y": x[:2]}, X)
    pullback({"y": X})


def vjp_cotangent_of_another_dtype():
    _, pullback = fl.vjp(lambda x: x, X)
    pullback(X.astype(np.complex64))


def linearize_tangent_of_another_shape():
    _, derivative = fl.linearize(np.sin, X)
    derivative(1.0)


def linear_transpose_of_sin():
    fl.linear_transpose(np.sin, X)(X)


def linear_transpose_of_a_string():
    fl.linear_transpose(lambda x: x, "text")


def linear_transpose_cotangent_of_another_structure():
    fl.linear_transpose(lambda x: {"y": 2.0 * x}, X)({"z": X})


# --- vmap ---------------------------------------------------------------------------------------------------------


def vmap_axes_of_different_size():
    fl.vmap(_scale, in_axes=(0, 0))({"w": np.ones((2, 3))}, np.ones((4, 3)))


def vmap_axis_out_of_range():
    fl.vmap(_scale, in_axes=({"w": 1}, None))({"w": X}, X)


def vmap_over_a_scalar():
    fl.vmap(lambda x: x)(1.0)


def vmap_nothing_is_mapped():
    fl.vmap(lambda x: x, in_axes=None)(X)


def vmap_in_axes_of_another_length():
    fl.vmap(_scale, in_axes=(0,))({"w": X}, X)


def vmap_in_axes_of_another_structure():
    fl.vmap(_scale, in_axes=({"w": 0, "b": 0}, None))({"w": X}, X)


def vmap_in_axes_of_a_string():
    fl.vmap(lambda x: x, in_axes="rows")(X)


def vmap_out_axes_of_another_structure():
    fl.vmap(lambda x: {"y": x}, out_axes={"z": 0})(X)


def vmap_out_axes_out_of_range():
    fl.vmap(lambda x: x, out_axes=2)(X)


def vmap_out_axes_none_of_a_mapped_output():
    fl.vmap(lambda x: {"y": x, "n": 1.0}, out_axes=None)(X)


# --- static arguments ---------------------------------------------------------------------------------------------


def jit_static_argument_is_a_list():
    fl.jit(lambda x, shape: x.reshape(shape), static_argnames="shape")(X, shape=[3, 1])


def jit_static_argument_is_an_array():
    fl.jit(lambda x, n: x, static_argnums=1)(X, X)


def jit_static_argument_is_traced():
    power = fl.jit(lambda x, n: x**n, static_argnums=1)
    fl.vmap(lambda n: power(2.0, n))(np.arange(3))


def jit_static_argnums_out_of_range():
    fl.jit(lambda x: x, static_argnums=1)


def jit_static_argnames_unknown():
    fl.jit(lambda x: x, static_argnames="training")


def jit_traced_too_often():
    double = fl.jit(lambda x: 2 * x, max_traces=1)
    double(X)
    double(X[:2])


# --- donation -----------------------------------------------------------------------------------------------------


def donated_array_used_again():
    step = fl.jit(lambda params: params["w"] * 2, donate_argnums=0)
    params = {"w": X.copy()}
    step(params)
    step(params)


def array_donated_twice():
    add = fl.jit(lambda x, y: x + y, donate_argnums=0)
    x = X.copy()
    add(x, x)


# --- settings -----------------------------------------------------------------------------------------------------


def config_of_an_unknown_setting():
    with fl.config(strong_zeros=False):
        pass


def config_update_of_an_unknown_setting():
    fl.config.update(default_dtype="float64")

# SPDX-License-Identifier: MIT
"""Random small functions under random sequences of transforms, in any order.

Each transform takes a scalar function of an array to another one; a derivative is taken along a fixed direction, so
that all of them compose. The reference takes every derivative by `jvp` and every mapped axis by a loop, and nothing is
compiled or recomputed; and the reference itself is held to finite differences of the reference one derivative below.
"""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite import lax

W = np.array([[0.5, -0.3, 0.2], [0.1, 0.4, -0.6], [-0.2, 0.3, 0.7]])
DIRECTIONS = np.array([[1.0, -0.5, 0.3], [0.2, 0.8, -0.4], [-0.6, 0.1, 0.9]])
POINTS = np.array([[0.3, -0.7, 1.1], [0.9, 0.2, -0.4]])


def by_scan(x):
    return lax.scan(lambda c, v: (np.tanh(c + v), c * v), 0.5 * x[0], x)[1]


def by_while(x):
    return lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, np.sin(s[1] + W[0])), (0, x))[1]


def by_cond(x):
    return lax.cond(np.sum(x) > -100.0, lambda v: np.cos(v) * v, lambda v: v, x)


UNARY = {
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "arctan": np.arctan, "square": np.square, "negative": np.negative,
    "exp": lambda x: np.exp(0.5 * np.tanh(x)), "log": lambda x: np.log(1.0 + x * x),
    "sqrt": lambda x: np.sqrt(1.0 + x * x), "reciprocal": lambda x: 1.0 / (2.0 + np.cos(x)),
    "sinh": lambda x: np.sinh(0.5 * np.sin(x)), "arcsinh": np.arcsinh, "log1p": lambda x: np.log1p(np.square(x)),
    "expm1": lambda x: np.expm1(np.sin(x)), "softplus": lambda x: np.logaddexp(x, 0.0), "sinc": np.sinc,
    "power": lambda x: (1.5 + np.sin(x)) ** 1.7, "cube": lambda x: 0.3 * x**3, "tan": lambda x: np.tan(0.5 * np.sin(x)),
    "matmul": lambda x: W @ x, "normalized": lambda x: x / np.sqrt(1.0 + np.sum(x * x)),
    "softmax": lambda x: np.exp(np.sin(x)) / np.sum(np.exp(np.sin(x))), "mean": lambda x: x - np.mean(x) * W[0],
    "cumsum": np.cumsum, "cumprod": lambda x: np.cumprod(np.cos(x)), "reversed": lambda x: x[::-1],
    "rolled": lambda x: np.roll(x, 1), "gathered": lambda x: x[np.array([2, 0, 2])],
    "updated": lambda x: fl.numpy.at(x)[1].multiply(np.sin(x[0])), "outer": lambda x: np.outer(x, np.sin(x)) @ W[1],
    "solve": lambda x: np.linalg.solve(3.0 * np.eye(3) + np.outer(np.sin(x), W[0]), x),
    "prod": lambda x: W[2] * np.prod(x), "masked": lambda x: np.where(W[0] > 0, np.sin(x), x * x),
    "einsum": lambda x: np.einsum("ij,i,j->i", W, x, np.cos(x)),
    "scan": by_scan, "while": by_while, "cond": by_cond,
}
BINARY = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": lambda x, y: x / (2.0 + np.sin(y)),
    "arctan2": lambda x, y: np.arctan2(x, 1.5 + np.cos(y)), "hypot": lambda x, y: np.sqrt(1.0 + x * x + y * y),
    "logaddexp": np.logaddexp, "concatenate": lambda x, y: np.concatenate([x, y])[1:4],
    "dot": lambda x, y: W[1] * (x @ y),
    "power": lambda x, y: (1.5 + np.tanh(x)) ** np.tanh(y),
}


def function_of(unary, binary):
    """x -> sum of weights times the composed operations; the binary one meets the chain of values with x itself."""

    def f(x):
        y = x
        for name in unary:
            y = UNARY[name](y)
        y = BINARY[binary](y, np.sin(x)) if binary else y
        return np.sum(np.array([0.7, -0.4, 0.9]) * y)

    return f


def mapped(f):
    return lambda x: np.sum(np.array([0.6, -0.8]) * fl.vmap(f)(np.stack([x, 0.5 * x + 0.1])))


def looped(f):
    return lambda x: 0.6 * f(x) - 0.8 * f(0.5 * x + 0.1)


def along(u):
    """The transforms, by name; derivatives along u."""
    return {
        "grad": lambda f: lambda x: np.sum(u * fl.grad(f)(x)),
        "jvp": lambda f: lambda x: fl.jvp(f, (x,), (u,))[1],
        "vjp": lambda f: lambda x: np.sum(u * fl.vjp(f, x)[1](np.float64(1.0))[0]),
        "jacfwd": lambda f: lambda x: np.sum(u * fl.jacfwd(f)(x)),
        "linearize": lambda f: lambda x: fl.linearize(f, x)[1](u),
        "hessian": lambda f: lambda x: u @ fl.hessian(f)(x) @ u,
        "vmap": mapped,
        "jit": fl.jit,
        "checkpoint": fl.checkpoint,
    }


ORDER = {"grad": 1, "jvp": 1, "vjp": 1, "jacfwd": 1, "linearize": 1, "hessian": 2}


def transformed(f, sequence):
    for u, name in zip(DIRECTIONS, sequence, strict=False):
        f = along(u)[name](f)
    return f


def reference(f, sequence):
    """The same by jvp and loops only."""
    for u, name in zip(DIRECTIONS, sequence, strict=False):
        for _ in range(ORDER.get(name, 0)):
            f = along(u)["jvp"](f)
        f = looped(f) if name == "vmap" else f
    return f


def difference(f, x, u, h=1e-4):
    """The derivative of f along u by central differences of fourth order."""
    return (8 * (f(x + h * u) - f(x - h * u)) - (f(x + 2 * h * u) - f(x - 2 * h * u))) / (12 * h)


def assert_close(got, want, rtol):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * 10)


TRANSFORMS = sorted(along(DIRECTIONS[0]))
SEQUENCES = st.lists(st.sampled_from(TRANSFORMS), min_size=1, max_size=3).filter(
    lambda names: sum(ORDER.get(n, 0) for n in names) <= 3
)
BOUNDED = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@BOUNDED
@given(
    st.lists(st.sampled_from(sorted(UNARY)), min_size=1, max_size=3), st.sampled_from([None, *sorted(BINARY)]),
    SEQUENCES, st.sampled_from([0, 1]),
)
@example(["arcsinh"], None, ["checkpoint", "linearize", "grad"], 0)
@example(["while"], None, ["jit", "grad", "vmap"], 0)
@example(["scan", "cond"], "dot", ["checkpoint", "hessian", "jit"], 1)
def test_random_functions_under_random_transforms(unary, binary, sequence, at):
    f, x = function_of(unary, binary), POINTS[at]
    got, want = transformed(f, sequence)(x), reference(f, sequence)(x)
    assert np.shape(got) == () and got.dtype == np.float64
    assert_close(got, want, 1e-9)
    if sequence[-1] in ("grad", "jvp", "vjp", "jacfwd", "linearize"):
        below = reference(f, sequence[:-1])
        assert_close(want, difference(below, x, DIRECTIONS[len(sequence) - 1]), 1e-6)


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_every_function_under_the_three_orders_of_differentiation(name):
    f, x = function_of([name], None) if name in UNARY else function_of(["sin"], name), POINTS[0]
    assert_close(transformed(f, ["grad"])(x), difference(f, x, DIRECTIONS[0]), 1e-8)
    first = reference(f, ["jvp"])
    second = difference(first, x, DIRECTIONS[1])
    for outer, inner in itertools.product(["grad", "jvp"], repeat=2):
        assert_close(transformed(f, [inner, outer])(x), second, 1e-7)

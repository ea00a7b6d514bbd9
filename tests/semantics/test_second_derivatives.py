# SPDX-License-Identifier: MIT
"""SEMANTICS A5: second derivatives by every pair of modes, against differences of the first."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.numpy import linalg

RNG = np.random.default_rng(7)
MATRIX = RNG.normal(size=(3, 3)) + 2 * np.eye(3)
TALL = RNG.normal(size=(4, 2))
VECTOR = RNG.normal(size=3)


def batch_norm(x):
    layer = nn.BatchNorm1d(3, dtype=x.dtype)
    return nn.apply(layer, x, training=True)[0]


def spd(a):
    return a @ a.T + np.eye(3)


FUNCTIONS = {
    "layer_norm": (lambda x: nn.LayerNorm(3, dtype=x.dtype)(x), RNG.normal(size=(2, 3))),
    "batch_norm": (batch_norm, RNG.normal(size=(4, 3))),
    "group_norm": (lambda x: nn.GroupNorm(2, 4, dtype=x.dtype)(x), RNG.normal(size=(2, 4, 2, 1))),
    "det": (np.linalg.det, MATRIX),
    "slogdet": (lambda a: np.linalg.slogdet(a)[1], MATRIX),
    "solve": (lambda a: np.linalg.solve(a, VECTOR), MATRIX),
    "inv": (np.linalg.inv, MATRIX),
    "cholesky": (lambda a: np.linalg.cholesky(spd(a)), MATRIX),
    "cholesky_inverse": (lambda a: linalg.cholesky_inverse(np.linalg.cholesky(spd(a))), MATRIX),
    "cholesky_solve": (lambda a: linalg.cholesky_solve(VECTOR[:, None], np.linalg.cholesky(spd(a))), MATRIX),
    "qr": (lambda a: tuple(np.linalg.qr(a)), TALL),
    "eigh values": (lambda a: np.linalg.eigvalsh(spd(a)), MATRIX),
    "eigh vectors": (lambda a: np.linalg.eigh(spd(a))[1] ** 2, MATRIX),
    "svdvals": (lambda a: np.linalg.svd(a, compute_uv=False), TALL),
    "householder_product": (lambda a: linalg.householder_product(a, np.array([0.3, 0.7])), TALL),
    "logcumsumexp": (fl.lax.cumlogsumexp, VECTOR),
    "cumprod": (np.cumprod, VECTOR),
    "softmax": (nn.softmax, VECTOR),
    "cross_entropy": (lambda x: nn.cross_entropy(x, np.array([2, 0])), RNG.normal(size=(2, 3))),
}


def differences(f, x, eps=1e-6):
    """Central differences of the arrays that f returns, one new last axis for each axis of x."""
    columns = []
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = eps
        pairs = zip(fl.tree.leaves(f(x + step)), fl.tree.leaves(f(x - step)), strict=True)
        columns.append([(a - b) / (2 * eps) for a, b in pairs])
    return [np.stack(c, -1).reshape(np.shape(c[0]) + x.shape) for c in zip(*columns, strict=True)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_A5_second_derivatives_agree_in_all_modes(name):
    f, x = FUNCTIONS[name]
    f = fl.jit(f)
    first = fl.tree.leaves(fl.jacrev(f)(x))
    for one, other in zip(first, differences(f, x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    expected = differences(fl.jit(fl.jacrev(f)), x)
    for outer, inner in ((fl.jacfwd, fl.jacfwd), (fl.jacfwd, fl.jacrev), (fl.jacrev, fl.jacrev)):
        found = fl.tree.leaves(outer(inner(f))(x))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6 * max(1.0, np.abs(other).max()))

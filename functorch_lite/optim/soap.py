# SPDX-License-Identifier: MIT
"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import lax, tree
from functorch_lite.backends.registry import at_home_of
from functorch_lite.nn.select import Where
from functorch_lite.optim.adam import scale_by_adam
from functorch_lite.optim.base import (
    GradientTransformation,
    Schedule,
    bias_correction,
    cast,
    check_at_least,
    check_positive,
    check_range,
    map_state,
    map_updates,
    moving_average,
    zero_count,
    zeros_like,
)
from functorch_lite.optim.chain import by_part
from functorch_lite.optim.descent import descent


class Basis(NamedTuple):
    """For a leaf [n, m]: left [n, n] and right [m, m], running averages of g g^T and g^T g, and `left_vectors`,
    `right_vectors`, about their eigenvectors, largest eigenvalue first."""

    left: Any
    right: Any
    left_vectors: Any
    right_vectors: Any


class SoapState(NamedTuple):
    """count: steps taken, int64 []; mean: running average of g, square: that of the squares of the rotated g, both like
    the parameters; basis: a `Basis` for each leaf."""

    count: Any
    mean: Any
    square: Any
    basis: Any


def scale_by_soap(
    b1: float = 0.95, b2: float = 0.95, eps: float = 1e-8, *, shampoo_b: float = 0.95, every: int = 10
) -> GradientTransformation:
    """For leaves [n, m]: U (m' / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)) V^T; `soap` has the equations."""
    for name, value in {"b1": b1, "b2": b2, "shampoo_b": shampoo_b}.items():
        check_range("soap", name, value, 0.0, 1.0)
    check_at_least("soap", "eps", eps, 0.0)
    check_positive("soap", "every", every)

    def init(params):
        return SoapState(zero_count(params), zeros_like(params), zeros_like(params), tree.map(_no_basis, params))

    def update(grads, state, params=None):
        count = state.count + 1
        basis = map_state(lambda g, b: _turn(g, b, state.count, shampoo_b, every), grads, state.basis)
        mean = moving_average(b1, grads, state.mean)

        def averaged(g, v, b):
            rotated = _rotate(g, b)
            return b2 * v + (1 - b2) * (rotated * rotated)

        square = map_state(averaged, grads, state.square, basis)
        c1, c2 = bias_correction(b1, count), bias_correction(b2, count)

        def scaled(g, m, v, b):
            step = _rotate(m, b) / cast(c1, m) / (fnp.sqrt(v / cast(c2, v)) + eps)
            return b.left_vectors @ step @ b.right_vectors.T

        return map_updates(scaled, grads, mean, square, basis), SoapState(count, mean, square, basis)

    return GradientTransformation(init, update)


def _no_basis(p: Any) -> Basis:
    n, m = p.shape
    with at_home_of([p]):
        left, right = fnp.zeros((n, n), p.dtype), fnp.zeros((m, m), p.dtype)
        return Basis(left, right, fnp.eye(n, dtype=p.dtype), fnp.eye(m, dtype=p.dtype))


def _rotate(g: Any, basis: Basis) -> Any:
    return basis.left_vectors.T @ g @ basis.right_vectors


def _turn(g: Any, basis: Basis, count: Any, decay: Any, every: int) -> Basis:
    """The averages with `g` taken in; the vectors anew at the first step, and turned every `every` steps."""
    keep = fnp.where(count == 0, 0.0, decay).astype(g.dtype)
    left = keep * basis.left + (1 - keep) * (g @ g.T)
    right = keep * basis.right + (1 - keep) * (g.T @ g)

    def first(left, right, u, v):
        return _eigenvectors(left), _eigenvectors(right)

    def turned(left, right, u, v):
        # One step of the power method on all vectors at once.
        return fnp.linalg.qr(left @ u)[0], fnp.linalg.qr(right @ v)[0]

    def same(left, right, u, v):
        return u, v

    which = fnp.where(count == 0, 0, fnp.where(count % every == 0, 1, 2))
    u, v = lax.switch(which, [first, turned, same], left, right, basis.left_vectors, basis.right_vectors)
    return Basis(left, right, u, v)


def _eigenvectors(a: Any) -> Any:
    return fnp.linalg.eigh(a)[1][:, ::-1]


def soap(
    learning_rate: float | Schedule = 3e-3,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    *,
    shampoo_b: float = 0.95,
    every: int = 10,
    weight_decay: float = 1e-2,
    where: Where = None,
) -> GradientTransformation:
    """SOAP on the leaves with two axes, AdamW of the same settings on the rest.

        L = shampoo_b L + (1 - shampoo_b) g g^T          R = shampoo_b R + (1 - shampoo_b) g^T g          (first: g g^T)
        U, V: eigenvectors of L, R at first, then every `every` steps the Q of L U and of R V
        m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) (U^T g V)^2
        p = p - learning_rate (U ((U^T m V) / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)) V^T + weight_decay p)

    learning_rate: at least 0, or a schedule. b1, b2, shampoo_b: decays in [0, 1). eps, weight_decay: at least 0; decay
    on the leaves `where` selects (see `add_decayed_weights`). every: steps, at least 1. Leaves are float32 or float64;
    each [n, m] has state of n^2 + m^2 elements twice over.

    The basis has taken in the gradient of the step; the authors' code skips the first step instead.

    Raises ArgumentError for values outside these ranges.

    Source: N. Vyas and others, arXiv:2409.11321, algorithm 3.

    >>> import numpy as np
    >>> opt = soap(0.1, weight_decay=0.0)
    >>> p = np.diag([2.0, 1.0])
    >>> opt.step(p, p, opt.init(p))[0].round(3)
    array([[1.9, 0. ],
           [0. , 0.9]])
    """
    by_shape = by_part(
        {
            "matrices": scale_by_soap(b1, b2, eps, shampoo_b=shampoo_b, every=every),
            "others": scale_by_adam(b1, b2, eps),
        },
        lambda params: ["matrices" if leaf.ndim == 2 else "others" for leaf in tree.leaves(params)],
    )
    return descent(by_shape, learning_rate=learning_rate, weight_decay=weight_decay, where=where, decoupled=True)

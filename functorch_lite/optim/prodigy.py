# SPDX-License-Identifier: MIT
"""Prodigy: AdamW that finds its learning rate from how far the parameters have come."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.nn.select import Where, mask, trainable_mask
from functorch_lite.optim.base import (
    GradientTransformation,
    Schedule,
    bias_correction,
    cast,
    check_at_least,
    check_positive,
    check_range,
    is_zero,
    map_state,
    map_updates,
    moving_average,
    moving_square,
    need_params,
    rate_at,
    zero_count,
    zeros_like,
)


class ProdigyState(NamedTuple):
    """count: steps taken, int64 []; distance: the estimate d, float64 []; numerator: float64 []; mean, square, total:
    the averages m, v, s, like the parameters but at least float32; start: the first parameters."""

    count: Any
    distance: Any
    numerator: Any
    mean: Any
    square: Any
    total: Any
    start: Any


def prodigy(
    learning_rate: float | Schedule = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    *,
    b3: float | None = None,
    eps: float = 1e-8,
    initial: float = 1e-6,
    growth: float = 1.0,
    safeguard_warmup: bool = False,
    weight_decay: float = 0.0,
    where: Where = None,
) -> GradientTransformation:
    """AdamW with the learning rate learning_rate * d, where d is an estimate of the distance to the solution.

        gamma = learning_rate d sqrt(1 - b2^t) / (1 - b1^t)
        m = b1 m + (1 - b1) d g          v = b2 v + (1 - b2) d^2 g^2
        r = b3 r + gamma d / initial <g, p_0 - p>          s = b3 s + gamma d / initial g
        d' = max(d, growth r / |s|_1)          (|s|_1 over all leaves)
        p = p - gamma (m / (sqrt(v) + d' eps) + weight_decay p)

    learning_rate: at least 0, 1 unless there is a reason, or a schedule that ends at 0. b1, b2: decays in [0, 1). b3:
    in [0, 1), None is sqrt(b2). eps: at least 0. initial: the first d, above 0. growth: above 0, multiplies the
    estimate. safeguard_warmup: d in place of gamma in s, for schedules that start near 0. weight_decay: at least 0, on
    the leaves `where` selects (see `add_decayed_weights`). Raises ArgumentError for values outside these ranges.

    Source: K. Mishchenko, A. Defazio, arXiv:2306.06101, algorithm 4; `initial` as a divisor is its authors' code's.

    >>> import numpy as np
    >>> opt = prodigy()
    >>> p = np.array([1.0])
    >>> float(opt.init(p).distance)
    1e-06
    """
    b3 = b2**0.5 if b3 is None else b3
    _check(learning_rate, b1, b2, b3, eps, initial, growth, weight_decay)

    def init(params):
        count = zero_count(params)
        zero = count.astype(fnp.float64)
        # d^2 g^2 is too small for float16 at first.
        mean, square, total = (zeros_like(tree.map(_wide, params)) for _ in range(3))
        return ProdigyState(count, zero + initial, zero, mean, square, total, tree.map(fnp.positive, params))

    def update(grads, state, params=None):
        need_params("prodigy", params)
        count, d = state.count + 1, state.distance
        rate = rate_at(learning_rate, state.count)
        gamma = rate * d * fnp.sqrt(bias_correction(b2, count)) / bias_correction(b1, count)
        wide = map_updates(_wide, grads)
        scaled = map_updates(lambda g: cast(d, g) * g, wide)
        mean = moving_average(b1, scaled, state.mean)
        square = moving_square(b2, scaled, state.square)
        weight = (d if safeguard_warmup else gamma) * d / initial
        total = map_state(lambda g, s: b3 * s + cast(weight, g) * g, wide, state.total)
        numerator = b3 * state.numerator + gamma * d / initial * _progress(wide, state.start, params)
        distance = fnp.maximum(d, growth * _quotient(numerator, _size(total)))

        def step(g, m, v, p, keep):
            u = m / (fnp.sqrt(v) + cast(distance * eps, v))
            u = u + weight_decay * p if keep and not is_zero(weight_decay) else u
            return (-cast(gamma, u) * u).astype(g.dtype)

        selected = trainable_mask(params) if where is None else mask(params, where)
        updates = map_updates(step, grads, mean, square, params, selected)
        return updates, ProdigyState(count, distance, numerator, mean, square, total, state.start)

    return GradientTransformation(init, update)


def _check(learning_rate, b1, b2, b3, eps, initial, growth, weight_decay) -> None:
    for name, value in {"b1": b1, "b2": b2, "b3": b3}.items():
        check_range("prodigy", name, value, 0.0, 1.0)
    for name, value in {"learning_rate": learning_rate, "eps": eps, "weight_decay": weight_decay}.items():
        check_at_least("prodigy", name, value, 0.0)
    for name, value in {"initial": initial, "growth": growth}.items():
        check_positive("prodigy", name, value)


def _wide(x: Any) -> Any:
    """`x` in float32 where its dtype is a shorter floating-point one."""
    return x.astype(fnp.float32) if x.dtype.itemsize < 4 and x.dtype.kind not in "biu" else x


def _progress(grads: Any, start: Any, params: Any) -> Any:
    """The inner product <g, p_0 - p> over all leaves with a gradient, float64 []."""
    products = map_updates(lambda g, p0, p: fnp.sum(g * (p0 - p)).astype(fnp.float64), grads, start, params)
    return _sum(tree.leaves(products))


def _size(total: Any) -> Any:
    """The sum of the absolute values of all elements, float64 []."""
    return _sum([fnp.sum(fnp.abs(s)).astype(fnp.float64) for s in tree.leaves(total)])


def _sum(values: list[Any]) -> Any:
    return sum(values[1:], values[0]) if values else fnp.zeros((), fnp.float64)


def _quotient(numerator: Any, size: Any) -> Any:
    return fnp.where(size > 0, numerator, 0.0) / fnp.where(size > 0, size, 1.0)

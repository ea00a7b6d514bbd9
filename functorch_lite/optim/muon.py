# SPDX-License-Identifier: MIT
"""Muon: momentum of matrices, made orthogonal."""

import math
from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.select import Where
from functorch_lite.optim.adam import scale_by_adam
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    Schedule,
    bias_correction,
    cast,
    check_at_least,
    check_range,
    default,
    is_optax,
    is_zero,
    map_updates,
    moving_average,
    zero_count,
    zeros_like,
)
from functorch_lite.optim.chain import by_part, chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.nadam import scale_by_nadam
from functorch_lite.optim.scale import scale_by_learning_rate

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""a, b, c of the Newton-Schulz step a x + (b x x^T + c (x x^T)^2) x: the steepest at 0 that stays bounded."""


class MuonState(NamedTuple):
    """count: steps taken, int64 []; mean: running average of the gradient, like the parameters."""

    count: Any
    mean: Any


def orthogonalize(
    x: Any, n_steps: int = 5, coefficients: tuple[float, float, float] = COEFFICIENTS, eps: float = 1e-7
) -> Any:
    """About u v^T of the singular value decomposition u s v^T of `x` [n, m]: singular values between 0.7 and 1.2.

    By `n_steps` steps of Newton and Schulz in the dtype of `x`; PyTorch's Muon takes them in bfloat16.

    >>> import numpy as np
    >>> bool(np.all(np.abs(np.linalg.svd(orthogonalize(np.diag([3.0, 1.0])))[1] - 1) < 0.35))
    True
    """
    return _iterated(x / fnp.maximum(fnp.sqrt(fnp.sum(x * x)), eps), n_steps, coefficients)


def _iterated(x: Any, n_steps: int, coefficients: tuple[float, float, float]) -> Any:
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(n_steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if tall else x


def scale_by_muon(
    momentum: float = 0.95,
    *,
    nesterov: bool = True,
    n_steps: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float = 1e-7,
    adjust: str = "original",
    compat: Compat = "torch",
) -> GradientTransformation:
    """The orthogonalized momentum of leaves [n, m], times sqrt(max(1, n / m)), or as `muon` says.

    Raises ArgumentError for a leaf that is no matrix.
    """
    optax = is_optax("muon", compat)
    check_range("muon", "momentum", momentum, 0.0, 1.0)
    check_at_least("muon", "n_steps", n_steps, 1)
    check_at_least("muon", "eps", eps, 0.0)
    if adjust not in ("original", "match_rms_adamw"):
        raise ArgumentError(f"muon: `adjust` should be 'original' or 'match_rms_adamw', but is {adjust!r}.")

    def init(params):
        for path, leaf in zip(tree.paths(params), tree.leaves(params), strict=True):
            if leaf.ndim != 2:
                what = path or "the leaf"
                raise ArgumentError(f"scale_by_muon: {what} should have two axes, but has shape {leaf.shape}.")
        return MuonState(zero_count(params), zeros_like(params))

    def spread(n_rows, n_columns):
        if adjust == "match_rms_adamw":
            return 0.2 * math.sqrt(max(n_rows, n_columns))
        return math.sqrt(max(1, n_columns / n_rows if optax else n_rows / n_columns))

    def update(grads, state, params=None):
        count = state.count + 1
        mean = moving_average(momentum, grads, state.mean)
        of_g, of_m = (1 - momentum, momentum) if nesterov else (0.0, 1.0)
        if optax:
            now, following = bias_correction(momentum, count), bias_correction(momentum, count + 1)
            of_g, of_m = of_g / now, of_m / (following if nesterov else now)

        def scaled(g, m):
            x = cast(of_m, m) * m + cast(of_g, g) * g
            if optax:
                return spread(*g.shape) * _iterated(x / (fnp.sqrt(fnp.sum(x * x)) + eps), n_steps, coefficients)
            return spread(*g.shape) * orthogonalize(x, n_steps, coefficients, eps)

        return map_updates(scaled, grads, mean), MuonState(count, mean)

    return GradientTransformation(init, update)


def muon(
    learning_rate: float | Schedule = 1e-3,
    momentum: float = 0.95,
    *,
    weight_decay: float | None = None,
    where: Where = None,
    nesterov: bool = True,
    n_steps: int = 5,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float | None = None,
    adjust: str = "original",
    others: GradientTransformation | None = None,
    compat: Compat = "torch",
) -> GradientTransformation:
    """Muon on the leaves with two axes, AdamW on the rest.

        m = momentum m + (1 - momentum) g          u = momentum m + (1 - momentum) g with `nesterov`, else m
        p = p - learning_rate (sqrt(max(1, n / m)) orthogonalize(u) + weight_decay p)          p [n, m]

    learning_rate, weight_decay, eps: at least 0, the last two 0.1 and 1e-7 by default; decay on the leaves `where`
    selects (see `add_decayed_weights`). momentum in [0, 1). n_steps: of Newton and Schulz, with `coefficients`. adjust:
    "original" is the factor above, "match_rms_adamw" 0.2 sqrt(max(n, m)), which suits the learning rates of AdamW.
    others: what scales the leaves without two axes, by default `scale_by_adam()`. Embeddings and output layers are
    better left to AdamW, with `groups`. As torch.optim.Muon, which iterates in bfloat16 and refuses leaves without two
    axes.

    compat="optax": both parts of u are corrected for their bias, the factor is sqrt(max(1, m / n)), weight_decay and
    eps are 0 and 1e-8 by default, and the rest takes Adam with Nesterov's momentum and no decay.

    Raises ArgumentError for values outside these ranges.

    Source: K. Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024).

    >>> import numpy as np
    >>> opt = muon(0.1, weight_decay=0.0)
    >>> p = np.eye(2)
    >>> bool(np.all(np.diag(opt.step(p, p, opt.init(p))[0]) < 1))
    True
    """
    optax = is_optax("muon", compat)
    eps, weight_decay = default(eps, 1e-7, 1e-8, optax), default(weight_decay, 0.1, 0.0, optax)
    matrices = scale_by_muon(
        momentum, nesterov=nesterov, n_steps=n_steps, coefficients=coefficients, eps=eps, adjust=adjust, compat=compat
    )
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]
    rest = others if others is not None else scale_by_nadam(eps=eps, compat=compat) if optax else scale_by_adam()
    by_shape = by_part(
        {"matrices": chain(matrices, *decay) if optax else matrices, "others": rest},
        lambda params: ["matrices" if leaf.ndim == 2 else "others" for leaf in tree.leaves(params)],
    )
    return chain(by_shape, *([] if optax else decay), scale_by_learning_rate(learning_rate))

# SPDX-License-Identifier: MIT
"""ASGD: gradient descent with a decaying rate, and the average of its iterates."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite.nn.select import Where
from functorch_lite.optim.base import (
    GradientTransformation,
    Schedule,
    cast,
    check_at_least,
    is_zero,
    map_state,
    map_updates,
    need_params,
    rate_at,
    zero_count,
    zeros_like,
)
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights


class AsgdState(NamedTuple):
    """count: steps taken, int64 []; average: the averaged parameters, like the parameters."""

    count: Any
    average: Any


def asgd(
    learning_rate: float | Schedule = 1e-2,
    *,
    decay: float = 1e-4,
    power: float = 0.75,
    start: float = 1e6,
    weight_decay: float = 0.0,
    where: Where = None,
) -> GradientTransformation:
    """Averaged gradient descent; the average is `state[-1].average`. As torch.optim.ASGD.

        eta_t = learning_rate / (1 + decay learning_rate t)^power          t = 0, 1, ...
        p = (1 - decay eta_t) p - eta_t (g + weight_decay p)
        average = average + (p - average) / max(1, t - start)

    learning_rate: at least 0, or a schedule. decay (torch's lambd), power (alpha), start (t0: before it the average is
    p), weight_decay: at least 0; the last on the leaves `where` selects (see `add_decayed_weights`).

    Raises ArgumentError for values outside these ranges.

    Source: B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30
    (1992).

    >>> import numpy as np
    >>> opt = asgd(0.1, decay=0.0, start=0)
    >>> p, state = opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))
    >>> p, state[-1].average
    (array([0.5]), array([0.5]))
    """
    for name, value in {"learning_rate": learning_rate, "decay": decay, "power": power, "start": start}.items():
        check_at_least("asgd", name, value, 0.0)

    def update(grads, state, params=None):
        need_params("asgd", params)
        t = fnp.asarray(state.count, dtype=fnp.float64)
        rate = rate_at(learning_rate, state.count)
        eta = rate / (1.0 + decay * rate * t) ** power
        share = 1.0 / fnp.maximum(t - start, 1.0)
        updates = map_updates(lambda g, p: -cast(eta, g) * (g + decay * p), grads, params)
        average = map_state(lambda u, a, p: a + (p + u - a) * cast(share, a), updates, state.average, params)
        return updates, AsgdState(state.count + 1, average)

    averaged = GradientTransformation(lambda params: AsgdState(zero_count(params), zeros_like(params)), update)
    return chain(*([] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]), averaged)

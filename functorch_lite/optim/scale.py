# SPDX-License-Identifier: MIT
"""Multiplying updates by a number, which a schedule may give."""

from functorch_lite.optim.base import (
    CountState,
    GradientTransformation,
    Schedule,
    cast,
    check_at_least,
    stateless_leafwise,
    zero_count,
)
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate


def scale(factor: float) -> GradientTransformation:
    """factor * g, in the dtype of g."""
    return stateless_leafwise(lambda params: Leafwise(lambda g, p: (cast(factor, g) * g,)))


def scale_by_schedule(schedule: Schedule) -> GradientTransformation:
    """schedule(count) * g, where count is 0 at the first step."""

    def begin(state, params):
        factor = schedule(state.count)
        return Leafwise(lambda g, p: (cast(factor, g) * g,), state=lambda: CountState(state.count + 1))

    return GradientTransformation(lambda params: CountState(zero_count(params)), LeafwiseUpdate(begin))


def scale_by_learning_rate(learning_rate: float | Schedule) -> GradientTransformation:
    """-learning_rate * g: the last link of an optimizer's chain, which turns a gradient into a descent step.

    Raises ArgumentError for a rate below 0.
    """
    check_at_least("scale_by_learning_rate", "learning_rate", learning_rate, 0.0)
    if callable(learning_rate):
        return scale_by_schedule(lambda count: -learning_rate(count))
    return scale(-learning_rate)

# SPDX-License-Identifier: MIT
"""Learning rates that change: functions from the number of steps taken (0 at first) to a float64 value.

Each is a closed formula in the count, so a resumed run needs nothing but the optimizer's state.
"""

import math
from collections.abc import Sequence
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.base import Schedule


def constant(value: float) -> Schedule:
    """Always `value`."""
    return lambda count: fnp.asarray(value, dtype=fnp.float64)


def linear(start: float, end: float, n_steps: int) -> Schedule:
    """From `start` to `end` in `n_steps` steps, then `end`.

    >>> float(linear(1.0, 0.0, 10)(5))
    0.5
    """
    _check_steps("linear", n_steps)
    return lambda count: start + (end - start) * _fraction(count, n_steps)


def polynomial(start: float, end: float, n_steps: int, power: float = 1.0) -> Schedule:
    """end + (start - end) (1 - t)^power, where t goes from 0 to 1 in `n_steps` steps."""
    _check_steps("polynomial", n_steps)
    return lambda count: end + (start - end) * (1.0 - _fraction(count, n_steps)) ** power


def cosine_decay(peak: float, n_steps: int, *, end: float = 0.0, warmup: int = 0, start: float = 0.0) -> Schedule:
    """Half a cosine from `peak` down to `end`, reached after `n_steps` steps in all; before it `warmup` steps up.

    The warm-up is linear from `start` to `peak`; its steps are part of `n_steps`.

    Source: I. Loshchilov, F. Hutter, "SGDR", arXiv:1608.03983.

    >>> [round(float(cosine_decay(1.0, 4)(i)), 3) for i in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    _check_steps("cosine_decay", n_steps - warmup)

    def decay(count):
        return end + (peak - end) * 0.5 * (1.0 + fnp.cos(math.pi * _fraction(count, n_steps - warmup)))

    return join([linear(start, peak, warmup), decay], [warmup]) if warmup else decay


def exponential(start: float, rate: float, n_steps: int = 1, *, staircase: bool = False) -> Schedule:
    """start * rate^(count / n_steps); with `staircase` the exponent is rounded down."""
    _check_steps("exponential", n_steps)

    def value(count):
        exponent = fnp.asarray(count, dtype=fnp.float64) / n_steps
        return start * rate ** (fnp.floor(exponent) if staircase else exponent)

    return value


def step(start: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """`start`, multiplied by `factor` at each of `milestones` (steps)."""

    def value(count):
        passed = sum((fnp.asarray(count >= m, dtype=fnp.float64) for m in milestones), start=fnp.zeros((), fnp.float64))
        return start * factor**passed

    return value


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """The schedules one after the other, the next from each boundary on, each counting from its own start."""
    if len(boundaries) != len(schedules) - 1:
        raise ArgumentError(f"join: {len(schedules)} schedules need one boundary fewer, got {len(boundaries)}.")

    def value(count):
        result = schedules[0](count)
        for schedule, boundary in zip(schedules[1:], boundaries, strict=True):
            result = fnp.where(count < boundary, result, schedule(fnp.maximum(count - boundary, 0)))
        return result

    return value


def _fraction(count: Any, n_steps: int) -> Any:
    return fnp.clip(fnp.asarray(count, dtype=fnp.float64) / n_steps, 0.0, 1.0)


def _check_steps(name: str, n_steps: int) -> None:
    if n_steps < 1:
        raise ArgumentError(f"{name}: the number of steps should be at least 1, but is {n_steps}.")

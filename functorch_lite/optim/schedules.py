# SPDX-License-Identifier: MIT
"""Learning rates that change: functions from the number of steps taken (0 at first) to a float64 value.

Each is a closed formula in the count, so a resumed run needs nothing but the optimizer's state.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.base import Schedule, check_at_least, check_positive


def constant(value: float) -> Schedule:
    """Always `value`."""
    return lambda count: fnp.asarray(value, dtype=fnp.float64)


def linear(start: float, end: float, n_steps: int, *, begin: int = 0) -> Schedule:
    """`start` until step `begin`, then to `end` in `n_steps` steps, then `end`. torch: LinearLR.

    >>> float(linear(1.0, 0.0, 10)(5))
    0.5
    """
    _check_steps("linear", n_steps)
    return lambda count: start + (end - start) * _fraction(count - begin, n_steps)


def polynomial(start: float, end: float, n_steps: int, power: float = 1.0, *, begin: int = 0) -> Schedule:
    """end + (start - end) (1 - t)^power, where t goes from 0 to 1 in `n_steps` steps from step `begin`.

    torch: PolynomialLR, with end 0; optax: polynomial_schedule.
    """
    _check_steps("polynomial", n_steps)
    return lambda count: end + (start - end) * (1.0 - _fraction(count - begin, n_steps)) ** power


def cosine_decay(
    peak: float, n_steps: int, *, end: float = 0.0, warmup: int = 0, start: float = 0.0, exponent: float = 1.0
) -> Schedule:
    """Half a cosine from `peak` down to `end`, reached after `n_steps` steps in all; before it `warmup` steps up.

        end + (peak - end) ((1 + cos(pi t)) / 2)^exponent          t from 0 to 1 after the warm-up

    The warm-up is linear from `start` to `peak`; its steps are part of `n_steps`. optax: cosine_decay_schedule and
    warmup_cosine_decay_schedule.

    Source: I. Loshchilov, F. Hutter, "SGDR", arXiv:1608.03983.

    >>> [round(float(cosine_decay(1.0, 4)(i)), 3) for i in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    _check_steps("cosine_decay", n_steps - warmup)

    def decay(count):
        wave = 0.5 * (1.0 + fnp.cos(math.pi * _fraction(count, n_steps - warmup)))
        return end + (peak - end) * wave**exponent

    return join([linear(start, peak, warmup), decay], [warmup]) if warmup else decay


def warmup_cosine(
    start: float, peak: float, warmup: int, n_steps: int, *, end: float = 0.0, exponent: float = 1.0
) -> Schedule:
    """`warmup` steps up from `start` to `peak`, then a cosine down to `end`, reached after `n_steps` in all.

    optax: warmup_cosine_decay_schedule; the same as `cosine_decay` with a warm-up.
    """
    return cosine_decay(peak, n_steps, end=end, warmup=warmup, start=start, exponent=exponent)


def warmup_constant(start: float, peak: float, warmup: int) -> Schedule:
    """`warmup` steps up from `start` to `peak`, then `peak`. optax: warmup_constant_schedule."""
    return linear(start, peak, warmup)


def warmup_exponential(
    start: float,
    peak: float,
    warmup: int,
    rate: float,
    n_steps: int,
    *,
    begin: int = 0,
    staircase: bool = False,
    end: float | None = None,
) -> Schedule:
    """`warmup` steps up from `start` to `peak`, then `exponential` with the other settings.

    optax: warmup_exponential_decay_schedule.
    """
    decay = exponential(peak, rate, n_steps, begin=begin, staircase=staircase, end=end)
    return join([linear(start, peak, warmup), decay], [warmup])


def exponential(
    start: float, rate: float, n_steps: int = 1, *, begin: int = 0, staircase: bool = False, end: float | None = None
) -> Schedule:
    """start * rate^((count - begin) / n_steps), `start` before step `begin`; with `staircase` the exponent is rounded
    down.

    rate: above 0. end: the value goes no lower, or for a rate above 1 no higher. torch: ExponentialLR.

    Raises ArgumentError for a rate not above 0 or fewer than one step.
    """
    _check_steps("exponential", n_steps)
    check_positive("exponential", "rate", rate)

    def value(count):
        exponent = fnp.maximum(fnp.asarray(count - begin, dtype=fnp.float64), 0.0) / n_steps
        found = start * rate ** (fnp.floor(exponent) if staircase else exponent)
        if end is None:
            return found
        return fnp.maximum(found, end) if rate < 1.0 else fnp.minimum(found, end)

    return value


def step(start: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """`start`, multiplied by `factor` at each of `milestones` (steps). torch: MultiStepLR."""
    return piecewise_constant(start, [(milestone, factor) for milestone in milestones])


def step_every(start: float, n_steps: int, factor: float = 0.1) -> Schedule:
    """`start`, multiplied by `factor` at each `n_steps`-th step. torch: StepLR.

    >>> [round(float(step_every(1.0, 2)(i)), 3) for i in range(5)]
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """
    check_at_least("step_every", "factor", factor, 0.0)
    _check_steps("step_every", n_steps)
    return lambda count: start * factor ** fnp.asarray(count // n_steps, dtype=fnp.float64)


def hold(start: float, n_steps: int = 5, factor: float = 1 / 3) -> Schedule:
    """start * factor for `n_steps` steps, then `start`. torch: ConstantLR.

    >>> [float(hold(1.0, 2, 0.5)(i)) for i in range(4)]
    [0.5, 0.5, 1.0, 1.0]
    """
    _check_steps("hold", n_steps)
    return lambda count: fnp.where(count < n_steps, start * factor, fnp.asarray(start, dtype=fnp.float64))


def piecewise_constant(start: float, factors: Mapping[int, float] | Sequence[tuple[int, float]]) -> Schedule:
    """`start`, multiplied by each factor from its step on. factors: {step: factor}. optax: piecewise_constant_schedule.

    >>> [round(float(piecewise_constant(1.0, {2: 0.5, 3: 0.1})(i)), 3) for i in range(5)]
    [1.0, 1.0, 0.5, 0.05, 0.05]
    """
    pairs = _pairs("piecewise_constant", factors)

    def value(count):
        found = fnp.asarray(start, dtype=fnp.float64)
        for boundary, factor in pairs:
            found = found * fnp.where(count >= boundary, factor, 1.0)
        return found

    return value


def piecewise_interpolate(
    start: float, factors: Mapping[int, float] | Sequence[tuple[int, float]], kind: str = "linear"
) -> Schedule:
    """From value to value, each `factor` times the one before, reached at its step. optax:
    piecewise_interpolate_schedule.

    factors: {step: factor}. kind: "linear" or "cosine" (half a wave) between the values. Raises ArgumentError for
    others.

    >>> [round(float(piecewise_interpolate(1.0, {2: 0.5, 4: 0.1})(i)), 3) for i in range(6)]
    [1.0, 0.75, 0.5, 0.275, 0.05, 0.05]
    """
    if kind not in ("linear", "cosine"):
        raise ArgumentError(f"piecewise_interpolate: `kind` should be 'linear' or 'cosine', but is {kind!r}.")
    pairs = _pairs("piecewise_interpolate", factors)

    def value(count):
        found, begin, left = fnp.asarray(start, dtype=fnp.float64), 0, start
        for boundary, factor in pairs:
            right = left * factor
            t = _fraction(count - begin, max(boundary - begin, 1))
            weight = t if kind == "linear" else 0.5 * (1.0 - fnp.cos(math.pi * t))
            found = fnp.where(count >= begin, left + (right - left) * weight, found)
            begin, left = boundary, right
        return fnp.where(count >= begin, left, found)

    return value


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """The schedules one after the other, the next from each boundary on, each counting from its own start.

    torch: SequentialLR; optax: join_schedules.
    """
    if len(boundaries) != len(schedules) - 1:
        raise ArgumentError(f"join: {len(schedules)} schedules need one boundary fewer, got {len(boundaries)}.")

    def value(count):
        result = schedules[0](count)
        for schedule, boundary in zip(schedules[1:], boundaries, strict=True):
            result = fnp.where(count < boundary, result, schedule(fnp.maximum(count - boundary, 0)))
        return result

    return value


def chained(start: float, factors: Sequence[Schedule]) -> Schedule:
    """`start` times all `factors` at once: schedules that begin at 1, such as linear(0.1, 1.0, 5). torch:
    ChainedScheduler.

    >>> float(chained(2.0, [hold(1.0, 3, 0.5), exponential(1.0, 0.9)])(1))
    0.9
    """
    if not factors:
        raise ArgumentError("chained: give one or more schedules.")

    def value(count):
        found = fnp.asarray(start, dtype=fnp.float64)
        for factor in factors:
            found = found * factor(count)
        return found

    return value


def _fraction(count: Any, n_steps: float) -> Any:
    return fnp.clip(fnp.asarray(count, dtype=fnp.float64) / n_steps, 0.0, 1.0)


def _pairs(name: str, factors: Any) -> list[tuple[int, float]]:
    pairs = sorted(factors.items() if isinstance(factors, Mapping) else factors)
    for _, factor in pairs:
        check_at_least(name, "factors", factor, 0.0)
    return pairs


def _check_steps(name: str, n_steps: int) -> None:
    if n_steps < 1:
        raise ArgumentError(f"{name}: the number of steps should be at least 1, but is {n_steps}.")

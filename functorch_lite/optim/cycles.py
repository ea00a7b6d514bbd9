# SPDX-License-Identifier: MIT
"""Learning rates that rise and fall: annealing, restarts, one cycle, many cycles.

As in `schedules`: functions from the number of steps taken to a float64 value, each a closed formula.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.base import Schedule, check_at_least, check_positive, check_range
from functorch_lite.optim.schedules import cosine_decay, join, piecewise_interpolate

ROUNDING = 1e-9
"""Added to a logarithm of steps before it is rounded down: far below its next value, far above its rounding."""


def cosine_annealing(peak: float, n_steps: int, *, end: float = 0.0) -> Schedule:
    """end + (peak - end) (1 + cos(pi count / n_steps)) / 2, which rises again after `n_steps`. torch:
    CosineAnnealingLR.

    `cosine_decay` stays at `end`.

    >>> [round(float(cosine_annealing(1.0, 2)(i)), 3) for i in range(5)]
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """
    check_at_least("cosine_annealing", "n_steps", n_steps, 1)
    return lambda count: end + (peak - end) * 0.5 * (1.0 + fnp.cos(math.pi * _number(count) / n_steps))


def cosine_restarts(peak: float, n_steps: int, factor: int = 1, *, end: float = 0.0) -> Schedule:
    """A cosine from `peak` towards `end` in `n_steps` steps, again and again, each time `factor` times as long.

    factor: at least 1. torch: CosineAnnealingWarmRestarts. Raises ArgumentError for fewer than one step or a lower
    factor.

    Source: I. Loshchilov, F. Hutter, "SGDR", arXiv:1608.03983.

    >>> [round(float(cosine_restarts(1.0, 2, 2)(i)), 3) for i in range(6)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146]
    """
    check_at_least("cosine_restarts", "n_steps", n_steps, 1)
    check_at_least("cosine_restarts", "factor", factor, 1)

    def value(count):
        t = _number(count)
        if factor == 1:
            fraction = t % n_steps / n_steps
        else:
            # The n-th restart is at n_steps (factor^n - 1) / (factor - 1).
            n = fnp.floor(fnp.log(t / n_steps * (factor - 1) + 1.0) / math.log(factor) + ROUNDING)
            begin = n_steps * (float(factor) ** n - 1.0) / (factor - 1)
            fraction = (t - begin) / (n_steps * float(factor) ** n)
        return end + (peak - end) * 0.5 * (1.0 + fnp.cos(math.pi * fraction))

    return value


def sgdr(cycles: Sequence[Mapping[str, Any]]) -> Schedule:
    """`cosine_decay(**cycle)` for each of `cycles`, one after the other. optax: sgdr_schedule.

    >>> schedule = sgdr([{"peak": 1.0, "n_steps": 2}, {"peak": 0.5, "n_steps": 4, "warmup": 1}])
    >>> [round(float(schedule(i)), 3) for i in range(4)]
    [1.0, 0.5, 0.0, 0.5]
    """
    if not cycles:
        raise ArgumentError("sgdr: give the settings of one or more cycles.")
    lengths = [cycle["n_steps"] for cycle in cycles]
    return join([cosine_decay(**cycle) for cycle in cycles], [sum(lengths[: i + 1]) for i in range(len(lengths) - 1)])


def one_cycle(
    peak: float,
    n_steps: int,
    *,
    rise: float = 0.3,
    first: float = 25.0,
    last: float = 1e4,
    kind: str = "cosine",
    three_phase: bool = False,
) -> Schedule:
    """Up from peak / first to `peak`, then down to peak / (first last), which is held. torch: OneCycleLR.

    n_steps: at least 1; the last value is that of step n_steps - 1. rise: part of the steps that go up, in [0, 1).
    first, last: above 0. kind: "cosine" (half a wave) or "linear". three_phase: down to the first value in as many
    steps as up, and then on to the last. optax's cosine_onecycle_schedule counts its boundaries one step later: it is
    piecewise_interpolate(peak / first, {int(rise * n): first, n: 1 / (first * last)}, "cosine").

    Raises ArgumentError for values outside these ranges.

    Source: L. Smith, N. Topin, arXiv:1708.07120.

    >>> [round(float(one_cycle(1.0, 11, first=10.0, kind="linear", rise=0.5)(i)), 2) for i in (0, 4, 5, 10)]
    [0.1, 0.9, 0.91, 0.0]
    """
    check_at_least("one_cycle", "n_steps", n_steps, 1)
    check_range("one_cycle", "rise", rise, 0.0, 1.0)
    check_positive("one_cycle", "first", first)
    check_positive("one_cycle", "last", last)
    if kind not in ("cosine", "linear"):
        raise ArgumentError(f"one_cycle: `kind` should be 'cosine' or 'linear', but is {kind!r}.")
    low, lowest = peak / first, peak / first / last
    tops = [(rise * n_steps - 1.0, low, peak)]
    tops += [(2.0 * rise * n_steps - 2.0, peak, low)] if three_phase else []
    tops += [(n_steps - 1.0, low if three_phase else peak, lowest)]

    def value(count):
        t = fnp.minimum(_number(count), n_steps - 1.0)
        found, begin = None, 0.0
        for end, left, right in tops:
            length = end - begin
            part = (t - begin) / (length if length else 1.0)
            weight = part if kind == "linear" else 0.5 * (1.0 - fnp.cos(math.pi * part))
            phase = left + (right - left) * weight
            found = phase if found is None else fnp.where(t > begin, phase, found)
            begin = end
        return found

    return value


def linear_onecycle(
    n_steps: int,
    peak: float,
    *,
    rise: float = 0.3,
    final: float = 0.85,
    first: float = 25.0,
    last: float = 1e4,
) -> Schedule:
    """Linearly from peak / first to `peak`, back, and to peak / (first last). optax: linear_onecycle_schedule.

    rise, final: parts of the steps, 0 < rise < final < 1, at which the peak is reached and the first value again.

    >>> [round(float(linear_onecycle(100, 1.0)(i)), 3) for i in (0, 30, 85, 100)]
    [0.04, 1.0, 0.04, 0.0]
    """
    check_at_least("linear_onecycle", "n_steps", n_steps, 1)
    if not 0.0 < rise < final < 1.0:
        raise ArgumentError(f"linear_onecycle: 0 < rise < final < 1 should hold, but they are {rise} and {final}.")
    factors = [(int(rise * n_steps), first), (int(final * n_steps), 1.0 / first), (n_steps, 1.0 / last)]
    return piecewise_interpolate(peak / first, factors)


def cyclic(
    low: float,
    high: float,
    n_up: int = 2000,
    n_down: int | None = None,
    *,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """Linearly from `low` to `high` in `n_up` steps and back in `n_down` (None: as many), again and again. torch:
    CyclicLR.

    mode: "triangular"; "triangular2", the height halved with each cycle; "exp_range", the height times gamma^count.

    Raises ArgumentError for fewer than one step, a gamma not above 0 or another mode.

    Source: L. Smith, arXiv:1506.01186.

    >>> [round(float(cyclic(0.0, 1.0, 2, mode="triangular2")(i)), 3) for i in range(7)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5]
    """
    n_down = n_up if n_down is None else n_down
    check_at_least("cyclic", "n_up", n_up, 1)
    check_at_least("cyclic", "n_down", n_down, 1)
    check_positive("cyclic", "gamma", gamma)
    if mode not in ("triangular", "triangular2", "exp_range"):
        raise ArgumentError(f"cyclic: `mode` should be 'triangular', 'triangular2' or 'exp_range', but is {mode!r}.")

    def value(count):
        t = _number(count)
        cycle = fnp.floor(t / (n_up + n_down))
        within = t - cycle * (n_up + n_down)
        height = (high - low) * fnp.minimum(within / n_up, (n_up + n_down - within) / n_down)
        if mode == "triangular2":
            return low + height * 0.5**cycle
        return low + height * gamma**t if mode == "exp_range" else low + height

    return value


def _number(count: Any) -> Any:
    return fnp.asarray(count, dtype=fnp.float64)

# SPDX-License-Identifier: MIT
"""Schedules against Optax's formulas, written out: at 0, inside, at the ends and beyond, traced and not."""

import math

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import optim
from functorch_lite.errors import ArgumentError


def ramp(i, start, end, n, begin=0):
    return start + (end - start) * min(max(i - begin, 0), n) / n


def cosine(i, peak, n, alpha=0.0, exponent=1.0):
    wave = 0.5 * (1 + math.cos(math.pi * min(i, n) / n))
    return peak * ((1 - alpha) * wave**exponent + alpha)


def decayed(i, start, n, rate, begin=0, staircase=False, end=None):
    p = (i - begin) / n
    found = start if i <= begin else start * rate ** (math.floor(p) if staircase else p)
    return found if end is None else max(found, end)


def interpolated(i, start, factors, kind):
    bounds, values = [0, *sorted(factors)], [start]
    for b in bounds[1:]:
        values.append(values[-1] * factors[b])
    for k in range(len(factors)):
        (left, right), (a, b) = bounds[k : k + 2], values[k : k + 2]
        if left <= i < right:
            t = (i - left) / (right - left)
            return a + (b - a) * t if kind == "linear" else b + (a - b) / 2 * (math.cos(math.pi * t) + 1)
    return values[-1]


def scaled(i, start, factors):
    return start * math.prod(factor for b, factor in factors.items() if i >= b)


CYCLES = [{"peak": 1.0, "n_steps": 6, "warmup": 2}, {"peak": 0.5, "n_steps": 8, "warmup": 3, "start": 0.1, "end": 0.05}]


def two_cycles(i):
    if i < 6:
        return ramp(i, 0.0, 1.0, 2) if i < 2 else cosine(i - 2, 1.0, 4)
    i -= 6
    return ramp(i, 0.1, 0.5, 3) if i < 3 else cosine(i - 3, 0.5, 5, 0.1)


SCHEDULES = {
    "linear_begin": (optim.linear(0.1, 0.9, 6, begin=3), lambda i: ramp(i, 0.1, 0.9, 6, 3)),
    "polynomial_begin": (
        optim.polynomial(1.0, 0.1, 8, 2.0, begin=4),
        lambda i: 0.1 + 0.9 * (1 - min(max(i - 4, 0), 8) / 8) ** 2,
    ),
    "cosine_exponent": (optim.cosine_decay(2.0, 9, end=0.2, exponent=1.5), lambda i: cosine(i, 2.0, 9, 0.1, 1.5)),
    "warmup_cosine": (
        optim.warmup_cosine(0.1, 1.0, 4, 14, end=0.2, exponent=2.0),
        lambda i: ramp(i, 0.1, 1.0, 4) if i < 4 else cosine(i - 4, 1.0, 10, 0.2, 2.0),
    ),
    "warmup_constant": (optim.warmup_constant(0.1, 1.0, 5), lambda i: ramp(i, 0.1, 1.0, 5)),
    "warmup_exponential": (
        optim.warmup_exponential(0.0, 1.0, 4, 0.5, 3, begin=2, end=0.3),
        lambda i: ramp(i, 0.0, 1.0, 4) if i < 4 else decayed(i - 4, 1.0, 3, 0.5, 2, False, 0.3),
    ),
    "exponential_stairs": (
        optim.exponential(1.0, 0.5, 3, begin=2, staircase=True),
        lambda i: decayed(i, 1.0, 3, 0.5, 2, True),
    ),
    "exponential_up": (optim.exponential(1.0, 1.5, end=4.0), lambda i: min(1.5**i, 4.0)),
    "piecewise_constant": (optim.piecewise_constant(2.0, {8: 0.1, 3: 0.5}), lambda i: scaled(i, 2.0, {3: 0.5, 8: 0.1})),
    "interpolate_linear": (
        optim.piecewise_interpolate(1.0, {4: 3.0, 9: 0.1, 12: 0.5}),
        lambda i: interpolated(i, 1.0, {4: 3.0, 9: 0.1, 12: 0.5}, "linear"),
    ),
    "interpolate_cosine": (
        optim.piecewise_interpolate(1.0, {4: 3.0, 9: 0.1}, "cosine"),
        lambda i: interpolated(i, 1.0, {4: 3.0, 9: 0.1}, "cosine"),
    ),
    "linear_onecycle": (
        optim.linear_onecycle(17, 2.0),
        lambda i: interpolated(i, 2.0 / 25, {5: 25.0, 14: 1 / 25, 17: 1e-4}, "linear"),
    ),
    "sgdr": (optim.sgdr(CYCLES), two_cycles),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_its_formula_traced_or_not(name):
    schedule, formula = SCHEDULES[name]
    steps = np.arange(25)
    wanted = [formula(int(i)) for i in steps]
    np.testing.assert_allclose([schedule(i) for i in range(25)], wanted, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(fl.vmap(schedule)(steps), wanted, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(fl.jit(fl.vmap(schedule))(steps), wanted, rtol=1e-12, atol=1e-15)
    assert fl.jit(schedule)(np.asarray(7)).dtype == np.float64


def test_restarts_fall_on_their_steps_far_out():
    schedule = optim.cosine_restarts(1.0, 7, 3)
    restarts = [7 * (3**n - 1) // 2 for n in range(16)]
    assert [float(schedule(np.asarray(i))) for i in restarts] == [1.0] * 16
    assert all(schedule(np.asarray(i - 1)) < 0.06 for i in restarts[1:])


def test_one_cycle_stays_at_its_end():
    schedule = optim.one_cycle(1.0, 10)
    np.testing.assert_allclose([schedule(9), schedule(10), schedule(1000)], 1 / 25 / 1e4, rtol=1e-9)


WRONG = [
    (lambda: optim.step_every(1.0, 0), "step_every: the number of steps should be at least 1, but is 0"),
    (lambda: optim.step(1.0, [2], -0.5), "`factors` should be at least 0.0, but is -0.5"),
    (lambda: optim.hold(1.0, 0), "hold: the number of steps should be at least 1"),
    (lambda: optim.exponential(1.0, 0.0), "exponential: `rate` should be above 0"),
    (lambda: optim.piecewise_interpolate(1.0, {2: 0.5}, "cubic"), "should be 'linear' or 'cosine', but is 'cubic'"),
    (lambda: optim.chained(1.0, []), "chained: give one or more schedules"),
    (lambda: optim.sgdr([]), "sgdr: give the settings of one or more cycles"),
    (lambda: optim.cosine_annealing(1.0, 0), "cosine_annealing: `n_steps` should be at least 1"),
    (lambda: optim.cosine_restarts(1.0, 5, 0), "cosine_restarts: `factor` should be at least 1"),
    (lambda: optim.one_cycle(1.0, 10, rise=1.0), r"one_cycle: `rise` should be in \[0.0, 1.0\)"),
    (lambda: optim.one_cycle(1.0, 10, kind="flat"), "should be 'cosine' or 'linear', but is 'flat'"),
    (lambda: optim.linear_onecycle(10, 1.0, rise=0.9), "0 < rise < final < 1 should hold, but they are 0.9 and 0.85"),
    (lambda: optim.cyclic(0.0, 1.0, 0), "cyclic: `n_up` should be at least 1"),
    (lambda: optim.cyclic(0.0, 1.0, mode="square"), "'triangular', 'triangular2' or 'exp_range', but is 'square'"),
    (lambda: optim.reduce_on_plateau(1.0, factor=1.0), "reduce_on_plateau: `factor` should be in"),
    (lambda: optim.reduce_on_plateau(1.0, patience=-1), "reduce_on_plateau: `patience` should be at least 0"),
    (
        lambda: optim.reduce_on_plateau(1.0).update(optim.reduce_on_plateau(1.0).init(), np.ones(2)),
        r"the metric should be a scalar, but has shape \(2,\)",
    ),
]


@pytest.mark.parametrize("make, message", WRONG, ids=[message for _, message in WRONG])
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()

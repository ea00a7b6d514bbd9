# SPDX-License-Identifier: MIT
"""A step length with the strong Wolfe conditions, as one loop that runs in a trace too.

For f along a line, slope(t) = f'(t), a length t is accepted when

    f(t) <= f(0) + c1 t slope(0)          |slope(t)| <= c2 |slope(0)|

The first phase makes the step longer until an interval holds such a point, the second makes the interval smaller; both
by the minimum of a cubic, or the middle where values are not finite: a length where f is NaN counts as too long.
Source: J. Nocedal, S. Wright, "Numerical optimization" (2006), section 3.5; the order of the tests is PyTorch's, after
minFunc.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.backends.registry import at_home_of

BRACKETING, ZOOMING, DONE = 0, 1, 2


class Point(NamedTuple):
    """A point of the line: t, value f(t), slope f'(t), all []; grad, the gradient there [n]."""

    t: Any
    value: Any
    slope: Any
    grad: Any


class Search(NamedTuple):
    """phase [] int64; n_steps [] int64, evaluations after the first; last: the newest point; first, second: in the
    first phase `first` is the point before the newest, in the second phase they are the ends of the interval in the
    order they were found; stuck: whether the last trial was near an end, bool []."""

    phase: Any
    n_steps: Any
    last: Point
    first: Point
    second: Point
    stuck: Any


def strong_wolfe(
    evaluate: Callable[[Any], Point],
    origin: Point,
    t: Any,
    size: Any,
    *,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance: float = 1e-9,
    n_max: int = 25,
) -> tuple[Point, Any]:
    """`(point, n)`: the point accepted, or the best one after `n_max` evaluations, and how many there were.

    evaluate: t -> Point. origin: the point at t = 0, its slope below 0. t: the first length to try. size []: the
    largest element of the direction; the interval is given up when it is shorter than tolerance / size.
    """

    def look(t):
        return _without_nan(evaluate(t))

    def is_high(point):
        return point.value > origin.value + c1 * point.t * origin.slope

    def is_flat(point):
        return fnp.abs(point.slope) <= -c2 * origin.slope

    def bracket(s):
        found = is_high(s.last) | ((s.n_steps > 1) & (s.last.value >= s.first.value))
        good = ~found & is_flat(s.last)
        found = found | (~good & (s.last.slope >= 0))
        phase = fnp.where(good, DONE, fnp.where(found, ZOOMING, BRACKETING))
        ended = s._replace(phase=phase, first=_select(good, s.last, s.first), second=s.last)
        return lax.cond(found | good, lambda s, ended: ended, lambda s, ended: _lengthen(s, look), s, ended)

    def zoom(s):
        t, stuck = _trial(s)
        return _narrow(s._replace(last=look(t), stuck=stuck, n_steps=s.n_steps + 1), is_high, is_flat)

    def go_on(s):
        wide = (s.phase == BRACKETING) | (fnp.abs(s.second.t - s.first.t) * size >= tolerance)
        return (s.phase != DONE) & (s.n_steps < n_max) & wide

    first = look(t)
    with at_home_of([first.value]):
        zero, no = fnp.zeros((), fnp.int64), fnp.zeros((), bool)
    start = Search(zero, zero, first, origin, origin, no)
    s = lax.while_loop(go_on, lambda s: lax.cond(s.phase == BRACKETING, bracket, zoom, s), start)
    # Without an interval after n_max trials: between 0 and the longest.
    unbounded = s.phase == BRACKETING
    first, second = _select(unbounded, origin, s.first), _select(unbounded, s.last, s.second)
    return _select(first.value <= second.value, first, second), s.n_steps + 1


def _without_nan(point: Point) -> Point:
    value = fnp.where(fnp.isnan(point.value), fnp.inf, point.value)
    return point._replace(value=value.astype(point.value.dtype))


def _lengthen(s: Search, evaluate: Callable[[Any], Point]) -> Search:
    """The next trial of the first phase, between 1.01 and 10 times as far."""
    low, high = s.last.t + 0.01 * (s.last.t - s.first.t), s.last.t * 10.0
    t = _cubic_minimum(s.first, s.last, low, high)
    return s._replace(last=evaluate(t), first=s.last, n_steps=s.n_steps + 1)


def _trial(s: Search) -> tuple[Any, Any]:
    """Where in the interval to look next, and whether that is near an end: twice near is moved a tenth inwards."""
    low, high = fnp.minimum(s.first.t, s.second.t), fnp.maximum(s.first.t, s.second.t)
    t = _cubic_minimum(s.first, s.second, low, high)
    margin = 0.1 * (high - low)
    near = fnp.minimum(high - t, t - low) < margin
    move = near & (s.stuck | (t >= high) | (t <= low))
    inwards = fnp.where(high - t < t - low, high - margin, low + margin)
    return fnp.where(move, inwards, t), near & ~move


def _narrow(s: Search, is_high: Callable[[Point], Any], is_flat: Callable[[Point], Any]) -> Search:
    """The interval with the newest point as one of its ends, in place of the higher or of the lower end."""
    first_is_low = s.first.value <= s.second.value
    low, high = _select(first_is_low, s.first, s.second), _select(first_is_low, s.second, s.first)
    worse = is_high(s.last) | (s.last.value >= low.value)
    done = ~worse & is_flat(s.last)
    crossed = ~worse & ~done & (s.last.slope * (high.t - low.t) >= 0)
    high = _select(worse, s.last, _select(crossed, low, high))
    low = _select(worse, low, s.last)
    phase = fnp.where(done, DONE, s.phase)
    return s._replace(phase=phase, first=_select(first_is_low, low, high), second=_select(first_is_low, high, low))


def _cubic_minimum(a: Point, b: Point, low: Any, high: Any) -> Any:
    """The minimum in [low, high] of the cubic with the values and slopes of two points; the middle if it has none."""
    ordered = a.t <= b.t
    left, right = _select(ordered, a, b), _select(ordered, b, a)
    width = right.t - left.t
    finite = fnp.isfinite(left.value + right.value) & fnp.isfinite(left.slope + right.slope)
    rise, first, last = (fnp.where(finite, x, 0.0) for x in (right.value - left.value, left.slope, right.slope))
    d1 = first + last - 3.0 * rise / width
    square = d1 * d1 - first * last
    d2 = fnp.sqrt(fnp.maximum(square, 0.0))
    below = last - first + 2.0 * d2
    usable = finite & (square >= 0) & (below != 0)
    t = right.t - width * ((last + d2 - d1) / fnp.where(usable, below, 1.0))
    return fnp.where(usable, fnp.clip(t, low, high), 0.5 * (low + high))


def _select(condition: Any, yes: Point, no: Point) -> Point:
    return Point(*(fnp.where(condition, a, b) for a, b in zip(yes, no, strict=True)))

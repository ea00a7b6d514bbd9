# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.optimize`: minimisation as a function that can be jitted and mapped.

`minimize` is BFGS: the step is -H grad for an estimate H of the inverse Hessian, along which a point with enough
decrease and a flat enough slope (the strong Wolfe conditions) is looked for. One loop searches: each of its rounds
takes value and gradient at one step, first at growing ones until an interval holds such a point, then inside it.

Source: J. Nocedal, S. J. Wright, "Numerical optimization", 2nd ed., 2006: algorithms 3.5 and 3.6 (line search), 6.1
(BFGS), equations 3.59 (cubic interpolation), 6.17 (update), 6.20 (first H).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import functorch_lite.numpy as f
from functorch_lite.control_flow import while_loop
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy.promotion import asarray, to_float
from functorch_lite.transforms.arguments import check_callable, on_its_device
from functorch_lite.transforms.grad import value_and_grad

_DECREASE, _SLOPE = 1e-4, 0.9  # c1 and c2 of the strong Wolfe conditions
_OPTIONS = {"gtol": 1e-5, "maxiter": None, "norm": np.inf, "line_search_maxiter": 20}

CONVERGED, TOO_LONG, NO_DECREASE, NOT_FINITE = range(4)
"""The values of `OptimizeResults.status`, SciPy's."""


class OptimizeResults(NamedTuple):
    """What `minimize` found.

    x [n]: the point. success: whether the gradient is small there. status: 0 it is, 1 too many iterations, 2 the line
    search found no lower point (often as low as rounding lets it be), 3 the value is not finite. fun: the value.
    jac [n]: the gradient. hess_inv [n, n]: the estimate of the inverse Hessian. nfev, njev: how often value and
    gradient were computed. nit: the number of steps.
    """

    x: Any
    success: Any
    status: Any
    fun: Any
    jac: Any
    hess_inv: Any
    nfev: Any
    njev: Any
    nit: Any


@on_its_device
def minimize(
    fun: Callable[..., Any], x0: Any, args: tuple[Any, ...] = (), method: str = "BFGS", tol: float | None = None,
    options: dict[str, Any] | None = None,
) -> OptimizeResults:
    """A local minimum of `fun(x, *args)`, a real number, near x0 [n], by BFGS, in the dtype of x0.

    tol: the same as the option gtol. Options: gtol (1e-5), the norm of the gradient below which to stop; norm (inf),
    its order; maxiter (200 n), the number of steps; line_search_maxiter (20), of evaluations in each.
    Derivatives in `args` and `x0` go through the iterations; `lax.custom_root` of the gradient has them at the minimum.

    >>> result = minimize(lambda x: ((x - 2) ** 2).sum(), np.zeros(3))
    >>> result.x.round(6), bool(result.success)
    (array([2., 2., 2.]), True)

    Raises: ArgumentError for another method or an unknown option, ShapeError for an x0 that is no vector.
    """
    check_callable("minimize", fun)
    if method.lower() != "bfgs":
        raise ArgumentError(f"minimize: method must be 'BFGS', got {method!r}.")
    unknown = set(options or {}) - set(_OPTIONS)
    if unknown:
        raise ArgumentError(f"minimize: unknown option {', '.join(sorted(unknown))}; known are {', '.join(_OPTIONS)}.")
    given = {**_OPTIONS, **({} if tol is None else {"gtol": tol}), **(options or {})}
    x0 = to_float(asarray(x0))
    if len(x0.shape) > 1:
        raise ShapeError(f"minimize: x0 must be a vector, got shape {x0.shape}. Flatten it, and reshape in fun.")
    x0 = f.reshape(x0, (-1,))
    return _bfgs(value_and_grad(lambda x: f.asarray(fun(x, *args)).astype(x0.dtype)), x0, given)


def _bfgs(value_and_slope, x0, options):
    n = x0.shape[0]
    most = 200 * n if options["maxiter"] is None else options["maxiter"]

    def is_flat(g):
        return f.linalg.norm(g, options["norm"]) <= options["gtol"]

    def goes_on(state):
        return (state.status < 0) & (state.nit < most)

    def step(state):
        uphill = state.hess_inv @ state.jac
        is_definite = uphill @ state.jac > 0  # rounding may have taken that from H: then as at the start
        direction = f.where(is_definite, -uphill, -state.jac)
        size = f.where(state.nit == 0, f.minimum(1.0, 1 / f.sqrt(state.jac @ state.jac)), 1.0)
        found = _line_search(value_and_slope, state, direction, size.astype(x0.dtype), options["line_search_maxiter"])
        x = state.x + found.step * direction
        hess_inv = _updated(state.hess_inv, x - state.x, found.slope - state.jac, state.nit == 0)
        finite = f.isfinite(found.value) & f.all(f.isfinite(found.slope))
        status = f.where(is_flat(found.slope), CONVERGED, f.where(found.step > 0, -1, NO_DECREASE))
        evaluations = state.nfev + found.count
        return OptimizeResults(
            x, is_flat(found.slope) & finite, f.where(finite, status, NOT_FINITE), found.value, found.slope, hess_inv,
            evaluations, evaluations, state.nit + 1,
        )

    value, slope = value_and_slope(x0)
    finite = f.isfinite(value) & f.all(f.isfinite(slope))
    status = f.where(finite, f.where(is_flat(slope), CONVERGED, -1), NOT_FINITE)
    one, none = np.int64(1), np.int64(0)
    start = OptimizeResults(
        x0, is_flat(slope) & finite, status, value, slope, f.eye(n, dtype=x0.dtype), one, one, none
    )
    end = while_loop(goes_on, step, start)
    return end._replace(status=f.where(end.status < 0, TOO_LONG, end.status))


def _updated(h, s, y, is_first):
    """(I - r s y^T) H (I - r y s^T) + r s s^T with r = 1 / y^T s; H itself where y^T s is not positive."""
    curvature = y @ s
    is_convex = curvature > 0
    r = 1 / f.where(is_convex, curvature, 1.0)
    h = f.where(is_first & is_convex, curvature / f.where(is_convex, y @ y, 1.0), 1.0) * h
    hy = h @ y
    across = f.outer(hy, s)
    new = h - r * (across + across.T) + r * (r * (y @ hy) + 1) * f.outer(s, s)
    return f.where(is_convex, new, h)


class _Search(NamedTuple):
    """A line search: whether it is over, or inside an interval; the steps and what the function is there.

    low is the best end of the interval (before there is one, the step before), high the other, `step` the next to try.
    """

    over: Any
    inside: Any
    count: Any
    step: Any
    low: Any
    low_value: Any
    low_slope: Any
    high: Any
    high_value: Any
    high_dot: Any


class _Found(NamedTuple):
    step: Any
    value: Any
    slope: Any
    count: Any


def _line_search(value_and_slope, state, direction, first, most):
    """The step that satisfies the strong Wolfe conditions, or the best of those tried; 0 where none is lower."""
    origin = state.jac @ direction
    rounding = 2 * np.finfo(state.x.dtype).eps * f.absolute(state.fun)

    def goes_on(s):
        return ~s.over & (s.count < most)

    def look(s):
        value, slope = value_and_slope(state.x + s.step * direction)
        dot = slope @ direction
        decreased = value <= state.fun + _DECREASE * s.step * origin + rounding  # false of NaN
        too_far = ~decreased | ((value >= s.low_value) & (s.low > 0))
        good = ~too_far & (f.absolute(dot) <= -_SLOPE * origin)
        # the minimum lies between `step` and the end from which `dot` points to it
        turns = f.where(s.inside, dot * (s.high - s.low) >= 0, dot >= 0)
        grows = ~s.inside & ~too_far & ~turns
        new_high = [f.where(too_far, t, f.where(turns, old_low, old_high)) for t, old_low, old_high in (
            (s.step, s.low, s.high), (value, s.low_value, s.high_value), (dot, s.low_slope @ direction, s.high_dot),
        )]
        new_low = [f.where(too_far, old, t) for t, old in (
            (s.step, s.low), (value, s.low_value), (slope, s.low_slope),
        )]
        inner = _between(new_low[0], new_low[1], new_low[2] @ direction, *new_high)
        stuck = ~grows & (f.absolute(new_high[0] - new_low[0]) * f.amax(f.absolute(direction)) == 0)
        return _Search(good | stuck, ~grows, s.count + 1, f.where(grows, 2 * s.step, inner), *new_low, *new_high)

    zero = f.zeros_like(state.fun)
    no = np.bool_(False)
    end = while_loop(goes_on, look, _Search(
        no, no, np.int64(0), first, zero.astype(first.dtype), state.fun, state.jac, first, state.fun, zero,
    ))
    return _Found(end.low, end.low_value, end.low_slope, end.count)


def _between(low, low_value, low_dot, high, high_value, high_dot):
    """The minimum of the cubic through both ends; the middle where it is not well inside."""
    width = high - low
    safe = f.where(width == 0, 1.0, width)
    d1 = low_dot + high_dot - 3 * (high_value - low_value) / safe
    square = d1 * d1 - low_dot * high_dot
    d2 = f.sign(width) * f.sqrt(f.where(square > 0, square, 0.0))
    bottom = high_dot - low_dot + 2 * d2
    share = 1 - (high_dot + d2 - d1) / f.where(bottom == 0, 1.0, bottom)
    fits = (square >= 0) & (bottom != 0) & (share > 0.1) & (share < 0.9)
    return low + width * f.where(fits, share, 0.5)

# SPDX-License-Identifier: MIT
"""L-BFGS: Newton's method with the curvature of the last steps, and a line search.

It evaluates the function where it likes, so its step takes the function and not a gradient:

    opt = optim.lbfgs()
    state = opt.init(params)
    value_and_grad = fl.value_and_grad(loss)
    for _ in range(20):
        params, state = opt.step(params, value_and_grad, state)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import lax, tree
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.base import Params, check_at_least, check_positive, check_range, zero_count
from functorch_lite.optim.line_search import Point, strong_wolfe

LEAST_CURVATURE = 1e-10
"""Steps s with y s not above this say nothing of use on the curvature, and are not kept."""

ValueAndGrad = Callable[[Params], tuple[Any, Any]]
"""From the parameters to a scalar and its gradient, such as `fl.value_and_grad(loss)`."""


class LbfgsState(NamedTuple):
    """count, n_evaluations: steps taken and calls of the function, int64 []. value [], grad [n]: at the parameters,
    known after the first step. steps, changes [history, n]: steps s and changes y of the gradient, newest last; inverse
    [history]: 1 / (y s), 0 where there is none yet. scale []: y s / y y of the newest."""

    count: Any
    n_evaluations: Any
    value: Any
    grad: Any
    steps: Any
    changes: Any
    inverse: Any
    scale: Any


class Minimizer(NamedTuple):
    """init: params -> state. step: (params, value_and_grad, state) -> (params, state)."""

    init: Callable[[Params], LbfgsState]
    step: Callable[[Params, ValueAndGrad, LbfgsState], tuple[Params, LbfgsState]]


def lbfgs(
    learning_rate: float = 1.0,
    *,
    history: int = 100,
    line_search: bool = True,
    n_search: int = 25,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance_change: float = 1e-9,
) -> Minimizer:
    """Limited-memory BFGS: p + t d, d = -H g with H the inverse Hessian that the last steps suggest.

        q = g;  newest to oldest: a_i = (s_i q) / (y_i s_i), q = q - a_i y_i
        r = (y s / y y) q;  oldest to newest: r = r + s_i (a_i - (y_i r) / (y_i s_i));  d = -r

    t fulfils the strong Wolfe conditions with c1 and c2, 0 < c1 < c2 < 1; without `line_search` it is learning_rate.
    learning_rate: the first t to try, above 0; at the first step it is multiplied by min(1, 1 / |g|_1). history: steps
    kept, at least 1. n_search: evaluations in one search, at least 1. tolerance_change: where the slope along d is
    above minus this, the parameters stay.

    As torch.optim.LBFGS(max_iter=1, line_search_fn="strong_wolfe"), which calls the function once more in each step:
    here the value and gradient where the search ended are kept. So the function must be the same in every step; for
    another one begin with a new state. It is traced, and the step can be jitted.

    Raises ArgumentError for values outside these ranges.

    Source: J. Nocedal, S. Wright, "Numerical optimization" (2006), algorithms 7.4, 7.5 and 3.5.

    >>> import numpy as np, functorch_lite as fl
    >>> f = fl.value_and_grad(lambda p: fl.numpy.cosh(p - 3.0).sum())
    >>> opt, p = lbfgs(), np.zeros(2)
    >>> state = opt.init(p)
    >>> for _ in range(8):
    ...     p, state = opt.step(p, f, state)
    >>> p.round(3)
    array([3., 3.])
    """
    _check(learning_rate, history, n_search, c1, c2, tolerance_change)
    search = {"c1": c1, "c2": c2, "tolerance": tolerance_change, "n_max": n_search} if line_search else None

    def init(params):
        flat = _flatten(params)
        zero, count, none = fnp.sum(fnp.zeros_like(flat)), zero_count(params), fnp.zeros_like(flat)
        past = fnp.broadcast_to(none, (history, none.size)) + 0
        return LbfgsState(count, count, zero, none, past, past, past[:, 0], zero + 1)

    def step(params, value_and_grad, state):
        flat = _flatten(params)

        def evaluate(at):
            value, grads = value_and_grad(_unflatten(params, at))
            return fnp.asarray(value, dtype=flat.dtype), _flatten_like(params, grads)

        flat, state = _step(flat, evaluate, state, learning_rate, search, tolerance_change)
        return _unflatten(params, flat), state

    return Minimizer(init, step)


def _step(flat, evaluate, state: LbfgsState, learning_rate: float, search: Any, tolerance: float) -> Any:
    """`(parameters [n], state)` after a step from the parameters `flat` [n]; search: settings of the search or None."""
    is_first = state.count == 0
    known = (flat, state.value, state.grad)
    value, grad = lax.cond(is_first, lambda at, v, g: evaluate(at), lambda at, v, g: (v, g), *known)
    direction = _direction(state, grad)
    slope = fnp.sum(grad * direction)
    first_length = 1.0 / fnp.maximum(fnp.sum(fnp.abs(grad)), 1.0)
    t = (learning_rate * fnp.where(is_first, first_length, 1.0)).astype(flat.dtype)

    def along(t):
        value, grad = evaluate(flat + t * direction)
        return Point(t, value, fnp.sum(grad * direction), grad)

    def move(origin, t):
        if search is None:
            return along(t), fnp.ones_like(state.count)
        return strong_wolfe(along, origin, t, fnp.max(fnp.abs(direction)), **search)

    def stay(origin, t):
        return origin, fnp.zeros_like(state.count)

    origin = Point(fnp.zeros_like(t), value, slope, grad)
    point, n = lax.cond(slope > -tolerance, stay, move, origin, t)
    n_evaluations = state.n_evaluations + n + fnp.where(is_first, 1, 0)
    moved = point.t * direction
    return flat + moved, _remember(state, point, grad, moved)._replace(n_evaluations=n_evaluations)


def _check(learning_rate, history, n_search, c1, c2, tolerance_change) -> None:
    check_positive("lbfgs", "learning_rate", learning_rate)
    check_at_least("lbfgs", "history", history, 1)
    check_at_least("lbfgs", "n_search", n_search, 1)
    check_at_least("lbfgs", "tolerance_change", tolerance_change, 0.0)
    check_positive("lbfgs", "c1", c1)
    check_range("lbfgs", "c2", c2, c1, 1.0)


def _direction(state: LbfgsState, grad: Any) -> Any:
    """-H g by the two loops. Where nothing is remembered `inverse` is 0, and a pair adds nothing."""

    def down(q, pair):
        s, y, inverse = pair
        a = inverse * fnp.sum(s * q)
        return q - a * y, a

    def up(r, pair):
        s, y, inverse, a = pair
        return r + s * (a - inverse * fnp.sum(y * r)), None

    past = (state.steps, state.changes, state.inverse)
    q, factors = lax.scan(down, grad, past, reverse=True)
    r, _ = lax.scan(up, state.scale * q, (*past, factors))
    return -r


def _remember(state: LbfgsState, point: Point, grad: Any, step: Any) -> LbfgsState:
    """The state after a step: its pair (s, y) is kept, and the oldest forgotten, if y s says something."""
    change = point.grad - grad
    curvature = fnp.sum(change * step)
    keep = curvature > LEAST_CURVATURE
    usable = fnp.where(keep, curvature, fnp.ones_like(curvature))

    def pushed(past, new):
        return fnp.where(keep, fnp.concatenate([past[1:], new[None]]), past)

    square = fnp.sum(change * change)
    scale = fnp.where(keep, usable / fnp.where(keep, square, fnp.ones_like(square)), state.scale)
    steps, changes = pushed(state.steps, step), pushed(state.changes, change)
    inverse = pushed(state.inverse, 1.0 / usable)
    return LbfgsState(state.count + 1, state.n_evaluations, point.value, point.grad, steps, changes, inverse, scale)


def _flatten(params: Params) -> Any:
    """All leaves in one vector [n], of their common dtype."""
    leaves = tree.leaves(params)
    if not leaves or not all(fnp.issubdtype(leaf.dtype, fnp.floating) for leaf in leaves):
        raise ArgumentError("lbfgs: parameters should be one or more arrays of a floating-point dtype.")
    return fnp.concatenate([fnp.reshape(leaf, (-1,)) for leaf in leaves])


def _flatten_like(params: Params, grads: Any) -> Any:
    """The gradients in one vector, 0 where one is None."""
    leaves, treedef = tree.flatten(params)
    pairs = zip(treedef.flatten_up_to(grads), leaves, strict=True)
    return fnp.concatenate([fnp.reshape(fnp.zeros_like(p) if g is None else g, (-1,)) for g, p in pairs])


def _unflatten(params: Params, flat: Any) -> Params:
    leaves, treedef = tree.flatten(params)
    found, start = [], 0
    for leaf in leaves:
        found.append(fnp.reshape(flat[start : start + leaf.size], leaf.shape).astype(leaf.dtype))
        start += leaf.size
    return tree.unflatten(treedef, found)

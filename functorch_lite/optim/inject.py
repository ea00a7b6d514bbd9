# SPDX-License-Identifier: MIT
"""Hyperparameters in the state, where they can be read and set without building the optimizer anew.

    opt = optim.inject(optim.adamw, learning_rate=1e-3, b1=0.9, where="*.weight")
    state = opt.init(params)
    state = optim.set_hyperparameters(state, learning_rate=5e-4)

A jitted step takes them as values: changing one compiles nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.base import GradientTransformation, map_updates, zero_count


class InjectState(NamedTuple):
    """count: steps taken, int64 []; hyperparameters: name -> value, float64 []; inner: the state of the optimizer."""

    count: Any
    hyperparameters: dict[str, Any]
    inner: Any


def inject(factory: Callable[..., GradientTransformation], **settings: Any) -> GradientTransformation:
    """`factory(**settings)` whose floats and schedules are in `state.hyperparameters`, float64 [].

    A schedule is a function of the step count given as a setting whose name ends in "learning_rate", "decay" or
    "momentum"; its value at each step replaces what was set. Other settings (bool, int, text, masks) are as given. The
    arithmetic is in float64 where such a value meets a leaf; updates and state keep the dtypes of the leaves.

    Raises ArgumentError when no setting is a float or a schedule, and what `factory` raises for bad ones. Values set
    later are not checked.

    >>> import numpy as np
    >>> from functorch_lite import optim
    >>> opt = optim.inject(optim.sgd, learning_rate=0.5)
    >>> p, state = np.array([1.0]), opt.init(np.array([1.0]))
    >>> state = optim.set_hyperparameters(state, learning_rate=0.25)
    >>> opt.step(p, np.array([1.0]), state)[0]
    array([0.75])
    """
    schedules = {name: value for name, value in settings.items() if _is_schedule(name, value)}
    numbers = {name: value for name, value in settings.items() if isinstance(value, float)}
    fixed = {name: value for name, value in settings.items() if name not in {**schedules, **numbers}}
    if not schedules and not numbers:
        raise ArgumentError("inject: give the hyperparameters to inject by name, as floats or schedules.")
    factory(**settings)  # raises for bad settings

    def values_at(count, given):
        values = {**given, **{name: schedule(count) for name, schedule in schedules.items()}}
        return {name: _number(value) for name, value in values.items()}

    def init(params):
        count = zero_count(params)
        zero = count.astype(fnp.float64)
        values = values_at(count, {name: zero + value for name, value in numbers.items()})
        return InjectState(count, values, factory(**fixed, **values).init(params))

    def update(grads, state, params=None):
        values = values_at(state.count, state.hyperparameters)
        updates, inner = factory(**fixed, **values).update(grads, state.inner, params)
        updates = map_updates(lambda g, u: fnp.asarray(u, dtype=g.dtype), grads, updates)
        inner = tree.map(lambda old, new: fnp.asarray(new, dtype=old.dtype), state.inner, inner)
        return updates, InjectState(state.count + 1, values, inner)

    return GradientTransformation(init, update)


def set_hyperparameters(state: InjectState, **values: Any) -> InjectState:
    """`state` with these hyperparameters; ArgumentError for a name that is not among them."""
    for name in values:
        if name not in state.hyperparameters:
            known = ", ".join(sorted(state.hyperparameters))
            raise ArgumentError(f"set_hyperparameters: there is no {name!r} in the state, only {known}.")
    return state._replace(hyperparameters={**state.hyperparameters, **{k: _number(v) for k, v in values.items()}})


def _number(value: Any) -> Any:
    """A float64 array []: not a NumPy scalar, which would pass for a float in `is_zero`."""
    return fnp.asarray(value, dtype=fnp.float64)


def _is_schedule(name: str, value: Any) -> bool:
    return callable(value) and name.endswith(("learning_rate", "decay", "momentum"))

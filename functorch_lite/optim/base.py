# SPDX-License-Identifier: MIT
"""What an optimizer is: a pair of pure functions over pytrees.

    state = opt.init(params)
    updates, state = opt.update(grads, state, params)     # gradients in, what to add to params out
    params, state = opt.step(params, grads, state)        # the everyday call: update and add

State is a NamedTuple of pytrees, so it is checkpointed, jitted and mapped like any other value. Where a gradient is
None (a frozen part) or carries no information (integer parameters), parameters and state stay as they are. Buffers of
modules (running statistics) have zero gradients, and weight decay leaves them out: see `add_decayed_weights`.

Source: the interface of Optax (DeepMind); the numbers are PyTorch's.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.backends.registry import at_home_of
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.blockwise import is_absent, map_leaves
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate, added

Params = Any
"""A pytree of arrays: a model, a dictionary, one array."""

Schedule = Callable[[Any], Any]
"""From the number of steps taken so far (an integer array, 0 at first) to a value, such as a learning rate."""

Compat = Literal["torch", "optax"]
"""Whose numbers and defaults an optimizer has where PyTorch and Optax differ."""

NEEDS_PARAMS = """\
{name} needs the parameters:
    updates, state = opt.update(grads, state)             # wrong
    updates, state = opt.update(grads, state, params)     # right; opt.step does it"""


class GradientTransformation(NamedTuple):
    """An optimizer, or a part of one.

    init: params -> state.
    update: (grads, state, params) -> (updates, state); `params` may be left out where it is not needed.
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Any, Any]]

    def step(self, params: Params, grads: Any, state: Any) -> tuple[Params, Any]:
        """`(params, state)` after one step.

        >>> import numpy as np
        >>> from functorch_lite import optim
        >>> opt = optim.sgd(0.5)
        >>> params = {"w": np.ones(2, np.float32)}
        >>> params, state = opt.step(params, {"w": np.ones(2, np.float32)}, opt.init(params))
        >>> params["w"]
        array([0.5, 0.5], dtype=float32)
        """
        if isinstance(self.update, LeafwiseUpdate):
            return self.update.step(params, grads, state)
        updates, state = self.update(grads, state, params)
        return apply_updates(params, updates), state


class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""


class CountState(NamedTuple):
    """count: steps taken, int64 []."""

    count: Any


def stateless(update: Callable[[Any, Params], Any]) -> GradientTransformation:
    """A transformation that remembers nothing, from `update(grads, params) -> updates`."""
    return GradientTransformation(
        lambda params: EmptyState(), lambda grads, state, params=None: (update(grads, params), state)
    )


def stateless_leafwise(begin: Callable[[Params], Leafwise]) -> GradientTransformation:
    """A transformation that remembers nothing and looks at one leaf at a time."""
    return GradientTransformation(
        lambda params: EmptyState(),
        LeafwiseUpdate(lambda state, params: begin(params)._replace(state=lambda: state)),
    )


def apply_updates(params: Params, updates: Any) -> Params:
    """params + updates, leaf by leaf, in the dtype of each parameter; where an update is None the parameter stays."""
    return map_leaves(lambda u, p: added(p, u), updates, params, is_leaf=is_absent)


def present(grads: Any) -> Any:
    """The gradients with None wherever one says nothing, so that all leaves are arrays of numbers."""
    return tree.map(lambda g: None if is_absent(g) else g, grads, is_leaf=is_absent)


def map_updates(fun: Callable[..., Any], grads: Any, *rest: Any) -> Any:
    """`fun` over the leaves of `grads` (and of trees like it); None where a gradient is absent."""
    return map_leaves(lambda g, *r: None if is_absent(g) else fun(g, *r), grads, *rest, is_leaf=is_absent)


def map_state(fun: Callable[..., Any], grads: Any, state: Any, *rest: Any) -> Any:
    """A new state tree, `fun(g, s, ...)` at each leaf; where a gradient is absent the state stays."""
    return map_leaves(lambda g, s, *r: s if is_absent(g) else fun(g, s, *r), grads, state, *rest, is_leaf=is_absent)


def average(decay: Any, value: Any, mean: Any) -> Any:
    """The moving average of an array after one more value: decay * mean + (1 - decay) * value."""
    return decay * mean + (1 - decay) * value


def moving_average(decay: Any, grads: Any, mean: Any) -> Any:
    """The moving averages of gradients: decay * mean + (1 - decay) * g at each leaf, as `map_state` has it."""
    return map_state(lambda g, m: average(decay, g, m), grads, mean)


def moving_square(decay: Any, grads: Any, square: Any) -> Any:
    """The moving averages of squares of gradients: decay * square + (1 - decay) * g^2 at each leaf."""
    return map_state(lambda g, v: average(decay, g * g, v), grads, square)


def zeros_like(params: Params) -> Any:
    """A tree like `params` of zeros: the first value of averages."""
    return tree.map(fnp.zeros_like, params)


def zero_count(params: Params) -> Any:
    """The count of steps at the start: int64 [], on the device of the parameters."""
    with at_home_of(tree.leaves(params)):
        return fnp.zeros((), fnp.int64)


def cast(scalar: Any, leaf: Any) -> Any:
    """A Python number, or a float64 array [] or NumPy scalar in the dtype of `leaf`: what does not promote it."""
    return scalar.astype(leaf.dtype) if hasattr(scalar, "astype") else scalar


def bias_correction(decay: float, count: Any) -> Any:
    """1 - decay^count, in float64: in float32 the first steps would lose three digits."""
    return 1.0 - decay ** fnp.asarray(count, dtype=fnp.float64)


def rate_at(learning_rate: Any, count: Any) -> Any:
    """The learning rate after `count` steps: the number itself, or what the schedule says."""
    return learning_rate(count) if callable(learning_rate) else learning_rate


def is_zero(value: Any) -> bool:
    """Whether a setting is the number 0; an array (an injected hyperparameter) is not, whatever it holds."""
    return isinstance(value, int | float) and value == 0


def is_optax(name: str, compat: Compat) -> bool:
    """Whether `compat` asks for Optax's numbers. Raises ArgumentError for anything but "torch" and "optax"."""
    if compat not in ("torch", "optax"):
        raise ArgumentError(f"{name}: `compat` should be 'torch' or 'optax', but is {compat!r}.")
    return compat == "optax"


def default(value: float | None, usual: float, in_optax: float, optax: bool) -> float:
    """`value`, or where it is None the default: `in_optax` if Optax's is asked for, else `usual`."""
    return (in_optax if optax else usual) if value is None else value


def need_params(name: str, params: Params | None) -> None:
    """Raise ArgumentError when the parameters were left out of `update`."""
    if params is None:
        raise ArgumentError(NEEDS_PARAMS.format(name=name))


def check_range(name: str, argument: str, value: Any, low: float, high: float) -> None:
    """Raise ArgumentError unless low <= value < high. Arrays (injected hyperparameters) are not looked into."""
    if isinstance(value, int | float) and not low <= value < high:
        raise ArgumentError(f"{name}: `{argument}` should be in [{low}, {high}), but is {value}.")


def check_at_least(name: str, argument: str, value: Any, low: float) -> None:
    """Raise ArgumentError unless value >= low. Arrays and schedules are not looked into."""
    if isinstance(value, int | float) and not value >= low:
        raise ArgumentError(f"{name}: `{argument}` should be at least {low}, but is {value}.")


def check_positive(name: str, argument: str, value: Any) -> None:
    """Raise ArgumentError unless value > 0. Arrays and schedules are not looked into."""
    if isinstance(value, int | float) and not value > 0:
        raise ArgumentError(f"{name}: `{argument}` should be above 0, but is {value}.")

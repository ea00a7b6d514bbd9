# SPDX-License-Identifier: MIT
"""Scaling of the loss, so that the gradients of float16 work neither vanish nor overflow.

    scale = optim.DynamicScale()

    @jit
    def train_step(model, opt_state, scale, x, y):
        loss, grads = scale.value_and_grad(loss_fn)(model, x, y)            # of the loss itself, not of the scaled one
        model, opt_state, scale = scale.step(opt, model, grads, opt_state)  # not where they are not finite
        return model, opt_state, scale, loss

bfloat16 has the range of float32 and needs none of this. Sources: P. Micikevicius and others, arXiv:1710.03740;
torch.amp.GradScaler, whose rules these are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.module import Array, Module, buffer
from functorch_lite.optim.base import GradientTransformation, apply_updates, check_positive, map_updates, present
from functorch_lite.optim.skip import all_finite
from functorch_lite.transforms.grad import value_and_grad


class DynamicScale(Module):
    """A factor of the loss that follows what its gradients can stand; a pytree of two scalars.

    scale: the factor, float32 []. n_finite: finite steps since it last changed, int32 []. After a step with an
    infinity or a NaN among its gradients it is multiplied by `backoff`; after `interval` finite ones in a row by
    `growth`, unless that overflows. The defaults are those of torch.amp.GradScaler.

    Raises ArgumentError unless init is positive, growth above 1, backoff in (0, 1) and interval at least 1.

    >>> from functorch_lite import optim
    >>> scale = optim.DynamicScale(interval=2)
    >>> loss, grad = scale.value_and_grad(lambda x: x * x)(np.float32(3))
    >>> float(loss), float(grad)
    (9.0, 6.0)
    >>> float(scale.updated(False).scale), float(scale.updated(True).updated(True).scale)
    (32768.0, 131072.0)
    """

    scale: Array = buffer()
    n_finite: Array = buffer()
    growth: float
    backoff: float
    interval: int

    def __init__(
        self, init: float = 2.0**16, *, growth: float = 2.0, backoff: float = 0.5, interval: int = 2000
    ):
        check_positive("DynamicScale", "init", init)
        if growth <= 1 or not 0 < backoff < 1 or interval < 1:
            raise ArgumentError(
                f"DynamicScale: growth {growth} should be above 1, backoff {backoff} in (0, 1), interval {interval} "
                "at least 1."
            )
        self.scale, self.n_finite = np.float32(init), np.int32(0)
        self.growth, self.backoff, self.interval = float(growth), float(backoff), int(interval)

    def scaled(self, loss: Array) -> Array:
        """loss * scale, in float32 at least: float16 ends at 65504, which is less than the first scale."""
        return loss * self.scale if loss.dtype.itemsize >= 4 else loss.astype(np.float32) * self.scale

    def unscaled(self, grads: Any) -> Any:
        """The gradients divided by the scale, each in its dtype; None where there is none."""
        inverse = 1 / self.scale
        return map_updates(lambda g: (g * inverse).astype(g.dtype), grads)

    def value_and_grad(
        self, fun: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
    ) -> Callable[..., Any]:
        """`fl.value_and_grad(fun, argnums, has_aux=has_aux)` by way of the scaled loss: value and gradients of `fun`.

        Where the scaled ones overflow the gradients are not finite, which `step` and `updated` look at.
        """

        def scaled(*args, **kwargs):
            out = fun(*args, **kwargs)
            loss = out[0] if has_aux else out
            return self.scaled(loss), out

        def call(*args, **kwargs):
            (_, out), grads = value_and_grad(scaled, argnums, has_aux=True)(*args, **kwargs)
            return out, self.unscaled(grads)

        return call

    def updated(self, finite: Any) -> "DynamicScale":
        """The scale after a step whose gradients were all `finite` (bool []), or were not."""
        finite, count = fnp.asarray(finite), self.n_finite + np.int32(1)
        due = finite & (count == self.interval)
        grows = due & (self.scale <= np.float32(np.finfo(np.float32).max / self.growth))
        factor = fnp.where(grows, np.float32(self.growth), fnp.where(finite, np.float32(1), np.float32(self.backoff)))
        return self.replace(
            scale=factor * self.scale, n_finite=fnp.where(finite & ~due, np.int32(1), np.int32(0)) * count
        )

    def step(
        self, opt: GradientTransformation, params: Any, grads: Any, state: Any
    ) -> tuple[Any, Any, "DynamicScale"]:
        """`(params, state, scale)` after a step of `opt`; params and state as they were where `grads` are not finite.

        grads: those of `value_and_grad`, or unscaled ones changed further (clipped, averaged).
        """
        grads = present(grads)
        finite = all_finite(grads)

        def move(params, grads, state):
            updates, new = opt.update(grads, state, params)
            return apply_updates(params, updates), new

        def stay(params, grads, state):
            return params, state

        params, state = lax.cond(finite, move, stay, params, grads, state)
        return params, state, self.updated(finite)

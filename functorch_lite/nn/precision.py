# SPDX-License-Identifier: MIT
"""Mixed precision: parameters are kept in one floating dtype, the work is done in another.

    policy = nn.Policy("params=float32,compute=bfloat16,output=float32")

    def loss_fn(model, x, y):                                     # model: float32, and so are its gradients
        logits, model = policy.apply(model, x, key=key, training=True)      # in place of nn.apply
        return nn.cross_entropy(logits, y), model

Casting is part of the function, so its gradients are those of the parameters in their own dtype. Norms (with their
parameters and running statistics), softmax and losses compute in float32 under every policy; see `islands`. With
float16 small gradients vanish unless the loss is scaled: `optim.DynamicScale`.

Sources: P. Micikevicius and others, arXiv:1710.03740; the policies of JMP (DeepMind).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from functorch_lite import tree
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.context import apply
from functorch_lite.nn.instance_norm import LocalResponseNorm
from functorch_lite.nn.islands import HALVES
from functorch_lite.nn.module import Module
from functorch_lite.nn.norm import GroupNorm, LayerNorm, RMSNorm, _BatchNorm
from functorch_lite.nn.select import trainable_mask

_DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
_SHORT = {"f16": "float16", "half": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64"}
_KEYS = {"params": "params", "compute": "compute", "output": "output", "p": "params", "c": "compute", "o": "output"}
_FLOATING = frozenset(_DTYPES.values())
_NORMS = (_BatchNorm, LayerNorm, RMSNorm, GroupNorm, LocalResponseNorm)


@dataclass(frozen=True, init=False)
class Policy:
    """The floating dtypes of parameters, of the work, and of outputs; whatever is not floating stays as it is.

    `Policy("params=float32,compute=bfloat16,output=float32")`, also p, c, o and f32, bf16, f16, f64. What is left out:
    params is float32, compute and output are params. Policies are static: hashable, compared by value.

    Raises ArgumentError, naming it, for another word.

    >>> policy = Policy("compute=bf16")
    >>> policy
    Policy('params=float32,compute=bfloat16,output=float32')
    >>> policy.cast_to_compute({"w": np.ones(2, np.float32), "n": np.ones(2, np.int32)})["w"].dtype
    dtype(bfloat16)
    """

    params: np.dtype
    compute: np.dtype
    output: np.dtype

    def __init__(self, text: str = "", /, *, params: Any = None, compute: Any = None, output: Any = None):
        given = {"params": params, "compute": compute, "output": output}
        given |= _parsed(text)
        chosen = _dtype(given["params"] or "float32")
        object.__setattr__(self, "params", chosen)
        object.__setattr__(self, "compute", _dtype(given["compute"] or chosen))
        object.__setattr__(self, "output", _dtype(given["output"] or chosen))

    def __repr__(self) -> str:
        return f"Policy('params={self.params},compute={self.compute},output={self.output}')"

    def cast_to_params(self, x: Any) -> Any:
        """The tree `x` with floating arrays in the dtype of parameters; norms and buffers never below float32."""
        return _cast(x, self.params)

    def cast_to_compute(self, x: Any) -> Any:
        """The tree `x` with floating arrays in the dtype of the work; norms and buffers never below float32."""
        return _cast(x, self.compute)

    def cast_to_output(self, x: Any) -> Any:
        """The tree `x` with floating arrays in the dtype of outputs."""
        return _cast(x, self.output)

    def wrap(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        """`fun` with its arguments, and its own arrays if it is a module, cast to compute, and its outputs to output.

        >>> from functorch_lite import nn, random
        >>> layer = nn.Linear(3, 2, key=random.key(0))
        >>> Policy("compute=bfloat16").wrap(layer)(np.ones(3, np.float32)).dtype
        dtype('float32')
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = self.cast_to_compute((args, kwargs))
            inner = self.cast_to_compute(fun) if isinstance(fun, Module) else fun
            return self.cast_to_output(inner(*args, **kwargs))

        return call if isinstance(fun, Module) else functools.wraps(fun)(call)

    def apply(
        self, model: Any, *args: Any, key: Any = None, training: bool = False, **kwargs: Any
    ) -> tuple[Any, Any]:
        """`nn.apply(model, *args, ...)` with model and arguments cast to compute, and the output to output.

        The returned model is the given one, in its own dtypes, with the statistics that this pass has gathered.

        >>> from functorch_lite import nn
        >>> out, norm = Policy("compute=bf16").apply(nn.BatchNorm1d(2), np.ones((4, 2), np.float32), training=True)
        >>> norm.running_mean
        array([0.1, 0.1], dtype=float32)
        """
        args, kwargs = self.cast_to_compute((args, kwargs))
        cast = self.cast_to_compute(model)
        out, new = apply(cast, *args, key=key, training=training, **kwargs)
        if new is not cast:
            model = tree.map(lambda old, x, own: old if own else x.astype(old.dtype), model, new, trainable_mask(model))
        return self.cast_to_output(out), model


def _parsed(text: str) -> dict[str, str]:
    found = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        name, _, value = part.partition("=")
        if name not in _KEYS or not value:
            raise ArgumentError(f"Policy: `{part}` should be params=, compute= or output= and a dtype.")
        found[_KEYS[name]] = value
    return found


def _dtype(value: Any) -> np.dtype:
    dtype = _DTYPES.get(_SHORT.get(value, value)) if isinstance(value, str) else np.dtype(value)
    if dtype is None or dtype not in _FLOATING:
        raise ArgumentError(f"Policy: {value!r} should be one of {', '.join(_DTYPES)}.")
    return dtype


def _cast(x: Any, dtype: np.dtype) -> Any:
    """The tree `x` with its floating arrays in `dtype`; those of norms and buffers in float32 in place of 16 bits."""
    return tree.map(lambda node: _cast_node(node, dtype), x, is_leaf=lambda node: isinstance(node, Module))


def _cast_node(node: Any, dtype: np.dtype) -> Any:
    if not isinstance(node, Module):
        own = getattr(node, "dtype", None)
        return node.astype(dtype) if own in _FLOATING and own != dtype else node
    wide = np.dtype(np.float32) if dtype in HALVES else dtype
    kept = node._child_names if isinstance(node, _NORMS) else node._buffer_names
    return node.replace(
        **{name: _cast(getattr(node, name), wide if name in kept else dtype) for name in node._child_names}
    )

# SPDX-License-Identifier: MIT
"""Orders and draws from a set: permutation, choice, categorical.

A shuffle sorts by random 32-bit keys, in enough rounds that ties between keys do not matter.
"""

import math
from typing import Any

from functorch_lite.backends.registry import constant
from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ShapeError
from functorch_lite.numpy.indexing import searchsorted, take
from functorch_lite.numpy.promotion import asarray, aval_text
from functorch_lite.numpy.shaping import expand_dims
from functorch_lite.primitives.broadcast import full, iota
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.cumulative import cumsum
from functorch_lite.primitives.elementwise import add, mul, sub
from functorch_lite.primitives.movement import moveaxis, reshape, slice_in_axis
from functorch_lite.primitives.random_bits import split_key
from functorch_lite.primitives.reduction import argmax
from functorch_lite.primitives.sorting import sort, top_k
from functorch_lite.random.blocks import random_bits
from functorch_lite.random.common import (
    DEFAULT_INT,
    as_shape,
    log_or_infinite,
    one_of,
    own_float,
    rounded,
    spread,
    take_key,
)
from functorch_lite.random.discrete import integers
from functorch_lite.random.inversion import MODES, wide_gumbel
from functorch_lite.random.uniform import unit
from functorch_lite.transforms.arguments import on_its_device


def _axis(name: str, axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{name}: `axis` {axis} is out of range for {ndim} dimensions.")
    return axis % ndim


def _shuffled(key, x, axis):
    """`x` rearranged along `axis`, each line on its own."""
    size = math.prod(x.shape)
    last = len(x.shape) - 1
    rounds = math.ceil(3 * math.log(max(1, size)) / math.log(2**32 - 1))
    x = constant(x, key)
    for _ in range(rounds):
        keys = split_key(key, (2,))
        key, order = keys[0], random_bits(keys[1], x.shape, 32)
        x = moveaxis(sort(moveaxis(order, axis, last), moveaxis(x, axis, last), num_keys=1)[1], last, axis)
    return x


@on_its_device
def permutation(key: Any, x: Any, axis: int = 0, independent: bool = False) -> Any:
    """`x` rearranged at random along `axis`; an integer x stands for arange(x) (int32).

    independent: each line along `axis` gets its own order.

    >>> from functorch_lite import random
    >>> sorted(random.permutation(random.key(0), 5).tolist())
    [0, 1, 2, 3, 4]
    """
    return _permuted(take_key("permutation", key), x, axis, independent)


def _permuted(key, x, axis, independent=False):
    x = asarray(x)
    if not x.shape:
        return _shuffled(key, iota(DEFAULT_INT, (_count("permutation", "x", x),)), 0)
    axis = _axis("permutation", axis, len(x.shape))
    if independent or len(x.shape) == 1:
        return _shuffled(key, x, axis)
    return take(x, _shuffled(key, iota(DEFAULT_INT, (x.shape[axis],)), 0), axis)


def _count(name, label, value):
    if value.dtype.kind not in "iu":
        raise ArgumentTypeError(f"{name}: `{label}` must be an array or an integer, got {aval_text(value)}.")
    n = value.__index__()
    if n < 0:
        raise ArgumentError(f"{name}: `{label}` must not be negative, got {n}.")
    return n


@on_its_device
def choice(
    key: Any, a: Any, shape: Any = (), replace: bool = True, p: Any = None, axis: int = 0, mode: str | None = None,
) -> Any:
    """Slices of `a` along `axis` drawn at random, as `shape`; an integer a stands for arange(a) (int32).

    replace: whether a slice may be drawn twice. p [n]: probabilities, uniform if None; they need not sum to 1 where
    `replace` is false. mode: that of `gumbel`, for draws without replacement by probabilities.

    >>> from functorch_lite import random
    >>> len(set(random.choice(random.key(0), 10, (4,), replace=False).tolist()))
    4

    Raises: ArgumentError where there is nothing to draw from, or too little without replacement.
    """
    take_key("choice", key)
    shape = as_shape("choice", shape)
    a = asarray(a)
    axis = _axis("choice", axis, len(a.shape)) if a.shape else 0
    n = a.shape[axis] if a.shape else _count("choice", "a", a)
    n_draws = math.prod(shape)
    if n_draws == 0:
        return full(_choice_shape(a, axis, shape), 0, a.dtype if a.shape else DEFAULT_INT)
    if n == 0:
        raise ArgumentError("choice: `a` is empty: there is nothing to draw from.")
    if not replace and n_draws > n:
        raise ArgumentError(f"choice: {n_draws} draws without replacement from {n} elements.")
    if p is None and not replace:
        order = _permuted(key, a if a.shape else n, axis)
        return reshape(slice_in_axis(order, 0, n_draws, axis), _choice_shape(a, axis, shape))
    if p is None:
        drawn = integers(key, shape, 0, n)
    else:
        drawn = _by_probability(key, n, shape, replace, _probabilities(p, n), mode or "low")
    return drawn if not a.shape else reshape(take(a, reshape(drawn, (n_draws,)), axis), _choice_shape(a, axis, shape))


def _choice_shape(a, axis, shape):
    return (*a.shape[:axis], *shape, *a.shape[axis + 1 :])


def _probabilities(p, n):
    p = own_float(p)
    if p.shape != (n,):
        raise ShapeError(f"choice: `p` must have shape ({n},), that of the elements of `a`, got {p.shape}.")
    return p


def _by_probability(key, n, shape, replace, p, mode):
    if replace:
        total = cumsum(p, 0)
        left = sub(p.dtype.type(1), unit(key, shape, p.dtype))
        found = searchsorted(total, mul(spread(total[-1], shape), left))
    else:
        scores = _perturbed(key, log_or_infinite(p), (n,), one_of("choice", "mode", mode, MODES))
        found = reshape(top_k(scores, math.prod(shape))[1], shape)
    return rounded(found, DEFAULT_INT)


def _perturbed(key, logits, shape, mode):
    """Logits and Gumbel noise: the largest entry is a draw by their softmax."""
    noise = rounded(wide_gumbel(key, shape, logits.dtype, mode), logits.dtype)
    return add(noise, spread(logits, shape))


@on_its_device
def categorical(
    key: Any, logits: Any, axis: int = -1, shape: Any = None, replace: bool = True, mode: str | None = None,
) -> Any:
    """Indices (int32) along `axis` of `logits`, drawn with probabilities softmax(logits).

    shape: prefix + the shape of `logits` without `axis`, where the prefix counts draws; None: one draw. Without
    replacement the draws of one distribution differ.

    >>> from functorch_lite import random
    >>> random.categorical(random.key(0), [0.0, 0.0, 100.0], shape=(3,)).tolist()
    [2, 2, 2]

    Source: C. J. Maddison, D. Tarlow, T. Minka, "A* sampling", NeurIPS 2014 (the Gumbel-max trick).
    """
    take_key("categorical", key)
    logits = own_float(logits)
    if not logits.shape or dtypes.is_complex(logits.dtype):
        raise ShapeError(f"categorical: `logits` must be real with at least one axis, got {aval_text(logits)}.")
    axis = _axis("categorical", axis, len(logits.shape))
    batch = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    shape = batch if shape is None else as_shape("categorical", shape)
    prefix = shape[: len(shape) - len(batch)]
    if shape[len(prefix) :] != batch:
        raise ShapeError(f"categorical: shape={shape} must end with {batch}, the shape of `logits` without `axis`.")
    mode = one_of("categorical", "mode", mode or "low", MODES)
    draw = _categorical_with if replace else _categorical_without
    return convert(draw(key, logits, axis, prefix, mode), DEFAULT_INT)


def _categorical_with(key, logits, axis, prefix, mode):
    for _ in prefix:
        logits = expand_dims(logits, 0)
    scores = _perturbed(key, logits, (*prefix, *logits.shape[len(prefix) :]), mode)
    return argmax(scores, len(prefix) + axis)


def _categorical_without(key, logits, axis, prefix, mode):
    k, last = math.prod(prefix), len(logits.shape) - 1
    if k > logits.shape[axis]:
        raise ArgumentError(f"categorical: {k} draws without replacement from {logits.shape[axis]} categories.")
    scores = moveaxis(_perturbed(key, logits, logits.shape, mode), axis, last)
    order = moveaxis(top_k(scores, k)[1], last, 0)
    return reshape(order, (*prefix, *order.shape[1:]))


# SPDX-License-Identifier: MIT
"""Keys: uint32 arrays [2], made from a seed, split, and folded with integers.

Randomness has no hidden state: a sample is a function of its key. Use a key once, and `split` it for more;
`config(check_key_reuse=True)` finds a key that is used twice.

    key = random.key(0)
    key, sub = random.split(key)
    x = random.normal(sub, (3,))

Source: Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", SC'11; the layout is JAX's partitionable
threefry, so `split(key, n)[:k]` equals `split(key, k)`.
"""

from typing import Any

import numpy as np

from functorch_lite.backends.threefry import seed_key
from functorch_lite.config import config
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentTypeError, DTypeError, ShapeError
from functorch_lite.numpy.promotion import aval_text
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import shift_right
from functorch_lite.primitives.key_use import use_key
from functorch_lite.primitives.movement import concatenate, reshape
from functorch_lite.primitives.random_bits import fold_in_key, split_key
from functorch_lite.random.common import as_shape, check_key, take_key

_UINT32 = np.dtype(np.uint32)


def key(seed: Any) -> Any:
    """The key [2] (uint32) of an integer seed: its high and low 32 bits.

    >>> key(42).tolist()
    [0, 42]

    Raises: ArgumentTypeError for what is no integer scalar, ArgumentError where 64 bits cannot hold it.
    """
    if isinstance(seed, Tracer):
        return _traced_key(seed)
    return seed_key(np, seed)


PRNGKey = key


def _traced_key(seed):
    if seed.shape or seed.dtype.kind not in "iu":
        raise ArgumentTypeError(f"key: `seed` must be an integer scalar, got {aval_text(seed)}.")
    low = convert(seed, _UINT32)
    wide = seed.dtype.itemsize == 8
    high = convert(shift_right(seed, seed.dtype.type(32)), _UINT32) if wide else np.zeros(1, np.uint32)
    return concatenate([reshape(high, (1,)), reshape(low, (1,))], 0)


def split(key: Any, num: Any = 2) -> Any:
    """`num` new keys [num, 2] from one; a tuple `num` gives keys [*num, 2].

    >>> split(PRNGKey(0)).tolist()
    [[1797259609, 2579123966], [928981903, 3453687069]]
    """
    return split_key(take_key("split", key), as_shape("split", num))


def fold_in(key: Any, data: Any) -> Any:
    """A new key [2] from a key and an integer (a step number, say), of which the low 32 bits count.

    >>> fold_in(PRNGKey(0), 1).tolist()
    [928981903, 3453687069]

    Raises: ArgumentTypeError or ShapeError where `data` is no integer scalar.
    """
    check_key("fold_in", key)
    if type(data) is int:
        return fold_in_key(key, np.uint32(data & 0xFFFFFFFF))
    dtype, shape = getattr(data, "dtype", None), getattr(data, "shape", None)
    if dtype is None or dtype.kind not in "iu":
        raise ArgumentTypeError(f"fold_in: `data` must be an integer, got {data!r}.")
    if shape != ():
        raise ShapeError(f"fold_in: `data` must be a scalar, got {aval_text(data)}. Use vmap for several.")
    return fold_in_key(key, convert(data, _UINT32))


def clone(key: Any) -> Any:
    """`key` itself, to be used again on purpose: under `config(check_key_reuse=True)` it counts as unused."""
    check_key("clone", key)
    if config.check_key_reuse:
        use_key(key, "clone")
    return key


def key_data(keys: Any) -> Any:
    """`keys` [..., 2] itself: keys are plain uint32 arrays."""
    return _checked_keys("key_data", keys)


def wrap_key_data(key_bits_array: Any, *, impl: str | None = None) -> Any:
    """`key_bits_array` [..., 2] itself: keys are plain uint32 arrays. The only `impl` is "threefry2x32"."""
    if impl not in (None, "threefry2x32"):
        raise ArgumentTypeError(f"wrap_key_data: the only `impl` is 'threefry2x32', got {impl!r}.")
    return _checked_keys("wrap_key_data", key_bits_array)


def _checked_keys(name, keys):
    shape, dtype = getattr(keys, "shape", ()), getattr(keys, "dtype", None)
    if dtype != _UINT32 or not shape or shape[-1] != 2:
        raise DTypeError(f"{name}: expected keys (uint32[..., 2]), got {dtype} of shape {shape}. "
                         "Make one with `random.key(seed)`.")
    return keys

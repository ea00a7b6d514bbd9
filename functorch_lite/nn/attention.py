# SPDX-License-Identifier: MIT
"""Scaled dot-product attention, and the multi-head layer with a cache of keys and values.

Source: A. Vaswani and others, arXiv:1706.03762; grouped queries: J. Ainslie and others, arXiv:2305.13245.
"""

import math
from typing import Any

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import lax, random
from functorch_lite.core.dtypes import default_float
from functorch_lite.errors import ArgumentError, BoundsError, ShapeError
from functorch_lite.nn.context import is_training, next_key
from functorch_lite.nn.initializers import uniform
from functorch_lite.nn.linear import Linear
from functorch_lite.nn.module import Array, Module, buffer
from functorch_lite.nn.positions import RotaryEmbedding
from functorch_lite.primitives.attention import attention
from functorch_lite.transforms.arguments import on_its_device

FEW_QUERIES = 8  # fewer do not pay for a kernel's preparation of the keys, where there is a mask
Window = int | tuple[int | None, int | None] | None


@on_its_device
def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None = None,
    *,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    window: Window = None,
) -> Array:
    """softmax(scale query key' + bias) value: query [..., n, e], key [..., m, e], value [..., m, f] -> [..., n, f].

    mask: broadcasts to [..., n, m]; a boolean one is True where a query may look, a floating one is the added bias.
    is_causal: query i sees keys up to i. window: i sees i - before to i + after, both included, for (before, after) or
    one int for both; None is no bound. All three hold together; a query that sees nothing gets zeros.
    Without dropout, and with a mask for eight queries or more, neither the weights nor their gradient are ever whole in
    memory (but for the gradient of a mask).
    scale: 1 / sqrt(e) by default. enable_gqa: axis -3 holds heads, and the h heads of query share the g of key and
    value, h / g neighbours each. dropout_p: drops weights in `nn.apply(..., training=True)`. Half-precision scores are
    computed in float32.

    Raises ShapeError, naming the argument, for shapes that do not fit.

    >>> import numpy as np
    >>> q = np.ones((2, 4, 5, 8), np.float32)
    >>> scaled_dot_product_attention(q, q, q, is_causal=True).shape
    (2, 4, 5, 8)
    """
    _check(query, key, value, mask)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    groups = _groups(query, key, value) if enable_gqa else 1
    is_whole = mask is None or query.shape[-2] >= FEW_QUERIES
    if is_whole and not (dropout_p and is_training()) and _is_real(query, key, value):
        _check_dropout(dropout_p)
        return _fused(query, key, value, mask, scale, _bounds(is_causal, window), groups)
    if groups > 1:
        query, key, value = _by_group(query, groups), key[..., None, :, :], value[..., None, :, :]
        mask = mask if mask is None or mask.ndim < 3 else _mask_by_group(mask, groups)
    dtype = fnp.result_type(query.dtype, key.dtype)
    scores = fnp.matmul(query * scale, fnp.swapaxes(key, -1, -2))
    scores = scores.astype(fnp.float32) if dtype.itemsize < 4 else scores
    weights = _softmax(_masked(scores, mask, is_causal, window)).astype(dtype)
    out = fnp.matmul(_dropped(weights, dropout_p), value)
    return _together(out) if groups > 1 else out


def _check(query: Array, key: Array, value: Array, mask: Array | None) -> None:
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(
            "attention: `query`, `key` and `value` should have at least two axes, [..., length, features]."
        )
    if key.shape[-1] != query.shape[-1]:
        raise ShapeError(f"attention: `key` {key.shape} and query {query.shape} differ in their features.")
    if value.shape[-2] != key.shape[-2]:
        raise ShapeError(f"attention: `value` {value.shape} and key {key.shape} differ in length.")
    wanted = (query.shape[-2], key.shape[-2])
    if mask is not None and any(n not in (1, m) for n, m in zip(mask.shape[::-1], wanted[::-1], strict=False)):
        raise ShapeError(f"attention: `mask` {mask.shape} should broadcast to [..., {wanted[0]}, {wanted[1]}].")


def _groups(query: Array, key: Array, value: Array) -> int:
    if min(query.ndim, key.ndim, value.ndim) < 3 or query.shape[-3] % key.shape[-3] or key.shape[-3] != value.shape[-3]:
        raise ShapeError(
            f"attention: with enable_gqa the heads (axis -3) of `key` {key.shape} and value {value.shape} "
            f"should be as many and divide those of query {query.shape}."
        )
    return query.shape[-3] // key.shape[-3]


def _by_group(x: Array, groups: int) -> Array:
    """[..., heads, n, e] -> [..., heads / groups, groups, n, e]."""
    return fnp.reshape(x, (*x.shape[:-3], x.shape[-3] // groups, groups, *x.shape[-2:]))


def _mask_by_group(mask: Array, groups: int) -> Array:
    return mask[..., None, :, :] if mask.shape[-3] == 1 else _by_group(mask, groups)


def _together(x: Array) -> Array:
    return fnp.reshape(x, (*x.shape[:-4], x.shape[-4] * x.shape[-3], *x.shape[-2:]))


def _masked(scores: Array, mask: Array | None, is_causal: bool, window: Window) -> Array:
    seen = _seen(fnp.arange(scores.shape[-2]), scores.shape[-1], is_causal, window)
    scores = scores if seen is None else fnp.where(seen, scores, -fnp.inf)
    if mask is None:
        return scores
    return fnp.where(mask, scores, -fnp.inf) if mask.dtype == bool else scores + mask.astype(scores.dtype)


def _bounds(is_causal: bool, window: Window) -> tuple[int | None, int | None]:
    before, after = window if isinstance(window, tuple) else (window, window)
    return before, 0 if is_causal else after


def _is_real(*arrays: Array) -> bool:
    return all(fnp.issubdtype(x.dtype, np.floating) or x.dtype == fnp.bfloat16 for x in arrays)


def _fused(
    query: Array, key: Array, value: Array, mask: Array | None, scale: float, bounds: Any, groups: int
) -> Array:  # fmt: skip
    """Attention as one primitive; its first axis is all leading axes together."""
    dtype = fnp.result_type(query.dtype, key.dtype, value.dtype)
    wide = dtype if dtype.itemsize >= 4 else fnp.float32
    split = -3 if groups > 1 else -2
    masks = [] if mask is None else [mask if mask.dtype == bool else mask.astype(wide)]
    lead = np.broadcast_shapes(*(x.shape[:split] for x in (query, key, value, *masks)))
    flat = [_flat(x.astype(wide), lead, split) for x in (query, key, value)]
    shape = (*lead, *query.shape[split:-1], key.shape[-2])
    flat += [_flat_mask(m, shape) for m in masks]
    before, after = bounds
    out, _ = attention(*flat, factor=scale, before=before, after=after, groups=groups)
    return fnp.reshape(out, (*lead, *query.shape[split:-1], value.shape[-1])).astype(dtype)


def _flat(x: Array, lead: tuple[int, ...], split: int) -> Array:
    return fnp.reshape(fnp.broadcast_to(x, (*lead, *x.shape[split:])), (-1, *x.shape[-2:]))


def _flat_mask(mask: Array, shape: tuple[int, ...]) -> Array:
    """A mask that broadcasts to `shape` as the primitive takes it: leading axes repeat it only where others follow."""
    mask = fnp.reshape(mask, (*(1,) * (len(shape) - mask.ndim), *mask.shape))
    own = max((i + 1 for i, n in enumerate(mask.shape[:-2]) if n != 1), default=0)
    mask = fnp.broadcast_to(mask, (*shape[:own], *mask.shape[own:-1], shape[-1]))
    return fnp.reshape(mask, (math.prod(mask.shape[:own]), *mask.shape[-2:]))


def _seen(positions: Array, n_keys: int, is_causal: bool, window: Window) -> Array | None:
    """Which keys 0..n_keys the queries at `positions` [n] see, [n, n_keys]; None for all."""
    before, after = _bounds(is_causal, window)
    if before is None and after is None:
        return None
    distance = fnp.arange(n_keys, dtype=positions.dtype) - positions[:, None]
    bounds = ([] if before is None else [distance >= -before]) + ([] if after is None else [distance <= after])
    return bounds[0] if len(bounds) == 1 else bounds[0] & bounds[1]


def _softmax(scores: Array) -> Array:
    """Along the last axis, with zeros where all scores are -inf."""
    highest = fnp.max(lax.stop_gradient(scores), axis=-1, keepdims=True)
    exponentials = fnp.exp(scores - fnp.where(highest == -fnp.inf, 0, highest))
    total = fnp.sum(exponentials, axis=-1, keepdims=True)
    return exponentials / fnp.where(total == 0, 1, total)


def _check_dropout(p: float) -> None:
    if not 0 <= p < 1:
        raise ArgumentError(f"attention: `dropout` should be in [0, 1), but is {p}.")


def _dropped(weights: Array, p: float) -> Array:
    _check_dropout(p)
    if p == 0 or not is_training():
        return weights
    kept = random.bernoulli(next_key("attention"), 1 - p, weights.shape)
    return fnp.where(kept, weights / (1 - p), 0)


class KVCache(Module):
    """Keys and values [..., kv_heads, max_length, head_dim] of the `length` positions seen so far, zeros after them.

    length: an int32 scalar, one for the whole batch. Made by `MultiheadAttention.init_cache`.
    """

    keys: Array = buffer()
    values: Array = buffer()
    length: Array = buffer()

    def extended(self, keys: Array, values: Array) -> "KVCache":
        """The cache with `keys` and `values` [..., kv_heads, n, head_dim] written behind what it holds.

        Raises BoundsError when they do not fit and the length is known; under jit they overwrite the last positions.
        """
        n, room = keys.shape[-2], self.keys.shape[-2]
        length, known = self.length, _known(self.length)
        if known is not None and known + n > room:
            raise BoundsError(f"KVCache: {known} + {n} positions do not fit in `max_length` {room}.")
        return KVCache(_written(self.keys, keys, length), _written(self.values, values, length), length + np.int32(n))


def _known(length: Any) -> int | None:
    return int(length) if isinstance(length, np.ndarray | np.generic) else None


def _written(old: Array, new: Array, start: Array) -> Array:
    new = fnp.broadcast_to(new, (*old.shape[:-2], *new.shape[-2:])).astype(old.dtype)
    return lax.dynamic_update_slice_in_dim(old, new, start, old.ndim - 2)


class MultiheadAttention(Module):
    """Attention of num_heads heads: query [..., n, embed_dim], key [..., m, kdim], value [..., m, vdim] -> like query.

    `layer(x)` attends from x to itself. The heads' projections are q_proj, k_proj, v_proj and out_proj, each a Linear,
    with PyTorch's initial values: weights xavier uniform (those of q, k and v as one matrix when they are equally
    large) and biases 0.

    num_kv_heads: fewer heads of keys and values, shared by groups of queries. rotary: a `RotaryEmbedding` for queries
    and keys. window: as in `scaled_dot_product_attention`. dropout: on the weights, in training.

    Raises ArgumentError for heads that do not divide, ShapeError for inputs that do not fit.

    >>> import numpy as np
    >>> layer = MultiheadAttention(16, 4, num_kv_heads=2, key=random.key(0))
    >>> out, cache = layer(np.ones((2, 3, 16), np.float32), cache=layer.init_cache((2,), 10))
    >>> out.shape, int(cache.length)
    ((2, 3, 16), 3)
    """

    q_proj: Linear
    k_proj: Linear
    v_proj: Linear
    out_proj: Linear
    rotary: RotaryEmbedding | None
    num_heads: int
    num_kv_heads: int
    dropout: float
    window: int | tuple[int | None, int | None] | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        kdim: int | None = None,
        vdim: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        rotary: RotaryEmbedding | None = None,
        window: Window = None,
        dtype: Any = None,
        key: Array,
    ):
        kv_heads, kdim, vdim = num_kv_heads or num_heads, kdim or embed_dim, vdim or embed_dim
        if embed_dim % num_heads or num_heads % kv_heads:
            raise ArgumentError(
                f"MultiheadAttention: `num_heads` {num_heads} should divide embed_dim {embed_dim}, and `num_kv_heads` "
                f"{kv_heads} should divide num_heads."
            )
        kv_dim = embed_dim // num_heads * kv_heads
        keys = random.split(key, 4)
        rows = 3 * embed_dim if (kdim, vdim, kv_dim) == (embed_dim,) * 3 else None
        self.q_proj = _projection(embed_dim, embed_dim, rows, bias, dtype, keys[0])
        self.k_proj = _projection(kdim, kv_dim, rows, bias, dtype, keys[1])
        self.v_proj = _projection(vdim, kv_dim, rows, bias, dtype, keys[2])
        self.out_proj = _without_bias_values(Linear(embed_dim, embed_dim, bias=bias, dtype=dtype, key=keys[3]))
        self.num_heads, self.num_kv_heads, self.dropout = num_heads, kv_heads, dropout
        self.rotary, self.window = rotary, window

    def init_cache(self, batch_shape: tuple[int, ...], max_length: int, dtype: Any = None) -> KVCache:
        """An empty cache for inputs [*batch_shape, n, embed_dim] of `max_length` positions in all."""
        head_dim = self.q_proj.out_features // self.num_heads
        shape = (*batch_shape, self.num_kv_heads, max_length, head_dim)
        dtype = dtype or default_float()
        return KVCache(fnp.zeros(shape, dtype), fnp.zeros(shape, dtype), fnp.zeros((), np.int32))

    @on_its_device
    def __call__(
        self,
        query: Array,
        key: Array | None = None,
        value: Array | None = None,
        *,
        mask: Array | None = None,
        key_mask: Array | None = None,
        is_causal: bool = False,
        cache: KVCache | None = None,
    ) -> Any:
        """The output, or with a cache `(output, cache)`.

        mask: broadcasts to [..., num_heads, n, m]; see `scaled_dot_product_attention`. key_mask: boolean [..., m], True
        for keys that count (PyTorch's key_padding_mask is its opposite).
        cache: the inputs are the next n positions; they see those in the cache and, causally, each other, and mask and
        key_mask are over all max_length positions.
        """
        key = query if key is None else key
        value = key if value is None else value
        q = _split_heads(self.q_proj(query), self.num_heads)
        k = _split_heads(self.k_proj(key), self.num_kv_heads)
        v = _split_heads(self.v_proj(value), self.num_kv_heads)
        start = fnp.zeros((), np.int32) if cache is None else cache.length
        if self.rotary is not None:
            q = self.rotary(q, start + fnp.arange(q.shape[-2], dtype=np.int32))
            k = self.rotary(k, start + fnp.arange(k.shape[-2], dtype=np.int32))
        masks = [] if key_mask is None else [key_mask[..., None, None, :]]
        if cache is None:
            out = self._attend(q, k, v, mask, masks, is_causal, self.window)
            return self.out_proj(_join_heads(out))
        cache = cache.extended(k, v)
        positions = start + fnp.arange(q.shape[-2], dtype=np.int32)
        masks.append(_seen(positions, cache.keys.shape[-2], True, self.window))
        out = self._attend(q, cache.keys, cache.values, mask, masks, False, None)
        return self.out_proj(_join_heads(out)), cache

    def _attend(self, q, k, v, mask, masks, is_causal, window):
        gqa = self.num_kv_heads != self.num_heads
        mask = _combined(mask, masks)
        return scaled_dot_product_attention(
            q, k, v, mask, dropout_p=self.dropout, is_causal=is_causal, window=window, enable_gqa=gqa
        )


def _combined(mask: Array | None, boolean: list[Array]) -> Array | None:
    """One mask out of `mask` and further boolean ones."""
    for other in boolean:
        if mask is None:
            mask = other
        else:
            mask = mask & other if mask.dtype == bool else fnp.where(other, mask, -fnp.inf)
    return mask


def _projection(n_in: int, n_out: int, rows: int | None, bias: bool, dtype: Any, key: Array) -> Linear:
    bound = math.sqrt(6 / (n_in + (rows or n_out)))
    return _without_bias_values(Linear(n_in, n_out, bias=bias, init=uniform(-bound, bound), dtype=dtype, key=key))


def _without_bias_values(layer: Linear) -> Linear:
    return layer if layer.bias is None else layer.replace(bias=fnp.zeros_like(layer.bias))


def _split_heads(x: Array, heads: int) -> Array:
    """[..., n, heads * e] -> [..., heads, n, e]."""
    return fnp.swapaxes(fnp.reshape(x, (*x.shape[:-1], heads, x.shape[-1] // heads)), -2, -3)


def _join_heads(x: Array) -> Array:
    x = fnp.swapaxes(x, -2, -3)
    return fnp.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))

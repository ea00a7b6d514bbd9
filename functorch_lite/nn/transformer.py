# SPDX-License-Identifier: MIT
"""Transformer layers and stacks of them, batch first: x [..., n, d_model]. Defaults are PyTorch's.

Masks are those of `MultiheadAttention`: True where a query may look. Source: A. Vaswani and others, arXiv:1706.03762.
"""

from collections.abc import Callable
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.nn.activations import relu
from functorch_lite.nn.attention import KVCache, MultiheadAttention
from functorch_lite.nn.blocks import traced_once
from functorch_lite.nn.dropout import Dropout
from functorch_lite.nn.linear import Linear
from functorch_lite.nn.module import Array, Module
from functorch_lite.nn.norm import LayerNorm


class FeedForward(Module):
    """linear2(dropout(activation(linear1(x)))): x [..., d_model] -> the same. An activation may halve (`swiglu`)."""

    linear1: Linear
    linear2: Linear
    dropout: Dropout
    activation: Callable[[Array], Array]

    def __init__(
        self,
        d_model: int,
        hidden: int,
        dropout: float = 0.0,
        *,
        activation: Callable[[Array], Array] = relu,
        bias: bool = True,
        dtype: Any = None,
        key: Array,
    ):
        one, two = random.split(key)
        self.linear1 = Linear(d_model, hidden, bias=bias, dtype=dtype, key=one)
        n = activation(fnp.zeros((hidden,), fnp.float32)).shape[-1]
        self.linear2 = Linear(n, d_model, bias=bias, dtype=dtype, key=two)
        self.dropout, self.activation = Dropout(dropout), activation

    def __call__(self, x: Array) -> Array:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class _Layer(Module):
    self_attn: MultiheadAttention
    feed_forward: FeedForward
    norm1: LayerNorm
    norm2: LayerNorm
    dropout: Dropout
    norm_first: bool

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        *,
        activation: Callable[[Array], Array] = relu,
        layer_norm_eps: float = 1e-5,
        norm_first: bool = False,
        bias: bool = True,
        dtype: Any = None,
        key: Array,
        **attention: Any,
    ):
        one, two = random.split(key)
        options = {"bias": bias, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, key=one, **options, **attention)
        self.feed_forward = FeedForward(d_model, dim_feedforward, dropout, activation=activation, key=two, **options)
        self.norm1, self.norm2 = (LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype) for _ in range(2))
        self.dropout, self.norm_first = Dropout(dropout), norm_first

    def _added(self, x: Array, norm: Module, sublayer: Callable[[Array], Array]) -> Array:
        """x with the sublayer's output added, normalised before the sublayer or after the sum."""
        if self.norm_first:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def _self_attention(self, caches: list, **options: Any) -> Callable[[Array], Array]:
        """Attention of x to itself; `caches` holds the cache before the call and the new one after it."""

        def attend(x):
            if caches[0] is None:
                return self.self_attn(x, **options)
            out, caches[0] = self.self_attn(x, cache=caches[0], **options)
            return out

        return attend


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward network, each with dropout, residual and LayerNorm: x [..., n, d_model].

    norm_first: normalise the input of each (pre-norm) and not the sum. The remaining keyword arguments go to
    `MultiheadAttention` (num_kv_heads, rotary, window).

    >>> import numpy as np
    >>> TransformerEncoderLayer(8, 2, 16, key=random.key(0))(np.ones((3, 5, 8), np.float32)).shape
    (3, 5, 8)
    """

    @traced_once
    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        *,
        key_mask: Array | None = None,
        is_causal: bool = False,
        cache: KVCache | None = None,
    ) -> Any:
        """The output, or with a cache `(output, cache)`; arguments as in `MultiheadAttention`."""
        caches = [cache]
        attend = self._self_attention(caches, mask=mask, key_mask=key_mask, is_causal=is_causal)
        x = self._added(x, self.norm1, attend)
        x = self._added(x, self.norm2, self.feed_forward)
        return x if cache is None else (x, caches[0])


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to `memory` [..., m, d_model] and a feed-forward network: x [..., n, d_model].

    Arguments as in `TransformerEncoderLayer`.
    """

    cross_attn: MultiheadAttention
    norm3: LayerNorm

    def __init__(self, d_model: int, nhead: int, *args: Any, key: Array, **options: Any):
        one, two = random.split(key)
        super().__init__(d_model, nhead, *args, key=one, **options)
        shared = {"bias": options.get("bias", True), "dtype": options.get("dtype")}
        dropout = self.self_attn.dropout
        self.cross_attn = MultiheadAttention(d_model, nhead, dropout=dropout, key=two, **shared)
        self.norm3 = LayerNorm(d_model, self.norm1.eps, **shared)

    @traced_once
    def __call__(
        self,
        x: Array,
        memory: Array,
        mask: Array | None = None,
        *,
        memory_mask: Array | None = None,
        key_mask: Array | None = None,
        memory_key_mask: Array | None = None,
        is_causal: bool = False,
        cache: KVCache | None = None,
    ) -> Any:
        """The output, or with a cache of the self-attention `(output, cache)`."""
        caches = [cache]

        def look(x):
            return self.cross_attn(x, memory, mask=memory_mask, key_mask=memory_key_mask)

        attend = self._self_attention(caches, mask=mask, key_mask=key_mask, is_causal=is_causal)
        x = self._added(x, self.norm1, attend)
        x = self._added(x, self.norm2, look)
        x = self._added(x, self.norm3, self.feed_forward)
        return x if cache is None else (x, caches[0])


class _Stack(Module):
    layers: tuple[Any, ...]
    norm: LayerNorm | None

    def __init__(self, num_layers: int, d_model: int, *args: Any, final_norm: bool = False, key: Array, **options: Any):
        keys = random.split(key, num_layers)
        self.layers = tuple(self._layer_type(d_model, *args, key=k, **options) for k in keys)
        eps = options.get("layer_norm_eps", 1e-5)
        bias = options.get("bias", True)
        self.norm = LayerNorm(d_model, eps, bias=bias, dtype=options.get("dtype")) if final_norm else None

    @property
    def _layer_type(self) -> Any:
        raise NotImplementedError

    def init_cache(self, batch_shape: tuple[int, ...], max_length: int, dtype: Any = None) -> list[KVCache]:
        """Empty caches, one a layer, for inputs [*batch_shape, n, d_model]."""
        return [layer.self_attn.init_cache(batch_shape, max_length, dtype) for layer in self.layers]

    def _run(self, x: Array, cache: Any, *args: Any, **options: Any) -> Any:
        new = []
        for i, layer in enumerate(self.layers):
            if cache is None:
                x = layer(x, *args, **options)
            else:
                x, one = layer(x, *args, cache=cache[i], **options)
                new.append(one)
        x = x if self.norm is None else self.norm(x)
        return x if cache is None else (x, new)


class TransformerEncoder(_Stack):
    """`num_layers` encoder layers; the other arguments are those of `TransformerEncoderLayer`.

    final_norm: a LayerNorm after the last, which pre-norm stacks need. With is_causal=True it is a language model's
    stack, and with a cache (a list, see `init_cache`) one that is run position by position.
    """

    @property
    def _layer_type(self) -> Any:
        return TransformerEncoderLayer

    def __call__(self, x: Array, mask: Array | None = None, *, cache: Any = None, **options: Any) -> Any:
        """The output, or with caches `(output, caches)`; options: key_mask and is_causal."""
        return self._run(x, cache, mask, **options)


class TransformerDecoder(_Stack):
    """`num_layers` decoder layers; the other arguments are those of `TransformerDecoderLayer`, final_norm as above."""

    @property
    def _layer_type(self) -> Any:
        return TransformerDecoderLayer

    def __call__(self, x: Array, memory: Array, mask: Array | None = None, *, cache: Any = None, **options: Any) -> Any:
        """The output, or with caches `(output, caches)`; options as in `TransformerDecoderLayer`."""
        return self._run(x, cache, memory, mask, **options)


class Transformer(Module):
    """An encoder and a decoder, each with a final LayerNorm: source [..., m, d_model], target [..., n, d_model].

    Arguments as in `TransformerEncoderLayer`; the sizes' defaults are PyTorch's.
    """

    encoder: TransformerEncoder
    decoder: TransformerDecoder

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        *,
        key: Array,
        **options: Any,
    ):
        one, two = random.split(key)
        sizes = (d_model, nhead, dim_feedforward, dropout)
        self.encoder = TransformerEncoder(num_encoder_layers, *sizes, final_norm=True, key=one, **options)
        self.decoder = TransformerDecoder(num_decoder_layers, *sizes, final_norm=True, key=two, **options)

    def __call__(
        self,
        source: Array,
        target: Array,
        *,
        source_key_mask: Array | None = None,
        target_key_mask: Array | None = None,
        target_is_causal: bool = True,
    ) -> Array:
        """The decoder's output [..., n, d_model]; key masks are boolean [..., m] and [..., n], True for what counts."""
        memory = self.encoder(source, key_mask=source_key_mask)
        return self.decoder(
            target, memory, key_mask=target_key_mask, memory_key_mask=source_key_mask, is_causal=target_is_causal
        )

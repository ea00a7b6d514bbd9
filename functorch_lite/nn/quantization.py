# SPDX-License-Identifier: MIT
"""Weight-only quantization: a trained model that keeps its weights as int8.

Each output channel (row of an embedding) of a weight w has one scale, the largest |w| of the channel / 127:

    values = round(w / scale)        |w - values * scale| <= scale / 2

The product is of the input and the integers, converted to its dtype: one layer's weight at a time is there in floating
point. The scale, constant over a channel, multiplies the output, and under `jit` scale and bias are one pass over it.
This saves memory, not time: the conversion is a pass over the weight, which counts where few rows are multiplied.

Source: B. Jacob and others, "Quantization and training of neural networks", arXiv:1712.05877, the symmetric case.
"""

from typing import Any

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.conv import Conv1d, Conv2d, Conv3d
from functorch_lite.nn.embedding import Embedding
from functorch_lite.nn.linear import Linear
from functorch_lite.nn.module import Array, Module, buffer
from functorch_lite.nn.wrapper import LayerWhere, Wrapper, map_layers, own_weight

QUANTIZABLE = (Linear, Embedding, Conv1d, Conv2d, Conv3d)


class Quantized(Wrapper):
    """A Linear, Embedding or Conv whose weight [n_channels, ...] is int8 `values` times `scale` [n_channels].

    Made by `quantize`. values and scale are buffers: they are not trained; the bias is. `weight` is what the layer
    computes with, in the scale's dtype.
    """

    layer: Module
    values: Array = buffer()
    scale: Array = buffer()

    @property
    def weight(self) -> Array:
        """The weight as floating point numbers: values * scale."""
        return self.values.astype(self.scale.dtype) * _column(self.scale, self.values.ndim)

    def dequantized(self) -> Any:
        """The layer with its weight in floating point again."""
        return self.layer.replace(weight=self.weight)

    def __call__(self, x: Array) -> Array:
        if isinstance(self.layer, Embedding):
            scale = fnp.take(self.scale, x, axis=0)[..., None]
            return self.layer.replace(weight=self.values)(x).astype(scale.dtype) * scale
        dtype = fnp.result_type(x, self.scale)
        if dtype == np.float16:  # its range is too small for sums that are scaled last
            return self.dequantized()(x)
        layer: Any = self.layer
        bias, n = layer.bias, self.values.ndim - 2
        out = layer.replace(weight=self.values.astype(dtype), bias=None)(x) * _column(self.scale, n + 1)
        return out if bias is None else out + _column(bias, n + 1)

    def attend(self, x: Array) -> Array:
        """x [..., embedding_dim] -> x @ weight.T [..., num_embeddings], for an Embedding."""
        if x.shape[-1:] != self.values.shape[1:]:
            raise ShapeError(f"Quantized.attend: expected [..., {self.values.shape[1]}], got {x.shape}.")
        return fnp.matmul(x, self.values.T.astype(fnp.result_type(x, self.scale))) * self.scale


def quantize(model: Any, *, where: LayerWhere | None = None, bits: int = 8) -> Any:
    """`model` with the weights of its Linear, Embedding and Conv layers in int8: a quarter of float32's memory.

    where: which layers, as in `map_layers`; None is all of them. bits: how many of the 8 are used, 2 to 8: values lie
    in +-(2^(bits - 1) - 1). Everything else of the model (biases, norms, quantized layers) is left as it is.

    Raises ArgumentError for other bits, and when no layer is selected.

    >>> from functorch_lite import nn, random, tree
    >>> model = nn.MLP((64, 32, 10), key=random.key(0))
    >>> small = quantize(model)
    >>> sum(leaf.nbytes for leaf in tree.leaves(model)), sum(leaf.nbytes for leaf in tree.leaves(small))
    (9640, 2704)
    """
    if not isinstance(bits, int) or not 2 <= bits <= 8:
        raise ArgumentError(f"quantize: `bits` should be an int from 2 to 8, but is {bits!r}.")
    kinds = (*QUANTIZABLE, Quantized)
    return map_layers(lambda layer: _quantized(layer, 2 ** (bits - 1) - 1), model, kinds, where=where)


def dequantize(model: Any) -> Any:
    """`model` with every quantized layer in floating point again, its weights those that it computed with.

    Raises ArgumentError when no layer is quantized.
    """
    return map_layers(lambda layer: layer.dequantized(), model, Quantized)


def _quantized(layer: Any, largest: int) -> Quantized:
    if isinstance(layer, Quantized):
        return layer
    weight = own_weight("quantize", layer)
    peak = fnp.max(fnp.abs(weight), axis=tuple(range(1, weight.ndim)))
    scale = fnp.where(peak > 0, peak / largest, 1).astype(weight.dtype)
    values = fnp.round(weight / _column(scale, weight.ndim))
    values = fnp.clip(values, -largest, largest).astype(np.int8)
    return Quantized(layer=layer.replace(weight=None), values=values, scale=scale)


def _column(x: Array, ndim: int) -> Array:
    """x [n] -> [n, 1, ...] with `ndim` axes."""
    return fnp.reshape(x, (-1, *(1,) * (ndim - 1)))

# SPDX-License-Identifier: MIT
"""What layers around layers compute, in plain NumPy."""

import numpy as np


def lora_linear(layer, x):
    base = layer.layer
    return x @ base.weight.T + base.bias + np.asarray(layer.scaling, x.dtype) * (x @ layer.lora_a.T) @ layer.lora_b.T


def lora_conv_weight(layer):
    conv, rank = layer.layer, layer.lora_b.shape[1]
    delta = np.zeros_like(conv.weight)
    per_out = conv.out_channels // conv.groups
    for o in range(conv.out_channels):
        group = o // per_out
        for r in range(rank):
            delta[o] += layer.lora_b[o, r].reshape(-1)[0] * layer.lora_a[group * rank + r]
    return conv.weight + np.asarray(layer.scaling, delta.dtype) * delta


def stacked_linear(layer, x):
    for weight, bias in zip(layer.layers.weight, layer.layers.bias, strict=True):
        x = x @ weight.T + bias
    return x


def fractional_max_pool(layer, x):
    """Windows at u = 1/2; x [n, channels, height, width]."""
    (kh, kw), (rows, columns) = layer.kernel_size, layer.output_size
    tops, lefts = _starts(x.shape[-2], kh, rows), _starts(x.shape[-1], kw, columns)
    out = [[x[..., i : i + kh, j : j + kw].max(axis=(-2, -1)) for j in lefts] for i in tops]
    return np.moveaxis(np.array(out), (0, 1), (-2, -1))


def _starts(size, kernel, count):
    alpha = (size - kernel) / (count - 1)
    return [int((i + 0.5) * alpha) - int(0.5 * alpha) for i in range(count - 1)] + [size - kernel]

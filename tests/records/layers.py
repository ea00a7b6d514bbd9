# SPDX-License-Identifier: MIT
"""The table of layers: how each is made, one example it takes, and what it computes, written in plain NumPy.

`reference(layer, x)` takes a batch [n, *shape] and is inference. A new layer is a new row.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import functorch_lite.numpy as fnp
from functorch_lite import nn, random, tree
from tests.records import sequence_references as sequences
from tests.records import wrapper_references as wrappers


@dataclass(frozen=True)
class LayerRecord:
    """make(key, dtype) -> layer; shape: one example; integers: exclusive upper bound of integer inputs."""

    name: str
    make: Callable[[Any, Any], nn.Module]
    shape: tuple[int, ...]
    reference: Callable[[Any, np.ndarray], np.ndarray]
    integers: int | None = None
    # BatchNorm cannot tell two leading axes from a batch and a channel axis.
    any_lead: bool = True

    @property
    def parameters(self):
        return tree.leaves(self.make(random.key(0), np.float32))

    def batch(self, n=3, dtype=np.float64):
        rng = np.random.default_rng(7)
        if self.integers is not None:
            return rng.integers(0, self.integers, (n, *self.shape))
        return rng.normal(size=(n, *self.shape)).astype(dtype)


def _bias(out, layer, n):
    return out if layer.bias is None else out + layer.bias.reshape(-1, *(1,) * n)


def _windows(x, kernel, stride, dilation):
    n = len(kernel)
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = sliding_window_view(x, spans, axis=tuple(range(x.ndim - n, x.ndim)))
    steps = tuple(slice(None, None, s) for s in stride)
    inner = tuple(slice(None, None, d) for d in dilation)
    return view[(..., *steps, *(slice(None),) * n)][(..., *inner)]


def conv_reference(layer, x):
    n = len(layer.kernel_size)
    mode = {"zeros": "constant", "reflect": "reflect", "circular": "wrap", "replicate": "edge"}[layer.padding_mode]
    x = np.pad(x, ((0, 0), (0, 0), *layer.padding), mode=mode)
    per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    parts = []
    for g in range(layer.groups):
        windows = _windows(x[:, g * per_in : (g + 1) * per_in], layer.kernel_size, layer.stride, layer.dilation)
        weight = layer.weight[g * per_out : (g + 1) * per_out]
        inside, kernel = "xyz"[:n], "uvw"[:n]
        parts.append(np.einsum(f"bi{inside}{kernel},oi{kernel}->bo{inside}", windows, weight))
    return _bias(np.concatenate(parts, axis=1), layer, n)


def conv_transpose_reference(layer, x):
    """Each input element adds its multiple of the kernel to the output: the definition, one element at a time."""
    n = len(layer.kernel_size)
    size = [
        (i - 1) * s + d * (k - 1) + 1
        for i, s, d, k in zip(x.shape[2:], layer.stride, layer.dilation, layer.kernel_size, strict=True)
    ]
    extra = layer.output_padding
    out = np.zeros((x.shape[0], layer.out_channels, *(a + e for a, e in zip(size, extra, strict=True))))
    per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for c in range(layer.in_channels):
        group = slice(c // per_in * per_out, (c // per_in + 1) * per_out)
        for place in np.ndindex(*x.shape[2:]):
            region = tuple(
                slice(p * s, p * s + d * (k - 1) + 1, d)
                for p, s, d, k in zip(place, layer.stride, layer.dilation, layer.kernel_size, strict=True)
            )
            value = x[(slice(None), c, *place)].reshape(-1, *(1,) * (n + 1))
            out[(slice(None), group, *region)] += value * layer.weight[c]
    crop = tuple(slice(low, out.shape[2 + i] - high) for i, (low, high) in enumerate(layer.padding))
    return _bias(out[(slice(None), slice(None), *crop)], layer, n)


def max_pool_reference(layer, x):
    pads = [(0, 0)] * 2 + [(p, p) for p in layer.padding]
    windows = _windows(np.pad(x, pads, constant_values=-np.inf), layer.kernel_size, layer.stride, layer.dilation)
    return windows.max(axis=tuple(range(-len(layer.kernel_size), 0)))


def avg_pool_reference(layer, x):
    n = len(layer.kernel_size)
    pads = [(0, 0)] * 2 + [(p, p) for p in layer.padding]
    axes = tuple(range(-n, 0))
    total = _windows(np.pad(x, pads), layer.kernel_size, layer.stride, (1,) * n).sum(axis=axes)
    if layer.count_include_pad:
        return total / math.prod(layer.kernel_size)
    return total / _windows(np.pad(np.ones_like(x), pads), layer.kernel_size, layer.stride, (1,) * n).sum(axis=axes)


def adaptive_reference(layer, x):
    out = np.zeros((*x.shape[:-2], *layer.output_size))
    (h, w), (rows, columns) = x.shape[-2:], layer.output_size
    for i, j in np.ndindex(rows, columns):
        top, bottom = i * h // rows, math.ceil((i + 1) * h / rows)
        left, right = j * w // columns, math.ceil((j + 1) * w / columns)
        out[..., i, j] = x[..., top:bottom, left:right].mean(axis=(-2, -1))
    return out


def _standardized(x, axes, eps):
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + eps)


def layer_norm_reference(layer, x):
    out = _standardized(x, tuple(range(-len(layer.normalized_shape), 0)), layer.eps) * layer.weight
    return out if layer.bias is None else out + layer.bias


def group_norm_reference(layer, x):
    out = _standardized(x.reshape(len(x), layer.num_groups, -1), -1, layer.eps).reshape(x.shape)
    shape = (-1, *(1,) * (x.ndim - 2))
    return out * layer.weight.reshape(shape) + layer.bias.reshape(shape)


def batch_norm_reference(layer, x):
    shape = (1, -1, *(1,) * (x.ndim - 2))
    mean, var, weight, bias = (
        v.reshape(shape) for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / np.sqrt(var + layer.eps) * weight + bias


def mlp_reference(layer, x):
    for linear in layer.layers[:-1]:
        x = np.maximum(x @ linear.weight.T + linear.bias, 0)
    return x @ layer.layers[-1].weight.T + layer.layers[-1].bias


def _with_statistics(layer):
    """Running statistics, weight and bias that are not 0 and 1, so that a layer that ignores one is found out."""
    n = np.arange(layer.num_features, dtype=layer.weight.dtype)
    return layer.replace(running_mean=0.1 * n, running_var=1 + 0.2 * n, weight=1 - 0.3 * n, bias=0.5 * n)


def _with_affine(layer):
    n = np.arange(layer.weight.size, dtype=layer.weight.dtype).reshape(layer.weight.shape)
    return layer.replace(weight=1 - 0.3 * n, **({} if getattr(layer, "bias", None) is None else {"bias": 0.5 * n}))


def _recurrent(kind, key, dtype, **options):
    layer = kind(3, 4, batch_first=True, dtype=dtype, key=key, **options)
    return nn.Sequential(layer, nn.Lambda(sequences.first))


def _side_by_side(parts):
    return fnp.concatenate(parts, axis=-1)


R = LayerRecord


def _adapted(layer, key):
    """With an adapter of rank 2 whose arrays are all drawn."""
    model = nn.lora(layer, 2, 3.0, where="*", key=key)
    a, b = (
        random.normal(k, x.shape, x.dtype) for k, x in zip(random.split(key), (model.lora_a, model.lora_b), strict=True)
    )
    return model.replace(lora_a=a, lora_b=b)


def _two_linear(key, dtype):
    return nn.Sequential(*[nn.Linear(4, 4, dtype=dtype, key=k) for k in random.split(key)])


LAYERS = [
    R("linear", lambda k, d: nn.Linear(4, 3, dtype=d, key=k), (4,), lambda m, x: x @ m.weight.T + m.bias),
    R(
        "linear_without_bias",
        lambda k, d: nn.Linear(4, 3, bias=False, dtype=d, key=k),
        (4,),
        lambda m, x: x @ m.weight.T,
    ),
    R("conv1d", lambda k, d: nn.Conv1d(2, 3, 3, 2, 1, dtype=d, key=k), (2, 9), conv_reference),
    R("conv2d", lambda k, d: nn.Conv2d(2, 3, 3, dtype=d, key=k), (2, 6, 5), conv_reference),
    R(
        "conv2d_strided",
        lambda k, d: nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 0), bias=False, dtype=d, key=k),
        (2, 7, 6),
        conv_reference,
    ),
    R(
        "conv2d_dilated_groups",
        lambda k, d: nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, dtype=d, key=k),
        (4, 6, 6),
        conv_reference,
    ),
    R(
        "conv2d_depthwise_same",
        lambda k, d: nn.Conv2d(3, 3, 4, padding="same", groups=3, dtype=d, key=k),
        (3, 5, 5),
        conv_reference,
    ),
    R(
        "conv2d_reflect",
        lambda k, d: nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect", dtype=d, key=k),
        (1, 4, 5),
        conv_reference,
    ),
    R("conv3d", lambda k, d: nn.Conv3d(1, 2, 2, padding=1, dtype=d, key=k), (1, 3, 4, 3), conv_reference),
    R(
        "conv_transpose1d",
        lambda k, d: nn.ConvTranspose1d(2, 3, 4, 3, 1, output_padding=1, dtype=d, key=k),
        (2, 5),
        conv_transpose_reference,
    ),
    R(
        "conv_transpose2d",
        lambda k, d: nn.ConvTranspose2d(4, 2, 3, 2, 1, groups=2, dtype=d, key=k),
        (4, 3, 4),
        conv_transpose_reference,
    ),
    R("max_pool1d", lambda k, d: nn.MaxPool1d(2), (2, 7), max_pool_reference),
    R("max_pool2d", lambda k, d: nn.MaxPool2d(3, 2, 1), (2, 7, 6), max_pool_reference),
    R("avg_pool2d", lambda k, d: nn.AvgPool2d(2), (2, 6, 4), avg_pool_reference),
    R("avg_pool2d_padded", lambda k, d: nn.AvgPool2d(3, 2, 1), (2, 6, 7), avg_pool_reference),
    R(
        "avg_pool2d_without_padding_in_the_mean",
        lambda k, d: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        (2, 6, 7),
        avg_pool_reference,
    ),
    R("adaptive_avg_pool2d", lambda k, d: nn.AdaptiveAvgPool2d((3, 2)), (2, 7, 5), adaptive_reference),
    R("global_avg_pool2d", lambda k, d: nn.GlobalAvgPool2d(), (2, 3, 4), lambda m, x: x.mean(axis=(-2, -1))),
    R(
        "batch_norm1d",
        lambda k, d: _with_statistics(nn.BatchNorm1d(4, dtype=d)),
        (4,),
        batch_norm_reference,
        any_lead=False,
    ),
    R(
        "batch_norm2d",
        lambda k, d: _with_statistics(nn.BatchNorm2d(3, dtype=d)),
        (3, 4, 2),
        batch_norm_reference,
        any_lead=False,
    ),
    R("layer_norm", lambda k, d: _with_affine(nn.LayerNorm((3, 4), dtype=d)), (3, 4), layer_norm_reference),
    R(
        "rms_norm",
        lambda k, d: _with_affine(nn.RMSNorm(5, eps=1e-6, dtype=d)),
        (5,),
        lambda m, x: x / np.sqrt((x * x).mean(-1, keepdims=True) + m.eps) * m.weight,
    ),
    R("group_norm", lambda k, d: _with_affine(nn.GroupNorm(2, 4, dtype=d)), (4, 3, 2), group_norm_reference),
    R("dropout_in_inference", lambda k, d: nn.Dropout(0.5), (4,), lambda m, x: x),
    R("embedding", lambda k, d: nn.Embedding(7, 3, dtype=d, key=k), (4,), lambda m, x: m.weight[x], integers=7),
    R("mlp", lambda k, d: nn.MLP((4, 5, 6, 2), dtype=d, key=k), (4,), mlp_reference),
    R(
        "sequential",
        lambda k, d: nn.Sequential(nn.Linear(4, 3, dtype=d, key=k), nn.tanh, nn.Identity()),
        (4,),
        lambda m, x: np.tanh(x @ m[0].weight.T + m[0].bias),
    ),
    R(
        "residual",
        lambda k, d: nn.Residual(nn.Linear(4, 4, dtype=d, key=k)),
        (4,),
        lambda m, x: x + x @ m.layer.weight.T + m.layer.bias,
    ),
    R("flatten", lambda k, d: nn.Flatten(-2), (2, 3), lambda m, x: x.reshape(len(x), 6)),
    R("prelu", lambda k, d: nn.PReLU(4, axis=-1, dtype=d), (4,), lambda m, x: np.where(x > 0, x, m.weight * x)),
    R("rrelu_in_inference", lambda k, d: nn.RReLU(0.1, 0.3), (4,), lambda m, x: np.where(x > 0, x, 0.2 * x)),
    R("drop_path_in_inference", lambda k, d: nn.DropPath(0.5), (4,), lambda m, x: x),
    R("alpha_dropout_in_inference", lambda k, d: nn.AlphaDropout(0.5), (4,), lambda m, x: x),
    R(
        "einsum",
        lambda k, d: nn.Einsum("...nd,dhe->...nhe", (4, 2, 3), bias_shape=(2, 3), dtype=d, key=k),
        (5, 4),
        lambda m, x: np.tensordot(x, m.weight, 1) + m.bias,
    ),
    R(
        "embedding_bag",
        lambda k, d: nn.EmbeddingBag(7, 3, dtype=d, key=k),
        (4,),
        lambda m, x: m.embedding.weight[x].mean(axis=-2),
        integers=7,
    ),
    R(
        "parallel",
        lambda k, d: nn.Parallel(nn.Linear(4, 3, dtype=d, key=k), nn.Identity(), combine=_side_by_side),
        (4,),
        lambda m, x: np.concatenate([sequences.linear(m.layers[0], x), x], axis=-1),
    ),
    R(
        "adaptive_log_softmax",
        lambda k, d: nn.AdaptiveLogSoftmax(8, 9, (3, 6), div_value=2.0, dtype=d, key=k),
        (8,),
        sequences.adaptive_log_softmax,
    ),
    R("rnn", lambda k, d: _recurrent(nn.RNN, k, d), (5, 3), sequences.over_time(sequences.rnn_step)),
    R("lstm", lambda k, d: _recurrent(nn.LSTM, k, d), (5, 3), sequences.over_time(sequences.lstm_step)),
    R(
        "gru_both_ways",
        lambda k, d: _recurrent(nn.GRU, k, d, num_layers=2, bidirectional=True),
        (5, 3),
        sequences.over_time(sequences.gru_step),
    ),
    R("attention", lambda k, d: nn.MultiheadAttention(8, 2, dtype=d, key=k), (5, 8), sequences.attention),
    R(
        "attention_grouped",
        lambda k, d: nn.MultiheadAttention(8, 4, num_kv_heads=2, dtype=d, key=k),
        (5, 8),
        sequences.attention,
    ),
    R(
        "encoder_layer",
        lambda k, d: nn.TransformerEncoderLayer(8, 2, 12, dtype=d, key=k),
        (5, 8),
        sequences.encoder_layer,
    ),
    R(
        "encoder_layer_pre_norm",
        lambda k, d: nn.TransformerEncoderLayer(8, 2, 12, norm_first=True, dtype=d, key=k),
        (5, 8),
        sequences.encoder_layer,
    ),
    R("rotary", lambda k, d: nn.RotaryEmbedding(base=100.0), (5, 6), sequences.rotary),
    R(
        "instance_norm",
        lambda k, d: _with_affine(nn.InstanceNorm2d(3, affine=True, dtype=d)),
        (3, 4, 2),
        group_norm_reference,
    ),
    R("local_response_norm", lambda k, d: nn.LocalResponseNorm(3, 0.5), (4, 3, 2), sequences.local_response_norm),
    R("adaptive_max_pool2d", lambda k, d: nn.AdaptiveMaxPool2d((3, 2)), (2, 7, 5), sequences.adaptive_max_pool),
    R(
        "lp_pool1d",
        lambda k, d: nn.LPPool1d(2, 2),
        (2, 6),
        lambda m, x: np.sqrt((x * x).reshape(*x.shape[:-1], 3, 2).sum(-1)),
    ),
    R("unfold", lambda k, d: nn.Unfold((2, 3), padding=1, stride=2), (2, 6, 5), sequences.unfold),
    R("pixel_shuffle", lambda k, d: nn.PixelShuffle(2), (8, 3, 2), sequences.pixel_shuffle),
    R("unflatten", lambda k, d: nn.Unflatten(-1, (2, 3)), (6,), lambda m, x: x.reshape(-1, 2, 3)),
    R(
        "pad_reflect",
        lambda k, d: nn.Pad((1, 2), "reflect"),
        (2, 5),
        lambda m, x: np.pad(x, ((0, 0), (0, 0), (1, 2)), "reflect"),
    ),
    R(
        "upsample",
        lambda k, d: nn.Upsample(scale_factor=3.0),
        (2, 3, 2),
        lambda m, x: np.kron(x, np.ones((3, 3), x.dtype)),
    ),
    R(
        "leaky_relu_class",
        lambda k, d: nn.LeakyReLU(0.2),
        (4,),
        lambda m, x: np.where(x > 0, x, np.asarray(0.2, x.dtype) * x),
    ),
    R("dropout2d_in_inference", lambda k, d: nn.Dropout2d(0.5), (2, 3, 2), lambda m, x: x),
    R("lora_linear", lambda k, d: _adapted(nn.Linear(4, 3, dtype=d, key=k), k), (4,), wrappers.lora_linear),
    R(
        "lora_conv1d",
        lambda k, d: _adapted(nn.Conv1d(4, 6, 3, padding=1, groups=2, dtype=d, key=k), k),
        (4, 5),
        lambda m, x: conv_reference(m.layer.replace(weight=wrappers.lora_conv_weight(m)), x),
    ),
    R(
        "lora_embedding",
        lambda k, d: _adapted(nn.Embedding(7, 3, dtype=d, key=k), k),
        (4,),
        lambda m, x: (m.layer.weight + m.scaling * (m.lora_b @ m.lora_a).T)[x],
        integers=7,
    ),
    R(
        "weight_norm",
        lambda k, d: nn.WeightNorm(nn.Linear(4, 3, dtype=d, key=k)),
        (4,),
        lambda m, x: x @ (m.v * m.g / np.linalg.norm(m.v, axis=1, keepdims=True)).T + m.layer.bias,
    ),
    R(
        "spectral_norm_in_inference",
        lambda k, d: nn.SpectralNorm(nn.Linear(4, 3, dtype=d, key=k), key=k),
        (4,),
        lambda m, x: x @ (m.original / (m.u @ m.original @ m.v)).T + m.layer.bias,
    ),
    R(
        "stacked",
        lambda k, d: nn.Stacked([nn.Linear(4, 4, dtype=d, key=key) for key in random.split(k, 3)]),
        (4,),
        wrappers.stacked_linear,
    ),
    R(
        "tied",
        lambda k, d: nn.tie(_two_linear(k, d), ".layers[0].weight", ".layers[1].weight"),
        (4,),
        lambda m, x: (x @ m.layer[0].weight.T + m.layer[0].bias) @ m.layer[0].weight.T + m.layer[1].bias,
    ),
    R(
        "fractional_max_pool2d_in_inference",
        lambda k, d: nn.FractionalMaxPool2d((2, 1), output_size=(3, 2)),
        (2, 7, 5),
        wrappers.fractional_max_pool,
    ),
]

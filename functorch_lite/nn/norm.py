# SPDX-License-Identifier: MIT
"""Normalisation: y = (x - mean) / sqrt(variance + eps) * weight + bias, over different axes.

Variances are the biased ones; BatchNorm keeps the unbiased variance in its running statistics, and `momentum` is the
weight of the new value: PyTorch's conventions.

Sources: S. Ioffe, C. Szegedy, arXiv:1502.03167; J. Ba and others, arXiv:1607.06450; Y. Wu, K. He, arXiv:1803.08494;
B. Zhang, R. Sennrich, arXiv:1910.07467.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.core.dtypes import default_float
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.context import get_state, is_training, set_state
from functorch_lite.nn.islands import in_float32
from functorch_lite.nn.module import Array, Module, buffer


class _BatchNorm(Module):
    weight: Array | None
    bias: Array | None
    running_mean: Array | None = buffer()
    running_var: Array | None = buffer()
    num_features: int
    eps: float
    momentum: float
    axis_name: str | None
    channel_axes: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        *,
        affine: bool = True,
        track_running_stats: bool = True,
        axis_name: str | None = None,
        dtype: Any = None,
    ):
        shape, dtype = (num_features,), dtype or default_float()
        self.weight = fnp.ones(shape, dtype) if affine else None
        self.bias = fnp.zeros(shape, dtype) if affine else None
        self.running_mean = fnp.zeros(shape, dtype) if track_running_stats else None
        self.running_var = fnp.ones(shape, dtype) if track_running_stats else None
        self.num_features, self.eps, self.momentum, self.axis_name = num_features, eps, momentum, axis_name

    @in_float32
    def __call__(self, x: Array) -> Array:
        axis = self._channel_axis(x)
        shape = tuple(self.num_features if i == axis else 1 for i in range(x.ndim))
        if is_training() or self.running_mean is None:
            mean, variance, n = self._batch_statistics(x, tuple(i for i in range(x.ndim) if i != axis))
            if self.running_mean is not None:
                self._update(mean, variance, n)
        else:
            mean = lax.stop_gradient(get_state(self, "running_mean"))
            variance = lax.stop_gradient(get_state(self, "running_var"))
        scale = lax.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        out = (x - fnp.reshape(mean, shape)) * fnp.reshape(scale, shape)
        return out if self.bias is None else out + fnp.reshape(self.bias, shape)

    def _channel_axis(self, x: Array) -> int:
        """The channels of [n, c] are last, those of [n, c, *spatial] before the spatial axes."""
        axis = self.channel_axes[min(x.ndim, len(self.channel_axes)) - 1] + x.ndim if x.ndim else -1
        if axis < 0 or x.shape[axis] != self.num_features:
            raise ShapeError(f"{type(self).__name__}: expected {self.num_features} channels, got shape {x.shape}.")
        return axis

    def _batch_statistics(self, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, int]:
        n = math.prod(x.shape[i] for i in axes)
        mean = fnp.mean(x, axis=axes)
        if self.axis_name is None:
            return mean, fnp.var(x, axis=axes), n
        mean = lax.pmean(mean, self.axis_name)
        shape = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
        centred = x - fnp.reshape(mean, shape)
        variance = lax.pmean(fnp.mean(centred * centred, axis=axes), self.axis_name)
        return mean, variance, n * lax.axis_size(self.axis_name)

    def _update(self, mean: Array, variance: Array, n: int) -> None:
        if n < 2:
            raise ShapeError(
                f"{type(self).__name__}: training needs more than one value for each channel. Under vmap over examples "
                "give the layer `axis_name` and vmap the same axis_name."
            )
        m = self.momentum
        old_mean, old_var = get_state(self, "running_mean"), get_state(self, "running_var")
        new_mean = (1 - m) * old_mean + m * lax.stop_gradient(mean)
        new_var = (1 - m) * old_var + m * (n / (n - 1)) * lax.stop_gradient(variance)
        set_state(self, running_mean=new_mean.astype(old_mean.dtype), running_var=new_var.astype(old_var.dtype))


class BatchNorm1d(_BatchNorm):
    """Normalises each channel of x [n, channels] or [n, channels, length] over the rest; see `BatchNorm2d`."""

    channel_axes = (-1, -1, -2)


class BatchNorm2d(_BatchNorm):
    """Normalises each channel of x [n, channels, height, width] over the rest.

    In training (`nn.apply(..., training=True)`) by the statistics of the batch, which also go into the running ones;
    in inference by the running ones, which never get a gradient. momentum: weight of the new statistics.
    axis_name: a `vmap` axis whose examples belong to the batch too.
    """

    channel_axes = (-1, -2, -3)


class BatchNorm3d(_BatchNorm):
    """Normalises each channel of x [n, channels, depth, height, width] over the rest; see `BatchNorm2d`."""

    channel_axes = (-1, -2, -3, -4)


class LayerNorm(Module):
    """Normalises x [..., *normalized_shape] over its last axes; weight and bias start at 1 and 0."""

    weight: Array | None
    bias: Array | None
    normalized_shape: tuple[int, ...]
    eps: float

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        *,
        affine: bool = True,
        bias: bool = True,
        dtype: Any = None,
    ):
        shape, dtype = _as_shape(normalized_shape), dtype or default_float()
        self.weight = fnp.ones(shape, dtype) if affine else None
        self.bias = fnp.zeros(shape, dtype) if affine and bias else None
        self.normalized_shape, self.eps = shape, eps

    @in_float32
    def __call__(self, x: Array) -> Array:
        axes = _last_axes("LayerNorm", x, self.normalized_shape)
        centred = x - fnp.mean(x, axis=axes, keepdims=True)
        variance = fnp.mean(centred * centred, axis=axes, keepdims=True)
        return _affine(centred * lax.rsqrt(variance + self.eps), self.weight, self.bias)


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axes of x [..., *normalized_shape].

    eps None is the dtype's machine epsilon, as in PyTorch.
    """

    weight: Array | None
    normalized_shape: tuple[int, ...]
    eps: float | None

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None, *, affine: bool = True, dtype: Any = None
    ):
        shape = _as_shape(normalized_shape)
        self.weight = fnp.ones(shape, dtype or default_float()) if affine else None
        self.normalized_shape, self.eps = shape, eps

    @in_float32
    def __call__(self, x: Array) -> Array:
        axes = _last_axes("RMSNorm", x, self.normalized_shape)
        eps = float(fnp.finfo(x.dtype).eps) if self.eps is None else self.eps
        mean_square = fnp.mean(x * x, axis=axes, keepdims=True)
        return _affine(x * lax.rsqrt(mean_square + eps), self.weight, None)


class GroupNorm(Module):
    """Normalises groups of channels of x [..., channels, *spatial], each example and group by itself.

    n_spatial: how many axes follow the channels (2 for images), so that one example and a batch are told apart.
    With num_groups = num_channels and affine=False this is instance normalisation.
    """

    weight: Array | None
    bias: Array | None
    num_groups: int
    num_channels: int
    eps: float
    n_spatial: int

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        *,
        affine: bool = True,
        n_spatial: int = 2,
        dtype: Any = None,
    ):
        if num_channels % num_groups:
            raise ArgumentError(f"GroupNorm: {num_groups} groups do not divide {num_channels} channels.")
        dtype = dtype or default_float()
        self.weight = fnp.ones((num_channels,), dtype) if affine else None
        self.bias = fnp.zeros((num_channels,), dtype) if affine else None
        self.num_groups, self.num_channels, self.eps, self.n_spatial = num_groups, num_channels, eps, n_spatial

    @in_float32
    def __call__(self, x: Array) -> Array:
        n = self.n_spatial
        axis = x.ndim - n - 1
        if axis < 0 or x.shape[axis] != self.num_channels:
            raise ShapeError(
                f"GroupNorm: expected [..., {self.num_channels}] and {n} spatial axes, got shape {x.shape}. "
                "`n_spatial` says how many axes follow the channels."
            )
        groups = self.num_groups, self.num_channels // self.num_groups  # channels apart: one kernel for what follows
        grouped = fnp.reshape(x, (*x.shape[:axis], *groups, math.prod(x.shape[axis + 1 :])))
        centred = grouped - fnp.mean(grouped, axis=(-2, -1), keepdims=True)
        variance = fnp.mean(centred * centred, axis=(-2, -1), keepdims=True)
        weight, bias = (p if p is None else fnp.reshape(p, (*groups, 1)) for p in (self.weight, self.bias))
        return fnp.reshape(_affine(centred * lax.rsqrt(variance + self.eps), weight, bias), x.shape)


def _as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _last_axes(name: str, x: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    if x.shape[x.ndim - len(shape) :] != shape or x.ndim < len(shape):
        raise ShapeError(f"{name}: expected [..., {', '.join(map(str, shape))}], got {x.shape}.")
    return tuple(range(x.ndim - len(shape), x.ndim))


def _affine(x: Array, weight: Array | None, bias: Array | None) -> Array:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias

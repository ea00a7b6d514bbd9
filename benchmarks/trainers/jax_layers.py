# SPDX-License-Identifier: MIT
"""Layers as functions of dicts of parameters, as JAX's users write them; images are [batch, channels, h, w]."""

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
_LAYOUT = ("NCHW", "OIHW", "NCHW")


def dense(p: dict[str, Array], x: Array) -> Array:
    """x [..., n_in] -> [..., n_out]."""
    return x @ p["w"] + p["b"]


def conv(p: dict[str, Array], x: Array, stride: int = 1, padding: int = 1) -> Array:
    """A convolution, with a bias if `p` has one."""
    out = lax.conv_general_dilated(x, p["w"], (stride,) * 2, [(padding,) * 2] * 2, dimension_numbers=_LAYOUT)
    return out + p["b"][:, None, None] if "b" in p else out


def conv_transpose(p: dict[str, Array], x: Array) -> Array:
    """Twice the size, by filters [n_out, n_in, 4, 4]: PyTorch's ConvTranspose2d(n_in, n_out, 4, 2, 1)."""
    pairs = [(2, 2), (2, 2)]
    out = lax.conv_general_dilated(x, p["w"], (1, 1), pairs, lhs_dilation=(2, 2), dimension_numbers=_LAYOUT)
    return out + p["b"][:, None, None]


def max_pool(x: Array) -> Array:
    """Half the size."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def batch_norm(p: dict[str, Array], running: dict[str, Array], x: Array) -> tuple[Array, dict[str, Array]]:
    """x normalised by the batch, and the new running statistics."""
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    n = x.size // x.shape[1]
    new = {"mean": 0.9 * running["mean"] + 0.1 * mean, "var": 0.9 * running["var"] + 0.1 * n / (n - 1) * variance}
    scale = p["w"] * lax.rsqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + p["b"][:, None, None], new


def group_norm(p: dict[str, Array], x: Array, groups: int = 8) -> Array:
    """x with each group of channels of each image normalised."""
    parts = x.reshape(len(x), groups, -1)
    parts = (parts - parts.mean(-1, keepdims=True)) * lax.rsqrt(parts.var(-1, keepdims=True) + 1e-5)
    return parts.reshape(x.shape) * p["w"][:, None, None] + p["b"][:, None, None]

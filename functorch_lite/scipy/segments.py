# SPDX-License-Identifier: MIT
"""Signals cut into segments that overlap, and segments added up to a signal: each the transpose of the other."""

from typing import Any

import numpy as np

from functorch_lite import numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.numpy import ops as e

MOST_BLOCKS = 16
"""The largest number of steps in a segment for which segments are put together from slices, not looked up."""


def _places(count, size, step):
    """The numbers [count, size] of the samples of each segment."""
    return constant(np.arange(count)[:, None] * step + np.arange(size))


def segments(x: Any, size: int, step: int) -> Any:
    """The windows [..., count, size] of x [..., n], `step` apart."""
    count, blocks = (x.shape[-1] - size) // step + 1, -(-size // step)
    if blocks > MOST_BLOCKS:
        return x[..., _places(count, size, step)]
    rows = count + blocks - 1
    x = filled(x, rows * step - x.shape[-1])
    x = e.reshape(x, (*x.shape[:-1], rows, step))
    parts = [e.slice_in_axis(x, i, i + count, len(x.shape) - 2) for i in range(blocks)]
    return fnp.concatenate(parts, axis=-1)[..., :size]


def filled(x: Any, after: int, before: int = 0) -> Any:
    """x with zeros along the last axis; a negative number takes elements away."""
    config = (*((0, 0, 0),) * (len(x.shape) - 1), (before, after, 0))
    return e.pad(x, x.dtype.type(0), config) if before or after else x


def overlapped(parts: Any, step: int) -> Any:
    """The sum [..., n] of `parts` [..., count, size] laid `step` apart: the transpose of `segments`."""
    *lead, count, size = parts.shape
    n, blocks = size + (count - 1) * step, -(-size // step)
    if blocks > MOST_BLOCKS:
        return fnp.at(fnp.zeros((*lead, n), parts.dtype))[..., _places(count, size, step)].add(parts)
    parts = filled(parts, blocks * step - size)
    total = None
    for i in range(blocks):
        block = parts[..., i * step : (i + 1) * step]
        lead_config = ((0, 0, 0),) * len(lead)
        block = e.pad(block, block.dtype.type(0), (*lead_config, (i, blocks - 1 - i, 0), (0, 0, 0)))
        total = block if total is None else e.add(total, block)
    return e.reshape(total, (*lead, (count + blocks - 1) * step))[..., :n]

# SPDX-License-Identifier: MIT
"""Batches whose images and labels are mixed among themselves."""

from typing import Any

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import nn, random
from functorch_lite.backends.registry import constant
from functorch_lite.data.transforms.checks import Array, is_integer
from functorch_lite.errors import ArgumentError, DTypeError, ShapeError


def one_hot(labels: Array, n_classes: int, *, smoothing: float = 0.0, dtype: Any = np.float32) -> Array:
    """Labels [...] as probabilities [..., n_classes]: 1 - smoothing at the label, and smoothing / n_classes everywhere.

    >>> one_hot(np.array([1]), 2, smoothing=0.5)
    array([[0.25, 0.75]], dtype=float32)
    """
    hot = nn.one_hot(labels.astype(np.int32), n_classes, dtype)
    return hot if smoothing == 0.0 else hot * (1 - smoothing) + smoothing / n_classes


def mixup(key: Array, images: Array, labels: Array, alpha: float = 0.2) -> tuple[Array, Array]:
    """Each of `images` [n, ...] mixed with another one, with the same share for all, and likewise `labels`.

    images: floats; labels: probabilities [n, classes], see `one_hot`. The share is drawn from Beta(alpha, alpha).

    Raises DTypeError for integers, ShapeError for labels that are not [n, classes].

    Source: H. Zhang and others, "mixup: beyond empirical risk minimization", arXiv:1710.09412.
    """
    _check_batch("mixup", images, labels, alpha)
    if is_integer(images):
        raise DTypeError(f"mixup: `images` should be floats, but are {images.dtype}. Use to_float(images) first.")
    key_share, key_order = random.split(key)
    share = random.beta(key_share, alpha, alpha, (), np.float32)
    order = random.permutation(key_order, len(images))
    return _mixed(images, order, share.astype(images.dtype)), _mixed(labels, order, share.astype(labels.dtype))


def cutmix(key: Array, images: Array, labels: Array, alpha: float = 1.0) -> tuple[Array, Array]:
    """Each of `images` [n, ..., h, w] with a box, the same for all, from another one; `labels` mixed by its area.

    labels: probabilities [n, classes], see `one_hot`. The area left is drawn from Beta(alpha, alpha), the middle of the
    box is anywhere in the image, and what lies outside is cut off.

    Raises ShapeError for labels that are not [n, classes].

    Source: S. Yun and others, "CutMix", arXiv:1905.04899.
    """
    _check_batch("cutmix", images, labels, alpha)
    if images.ndim < 3:
        raise ShapeError(f"cutmix: `images` should be [n, ..., height, width], but have shape {images.shape}.")
    h, w = images.shape[-2:]
    key_share, key_place, key_order = random.split(key, 3)
    side = fnp.sqrt(1 - random.beta(key_share, alpha, alpha, (), np.float32))
    place = random.uniform(key_place, (2,), np.float32)
    rows, columns = _interval(place[0], side, h, key), _interval(place[1], side, w, key)
    is_other = rows[:, None] & columns[None, :]
    order = random.permutation(key_order, len(images))
    share = 1 - is_other.astype(np.float32).mean()
    return fnp.where(is_other, images[order], images), _mixed(labels, order, share.astype(labels.dtype))


def _mixed(x: Array, order: Array, share: Array) -> Array:
    return x * share + x[order] * (1 - share)


def _interval(place: Array, side: Array, n: int, key: Array) -> Array:
    """Which of n pixels are in the interval of length `side * n` around `place * n`."""
    middle, half = fnp.floor(place * n), fnp.floor(side * n) / 2
    pixels = constant(np.arange(n, dtype=np.float32) + np.float32(0.5), key)
    return fnp.abs(pixels - middle) <= half


def _check_batch(function: str, images: Array, labels: Array, alpha: float) -> None:
    if alpha <= 0:
        raise ArgumentError(f"{function}: `alpha` should be above 0, but is {alpha}.")
    if labels.ndim != 2 or is_integer(labels) or images.shape[:1] != labels.shape[:1]:
        raise ShapeError(
            f"{function}: `labels` should be floats [{len(images)}, classes], but are {labels.dtype}{labels.shape}. "
            "Use one_hot(labels, n_classes)."
        )

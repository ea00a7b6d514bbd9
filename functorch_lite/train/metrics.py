# SPDX-License-Identifier: MIT
"""Figures of merit of a classifier."""

from typing import Any

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.errors import ShapeError


def accuracy(logits: Any, labels: Any) -> Any:
    """The share of examples whose largest logit is at the label, float32 []: logits [..., n_classes], labels [...].

    Raises ShapeError when the shapes do not fit.

    >>> float(accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])))
    0.5
    """
    if logits.shape[:-1] != labels.shape:
        raise ShapeError(f"accuracy: logits {logits.shape} need labels {logits.shape[:-1]}, got {labels.shape}.")
    return fnp.mean((fnp.argmax(logits, axis=-1) == labels).astype(fnp.float32))


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """How often a label (row) was taken for a class (column): int64 [n_classes, n_classes], from integers [n].

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
    array([[1, 1],
           [0, 1]])
    """
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts

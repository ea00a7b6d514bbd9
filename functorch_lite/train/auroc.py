# SPDX-License-Identifier: MIT
"""The area under the receiver operating characteristic, exactly, by ranks.

    AUROC = (sum of the ranks of the positives - n_pos (n_pos + 1) / 2) / (n_pos n_neg)

the share of pairs (positive, negative) in which the positive has the larger score; equal scores count half, since they
share the mean of their ranks.

Source: J. Hanley, B. McNeil, "The meaning and use of the area under a ROC curve", Radiology 143 (1982); several classes
one against the rest, as scikit-learn's `roc_auc_score(multi_class="ovr", average="macro")`.
"""

from typing import Any, Self

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import nn
from functorch_lite.errors import ShapeError
from functorch_lite.train.metrics import Metric
from functorch_lite.transforms.arguments import on_its_device


@on_its_device
def auroc(scores: Any, labels: Any) -> Any:
    """The area under the ROC curve, float64: scores [n] of class 1 and labels [n] in {0, 1}, or scores [n, n_classes]
    and integer labels [n], for which it is the mean over the classes, each against the rest.

    NaN when a class has no positive or no negative example. Works under `jit`.

    Raises ShapeError when the shapes do not fit.

    >>> float(auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])))
    0.75
    """
    if labels.ndim != 1 or scores.shape[:1] != labels.shape or scores.ndim > 2:
        raise ShapeError(f"auroc: scores [n] or [n, n_classes] and labels [n], got {scores.shape} and {labels.shape}.")
    if scores.ndim == 1:
        return _area(scores, labels == 1)
    areas = [_area(scores[:, c], labels == c) for c in range(scores.shape[1])]
    return fnp.mean(fnp.stack(areas))


def _area(scores: Any, positive: Any) -> Any:
    positive = fnp.asarray(positive, dtype=fnp.float64)
    n_positive = fnp.sum(positive)
    n_negative = float(positive.size) - n_positive
    pairs = n_positive * n_negative
    above = fnp.sum(_ranks(scores) * positive) - n_positive * (n_positive + 1.0) / 2.0
    return fnp.where(pairs == 0.0, fnp.nan, above / fnp.where(pairs == 0.0, 1.0, pairs))


def _ranks(scores: Any) -> Any:
    """The rank of each score from 1, equal scores sharing the mean of theirs: float64 [n]."""
    ordered = fnp.sort(scores)
    below = fnp.searchsorted(ordered, scores, side="left")
    up_to = fnp.searchsorted(ordered, scores, side="right")
    return (fnp.asarray(below + up_to, dtype=fnp.float64) + 1.0) / 2.0


class AUROC(Metric):
    """The exact area under the ROC curve. It keeps all scores, so its size grows with the data.

    scores: [n] or [n, n_classes]; labels: integers [n]. Merging concatenates, so it cannot be the carry of a `scan`:
    let the body return `AUROC.of(...)` among its outputs, and call `merged()` on the stacked metric.

    >>> first = AUROC.of(np.array([0.1, 0.4]), np.array([0, 0]))
    >>> float(first.update(np.array([0.35, 0.8]), np.array([1, 1])).compute())
    0.75
    """

    scores: nn.Array
    labels: nn.Array
    n_classes: int

    @classmethod
    def empty(cls, n_classes: int = 1, dtype: Any = np.float32) -> Self:
        """Nothing yet; n_classes is 1 for scores of class 1 alone."""
        shape = (0,) if n_classes == 1 else (0, n_classes)
        return cls(fnp.zeros(shape, dtype), fnp.zeros((0,), fnp.int64), n_classes)

    @classmethod
    @on_its_device
    def of(cls, scores: Any, labels: Any) -> Self:
        """Of scores [n] of class 1 and labels [n] in {0, 1}, or scores [n, n_classes] and integer labels [n]."""
        if labels.ndim != 1 or scores.shape[:1] != labels.shape or scores.ndim > 2:
            raise ShapeError(f"AUROC: scores [n] or [n, n_classes] and labels [n], got {scores.shape}, {labels.shape}.")
        return cls(scores, fnp.asarray(labels, dtype=fnp.int64), 1 if scores.ndim == 1 else scores.shape[1])

    def update(self, scores: Any, labels: Any) -> Self:
        """With another batch."""
        return self.merge(self.of(scores, labels))

    def merge(self, other: Self) -> Self:
        return self.replace(
            scores=fnp.concatenate([self.scores, other.scores]), labels=fnp.concatenate([self.labels, other.labels])
        )

    def merged(self) -> Self:
        rows = (-1,) if self.n_classes == 1 else (-1, self.n_classes)
        return self.replace(scores=self.scores.reshape(rows), labels=self.labels.reshape(-1))

    @on_its_device
    def compute(self) -> Any:
        return auroc(self.scores, self.labels)

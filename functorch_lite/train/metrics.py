# SPDX-License-Identifier: MIT
"""Figures of merit as pytrees: made of one batch, merged over batches, computed at the end.

    counted = Accuracy.of(logits, labels)                      # inside a jitted step, a vmap, a scan ...
    so_far = so_far.merge(counted)      or      so_far.update(logits, labels)
    so_far.compute()

They hold counts and sums, so what is merged over batches is what the whole data set gives at once, with a shorter last
batch, too. `fit` and `evaluate` merge the metric objects that a step returns.
"""

from abc import abstractmethod
from typing import Any, Self

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import nn, tree
from functorch_lite.backends.registry import is_scalar
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.transforms.arguments import on_its_device

_AVERAGES = ("macro", "micro", "weighted", "binary")


@on_its_device
def accuracy(logits: Any, labels: Any) -> Any:
    """The share of examples whose largest logit is at the label, float32 []: logits [..., n_classes], labels [...].

    Raises ShapeError when the shapes do not fit.

    >>> float(accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])))
    0.5
    """
    _check_labels("accuracy", logits, labels)
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


class Metric(nn.Module):
    """Base of metric objects: sums that are added when two are merged. A subclass defines `of` and `compute`."""

    def merge(self, other: Self) -> Self:
        """The metric over the data of both."""
        return tree.map(lambda a, b: a + b, self, other)

    def merged(self) -> Self:
        """Of a metric whose leaves `scan` or `vmap` has stacked along axis 0: the merge of them all."""
        return tree.map(lambda leaf: fnp.sum(leaf, axis=0), self)

    @abstractmethod
    def compute(self) -> Any:
        """The figure, float64; NaN where there is no data yet."""


class Mean(Metric):
    """A weighted mean. sum, weight: float64 [].

    >>> float(Mean.of(np.array([1.0, 2.0])).merge(Mean.of(6.0)).compute())
    3.0
    """

    sum: nn.Array
    weight: nn.Array

    @classmethod
    def empty(cls) -> Self:
        """Nothing yet."""
        return cls(_zeros(()), _zeros(()))

    @classmethod
    @on_its_device
    def of(cls, values: Any, weights: Any = None) -> Self:
        """Of values [...], each with a weight [...], 1 by default."""
        values = _float(values)
        weights = fnp.ones_like(values) if weights is None else fnp.broadcast_to(_float(weights), values.shape)
        return cls(fnp.sum(values * weights), fnp.sum(weights))

    def update(self, values: Any, weights: Any = None) -> Self:
        """With more values."""
        return self.merge(self.of(values, weights))

    @on_its_device
    def compute(self) -> Any:
        return _ratio(self.sum, self.weight)


class TopK(Metric):
    """The share of examples whose label is among the k classes of the largest logits; of equal logits the first counts
    as the largest. correct, total: int64 [].

    >>> float(TopK.of(np.array([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1]]), np.array([2, 2]), k=2).compute())
    0.5
    """

    correct: nn.Array
    total: nn.Array
    k: int

    @classmethod
    def empty(cls, k: int) -> Self:
        """Nothing yet."""
        return cls(_zeros((), fnp.int64), _zeros((), fnp.int64), k)

    @classmethod
    @on_its_device
    def of(cls, logits: Any, labels: Any, *, k: int) -> Self:
        """Of logits [..., n_classes] and integer labels [...]. Raises ShapeError when the shapes do not fit."""
        _check_labels(cls.__name__, logits, labels)
        n = logits.shape[-1]
        if not 1 <= k <= n:
            raise ArgumentError(f"{cls.__name__}: `k` should be in 1..{n}, the number of classes, but is {k}.")
        own = fnp.take_along_axis(logits, labels[..., None], axis=-1)
        earlier = (logits == own) & (fnp.arange(n) < labels[..., None])
        rank = fnp.sum((logits > own) | earlier | (own != own), axis=-1)
        return cls(_count(rank < k), _filled(labels.size), k)

    def update(self, logits: Any, labels: Any) -> Self:
        """With another batch."""
        return self.merge(self.of(logits, labels, k=self.k))

    @on_its_device
    def compute(self) -> Any:
        return _ratio(self.correct, self.total)


class Accuracy(Metric):
    """The share of examples whose largest logit is at the label. correct, total: int64 [].

    >>> float(Accuracy.of(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])).compute())
    0.5
    """

    correct: nn.Array
    total: nn.Array

    @classmethod
    def empty(cls) -> Self:
        """Nothing yet."""
        return cls(_zeros((), fnp.int64), _zeros((), fnp.int64))

    @classmethod
    @on_its_device
    def of(cls, logits: Any, labels: Any, mask: Any = None) -> Self:
        """Of logits [..., n_classes] or integer predictions [...], and integer labels [...]; only where `mask` [...] is
        true. Raises ShapeError when the shapes do not fit."""
        right = _classes(cls.__name__, logits, labels) == labels
        if mask is None:
            return cls(_count(right), _filled(labels.size))
        return cls(_count(right & mask), _count(fnp.broadcast_to(mask, labels.shape)))

    def update(self, logits: Any, labels: Any, mask: Any = None) -> Self:
        """With another batch."""
        return self.merge(self.of(logits, labels, mask))

    @on_its_device
    def compute(self) -> Any:
        return _ratio(self.correct, self.total)


class ConfusionMatrix(Metric):
    """How often each label (row) was taken for each class (column). counts: int64 [n_classes, n_classes].

    >>> ConfusionMatrix.of(np.array([0, 1, 1]), np.array([0, 1, 0]), n_classes=2).compute()
    array([[1, 1],
           [0, 1]])
    """

    counts: nn.Array

    @classmethod
    def empty(cls, n_classes: int) -> Self:
        """Nothing yet."""
        return cls(_zeros((n_classes, n_classes), fnp.int64))

    @classmethod
    @on_its_device
    def of(cls, logits: Any, labels: Any, *, n_classes: int) -> Self:
        """Of logits [..., n_classes] or integer predictions [...], and integer labels [...].

        Raises ShapeError when the shapes do not fit.
        """
        predictions = _classes(cls.__name__, logits, labels)
        places = (labels.astype(fnp.int64) * n_classes + predictions.astype(fnp.int64)).reshape(-1)
        flat = fnp.zeros((n_classes * n_classes,), fnp.int64)
        return cls(fnp.at(flat)[places].add(fnp.ones_like(places)).reshape(n_classes, n_classes))

    def update(self, logits: Any, labels: Any) -> Self:
        """With another batch."""
        return self.merge(self.of(logits, labels, n_classes=self.counts.shape[0]))

    @on_its_device
    def compute(self) -> Any:
        """The counts, int64 [n_classes, n_classes]."""
        return self.counts


class F1(Metric):
    """The harmonic mean of precision and recall.

    average: "macro", the mean over the classes that occur, as label or prediction; "weighted", weighted with how often
    a class is the label; "micro", of all counts together; "binary", of class 1 alone. A class without a true positive
    has 0. right, predicted, labelled: int64 [n_classes].

    >>> float(F1.of(np.array([0, 1, 1]), np.array([0, 1, 0]), n_classes=2, average="binary").compute())
    0.6666666666666666
    """

    right: nn.Array
    predicted: nn.Array
    labelled: nn.Array
    average: str

    @classmethod
    def empty(cls, n_classes: int, *, average: str = "macro") -> Self:
        """Nothing yet. Raises ArgumentError for another average."""
        _check_average(average, n_classes)
        zeros = _zeros((n_classes,), fnp.int64)
        return cls(zeros, zeros, zeros, average)

    @classmethod
    @on_its_device
    def of(cls, logits: Any, labels: Any, *, n_classes: int, average: str = "macro") -> Self:
        """Of logits [..., n_classes] or integer predictions [...], and integer labels [...].

        Raises ShapeError when the shapes do not fit, ArgumentError for another average.
        """
        _check_average(average, n_classes)
        counts = ConfusionMatrix.of(logits, labels, n_classes=n_classes).counts
        return cls(fnp.diagonal(counts), fnp.sum(counts, axis=0), fnp.sum(counts, axis=1), average)

    def update(self, logits: Any, labels: Any) -> Self:
        """With another batch."""
        return self.merge(self.of(logits, labels, n_classes=self.right.shape[0], average=self.average))

    @on_its_device
    def compute(self) -> Any:
        if self.average == "micro":
            return _ratio(2 * fnp.sum(self.right), fnp.sum(self.predicted) + fnp.sum(self.labelled))
        both = self.predicted + self.labelled
        each = fnp.where(both > 0, _ratio(2 * self.right, fnp.maximum(both, 1)), 0.0)
        if self.average == "binary":
            return each[1]
        weights = _float(self.labelled if self.average == "weighted" else both > 0)
        return _ratio(fnp.sum(each * weights), fnp.sum(weights))


class Perplexity(Metric):
    """exp of the mean negative log-likelihood of the labels. sum: in nats, float64 []; count: float64 [].

    >>> float(Perplexity.of(np.zeros((5, 4)), np.array([0, 1, 2, 3, 0])).compute())
    4.0
    """

    sum: nn.Array
    count: nn.Array

    @classmethod
    def empty(cls) -> Self:
        """Nothing yet."""
        return cls(_zeros(()), _zeros(()))

    @classmethod
    @on_its_device
    def of(cls, logits: Any, labels: Any, mask: Any = None) -> Self:
        """Of logits [..., n_classes] and integer labels [...]; only where `mask` [...] is true.

        Raises ShapeError when the shapes do not fit.
        """
        _check_labels(cls.__name__, logits, labels)
        likelihood = fnp.take_along_axis(nn.log_softmax(_float(logits)), labels[..., None], axis=-1)[..., 0]
        if mask is None:
            return cls(-fnp.sum(likelihood), _float(labels.size))
        return cls(-fnp.sum(fnp.where(mask, likelihood, 0.0)), fnp.sum(_float(fnp.broadcast_to(mask, labels.shape))))

    @classmethod
    @on_its_device
    def of_loss(cls, loss: Any, count: Any = 1.0) -> Self:
        """Of a mean loss in nats over `count` tokens."""
        return cls(_float(loss) * _float(count), _float(count))

    def update(self, logits: Any, labels: Any, mask: Any = None) -> Self:
        """With another batch."""
        return self.merge(self.of(logits, labels, mask))

    @on_its_device
    def compute(self) -> Any:
        return fnp.exp(_ratio(self.sum, self.count))


# --- helpers ----------------------------------------------------------------------------------------------------------


def _zeros(shape: tuple[int, ...], dtype: Any = fnp.float64) -> Any:
    return fnp.zeros(shape, dtype)


def _float(values: Any) -> Any:
    return _filled(values, fnp.float64) if is_scalar(values) else fnp.asarray(values, dtype=fnp.float64)


def _filled(number: Any, dtype: Any = fnp.int64) -> Any:
    """A number as an array [] where the others are; `asarray` would make it NumPy's."""
    return fnp.full((), number, dtype)


def _count(truths: Any) -> Any:
    return fnp.sum(fnp.asarray(truths, dtype=fnp.int64))


def _ratio(above: Any, below: Any) -> Any:
    """above / below, NaN where below is 0."""
    below = _float(below)
    return fnp.where(below == 0.0, fnp.nan, _float(above) / fnp.where(below == 0.0, 1.0, below))


def _check_average(average: str, n_classes: int) -> None:
    if average not in _AVERAGES:
        raise ArgumentError(f"F1: `average` should be one of {', '.join(_AVERAGES)}, but is {average!r}.")
    if average == "binary" and n_classes != 2:
        raise ArgumentError(f"F1: the average 'binary' needs n_classes=2, got {n_classes}.")


def _check_labels(name: str, logits: Any, labels: Any) -> None:
    if logits.shape[:-1] != labels.shape:
        raise ShapeError(f"{name}: logits {logits.shape} need labels {logits.shape[:-1]}, got {labels.shape}.")


def _classes(name: str, logits: Any, labels: Any) -> Any:
    """Predicted classes [...]: `logits` themselves if they are such, else where the largest of the last axis is."""
    if logits.shape == labels.shape and np.dtype(logits.dtype).kind in "iu":
        return logits
    _check_labels(name, logits, labels)
    return fnp.argmax(logits, axis=-1)

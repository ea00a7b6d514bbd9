# SPDX-License-Identifier: MIT
import warnings

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax, train
from functorch_lite.errors import ArgumentError, ShapeError

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="the reference is scikit-learn")
N, C = 257, 5


def drawn(seed=0, ties=False):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, C)).astype(np.float32)
    if ties:
        logits = np.round(logits)
    return logits, rng.integers(C, size=N)


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected_area(scores, labels):
    return sklearn_metrics.roc_auc_score(labels, scores)


# name: (of, the reference), both functions of logits and labels
METRICS = {
    "mean": (lambda x, y: train.Mean.of(x[:, 0], y), lambda x, y: np.average(x[:, 0].astype(np.float64), weights=y)),
    "accuracy": (train.Accuracy.of, lambda x, y: sklearn_metrics.accuracy_score(y, x.argmax(-1))),
    "top 2": (
        lambda x, y: train.TopK.of(x, y, k=2),
        lambda x, y: sklearn_metrics.top_k_accuracy_score(y, x, k=2, labels=range(C)),
    ),
    "confusion": (
        lambda x, y: train.ConfusionMatrix.of(x, y, n_classes=C),
        lambda x, y: sklearn_metrics.confusion_matrix(y, x.argmax(-1), labels=range(C)),
    ),
    "perplexity": (
        train.Perplexity.of,
        lambda x, y: np.exp(sklearn_metrics.log_loss(y, softmax(x), labels=range(C))),
    ),
    "area": (
        lambda x, y: train.AUROC.of(x[:, 1], (y > 2).astype(np.int64)),
        lambda x, y: expected_area(x[:, 1], y > 2),
    ),
    "area of classes": (
        train.AUROC.of,
        lambda x, y: np.mean([expected_area(x[:, c], y == c) for c in range(C)]),
    ),
    "binary F1": (
        lambda x, y: train.F1.of(x[:, :2], y % 2, n_classes=2, average="binary"),
        lambda x, y: sklearn_metrics.f1_score(y % 2, x[:, :2].argmax(-1)),
    ),
} | {
    f"{average} F1": (
        lambda x, y, average=average: train.F1.of(x, y, n_classes=C, average=average),
        lambda x, y, average=average: sklearn_metrics.f1_score(y, x.argmax(-1), average=average),
    )
    for average in ("macro", "micro", "weighted")
}


@pytest.mark.parametrize("name", METRICS)
def test_it_is_scikit_learns(name):
    of, expected = METRICS[name]
    for seed in range(3):
        found = of(*drawn(seed)).compute()
        np.testing.assert_allclose(found, expected(*drawn(seed)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["area", "area of classes"])
def test_ties_count_half(name):
    of, expected = METRICS[name]
    logits, labels = drawn(1, ties=True)
    np.testing.assert_allclose(of(logits, labels).compute(), expected(logits, labels), rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_merged_over_unequal_batches_it_is_the_same(name):
    of, expected = METRICS[name]
    logits, labels = drawn()
    cuts = [0, 100, 101, 200, N]
    parts = [of(logits[a:b], labels[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    so_far = parts[0]
    for part in parts[1:]:
        so_far = so_far.merge(part)
    np.testing.assert_allclose(so_far.compute(), expected(logits, labels), rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_it_works_under_jit(name):
    of, _ = METRICS[name]
    logits, labels = drawn()
    eager = of(logits, labels)
    jitted = fl.jit(of)(logits, labels)
    assert type(jitted) is type(eager) and fl.tree.structure(jitted) == fl.tree.structure(eager)
    for a, b in zip(fl.tree.leaves(jitted), fl.tree.leaves(eager), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(fl.jit(lambda m: m.compute())(jitted), eager.compute(), rtol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_stacked_by_a_scan_it_is_merged(name):
    of, expected = METRICS[name]
    logits, labels = drawn()
    parts = (logits[:250].reshape(10, 25, C), labels[:250].reshape(10, 25))
    stacked = fl.jit(lambda parts: lax.scan(lambda carry, part: (carry, of(*part)), 0, parts)[1])(parts)
    np.testing.assert_allclose(stacked.merged().compute(), expected(logits[:250], labels[:250]), rtol=1e-6)


@pytest.mark.parametrize(
    "empty",
    [
        train.Accuracy.empty(),
        train.TopK.empty(2),
        train.ConfusionMatrix.empty(C),
        train.F1.empty(C),
        train.Perplexity.empty(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_as_the_carry_of_a_scan_it_is_updated(empty):
    logits, labels = drawn()
    parts = (logits[:250].reshape(10, 25, C), labels[:250].reshape(10, 25))
    carried, _ = lax.scan(lambda so_far, part: (so_far.update(*part), 0), empty, parts)
    np.testing.assert_allclose(carried.compute(), empty.update(logits[:250], labels[:250]).compute(), rtol=1e-6)


def test_empty_metrics_have_no_figure_and_change_nothing():
    logits, labels = drawn()
    for empty in (train.Mean.empty(), train.Accuracy.empty(), train.TopK.empty(2), train.Perplexity.empty(),
                  train.F1.empty(C), train.F1.empty(C, average="micro")):  # fmt: skip
        assert np.isnan(empty.compute())
    assert train.AUROC.empty(C).update(logits, labels).compute() == train.AUROC.of(logits, labels).compute()
    assert train.Mean.empty().update(np.array([1.0, 3.0])).compute() == 2.0


def test_masks_leave_examples_out():
    logits, labels = drawn()
    mask = np.arange(N) % 3 > 0
    for metric in (train.Accuracy, train.Perplexity):
        masked, chosen = metric.of(logits, labels, mask), metric.of(logits[mask], labels[mask])
        np.testing.assert_allclose(masked.compute(), chosen.compute(), rtol=1e-12)


def test_perplexity_of_losses_is_that_of_their_tokens():
    logits, labels = drawn()
    a, b = train.Perplexity.of(logits[:50], labels[:50]), train.Perplexity.of(logits[50:], labels[50:])
    losses = train.Perplexity.of_loss(np.log(a.compute()), 50).merge(train.Perplexity.of_loss(np.log(b.compute()), 207))
    np.testing.assert_allclose(losses.compute(), a.merge(b).compute(), rtol=1e-12)


def test_predictions_may_be_given_instead_of_logits():
    logits, labels = drawn()
    for of in (train.Accuracy.of, lambda x, y: train.F1.of(x, y, n_classes=C)):
        assert of(logits.argmax(-1), labels).compute() == of(logits, labels).compute()


def test_classes_that_do_not_occur_do_not_count():
    predictions, labels = np.array([0, 0, 1]), np.array([0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = train.F1.of(predictions, labels, n_classes=7).compute()
    np.testing.assert_allclose(found, sklearn_metrics.f1_score(labels, predictions, average="macro"), rtol=1e-12)


def test_of_equal_logits_the_first_is_the_largest():
    logits, labels = np.zeros((3, 4)), np.array([0, 1, 2])
    assert train.TopK.of(logits, labels, k=2).compute() == 2 / 3
    assert train.TopK.of(np.full((3, 4), np.nan), labels, k=4).compute() == 0


def test_one_class_alone_has_no_area():
    assert np.isnan(train.auroc(np.array([0.1, 0.2]), np.array([1, 1])))
    assert np.isnan(train.auroc(np.array([0.1, 0.2]), np.array([0, 0])))


def test_large_counts_are_exact():
    many = train.Mean.of(np.full(1000, 0.1, np.float32))
    for _ in range(10):
        many = many.merge(many)
    assert many.weight == 1_024_000 and many.compute() == pytest.approx(float(np.float32(0.1)), rel=1e-14)


def test_half_precision_logits_are_summed_in_double():
    logits, labels = drawn()
    half = logits.astype(np.float16)
    assert train.Perplexity.of(half, labels).sum.dtype == np.float64
    np.testing.assert_allclose(
        train.Perplexity.of(half, labels).compute(), METRICS["perplexity"][1](half, labels), rtol=1e-12
    )


def test_what_does_not_fit_is_told():
    logits, labels = drawn()
    for of in (train.Accuracy.of, train.Perplexity.of, lambda x, y: train.TopK.of(x, y, k=1)):
        with pytest.raises(ShapeError, match=r"logits \(257, 5\) need labels \(257,\), got \(256,\)"):
            of(logits, labels[1:])
    with pytest.raises(ShapeError, match="AUROC: scores"):
        train.AUROC.of(logits, labels[1:])
    with pytest.raises(ShapeError, match="auroc: scores"):
        train.auroc(logits, labels[1:])
    with pytest.raises(ArgumentError, match="`k` should be in 1..5, the number of classes, but is 6"):
        train.TopK.of(logits, labels, k=6)
    with pytest.raises(ArgumentError, match="one of macro, micro, weighted, binary, but is 'mean'"):
        train.F1.of(logits, labels, n_classes=C, average="mean")
    with pytest.raises(ArgumentError, match="'binary' needs n_classes=2, got 5"):
        train.F1.empty(C, average="binary")

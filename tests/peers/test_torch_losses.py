# SPDX-License-Identifier: MIT
"""Our losses against PyTorch's over a grid of options: values, gradients and second derivatives in float64."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from tests.peers.double_backward import assert_same, ours, theirs

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
F = torch.nn.functional

RNG = np.random.default_rng(5)
A, B, C = RNG.normal(size=(3, 6, 4)) * 2
SIGNS, COLUMN_SIGNS = np.sign(A), np.sign(A[:, 0])
LABELS = np.array([0, 3, 1, 1, 2, 3])
SKIPPED = np.array([0, 3, -100, 1, 2, 3])
SOFT = RNG.dirichlet(np.ones(4), 6)
WEIGHT = np.array([0.5, 1.0, 2.0, 1.5])
P = RNG.uniform(0.05, 0.95, (6, 4))
COUNTS = RNG.poisson(2.0, (6, 4)).astype(float)
LISTS = np.array([[3, 0, -1, 1], [0, -1, 2, 3], [1, 2, 3, 0], [-1, 0, 0, 0], [2, -1, -1, -1], [0, 1, 2, -1]])


def t(x):
    return torch.tensor(x)


# name: (our loss of differentiable inputs and reduction, torch's, the inputs)
CASES = {
    "mse": (nn.mse, F.mse_loss, (A, B)),
    "l1": (nn.l1, F.l1_loss, (A, B)),
    "huber": (
        lambda a, b, **k: nn.huber(a, b, delta=0.7, **k),
        lambda a, b, **k: F.huber_loss(a, b, delta=0.7, **k),
        (A, B),
    ),
    **{
        f"{name}_weighted": (
            lambda a, b, fun=fun, **k: fun(a, b, weight=P, **k),
            lambda a, b, peer=peer, **k: peer(a, b, weight=t(P), **k),
            (A, B),
        )
        for name, fun, peer in (
            ("mse", nn.mse, F.mse_loss),
            ("l1", nn.l1, F.l1_loss),
            ("huber", nn.huber, F.huber_loss),
        )
    },
    "smooth_l1": (nn.smooth_l1, F.smooth_l1_loss, (A, B)),
    "smooth_l1_beta": (
        lambda a, b, **k: nn.smooth_l1(a, b, beta=0.3, **k),
        lambda a, b, **k: F.smooth_l1_loss(a, b, beta=0.3, **k),
        (A, B),
    ),
    "cross_entropy": (
        lambda a, **k: nn.cross_entropy(a, LABELS, **k),
        lambda a, **k: F.cross_entropy(a, t(LABELS), **k),
        (A,),
    ),
    "cross_entropy_all": (
        lambda a, **k: nn.cross_entropy(a, SKIPPED, weight=WEIGHT, label_smoothing=0.1, **k),
        lambda a, **k: F.cross_entropy(a, t(SKIPPED), t(WEIGHT), label_smoothing=0.1, **k),
        (A,),
    ),
    "cross_entropy_soft": (
        lambda a, s, **k: nn.cross_entropy(a, s, weight=WEIGHT, label_smoothing=0.1, **k),
        lambda a, s, **k: F.cross_entropy(a, s, t(WEIGHT), label_smoothing=0.1, **k),
        (A, SOFT),
    ),
    "linear_cross_entropy": (
        lambda x, w, b, **k: nn.linear_cross_entropy(
            x, w, SKIPPED, linear_bias=b, weight=WEIGHT, label_smoothing=0.1, chunk_size=4, **k
        ),
        lambda x, w, b, **k: F.cross_entropy(x @ w.T + b, t(SKIPPED), t(WEIGHT), label_smoothing=0.1, **k),
        (A, B[:4], WEIGHT),
    ),
    "linear_cross_entropy_plain": (
        lambda x, w, **k: nn.linear_cross_entropy(x, w, LABELS, chunk_size=3, **k),
        lambda x, w, **k: F.cross_entropy(x @ w.T, t(LABELS), **k),
        (A, B[:4]),
    ),
    "nll": (
        lambda a, **k: nn.nll(a, SKIPPED, weight=WEIGHT, **k),
        lambda a, **k: F.nll_loss(a, t(SKIPPED), t(WEIGHT), **k),
        (A,),
    ),
    "nll_2d": (
        lambda a, **k: nn.nll(a.reshape(1, 4, 2, 3), LABELS.reshape(1, 2, 3), axis=1, **k),
        lambda a, **k: F.nll_loss(a.reshape(1, 4, 2, 3), t(LABELS.reshape(1, 2, 3)), **k),
        (A,),
    ),
    "bce": (
        lambda p, **k: nn.bce(p, SOFT, weight=WEIGHT, **k),
        lambda p, **k: F.binary_cross_entropy(p, t(SOFT), t(WEIGHT), **k),
        (P,),
    ),
    "bce_with_logits": (
        lambda a, s, **k: nn.bce_with_logits(a, s, weight=P, pos_weight=WEIGHT, **k),
        lambda a, s, **k: F.binary_cross_entropy_with_logits(a, s, t(P), pos_weight=t(WEIGHT), **k),
        (A, SOFT),
    ),
    "kl_div": (nn.kl_div, F.kl_div, (A, P)),
    "kl_div_of_logarithms": (
        lambda a, b, **k: nn.kl_div(a, b, log_target=True, **k),
        lambda a, b, **k: F.kl_div(a, b, log_target=True, **k),
        (A, B),
    ),
    "poisson_nll": (
        lambda a, **k: nn.poisson_nll(a, COUNTS, full=True, **k),
        lambda a, **k: F.poisson_nll_loss(a, t(COUNTS), full=True, **k),
        (A,),
    ),
    "poisson_nll_of_rates": (
        lambda a, **k: nn.poisson_nll(a, COUNTS, log_input=False, **k),
        lambda a, **k: F.poisson_nll_loss(a, t(COUNTS), log_input=False, **k),
        (P,),
    ),
    "gaussian_nll": (
        lambda a, b, v, **k: nn.gaussian_nll(a, b, v, full=True, eps=0.2, **k),
        lambda a, b, v, **k: F.gaussian_nll_loss(a, b, v, full=True, eps=0.2, **k),
        (A, B, P),
    ),
    "gaussian_nll_of_one_variance": (nn.gaussian_nll, F.gaussian_nll_loss, (A, B, P[:, 0])),
    "hinge_embedding": (
        lambda a, **k: nn.hinge_embedding(a, SIGNS, margin=1.5, **k),
        lambda a, **k: F.hinge_embedding_loss(a, t(SIGNS), margin=1.5, **k),
        (B,),
    ),
    "margin_ranking": (
        lambda a, b, **k: nn.margin_ranking(a, b, SIGNS, margin=0.3, **k),
        lambda a, b, **k: F.margin_ranking_loss(a, b, t(SIGNS), margin=0.3, **k),
        (B, C),
    ),
    "soft_margin": (
        lambda a, **k: nn.soft_margin(a, SIGNS, **k),
        lambda a, **k: F.soft_margin_loss(a, t(SIGNS), **k),
        (B,),
    ),
    "cosine_embedding": (
        lambda a, b, **k: nn.cosine_embedding(a, b, COLUMN_SIGNS, margin=-0.2, **k),
        lambda a, b, **k: F.cosine_embedding_loss(a, b, t(COLUMN_SIGNS), margin=-0.2, **k),
        (B, C),
    ),
    "multi_margin": (
        lambda a, **k: nn.multi_margin(a, LABELS, margin=0.8, weight=WEIGHT, **k),
        lambda a, **k: F.multi_margin_loss(a, t(LABELS), margin=0.8, weight=t(WEIGHT), **k),
        (A,),
    ),
    "multi_margin_squared": (
        lambda a, **k: nn.multi_margin(a, LABELS, p=2, **k),
        lambda a, **k: F.multi_margin_loss(a, t(LABELS), p=2, **k),
        (A,),
    ),
    "multilabel_margin": (
        lambda a, **k: nn.multilabel_margin(a, LISTS, **k),
        lambda a, **k: F.multilabel_margin_loss(a, t(LISTS), **k),
        (A,),
    ),
    "multilabel_soft_margin": (
        lambda a, **k: nn.multilabel_soft_margin(a, SOFT, weight=WEIGHT, **k),
        lambda a, **k: F.multilabel_soft_margin_loss(a, t(SOFT), t(WEIGHT), **k),
        (A,),
    ),
    **{
        f"triplet_margin_{p}_{swap}": (
            lambda a, b, c, p=p, swap=swap, **k: nn.triplet_margin(a, b, c, p=p, swap=swap, **k),
            lambda a, b, c, p=p, swap=swap, **k: F.triplet_margin_loss(a, b, c, p=p, swap=swap, **k),
            (A, B, C),
        )
        for p, swap in ((2.0, False), (2.0, True), (1.0, True), (3.0, False))
    },
    "triplet_margin_with_distance": (
        lambda a, b, c, **k: nn.triplet_margin_with_distance(a, b, c, margin=0.4, swap=True, **k),
        lambda a, b, c, **k: F.triplet_margin_with_distance_loss(a, b, c, margin=0.4, swap=True, **k),
        (A, B, C),
    ),
    "cosine_similarity": (
        lambda a, b, reduction: nn.cosine_similarity(a, b, axis=0),
        lambda a, b, reduction: F.cosine_similarity(a, b, 0),
        (A, B),
    ),
}

# PyTorch has no second derivative of these.
FIRST_ONLY = {"multi_margin", "multi_margin_squared", "multilabel_margin"}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")  # kl_div of PyTorch
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_derivatives_are_torchs(name, reduction):
    fun, peer, inputs = CASES[name]
    second = name not in FIRST_ONLY
    expected = theirs(torch, lambda *a: peer(*a, reduction=reduction), *inputs, second=second)
    assert_same(ours(lambda *a: fun(*a, reduction=reduction), *inputs), expected, second=second)


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ctc_loss_is_torchs(reduction, zero_infinity):
    logits = RNG.normal(size=(7, 5, 4))
    targets = np.array([[1, 2, 2], [3, 1, 0], [2, 2, 2], [1, 0, 0], [0, 0, 0]])
    inputs, lengths = np.array([7, 4, 7 if not zero_infinity else 3, 5, 6]), np.array([3, 2, 3, 1, 0])
    options = {"reduction": reduction, "zero_infinity": zero_infinity}

    def peer(x):
        return F.ctc_loss(F.log_softmax(x, -1), t(targets), t(inputs), t(lengths), **options)

    actual = ours(lambda x: nn.ctc_loss(nn.log_softmax(x), targets, inputs, lengths, **options), logits)
    assert_same(actual, theirs(torch, peer, logits, second=False), second=False)


def test_ctc_loss_takes_one_example_another_blank_and_vmap_and_jit():
    logits, targets = RNG.normal(size=(6, 3, 4)), np.array([[0, 1], [2, 2], [1, 0]])
    inputs, lengths = np.array([6, 5, 6]), np.array([2, 2, 1])

    def one(x, targets, n, m):
        return nn.ctc_loss(nn.log_softmax(x), targets, n, m, blank=3, reduction="sum")

    each = fl.jit(fl.vmap(one, in_axes=(1, 0, 0, 0)))(logits, targets, inputs, lengths)
    expected = F.ctc_loss(F.log_softmax(t(logits), -1), t(targets), t(inputs), t(lengths), blank=3, reduction="none")
    np.testing.assert_allclose(each, expected.numpy(), rtol=1e-10)


def test_adaptive_log_softmax_is_torchs():
    x, labels = RNG.normal(size=(7, 8)), np.array([0, 1, 2, 4, 5, 9, 7])
    layer = nn.AdaptiveLogSoftmax(8, 10, [2, 5], div_value=2.0, head_bias=True, dtype=np.float64, key=fl.random.key(0))
    peer = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 10, [2, 5], div_value=2.0, head_bias=True).double()
    peer.head.weight.data, peer.head.bias.data = t(layer.head.weight), t(layer.head.bias)
    for cluster, linears in zip(layer.tail, peer.tail, strict=True):
        linears[0].weight.data, linears[1].weight.data = t(cluster[0].weight), t(cluster[1].weight)
    np.testing.assert_allclose(layer(x), peer.log_prob(t(x)).detach().numpy(), rtol=1e-10)
    actual = ours(lambda x: layer.loss(x, labels), x)
    assert_same(actual, theirs(torch, lambda x: peer(x, t(labels)).loss, x))

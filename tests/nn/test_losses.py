# SPDX-License-Identifier: MIT
"""Losses and activations that PyTorch does not have, memory of the chunked loss, and what is refused."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ShapeError

RNG = np.random.default_rng(11)
LOGITS, SOFT = RNG.normal(size=(5, 4)) * 2, RNG.uniform(size=(5, 4))


def test_sparsemax_is_the_nearest_point_of_the_simplex_and_its_gradient_the_centred_support():
    x = RNG.normal(size=(3, 6))
    out = nn.sparsemax(x)
    for row, point in zip(x, out, strict=True):
        level = scipy.optimize.brentq(lambda t, row=row: np.maximum(row - t, 0).sum() - 1, row.min() - 1, row.max())
        np.testing.assert_allclose(point, np.maximum(row - level, 0), atol=1e-9)
    np.testing.assert_allclose(nn.sparsemax(x.T, axis=0), out.T)
    support = (out[0] > 0) / (out[0] > 0).sum()
    np.testing.assert_allclose(fl.jacrev(nn.sparsemax)(x[0]), np.diag(out[0] > 0) - np.outer(out[0] > 0, support))


def test_focal_weighs_cross_entropy_by_the_probability_of_being_wrong():
    p = scipy.special.expit(LOGITS)
    targets = (SOFT > 0.5).astype(float)
    right = np.where(targets == 1, p, 1 - p)
    expected = -np.where(targets == 1, 0.3, 0.7) * (1 - right) ** 1.5 * np.log(right)
    np.testing.assert_allclose(nn.focal(LOGITS, targets, alpha=0.3, gamma=1.5, reduction="none"), expected)
    plain = nn.focal(LOGITS, targets, alpha=None, gamma=0.0)
    np.testing.assert_allclose(plain, nn.bce_with_logits(LOGITS, targets))


def test_dice_is_one_minus_twice_the_overlap():
    p, t = scipy.special.expit(LOGITS), (SOFT > 0.5).astype(float)
    expected = 1 - (2 * (p * t).sum(-1) + 0.5) / (p.sum(-1) + t.sum(-1) + 0.5)
    np.testing.assert_allclose(nn.dice(p, t, smooth=0.5), expected.mean())
    assert nn.dice(t, t, axis=(0, 1)) == 0


def test_ntxent_is_cross_entropy_over_all_other_embeddings():
    x, y = RNG.normal(size=(2, 3, 4))
    both = np.concatenate([x, y])
    both /= np.linalg.norm(both, axis=-1, keepdims=True)
    cosines = both @ both.T / 0.3
    np.fill_diagonal(cosines, -np.inf)
    expected = -scipy.special.log_softmax(cosines, -1)[np.arange(6), [3, 4, 5, 0, 1, 2]]
    np.testing.assert_allclose(nn.ntxent(x, y, temperature=0.3, reduction="none"), expected)
    assert np.isfinite(fl.grad(nn.ntxent)(x, y)).all()


def test_linear_cross_entropy_never_has_all_logits():
    x, weight, labels = RNG.normal(size=(40, 3)), RNG.normal(size=(50, 3)), RNG.integers(0, 50, 40)
    loss_and_grads = fl.value_and_grad(lambda x, w: nn.linear_cross_entropy(x, w, labels, chunk_size=8), argnums=(0, 1))
    text = str(fl.make_program(loss_and_grads)(x, weight))
    assert "[8, 50]" in text or "[8,50]" in text
    assert not any(shape in text for shape in ("[40, 50]", "[40,50]", "[5, 8, 50]", "[5,8,50]"))


BAD = [
    (lambda: nn.mse(LOGITS, SOFT, weight=SOFT[0]), ShapeError, "`weight`"),
    (lambda: nn.huber(LOGITS, SOFT, delta=0.0), ArgumentError, "`delta`"),
    (lambda: nn.soft_shrink(LOGITS, -1.0), ArgumentError, "`lambd`"),
    (lambda: nn.gelu(LOGITS, "erf"), ArgumentError, "`approximate`"),
    (lambda: nn.swiglu(LOGITS[:, :3]), ShapeError, "swiglu: x"),
    (lambda: nn.prelu(LOGITS, np.ones(3)), ShapeError, "`weight`"),
    (lambda: nn.hard_tanh(LOGITS, 1.0, 0.0), ArgumentError, "`low`"),
    (lambda: nn.RReLU(0.5, 0.1), ArgumentError, "`lower`"),
    (lambda: nn.gumbel_softmax(LOGITS, fl.random.key(0), tau=0.0), ArgumentError, "`tau`"),
    (lambda: nn.soft_margin(LOGITS, SOFT[0]), ShapeError, r"soft_margin: `y` \(4,\)"),
    (lambda: nn.margin_ranking(LOGITS, LOGITS, SOFT[0]), ShapeError, "`y`"),
    (lambda: nn.cosine_embedding(LOGITS, LOGITS, SOFT), ShapeError, "`y`"),
    (lambda: nn.multi_margin(LOGITS, np.zeros(5, int), p=3), ArgumentError, "`p`"),
    (lambda: nn.multi_margin(LOGITS, np.zeros(4, int)), ShapeError, "`labels`"),
    (lambda: nn.triplet_margin(LOGITS, LOGITS, SOFT, margin=0.0), ArgumentError, "`margin`"),
    (lambda: nn.triplet_margin(LOGITS, LOGITS[0], SOFT), ShapeError, "`positive`"),
    (lambda: nn.pairwise_distance(LOGITS, SOFT, p=0), ArgumentError, "`p`"),
    (lambda: nn.poisson_nll(LOGITS, SOFT[:, 0]), ShapeError, "`counts`"),
    (lambda: nn.gaussian_nll(LOGITS, SOFT, np.ones(4)), ShapeError, "`variance`"),
    (lambda: nn.gaussian_nll(LOGITS, SOFT, SOFT, eps=0.0), ArgumentError, "`eps`"),
    (lambda: nn.ntxent(LOGITS, SOFT, temperature=0.0), ArgumentError, "`temperature`"),
    (lambda: nn.ntxent(LOGITS[0], SOFT[0]), ShapeError, "`x`"),
    (lambda: nn.linear_cross_entropy(LOGITS, SOFT, np.zeros(5, int), chunk_size=0), ArgumentError, "`chunk_size`"),
    (lambda: nn.linear_cross_entropy(LOGITS, SOFT, np.zeros(4, int)), ShapeError, "`targets`"),
    (lambda: nn.linear_cross_entropy(LOGITS, SOFT[:, :2], np.zeros(5, int)), ShapeError, "`linear_weight`"),
    (lambda: nn.AdaptiveLogSoftmax(4, 9, [5, 3], key=fl.random.key(0)), ArgumentError, "`cutoffs`"),
    (lambda: nn.ctc_loss(LOGITS, np.ones((2, 2), int), np.array(5), np.array(2)), ShapeError, "`targets`"),
    (lambda: nn.ctc_loss(LOGITS, np.ones(2), np.array(5), np.array(2)), ArgumentTypeError, "`targets`"),
    (lambda: nn.ctc_loss(LOGITS, np.ones(2, int), np.ones(2, int), np.array(2)), ShapeError, "`input_lengths`"),
    (lambda: nn.ctc_loss(LOGITS, np.ones(2, int), np.array(5), np.array(2), blank=4), ArgumentError, "`blank`"),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_is_refused_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_losses_run_under_jit_and_vmap():
    labels = np.array([[3, 1, -1, 0]] * 5)
    signs = np.sign(LOGITS)
    losses = [
        lambda x: nn.multilabel_margin(x, labels[0]),
        lambda x: nn.soft_margin(x, signs[0]),
        lambda x: nn.multi_margin(x, np.array(2)),
        lambda x: nn.poisson_nll(x, SOFT[0]),
        lambda x: nn.focal(x, SOFT[0]),
        lambda x: nn.linear_cross_entropy(x, LOGITS, np.array(2), chunk_size=2),
        lambda x: nn.triplet_margin(x, SOFT[0], SOFT[1]),
    ]
    for loss in losses:
        each = np.stack([fl.grad(loss)(row) for row in LOGITS])
        np.testing.assert_allclose(fl.jit(fl.vmap(fl.grad(loss)))(LOGITS), each, rtol=1e-10, atol=1e-12)


def test_losses_and_activations_keep_float32():
    x, y, z = RNG.normal(size=(3, 5, 4)).astype(np.float32)
    p, signs, labels = nn.sigmoid(y), np.sign(y), np.array([0, 1, 2, 3, 0])
    out = [
        nn.soft_margin(x, signs),
        nn.hinge_embedding(x, signs),
        nn.margin_ranking(x, z, signs),
        nn.cosine_embedding(x, z, signs[:, 0]),
        nn.multi_margin(x, labels),
        nn.multilabel_margin(x, np.array([[3, 1, -1, 0]] * 5)),
        nn.multilabel_soft_margin(x, p),
        nn.triplet_margin(x, y, z, p=3.0, swap=True),
        nn.poisson_nll(x, abs(y), full=True),
        nn.gaussian_nll(x, y, 0.5, full=True),
        nn.focal(x, p),
        nn.dice(p, p),
        nn.ntxent(x, y),
        nn.linear_cross_entropy(x, y, labels, chunk_size=2),
        nn.ctc_loss(nn.log_softmax(x), labels[1:3], np.array(5), np.array(2)),
        nn.huber(x, y, weight=p),
        *(fun(x) for fun in (nn.hard_shrink, nn.soft_shrink, nn.tanh_shrink, nn.squareplus, nn.softmin, nn.sparsemax)),
        *(fun(x) for fun in (nn.swiglu, nn.geglu, nn.reglu)),
        nn.threshold(x, 0.1, 2.0),
        nn.gumbel_softmax(x, fl.random.key(0), hard=True),
        nn.interpolate(x, scale_factor=2.0, mode="cubic"),
        nn.rotary_embedding(x),
        nn.scaled_dot_product_attention(x, y, z, is_causal=True),
    ]
    assert [o.dtype for o in out] == [np.float32] * len(out)

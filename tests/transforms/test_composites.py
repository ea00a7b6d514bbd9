# SPDX-License-Identifier: MIT
"""Functions of arrays planned as a whole under eager `grad`: the same bits, errors and traces as without."""

import threading
import weakref

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite.config import config
from functorch_lite.transforms import backward as whole
from functorch_lite.transforms import composites, pullbacks
from functorch_lite.transforms.arguments import quiet
from tests.laws.support import assert_same_bits, by_plans, by_rules

ROUNDS = 5
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal((4, 3)).astype(np.float32)
ROW, COLUMN = X[0] * 2, Y[:, :1] + 3
LABELS = np.array([0, 2, 1, 2])
SQUARE = rng.standard_normal((3, 3))

FUNCTIONS = {
    "add_row": (lambda x, b: x + b, X, ROW),
    "row_minus": (lambda x, b: b - x, X, ROW),
    "column": (lambda x, b: x * b + b / x, X, COLUMN),
    "same_operand_twice": (lambda x, y: x * x + y / y, X, Y),
    "constant_array": (lambda x, y: Y * x - y @ SQUARE.astype(np.float32), X, Y),
    "constant_on_the_left": (lambda x, y: np.asarray(Y) + x + (X.T @ y).sum(), X, Y),
    "two_dtypes": (lambda x, y: x.astype(np.float64) * y, X, Y.astype(np.float64)),
    "python_scalars": (lambda x, y: 2 * x + y * 0.5 - x / 3 + (1 - y) + 0.0 * x + -0.0 * y, X, Y),
    "powers": (lambda x, y: x**2 + x**3 + (y * y) ** 0.5 + 2.0**x, X, Y),
    "products": (lambda x, y: x @ y.T + (x.T @ y).sum(), X, Y),
    "vectors": (lambda x, y: x @ y + np.dot(y, y) * x.sum(), X, ROW),
    "batched": (lambda x, y: x[None] @ y.T[None], X, Y),
    "ufuncs": (lambda x, y: np.tanh(x) + np.exp(y) * np.sin(x) + np.maximum(x, y) + np.sqrt(np.abs(y)) - -x, X, Y),
    "reductions": (
        lambda x, y: x.sum(axis=0) + np.mean(y, axis=(0,)) + x.max(0, keepdims=True) + fnp.min(y, keepdims=True)
        + np.prod(x, axis=0) + x.mean() + np.var(y) + np.cumsum(x, 1), X, Y,
    ),
    "movement": (lambda x, y: x.reshape(3, 4).T + np.transpose(y).T + np.ravel(x).reshape(-1, 3), X, Y),
    "strided": (lambda x, y: x.T * y.T + np.flip(x.T, 0), X[:, ::-1], np.asfortranarray(Y)),
    "nothing_to_do": (lambda x, y: x.reshape(4, 3) + +y, X, Y),
    "no_derivative": (lambda x, y: x * np.sign(y) + np.floor(x), X, Y),
    "indices": (lambda x, y: x[np.arange(4), [0, 1, 2, 0]] + y[:, 1] + x[-1, 0] + fnp.at(x)[1].add(ROW)[:, 0], X, Y),
    "empty": (lambda x, y: x[:0].sum() + y, X, Y),
    "selection": (lambda x, y: np.where(x > 0, x, y) + np.clip(x, -1, 1), X, Y),
    "several_results": (lambda x, y: sum(np.split(x, 3, axis=1)) + np.stack([x, y])[0], X, Y),
    "logsumexp": (lambda x, y: fl.nn.log_softmax(x) + fl.nn.softmax(y), X, Y),
    "labels": (lambda x, y: fl.nn.cross_entropy(x, LABELS) + fl.nn.cross_entropy(y, LABELS[::-1]), X, Y),
    "basic_indices": (lambda x, y: x[1:, None] * y[-1] + y[..., ::-2][0, 1] - x[2, 1], X, Y),
    "indices_that_meet": (lambda x, y: x[LABELS, LABELS] + y[LABELS[::-1], np.ones(4, int)] + x[LABELS, 0], X, Y),
    "comparisons": (lambda x, y: np.where(x > y, x, y) + np.where(x <= 0, -1.0, y) * (x == y).any(), X, Y),
    "zeros": (lambda x, y: np.maximum(x, 0.0) + np.where(y > 0, y, -0.0) + np.minimum(-0.0, y) * x, X, Y),
    "scalars_of_numpy": (lambda x, y: x * np.float32(0.5) + np.float32(3) / y - np.float64(2) * x, X, Y),
    "results_of_rank_0": (lambda x, y: -np.mean(x) / np.sum(y) * x + np.sqrt(np.sum(y * y)) - np.max(x), X, Y),
    "repeated_both_ways": (lambda x, y: x.sum(0) * y.mean(1, keepdims=True) + (-x.mean(1))[:, None] * 2.0, X, Y),
    "lists": (lambda x, y: np.concatenate([x, y, x], axis=1)[:, 2:5] + np.stack((y, x), axis=-1)[..., 1], X, Y),
    "activations": (lambda x, y: fl.nn.relu(x) + fl.nn.gelu(y) + fl.nn.elu(x) + fl.nn.silu(y), X, Y),
    "infinite": (lambda x, y: np.where(x > 0, np.log(x), 0.0) * y, np.zeros_like(X), Y),
}


@pytest.fixture(autouse=True)
def plan_early(monkeypatch):
    """What has come once before is planned."""
    for module in (composites, whole):
        monkeypatch.setattr(module, "SIGHTINGS", 2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_short_and_long_way_agree_to_the_bit(name):
    fun, *point = FUNCTIONS[name]

    def flat(*args):
        with quiet():
            return [fun(*args)]

    cts = [np.asarray(rng.standard_normal(np.shape(o)), o.dtype) for o in flat(*point)]
    outs, expected = by_rules(flat, point, cts)
    for _ in range(ROUNDS):
        found_outs, found = by_plans(flat, point, cts)
        assert_same_bits(found_outs, outs)
        assert_same_bits(found, expected)


def loss(params, x):
    for w, b in params:
        x = np.tanh(x @ w + b)
    return (x * x).mean()


def parameters(sizes=(3, 5, 2)):
    return [(rng.standard_normal(s).astype(np.float32), rng.standard_normal(s[1]).astype(np.float32))
            for s in zip(sizes[:-1], sizes[1:], strict=True)]


def test_gradient_stays_the_same_from_call_to_call():
    params = parameters()
    first, *others = [fl.tree.leaves(fl.grad(loss)(params, X)) for _ in range(ROUNDS)]
    for other in others:
        assert_same_bits(other, first)


def test_plans_are_made_from_the_second_call_on():
    for plans in pullbacks.plans_in_force():
        plans.clear()
    whole._rows.clear()

    def made():
        return sum(type(p) is pullbacks.Plan for p in pullbacks.plans_in_force()[1].values())

    gradient, params = fl.grad(loss), parameters((3, 7))
    gradient(params, X)
    assert made() == 0
    gradient(params, X)
    assert made() > 0
    gradient(params, X)
    gradient(params, X)
    assert any(map(callable, whole._rows.values()))


def test_gradient_of_a_gradient():
    w = np.float64(0.3) * np.ones(3)

    def f(w):
        return np.sum(np.tanh(w) ** 3)

    for _ in range(ROUNDS):
        second = fl.grad(lambda w: fl.grad(f)(w).sum())(w)
    t = np.tanh(w)
    # f' = 3 t^2 (1 - t^2), f'' = (6 t - 12 t^3) (1 - t^2)
    np.testing.assert_allclose(second, (6 * t - 12 * t**3) * (1 - t**2), rtol=1e-12)


def test_vmap_of_grad_and_grad_of_vmap():
    w = parameters((3, 2))[0][0]

    def one(w, x):
        return np.tanh(x @ w).sum()

    for _ in range(ROUNDS):
        each = fl.vmap(fl.grad(one), in_axes=(None, 0))(w, X)
        together = fl.grad(lambda w: fl.vmap(one, in_axes=(None, 0))(w, X).sum())(w)
        np.testing.assert_allclose(each.sum(0), together, rtol=1e-5)


def test_pullback_can_be_called_again_and_mapped():
    for _ in range(ROUNDS):
        _, pullback = fl.vjp(lambda x: np.tanh(x * 2 + ROW), X)
        assert_same_bits(pullback(Y), pullback(Y))
        rows = fl.vmap(pullback)(np.stack([Y, X]))
        np.testing.assert_allclose(rows[0][0], pullback(Y)[0], rtol=1e-6)


def test_outer_value_closed_over_by_an_inner_gradient():
    for _ in range(ROUNDS):
        found = fl.grad(lambda x: (x * fl.grad(lambda y: (x + y).sum())(X)).sum())(X)
        assert_same_bits([found], [np.ones_like(X)])


def test_error_names_the_line_and_the_argument():
    def wrong(x, w):
        return (x @ w).sum()

    for _ in range(ROUNDS):
        with pytest.raises(fl.errors.ShapeError, match=r"(?s)`x` \(4, 3\) and `w` \(4, 3\).*test_composites.py"):
            fl.grad(wrong, argnums=(0, 1))(X, Y)


def test_error_of_an_index_out_of_range():
    for _ in range(ROUNDS):
        with pytest.raises(IndexError, match="index 5 is out of bounds"):
            fl.grad(lambda x: fnp.take(x, 5, axis=0).sum())(X)


def test_error_of_a_label_out_of_range():
    for _ in range(ROUNDS):
        fl.grad(fl.nn.cross_entropy)(X, LABELS)
        with pytest.raises(IndexError, match="index 3 is out of range for axis 1 with size 3"):
            fl.grad(fl.nn.cross_entropy)(X, LABELS + 1)


def test_a_plan_keeps_no_large_constant(monkeypatch):
    monkeypatch.setattr(composites, "LARGEST_CONSTANTS", 16)
    large, small = np.ones((4, 3), np.float32), np.ones(3, np.float32)
    for constant, is_plan in ((large, False), (small, True)):
        fun = composites.planned(lambda x, c=constant: x * c)
        before = set(pullbacks.plans_in_force()[1])
        for _ in range(ROUNDS):
            assert_same_bits([fl.grad(lambda x: fun(x).sum())(X)], [np.ones_like(X)])  # noqa: B023
        (key,) = [k for k in set(pullbacks.plans_in_force()[1]) - before if k[0] is fun.__wrapped__]
        assert (type(pullbacks.plans_in_force()[1][key]) is pullbacks.Plan) == is_plan


def test_leaked_tracer_is_refused():
    kept = []
    for _ in range(ROUNDS):
        fl.grad(lambda x: kept.append(x + x) or x.sum())(X)
        with pytest.raises(fl.errors.LeakedTracerError):
            _ = kept[-1] + X
        with pytest.raises(fl.errors.LeakedTracerError):
            fl.grad(lambda x: (x + kept[-1]).sum())(X)  # noqa: B023


def test_warning_of_a_promotion_names_each_line():
    for _ in range(ROUNDS):
        with pytest.raises(fl.errors.DTypeError, match="promote"), config(promotion="strict"):
            fl.grad(lambda x: (x * np.arange(3)).sum())(X)


def test_weak_scalars_stay_weak():
    for _ in range(ROUNDS):
        value, gradient = fl.value_and_grad(lambda s: (s * 2 * X).sum())(1.5)
        assert value.dtype == np.float32 and gradient.dtype == np.float64


def test_signed_zeros_are_told_apart():
    for _ in range(ROUNDS):
        plus = fl.grad(lambda x: (x * 0.0).sum())(X)
        minus = fl.grad(lambda x: (x * -0.0).sum())(X)
        assert not np.signbit(plus).any() and np.signbit(minus).all()


def test_bool_and_int_settings_are_told_apart():
    for _ in range(ROUNDS):
        assert fl.grad(lambda x: (x**True).sum())(X).dtype == np.float32
        assert_same_bits([fl.grad(lambda x: (x**1).sum())(X)], [np.ones_like(X)])
        assert_same_bits([fl.grad(lambda x: (x**1.0).sum())(X)], [np.ones_like(X)])


def test_settings_are_those_in_force():
    def masked(x):
        return np.where(x > 0, np.sqrt(x), 0.0).sum()

    zeros = np.zeros(3, np.float32)
    for _ in range(ROUNDS):
        assert_same_bits([fl.grad(masked)(zeros)], [zeros])
        with config(strong_zero=False):
            assert np.isnan(fl.grad(masked)(zeros)).all()


def test_values_are_freed_after_their_last_use():
    freed = []

    def f(x):
        y = np.tanh(x + x)
        z = np.tanh(y * 2)
        weakref.finalize(z.concrete(), freed.append, "z")
        weakref.finalize(y.concrete(), freed.append, "y")
        return z.sum()

    for _ in range(ROUNDS):
        fl.grad(f)(X)
    assert freed == ["z", "y"] * ROUNDS


def test_a_result_without_derivative_is_an_array_of_its_own():
    masks = []

    def f(x):
        masks.append(x > 0)
        assert type(masks[-1]) is np.ndarray and masks[-1].any()
        masks[-1][:] = False
        return (x * x).sum()

    for _ in range(ROUNDS):
        fl.grad(f)(X)
    assert len({id(m) for m in masks}) == ROUNDS


def test_promotion_is_never_planned():
    for _ in range(ROUNDS):
        with pytest.warns(fl.errors.PromotionWarning):
            fl.grad(lambda x: np.multiply(x, np.arange(3)).sum())(X)
        with pytest.raises(fl.errors.DTypeError, match="promote"), config(promotion="strict"):
            fl.grad(lambda x: np.where(x > 0, x, np.arange(3)).sum())(X)


def test_an_index_that_counts_gets_few_plans():
    x = np.arange(100.0)
    plans = pullbacks.plans_in_force()[1]
    before = len(plans)
    for _ in range(ROUNDS):
        found = fl.grad(lambda x: sum(x[i] * x[i] for i in range(100)))(x)
    assert_same_bits([found], [2 * x])
    assert len(plans) - before < 20


def test_rules_and_plans_on_one_tape():
    @fl.custom_jvp
    def cube(x):
        return x**3

    cube.defjvp(lambda primals, tangents: (cube(*primals), 3 * primals[0] ** 2 * tangents[0]))

    def f(x, y):
        z = fl.lax.cond(True, lambda v: v * 2, lambda v: v, cube(x * 0.5) + y)
        return np.tanh(z) * fl.checkpoint(np.exp)(y)

    def plain(x, y):
        return np.tanh(((x * 0.5) ** 3 + y) * 2) * np.exp(y)

    for _ in range(ROUNDS):
        found = fl.grad(lambda x, y: f(x, y).sum(), argnums=(0, 1))(X, Y)
        expected = fl.grad(lambda x, y: plain(x, y).sum(), argnums=(0, 1))(X, Y)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_arguments_of_other_structures_in_turn():
    gradient = fl.grad(lambda p: sum((a * a).sum() for a in fl.tree.leaves(p)))
    pair = (Y, ROW)
    for p in ([X, pair], [X, pair], [X, [Y, ROW]], [X, Y], [(X, X), pair], {"b": X, "a": Y}, [None, X], X, [X, (Y,)]):
        found = gradient(p)
        assert fl.tree.structure(found) == fl.tree.structure(p)
        assert_same_bits(fl.tree.leaves(found), [2 * a for a in fl.tree.leaves(p)])


def test_threads_trace_side_by_side():
    params = parameters()
    expected = fl.tree.leaves(fl.grad(loss)(params, X))
    pullbacks.plans_in_force()[1].clear()
    whole._rows.clear()
    found, gate = [], threading.Barrier(4)

    def work():
        gate.wait()
        for _ in range(20):
            found.append(fl.tree.leaves(fl.grad(loss)(params, X)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 80
    for leaves in found:
        assert_same_bits(leaves, expected)


def test_caches_are_bounded(monkeypatch):
    monkeypatch.setattr(composites, "MAX_PLANS", 8)
    monkeypatch.setattr(whole, "MOST", 4)
    for n in range(1, 12):
        x = np.ones(n, np.float32)
        for _ in range(ROUNDS):
            fl.grad(lambda x: np.tanh(x + x).sum())(x)
        assert len(pullbacks.plans_in_force()[1]) <= 8 and len(whole._rows) <= 4


def test_long_tapes_run_without_a_piece_of_code(monkeypatch):
    monkeypatch.setattr(whole, "LONGEST", 3)
    whole._rows.clear()
    for _ in range(ROUNDS):
        gradient = fl.grad(lambda x: np.tanh(np.tanh(np.tanh(np.tanh(x)))).sum())(X)
    assert not whole._rows and gradient.shape == X.shape

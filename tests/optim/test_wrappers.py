# SPDX-License-Identifier: MIT
"""What goes around an optimizer: accumulation, averages, lookahead, skipping, injection, clipping by size."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import optim
from functorch_lite.errors import ArgumentError
from tests.records.optimizers import MATRICES, OPTIMIZERS

RNG = np.random.default_rng(9)
START = {"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=3)}
GRADS = [{"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=3)} for _ in range(12)]


def run(opt, grads, params=START):
    """The parameters and states after each step."""
    state, path = opt.init(params), []
    for g in grads:
        params, state = opt.step(params, g, state)
        path.append((params, state))
    return path


def assert_trees_close(a, b, rtol=1e-12):
    assert fl.tree.structure(a) == fl.tree.structure(b)
    for x, y in zip(fl.tree.leaves(a), fl.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-14)


def test_accumulated_steps_are_steps_of_the_mean_gradient():
    means = [fl.tree.map(lambda *g: sum(g) / 3, *GRADS[i : i + 3]) for i in range(0, 12, 3)]
    path = run(optim.accumulate(optim.adamw(0.1), 3), GRADS)
    wanted = run(optim.adamw(0.1), means)
    for i in range(4):
        assert_trees_close(path[3 * i + 2][0], wanted[i][0])
    assert_trees_close(path[3][0], path[2][0])
    assert_trees_close(path[4][0], path[2][0])


def test_accumulation_counts_its_own_steps_for_schedules():
    opt = optim.accumulate(optim.sgd(optim.step(1.0, [1], 0.5)), 2)
    params = np.array([0.0])
    path = [float(p[0]) for p, _ in run(opt, [np.array([1.0])] * 4, params)]
    assert path == [0.0, -1.0, -1.0, -1.5]


def test_lookahead_meets_its_slow_parameters():
    fast = run(optim.sgd(0.1), GRADS[:3])[-1][0]
    (_, _), (_, _), (params, state) = run(optim.lookahead(optim.sgd(0.1), 3, 0.3), GRADS[:3])
    assert_trees_close(params, fl.tree.map(lambda s, f: s + 0.3 * (f - s), START, fast))
    assert_trees_close(state.slow, params)


def test_the_average_begins_with_the_parameters_and_follows():
    path = run(optim.chain(optim.sgd(0.1), optim.ema(0.8)), GRADS[:3])
    (p1, s1), (p2, _), (p3, s3) = path
    assert_trees_close(s1[-1].average, p1)
    assert_trees_close(s3[-1].average, fl.tree.map(lambda a, b, c: 0.8 * (0.8 * a + 0.2 * b) + 0.2 * c, p1, p2, p3))


def test_swa_is_the_mean_of_the_chosen_parameters():
    path = run(optim.chain(optim.sgd(0.1), optim.swa(start=2, every=3)), GRADS)
    chosen = [path[i][0] for i in (2, 5, 8, 11)]
    assert_trees_close(path[11][1][-1].average, fl.tree.map(lambda *p: sum(p) / 4, *chosen))
    assert_trees_close(path[1][1][-1].average, path[1][0])
    assert_trees_close(path[7][1][-1].average, path[5][1][-1].average)


BAD = {"w": np.full((3, 2), np.inf), "b": GRADS[0]["b"]}


@pytest.mark.parametrize("jit", [False, True])
def test_a_gradient_that_is_not_finite_changes_nothing(jit):
    opt = optim.skip_nonfinite(optim.adam(0.1))
    step = fl.jit(opt.step) if jit else opt.step
    params, state = step(START, GRADS[0], opt.init(START))
    same, skipped = step(params, BAD, state)
    assert_trees_close(same, params)
    assert_trees_close(skipped.inner, state.inner)
    assert (skipped.consecutive, skipped.total) == (1, 1)
    _, after = step(same, GRADS[1], skipped)
    assert (after.consecutive, after.total) == (0, 1)


def test_too_many_of_them_in_a_row_are_let_through():
    path = run(optim.skip_nonfinite(optim.sgd(0.1), 2), [BAD] * 3)
    assert np.all(np.isfinite(path[1][0]["w"]))
    assert not np.any(np.isfinite(path[2][0]["w"]))
    assert path[2][1].total == 2


def test_skipping_takes_absent_gradients():
    opt = optim.accumulate(optim.skip_nonfinite(optim.sgd(0.1)), 1)
    params = {"w": np.ones(2), "n": np.array(3), "frozen": np.ones(2)}
    grads = fl.grad(lambda p: (p["w"] ** 2).sum(), allow_int=True)(params)
    new, _ = opt.step(params, {**grads, "frozen": None}, opt.init(params))
    np.testing.assert_allclose(new["w"], 0.8)
    assert new["n"] == 3 and np.all(new["frozen"] == 1)


def test_injected_hyperparameters_give_the_same_steps():
    wanted = run(optim.adamw(0.05, b1=0.8, eps=1e-6, weight_decay=0.1, where="*w*"), GRADS)
    opt = optim.inject(optim.adamw, learning_rate=0.05, b1=0.8, eps=1e-6, weight_decay=0.1, where="*w*")
    assert_trees_close(run(opt, GRADS)[-1][0], wanted[-1][0], 1e-10)


def test_a_hyperparameter_set_to_a_value_is_used_without_a_new_trace():
    opt = optim.inject(optim.sgd, learning_rate=0.5, momentum=0.0, weight_decay=0.0)
    traces = []

    @fl.jit
    def step(params, grads, state):
        traces.append(1)
        return opt.step(params, grads, state)

    p, g, state = np.ones(2, np.float32), np.ones(2, np.float32), opt.init(np.ones(2, np.float32))
    assert float(state.hyperparameters["learning_rate"]) == 0.5
    p, state = step(p, g, state)
    np.testing.assert_allclose(p, 0.5)
    p, state = step(p, g, optim.set_hyperparameters(state, learning_rate=0.125))
    np.testing.assert_allclose(p, 0.375)
    p, state = step(p, g, optim.set_hyperparameters(state, weight_decay=2.0, momentum=0.5))
    np.testing.assert_allclose(p, 0.375 - 0.125 * (1 + 2 * 0.375 + 0.5 * 1))
    assert p.dtype == np.float32 and len(traces) == 1


def test_an_injected_schedule_can_be_read():
    opt = optim.inject(optim.sgd, learning_rate=optim.linear(1.0, 0.0, 4), momentum=0.9)
    path = run(opt, GRADS[:4])
    assert [float(s.hyperparameters["learning_rate"]) for _, s in path] == [1.0, 0.75, 0.5, 0.25]
    wanted = run(optim.sgd(optim.linear(1.0, 0.0, 4), 0.9), GRADS[:4])
    assert_trees_close(path[-1][0], wanted[-1][0])


FACTORIES = [
    optim.sgd, optim.adam, optim.adamw, optim.adamax, optim.nadam, optim.radam, optim.adadelta, optim.rprop, optim.asgd,
    optim.adafactor, optim.adagrad, optim.rmsprop, optim.lion, optim.lamb, optim.lars, optim.adabelief, optim.yogi,
    optim.novograd, optim.prodigy, optim.schedule_free_sgd, optim.schedule_free_adamw, optim.soap, optim.sophia,
    optim.muon,
]  # fmt: skip


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
def test_every_optimizer_can_be_injected(factory):
    # rprop's sizes are set by its rate once, so all the rest is the same, too.
    opt = optim.inject(factory, learning_rate=0.01)
    step = fl.jit(opt.step)
    params, state = START, opt.init(START)
    for g in GRADS[:3]:
        params, state = step(params, g, state)
    assert_trees_close(params, run(factory(0.01), GRADS[:3])[-1][0], 1e-9)


def test_clipping_by_norm_takes_each_leaf_alone():
    opt = optim.clip_by_norm(1.0)
    grads = {"a": np.array([3.0, 4.0]), "b": np.array([0.5])}
    clipped, _ = opt.update(grads, opt.init(grads))
    np.testing.assert_allclose(clipped["a"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(clipped["b"], grads["b"])


def test_adaptive_clipping_takes_each_unit_alone():
    p = np.array([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]])
    g = np.array([[30.0, 40.0], [1.0, 0.0], [0.0, 0.0]])
    opt = optim.clip_adaptive(0.1, eps=0.01)
    clipped, _ = opt.update(g, opt.init(p), p)
    np.testing.assert_allclose(clipped, [[0.3, 0.4], [0.001, 0.0], [0.0, 0.0]])
    bias, _ = opt.update(np.array([3.0, 4.0]), opt.init(p), np.array([6.0, 8.0]))
    np.testing.assert_allclose(bias, [0.6, 0.8])
    convolution = np.ones((2, 3, 3, 3))
    clipped, _ = opt.update(10 * convolution, opt.init(p), convolution)
    np.testing.assert_allclose(clipped, 0.1)


@pytest.mark.parametrize("record", OPTIMIZERS + MATRICES, ids=lambda record: record.name)
def test_the_state_is_a_tree(record):
    opt = record.make()
    state = opt.init(START)
    _, state = opt.step(START, GRADS[0], state)
    copied = fl.tree.map(lambda leaf: np.array(leaf), state)
    assert fl.tree.structure(copied) == fl.tree.structure(state)
    expected, _ = opt.step(START, GRADS[1], state)
    assert_trees_close(opt.step(START, GRADS[1], copied)[0], expected)


WRONG = [
    (lambda: optim.sgd(-0.1), "`learning_rate` should be at least 0.0, but is -0.1"),
    (lambda: optim.sgd(0.1, -1.0), "sgd: `momentum` should be at least 0.0"),
    (lambda: optim.sgd(0.1, 0.9, dampening=0.1, nesterov=True), "nesterov needs a momentum above 0 and no dampening"),
    (lambda: optim.adam(eps=-1.0), "adam: `eps` should be at least 0.0"),
    (lambda: optim.adamw(weight_decay=-1.0), "add_decayed_weights: `weight_decay` should be at least 0.0"),
    (lambda: optim.adamax(b2=1.0), r"adamax: `b2` should be in \[0.0, 1.0\), but is 1.0"),
    (lambda: optim.nadam(momentum_decay=-1.0), "nadam: `momentum_decay` should be at least 0.0"),
    (lambda: optim.radam(b1=-0.1), r"radam: `b1` should be in \[0.0, 1.0\)"),
    (lambda: optim.adadelta(rho=1.5), r"adadelta: `rho` should be in \[0.0, 1.0\)"),
    (lambda: optim.rprop(shrink=1.5), r"`shrink` and `grow` should be in \(0, 1\) and above 1, but are 1.5 and 1.2"),
    (lambda: optim.rprop(smallest=0.0), "rprop: `smallest` should be above 0"),
    (lambda: optim.rprop(largest=1e-9), "rprop: `largest` should be at least 1e-06"),
    (lambda: optim.asgd(power=-1.0), "asgd: `power` should be at least 0.0"),
    (lambda: optim.adafactor(b2_decay=0.5), "adafactor: `-b2_decay` should be at least 0.0"),
    (lambda: optim.adafactor(clip=0.0), "adafactor: `clip` should be above 0"),
    (lambda: optim.adagrad(eps=-1.0), "adagrad: `eps` should be at least 0.0"),
    (lambda: optim.lion(b2=1.0), "lion: `b2` should be in"),
    (lambda: optim.rmsprop(momentum=-1.0), "rmsprop: `momentum` should be at least 0.0"),
    (lambda: optim.lamb(eps=-1.0), "lamb: `eps` should be at least 0.0"),
    (lambda: optim.lars(0.1, trust=0.0), "lars: `trust` should be above 0"),
    (lambda: optim.lars(0.1, 1.0), r"lars: `momentum` should be in \[0.0, 1.0\)"),
    (lambda: optim.adabelief(b1=2.0), "adabelief: `b1` should be in"),
    (lambda: optim.yogi(initial=-1.0), "yogi: `initial` should be at least 0.0"),
    (lambda: optim.novograd(b2=2.0), "novograd: `b2` should be in"),
    (lambda: optim.novograd(b1=2.0), "novograd: `b1` should be in"),
    (lambda: optim.prodigy(initial=0.0), "prodigy: `initial` should be above 0"),
    (lambda: optim.prodigy(b3=1.0), "prodigy: `b3` should be in"),
    (lambda: optim.schedule_free_sgd(b1=0.0), r"schedule_free: `b1` should be in \(0, 1\), but is 0.0"),
    (lambda: optim.soap(every=0), "soap: `every` should be above 0"),
    (lambda: optim.soap(shampoo_b=1.0), "soap: `shampoo_b` should be in"),
    (lambda: optim.sophia(gamma=0.0), "sophia: `gamma` should be above 0"),
    (lambda: optim.muon(momentum=1.0), "muon: `momentum` should be in"),
    (lambda: optim.muon(adjust="none"), "`adjust` should be 'original' or 'match_rms_adamw', but is 'none'"),
    (lambda: optim.scale_by_muon().init({"b": np.ones(3)}), r"\['b'\] should have two axes, but has shape \(3,\)"),
    (lambda: optim.clip(0.0), "clip: `bound` should be above 0"),
    (lambda: optim.clip_by_global_norm(-1.0), "clip_by_global_norm: `bound` should be above 0"),
    (lambda: optim.clip_by_norm(-1.0), "clip_by_norm: `bound` should be above 0"),
    (lambda: optim.clip_adaptive(eps=0.0), "clip_adaptive: `eps` should be above 0"),
    (lambda: optim.accumulate(optim.adam(), 0), "accumulate: `every` should be at least 1, but is 0"),
    (lambda: optim.lookahead(optim.adam(), 0), "lookahead: `every` should be at least 1"),
    (lambda: optim.lookahead(optim.adam(), 5, 1.5), r"lookahead: `share` should be in \(0, 1\], but is 1.5"),
    (lambda: optim.skip_nonfinite(optim.adam(), -1), "skip_nonfinite: `max_consecutive` should be at least 0"),
    (lambda: optim.ema(1.0), "ema: `decay` should be in"),
    (lambda: optim.swa(-1), "swa: `start` should be at least 0"),
    (lambda: optim.inject(optim.adam), "give the hyperparameters to inject by name"),
    (lambda: optim.inject(optim.adam, b1=1.5), "adam: `b1` should be in"),
    (
        lambda: optim.set_hyperparameters(optim.inject(optim.adam, b1=0.5).init(START), b2=0.5),
        "there is no 'b2' in the state, only b1",
    ),
]


@pytest.mark.parametrize("make, message", WRONG, ids=[message for _, message in WRONG])
def test_bad_hyperparameters_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


NEEDY = [
    optim.asgd(), optim.adafactor(), optim.lamb(), optim.lars(0.1), optim.prodigy(), optim.schedule_free_sgd(),
    optim.clip_adaptive(), optim.ema(), optim.lookahead(optim.sgd(0.1)),
]  # fmt: skip


@pytest.mark.parametrize("opt", NEEDY)
def test_what_needs_the_parameters_says_so(opt):
    with pytest.raises(ArgumentError, match="needs the parameters"):
        opt.update(GRADS[0], opt.init(START))


DECAYING = [
    optim.sgd, optim.adam, optim.adamw, optim.adamax, optim.nadam, optim.radam, optim.adadelta, optim.asgd,
    optim.adafactor, optim.adagrad, optim.rmsprop, optim.lion, optim.lamb, optim.lars, optim.adabelief, optim.yogi,
    optim.novograd, optim.prodigy, optim.schedule_free_adamw, optim.soap, optim.sophia, optim.muon,
]  # fmt: skip


@pytest.mark.parametrize("factory", DECAYING, ids=lambda factory: factory.__name__)
def test_weight_decay_takes_a_mask_by_path(factory):
    # `other` sees the same gradients: only its decay differs.
    start, g = np.array([[1.0, 2.0], [3.0, -4.0]]), np.array([[0.5, -0.3], [0.2, 0.4]])
    params, grads = {"kept": start, "other": start}, {"kept": g, "other": g}
    opt = factory(0.1, weight_decay=0.5, where="*kept*")
    state = opt.init(params)
    for _ in range(3):
        params, state = opt.step(params, grads, state)
    assert np.abs(params["kept"] - params["other"]).max() > 1e-9

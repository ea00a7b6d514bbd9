# SPDX-License-Identifier: MIT
"""Every optimizer and schedule that Optax has against Optax's own, over 100 steps in float64, where it is installed."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import optim
from tests.records.optimizers import problem

jax = pytest.importorskip("jax", reason="a comparison with Optax")
optax = pytest.importorskip("optax", reason="a comparison with Optax")
contrib = pytest.importorskip("optax.contrib", reason="a comparison with Optax")

OPTAX = {"compat": "optax"}


def hessian():
    """Stands for an estimator: the diagonal it gives is g^2 + 0.1."""
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(),
        lambda grads, state, params=None: (jax.tree.map(lambda g: g * g + 0.1, grads), state),
    )


def float64_factors(rate, decay=0.8, weight_decay=None, smallest=128):
    """`optax.adafactor`, but for the decay, which Optax computes in float32 whatever the dtype of the parameters."""
    return optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=decay, min_dim_size_to_factor=smallest, decay_rate_fn=lambda i, d: 1.0 - (i + 1.0) ** (-d)
        ),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_learning_rate(rate, flip_sign=False),
        optax.scale_by_param_block_rms(),
        optax.identity() if weight_decay is None else optax.add_decayed_weights(weight_decay),
        optax.scale(-1),
    )


def falling(of):
    """A schedule; Optax's would be float32 in an int32 count."""
    schedule = of(0.1, 0.01, 60)
    return lambda count: schedule(count * 1.0 if hasattr(count, "devices") else count)


PAIRS = {
    "sgd": (lambda: optim.sgd(0.05), lambda: optax.sgd(0.05)),
    "sgd_momentum": (lambda: optim.sgd(0.02, 0.9), lambda: optax.sgd(0.02, 0.9)),
    "sgd_nesterov": (lambda: optim.sgd(0.02, 0.8, nesterov=True), lambda: optax.sgd(0.02, 0.8, True)),
    "adam": (lambda: optim.adam(0.05), lambda: optax.adam(0.05)),
    "adam_schedule": (
        lambda: optim.adam(falling(optim.linear)), lambda: optax.adam(falling(optax.linear_schedule)),
    ),
    "amsgrad": (
        lambda: optim.adam(0.05, 0.8, 0.95, amsgrad=True, **OPTAX), lambda: optax.amsgrad(0.05, 0.8, 0.95),
    ),
    "adamw": (lambda: optim.adamw(0.05, weight_decay=0.1), lambda: optax.adamw(0.05, weight_decay=0.1)),
    "adamw_defaults": (lambda: optim.adamw(0.05, **OPTAX), lambda: optax.adamw(0.05)),
    "adamax": (lambda: optim.adamax(0.05, 0.8, 0.95, 1e-6), lambda: optax.adamax(0.05, 0.8, 0.95, 1e-6)),
    "nadam": (lambda: optim.nadam(0.05, 0.8, 0.95, **OPTAX), lambda: optax.nadam(0.05, 0.8, 0.95)),
    "nadamw": (
        lambda: optim.nadam(0.05, weight_decay=0.1, decoupled=True, **OPTAX),
        lambda: optax.nadamw(0.05, weight_decay=0.1),
    ),
    "radam": (lambda: optim.radam(0.05, 0.8, 0.95, 1e-3, **OPTAX), lambda: optax.radam(0.05, 0.8, 0.95, 1e-3)),
    "adagrad": (lambda: optim.adagrad(0.3, **OPTAX), lambda: optax.adagrad(0.3)),
    "adagrad_from_zero": (
        lambda: optim.adagrad(0.3, initial_accumulator_value=0.0, eps=0.0, **OPTAX),
        lambda: optax.adagrad(0.3, 0.0, 0.0),
    ),
    "adadelta": (
        lambda: optim.adadelta(2.0, 0.8, 1e-2, weight_decay=0.05), lambda: optax.adadelta(2.0, 0.8, 1e-2, 0.05),
    ),
    "rmsprop": (lambda: optim.rmsprop(0.01, **OPTAX), lambda: optax.rmsprop(0.01)),
    "rmsprop_momentum": (
        lambda: optim.rmsprop(falling(optim.linear), 0.8, 1e-3, momentum=0.5, **OPTAX),
        lambda: optax.rmsprop(falling(optax.linear_schedule), 0.8, 1e-3, momentum=0.5),
    ),
    "rmsprop_centered": (
        lambda: optim.rmsprop(0.01, eps=1e-3, centered=True, **OPTAX),
        lambda: optax.rmsprop(0.01, eps=1e-3, centered=True),
    ),
    "rmsprop_outside": (
        lambda: optim.rmsprop(0.01, 0.9, 1e-3, momentum=0.5),
        lambda: optax.rmsprop(0.01, 0.9, 1e-3, momentum=0.5, eps_in_sqrt=False),
    ),
    "yogi": (lambda: optim.yogi(0.05, **OPTAX), lambda: optax.yogi(0.05)),
    "adabelief": (lambda: optim.adabelief(0.05, **OPTAX), lambda: optax.adabelief(0.05)),
    "lion": (lambda: optim.lion(0.01, **OPTAX), lambda: optax.lion(0.01)),
    "lamb": (lambda: optim.lamb(0.02, weight_decay=0.01), lambda: optax.lamb(0.02, weight_decay=0.01)),
    "lars": (
        lambda: optim.lars(falling(optim.linear), 0.5, trust=0.1, weight_decay=0.01, eps=1e-3, **OPTAX),
        lambda: optax.lars(falling(optax.linear_schedule), 0.01, trust_coefficient=0.1, eps=1e-3, momentum=0.5),
    ),
    "novograd": (lambda: optim.novograd(0.02, **OPTAX), lambda: optax.novograd(0.02)),
    "novograd_decay": (
        lambda: optim.novograd(0.02, 0.95, 0.98, 1e-8, weight_decay=0.001),
        lambda: optax.novograd(0.02, 0.95, 0.98, 1e-8, weight_decay=0.001),
    ),
    "adafactor": (lambda: optim.adafactor(0.1, **OPTAX), lambda: float64_factors(0.1)),
    "adafactor_decay": (
        lambda: optim.adafactor(0.1, b2_decay=-0.6, weight_decay=0.01, **OPTAX),
        lambda: float64_factors(0.1, 0.6, 0.01),
    ),
    "prodigy": (
        lambda: optim.prodigy(initial=1e-2, weight_decay=0.01),
        lambda: contrib.prodigy(estim_lr0=1e-2, weight_decay=0.01),
    ),
    "schedule_free_sgd": (lambda: optim.schedule_free_sgd(0.2), lambda: contrib.schedule_free_sgd(0.2)),
    "schedule_free_adamw": (
        lambda: optim.schedule_free_adamw(0.1, weight_decay=0.01),
        lambda: contrib.schedule_free_adamw(0.1, weight_decay=0.01),
    ),
    "clip_by_global_norm": (
        lambda: optim.chain(optim.clip_by_global_norm(0.5, **OPTAX), optim.trace(0.9), optim.scale(-0.02)),
        lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.trace(0.9), optax.scale(-0.02)),
    ),
    "clip": (
        lambda: optim.chain(optim.clip(0.3), optim.adam(0.05)),
        lambda: optax.chain(optax.clip(0.3), optax.adam(0.05)),
    ),
    "accumulate": (
        lambda: optim.accumulate(optim.adam(0.1), 4), lambda: optax.MultiSteps(optax.adam(0.1), 4),
    ),
    "clip_adaptive": (
        lambda: optim.chain(optim.clip_adaptive(0.1), optim.sgd(0.3)),
        lambda: optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(0.3)),
    ),
}  # fmt: skip


def our_path(opt, step, start, grads_at):
    params, state, path = start, opt.init(start), []
    for i in range(100):
        params, state = step(params, grads_at(i, params), state)
        path.append(params)
    return np.stack(path)


def optax_path(make, start, grads_at):
    with jax.enable_x64(True):
        opt = make()
        params, state, path = start, opt.init(start), []
        update = jax.jit(opt.update)
        for i in range(100):
            updates, state = update(grads_at(i, params), state, params)
            params = np.asarray(optax.apply_updates(params, updates))
            path.append(params)
    return np.stack(path)


def bowl():
    """The bowl of the table of optimizers: where to start, and the noisy gradient at step i."""
    matrix, centre, start, noise = problem()
    return start, lambda i, p: matrix @ (p - centre) + noise[i]


@pytest.mark.parametrize("name", PAIRS)
def test_a_hundred_steps_are_optaxs(name):
    make, make_theirs = PAIRS[name]
    opt = make()
    path = our_path(opt, fl.jit(opt.step), *bowl())
    rtol = 1e-5 if name == "accumulate" else 1e-10  # Optax accumulates in float32
    np.testing.assert_allclose(path, optax_path(make_theirs, *bowl()), rtol=rtol, atol=rtol / 10)


def matrices(shape):
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(100, *shape))
    return rng.normal(size=shape), lambda i, p: p + 0.5 * noise[i]


MATRICES = {
    "muon_tall": (lambda: optim.muon(0.02, **OPTAX), lambda: contrib.muon(0.02), (6, 4)),
    "muon_wide": (
        lambda: optim.muon(0.02, weight_decay=0.1, nesterov=False, **OPTAX),
        lambda: contrib.muon(0.02, weight_decay=0.1, nesterov=False), (3, 5),
    ),
    "muon_vector": (
        lambda: optim.muon(0.02, weight_decay=0.1, **OPTAX), lambda: contrib.muon(0.02, weight_decay=0.1), (5,),
    ),
    "adafactor_factored": (lambda: optim.adafactor(0.1, **OPTAX), lambda: float64_factors(0.1), (130, 128)),
    "adafactor_first_axes": (lambda: optim.adafactor(0.1, **OPTAX), lambda: float64_factors(0.1), (128, 140, 2)),
    "adafactor_short": (lambda: optim.adafactor(0.1, **OPTAX), lambda: float64_factors(0.1), (127, 130)),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_a_hundred_steps_of_a_matrix_are_optaxs(name):
    make, make_theirs, shape = MATRICES[name]
    path = our_path(make(), fl.jit(make().step), *matrices(shape))
    # Muon's iterations enlarge rounding errors: their map is steep where singular values are small.
    rtol = 1e-8 if name.startswith("muon") else 1e-10
    np.testing.assert_allclose(path, optax_path(make_theirs, *matrices(shape)), rtol=rtol, atol=rtol)


def test_sophia_is_optaxs():
    start, grads_at = bowl()
    opt = optim.sophia(0.02, **OPTAX)
    p, state = start, opt.init(start)
    path = []
    for i in range(100):
        g = grads_at(i, p)
        p, state = opt.step(p, g, state)
        state = optim.observe_hessian(state, g * g + 0.1) if i % 10 == 0 else state
        path.append(p)
    expected = optax_path(lambda: contrib.sophia(0.02, hessian_diagonal_fn=hessian()), start, grads_at)
    np.testing.assert_allclose(path, expected, rtol=1e-10, atol=1e-10)


def test_lookahead_is_optaxs():
    start, grads_at = bowl()
    theirs = optax.lookahead(optax.sgd(0.1), 3, 0.5)
    opt = optim.lookahead(optim.sgd(0.1), 3, 0.5)
    with jax.enable_x64(True):
        pair = optax.LookaheadParams.init_synced(jax.numpy.asarray(start))
        their_state, p, state = theirs.init(pair), start, opt.init(start)
        for i in range(30):
            updates, their_state = theirs.update(grads_at(i, np.asarray(pair.fast)), their_state, pair)
            pair = optax.apply_updates(pair, updates)
            p, state = opt.step(p, grads_at(i, p), state)
            np.testing.assert_allclose(p, pair.fast, rtol=1e-10)


SCHEDULES = {
    "constant": (optim.constant(0.3), optax.constant_schedule(0.3)),
    "linear": (optim.linear(0.1, 1.0, 20, begin=5), optax.linear_schedule(0.1, 1.0, 20, 5)),
    "polynomial": (optim.polynomial(1.0, 0.1, 20, 2.5, begin=3), optax.polynomial_schedule(1.0, 0.1, 2.5, 20, 3)),
    "cosine": (optim.cosine_decay(0.5, 40, end=0.05), optax.cosine_decay_schedule(0.5, 40, 0.1)),
    "cosine_exponent": (
        optim.cosine_decay(0.5, 40, exponent=2.0), optax.cosine_decay_schedule(0.5, 40, exponent=2.0),
    ),
    "warmup_cosine": (
        optim.warmup_cosine(0.1, 1.0, 10, 50, end=0.2), optax.warmup_cosine_decay_schedule(0.1, 1.0, 10, 50, 0.2),
    ),
    "warmup_constant": (optim.warmup_constant(0.1, 1.0, 10), optax.warmup_constant_schedule(0.1, 1.0, 10)),
    "exponential": (
        optim.exponential(1.0, 0.5, 10, begin=5, end=0.1), optax.exponential_decay(1.0, 10, 0.5, 5, False, 0.1),
    ),
    "staircase": (
        optim.exponential(1.0, 0.5, 10, staircase=True), optax.exponential_decay(1.0, 10, 0.5, staircase=True),
    ),
    "rising": (optim.exponential(0.1, 1.2, 4, end=0.5), optax.exponential_decay(0.1, 4, 1.2, end_value=0.5)),
    "warmup_exponential": (
        optim.warmup_exponential(0.1, 1.0, 10, 0.5, 8, begin=3, end=0.2),
        optax.warmup_exponential_decay_schedule(0.1, 1.0, 10, 8, 0.5, 3, end_value=0.2),
    ),
    "piecewise_constant": (
        optim.piecewise_constant(1.0, {10: 0.5, 30: 0.1}), optax.piecewise_constant_schedule(1.0, {10: 0.5, 30: 0.1}),
    ),
    "piecewise_linear": (
        optim.piecewise_interpolate(1.0, {10: 0.5, 30: 0.1}),
        optax.piecewise_interpolate_schedule("linear", 1.0, {10: 0.5, 30: 0.1}),
    ),
    "piecewise_cosine": (
        optim.piecewise_interpolate(1.0, {10: 0.5, 30: 0.1}, "cosine"),
        optax.piecewise_interpolate_schedule("cosine", 1.0, {10: 0.5, 30: 0.1}),
    ),
    "linear_onecycle": (optim.linear_onecycle(50, 1.0), optax.linear_onecycle_schedule(50, 1.0)),
    "sgdr": (
        optim.sgdr([{"peak": 1.0, "n_steps": 20, "warmup": 5}, {"peak": 0.5, "n_steps": 30, "warmup": 6}]),
        optax.sgdr_schedule([
            {"init_value": 0.0, "peak_value": 1.0, "decay_steps": 20, "warmup_steps": 5},
            {"init_value": 0.0, "peak_value": 0.5, "decay_steps": 30, "warmup_steps": 6},
        ]),
    ),
    "join": (
        optim.join([optim.linear(0.0, 1.0, 10), optim.exponential(1.0, 0.9)], [10]),
        optax.join_schedules([optax.linear_schedule(0.0, 1.0, 10), optax.exponential_decay(1.0, 1, 0.9)], [10]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_optaxs(name):
    ours, theirs = SCHEDULES[name]
    steps = np.arange(70)
    with jax.enable_x64(True):
        expected = [float(theirs(jax.numpy.asarray(i))) for i in steps]
    np.testing.assert_allclose([float(ours(i)) for i in steps], expected, rtol=1e-10, atol=1e-12)

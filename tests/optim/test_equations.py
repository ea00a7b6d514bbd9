# SPDX-License-Identifier: MIT
"""Optimizers that PyTorch does not have, against the equations of their papers written out in NumPy: 100 steps."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import optim
from tests.records.optimizers import MATRICES

N_STEPS = 100


def norm(x):
    return np.sqrt(np.sum(x**2))


def lamb(p, gradient, *, rate, b1, b2, eps, decay):
    m = v = 0.0
    for t in range(1, N_STEPS + 1):
        g = gradient(p, t)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        r = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        u = r + decay * p
        p = p - rate * norm(p) / norm(u) * u
        yield p


def lars(p, gradient, *, rate, momentum, trust, decay):
    v = 0.0
    for t in range(1, N_STEPS + 1):
        g = gradient(p, t)
        local = trust * norm(p) / (norm(g) + decay * norm(p))
        v = momentum * v + rate * local * (g + decay * p)
        p = p - v
        yield p


def adabelief(p, gradient, *, rate, b1, b2, eps, decay):
    m = s = 0.0
    for t in range(1, N_STEPS + 1):
        g = gradient(p, t)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        step = (m / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + eps)
        p = p - rate * (step + decay * p)
        yield p


def yogi(p, gradient, *, rate, b1, b2, eps, initial):
    m, v = 0.0, initial
    for t in range(1, N_STEPS + 1):
        g = gradient(p, t)
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        p = p - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield p


def novograd(p, gradient, *, rate, b1, b2, eps, decay):
    m = 0.0
    v = None
    for t in range(1, N_STEPS + 1):
        g = gradient(p, t)
        v = np.sum(g**2) if v is None else b2 * v + (1 - b2) * np.sum(g**2)
        m = b1 * m + (g / (np.sqrt(v) + eps) + decay * p)
        p = p - rate * m
        yield p


def lion(p, gradient, *, rate, b1, b2, decay):
    m = 0.0
    for t in range(1, N_STEPS + 1):
        g = gradient(p, t)
        p = p - rate * (np.sign(b1 * m + (1 - b1) * g) + decay * p)
        m = b2 * m + (1 - b2) * g
        yield p


def prodigy(p, gradient, *, b1, b2, eps, d0, decay):
    m = v = s = r = 0.0
    d, start, b3 = d0, p, np.sqrt(b2)
    for t in range(1, N_STEPS + 1):
        g = gradient(p, t)
        gamma = d * np.sqrt(1 - b2**t) / (1 - b1**t)
        m, v = b1 * m + (1 - b1) * d * g, b2 * v + (1 - b2) * d**2 * g**2
        r = b3 * r + gamma * d / d0 * (g @ (start - p))
        s = b3 * s + gamma * d / d0 * g
        d = max(d, r / np.sum(np.abs(s)))
        p = p - gamma * (m / (np.sqrt(v) + d * eps) + decay * p)
        yield p


def schedule_free_sgd(y, gradient, *, rate, b1):
    z = x = y
    for t in range(1, N_STEPS + 1):
        z = z - rate * gradient(y, t)
        x = (1 - 1 / t) * x + z / t
        y = (1 - b1) * z + b1 * x
        yield y


def schedule_free_adamw(y, gradient, *, rate, b1, b2, eps, decay, warmup):
    z = x = y
    v = total = 0.0
    for t in range(1, N_STEPS + 1):
        g = gradient(y, t)
        v = b2 * v + (1 - b2) * g**2
        now = rate * min(t, warmup) / warmup
        z = z - now * (g / (np.sqrt(v / (1 - b2**t)) + eps) + decay * y)
        total += now**2
        c = now**2 / total
        x = (1 - c) * x + c * z
        y = (1 - b1) * z + b1 * x
        yield y


def sophia(p, gradient, *, rate, b1, b2, gamma, eps, decay, observed):
    m = h = 0.0
    for t in range(1, N_STEPS + 1):
        m = b1 * m + (1 - b1) * gradient(p, t)
        if (t - 1) % 10 == 0:
            h = b2 * h + (1 - b2) * observed
        step = np.clip((m / (1 - b1**t)) / np.maximum(gamma * h, eps), -1, 1)
        p = p - rate * (step + decay * p)
        yield p


def muon(p, gradient, *, rate, momentum, decay):
    a, b, c = 3.4445, -4.775, 2.0315
    m = 0.0
    for t in range(1, N_STEPS + 1):
        g = gradient(p, t)
        m = momentum * m + (1 - momentum) * g
        x = momentum * m + (1 - momentum) * g
        x = x / norm(x)
        for _ in range(5):
            x = a * x + b * (x @ x.T @ x) + c * (x @ x.T @ x @ x.T @ x)
        p = p - rate * (np.sqrt(max(1, p.shape[0] / p.shape[1])) * x + decay * p)
        yield p


def soap(p, gradient, *, rate, b1, b2, eps, decay, every):
    m = v = 0.0
    left = right = u = w = np.zeros(0)
    for t in range(1, N_STEPS + 1):
        g = gradient(p, t)
        if t == 1:
            left, right = g @ g.T, g.T @ g
            u, w = np.linalg.eigh(left)[1][:, ::-1], np.linalg.eigh(right)[1][:, ::-1]
        else:
            left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
            if (t - 1) % every == 0:
                u, w = np.linalg.qr(left @ u)[0], np.linalg.qr(right @ w)[0]
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (u.T @ g @ w) ** 2
        step = (u.T @ m @ w) / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - rate * (u @ step @ w.T + decay * p)
        yield p


VECTORS = {
    "lamb": (
        optim.lamb(0.02, 0.8, 0.95, 1e-6, weight_decay=0.1),
        lambda p, g: lamb(p, g, rate=0.02, b1=0.8, b2=0.95, eps=1e-6, decay=0.1),
    ),
    "lars": (
        optim.lars(0.5, 0.8, trust=0.02, weight_decay=0.1),
        lambda p, g: lars(p, g, rate=0.5, momentum=0.8, trust=0.02, decay=0.1),
    ),
    "adabelief": (
        optim.adabelief(0.05, 0.8, 0.95, 1e-7, weight_decay=0.1),
        lambda p, g: adabelief(p, g, rate=0.05, b1=0.8, b2=0.95, eps=1e-7, decay=0.1),
    ),
    "yogi": (
        optim.yogi(0.05, 0.8, 0.95, 1e-4, initial=1e-3),
        lambda p, g: yogi(p, g, rate=0.05, b1=0.8, b2=0.95, eps=1e-4, initial=1e-3),
    ),
    "novograd": (
        optim.novograd(0.02, 0.8, 0.9, weight_decay=0.1),
        lambda p, g: novograd(p, g, rate=0.02, b1=0.8, b2=0.9, eps=1e-8, decay=0.1),
    ),
    "lion": (
        optim.lion(0.01, 0.8, 0.95, weight_decay=0.1),
        lambda p, g: lion(p, g, rate=0.01, b1=0.8, b2=0.95, decay=0.1),
    ),
    "prodigy": (
        optim.prodigy(b1=0.8, b2=0.95, initial=1e-3, weight_decay=0.1),
        lambda p, g: prodigy(p, g, b1=0.8, b2=0.95, eps=1e-8, d0=1e-3, decay=0.1),
    ),
    "schedule_free_sgd": (
        optim.schedule_free_sgd(0.2, 0.8),
        lambda p, g: schedule_free_sgd(p, g, rate=0.2, b1=0.8),
    ),
    "schedule_free_adamw": (
        optim.schedule_free_adamw(optim.linear(0.01, 0.1, 9), 0.8, 0.95, weight_decay=0.1),
        lambda p, g: schedule_free_adamw(p, g, rate=0.1, b1=0.8, b2=0.95, eps=1e-8, decay=0.1, warmup=10),
    ),
}


def problem(shape):
    """(start, gradient): the noisy gradient of a bowl at step t = 1, 2, ..."""
    rng = np.random.default_rng(7)
    scales, centre, noise = rng.uniform(0.2, 2, shape), rng.normal(size=shape), 0.1 * rng.normal(size=(N_STEPS, *shape))
    return rng.normal(size=shape), lambda p, t: scales * (p - centre) + noise[t - 1]


def run(opt, start, gradient):
    p, state = start, opt.init(start)
    for t in range(1, N_STEPS + 1):
        p, state = opt.step(p, gradient(p, t), state)
        yield p


def assert_same_path(opt, paper, shape):
    start, gradient = problem(shape)
    for ours, theirs in zip(run(opt, start, gradient), paper(start, gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
    assert norm(ours - start) > 0.1


@pytest.mark.parametrize("name", VECTORS)
def test_the_steps_are_those_of_the_paper(name):
    assert_same_path(*VECTORS[name], (5,))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_muon_is_its_equations(shape):
    opt = optim.muon(0.05, 0.9, weight_decay=0.1)
    assert_same_path(opt, lambda p, g: muon(p, g, rate=0.05, momentum=0.9, decay=0.1), shape)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_soap_is_its_equations(shape):
    # Where n is above m, L has n - m eigenvalues 0 at the first step: any basis of them does, and the steps agree.
    opt = optim.soap(0.05, 0.8, 0.9, shampoo_b=0.9, every=4, weight_decay=0.1)
    assert_same_path(opt, lambda p, g: soap(p, g, rate=0.05, b1=0.8, b2=0.9, eps=1e-8, decay=0.1, every=4), shape)


def test_sophia_is_its_equations_with_observed_curvature():
    start, gradient = problem((5,))
    observed = np.array([0.0, 1.0, 10.0, 100.0, 1000.0])
    settings = {"b1": 0.8, "b2": 0.9, "gamma": 0.1, "eps": 1e-10}
    opt = optim.sophia(0.02, **settings, weight_decay=0.1)
    p, state = start, opt.init(start)
    for t, theirs in enumerate(sophia(start, gradient, rate=0.02, **settings, decay=0.1, observed=observed)):
        if t % 10 == 0:
            state = optim.observe_hessian(state, observed)
        p, state = opt.step(p, gradient(p, t + 1), state)
        np.testing.assert_allclose(p, theirs, rtol=1e-9, atol=1e-11)


def test_hutchinsons_mean_is_the_diagonal():
    matrix = np.array([[2.0, 0.5], [0.5, 3.0]])
    keys = fl.random.split(fl.random.key(1), 400)
    found = fl.vmap(lambda key: optim.hutchinson(lambda p: 0.5 * p["a"] @ matrix @ p["a"], {"a": np.ones(2)}, key))(
        keys
    )
    np.testing.assert_allclose(found["a"].mean(0), [2.0, 3.0], atol=0.1)


def test_a_gradient_of_zero_keeps_prodigy_finite():
    opt = optim.prodigy()
    p, state = opt.step(np.ones(2), np.zeros(2), opt.init(np.ones(2)))
    np.testing.assert_array_equal(p, 1.0)
    assert state.distance == 1e-6


def test_a_leaf_of_zeros_still_moves_with_lamb_and_lars():
    for opt in (optim.lamb(0.1), optim.lars(0.1)):
        p, _ = opt.step(np.zeros(2), np.ones(2), opt.init(np.zeros(2)))
        assert np.all(p < 0)


@pytest.mark.parametrize("record", MATRICES, ids=lambda record: record.name)
def test_a_bowl_of_matrices_is_descended_jitted_or_not(record):
    opt = record.make()
    start, _ = problem((4, 3))
    target = np.random.default_rng(8).normal(size=(4, 3))
    step = fl.jit(opt.step)
    p, state = start, opt.init(start)
    same, same_state = p, state
    for _ in range(60):
        p, state = opt.step(p, p - target, state)
        same, same_state = step(same, same - target, same_state)
    np.testing.assert_allclose(same, p, rtol=1e-8, atol=1e-10)
    assert norm(p - target) < 0.5 * norm(start - target)


def test_muon_takes_matrices_and_leaves_the_rest_to_adam():
    params = {"w": np.eye(3), "b": np.ones(3)}
    muon, adamw = optim.muon(0.1, where="*w*"), optim.adamw(0.1, weight_decay=0.0)
    new, _ = muon.step(params, params, muon.init(params))
    np.testing.assert_allclose(new["b"], adamw.step(params, params, adamw.init(params))[0]["b"])


def test_the_averaged_parameters_of_schedule_free_are_nearer():
    start, gradient = problem((5,))
    opt = optim.schedule_free_sgd(0.5)
    y, state = start, opt.init(start)
    for t in range(1, N_STEPS + 1):
        y, state = opt.step(y, gradient(y, t), state)
    x = optim.schedule_free_params(state, y)
    assert norm(gradient(x, 1) - gradient(state.z, 1)) > 0
    np.testing.assert_allclose(y, 0.9 * x + 0.1 * state.z, rtol=1e-12)

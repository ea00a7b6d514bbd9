# SPDX-License-Identifier: MIT
"""Schedules, L-BFGS, Muon, averages and Adafactor of matrices against PyTorch's own, where PyTorch is installed."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import optim

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
schedulers = torch.optim.lr_scheduler

N = 30


def torch_values(make, rate):
    """The learning rates of a PyTorch scheduler at steps 0 .. N - 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=rate)
    scheduler, found = make(optimizer), []
    for _ in range(N):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


PAIRS = {
    "step_every": (optim.step_every(0.5, 4, 0.3), lambda o: schedulers.StepLR(o, 4, 0.3)),
    "step": (optim.step(0.5, [3, 7, 7], 0.3), lambda o: schedulers.MultiStepLR(o, [3, 7, 7], 0.3)),
    "hold": (optim.hold(0.5, 6, 0.25), lambda o: schedulers.ConstantLR(o, 0.25, 6)),
    "linear": (optim.linear(0.05, 0.4, 7), lambda o: schedulers.LinearLR(o, 0.1, 0.8, 7)),
    "exponential": (optim.exponential(0.5, 0.9), lambda o: schedulers.ExponentialLR(o, 0.9)),
    "polynomial": (optim.polynomial(0.5, 0.0, 9, 1.7), lambda o: schedulers.PolynomialLR(o, 9, 1.7)),
    "annealing": (optim.cosine_annealing(0.5, 8, end=0.1), lambda o: schedulers.CosineAnnealingLR(o, 8, 0.1)),
    "restarts": (
        optim.cosine_restarts(0.5, 5, end=0.1),
        lambda o: schedulers.CosineAnnealingWarmRestarts(o, 5, eta_min=0.1),
    ),
    "longer_restarts": (
        optim.cosine_restarts(0.5, 3, 2, end=0.1),
        lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3, 2, 0.1),
    ),
    "triangular": (
        optim.cyclic(0.1, 0.5, 4, 3),
        lambda o: schedulers.CyclicLR(o, 0.1, 0.5, 4, 3, cycle_momentum=False),
    ),
    "triangular2": (
        optim.cyclic(0.1, 0.5, 4, mode="triangular2"),
        lambda o: schedulers.CyclicLR(o, 0.1, 0.5, 4, mode="triangular2", cycle_momentum=False),
    ),
    "exp_range": (
        optim.cyclic(0.1, 0.5, 4, mode="exp_range", gamma=0.95),
        lambda o: schedulers.CyclicLR(o, 0.1, 0.5, 4, mode="exp_range", gamma=0.95, cycle_momentum=False),
    ),
    "one_cycle": (optim.one_cycle(0.5, N + 1), lambda o: schedulers.OneCycleLR(o, 0.5, N + 1, cycle_momentum=False)),
    "one_cycle_linear": (
        optim.one_cycle(0.5, N + 1, kind="linear", rise=0.4, first=10, last=100),
        lambda o: schedulers.OneCycleLR(
            o, 0.5, N + 1, pct_start=0.4, anneal_strategy="linear", div_factor=10, final_div_factor=100,
            cycle_momentum=False,
        ),
    ),
    "one_cycle_three": (
        optim.one_cycle(0.5, N + 1, three_phase=True),
        lambda o: schedulers.OneCycleLR(o, 0.5, N + 1, three_phase=True, cycle_momentum=False),
    ),
    "join": (
        optim.join([optim.linear(0.05, 0.5, 6), optim.exponential(0.5, 0.8)], [6]),
        lambda o: schedulers.SequentialLR(
            o, [schedulers.LinearLR(o, 0.1, 1.0, 6), schedulers.ExponentialLR(o, 0.8)], [6]
        ),
    ),
    "chained": (
        optim.chained(0.5, [optim.hold(1.0, 4, 0.5), optim.exponential(1.0, 0.9)]),
        lambda o: schedulers.ChainedScheduler([schedulers.ConstantLR(o, 0.5, 4), schedulers.ExponentialLR(o, 0.9)]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_schedule_has_the_values_of_torchs(name):
    schedule, theirs = PAIRS[name]
    steps = np.arange(N)
    wanted = torch_values(theirs, 0.5)
    np.testing.assert_allclose([schedule(i) for i in steps], wanted, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(fl.vmap(schedule)(steps), wanted, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(fl.jit(fl.vmap(schedule))(steps), wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("largest_is_best", [True, False])
def test_a_plateau_is_torchs(relative, largest_is_best):
    settings = {"factor": 0.4, "patience": 2, "threshold": 0.05, "cooldown": 2}
    plateau = optim.reduce_on_plateau(1.0, relative=relative, largest_is_best=largest_is_best, lowest=0.05, **settings)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    mode, threshold_mode = "max" if largest_is_best else "min", "rel" if relative else "abs"
    theirs = schedulers.ReduceLROnPlateau(optimizer, mode, threshold_mode=threshold_mode, min_lr=0.05, **settings)
    state, jitted = plateau.init(), fl.jit(plateau.update)
    for metric in np.random.default_rng(0).uniform(0.5, 1.5, 40):
        same, state = jitted(state, metric), plateau.update(state, metric)
        theirs.step(metric)
        np.testing.assert_allclose(state.value, optimizer.param_groups[0]["lr"], rtol=1e-12)
        assert fl.tree.all(fl.tree.map(lambda a, b: bool(a == b), same, state))
    assert state.value < 0.1


def rosenbrock(p):
    return (100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2).sum()


def valley(p):
    return ((p - 3.0) ** 4).sum() + (p[0] * p[1] - 9.0) ** 2


def torch_lbfgs(fun, start, n_steps, **settings):
    point = torch.nn.Parameter(torch.tensor(start))
    opt = torch.optim.LBFGS([point], max_iter=1, max_eval=26, tolerance_grad=0, **settings)

    def closure():
        opt.zero_grad()
        loss = fun(point)
        loss.backward()
        return loss

    path = []
    for _ in range(n_steps):
        opt.step(closure)
        path.append(point.detach().numpy().copy())
    return path


@pytest.mark.parametrize("fun, start", [(rosenbrock, [-1.2, 1.0, 0.5]), (valley, [0.0, 9.0, -4.0])])
@pytest.mark.parametrize("history", [3, 100])
def test_lbfgs_is_torchs(fun, start, history):
    start = np.array(start)
    opt = optim.lbfgs(history=history)
    p, state = start, opt.init(start)
    wanted = torch_lbfgs(fun, start, 12, history_size=history, line_search_fn="strong_wolfe")
    # The steps of a search are a chaotic function of rounding: it grows about tenfold a step.
    for i, expected in enumerate(wanted):
        p, state = opt.step(p, fl.value_and_grad(fun), state)
        np.testing.assert_allclose(p, expected, rtol=1e-13 * 10 ** (i / 2), atol=1e-13)


def test_lbfgs_of_fixed_length_is_torchs():
    start = np.array([0.4, 1.2])
    opt = optim.lbfgs(0.3, line_search=False)
    p, state = start, opt.init(start)
    for expected in torch_lbfgs(valley, start, 10, lr=0.3):
        p, state = opt.step(p, fl.value_and_grad(valley), state)
        np.testing.assert_allclose(p, expected, rtol=1e-10)


def test_muon_is_torchs_but_for_its_bfloat16():
    rng = np.random.default_rng(3)
    start, grads = rng.normal(size=(6, 4)), rng.normal(size=(20, 6, 4))
    point = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.Muon([point], lr=0.01)
    opt = optim.muon(0.01)
    p, state = start, opt.init(start)
    for g in grads:
        p, state = opt.step(p, g, state)
        point.grad = torch.tensor(g)
        theirs.step()
    moved = np.linalg.norm(p - start)
    assert np.linalg.norm(p - point.detach().numpy()) < 0.02 * moved


def test_adafactor_of_a_matrix_is_torchs():
    rng = np.random.default_rng(4)
    start, grads = rng.normal(size=(2, 5, 4)), rng.normal(size=(100, 2, 5, 4))
    point = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.Adafactor([point], lr=0.05, weight_decay=0.1)
    opt = optim.adafactor(0.05, weight_decay=0.1)
    p, state = start, opt.init(start)
    for g in grads:
        p, state = opt.step(p, g, state)
        point.grad = torch.tensor(g)
        theirs.step()
    np.testing.assert_allclose(p, point.detach().numpy(), rtol=1e-10)


def test_the_average_of_asgd_is_torchs():
    rng = np.random.default_rng(5)
    torch.set_default_dtype(torch.float64)  # else torch keeps its rates in float32
    try:
        point = torch.nn.Parameter(torch.tensor(rng.normal(size=4)))
        opt, theirs = optim.asgd(0.1, start=10), torch.optim.ASGD([point], 0.1, t0=10)
        p, state = point.detach().numpy().copy(), opt.init(np.zeros(4))
        for g in rng.normal(size=(30, 4)):
            p, state = opt.step(p, g, state)
            point.grad = torch.tensor(g)
            theirs.step()
        np.testing.assert_allclose(state[-1].average, theirs.state[point]["ax"].numpy(), rtol=1e-10)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_of_the_parameters_are_torchs(kind):
    swa_utils = torch.optim.swa_utils
    rng = np.random.default_rng(6)
    layer = torch.nn.Linear(3, 2, bias=False, dtype=torch.float64)
    average = optim.ema(0.9) if kind == "ema" else optim.swa()
    theirs = swa_utils.AveragedModel(
        layer, avg_fn=swa_utils.get_ema_avg_fn(0.9) if kind == "ema" else swa_utils.get_swa_avg_fn()
    )
    sgd = torch.optim.SGD(layer.parameters(), lr=0.1)
    p = layer.weight.detach().numpy().copy()
    opt = optim.chain(optim.sgd(0.1), average)
    state = opt.init(p)
    for g in rng.normal(size=(12, 2, 3)):
        p, state = opt.step(p, g, state)
        layer.weight.grad = torch.tensor(g)
        sgd.step()
        theirs.update_parameters(layer)
    np.testing.assert_allclose(state[-1].average, theirs.module.weight.detach().numpy(), rtol=1e-12)

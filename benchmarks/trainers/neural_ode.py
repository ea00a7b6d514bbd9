# SPDX-License-Identifier: MIT
"""examples/neural_ode.py: pieces of a spiral by rk4, 20 pieces of 10 points, gradients through the solver, Adam."""

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, example, jax_run, our_run, torch_run

PIECES, LENGTH, RATE, GAP, SOLVER_STEPS = 20, 10, 1e-3, 25.0 / 1000, 4


def _batches():
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(PIECES, LENGTH, 2)),) for _ in range(20)]


def _ours() -> Run:
    ode = example("neural_ode")
    model, opt = ode.network(ode.fl.random.key(0)), ode.optim.adam(RATE)
    batches = [pieces for (pieces,) in _batches()]
    return our_run(ode.make_train_step(opt, ode.rk4), ode.State(model, opt.init(model)), batches, count(model))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    def law(params, y):
        (w1, b1), (w2, b2) = params
        return jnp.tanh(y**3 @ w1 + b1) @ w2 + b2

    def advance(params, y):
        h = GAP / SOLVER_STEPS

        def step(y, _):
            k1 = law(params, y)
            k2 = law(params, y + 0.5 * h * k1)
            k3 = law(params, y + 0.5 * h * k2)
            k4 = law(params, y + h * k3)
            return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        return jax.lax.scan(step, y, None, length=SOLVER_STEPS)[0]

    def path(params, y):
        def step(y, _):
            y = advance(params, y)
            return y, y

        return jax.lax.scan(step, y, None, length=LENGTH - 1)[1]

    def loss(params, pieces):
        found = jax.vmap(path, in_axes=(None, 0))(params, pieces[:, 0])
        return jnp.mean(jnp.abs(found - pieces[:, 1:]))

    rng = np.random.default_rng(0)
    params = [(rng.normal(size=(2, 50)) * 0.5, np.zeros(50)), (rng.normal(size=(50, 2)) * 0.1, np.zeros(2))]
    with jax.enable_x64(True):
        run = jax_run(loss, params, optax.adam(RATE), _batches())

    def once():
        with jax.enable_x64(True):
            return run.step()

    return Run(once, run.n_parameters)


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2)).double()
    h = GAP / SOLVER_STEPS

    def loss(pieces):
        y, error = pieces[:, 0], 0.0
        for i in range(1, LENGTH):
            for _ in range(SOLVER_STEPS):
                k1 = model(y**3)
                k2 = model((y + 0.5 * h * k1) ** 3)
                k3 = model((y + 0.5 * h * k2) ** 3)
                k4 = model((y + h * k3) ** 3)
                y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            error = error + (y - pieces[:, i]).abs().mean()
        return error / (LENGTH - 1)

    return torch_run(model, loss, torch.optim.Adam(model.parameters(), RATE), _batches(), compiled)


TRAINER = Trainer("neural_ode", _ours, _jax, _torch)

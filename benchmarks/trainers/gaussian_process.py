# SPDX-License-Identifier: MIT
"""examples/gaussian_process.py: marginal likelihood of 332 points in ten dimensions, minimised by Adam."""

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, example, jax_run, our_run, torch_run

POINTS, DIMENSIONS, RATE, JITTER = 332, 10, 1e-2, 1e-8


def _batches():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(POINTS, DIMENSIONS))
    return [(x, np.sin(x[:, 0]) + 0.1 * rng.normal(size=POINTS))]


def _ours() -> Run:
    gp = example("gaussian_process")
    fl, opt = gp.fl, gp.optim.adam(RATE)
    prior = gp.Prior(np.zeros(()), np.ones(DIMENSIONS), np.zeros(()))

    @fl.jit
    def step(state, batch):
        loss, grads = fl.value_and_grad(gp.negative_log_marginal)(state.prior, *batch)
        return gp.State(*opt.step(state.prior, grads, state.opt_state)), {"loss": loss}

    return our_run(step, gp.State(prior, opt.init(prior)), _batches(), count(prior))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    def loss(prior, x, y):
        amplitude, lengths, noise = prior
        x = x / jnp.exp(lengths)
        squares = jnp.sum(x**2, -1)[:, None] + jnp.sum(x**2, -1) - 2 * x @ x.T
        covariance = jnp.exp(2 * amplitude - 0.5 * jnp.maximum(squares, 0.0))
        lower = jnp.linalg.cholesky(covariance + (jnp.exp(2 * noise) + JITTER) * jnp.eye(len(x)))
        white = jax.scipy.linalg.solve_triangular(lower, y, lower=True)
        return 0.5 * jnp.sum(white**2) + jnp.sum(jnp.log(jnp.diagonal(lower))) + 0.5 * len(y) * jnp.log(2 * jnp.pi)

    with jax.enable_x64(True):
        run = jax_run(loss, (np.zeros(()), np.ones(DIMENSIONS), np.zeros(())), optax.adam(RATE), _batches())

    def once():
        with jax.enable_x64(True):
            return run.step()

    return Run(once, run.n_parameters)


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn

    class Prior(nn.Module):
        def __init__(self):
            super().__init__()
            self.amplitude, self.noise = (nn.Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(2))
            self.lengths = nn.Parameter(torch.ones(DIMENSIONS, dtype=torch.float64))

    prior = Prior()

    def loss(x, y):
        x = x / prior.lengths.exp()
        squares = (x**2).sum(-1)[:, None] + (x**2).sum(-1) - 2 * x @ x.T
        covariance = torch.exp(2 * prior.amplitude - 0.5 * squares.clamp(min=0))
        noise = (torch.exp(2 * prior.noise) + JITTER) * torch.eye(len(x), dtype=x.dtype)
        lower = torch.linalg.cholesky(covariance + noise)
        white = torch.linalg.solve_triangular(lower, y[:, None], upper=False)
        return 0.5 * (white**2).sum() + lower.diagonal().log().sum() + 0.5 * len(y) * np.log(2 * np.pi)

    return torch_run(prior, loss, torch.optim.Adam(prior.parameters(), RATE), _batches(), compiled)


TRAINER = Trainer("gaussian_process", _ours, _jax, _torch)

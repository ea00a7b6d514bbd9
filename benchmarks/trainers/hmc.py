# SPDX-License-Identifier: MIT
"""examples/hmc.py: 8 chains of 10 iterations of 16 leapfrog steps, logistic regression on a table of 427 x 30."""

from typing import Any

import numpy as np

from benchmarks.trainers.common import Run, Trainer, example

CHAINS, ITERATIONS, LEAPS, STEP_SIZE = 8, 10, 16, 0.05


def _table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(427, 30))
    return x, (x @ rng.normal(size=30) + rng.normal(size=427) > 0).astype(np.float64)


def _ours() -> Run:
    hmc = example("hmc")
    fl, (x, y) = hmc.fl, _table()
    run = hmc.make_sampler(lambda weights: hmc.log_density(weights, x, y), LEAPS, 0.0)
    held = [np.zeros((CHAINS, 31)), fl.random.key(0)]
    state = hmc.initial_step_size(STEP_SIZE, held[0][0])

    def once():
        held[1], key = fl.random.split(held[1])
        keys = fl.random.split(key, (ITERATIONS, CHAINS))
        held[0], _, _, acceptance = run(keys, held[0], state, adapting=False)
        return float(acceptance.mean())

    return Run(once, 31)


def _jax() -> Run:
    import jax
    import jax.numpy as jnp

    x, y = _table()

    def log_density(w):
        logits = w[0] + x @ w[1:]
        return jnp.sum(y * logits - jax.nn.softplus(logits)) - 0.5 * (w[0] / 5.0) ** 2 - 0.5 * jnp.sum(w[1:] ** 2)

    force = jax.grad(log_density)

    def leap(_, state):
        position, momentum, pull = state
        momentum = momentum + 0.5 * STEP_SIZE * pull
        position = position + STEP_SIZE * momentum
        pull = force(position)
        return position, momentum + 0.5 * STEP_SIZE * pull, pull

    def chain_step(key, position):
        key_momentum, key_accept = jax.random.split(key)
        momentum = jax.random.normal(key_momentum, position.shape, position.dtype)
        proposal, end, _ = jax.lax.fori_loop(0, LEAPS, leap, (position, momentum, force(position)))
        ratio = log_density(proposal) - log_density(position) + 0.5 * (jnp.sum(momentum**2) - jnp.sum(end**2))
        probability = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(ratio), -jnp.inf, ratio), 0.0))
        accept = jax.random.uniform(key_accept, dtype=position.dtype) < probability
        return jnp.where(accept, proposal, position), probability

    @jax.jit
    def run(key, positions):
        def iteration(positions, keys):
            positions, probability = jax.vmap(chain_step)(keys, positions)
            return positions, (positions, probability.mean())

        key, sub = jax.random.split(key)
        keys = jax.random.split(sub, (ITERATIONS, CHAINS))
        positions, (samples, acceptance) = jax.lax.scan(iteration, positions, keys)
        return key, positions, samples, acceptance.mean()

    held: list[Any] = [jax.random.key(0), np.zeros((CHAINS, 31))]

    def once():
        with jax.enable_x64(True):
            *held[:], _, acceptance = run(*held)
            return float(acceptance)

    return Run(once, 31)


def _torch(compiled: bool) -> Run:
    import torch

    x, y = (torch.from_numpy(part) for part in _table())

    def log_density(w):
        logits = w[:, :1] + w[:, 1:] @ x.T
        fit = (y * logits - torch.nn.functional.softplus(logits)).sum(1)
        return fit - 0.5 * (w[:, 0] / 5.0) ** 2 - 0.5 * (w[:, 1:] ** 2).sum(1)

    force = torch.func.grad(lambda w: log_density(w).sum())

    def leapfrog(position, momentum):
        pull = force(position)
        for _ in range(LEAPS):
            momentum = momentum + 0.5 * STEP_SIZE * pull
            position = position + STEP_SIZE * momentum
            pull = force(position)
            momentum = momentum + 0.5 * STEP_SIZE * pull
        return position, momentum

    move = torch.compile(leapfrog) if compiled else leapfrog
    held = [torch.zeros(CHAINS, 31, dtype=torch.float64)]

    def once():
        rates = []
        for _ in range(ITERATIONS):
            position, momentum = held[0], torch.randn(CHAINS, 31, dtype=torch.float64)
            proposal, end = move(position, momentum)
            ratio = log_density(proposal) - log_density(position) + 0.5 * ((momentum**2).sum(1) - (end**2).sum(1))
            probability = ratio.nan_to_num(nan=-torch.inf).clamp(max=0).exp()
            held[0] = torch.where((torch.rand(CHAINS) < probability)[:, None], proposal, position)
            rates.append(probability.mean())
        return torch.stack(rates).mean().item()

    return Run(once, 31)


TRAINER = Trainer("hmc", _ours, _jax, _torch)

# SPDX-License-Identifier: MIT
"""examples/ensemble.py: ten networks 784-128-128-10 under vmap, batches of 128 for each, Adam."""

import itertools

import numpy as np

from benchmarks.trainers.common import Run, Trainer, example, jax_run, our_run, torch_run

MEMBERS, BATCH, WIDTH, RATE = 10, 128, 128, 1e-3


def _batches():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, MEMBERS, BATCH, 784)).astype(np.float32)
    return list(zip(x, rng.integers(0, 10, (4, MEMBERS, BATCH)).astype(np.int32), strict=True))


def _ours() -> Run:
    ensemble = example("ensemble")
    fl = ensemble.fl
    opt = ensemble.optim.adam(RATE)
    models = fl.vmap(lambda key: ensemble.make_model(784, WIDTH, key))(fl.random.split(fl.random.key(0), MEMBERS))

    def member_step(state, x, labels):
        loss, grads = fl.value_and_grad(ensemble.loss_fn)(state.model, x, labels)
        return ensemble.State(*opt.step(state.model, grads, state.opt_state)), loss

    @fl.jit
    def step(state, batch):
        state, losses = fl.vmap(member_step)(state, *batch)
        return state, {"loss": np.mean(losses)}

    n = sum(leaf.size for leaf in fl.tree.leaves(models))
    return our_run(step, ensemble.State(models, fl.vmap(opt.init)(models)), _batches(), n)


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(0)
    params = [((rng.normal(size=(MEMBERS, n, m)) / np.sqrt(n)).astype(np.float32), np.zeros((MEMBERS, m), np.float32))
              for n, m in ((784, WIDTH), (WIDTH, WIDTH), (WIDTH, 10))]

    def member_loss(params, x, labels):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        logits = x @ params[-1][0] + params[-1][1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def loss(params, x, labels):  # the sum of the members' losses gives each its own gradient; Adam knows no scale
        return jnp.mean(jax.vmap(member_loss)(params, x, labels))

    return jax_run(loss, params, optax.adam(RATE), _batches())


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn
    from torch.func import functional_call, stack_module_state, vmap

    def network():
        return nn.Sequential(nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))

    params, _ = stack_module_state([network() for _ in range(MEMBERS)])
    leaves = {name: nn.Parameter(p.detach()) for name, p in params.items()}
    base = network().to("meta")

    def member_loss(params, x, labels):
        return nn.functional.cross_entropy(functional_call(base, params, (x,)), labels.long())

    def loss(x, labels):
        return vmap(member_loss)(leaves, x, labels).mean()

    held = nn.ParameterList(leaves.values())
    return torch_run(held, loss, torch.optim.Adam(held.parameters(), RATE), itertools.chain(_batches()), compiled)


TRAINER = Trainer("ensemble", _ours, _jax, _torch)

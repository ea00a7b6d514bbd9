# SPDX-License-Identifier: MIT
"""examples/maml.py: MAML on sinusoids, 25 tasks of 10 points, one inner step, second derivatives, Adam."""

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, example, jax_run, our_run, torch_run

TASKS, POINTS, RATE, INNER_RATE = 25, 10, 1e-3, np.float32(0.01)


def _batches():
    rng = np.random.default_rng(0)
    amplitude = rng.uniform(0.1, 5.0, (20, TASKS, 1, 1)).astype(np.float32)
    phase = rng.uniform(0.0, np.pi, (20, TASKS, 1, 1)).astype(np.float32)
    x, new_x = rng.uniform(-5, 5, (2, 20, TASKS, POINTS, 1)).astype(np.float32)
    return list(zip(x, amplitude * np.sin(x - phase), new_x, amplitude * np.sin(new_x - phase), strict=True))


def _ours() -> Run:
    maml = example("maml")
    fl = maml.fl
    model, opt = maml.nn.MLP((1, 40, 40, 1), key=fl.random.key(0)), maml.optim.adam(RATE)

    def task_loss(model, x, y, new_x, new_y):
        return maml.loss_fn(maml.adapt(model, x, y, 1), new_x, new_y)

    @fl.jit
    def step(state, batch):
        def loss_fn(model):
            return np.mean(fl.vmap(task_loss, in_axes=(None, 0, 0, 0, 0))(model, *batch))

        loss, grads = fl.value_and_grad(loss_fn)(state.model)
        return maml.State(*opt.step(state.model, grads, state.opt_state)), {"loss": loss}

    return our_run(step, maml.State(model, opt.init(model)), _batches(), count(model))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(0)
    sizes = ((1, 40), (40, 40), (40, 1))
    params = [(rng.uniform(-1, 1, s).astype(np.float32) / np.sqrt(np.float32(s[0])), np.zeros(s[1], np.float32))
              for s in sizes]

    def error(params, x, y):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        return jnp.mean((x @ params[-1][0] + params[-1][1] - y) ** 2)

    def task_loss(params, x, y, new_x, new_y):
        grads = jax.grad(error)(params, x, y)
        return error(jax.tree.map(lambda p, g: p - INNER_RATE * g, params, grads), new_x, new_y)

    def loss(params, *batch):
        return jnp.mean(jax.vmap(task_loss, in_axes=(None, 0, 0, 0, 0))(params, *batch))

    return jax_run(loss, params, optax.adam(RATE), _batches())


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn
    from torch.func import functional_call, grad, vmap

    model = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))

    def error(params, x, y):
        return torch.mean((functional_call(model, params, (x,)) - y) ** 2)

    def task_loss(params, x, y, new_x, new_y):
        grads = grad(error)(params, x, y)
        return error({name: p - float(INNER_RATE) * grads[name] for name, p in params.items()}, new_x, new_y)

    def loss(*batch):
        params = dict(model.named_parameters())
        return vmap(task_loss, in_dims=(None, 0, 0, 0, 0))(params, *batch).mean()

    return torch_run(model, loss, torch.optim.Adam(model.parameters(), RATE), _batches(), compiled)


TRAINER = Trainer("maml", _ours, _jax, _torch)

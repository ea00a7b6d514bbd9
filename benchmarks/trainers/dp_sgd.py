# SPDX-License-Identifier: MIT
"""examples/dp_sgd.py: a small CNN on images 28x28, 256 gradients of single examples, clipped, with noise, SGD."""

import itertools

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, example, our_run

BATCH, RATE, CLIP, SIGMA = 256, 1.0, np.float32(0.5), np.float32(0.9)


def _batches():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, BATCH, 28, 28)).astype(np.float32)
    return list(zip(images, rng.integers(0, 10, (4, BATCH)).astype(np.int32), strict=True))


def _ours() -> Run:
    dp = example("dp_sgd")
    model, opt = dp.CNN(28, key=dp.fl.random.key(0)), dp.optim.sgd(RATE)
    batches = [dp.Batch(images, labels, np.ones(BATCH, np.float32)) for images, labels in _batches()]
    step, state = dp.make_train_step(opt, CLIP, SIGMA, BATCH), dp.State(model, opt.init(model), dp.fl.random.key(1))
    return our_run(step, state, batches, count(model))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    shapes = ((16, 1, 5, 5), (32, 16, 3, 3), (32, 288), (10, 32))
    params = [(rng.normal(size=s).astype(np.float32) / np.sqrt(np.float32(np.prod(s[1:]))), np.zeros(s[0], np.float32))
              for s in shapes]

    def conv(x, w, b, stride, padding):
        return jax.lax.conv_general_dilated(x[None], w, (stride, stride), [padding] * 2)[0] + b[:, None, None]

    def pool(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2), (1, 2, 2), "VALID")

    def loss(params, image, label):
        first, second, hidden, out = params
        x = pool(jnp.tanh(conv(image[None], *first, 2, (2, 2))))
        x = pool(jnp.tanh(conv(x, *second, 1, (1, 1)))).reshape(-1)
        x = jnp.tanh(hidden[0] @ x + hidden[1])
        return -jax.nn.log_softmax(out[0] @ x + out[1])[label]

    def one(params, image, label):
        value, grads = jax.value_and_grad(loss)(params, image, label)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
        return value, jax.tree.map(lambda g: g * CLIP / jnp.maximum(norm, CLIP), grads)

    @jax.jit
    def step(params, key, images, labels):
        key, key_noise = jax.random.split(key)
        values, grads = jax.vmap(one, in_axes=(None, 0, 0))(params, images, labels)
        leaves, treedef = jax.tree.flatten(grads)
        keys = jax.random.split(key_noise, len(leaves))
        sums = [g.sum(0) + SIGMA * CLIP * jax.random.normal(k, g.shape[1:]) for g, k in zip(leaves, keys, strict=True)]
        grads = jax.tree.unflatten(treedef, sums)
        return jax.tree.map(lambda p, g: p - RATE * g / BATCH, params, grads), key, values.mean()

    held = [jax.tree.map(jnp.asarray, params), jax.random.key(1)]
    turn = itertools.cycle(_batches())

    def once():
        *held[:], value = step(*held, *next(turn))
        return float(value)

    return Run(once, sum(leaf.size for leaf in jax.tree.leaves(params)))


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn
    from torch.func import functional_call, grad_and_value, vmap

    model = nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, 1, 1), nn.Tanh(),
                          nn.MaxPool2d(2), nn.Flatten(), nn.Linear(288, 32), nn.Tanh(), nn.Linear(32, 10))
    params = {name: p.detach() for name, p in model.named_parameters()}
    clip, sigma = float(CLIP), float(SIGMA)

    def loss(params, image, label):
        return nn.functional.cross_entropy(functional_call(model, params, (image[None, None],)), label[None])

    def one(params, image, label):
        grads, value = grad_and_value(loss)(params, image, label)
        norm = torch.sqrt(sum((g**2).sum() for g in grads.values()))
        return value, {name: g * clip / norm.clamp(min=clip) for name, g in grads.items()}

    def step(params, images, labels):
        values, grads = vmap(one, in_dims=(None, 0, 0))(params, images, labels)
        sums = {name: g.sum(0) + sigma * clip * torch.randn(g.shape[1:]) for name, g in grads.items()}
        return {name: p - RATE / BATCH * sums[name] for name, p in params.items()}, values.mean()

    step = torch.compile(step) if compiled else step
    held = [params]
    turn = itertools.cycle([(torch.from_numpy(x), torch.from_numpy(y).long()) for x, y in _batches()])

    def once():
        held[0], value = step(held[0], *next(turn))
        return value.item()

    return Run(once, sum(p.numel() for p in params.values()))


TRAINER = Trainer("dp_sgd", _ours, _jax, _torch)

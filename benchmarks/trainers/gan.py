# SPDX-License-Identifier: MIT
"""examples/gan.py: a step of generator and discriminator with the R1 penalty, 28x28 images, batch 64.

PyTorch's torch.compile cannot differentiate the gradient of a compiled function, so there it stays out.
"""

import itertools

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, dense, example, filters, images, our_run, scales

BATCH, SIZE, RATE, B1, LATENT, WIDTH, EMA = 64, 28, 1e-3, 0.5, 64, 32, 0.998
START = SIZE // 4


def _ours() -> Run:
    trainer = example("gan")
    key = trainer.fl.random.key(0)
    generator, discriminator = trainer.Generator(SIZE, key=key), trainer.Discriminator(SIZE, key=key)
    opt = trainer.optim.adam(RATE, b1=B1)
    states = opt.init(generator), opt.init(discriminator)
    state = trainer.State(generator, discriminator, generator, *states, key)
    n = count(generator) + count(discriminator)
    return our_run(trainer.make_train_step(opt), state, images(20, BATCH, SIZE), n, "discriminator loss")


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.trainers import jax_layers as layers

    rng = np.random.default_rng(0)
    g = {"project": dense(rng, LATENT, 2 * WIDTH * START**2), "norm1": scales(2 * WIDTH), "norm2": scales(WIDTH),
         "up1": filters(rng, WIDTH, 2 * WIDTH, 4), "up2": filters(rng, 1, WIDTH, 4)}
    d = {"down1": filters(rng, WIDTH, 1, 4), "down2": filters(rng, 2 * WIDTH, WIDTH, 4),
         "out": dense(rng, 2 * WIDTH * START**2, 1)}
    running = [{"mean": np.zeros(n, np.float32), "var": np.ones(n, np.float32)} for n in (2 * WIDTH, WIDTH)]

    def generated(g, running, latent):
        x = layers.dense(g["project"], latent).reshape(BATCH, 2 * WIDTH, START, START)
        x, first = layers.batch_norm(g["norm1"], running[0], x)
        x, second = layers.batch_norm(g["norm2"], running[1], layers.conv_transpose(g["up1"], jax.nn.relu(x)))
        return jnp.tanh(layers.conv_transpose(g["up2"], jax.nn.relu(x))), [first, second]

    def judged(d, x):
        x = jax.nn.leaky_relu(layers.conv(d["down1"], x, 2), 0.2)
        x = jax.nn.leaky_relu(layers.conv(d["down2"], x, 2), 0.2)
        return layers.dense(d["out"], x.reshape(len(x), -1))[:, 0]

    def g_loss(g, d, running, latent):
        drawn, running = generated(g, running, latent)
        return jax.nn.softplus(-judged(d, drawn)).mean(), (drawn, running)

    def d_loss(d, real, drawn):
        value = jax.nn.softplus(-judged(d, real)).mean() + jax.nn.softplus(judged(d, drawn)).mean()
        gradient = jax.grad(lambda x: judged(d, x).sum())(real)
        return value + 0.5 * (gradient**2).sum() / BATCH, value

    optimizer = optax.adam(RATE, B1)

    def step(g, d, averaged, running, g_state, d_state, key, x):
        key, now = jax.random.split(key)
        latent = jax.random.normal(now, (BATCH, LATENT))
        (_, (drawn, running)), grads = jax.value_and_grad(g_loss, has_aux=True)(g, d, running, latent)
        updates, g_state = optimizer.update(grads, g_state)
        g = optax.apply_updates(g, updates)
        grads, value = jax.grad(d_loss, has_aux=True)(d, x[:, None].astype(jnp.float32) / 127.5 - 1, drawn)
        updates, d_state = optimizer.update(grads, d_state)
        averaged = jax.tree.map(lambda mean, new: EMA * mean + (1 - EMA) * new, averaged, g)
        return g, optax.apply_updates(d, updates), averaged, running, g_state, d_state, key, value

    step = jax.jit(step, donate_argnums=tuple(range(7)))
    g, d, running = jax.tree.map(jnp.asarray, (g, d, running))
    averaged = jax.tree.map(jnp.copy, g)
    held = [g, d, averaged, running, optimizer.init(g), optimizer.init(d), jax.random.key(0)]
    turn = itertools.cycle(map(jnp.asarray, images(20, BATCH, SIZE)))

    def once():
        *held[:], value = step(*held, next(turn))
        return float(value)

    return Run(once, sum(leaf.size for leaf in jax.tree.leaves((g, d))))


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn
    from torch.nn.functional import softplus

    if compiled:
        raise NotImplementedError("torch.compile does not differentiate gradients of compiled functions")
    g = nn.Sequential(nn.Linear(LATENT, 2 * WIDTH * START**2), nn.Unflatten(1, (2 * WIDTH, START, START)),
                      nn.BatchNorm2d(2 * WIDTH), nn.ReLU(), nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1),
                      nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.ConvTranspose2d(WIDTH, 1, 4, 2, 1), nn.Tanh())
    d = nn.Sequential(nn.Conv2d(1, WIDTH, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1),
                      nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(2 * WIDTH * START**2, 1))
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), RATE, (B1, 0.999)) for net in (g, d))
    averaged = torch.optim.swa_utils.AveragedModel(g, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA))
    turn = itertools.cycle(map(torch.from_numpy, images(20, BATCH, SIZE)))

    def once():
        g_adam.zero_grad()
        drawn = g(torch.randn(BATCH, LATENT))
        softplus(-d(drawn)).mean().backward()
        g_adam.step()
        d_adam.zero_grad()
        real = (next(turn)[:, None].float() / 127.5 - 1).requires_grad_()
        scores = d(real)
        (gradient,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        value = softplus(-scores).mean() + softplus(d(drawn.detach())).mean()
        (value + 0.5 * gradient.square().sum() / BATCH).backward()
        d_adam.step()
        averaged.update_parameters(g)
        return value.item()

    return Run(once, sum(p.numel() for net in (g, d) for p in net.parameters()))


TRAINER = Trainer("gan", _ours, _jax, _torch)

# SPDX-License-Identifier: MIT
"""examples/diffusion.py: a small U-Net that tells noise, with Adam and an average of its weights, batch 64.

The images are 8x8, as the example's digits.
"""

import itertools

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, dense, example, filters, images, our_run, scales

BATCH, SIZE, RATE, WIDTH, TIME, N_LEVELS, EMA = 64, 8, 1e-3, 32, 64, 200, 0.995


def _ours() -> Run:
    trainer = example("diffusion")
    key = trainer.fl.random.key(0)
    model, opt = trainer.UNet(key=key), trainer.optim.adam(RATE)
    state = trainer.State(model, model, opt.init(model), key)
    return our_run(trainer.make_train_step(opt), state, images(20, BATCH, SIZE), count(model))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.trainers import jax_layers as layers

    rng = np.random.default_rng(0)

    def block(n_in, n_out):
        return {"norm1": scales(n_in), "norm2": scales(n_out), "conv1": filters(rng, n_out, n_in, 3),
                "conv2": filters(rng, n_out, n_out, 3), "shift": dense(rng, TIME, n_out),
                "skip": filters(rng, n_out, n_in, 1)}

    params = {"time1": dense(rng, TIME, TIME), "time2": dense(rng, TIME, TIME), "first": filters(rng, WIDTH, 1, 3),
              "fine": block(WIDTH, WIDTH), "down": filters(rng, 2 * WIDTH, WIDTH, 3),
              "coarse": [block(2 * WIDTH, 2 * WIDTH) for _ in range(2)], "up": filters(rng, WIDTH, 2 * WIDTH, 4),
              "joined": block(2 * WIDTH, WIDTH), "last": filters(rng, 1, WIDTH, 3)}
    signals = jnp.asarray(example("diffusion").SIGNAL)

    def convolved(p, x, time):
        h = layers.conv(p["conv1"], jax.nn.silu(layers.group_norm(p["norm1"], x)))
        h = h + layers.dense(p["shift"], time)[:, :, None, None]
        return layers.conv(p["skip"], x, 1, 0) + layers.conv(p["conv2"], jax.nn.silu(layers.group_norm(p["norm2"], h)))

    def told(params, x, levels):
        angles = levels[:, None] * 10000.0 ** (-jnp.arange(TIME // 2) / (TIME // 2))
        waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(BATCH, TIME)
        time = layers.dense(params["time2"], jax.nn.silu(layers.dense(params["time1"], waves)))
        fine = convolved(params["fine"], layers.conv(params["first"], x), time)
        h = layers.conv(params["down"], fine, 2)
        for p in params["coarse"]:
            h = convolved(p, h, time)
        h = jnp.concatenate([fine, layers.conv_transpose(params["up"], jax.nn.silu(h))], 1)
        return layers.conv(params["last"], jax.nn.silu(convolved(params["joined"], h, time)))

    def loss(params, x, key):
        key1, key2 = jax.random.split(key)
        clean = x[:, None].astype(jnp.float32) / 127.5 - 1
        levels = jax.random.randint(key1, (BATCH,), 0, N_LEVELS)
        noise = jax.random.normal(key2, clean.shape)
        signal = signals[levels][:, None, None, None]
        noisy = jnp.sqrt(signal) * clean + jnp.sqrt(1 - signal) * noise
        return jnp.mean((told(params, noisy, levels) - noise) ** 2)

    optimizer = optax.adam(RATE)

    def step(params, averaged, state, key, x):
        key, now = jax.random.split(key)
        value, grads = jax.value_and_grad(loss)(params, x, now)
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
        averaged = jax.tree.map(lambda mean, new: EMA * mean + (1 - EMA) * new, averaged, params)
        return params, averaged, state, key, value

    step = jax.jit(step, donate_argnums=(0, 1, 2, 3))
    params = jax.tree.map(jnp.asarray, params)
    held = [params, jax.tree.map(jnp.copy, params), optimizer.init(params), jax.random.key(0)]
    turn = itertools.cycle(map(jnp.asarray, images(20, BATCH, SIZE)))

    def once():
        *held[:], value = step(*held, next(turn))
        return float(value)

    return Run(once, sum(leaf.size for leaf in jax.tree.leaves(params)))


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn
    from torch.nn.functional import mse_loss, silu

    class Block(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.norm1, self.norm2 = nn.GroupNorm(8, n_in), nn.GroupNorm(8, n_out)
            self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
            self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
            self.shift, self.skip = nn.Linear(TIME, n_out), nn.Conv2d(n_in, n_out, 1)

        def forward(self, x, time):
            h = self.conv1(silu(self.norm1(x))) + self.shift(time)[:, :, None, None]
            return self.skip(x) + self.conv2(silu(self.norm2(h)))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.time = nn.Sequential(nn.Linear(TIME, TIME), nn.SiLU(), nn.Linear(TIME, TIME))
            self.first, self.last = nn.Conv2d(1, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 1, 3, padding=1)
            self.fine, self.joined = Block(WIDTH, WIDTH), Block(2 * WIDTH, WIDTH)
            self.down = nn.Conv2d(WIDTH, 2 * WIDTH, 3, 2, 1)
            self.coarse = nn.ModuleList([Block(2 * WIDTH, 2 * WIDTH) for _ in range(2)])
            self.up = nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1)

        def forward(self, x, levels):
            angles = levels[:, None] * 10000.0 ** (-torch.arange(TIME // 2) / (TIME // 2))
            time = self.time(torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
            fine = self.fine(self.first(x), time)
            h = self.down(fine)
            for block in self.coarse:
                h = block(h, time)
            return self.last(silu(self.joined(torch.cat([fine, self.up(silu(h))], 1), time)))

    model = UNet()
    signals = torch.from_numpy(example("diffusion").SIGNAL)
    adam = torch.optim.Adam(model.parameters(), RATE)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA))
    turn = itertools.cycle(map(torch.from_numpy, images(20, BATCH, SIZE)))

    def loss(x):
        clean = x[:, None].float() / 127.5 - 1
        levels = torch.randint(0, N_LEVELS, (BATCH,))
        noise = torch.randn_like(clean)
        signal = signals[levels][:, None, None, None]
        return mse_loss(model(signal.sqrt() * clean + (1 - signal).sqrt() * noise, levels), noise)

    value_of = torch.compile(loss) if compiled else loss

    def once():
        adam.zero_grad()
        value = value_of(next(turn))
        value.backward()
        adam.step()
        averaged.update_parameters(model)
        return value.item()

    return Run(once, sum(p.numel() for p in model.parameters()))


TRAINER = Trainer("diffusion", _ours, _jax, _torch)

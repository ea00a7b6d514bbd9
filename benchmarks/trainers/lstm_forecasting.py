# SPDX-License-Identifier: MIT
"""examples/lstm_forecasting.py: an LSTM of 64 over 72 hours of 6 numbers with AdamW and clipping, batch 64."""

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, dense, example, jax_run, our_run, torch_run

BATCH, PAST, AHEAD, FEATURES, HIDDEN = 64, 72, 24, 6, 64
RATE, DECAY, CLIP = 2e-3, 1e-2, 1.0


def _batches():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        phase, speed = rng.uniform(0, 6, (BATCH, 1, FEATURES)), rng.uniform(0.05, 0.3, (BATCH, 1, FEATURES))
        wave = np.sin(phase + speed * np.arange(PAST + AHEAD)[:, None]).astype(np.float32)
        found.append((wave[:, :PAST].copy(), wave[:, PAST:, 0] - wave[:, PAST - 1, :1]))
    return found


def _ours() -> Run:
    trainer = example("lstm_forecasting")
    model = trainer.Forecaster(FEATURES, key=trainer.fl.random.key(0))
    adamw = trainer.optim.adamw(RATE, weight_decay=DECAY)
    opt = trainer.optim.chain(trainer.optim.clip_by_global_norm(CLIP), adamw)
    return our_run(trainer.make_train_step(opt), trainer.State(model, opt.init(model)), _batches(), count(model))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.trainers import jax_layers as layers

    rng = np.random.default_rng(0)
    params = {"input": dense(rng, FEATURES, 4 * HIDDEN), "state": dense(rng, HIDDEN, 4 * HIDDEN),
              "out": dense(rng, HIDDEN, AHEAD)}

    def loss(params, past, change):
        projected = layers.dense(params["input"], jnp.swapaxes(past, 0, 1))

        def step(carry, now):
            h, c = carry
            i, f, g, o = jnp.split(now + layers.dense(params["state"], h), 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        zeros = jnp.zeros((BATCH, HIDDEN))
        (h, _), _ = jax.lax.scan(step, (zeros, zeros), projected)
        return optax.huber_loss(layers.dense(params["out"], h), change).mean()

    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(RATE, weight_decay=DECAY))
    return jax_run(loss, params, optimizer, _batches())


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn

    class Forecaster(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(FEATURES, HIDDEN, batch_first=True), nn.Linear(HIDDEN, AHEAD)

        def forward(self, past):
            return self.out(self.lstm(past)[0][:, -1])

    model = Forecaster()
    adamw = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    adamw.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(model.parameters(), CLIP) and None)

    def loss(past, change):
        return nn.functional.huber_loss(model(past), change)

    return torch_run(model, loss, adamw, _batches(), compiled)


TRAINER = Trainer("lstm_forecasting", _ours, _jax, _torch)

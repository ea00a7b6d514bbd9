# SPDX-License-Identifier: MIT
"""examples/vae.py: perceptrons of 512 hidden units around 20 latent numbers with Adam, 28x28 images, batch 128."""

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, dense, example, images, our_run, torch_run

BATCH, SIZE, RATE, LATENT, HIDDEN = 128, 28, 1e-3, 20, 512
PIXELS = SIZE * SIZE


def _ours() -> Run:
    trainer = example("vae")
    key = trainer.fl.random.key(0)
    model, opt = trainer.VAE(PIXELS, key=key), trainer.optim.adam(RATE)
    state = trainer.State(model, opt.init(model), key)
    return our_run(trainer.make_train_step(opt), state, images(20, BATCH, SIZE), count(model))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.trainers import jax_layers as layers
    from benchmarks.trainers.common import jax_run

    rng = np.random.default_rng(0)
    params = {"in": dense(rng, PIXELS, HIDDEN), "code": dense(rng, HIDDEN, 2 * LATENT),
              "from": dense(rng, LATENT, HIDDEN), "out": dense(rng, HIDDEN, PIXELS)}

    def loss(params, x, number):
        x = x.reshape(BATCH, -1).astype(jnp.float32) / 255
        mean, log_variance = jnp.split(layers.dense(params["code"], jax.nn.relu(layers.dense(params["in"], x))), 2, -1)
        noise = jax.random.normal(jax.random.key(number), mean.shape)
        latent = mean + jnp.exp(0.5 * log_variance) * noise
        logits = layers.dense(params["out"], jax.nn.relu(layers.dense(params["from"], latent)))
        divergence = 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance)
        return (optax.sigmoid_binary_cross_entropy(logits, x).sum() + divergence) / BATCH

    batches = [(x, np.uint32(i)) for i, x in enumerate(images(20, BATCH, SIZE))]
    return jax_run(loss, params, optax.adam(RATE), batches)


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn
    from torch.nn import functional

    encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))
    model = nn.ModuleList([encoder, decoder])

    def loss(x):
        x = x.flatten(1).float() / 255
        mean, log_variance = encoder(x).chunk(2, -1)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        reconstruction = functional.binary_cross_entropy_with_logits(decoder(latent), x, reduction="sum")
        divergence = 0.5 * torch.sum(mean**2 + log_variance.exp() - 1 - log_variance)
        return (reconstruction + divergence) / BATCH

    batches = [(x,) for x in images(20, BATCH, SIZE)]
    return torch_run(model, loss, torch.optim.Adam(model.parameters(), RATE), batches, compiled)


TRAINER = Trainer("vae", _ours, _jax, _torch)

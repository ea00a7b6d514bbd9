# SPDX-License-Identifier: MIT
"""examples/fashion_mnist.py: two convolutions and a linear layer with Adam, 28x28 images, batch 128."""

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, dense, example, filters, images, jax_run, our_run, torch_run

BATCH, SIZE, RATE = 128, 28, 3e-3


def _batches():
    """Images, and labels that they tell: where the brightest pixel is."""
    found = images(20, BATCH, SIZE)
    return [(x, (x.reshape(BATCH, -1).argmax(1) % SIZE * 10 // SIZE).astype(np.uint8)) for x in found]


def _ours() -> Run:
    trainer = example("fashion_mnist")
    model, opt = trainer.CNN(SIZE, key=trainer.fl.random.key(0)), trainer.optim.adam(RATE)
    return our_run(trainer.make_train_step(opt), trainer.State(model, opt.init(model)), _batches(), count(model))


def _jax() -> Run:
    import jax
    import optax

    from benchmarks.trainers import jax_layers as layers

    rng = np.random.default_rng(0)
    params = {"conv1": filters(rng, 16, 1, 3), "conv2": filters(rng, 32, 16, 3), "out": dense(rng, 32 * 49, 10)}

    def loss(params, x, labels):
        x = (x[:, None].astype("float32") - 73.0) / 90.0
        for name in ("conv1", "conv2"):
            x = layers.max_pool(jax.nn.relu(layers.conv(params[name], x)))
        logits = layers.dense(params["out"], x.reshape(BATCH, -1))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return jax_run(loss, params, optax.adam(RATE), _batches())


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1),
                          nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 10))

    def loss(x, labels):
        return nn.functional.cross_entropy(model((x[:, None].float() - 73.0) / 90.0), labels)

    batches = [(x, labels.astype(np.int64)) for x, labels in _batches()]
    return torch_run(model, loss, torch.optim.Adam(model.parameters(), RATE), batches, compiled)


TRAINER = Trainer("fashion_mnist", _ours, _jax, _torch)

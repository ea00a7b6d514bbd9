# SPDX-License-Identifier: MIT
"""examples/resnet.py: the network of 8 layers with batch normalisation and SGD, 28x28 images, batch 128.

The images are not cropped and mirrored here: PyTorch's users do that in the loader.
"""

import itertools

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, dense, example, filters, images, our_run, scales, torch_run

BATCH, SIZE, RATE, DECAY = 128, 28, 0.05, 5e-4
STAGES = ((16, 16, 1), (16, 32, 2), (32, 64, 2))  # channels in and out, stride


def _batches():
    found = images(20, BATCH, SIZE)
    return [(x, (x.reshape(BATCH, -1).argmax(1) % SIZE * 10 // SIZE).astype(np.uint8)) for x in found]


def _ours() -> Run:
    trainer = example("resnet")
    key = trainer.fl.random.key(0)
    model = trainer.ResNet(1, 1, key=key)
    opt = trainer.optim.sgd(RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
    step = trainer.make_train_step(opt, augment=False)
    return our_run(step, trainer.State(model, opt.init(model), key), _batches(), count(model))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.trainers import jax_layers as layers

    rng = np.random.default_rng(0)

    def block(n_in, n_out):
        p = {"conv1": filters(rng, n_out, n_in, 3, bias=False), "conv2": filters(rng, n_out, n_out, 3, bias=False),
             "norm1": scales(n_out), "norm2": scales(n_out)}
        return p | {"skip": filters(rng, n_out, n_in, 1, bias=False)} if n_in != n_out else p

    params = {"first": filters(rng, 16, 1, 3, bias=False), "norm": scales(16), "out": dense(rng, 64, 10),
              "blocks": [block(n_in, n_out) for n_in, n_out, _ in STAGES]}
    running = [{"mean": np.zeros(n, np.float32), "var": np.ones(n, np.float32)} for n in (16, 16, 16, 32, 32, 64, 64)]

    def loss(params, running, x, labels):
        old, new = iter(running), []

        def norm(p, x):
            x, statistics = layers.batch_norm(p, next(old), x)
            new.append(statistics)
            return x

        x = x[:, None].astype(jnp.float32) / 127.5 - 1
        x = jax.nn.relu(norm(params["norm"], layers.conv(params["first"], x)))
        for p, (_, _, stride) in zip(params["blocks"], STAGES, strict=True):
            h = jax.nn.relu(norm(p["norm1"], layers.conv(p["conv1"], x, stride)))
            skip = layers.conv(p["skip"], x, stride, 0) if "skip" in p else x
            x = jax.nn.relu(norm(p["norm2"], layers.conv(p["conv2"], h)) + skip)
        logits = layers.dense(params["out"], x.mean((2, 3)))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

    optimizer = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, 0.9, nesterov=True))

    def step(params, running, state, batch):
        (value, running), grads = jax.value_and_grad(loss, has_aux=True)(params, running, *batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), running, state, value

    step = jax.jit(step, donate_argnums=(0, 1, 2))
    params, running = jax.tree.map(jnp.asarray, (params, running))
    held = [params, running, optimizer.init(params)]
    turn = itertools.cycle([tuple(map(jnp.asarray, batch)) for batch in _batches()])

    def once():
        *held[:], value = step(*held, next(turn))
        return float(value)

    return Run(once, sum(leaf.size for leaf in jax.tree.leaves(params)))


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, n_in, n_out, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
            self.norm1, self.norm2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
            self.skip = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if n_in != n_out else nn.Identity()

        def forward(self, x):
            h = functional.relu(self.norm1(self.conv1(x)))
            return functional.relu(self.norm2(self.conv2(h)) + self.skip(x))

    model = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                          *(Block(*stage) for stage in STAGES), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(64, 10))

    def loss(x, labels):
        return functional.cross_entropy(model(x[:, None].float() / 127.5 - 1), labels)

    sgd = torch.optim.SGD(model.parameters(), RATE, 0.9, weight_decay=DECAY, nesterov=True)
    return torch_run(model, loss, sgd, [(x, labels.astype(np.int64)) for x, labels in _batches()], compiled)


TRAINER = Trainer("resnet", _ours, _jax, _torch)

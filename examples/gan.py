# SPDX-License-Identifier: MIT
"""Train a generative adversarial network on Fashion-MNIST: two convolutional networks that play against each other.

    python examples/gan.py

The generator turns 64 random numbers into an image, the discriminator tells drawn images from real ones; its gradient
with respect to real images is kept small (R1), so the training takes a gradient of a gradient. How good the images are
is measured by a small classifier that is trained first: the Frechet distance between what its hidden layer sees in
drawn images and in the test images, and beside it the same for real training images. Written to out/gan/:
  curves.png          the two losses, the penalty and the distance
  samples.png         drawn images

References
  model       I. Goodfellow and others, arXiv:1406.2661; A. Radford and others, "DCGAN", arXiv:1511.06434
  penalty     L. Mescheder and others, "Which training methods for GANs do actually converge?", arXiv:1801.04406
  distance    M. Heusel and others, arXiv:1706.08500, with the classifier below in place of an ImageNet network
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import data, nn, optim, train

LATENT, WIDTH, PENALTY, EMA = 64, 32, 1.0, 0.998


class Generator(nn.Module):
    """latent float32 [batch, LATENT] -> images in -1..1 [batch, 1, size, size]."""

    project: nn.Linear
    norm1: nn.BatchNorm2d
    norm2: nn.BatchNorm2d
    up1: nn.ConvTranspose2d
    up2: nn.ConvTranspose2d
    start: int

    def __init__(self, size, *, key):
        key1, key2, key3 = fl.random.split(key, 3)
        self.start = size // 4
        self.project = nn.Linear(LATENT, 2 * WIDTH * self.start**2, key=key1)
        self.up1 = nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1, key=key2)
        self.up2 = nn.ConvTranspose2d(WIDTH, 1, 4, 2, 1, key=key3)
        self.norm1, self.norm2 = nn.BatchNorm2d(2 * WIDTH), nn.BatchNorm2d(WIDTH)

    def __call__(self, latent):
        x = self.project(latent).reshape(-1, 2 * WIDTH, self.start, self.start)
        x = self.up1(nn.relu(self.norm1(x)))
        return np.tanh(self.up2(nn.relu(self.norm2(x))))


class Discriminator(nn.Module):
    """images [batch, 1, size, size] -> a number each [batch], above 0 where it holds the image for real."""

    down1: nn.Conv2d
    down2: nn.Conv2d
    out: nn.Linear

    def __init__(self, size, *, key):
        key1, key2, key3 = fl.random.split(key, 3)
        self.down1 = nn.Conv2d(1, WIDTH, 4, 2, 1, key=key1)
        self.down2 = nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1, key=key2)
        self.out = nn.Linear(2 * WIDTH * (size // 4) ** 2, 1, key=key3)

    def __call__(self, x):
        x = nn.leaky_relu(self.down2(nn.leaky_relu(self.down1(x), 0.2)), 0.2)
        return self.out(x.reshape(len(x), -1))[:, 0]


class State(NamedTuple):
    generator: Generator
    discriminator: Discriminator
    averaged: Generator  # a running mean of the generator, which draws better images than its last state
    g_state: Any
    d_state: Any
    key: Any


def to_input(images):
    """Pixels uint8 [batch, size, size] -> floats in -1..1 [batch, 1, size, size]."""
    return images[:, None].astype(np.float32) / 127.5 - 1


def discriminator_loss(discriminator, real, drawn):
    """Logistic loss on both kinds of images, and the squared gradient with respect to the real ones."""
    loss = nn.softplus(-discriminator(real)).mean() + nn.softplus(discriminator(drawn)).mean()
    gradient = fl.grad(lambda x: discriminator(x).sum())(real)
    penalty = (gradient**2).sum() / len(real)
    return loss + 0.5 * PENALTY * penalty, {"discriminator loss": loss, "penalty": penalty}


def generator_loss(generator, discriminator, latent):
    drawn, generator = nn.apply(generator, latent, training=True)
    return nn.softplus(-discriminator(drawn)).mean(), (drawn, generator)


def make_train_step(opt):
    @fl.jit
    def train_step(state, images):
        key, now = fl.random.split(state.key)
        latent = fl.random.normal(now, (len(images), LATENT))
        (loss, (drawn, generator)), grads = fl.value_and_grad(generator_loss, has_aux=True)(
            state.generator, state.discriminator, latent
        )
        generator, g_state = opt.step(generator, grads, state.g_state)
        grads, figures = fl.grad(discriminator_loss, has_aux=True)(state.discriminator, to_input(images), drawn)
        discriminator, d_state = opt.step(state.discriminator, grads, state.d_state)
        averaged = fl.tree.map(lambda mean, new: EMA * mean + (1 - EMA) * new, state.averaged, generator)
        new = State(generator, discriminator, averaged, g_state, d_state, key)
        return new, {"generator loss": loss, **figures}

    return train_step


# --- how good the images are: a classifier's hidden layer, and the Frechet distance -------------------------------


@fl.jit
def features(classifier, images):
    """What the hidden layer of the classifier sees: images [batch, 1, size, size] -> [batch, 64]."""
    return nn.relu(classifier.layers[0](images.reshape(len(images), -1)))


def train_classifier(images, labels, seed):
    """A perceptron with one hidden layer, trained for three epochs."""
    classifier = nn.MLP((images[0].size, 64, 10), key=fl.random.key(seed))
    opt = optim.adam(1e-3)

    def loss(classifier, x, y):
        return nn.cross_entropy(classifier(to_input(x).reshape(len(x), -1)), y)

    @fl.jit
    def step(state, batch):
        value, grads = fl.value_and_grad(loss)(state[0], *batch)
        return opt.step(state[0], grads, state[1]), {"loss": value}

    batches = data.Loader((images, labels), 128, seed=seed)
    return train.fit(step, (classifier, opt.init(classifier)), batches, epochs=3, title="classifier").state[0]


def frechet_distance(a, b):
    """|mean difference|^2 + tr(A + B - 2 sqrt(A B)) of features a, b [n, k], for their covariances A and B."""
    a, b = np.float64(a), np.float64(b)
    first, second = np.cov(a.T), np.cov(b.T)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(first @ second).real, 0))
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first) + np.trace(second) - 2 * roots.sum())


@fl.jit(static_argnames="n")
def draw_images(generator, key, n):
    return generator(fl.random.normal(key, (n, LATENT)))


def draw(path, images, n_columns):
    """Images in -1..1 [n, 1, size, size] as one picture."""
    from matplotlib import image

    rows = [np.hstack(images[i : i + n_columns, 0]) for i in range(0, len(images), n_columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    image.imsave(path, -np.vstack(rows), cmap="gray", vmin=-1, vmax=1)


def arguments(argv):
    parser = argparse.ArgumentParser(description="Train a generative adversarial network on Fashion-MNIST.")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=["fashion_mnist", "digits"], default="fashion_mnist")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the pictures")
    parser.add_argument("--out", type=Path, default=Path("out/gan"), help="folder of the pictures")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    (images, labels), (test_images, _) = getattr(data, args.data)("train"), getattr(data, args.data)("test")

    def put(array):
        return fl.numpy.asarray(array, device=args.device)

    def to_host(array):
        return fl.numpy.asarray(array, device="cpu")

    classifier = train_classifier(images, labels, args.seed)
    n = len(test_images)
    seen = features(classifier, to_input(test_images))
    floor = frechet_distance(features(classifier, to_input(images[:n])), seen)

    def evaluate(state):
        drawn = to_host(draw_images(state.averaged, put(fl.random.key(args.seed)), n))
        return {"distance": frechet_distance(features(classifier, drawn), seen)}

    key1, key2, key3 = fl.random.split(fl.random.key(args.seed), 3)
    generator = fl.tree.map(put, Generator(images.shape[-1], key=key1))
    discriminator = fl.tree.map(put, Discriminator(images.shape[-1], key=key2))
    opt = optim.adam(args.learning_rate, b1=0.5)
    states = opt.init(generator), opt.init(discriminator)
    state = State(generator, discriminator, generator, *states, put(key3))
    before, train_step = evaluate(state)["distance"], make_train_step(opt)
    start = time.perf_counter()
    result = train.fit(
        lambda state, batch: train_step(state, put(batch)), state, data.Loader(images, args.batch_size, seed=args.seed),
        steps=args.steps, evaluate=evaluate, every=max(1, args.steps // 8), title="GAN",
        plot=args.out / "curves.png" if args.plot else None,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    distance = result.history["eval/distance"][-1][1]
    print(f"Frechet distance {distance:.2f} after {args.steps} steps in {seconds:.0f} s")
    print(f"(untrained {before:.2f}, real training images {floor:.2f})")
    if args.plot:
        draw(args.out / "samples.png", to_host(draw_images(result.state.averaged, put(key1), 200)), 20)
        print(f"pictures: {args.out / 'curves.png'}, {args.out / 'samples.png'}")
    return distance, before, floor


if __name__ == "__main__":
    main()

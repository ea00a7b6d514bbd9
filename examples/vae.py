# SPDX-License-Identifier: MIT
"""Train a variational autoencoder on Fashion-MNIST and draw new clothes from it.

    python examples/vae.py

Two small multilayer perceptrons: the encoder turns an image into a normal distribution over 20 numbers, the decoder
turns 20 numbers into the probability of each pixel to be dark. It prints the evidence lower bound on the test images,
in nats an image, beside that of a model which knows each pixel's mean alone, and writes to out/vae/
  curves.png            loss and its two parts
  reconstructions.png   test images, and below each what comes back out of 20 numbers
  samples.png           images decoded from random numbers

References
  model       D. Kingma, M. Welling, "Auto-encoding variational Bayes", arXiv:1312.6114
  data        H. Xiao and others, "Fashion-MNIST", arXiv:1708.07747
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import data, nn, optim, train

LATENT, HIDDEN = 20, 512


class VAE(nn.Module):
    """Pixels float32 [batch, n_pixels] in 0..1 and a key -> (logits of the pixels, means, log variances)."""

    encoder: nn.MLP
    decoder: nn.MLP

    def __init__(self, n_pixels, *, key):
        key1, key2 = fl.random.split(key)
        self.encoder = nn.MLP((n_pixels, HIDDEN, 2 * LATENT), key=key1)
        self.decoder = nn.MLP((LATENT, HIDDEN, n_pixels), key=key2)

    def __call__(self, pixels, key):
        mean, log_variance = np.split(self.encoder(pixels), 2, axis=-1)
        noise = fl.random.normal(key, mean.shape)
        return self.decoder(mean + np.exp(0.5 * log_variance) * noise), mean, log_variance


class State(NamedTuple):
    model: VAE
    opt_state: Any
    key: Any


def loss_fn(model, images, key):
    """The negative evidence lower bound, in nats an image, and its two parts: uint8 images [batch, size, size]."""
    pixels = to_pixels(images)
    logits, mean, log_variance = model(pixels, key)
    reconstruction = nn.bce_with_logits(logits, pixels, reduction="sum") / len(images)
    # KL(N(mean, variance) || N(0, 1)), summed over the latent numbers
    divergence = 0.5 * np.sum(mean**2 + np.exp(log_variance) - 1 - log_variance) / len(images)
    loss = reconstruction + divergence
    return loss, {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}


def to_pixels(images):
    return images.reshape(len(images), -1).astype(np.float32) / 255


def make_train_step(opt):
    @fl.jit
    def train_step(state, images):
        key, now = fl.random.split(state.key)
        grads, figures = fl.grad(loss_fn, has_aux=True)(state.model, images, now)
        return State(*opt.step(state.model, grads, state.opt_state), key), figures

    return train_step


@fl.jit
def figures_of(state, images):
    return loss_fn(state.model, images, state.key)[1]


def loss_of_means(images, test_images):
    """Nats an image of a model in which every pixel is dark by itself, with the probability of its training mean."""
    p = np.clip(to_pixels(images).mean(0, dtype=np.float64), 1e-6, 1 - 1e-6)
    x = to_pixels(test_images)
    return -float(np.mean(np.sum(x * np.log(p) + (1 - x) * np.log1p(-p), axis=1)))


@fl.jit
def decode(model, latent):
    return nn.sigmoid(model.decoder(latent))


def draw(path, rows, size):
    """Rows of pixels [n, n_pixels] in 0..1, below one another, as one picture."""
    from matplotlib import image

    tiles = [np.hstack([pixels.reshape(size, size) for pixels in row]) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    image.imsave(path, 1 - np.vstack(tiles), cmap="gray", vmin=0, vmax=1)


def arguments(argv):
    parser = argparse.ArgumentParser(description="Train a variational autoencoder on Fashion-MNIST.")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, help="stop after this many steps in all")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=["fashion_mnist", "digits"], default="fashion_mnist")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the pictures")
    parser.add_argument("--out", type=Path, default=Path("out/vae"), help="folder of the pictures")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    (images, _), (test_images, _) = getattr(data, args.data)("train"), getattr(data, args.data)("test")
    size = images.shape[-1]
    batches = data.Loader(images, args.batch_size, seed=args.seed)
    tests = data.Loader(test_images, 500, seed=None, drop_last=False)
    n_steps = min(args.steps or args.epochs * len(batches), args.epochs * len(batches))

    def put(array):
        return fl.numpy.asarray(array, device=args.device)

    key, model_key = fl.random.split(fl.random.key(args.seed))
    model = fl.tree.map(put, VAE(size * size, key=model_key))
    opt = optim.adam(optim.cosine_decay(args.learning_rate, n_steps))
    train_step = make_train_step(opt)
    start = time.perf_counter()
    result = train.fit(
        lambda state, batch: train_step(state, put(batch)), State(model, opt.init(model), key), batches, steps=n_steps,
        evaluate=lambda state: train.evaluate(lambda state, batch: figures_of(state, put(batch)), state, tests),
        plot=args.out / "curves.png" if args.plot else None, title="VAE",
    )  # fmt: skip
    seconds = time.perf_counter() - start

    model, loss, means = result.state.model, result.history["eval/loss"][-1][1], loss_of_means(images, test_images)
    print(f"test images: {loss:.1f} nats an image after {n_steps} steps in {seconds:.0f} s (pixel means: {means:.1f})")
    if args.plot:
        shown = to_pixels(put(test_images[:20]))
        again = decode(model, np.split(model.encoder(shown), 2, axis=-1)[0])
        drawn = decode(model, put(fl.random.normal(fl.random.key(args.seed), (200, LATENT))))
        rows = [fl.numpy.asarray(part, device="cpu") for part in (shown, again)]
        draw(args.out / "reconstructions.png", rows, size)
        draw(args.out / "samples.png", fl.numpy.asarray(drawn, device="cpu").reshape(10, 20, -1), size)
        print(f"pictures: {', '.join(str(path) for path in sorted(args.out.glob('*.png')))}")
    return loss, means


if __name__ == "__main__":
    main()

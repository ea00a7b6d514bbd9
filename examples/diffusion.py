# SPDX-License-Identifier: MIT
"""Train a denoising diffusion model on handwritten digits, and let it turn noise into digits.

    python examples/diffusion.py                            # 8x8 digits, which come with scikit-learn
    python examples/diffusion.py --data fashion_mnist       # 28x28 clothes

A small U-Net learns to tell the noise in a noisy image, at each of 200 levels of noise; images are made by starting
from noise alone and taking a little of it away 200 times. It prints the mean squared error of the told noise (whose
variance is 1) on test images, beside that of the best linear denoiser, and writes to out/diffusion/
  curves.png      the error on training and on test images
  samples.png     images made out of noise
  steps.png       a few of them on their way

References
  model       J. Ho and others, "Denoising diffusion probabilistic models", arXiv:2006.11239
  levels      A. Nichol, P. Dhariwal, "Improved denoising diffusion probabilistic models", arXiv:2102.09672
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import data, nn, optim, train

N_LEVELS, WIDTH, TIME, EMA = 200, 32, 64, 0.995

# The share of the image that is left at each level: falls from 1 to 0 by a cosine.
_WAVE = np.cos((np.arange(N_LEVELS + 1) / N_LEVELS + 0.008) / 1.008 * np.pi / 2) ** 2
BETA = np.minimum(1 - _WAVE[1:] / _WAVE[:-1], 0.999).astype(np.float32)
SIGNAL = np.cumprod(1 - BETA, dtype=np.float32)


class Block(nn.Module):
    """Two convolutions that know the level, around a residual: x [batch, c_in, h, w], time [batch, TIME]."""

    norm1: nn.GroupNorm
    norm2: nn.GroupNorm
    conv1: nn.Conv2d
    conv2: nn.Conv2d
    shift: nn.Linear
    skip: nn.Conv2d

    def __init__(self, c_in, c_out, *, key):
        keys = fl.random.split(key, 4)
        self.norm1, self.norm2 = nn.GroupNorm(8, c_in), nn.GroupNorm(8, c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, key=keys[0])
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, key=keys[1])
        self.shift = nn.Linear(TIME, c_out, key=keys[2])
        self.skip = nn.Conv2d(c_in, c_out, 1, key=keys[3])

    def __call__(self, x, time):
        h = self.conv1(nn.silu(self.norm1(x))) + self.shift(time)[:, :, None, None]
        return self.skip(x) + self.conv2(nn.silu(self.norm2(h)))


class UNet(nn.Module):
    """The noise in x float32 [batch, 1, size, size] of levels integer [batch]."""

    time: nn.MLP
    first: nn.Conv2d
    fine: Block
    down: nn.Conv2d
    coarse: tuple[Block, Block]
    up: nn.ConvTranspose2d
    joined: Block
    last: nn.Conv2d

    def __init__(self, *, key):
        keys = fl.random.split(key, 9)
        self.time = nn.MLP((TIME, TIME, TIME), activation=nn.silu, key=keys[0])
        self.first = nn.Conv2d(1, WIDTH, 3, padding=1, key=keys[1])
        self.fine = Block(WIDTH, WIDTH, key=keys[2])
        self.down = nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1, key=keys[3])
        self.coarse = tuple(Block(2 * WIDTH, 2 * WIDTH, key=k) for k in keys[4:6])
        self.up = nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1, key=keys[6])
        self.joined = Block(2 * WIDTH, WIDTH, key=keys[7])
        self.last = nn.Conv2d(WIDTH, 1, 3, padding=1, key=keys[8])

    def __call__(self, x, levels):
        time = self.time(nn.sinusoidal_positions(levels, TIME))
        fine = self.fine(self.first(x), time)
        h = self.down(fine)
        for block in self.coarse:
            h = block(h, time)
        h = np.concatenate([fine, self.up(nn.silu(h))], axis=1)
        return self.last(nn.silu(self.joined(h, time)))


class State(NamedTuple):
    model: UNet
    averaged: UNet  # a running mean of the model, which makes better images than its last state
    opt_state: Any
    key: Any


def to_input(images):
    """Pixels uint8 [batch, size, size] -> floats in -1..1 [batch, 1, size, size]."""
    return images[:, None].astype(np.float32) / 127.5 - 1


def loss_fn(model, images, key):
    """Mean squared error of the told noise, each image at a level of its own."""
    key1, key2 = fl.random.split(key)
    clean = to_input(images)
    levels = fl.random.randint(key1, (len(images),), 0, N_LEVELS)
    noise = fl.random.normal(key2, clean.shape)
    signal = fl.numpy.take(SIGNAL, levels)[:, None, None, None]
    return nn.mse(model(np.sqrt(signal) * clean + np.sqrt(1 - signal) * noise, levels), noise)


def make_train_step(opt):
    @fl.jit
    def train_step(state, images):
        key, now = fl.random.split(state.key)
        loss, grads = fl.value_and_grad(loss_fn)(state.model, images, now)
        model, opt_state = opt.step(state.model, grads, state.opt_state)
        averaged = fl.tree.map(lambda mean, new: EMA * mean + (1 - EMA) * new, state.averaged, model)
        return State(model, averaged, opt_state, key), {"loss": loss}

    return train_step


@fl.jit
def figures_of(model, images):
    """The error on images, each at four levels: the same levels and noise in each call."""
    keys = fl.random.split(fl.random.key(0), 4)
    return {"loss": fl.vmap(loss_fn, in_axes=(None, None, 0))(model, images, keys).mean()}


def loss_of_linear_denoiser(images):
    """The error of the best linear map from a noisy image to its noise.

    Along a principal axis of the images with variance v, noise of variance 1 - s is seen beside s v of signal, so the
    unknown share of it is s v / (s v + 1 - s).
    """
    variances = np.linalg.eigvalsh(np.cov(to_input(images).reshape(len(images), -1).T))
    signal = SIGNAL[:, None] * np.maximum(variances, 0)
    return float(np.mean(signal / (signal + 1 - SIGNAL[:, None])))


@fl.jit(static_argnames=("n", "size"))
def make_images(model, key, n, size):
    """n images [n, 1, size, size] out of noise, and what they were after each step [N_LEVELS, n, 1, size, size]."""

    def step(x, now):
        level, beta, signal, key = now
        noise = model(x, np.broadcast_to(level, (n,)))
        mean = (x - beta / np.sqrt(1 - signal) * noise) / np.sqrt(1 - beta)
        x = mean + np.where(level > 0, np.sqrt(beta), 0) * fl.random.normal(key, x.shape)
        return x, x

    keys = fl.random.split(key, N_LEVELS + 1)
    start = fl.random.normal(keys[-1], (n, 1, size, size))
    return fl.lax.scan(step, start, (np.arange(N_LEVELS)[::-1], BETA[::-1], SIGNAL[::-1], keys[:-1]))


def draw(path, rows):
    """Rows of images [n, 1, size, size] in -1..1, below one another, as one picture."""
    from matplotlib import image

    picture = np.vstack([np.hstack(np.clip(row[:, 0], -1, 1)) for row in rows])
    scale = max(1, 28 // rows[0].shape[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.imsave(path, -picture.repeat(scale, 0).repeat(scale, 1), cmap="gray", vmin=-1, vmax=1)


def arguments(argv):
    parser = argparse.ArgumentParser(description="Train a denoising diffusion model on digits.")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=["digits", "fashion_mnist"], default="digits")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the pictures")
    parser.add_argument("--out", type=Path, default=Path("out/diffusion"), help="folder of the pictures")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    (images, _), (test_images, _) = getattr(data, args.data)("train"), getattr(data, args.data)("test")
    size = images.shape[-1]

    def put(array):
        return fl.numpy.asarray(array, device=args.device)

    key1, key2 = (put(key) for key in fl.random.split(fl.random.key(args.seed)))
    model = fl.tree.map(put, UNet(key=key1))
    opt = optim.adam(optim.cosine_decay(args.learning_rate, args.steps, warmup=args.steps // 20))
    train_step = make_train_step(opt)
    start = time.perf_counter()
    result = train.fit(
        lambda state, batch: train_step(state, put(batch)), State(model, model, opt.init(model), key2),
        data.Loader(images, args.batch_size, seed=args.seed), steps=args.steps,
        evaluate=lambda state: figures_of(state.averaged, put(test_images[:300])), every=max(1, args.steps // 6),
        plot=args.out / "curves.png" if args.plot else None, title="diffusion",
    )  # fmt: skip
    seconds = time.perf_counter() - start

    loss, linear = result.history["eval/loss"][-1][1], loss_of_linear_denoiser(images)
    print(f"test images: error {loss:.4f} after {args.steps} steps in {seconds:.0f} s (best linear: {linear:.4f})")
    if args.plot:
        made, steps = make_images(result.state.averaged, key2, 100, size)
        made, steps = (fl.numpy.asarray(part, device="cpu") for part in (made, steps))
        draw(args.out / "samples.png", made.reshape(5, 20, 1, size, size))
        draw(args.out / "steps.png", [steps[i, :20] for i in (0, 60, 100, 140, 170, N_LEVELS - 1)])
        print(f"pictures: {', '.join(str(path) for path in sorted(args.out.glob('*.png')))}")
    return loss, linear


if __name__ == "__main__":
    main()

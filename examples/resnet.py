# SPDX-License-Identifier: MIT
"""Train a residual network with batch normalisation: on Fashion-MNIST, or on CIFAR-10 where it can be had.

    python examples/resnet.py                       # 8 layers; minutes on two cores
    python examples/resnet.py --blocks 3            # 20 layers
    python examples/resnet.py --data cifar10

Three stages of residual blocks, 16, 32 and 64 channels wide, as K. He and others trained them on CIFAR-10. Every batch
is cropped and mirrored at random, each image by itself, inside the compiled step. BatchNorm's running statistics are
part of the model: `nn.apply` returns the model with the new ones. It prints the accuracy on the test images and writes
  curves.png          loss and accuracy during training
  predictions.png     some test images and what the model takes them for

References
  network     K. He and others, "Deep residual learning for image recognition", arXiv:1512.03385
  schedule    L. Smith, N. Topin, "Super-convergence", arXiv:1708.07120
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import data, nn, optim, train

WIDTHS, N_CLASSES = (16, 32, 64), 10


class Block(nn.Module):
    """x [batch, n_in, h, w] -> [batch, n_out, h / stride, w / stride]: two convolutions, and the input added."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    norm1: nn.BatchNorm2d
    norm2: nn.BatchNorm2d
    skip: nn.Conv2d | None

    def __init__(self, n_in, n_out, stride, *, key):
        keys = fl.random.split(key, 3)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False, key=keys[0])
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False, key=keys[1])
        self.norm1, self.norm2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.skip = nn.Conv2d(n_in, n_out, 1, stride, bias=False, key=keys[2]) if n_in != n_out else None

    def __call__(self, x):
        h = nn.relu(self.norm1(self.conv1(x)))
        return nn.relu(self.norm2(self.conv2(h)) + (x if self.skip is None else self.skip(x)))


class ResNet(nn.Module):
    """images float32 [batch, channels, size, size] -> logits [batch, 10]; 6 n_blocks + 2 layers."""

    first: nn.Conv2d
    norm: nn.BatchNorm2d
    blocks: tuple[Block, ...]
    out: nn.Linear

    def __init__(self, channels, n_blocks, *, key):
        keys = iter(fl.random.split(key, 3 * n_blocks + 2))
        self.first = nn.Conv2d(channels, WIDTHS[0], 3, 1, 1, bias=False, key=next(keys))
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        blocks, n_in = [], WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for i in range(n_blocks):
                blocks.append(Block(n_in, width, 2 if stage and i == 0 else 1, key=next(keys)))
                n_in = width
        self.blocks = tuple(blocks)
        self.out = nn.Linear(n_in, N_CLASSES, key=next(keys))

    def __call__(self, x):
        x = nn.relu(self.norm(self.first(x)))
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean((2, 3)))


class State(NamedTuple):
    model: ResNet
    opt_state: Any
    key: Any


def to_input(images):
    """Pixels uint8 [batch, size, size] or [batch, channels, size, size] -> floats [batch, channels, size, size]."""
    images = images[:, None] if images.ndim == 3 else images
    return images.astype(np.float32) / 127.5 - 1


def augmented(images, key, margin=2):
    """Each image [channels, size, size] moved by up to `margin` pixels and mirrored by a coin."""
    padded = np.pad(images, ((0, 0), (0, 0), (margin, margin), (margin, margin)), constant_values=-1)

    def one(image, padded, key):
        key1, key2 = fl.random.split(key)
        row, column = fl.random.randint(key1, (2,), 0, 2 * margin + 1)
        moved = fl.lax.dynamic_slice(padded, (0, row, column), image.shape)
        return np.where(fl.random.bernoulli(key2), moved[:, :, ::-1], moved)

    return fl.vmap(one)(images, padded, fl.random.split(key, len(images)))


def figures_of(logits, labels):
    loss = nn.cross_entropy(logits, labels)
    return {"loss": loss, "accuracy": train.accuracy(logits, labels)}


def loss_fn(model, images, labels):
    """The loss, and with it all figures and the model with new running statistics."""
    logits, model = nn.apply(model, images, training=True)
    figures = figures_of(logits, labels)
    return figures["loss"], (figures, model)


def make_train_step(opt, augment):
    @fl.jit
    def train_step(state, batch):
        key, now = fl.random.split(state.key)
        images = augmented(to_input(batch[0]), now) if augment else to_input(batch[0])
        grads, (figures, model) = fl.grad(loss_fn, has_aux=True)(state.model, images, batch[1])
        return State(*opt.step(model, grads, state.opt_state), key), figures

    return train_step


@fl.jit
def test_step(state, batch):
    return figures_of(state.model(to_input(batch[0])), batch[1])


@fl.jit
def predict(model, images):
    return model(to_input(images)).argmax(-1)


def load(name):
    """((images, labels) of training, (images, labels) of test, class names)."""
    names = {"cifar10": "CIFAR10_CLASSES", "fashion_mnist": "FASHION_MNIST_CLASSES"}
    classes = getattr(data, names[name]) if name in names else [str(i) for i in range(N_CLASSES)]
    return getattr(data, name)("train"), getattr(data, name)("test"), classes


def arguments(argv):
    parser = argparse.ArgumentParser(description="Train a residual network.")
    parser.add_argument("--blocks", type=int, default=1, help="residual blocks in each of the three stages")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, help="stop after this many steps in all")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=["fashion_mnist", "cifar10", "digits"], default="fashion_mnist")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the pictures")
    parser.add_argument("--out", type=Path, default=Path("out/resnet"), help="folder of the pictures")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    training, test, names = load(args.data)
    batches = data.Loader(training, args.batch_size, seed=args.seed)
    test_batches = data.Loader(test, 500, seed=None, drop_last=False)
    n_steps = min(args.steps or args.epochs * len(batches), args.epochs * len(batches))

    def put(tree):
        return fl.tree.map(lambda leaf: fl.numpy.asarray(leaf, device=args.device), tree)

    key, model_key = fl.random.split(fl.random.key(args.seed))
    model = ResNet(to_input(training[0][:1]).shape[1], args.blocks, key=model_key)
    rate = optim.one_cycle(args.learning_rate, n_steps)
    opt = optim.sgd(rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    train_step = make_train_step(opt, augment=args.data != "digits")
    n_parameters = sum(leaf.size for leaf in fl.tree.leaves(model))
    print(f"{args.data}: {6 * args.blocks + 2} layers, {n_parameters} parameters, {n_steps} steps of {args.batch_size}")

    start = time.perf_counter()
    result = train.fit(
        lambda state, batch: train_step(state, put(batch)), put(State(model, opt.init(model), key)), batches,
        steps=n_steps, title="ResNet", plot=args.out / "curves.png" if args.plot else None,
        evaluate=lambda state: train.evaluate(lambda state, batch: test_step(state, put(batch)), state, test_batches),
    )  # fmt: skip
    accuracy = result.history["eval/accuracy"][-1][1]
    print(f"test accuracy {accuracy:.2%} after {result.step} steps in {time.perf_counter() - start:.0f} s")
    if args.plot:
        images, labels = (part[:32] for part in test)
        predictions = fl.numpy.asarray(predict(result.state.model, put(images)), device="cpu")
        shown = images if images.ndim == 3 else np.moveaxis(images, 1, -1)
        train.plot_predictions(args.out / "predictions.png", shown, predictions, labels, names)
        print(f"pictures: {args.out / 'curves.png'}, {args.out / 'predictions.png'}")
    return accuracy


if __name__ == "__main__":
    main()

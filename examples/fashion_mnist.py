# SPDX-License-Identifier: MIT
"""Train a small convolutional network on Fashion-MNIST, from data to pictures, in one file.

    python examples/fashion_mnist.py            # or: make train

60,000 grey images 28x28 of clothes in ten classes; two convolutions and one linear layer; Adam with a cosine learning
rate. After each epoch it prints the loss and the accuracy on the 10,000 test images, and it writes to out/
  curves.png          loss and accuracy during training
  predictions.png     some test images and what the model takes them for

The model is a pytree of plain NumPy arrays, and the training step is a pure function, compiled by `jit`.

References
  data        H. Xiao and others, "Fashion-MNIST", arXiv:1708.07747
  network     Y. LeCun and others, "Gradient-based learning applied to document recognition", Proc. IEEE 86 (1998)
  optimizer   D. Kingma, J. Ba, "Adam", arXiv:1412.6980
  schedule    I. Loshchilov, F. Hutter, "SGDR", arXiv:1608.03983
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import data, nn, optim, train

N_CLASSES = 10


class CNN(nn.Module):
    """images float32 [batch, 1, size, size] -> logits [batch, 10]."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    pool: nn.MaxPool2d
    out: nn.Linear

    def __init__(self, size, *, key):
        key1, key2, key3 = fl.random.split(key, 3)
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, key=key1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, key=key2)
        self.pool = nn.MaxPool2d(2)
        self.out = nn.Linear(32 * (size // 4) ** 2, N_CLASSES, key=key3)

    def __call__(self, x):
        x = self.pool(nn.relu(self.conv1(x)))
        x = self.pool(nn.relu(self.conv2(x)))
        return self.out(x.reshape(x.shape[0], -1))


class State(NamedTuple):
    model: CNN
    opt_state: Any


def to_input(images):
    """Pixels uint8 [batch, size, size] -> floats around 0 [batch, 1, size, size]."""
    return ((images.astype(np.float32) - 73.0) / 90.0)[:, None]


def loss_fn(model, images, labels):
    """The loss, and with it all figures."""
    logits = model(to_input(images))
    loss = nn.cross_entropy(logits, labels)
    return loss, {"loss": loss, "accuracy": train.accuracy(logits, labels)}


def make_train_step(opt):
    @fl.jit
    def train_step(state, batch):
        grads, figures = fl.grad(loss_fn, has_aux=True)(state.model, *batch)
        return State(*opt.step(state.model, grads, state.opt_state)), figures

    return train_step


@fl.jit
def figures_of(state, batch):
    return loss_fn(state.model, *batch)[1]


@fl.jit
def predict(model, images):
    return model(to_input(images)).argmax(-1)


def load(name):
    """((images, labels) of training, (images, labels) of test, class names)."""
    if name == "digits":
        return data.digits("train"), data.digits("test"), [str(i) for i in range(N_CLASSES)]
    return data.fashion_mnist("train"), data.fashion_mnist("test"), data.FASHION_MNIST_CLASSES


def arguments(argv):
    parser = argparse.ArgumentParser(description="Train a small CNN on Fashion-MNIST.")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--steps", type=int, help="stop after this many steps in all")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=["fashion_mnist", "digits"], default="fashion_mnist")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the pictures")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the pictures")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    training, test, names = load(args.data)
    batches = data.Loader(training, args.batch_size, seed=args.seed)
    test_batches = data.Loader(test, 1000, seed=None, drop_last=False)
    n_steps = min(args.steps or args.epochs * len(batches), args.epochs * len(batches))

    def put(tree):
        return fl.tree.map(lambda leaf: fl.numpy.asarray(leaf, device=args.device), tree)

    model = CNN(training[0].shape[-1], key=fl.random.key(args.seed))
    opt = optim.adam(optim.cosine_decay(args.learning_rate, n_steps, warmup=n_steps // 20))
    train_step = make_train_step(opt)
    n_parameters = sum(leaf.size for leaf in fl.tree.leaves(model))
    print(f"{args.data}: {len(training[0])} images, {n_parameters} parameters, {n_steps} steps of {args.batch_size}")

    start = time.perf_counter()
    result = train.fit(
        lambda state, batch: train_step(state, put(batch)), put(State(model, opt.init(model))), batches,
        steps=n_steps, title=args.data, plot=args.out / "curves.png" if args.plot else None,
        evaluate=lambda state: train.evaluate(lambda state, batch: figures_of(state, put(batch)), state, test_batches),
    )  # fmt: skip
    accuracy = result.history["eval/accuracy"][-1][1]
    print(f"test accuracy {accuracy:.2%} after {result.step} steps in {time.perf_counter() - start:.0f} s")
    if args.plot:
        images, labels = (part[:32] for part in test)
        predictions = fl.numpy.asarray(predict(result.state.model, put(images)), device="cpu")
        train.plot_predictions(args.out / "predictions.png", images, predictions, labels, names)
        print(f"pictures: {args.out / 'curves.png'}, {args.out / 'predictions.png'}")
    return accuracy


if __name__ == "__main__":
    main()

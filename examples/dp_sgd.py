# SPDX-License-Identifier: MIT
"""Learn from people's data without giving any of them away: DP-SGD, with a gradient for every example.

    python examples/dp_sgd.py                   # minutes; --data digits --steps 50 for a glance

Differential privacy promises that the trained weights would be almost as likely without any one image: more exactly,
that no set of outcomes is more than e^epsilon times as probable, but for a chance delta. To get it, the gradient of
each example by itself is cut to norm C, Gaussian noise of deviation sigma C is added to their sum, and every step takes
each example with probability q (so batches differ in size). The gradients of single examples are
`vmap(grad(loss))`, and the whole step is one compiled function.

The epsilon spent is added up with Renyi differential privacy. A small convolutional network with bounded activations
learns Fashion-MNIST; it prints accuracy and epsilon, beside the accuracy of the same training without noise and
clipping, and writes out/dp_sgd/curves.png.

References
  DP-SGD      M. Abadi and others, "Deep learning with differential privacy", arXiv:1607.00133
  accounting  I. Mironov, K. Talwar, L. Zhang, "Renyi differential privacy of the sampled Gaussian mechanism",
              arXiv:1908.10530, equation (3); conversion: B. Balle and others, arXiv:1905.09982, theorem 21
  network     N. Papernot and others, "Tempered sigmoid activations for deep learning with differential privacy",
              arXiv:2007.14191
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import data, nn, optim, train

N_CLASSES = 10


class CNN(nn.Module):
    """One image float32 [size, size] -> logits [10]."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    pool: nn.MaxPool2d
    hidden: nn.Linear
    out: nn.Linear

    def __init__(self, size, *, key):
        key1, key2, key3, key4 = fl.random.split(key, 4)
        stride = 2 if size > 16 else 1
        self.conv1 = nn.Conv2d(1, 16, 5, stride=stride, padding=2, key=key1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, key=key2)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(32 * (size // stride // 4) ** 2, 32, key=key3)
        self.out = nn.Linear(32, N_CLASSES, key=key4)

    def __call__(self, image):
        x = self.pool(nn.tanh(self.conv1(image[None])))
        x = self.pool(nn.tanh(self.conv2(x)))
        return self.out(nn.tanh(self.hidden(x.reshape(-1))))


def loss_fn(model, image, label):
    """The loss of one example."""
    return nn.cross_entropy(model(image)[None], label[None])


# --- the private step ---------------------------------------------------------------------------------------------


class State(NamedTuple):
    """What training changes."""

    model: nn.Module
    opt_state: Any
    key: Any


class Batch(NamedTuple):
    """images [most, size, size], labels [most], taken [most]: 1 for the examples drawn, 0 for those that fill up."""

    images: Any
    labels: Any
    taken: Any


def clipped(grads, most):
    """The gradient of one example, made shorter where its norm is above `most`."""
    norm = np.sqrt(sum(np.sum(g**2) for g in fl.tree.leaves(grads)))
    factor = most / np.maximum(norm, most)
    return fl.tree.map(lambda g: g * factor, grads)


def private_gradient(model, batch, key, clip, sigma, expected_size):
    """(sum of clipped gradients + noise of deviation sigma clip) / expected size of a batch, and the mean loss."""

    def one(image, label, taken):
        loss, grads = fl.value_and_grad(loss_fn)(model, image, label)
        return loss * taken, fl.tree.map(lambda g: g * taken, clipped(grads, clip))

    losses, grads = fl.vmap(one)(*batch)
    leaves, treedef = fl.tree.flatten(grads)
    keys = fl.random.split(key, len(leaves))
    noisy = [
        (np.sum(g, 0) + sigma * clip * fl.random.normal(k, g.shape[1:], g.dtype)) / expected_size
        for g, k in zip(leaves, keys, strict=True)
    ]
    return fl.tree.unflatten(treedef, noisy), np.sum(losses) / np.maximum(np.sum(batch.taken), 1)


def make_train_step(opt, clip, sigma, expected_size):
    clip, sigma = np.float32(clip), np.float32(sigma)

    @fl.jit
    def train_step(state, batch):
        key, key_noise = fl.random.split(state.key)
        grads, loss = private_gradient(state.model, batch, key_noise, clip, sigma, np.float32(expected_size))
        return State(*opt.step(state.model, grads, state.opt_state), key), {"loss": loss}

    return train_step


def draw_batch(rng, images, labels, expected_size, most):
    """Each example with the same probability, by itself; filled up to `most` examples so that all steps look alike."""
    (rows,) = np.nonzero(rng.random(len(images)) < expected_size / len(images))
    if len(rows) > most:
        raise ValueError(f"{len(rows)} examples were drawn, there is room for {most}")
    filled = np.concatenate([rows, np.zeros(most - len(rows), rows.dtype)])
    return Batch(images[filled], labels[filled], (np.arange(most) < len(rows)).astype(np.float32))


# --- the accountant -----------------------------------------------------------------------------------------------


def log_comb(n, k):
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def renyi(q, sigma, order):
    """Renyi divergence, of integer order above 1, of one step that takes examples with probability q."""
    if q == 1:
        return order / (2 * sigma**2)
    k = np.arange(order + 1)
    combinations = np.array([log_comb(order, i) for i in k])
    terms = combinations + k * math.log(q) + (order - k) * math.log1p(-q) + k * (k - 1) / (2 * sigma**2)
    return float(np.logaddexp.reduce(terms)) / (order - 1)


def epsilon(q, sigma, n_steps, delta):
    """The epsilon spent by n_steps steps at this delta: the best over the orders 2..255."""
    if sigma == 0:
        return math.inf
    return min(
        n_steps * renyi(q, sigma, order) + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        for order in range(2, 256)
    )


# --- the run ------------------------------------------------------------------------------------------------------


@fl.jit
def predict(model, images):
    return fl.vmap(model)(images).argmax(-1)


def to_host(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)  # a CuPy array comes to the host by .get()


def accuracy(model, images, labels, to_device, batch_size=1000):
    parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    found = np.concatenate([to_host(predict(model, to_device(part))) for part in parts])
    return float(np.mean(found == labels))


def load(name):
    """(images float32 [n, size, size] around 0, labels [n]) of training, and of test."""
    read, middle, scale = (data.digits, 5.0, 6.0) if name == "digits" else (data.fashion_mnist, 73.0, 90.0)
    return [((images.astype(np.float32) - middle) / scale, labels) for images, labels in (read("train"), read("test"))]


def arguments(argv):
    parser = argparse.ArgumentParser(description="Differentially private training of a small CNN.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=512, help="examples of a step, on average")
    parser.add_argument("--sigma", type=float, default=0.9, help="noise, in units of the clipping norm")
    parser.add_argument("--clip", type=float, default=0.5, help="norm that the gradient of an example is cut to")
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--learning-rate", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=["fashion_mnist", "digits"], default="fashion_mnist")
    parser.add_argument("--compare", action=argparse.BooleanOptionalAction, default=True, help="with no noise too")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the curves")
    parser.add_argument("--out", type=Path, default=Path("out/dp_sgd"), help="folder of the picture")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def train_model(args, clip, sigma, images, labels, to_device, title):
    """The trained model and the history of the losses."""
    rng = np.random.default_rng(args.seed)
    key_model, key_noise = fl.random.split(fl.random.key(args.seed))
    model = CNN(images.shape[-1], key=key_model)
    opt = optim.sgd(args.learning_rate if sigma else 0.1, momentum=0.0 if sigma else 0.9)
    state = fl.tree.map(to_device, State(model, opt.init(model), key_noise))
    most = min(len(images), int(args.batch_size + 6 * np.sqrt(args.batch_size)))  # six deviations above the mean
    batches = (
        fl.tree.map(to_device, draw_batch(rng, images, labels, args.batch_size, most)) for _ in range(args.steps)
    )
    step = make_train_step(opt, clip, sigma, args.batch_size)
    result = train.fit(step, state, batches, steps=args.steps, title=title)
    return result.state.model, result.history["loss"]


def main(argv=None):
    args = arguments(argv)

    def to_device(x):
        return fl.numpy.asarray(x, device=args.device)

    (images, labels), (test_images, test_labels) = load(args.data)
    q = args.batch_size / len(images)
    start = time.perf_counter()
    model, losses = train_model(args, args.clip, args.sigma, images, labels, to_device, "private")
    seconds = time.perf_counter() - start
    spent, found = epsilon(q, args.sigma, args.steps, args.delta), accuracy(model, test_images, test_labels, to_device)
    print(f"{args.steps} steps, each example with probability {q:.4f}, {seconds:.0f} s")
    print(f"private: test accuracy {found:.2%}, epsilon {spent:.2f} at delta {args.delta:g}")
    history = {"private": losses}
    if args.compare:
        model, history["not private"] = train_model(args, 1e9, 0.0, images, labels, to_device, "not private")
        print(f"not private: test accuracy {accuracy(model, test_images, test_labels, to_device):.2%}")
    if args.plot:
        print(f"picture: {train.plot_curves(args.out / 'curves.png', history, title='loss')}")
    return found, spent


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""Train a small convolutional network on Fashion-MNIST, from data to pictures, in one file.

    python examples/fashion_mnist.py            # or: make train

60,000 grey images 28x28 of clothes in ten classes; two convolutions and one linear layer; Adam with a cosine learning
rate. It prints a line for each epoch and the accuracy on the 10,000 test images, and writes to out/
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


def to_input(images):
    """Pixels uint8 [batch, size, size] -> floats around 0 [batch, 1, size, size]."""
    return ((images.astype(np.float32) - 73.0) / 90.0)[:, None]


def loss_fn(model, images, labels):
    logits = model(to_input(images))
    return nn.cross_entropy(logits, labels), train.accuracy(logits, labels)


def make_train_step(opt):
    @fl.jit
    def train_step(model, opt_state, images, labels):
        (loss, accuracy), grads = fl.value_and_grad(loss_fn, has_aux=True)(model, images, labels)
        model, opt_state = opt.step(model, grads, opt_state)
        return model, opt_state, loss, accuracy

    return train_step


@fl.jit
def predict(model, images):
    return model(to_input(images)).argmax(-1)


def predict_all(model, images, device, batch_size=1000):
    parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    return np.concatenate([to_host(predict(model, fl.numpy.asarray(part, device=device))) for part in parts])


def to_host(x):
    return x.get() if hasattr(x, "get") else x  # a CuPy array comes to the host by .get()


def load(name):
    """((images, labels) of training, (images, labels) of test, class names)."""
    if name == "digits":
        return data.digits("train"), data.digits("test"), [str(i) for i in range(N_CLASSES)]
    return data.fashion_mnist("train"), data.fashion_mnist("test"), data.FASHION_MNIST_CLASSES


def arguments(argv):
    parser = argparse.ArgumentParser(description="Train a small CNN on Fashion-MNIST.")
    parser.add_argument("--epochs", type=int, default=3)
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
    (images, labels), (test_images, test_labels), names = load(args.data)
    per_epoch = len(images) // args.batch_size
    n_steps = min(args.steps or args.epochs * per_epoch, args.epochs * per_epoch)

    model = CNN(images.shape[-1], key=fl.random.key(args.seed))
    model = fl.tree.map(lambda leaf: fl.numpy.asarray(leaf, device=args.device), model)
    opt = optim.adam(optim.cosine_decay(args.learning_rate, n_steps, warmup=n_steps // 20))
    opt_state, train_step = opt.init(model), make_train_step(opt)
    n_parameters = sum(leaf.size for leaf in fl.tree.leaves(model))
    print(f"{args.data}: {len(images)} images, {n_parameters} parameters, {n_steps} steps of {args.batch_size}")

    start, step = time.perf_counter(), 0
    history = {"training loss": [], "training accuracy": [], "test accuracy": []}
    for epoch in range(args.epochs):
        n_left = min(per_epoch, n_steps - step)
        if n_left == 0:
            break
        batches = data.batches((images, labels), args.batch_size, seed=(args.seed, epoch))
        with train.progress(n_left, f"epoch {epoch + 1}/{args.epochs}") as bar:
            for (x, y), _ in zip(batches, range(n_left), strict=False):
                x, y = (fl.numpy.asarray(part, device=args.device) for part in (x, y))
                model, opt_state, loss, accuracy = train_step(model, opt_state, x, y)
                step += 1
                history["training loss"].append((step, float(loss)))
                history["training accuracy"].append((step, float(accuracy)))
                bar.update(loss=float(loss), accuracy=float(accuracy))
        predictions = predict_all(model, test_images, args.device)
        test_accuracy = float(np.mean(predictions == test_labels))
        history["test accuracy"].append((step, test_accuracy))
        mean_loss = np.mean([value for _, value in history["training loss"][-n_left:]])
        seconds = time.perf_counter() - start
        line = f"epoch {epoch + 1}: loss {mean_loss:.4f}, test accuracy {test_accuracy:.2%}, {seconds:.0f} s"
        print(line, flush=True)

    print(f"test accuracy {test_accuracy:.2%} after {step} steps in {time.perf_counter() - start:.0f} s")
    if args.plot:
        train.plot_curves(args.out / "curves.png", history, title=args.data)
        shown = slice(0, 32)
        train.plot_predictions(
            args.out / "predictions.png", test_images[shown], predictions[shown], test_labels[shown], names
        )
        print(f"pictures: {args.out / 'curves.png'}, {args.out / 'predictions.png'}")
    return test_accuracy


if __name__ == "__main__":
    main()

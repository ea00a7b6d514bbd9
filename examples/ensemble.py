# SPDX-License-Identifier: MIT
"""Train ten networks in the time of few: a deep ensemble under `vmap`, and what it knows that one network does not.

    python examples/ensemble.py                 # a minute; --data digits --steps 200 for a glance

Ten networks of two hidden layers learn the clothes of Fashion-MNIST, each from its own random weights and in its own
order of the examples. Nothing in the model or the training step speaks of an ensemble: `vmap` over initial keys makes
the models, `vmap` over the step trains them, and one compiled call steps them all.

The average of their probabilities is compared with the members by themselves: accuracy; negative log likelihood in
nats; calibration, how far confidence is from accuracy (expected calibration error, 15 bins). And on images of noise,
where nothing can be known, how sure they are: the entropy of the prediction, at most log 10 = 2.30 nats.
out/ensemble/calibration.png shows confidence against accuracy.

References
  ensembles   B. Lakshminarayanan, A. Pritzel, C. Blundell, "Simple and scalable predictive uncertainty estimation using
              deep ensembles", arXiv:1612.01474
  calibration C. Guo and others, "On calibration of modern neural networks", arXiv:1706.04599
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import data, nn, optim, train

N_CLASSES, N_BINS = 10, 15


class State(NamedTuple):
    """What training changes."""

    model: nn.Module
    opt_state: Any


def loss_fn(model, x, labels):
    return nn.cross_entropy(model(x), labels)


def make_model(n_inputs, width, key):
    return nn.MLP((n_inputs, width, width, N_CLASSES), key=key)


def make_train_step(opt, x, labels, batch_size):
    """A step of every member; a batch is a key for each, from which the member draws its own examples."""

    def member_step(state, key):
        rows = fl.random.randint(key, (batch_size,), 0, len(x))
        batch = fl.numpy.take(x, rows, axis=0), fl.numpy.take(labels, rows)
        loss, grads = fl.value_and_grad(loss_fn)(state.model, *batch)
        return State(*opt.step(state.model, grads, state.opt_state)), loss

    @fl.jit
    def train_step(state, keys):
        state, losses = fl.vmap(member_step)(state, keys)
        return state, {"loss": np.mean(losses)}

    return train_step


@fl.jit
def probabilities(models, x):
    """Of each member, [members, batch, 10]."""
    return fl.vmap(lambda model: nn.softmax(model(x)))(models)


def predict(models, x, to_device, batch_size=1000):
    parts = [probabilities(models, to_device(x[i : i + batch_size])) for i in range(0, len(x), batch_size)]
    return np.concatenate([to_host(part) for part in parts], axis=1)


# --- how good predictions are: p [n, 10], labels [n] ----------------------------------------------------------------


def accuracy(p, labels):
    return float(np.mean(p.argmax(-1) == labels))


def negative_log_likelihood(p, labels):
    return float(-np.mean(np.log(np.maximum(p[np.arange(len(p)), labels], 1e-12))))


def reliability(p, labels):
    """Of the bins of equal confidence: mean confidence, accuracy, share of the examples; those that are not empty."""
    confidence, right = p.max(-1), p.argmax(-1) == labels
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    count = np.bincount(bins, minlength=N_BINS)
    used = count > 0
    sums = [np.bincount(bins, values, N_BINS)[used] / count[used] for values in (confidence, right)]
    return sums[0], sums[1], count[used] / len(p)


def calibration_error(p, labels):
    confidence, right, share = reliability(p, labels)
    return float(np.sum(share * np.abs(confidence - right)))


def entropy(p):
    """Mean entropy in nats."""
    return float(-np.mean(np.sum(p * np.log(np.maximum(p, 1e-12)), -1)))


def measure(p, labels, p_noise):
    return {"accuracy": accuracy(p, labels), "log loss": negative_log_likelihood(p, labels),
            "calibration error": calibration_error(p, labels), "entropy on noise": entropy(p_noise)}


# --- the run ------------------------------------------------------------------------------------------------------


def to_host(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)  # a CuPy array comes to the host by .get()


def load(name):
    """(inputs float32 [n, d] in 0..1, labels [n]) of training, and of test."""
    read = data.digits if name == "digits" else data.fashion_mnist
    most = 16 if name == "digits" else 255
    pairs = (read("train"), read("test"))
    return [((images.reshape(len(images), -1) / np.float32(most)), labels) for images, labels in pairs]


def plot(path, p, labels):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    axes.plot(*reliability(p[0], labels)[:2], "o--", label="one member")
    axes.plot(*reliability(p.mean(0), labels)[:2], "o-", label="ensemble")
    axes.set(xlabel="confidence", ylabel="accuracy", title="Calibration")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")


def arguments(argv):
    parser = argparse.ArgumentParser(description="A deep ensemble under vmap.")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=128, help="units of each of the two hidden layers")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=["fashion_mnist", "digits"], default="fashion_mnist")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the picture")
    parser.add_argument("--out", type=Path, default=Path("out/ensemble"), help="folder of the picture")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)

    def to_device(x):
        return fl.numpy.asarray(x, device=args.device)

    (x, labels), (test_x, test_labels) = load(args.data)
    x, labels = to_device(x), to_device(labels)
    key_models, key_train = map(to_device, fl.random.split(fl.random.key(args.seed)))

    start = time.perf_counter()
    make_all = fl.vmap(lambda key: make_model(x.shape[1], args.width, key))
    models = make_all(fl.random.split(key_models, args.members))
    opt = optim.adam(args.learning_rate)
    state = State(models, fl.vmap(opt.init)(models))
    keys = (fl.random.split(fl.random.fold_in(key_train, i), args.members) for i in range(args.steps))
    step = make_train_step(opt, x, labels, args.batch_size)
    models = train.fit(step, state, keys, steps=args.steps, title="ensemble").state.model
    print(f"{args.members} members, {args.steps} steps of {args.batch_size} in {time.perf_counter() - start:.0f} s")

    noise = np.random.default_rng(args.seed).uniform(size=(1000, x.shape[1])).astype(np.float32)
    p, p_noise = predict(models, test_x, to_device), predict(models, noise, to_device)
    each = [measure(q, test_labels, q_noise) for q, q_noise in zip(p, p_noise, strict=True)]
    members = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    ensemble = measure(p.mean(0), test_labels, p_noise.mean(0))
    for name in ensemble:
        print(f"{name:18s} members, on average {members[name]:.4f}   ensemble {ensemble[name]:.4f}")
    if args.plot:
        plot(args.out / "calibration.png", p, test_labels)
    return members, ensemble


if __name__ == "__main__":
    main()

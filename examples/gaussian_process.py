# SPDX-License-Identifier: MIT
"""Gaussian process regression: predictions with error bars, and a prior that the data choose.

    python examples/gaussian_process.py         # seconds; --steps 5 for a glance

Data: 442 patients with diabetes, ten measurements (age, body mass, blood ...) and the progress of the disease a year
later, a number from 25 to 346 without unit (scikit-learn's copy). A quarter is held out.

The prior says that patients alike in all measurements fare alike: covariance s^2 exp(-|(x - x') / l|^2 / 2), a length
l for each measurement, and noise. Amplitude, lengths and noise maximise the probability of the data with all functions
integrated out (a Cholesky factorization, differentiated), by L-BFGS from several starts at once under `vmap`.

It prints error and log score on the patients held out, with a least-squares line for comparison; and
out/gaussian_process/ gets predictions against outcomes, and a process in one dimension.

References
  method      C. Rasmussen, C. Williams, "Gaussian processes for machine learning" (2006), algorithm 2.1, section 5.4.1
  lengths     R. Neal, "Bayesian learning for neural networks" (1996), automatic relevance determination
  data        B. Efron and others, "Least angle regression", Annals of Statistics 32 (2004)
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import optim, train

JITTER = 1e-8  # on the diagonal, for the rounding of the factorization


class Prior(NamedTuple):
    """Logarithms: amplitude [], lengths [d], noise [], in the units of y, x and y."""

    amplitude: Any
    lengths: Any
    noise: Any


class State(NamedTuple):
    """What training changes."""

    prior: Prior
    opt_state: Any


def covariance(prior, x, z):
    """The prior covariance [n, m] of the function at x [n, d] and at z [m, d]."""
    x, z = x / np.exp(prior.lengths), z / np.exp(prior.lengths)
    squares = np.sum(x**2, -1)[:, None] + np.sum(z**2, -1) - 2 * x @ z.T
    return np.exp(2 * prior.amplitude - 0.5 * np.maximum(squares, 0.0))


def factor(prior, x):
    """Lower Cholesky factor [n, n] of the covariance of noisy values at x [n, d]."""
    diagonal = np.arange(len(x))
    noisy = fl.numpy.at(covariance(prior, x, x))[diagonal, diagonal].add(np.exp(2 * prior.noise) + JITTER)
    return np.linalg.cholesky(noisy)


def negative_log_marginal(prior, x, y):
    """-log p(y | x, prior) of y [n]; algorithm 2.1."""
    lower = factor(prior, x)
    white = fl.scipy.linalg.solve_triangular(lower, y, lower=True)
    return 0.5 * np.sum(white**2) + np.sum(np.log(np.diagonal(lower))) + 0.5 * len(y) * np.log(2 * np.pi)


def predict(prior, x, y, z):
    """Mean and variance [m] of new noisy values at z [m, d], given y [n] at x [n, d]."""
    lower, cross = factor(prior, x), covariance(prior, x, z)
    white = fl.scipy.linalg.solve_triangular(lower, np.concatenate([y[:, None], cross], axis=1), lower=True)
    mean = white[:, 1:].T @ white[:, 0]
    return mean, np.exp(2 * prior.amplitude) + np.exp(2 * prior.noise) - np.sum(white[:, 1:] ** 2, 0)


def make_train_step(opt):
    """A step of all starts at once; a batch is the whole table (x, y)."""

    @fl.jit
    def step(state, batch):
        value_and_grad = fl.value_and_grad(lambda prior: negative_log_marginal(prior, *batch))
        state = fl.vmap(lambda s: State(*opt.step(s.prior, value_and_grad, s.opt_state)))(state)
        return state, {"best": np.min(state.opt_state.value)}

    return step


def starts(key, n, d):
    """n priors around amplitude 1, lengths 3 and noise 1/2; every leaf [n, ...]."""
    drawn = fl.random.normal(key, (n, d + 2), dtype=np.float64)
    return Prior(0.5 * drawn[:, 0], np.log(3.0) + 0.5 * drawn[:, 2:], np.log(0.5) + 0.5 * drawn[:, 1])


def fit(x, y, n_starts, n_steps, key, title="marginal likelihood"):
    """The prior that makes y [n] at x [n, d] most probable, and -log p there; x, y and key live on one device."""
    opt, prior = optim.lbfgs(history=20), starts(key, n_starts, x.shape[1])
    state = State(prior, fl.vmap(opt.init)(prior))
    state = train.fit(make_train_step(opt), state, itertools.repeat((x, y)), steps=n_steps, title=title).state
    best = int(np.argmin(state.opt_state.value))
    return fl.tree.map(lambda leaf: leaf[best], state.prior), float(state.opt_state.value[best])


# --- the run ------------------------------------------------------------------------------------------------------


def load(seed):
    """(x [n, 10], y [n]) of training, the same of test, both scaled to mean 0 and deviation 1; unit of y; names."""
    from sklearn.datasets import load_diabetes

    table = load_diabetes(scaled=False)
    order = np.random.default_rng(seed).permutation(len(table.data))
    held_out, kept = order[: len(order) // 4], order[len(order) // 4 :]
    x = (table.data - table.data[kept].mean(0)) / table.data[kept].std(0)
    unit = table.target[kept].std()
    y = (table.target - table.target[kept].mean()) / unit
    return (x[kept], y[kept]), (x[held_out], y[held_out]), unit, table.feature_names


def scores(mean, variance, y):
    """(root mean squared error, mean log density) of Gaussian predictions of y; all [n]."""
    density = -0.5 * (y - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    return float(np.sqrt(np.mean((y - mean) ** 2))), float(np.mean(density))


def least_squares(x, y, z):
    """Mean [m] and variance of a linear prediction at z, for comparison."""
    def with_one(x):
        return np.column_stack([np.ones(len(x)), x])

    weights, squares, *_ = np.linalg.lstsq(with_one(x), y, rcond=None)
    return with_one(z) @ weights, squares / (len(y) - x.shape[1] - 1)


def to_host(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)  # a CuPy array comes to the host by .get()


def plot(path, mean, deviation, y, key):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.errorbar(mean, y, xerr=2 * deviation, fmt=".", linewidth=0.5)
    left.axline((0, 0), slope=1, color="grey")
    left.set(title="Diabetes, held out: two deviations", xlabel="prediction", ylabel="outcome")
    x = np.random.default_rng(0).uniform(-3, 3, 25)
    x, z = x[np.abs(x - 1) > 0.7][:, None], np.linspace(-4, 4, 200)[:, None]
    values = np.sin(2 * x[:, 0]) + 0.1 * np.cos(50 * x[:, 0])
    prior, _ = fit(x, values, 4, 20, key, "the process in one dimension")
    centre, variance = fl.jit(predict)(prior, x, values, z)
    right.plot(x, values, "k.", z, centre)
    right.fill_between(z[:, 0], centre - 2 * np.sqrt(variance), centre + 2 * np.sqrt(variance), alpha=0.2)
    right.set(title="One dimension", xlabel="x")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")


def arguments(argv):
    parser = argparse.ArgumentParser(description="Gaussian process regression with a learned prior.")
    parser.add_argument("--steps", type=int, default=60, help="steps of L-BFGS")
    parser.add_argument("--starts", type=int, default=4, help="starting points of the optimization")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the picture")
    parser.add_argument("--out", type=Path, default=Path("out/gaussian_process"), help="folder of the picture")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    (x, y), (test_x, test_y), unit, names = load(args.seed)
    key, key_plot = fl.random.split(fl.random.key(args.seed))
    on_device = [fl.numpy.asarray(a, device=args.device) for a in (x, y, test_x)]

    start = time.perf_counter()
    prior, loss = fit(*on_device[:2], args.starts, args.steps, fl.numpy.asarray(key, device=args.device))
    mean, variance = map(to_host, fl.jit(predict)(prior, *on_device))
    seconds = time.perf_counter() - start

    error, score = scores(mean, variance, test_y)
    line_error, line_score = scores(*least_squares(x, y, test_x), test_y)
    lengths = np.exp(to_host(prior.lengths))
    matter = ", ".join(f"{names[i]} {lengths[i]:.2g}" for i in np.argsort(lengths)[:4])
    print(f"-log p(y) {loss:.2f} of {len(y)} patients after {args.steps} steps, {seconds:.1f} s")
    print(f"noise {unit * np.exp(float(prior.noise)):.1f}; shortest lengths, in deviations: {matter}")
    print(f"held out: error {unit * error:.2f}, log score {score:.4f}; "
          f"least squares: {unit * line_error:.2f}, {line_score:.4f}")
    if args.plot:
        plot(args.out / "predictions.png", mean, np.sqrt(variance), test_y, key_plot)
    return error


if __name__ == "__main__":
    main()

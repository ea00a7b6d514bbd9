# SPDX-License-Identifier: MIT
"""Bayesian logistic regression by Hamiltonian Monte Carlo: what 30 measurements say about a tumour, and how surely.

    python examples/hmc.py                      # seconds; --steps 200 --chains 2 for a glance

Data: 569 breast tumours, 30 measurements of the nuclei of their cells, scaled to mean 0 and deviation 1; malignant or
benign (scikit-learn's copy). A quarter is held out. Weights have the prior N(0, 1), the intercept N(0, 5^2).

Chains run side by side under `vmap`, an iteration after the other inside one `scan`; the leapfrog integrator is a
`fori_loop`, its forces are `grad` of the log density. During warm-up the step size is adapted by dual averaging to 80%
acceptance. It prints the split R-hat (1 = the chains agree), effective sample sizes, and accuracy and log score of the
predictions on the tumours held out, beside those of a single point, the mode. out/hmc/weights.png shows the posterior.

References
  HMC         R. Neal, "MCMC using Hamiltonian dynamics", arXiv:1206.1901
  step size   M. Hoffman, A. Gelman, "The No-U-Turn sampler", JMLR 15 (2014), algorithm 5
  R-hat       A. Gelman and others, "Bayesian data analysis", 3rd ed. (2013), section 11.4
  data        W. Street, W. Wolberg, O. Mangasarian, "Nuclear feature extraction for breast tumor diagnosis" (1993)
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import lax, nn, optim, train

TARGET_ACCEPTANCE = 0.8


# --- the model ----------------------------------------------------------------------------------------------------


def load(seed):
    """(inputs [n, 30], labels [n]) of training, the same of test, names of the inputs; label 1 is malignant."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    order = np.random.default_rng(seed).permutation(len(table.data))
    held_out, kept = order[: len(order) // 4], order[len(order) // 4 :]
    mean, deviation = table.data[kept].mean(0), table.data[kept].std(0)
    x, y = (table.data - mean) / deviation, 1.0 - table.target
    return (x[kept], y[kept]), (x[held_out], y[held_out]), list(table.feature_names)


def log_density(weights, x, y):
    """Log posterior, but for a constant: weights [31], the intercept first; x [n, 30], y [n] of 0 and 1."""
    logits = weights[0] + x @ weights[1:]
    log_likelihood = np.sum(y * logits - nn.softplus(logits))
    return log_likelihood - 0.5 * (weights[0] / 5.0) ** 2 - 0.5 * np.sum(weights[1:] ** 2)


# --- the sampler: any `log_density` of a vector ---------------------------------------------------------------------


def leapfrog(force, position, momentum, step_size, n_leaps):
    """Follow Hamilton's equations for unit masses: position and momentum [d] after n_leaps steps."""

    def leap(_, state):
        position, momentum, pull = state
        momentum = momentum + 0.5 * step_size * pull
        position = position + step_size * momentum
        pull = force(position)
        return position, momentum + 0.5 * step_size * pull, pull

    return lax.fori_loop(0, n_leaps, leap, (position, momentum, force(position)))[:2]


def hmc_step(log_density, key, position, step_size, n_leaps):
    """One iteration of one chain: the next position [d], and the probability with which the proposal was accepted."""
    key_momentum, key_accept = fl.random.split(key)
    momentum = fl.random.normal(key_momentum, position.shape, dtype=position.dtype)
    proposal, end_momentum = leapfrog(fl.grad(log_density), position, momentum, step_size, n_leaps)
    log_ratio = log_density(proposal) - log_density(position) + 0.5 * (np.sum(momentum**2) - np.sum(end_momentum**2))
    probability = np.exp(np.minimum(np.where(np.isnan(log_ratio), -np.inf, log_ratio), 0.0))
    accept = fl.random.uniform(key_accept, dtype=position.dtype) < probability
    return np.where(accept, proposal, position), probability


class StepSize(NamedTuple):
    """Dual averaging: log step size now and averaged, the running error of the acceptance, iterations. All []."""

    log_now: np.ndarray
    log_mean: np.ndarray
    error: np.ndarray
    count: np.ndarray


def initial_step_size(first, like):
    """The state before any iteration; its numbers live where the array `like` does."""
    zero = np.zeros_like(like[:1]).sum()
    return StepSize(zero + np.log(first), zero + np.log(first), zero, zero)


def adapt(state, acceptance, log_center):
    """The step size after an iteration with this acceptance; constants of Hoffman and Gelman."""
    count = state.count + 1.0
    error = state.error + (TARGET_ACCEPTANCE - acceptance - state.error) / (count + 10.0)
    log_now = log_center - np.sqrt(count) / 0.05 * error
    share = count**-0.75
    return StepSize(log_now, share * log_now + (1 - share) * state.log_mean, error, count)


def make_sampler(log_density, n_leaps, log_center):
    """A function that runs all chains for some iterations.

    (keys [iterations, chains, 2], positions [chains, d], step size, adapting)
    -> (positions, step size, samples [iterations, chains, d], acceptance [iterations])
    """

    def chains_step(keys, positions, step_size):
        return fl.vmap(lambda key, at: hmc_step(log_density, key, at, step_size, n_leaps))(keys, positions)

    @fl.jit(static_argnames="adapting")
    def run(keys, positions, step_size, *, adapting):
        def iteration(carry, keys):
            positions, step_size = carry
            log_size = step_size.log_now if adapting else step_size.log_mean
            positions, probability = chains_step(keys, positions, np.exp(log_size))
            acceptance = np.mean(probability)
            if adapting:
                step_size = adapt(step_size, acceptance, log_center)
            return (positions, step_size), (positions, acceptance)

        (positions, step_size), (samples, acceptance) = lax.scan(iteration, (positions, step_size), keys)
        return positions, step_size, samples, acceptance

    return run


def sample(log_density, positions, *, key, n_warmup, n_steps, n_leaps=16, step_size=0.1, chunk=50, title="sampling"):
    """Samples [n_steps, chains, d] after n_warmup iterations, the mean acceptance and the step size found.

    positions [chains, d]: where the chains start. `chunk` iterations are run in one compiled call.
    """
    run, chunk = make_sampler(log_density, n_leaps, np.log(10 * step_size)), min(chunk, max(n_warmup, n_steps))
    state, samples, rates = initial_step_size(step_size, positions[0]), [], []
    n_chunks = (-(-n_warmup // chunk), -(-n_steps // chunk))
    with train.progress(sum(n_chunks), title) as bar:
        for i in range(sum(n_chunks)):
            keys = fl.random.split(fl.random.fold_in(key, i), (chunk, len(positions)))
            positions, state, drawn, rate = run(keys, positions, state, adapting=i < n_chunks[0])
            if i >= n_chunks[0]:
                samples.append(to_host(drawn))
                rates.append(to_host(rate))
            bar.update(acceptance=float(rate.mean()), step_size=float(np.exp(to_host(state.log_mean))))
    return np.concatenate(samples)[:n_steps], float(np.mean(rates)), float(np.exp(to_host(state.log_mean)))


# --- how good the samples are -------------------------------------------------------------------------------------


def split_r_hat(samples):
    """Of samples [n, chains, d], the factor [d] by which the spread might shrink if the chains ran for ever."""
    half = len(samples) // 2
    halves = np.concatenate([samples[:half], samples[half : 2 * half]], axis=1)
    within = halves.var(0, ddof=1).mean(0)
    between = halves.mean(0).var(0, ddof=1)
    return np.sqrt((half - 1) / half + between / within)


def effective_samples(samples):
    """How many independent samples those of [n, chains, d] are worth, [d]: Geyer's initial positive sequence."""
    n, n_chains, _ = samples.shape
    centred = samples - samples.mean((0, 1))
    spectrum = np.fft.rfft(centred, 2 * n, axis=0)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:n].mean(1) / n
    correlation = covariance / covariance[0]
    pairs = correlation[: n - n % 2].reshape(n // 2, 2, -1).sum(1)
    positive = np.cumprod(pairs > 0, axis=0)
    return n * n_chains / np.maximum(2 * np.sum(pairs * positive, 0) - 1, 1 / np.log10(n))


def mode(log_density, start, n_steps=30):
    """The most probable weights [d], by L-BFGS."""
    opt = optim.lbfgs()
    loss = fl.value_and_grad(lambda weights: -log_density(weights))
    step = fl.jit(lambda weights, state: opt.step(weights, loss, state))
    weights, state = start, opt.init(start)
    for _ in range(n_steps):
        weights, state = step(weights, state)
    return to_host(weights)


def scores(weights, x, y):
    """(accuracy, mean log probability of the label) of predictions averaged over weights [samples, 31]."""
    logits = weights[:, :1] + weights[:, 1:] @ x.T
    probability = np.mean(1 / (1 + np.exp(-logits)), 0)
    label = np.where(y == 1, probability, 1 - probability)
    return float(np.mean(label > 0.5)), float(np.mean(np.log(label)))


# --- the run ------------------------------------------------------------------------------------------------------


def to_host(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)  # a CuPy array comes to the host by .get()


def plot(path, weights, names):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    order = np.argsort(np.median(weights, 0))
    axes.boxplot(weights[:, order], orientation="horizontal", showfliers=False, whis=(2.5, 97.5))
    axes.set_yticks(np.arange(1, len(names) + 1), np.array(names)[order], fontsize=7)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set(title="Weights: boxes hold 50%, whiskers 95% of the posterior", xlabel="benign  <   weight   >  malignant")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")


def arguments(argv):
    parser = argparse.ArgumentParser(description="Bayesian logistic regression by Hamiltonian Monte Carlo.")
    parser.add_argument("--steps", type=int, default=2000, help="samples of each chain, after the warm-up")
    parser.add_argument("--warmup", type=int, default=500, help="iterations that adapt the step size")
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--leaps", type=int, default=16, help="leapfrog steps of an iteration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the picture")
    parser.add_argument("--out", type=Path, default=Path("out/hmc"), help="folder of the picture")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    (x, y), (test_x, test_y), names = load(args.seed)
    on_device_x, on_device_y = (fl.numpy.asarray(a, device=args.device) for a in (x, y))

    def posterior(weights):
        return log_density(weights, on_device_x, on_device_y)

    start = time.perf_counter()
    best = mode(posterior, fl.numpy.asarray(np.zeros(x.shape[1] + 1), device=args.device))
    key_start, key = fl.random.split(fl.numpy.asarray(fl.random.key(args.seed), device=args.device))
    positions = fl.numpy.asarray(best, device=args.device)
    positions = positions + fl.random.normal(key_start, (args.chains, len(best)), dtype=np.float64)
    samples, acceptance, step_size = sample(
        posterior, positions, key=key, n_warmup=args.warmup, n_steps=args.steps, n_leaps=args.leaps
    )
    seconds = time.perf_counter() - start

    r_hat, n_effective = split_r_hat(samples).max(), effective_samples(samples).min()
    weights = samples.reshape(-1, samples.shape[-1])
    accuracy, score = scores(weights, test_x, test_y)
    mode_accuracy, mode_score = scores(best[None], test_x, test_y)
    print(f"{len(weights)} samples in {seconds:.1f} s, step size {step_size:.3f}, acceptance {acceptance:.0%}")
    print(f"R-hat at most {r_hat:.4f}, effective samples at least {n_effective:.0f}")
    print(f"held out: accuracy {accuracy:.1%}, log score {score:.4f}; the mode: {mode_accuracy:.1%}, {mode_score:.4f}")
    if args.plot:
        plot(args.out / "weights.png", weights[:, 1:], names)
    return float(r_hat)


if __name__ == "__main__":
    main()

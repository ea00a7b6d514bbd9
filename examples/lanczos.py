# SPDX-License-Identifier: MIT
"""The curvature of a trained network's loss: eigenvalues of a Hessian that is never formed.

    python examples/lanczos.py                  # seconds; --steps 20 --iterations 10 for a glance

A small network learns the digits (1,797 images 8x8, scikit-learn). Its Hessian H has n^2 entries for n parameters, but
a product H v costs about two gradients: `hvp`, forward mode over reverse mode. Lanczos' method makes of k products
a tridiagonal k x k matrix T whose extreme eigenvalues are those of H; all k products are one compiled `scan`.

It prints the largest eigenvalues (for a loss in nats and parameters without units), with the residuals |H v - a v| that
bound their errors, before and after training; out/lanczos/spectrum.png shows the density of all eigenvalues, by
stochastic Lanczos quadrature: most are near zero and about as many as there are classes stand out.

References
  method      C. Lanczos, J. Res. Nat. Bur. Standards 45 (1950); Y. Saad, "Numerical methods for large eigenvalue
              problems" (2011), chapter 6
  product     B. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994)
  density     B. Ghorbani, S. Krishnan, Y. Xiao, "An investigation into neural net optimization via Hessian
              eigenvalue density", arXiv:1901.10159
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import data, lax, nn, optim, train


def load():
    """All digits: inputs float64 [1797, 64] in 0..1, labels [1797]."""
    parts = [data.digits(name) for name in ("train", "test")]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images.reshape(len(images), -1) / images.max(), labels


def loss_fn(model, x, labels):
    return nn.cross_entropy(model(x), labels)


class State(NamedTuple):
    """What training changes."""

    model: nn.Module
    opt_state: Any


def make_train_step(opt):
    """A step of training; a batch is (inputs, labels)."""

    @fl.jit
    def train_step(state, batch):
        loss, grads = fl.value_and_grad(loss_fn)(state.model, *batch)
        return State(*opt.step(state.model, grads, state.opt_state)), {"loss": loss}

    return train_step


# --- parameters as one vector -------------------------------------------------------------------------------------


def flatten(model):
    """All parameters of a pytree as one vector [n]."""
    return np.concatenate([leaf.reshape(-1) for leaf in fl.tree.leaves(model)])


def unflatten(like, vector):
    """The pytree shaped like `like` with the numbers of `vector` [n]."""
    leaves, treedef = fl.tree.flatten(like)
    parts = np.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return fl.tree.unflatten(treedef, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def hessian_product(model, x, labels):
    """The function v [n] -> H v [n] for the loss of `model` on these examples."""
    point = flatten(model)

    def product(v):
        return fl.hvp(lambda p: loss_fn(unflatten(model, p), x, labels), (point,), (v,))

    return product


# --- Lanczos ------------------------------------------------------------------------------------------------------


def lanczos(product, start, k):
    """k steps of Lanczos from the vector `start` [n]: (diagonal [k], off-diagonal [k], basis [k, n]).

        H Q^T = Q^T T + b_k q_{k+1} e_k^T,   T = tridiag(off-diagonal[:-1], diagonal, off-diagonal[:-1])

    The rows of the basis Q are orthonormal; each new one is made orthogonal to all before it, twice, as rounding would
    otherwise bring found eigenvalues back as copies. The last off-diagonal entry is b_k.
    """

    def step(carry, i):
        basis, q = carry
        basis = basis.at[i].set(q)
        w = product(q)
        diagonal = np.sum(q * w)
        for _ in range(2):
            w = w - (basis @ w) @ basis
        length = np.sqrt(np.sum(w * w))
        return (basis, w / np.maximum(length, 1e-300)), (diagonal, length)

    q = start / np.sqrt(np.sum(start**2))
    empty = np.zeros((k, 1)) * q
    (basis, _), (diagonal, off_diagonal) = lax.scan(step, (empty, q), np.arange(k))
    return diagonal, off_diagonal, basis


def ritz(diagonal, off_diagonal):
    """Of T: eigenvalues [k], rising; |H v - a v| [k], which bounds their errors; squared first components [k]."""
    beta = off_diagonal[:-1]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beta, 1) + np.diag(beta, -1))
    rounding = np.finfo(values.dtype).eps * np.abs(values).max()
    return values, np.abs(off_diagonal[-1] * vectors[-1]) + rounding, vectors[0] ** 2


@fl.jit(static_argnames="k")
def spectrum(model, x, labels, starts, *, k):
    """Diagonals and off-diagonals [len(starts), k] of T for the loss' Hessian, from each start [n] in turn."""
    product = hessian_product(model, x, labels)
    return lax.map(lambda start: lanczos(product, start, k)[:2], starts)


def to_host(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)  # a CuPy array comes to the host by .get()


def eigenvalues(model, x, labels, starts, k):
    """Ritz values, error bounds and weights, each [len(starts), k]."""
    diagonals, off_diagonals = map(to_host, spectrum(model, x, labels, starts, k=k))
    found = [ritz(a, b) for a, b in zip(diagonals, off_diagonals, strict=True)]
    return tuple(np.stack(parts) for parts in zip(*found, strict=True))


# --- the run ------------------------------------------------------------------------------------------------------


def plot(path, before, after):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = zip(figure.subplots(1, 2), (before, after), ("before", "after"), strict=True)
    for axes, (values, _, weights), name in panels:
        width = 0.01 * (values.max() - values.min())
        grid = np.linspace(values.min() - 5 * width, values.max() + 5 * width, 1000)
        bumps = np.exp(-0.5 * ((grid[:, None, None] - values) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        axes.semilogy(grid, np.sum(bumps * weights, (1, 2)) / len(values))
        axes.set(title=f"{name} training", xlabel="eigenvalue", ylabel="density", ylim=(1e-5, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")


def arguments(argv):
    parser = argparse.ArgumentParser(description="Hessian eigenvalues of a small network by Lanczos.")
    parser.add_argument("--steps", type=int, default=500, help="training steps, each on all examples")
    parser.add_argument("--iterations", type=int, default=80, help="steps of Lanczos")
    parser.add_argument("--starts", type=int, default=5, help="random starting vectors, averaged for the density")
    parser.add_argument("--width", type=int, default=32, help="units of the hidden layer")
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the picture")
    parser.add_argument("--out", type=Path, default=Path("out/lanczos"), help="folder of the picture")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    key_model, key_starts = fl.random.split(fl.random.key(args.seed))
    model = nn.MLP((64, args.width, 10), activation=nn.tanh, dtype=np.float64, key=key_model)
    n = sum(leaf.size for leaf in fl.tree.leaves(model))
    starts = fl.random.normal(key_starts, (args.starts, n), dtype=np.float64)
    x, labels = load()
    model, starts, x, labels = fl.tree.map(
        lambda leaf: fl.numpy.asarray(leaf, device=args.device), (model, starts, x, labels)
    )

    start = time.perf_counter()
    before = eigenvalues(model, x, labels, starts, args.iterations)
    opt = optim.adam(args.learning_rate)
    step, state = make_train_step(opt), State(model, opt.init(model))
    model = train.fit(step, state, itertools.repeat((x, labels)), steps=args.steps).state.model
    after = eigenvalues(model, x, labels, starts, args.iterations)
    seconds = time.perf_counter() - start

    loss = float(loss_fn(model, x, labels))
    print(f"{n} parameters, {args.steps} steps to loss {loss:.4f}; {seconds:.1f} s in all")
    for name, (values, errors, _) in (("before", before), ("after", after)):
        largest = "  ".join(f"{value:.4g}" for value in values[0, :-11:-1])
        print(f"{name} training, largest eigenvalues: {largest}")
        print(f"  errors at most {errors[0, -10:].max():.1e}; smallest eigenvalue {values[0, 0]:.3g}")
    if args.plot:
        plot(args.out / "spectrum.png", before, after)
    return after[0][0, ::-1]


if __name__ == "__main__":
    main()

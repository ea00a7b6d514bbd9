# SPDX-License-Identifier: MIT
"""Solve Burgers' equation with a network that is never shown a solution: a physics-informed neural network.

    python examples/pinn.py                     # some minutes; --steps 50 --rounds 0 for a glance

    u_t + u u_x = nu u_xx,   t in [0, 1], x in [-1, 1],   nu = 0.01 / pi unless --viscosity is given
    u(0, x) = -sin(pi x),    u(t, -1) = u(t, 1) = 0

All quantities are without units. A smooth wave steepens into a front at x = 0 about t = 1/pi. The network only makes
the residual of the equation small at random points; that takes second derivatives of the network by its input inside a
gradient by its weights. Initial and boundary values hold exactly, by the form of `u` below. Adam finds the shape,
L-BFGS the digits, in rounds with new points, drawn where the residual is large. It prints the relative L2 error against
the exact solution, and writes out/pinn/solution.png.

References
  method      M. Raissi, P. Perdikaris, G. Karniadakis, "Physics-informed neural networks", J. Comput. Phys. 378 (2019)
  points      C. Wu and others, "A comprehensive study of non-adaptive and residual-based adaptive sampling for
              physics-informed neural networks", arXiv:2207.10289
  exact       C. Basdevant and others, "Spectral and finite difference solutions of the Burgers equation",
              Computers & Fluids 14 (1986), after E. Hopf (1950) and J. Cole (1951)
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import nn, optim, train


def network(width, n_layers, key):
    """(t, x) [batch, 2] -> [batch, 1] with smooth activations; Glorot's weights keep the signal's size."""
    sizes, layers = (2, *[width] * n_layers, 1), []
    for n_in, n_out, k in zip(sizes[:-1], sizes[1:], fl.random.split(key, n_layers + 1), strict=True):
        layers += [nn.Linear(n_in, n_out, init=nn.initializers.xavier_uniform(), dtype=np.float64, key=k), nn.tanh]
    return nn.Sequential(*layers[:-1])


def u(model, t, x):
    """The solution at points t, x [n], n numbers: the network's output, bent to the initial and boundary values."""
    n = model(np.stack([t, x], axis=-1))[:, 0]
    return -np.sin(np.pi * x) + t * (1 - x**2) * n


def residual(model, t, x, nu):
    """u_t + u u_x - nu u_xx at the points t, x [n]; each point is by itself, so one direction serves for all."""
    one = np.ones_like(x)

    def by_x(x):
        return fl.jvp(lambda x: u(model, t, x), (x,), (one,))

    (value, u_x), (_, u_xx) = fl.jvp(by_x, (x,), (one,))
    u_t = fl.jvp(lambda t: u(model, t, x), (t,), (one,))[1]
    return u_t + value * u_x - nu * u_xx


def loss_fn(model, t, x, nu):
    return np.mean(residual(model, t, x, nu) ** 2)


def exact_solution(t, x, nu, n_nodes=200):
    """The solution at t, x (arrays of one shape) by the Cole-Hopf transform, with Gauss-Hermite quadrature.

    u = -int sin(pi y) f(y) exp(-z^2) dz / int f(y) exp(-z^2) dz
    y = x - 2 sqrt(nu t) z,   f(y) = exp(-cos(pi y) / (2 pi nu))
    """
    z, weights = np.polynomial.hermite.hermgauss(n_nodes)
    y = x[..., None] - 2 * np.sqrt(nu * t)[..., None] * z
    exponent = -np.cos(np.pi * y) / (2 * np.pi * nu)
    f = weights * np.exp(exponent - exponent.max(-1, keepdims=True))
    return -np.sum(np.sin(np.pi * y) * f, -1) / np.sum(f, -1)


def test_grid(n_t=101, n_x=257):
    """Times and places of the comparison, each [n_t, n_x]."""
    return np.meshgrid(np.linspace(0, 1, n_t), np.linspace(-1, 1, n_x), indexing="ij")


@fl.jit
def predict(model, t, x):
    return u(model, t, x)


def relative_error(model, nu, to_device):
    """|u - exact| / |exact| in the L2 norm on the grid, and u there."""
    t, x = test_grid()
    found = to_host(predict(model, to_device(t.ravel()), to_device(x.ravel()))).reshape(t.shape)
    exact = exact_solution(t, x, nu)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact)), found


def to_host(x):
    return x.get() if hasattr(x, "get") else x  # a CuPy array comes to the host by .get()


def draw_points(rng, n):
    """n random points (t, x) of the domain."""
    return rng.uniform(0, 1, n), rng.uniform(-1, 1, n)


@fl.jit
def sizes_of_residual(model, t, x, nu):
    return np.abs(residual(model, t, x, nu))


def draw_points_where_wrong(rng, n, size_at):
    """n points (t, x) out of 10 n, with a chance that grows with the residual: size_at(t, x) [10 n]."""
    t, x = draw_points(rng, 10 * n)
    size = size_at(t, x)
    chance = size / size.mean() + 1.0
    chosen = rng.choice(10 * n, n, replace=False, p=chance / chance.sum())
    return t[chosen], x[chosen]


class State(NamedTuple):
    """What training changes."""

    model: nn.Module
    opt_state: Any


def make_adam_step(opt, nu):
    @fl.jit
    def step(state, points):
        loss, grads = fl.value_and_grad(loss_fn)(state.model, *points, nu)
        return State(*opt.step(state.model, grads, state.opt_state)), {"loss": loss}

    return step


def make_lbfgs_step(opt, nu):
    @fl.jit
    def step(state, points):
        value_and_grad = fl.value_and_grad(lambda model: loss_fn(model, *points, nu))
        model, opt_state = opt.step(state.model, value_and_grad, state.opt_state)
        return State(model, opt_state), {"log10 loss": np.log10(opt_state.value)}

    return step


def plot(path, found, nu):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    t, x = test_grid()
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4, width_ratios=[2, 1, 1, 1])
    image = axes[0].imshow(found.T, origin="lower", extent=(0, 1, -1, 1), aspect="auto", cmap="RdBu_r")
    axes[0].set(title="u(t, x), found", xlabel="t", ylabel="x")
    figure.colorbar(image, ax=axes[0])
    for panel, i in zip(axes[1:], (25, 50, 75), strict=True):
        panel.plot(x[i], exact_solution(t[i], x[i], nu), linewidth=3, alpha=0.4, label="exact")
        panel.plot(x[i], found[i], "--", label="found")
        panel.set(title=f"t = {t[i, 0]:.2f}", xlabel="x", ylim=(-1.1, 1.1))
    axes[1].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")


def arguments(argv):
    parser = argparse.ArgumentParser(description="A physics-informed network for Burgers' equation.")
    parser.add_argument("--steps", type=int, default=3000, help="steps of Adam")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of L-BFGS after them")
    parser.add_argument("--lbfgs-steps", type=int, default=1200, help="steps of a round")
    parser.add_argument("--points", type=int, default=4000, help="points where the residual is made small")
    parser.add_argument("--width", type=int, default=32, help="units of each of the four hidden layers")
    parser.add_argument("--viscosity", type=float, default=0.01 / np.pi, help="nu; 0.1 is an easy case")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the picture")
    parser.add_argument("--out", type=Path, default=Path("out/pinn"), help="folder of the picture")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    rng = np.random.default_rng(args.seed)

    def to_device(x):
        return fl.numpy.asarray(x, device=args.device)

    model = fl.tree.map(to_device, network(args.width, 4, fl.random.key(args.seed)))

    start = time.perf_counter()
    opt = optim.adam(optim.cosine_decay(args.learning_rate, args.steps, end=1e-4))
    batches = (tuple(map(to_device, draw_points(rng, args.points))) for _ in range(args.steps))
    step, state = make_adam_step(opt, args.viscosity), State(model, opt.init(model))
    model = train.fit(step, state, batches, steps=args.steps, title="Adam").state.model

    def size_at(t, x):
        return to_host(sizes_of_residual(model, to_device(t), to_device(x), args.viscosity))

    opt = optim.lbfgs(history=50)
    step = make_lbfgs_step(opt, args.viscosity)
    for i in range(args.rounds):
        points = tuple(map(to_device, draw_points_where_wrong(rng, args.points, size_at)))
        batches, state = itertools.repeat(points, args.lbfgs_steps), State(model, opt.init(model))
        model = train.fit(step, state, batches, title=f"L-BFGS, round {i + 1}/{args.rounds}").state.model

    error, found = relative_error(model, args.viscosity, to_device)
    loss = np.mean(size_at(*draw_points(rng, 10 * args.points)) ** 2)
    print(f"relative L2 error {error:.2e}, mean squared residual {loss:.2e}, {time.perf_counter() - start:.0f} s")
    if args.plot:
        plot(args.out / "solution.png", found, args.viscosity)
    return error


if __name__ == "__main__":
    main()

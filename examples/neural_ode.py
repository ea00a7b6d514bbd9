# SPDX-License-Identifier: MIT
"""Learn the law of motion of a spiral from its path: a neural ODE, with gradients by the adjoint method.

    python examples/neural_ode.py               # seconds; --steps 20 for a glance

The true law is dy/dt = A y^3 in the plane, for 25 units of time from y = (2, 0). A small network f learns dy/dt = f(y)
from short pieces of one noise-free path, by the error of the paths it gives, so the gradient goes through a solver.

Two solvers: `rk4`, with steps of one size in a `scan`, and `dopri5`, which chooses its steps, in a `while_loop`. Two
gradients: through the solver's own steps, and the adjoint, which solves another equation backwards in time,

    da/dt = -a df/dy,     dL/dw = -int_t1^t0 a df/dw dt,       a = dL/dy,

and keeps nothing of the way there, however many steps it took. It is a `custom_vjp` here. The example prints how far
apart the gradients are, trains with the adjoint, and prints the error of the whole path from the one starting point.
out/neural_ode/path.png shows it.

References
  adjoint     T. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, "Neural ordinary differential equations",
              arXiv:1806.07366, with the spiral of its authors' demonstration
  dopri5      J. Dormand, P. Prince, "A family of embedded Runge-Kutta formulae", J. Comput. Appl. Math. 6 (1980)
  step size   E. Hairer, S. Norsett, G. Wanner, "Solving ordinary differential equations I" (1993), section II.4
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import lax, nn, optim, train

A = np.array([[-0.1, 2.0], [-2.0, -0.1]])
START, END, N_TIMES = np.array([2.0, 0.0]), 25.0, 1000
GAP = END / N_TIMES


# --- solvers: f(y, args) -> dy/dt, all numbers of a state y in one array [n] ------------------------------------------


def rk4(f, y, args, duration, n_steps=4):
    """y after `duration`, by n_steps equal steps of the classical Runge-Kutta method of order 4."""
    h = duration / n_steps

    def step(y, _):
        k1 = f(y, args)
        k2 = f(y + 0.5 * h * k1, args)
        k3 = f(y + 0.5 * h * k2, args)
        k4 = f(y + h * k3, args)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return lax.scan(step, y, None, length=n_steps)[0]


# Row i: how slopes 0..i make the point of slope i + 1; the last row is the result of order 5.
TABLEAU = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
]
ERROR = [71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]  # order 5 minus order 4


def dopri5(f, y, args, duration, tolerance=1e-8):
    """y after `duration`, below 0 backwards in time; each step's error is kept below tolerance (1 + |y|)."""

    def attempt(y, slope, h):
        slopes = [slope]
        for row in TABLEAU:
            moved = y + h * sum(c * k for c, k in zip(row, slopes, strict=True))
            slopes.append(f(moved, args))
        error = h * sum(c * k for c, k in zip(ERROR, slopes, strict=True))
        scale = tolerance * (1 + np.maximum(np.abs(y), np.abs(moved)))
        return moved, slopes[-1], np.sqrt(np.mean((error / scale) ** 2))

    def step(state):
        t, h, y, slope = state
        h = np.where(np.abs(h) > np.abs(duration - t), duration - t, h)
        moved, new_slope, error = attempt(y, slope, h)
        factor = np.clip(0.9 * np.maximum(error, 1e-10) ** -0.2, 0.2, 5.0)
        good = error <= 1
        return np.where(good, t + h, t), h * factor, np.where(good, moved, y), np.where(good, new_slope, slope)

    def is_on_the_way(state):
        return np.abs(duration - state[0]) > 1e-12 * np.abs(duration)

    first = 0.2 * duration
    return lax.while_loop(is_on_the_way, step, (0.0 * duration, first, y, f(y, args)))[2]


# --- the adjoint --------------------------------------------------------------------------------------------------


def with_adjoint(solve, f):
    """`solve` for the law f as a function (y [n], args: a pytree, duration) with the adjoint as its derivative."""

    @fl.custom_vjp
    def solved(y, args, duration):
        return solve(f, y, args, duration)

    def forward(y, args, duration):
        end = solve(f, y, args, duration)
        return end, (end, args, duration)

    def backward(kept, ct):
        end, args, duration = kept
        leaves, treedef = fl.tree.flatten(args)
        sizes = [end.size, end.size, *[leaf.size for leaf in leaves]]

        def law(state, args):  # of y, a and dL/dw together, in one array
            y, a = state[: end.size], state[end.size : 2 * end.size]
            slope, pullback = fl.vjp(f, y, args)
            by_y, by_args = pullback(a)
            return np.concatenate([slope, -by_y, *[-leaf.reshape(-1) for leaf in fl.tree.leaves(by_args)]])

        state = np.concatenate([end, ct, *[np.zeros_like(leaf).reshape(-1) for leaf in leaves]])
        state = solve(law, state, args, -duration)
        _, by_y, *parts = np.split(state, np.cumsum(sizes)[:-1])
        by_args = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return by_y, fl.tree.unflatten(treedef, by_args), np.sum(ct * f(end, args))

    solved.defvjp(forward, backward)
    return solved


# --- data, model, training ------------------------------------------------------------------------------------------


def true_law(y, args):
    return A @ y**3


def path(solve, f, y, args, n):
    """The state at n times after y [2], GAP apart; [n, 2]."""

    def step(y, _):
        y = solve(f, y, args, GAP)
        return y, y

    return lax.scan(step, y, None, length=n)[1]


def true_path():
    """The spiral at N_TIMES + 1 times of equal distance, [N_TIMES + 1, 2]."""
    rest = fl.jit(lambda y: path(dopri5, true_law, y, None, N_TIMES))(START)
    return np.concatenate([START[None], rest])


def network(key):
    """y [2] -> f [2]; it sees cubes, as in the authors' demonstration."""
    return nn.MLP((2, 50, 2), activation=nn.tanh, dtype=np.float64, key=key)


def learned_law(y, model):
    return model(y**3)


def loss_fn(solve, model, pieces):
    """Mean absolute error of the paths from the first point of each piece [batch, time, 2]."""
    n = pieces.shape[1] - 1
    found = fl.vmap(lambda y: path(solve, learned_law, y, model, n))(pieces[:, 0])
    return np.mean(np.abs(found - pieces[:, 1:]))


class State(NamedTuple):
    """What training changes."""

    model: nn.Module
    opt_state: Any


def make_train_step(opt, solve):
    """A step of training; a batch is pieces of the path. solve(f, y, args, duration) has its derivative in it."""

    @fl.jit
    def train_step(state, pieces):
        loss, grads = fl.value_and_grad(lambda model: loss_fn(solve, model, pieces))(state.model)
        return State(*opt.step(state.model, grads, state.opt_state)), {"loss": loss}

    return train_step


def adjoint_of(solve):
    """`solve` with the derivative by the adjoint, for any law."""
    return lambda f, y, args, duration: with_adjoint(solve, f)(y, args, duration)


def compare_gradients(model, pieces):
    """Relative distances of the gradient by dopri5's adjoint and of rk4's two gradients from dopri5's own one."""

    def gradient(solve):
        grads = fl.jit(fl.grad(lambda model: loss_fn(solve, model, pieces)))(model)
        return np.concatenate([to_host(leaf).ravel() for leaf in fl.tree.leaves(grads)])

    reference = gradient(dopri5)
    others = {"dopri5, adjoint": adjoint_of(dopri5), "rk4": rk4, "rk4, adjoint": adjoint_of(rk4)}
    norm = np.linalg.norm(reference)
    return {name: float(np.linalg.norm(gradient(solve) - reference) / norm) for name, solve in others.items()}


def draw_pieces(rng, whole, n, length):
    """n pieces [n, length, 2] of the path from random places."""
    first = rng.integers(0, len(whole) - length, n)
    return whole[first[:, None] + np.arange(length)]


def to_host(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)  # a CuPy array comes to the host by .get()


def plot(path, whole, found):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.6])
    times = np.linspace(0, END, N_TIMES + 1)
    left.plot(*whole.T, label="true", linewidth=3, alpha=0.4)
    left.plot(*found.T, "--", label="learned")
    left.legend()
    right.plot(times, whole, linewidth=3, alpha=0.4)
    right.set_prop_cycle(None)
    right.plot(times, found, "--")
    right.set(xlabel="time")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")


def arguments(argv):
    parser = argparse.ArgumentParser(description="A neural ODE learns a spiral.")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=20, help="pieces of the path in a step")
    parser.add_argument("--length", type=int, default=10, help="points of a piece")
    parser.add_argument("--solver", choices=["rk4", "dopri5"], default="dopri5")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the picture")
    parser.add_argument("--out", type=Path, default=Path("out/neural_ode"), help="folder of the picture")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    rng, whole = np.random.default_rng(args.seed), true_path()

    def to_device(x):
        return fl.numpy.asarray(x, device=args.device)

    def batches():
        while True:
            yield to_device(draw_pieces(rng, whole, args.batch_size, args.length))

    model = fl.tree.map(to_device, network(fl.random.key(args.seed)))
    for name, distance in compare_gradients(model, next(batches())).items():
        print(f"gradient of {name}: {distance:.1e} away from that through dopri5's steps")

    start = time.perf_counter()
    opt = optim.adam(optim.cosine_decay(args.learning_rate, args.steps))
    step = make_train_step(opt, adjoint_of({"rk4": rk4, "dopri5": dopri5}[args.solver]))
    model = train.fit(step, State(model, opt.init(model)), batches(), steps=args.steps).state.model
    seconds = time.perf_counter() - start

    rest = to_host(fl.jit(lambda model, y: path(rk4, learned_law, y, model, N_TIMES))(model, to_device(START)))
    found = np.concatenate([START[None], rest])
    error = float(np.mean(np.abs(found - whole)))
    print(f"mean error {error:.4f} along the whole path, where |y| starts at 2; {args.steps} steps in {seconds:.0f} s")
    if args.plot:
        plot(args.out / "path.png", whole, found)
    return error


if __name__ == "__main__":
    main()

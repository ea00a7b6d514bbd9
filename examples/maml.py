# SPDX-License-Identifier: MIT
"""Learn to learn sinusoids from a handful of points: MAML, a gradient through a gradient step.

    python examples/maml.py                     # a minute; --steps 100 for a glance

A task is y = A sin(x - p) on [-5, 5], with A in [0.1, 5] and p in [0, pi] drawn anew; all are without units. A network
sees 10 points of it, takes a step of gradient descent, and is judged on other points. MAML trains the weights to start
from: the loss after that step, averaged over 25 tasks, is differentiated through the step, second derivatives and all.
Tasks are handled by `vmap`, the step is `grad` inside `grad`.

For comparison the same network is trained on all tasks at once, without looking ahead, and then adapted in the same
way: it learns the mean of all sinusoids, from which ten points lead nowhere.

It prints the mean squared error on new tasks after 0, 1 and 10 steps; out/maml/tasks.png shows some.

References
  method      C. Finn, P. Abbeel, S. Levine, "Model-agnostic meta-learning for fast adaptation of deep networks",
              arXiv:1703.03400, section 5.1 for this experiment
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import lax, nn, optim, train

INNER_RATE = 0.01  # of the step that adapts


class Task(NamedTuple):
    """A curve, and points of it to learn from: amplitude [], phase [], x [k, 1], y [k, 1]."""

    amplitude: Any
    phase: Any
    x: Any
    y: Any


def curve(task, x):
    return task.amplitude * np.sin(x - task.phase)


def draw_x(key, k):
    return fl.random.uniform(key, (k, 1), np.float32, -5.0, 5.0)


def draw_task(key, k):
    """A new curve and k points of it."""
    key_amplitude, key_phase, key_x = fl.random.split(key, 3)
    amplitude = fl.random.uniform(key_amplitude, (), np.float32, 0.1, 5.0)
    phase = fl.random.uniform(key_phase, (), np.float32, 0.0, np.pi)
    x = draw_x(key_x, k)
    return Task(amplitude, phase, x, amplitude * np.sin(x - phase))


def loss_fn(model, x, y):
    return np.mean((model(x) - y) ** 2)


def adapt(model, x, y, n_steps):
    """The model after n_steps of gradient descent on the points x, y [k, 1]."""

    def step(model, _):
        grads = fl.grad(loss_fn)(model, x, y)
        return fl.tree.map(lambda p, g: p - np.float32(INNER_RATE) * g, model, grads), None

    return lax.scan(step, model, None, length=n_steps)[0]


def loss_after(model, key, k, n_steps):
    """Of a new task: the error on k other points after n_steps of learning from k points; 0 steps is joint training."""
    key_task, key_x = fl.random.split(key)
    task, x = draw_task(key_task, k), draw_x(key_x, k)
    return loss_fn(adapt(model, task.x, task.y, n_steps), x, curve(task, x))


class State(NamedTuple):
    """What training changes."""

    model: nn.Module
    opt_state: Any


def make_train_step(opt, n_tasks, k, n_steps):
    """A step of training for what comes after n_steps of adaptation; a batch is the key to draw tasks with."""

    def meta_loss(model, key):
        return np.mean(fl.vmap(lambda key: loss_after(model, key, k, n_steps))(fl.random.split(key, n_tasks)))

    @fl.jit
    def train_step(state, key):
        loss, grads = fl.value_and_grad(meta_loss)(state.model, key)
        return State(*opt.step(state.model, grads, state.opt_state)), {"loss": loss}

    return train_step


def train_model(model, key, args, n_adapt, title):
    opt = optim.adam(args.learning_rate)
    step, state = make_train_step(opt, args.tasks, args.points, n_adapt), State(model, opt.init(model))
    keys = (fl.random.fold_in(key, i) for i in range(args.steps))
    return train.fit(step, state, keys, steps=args.steps, title=title).state.model


@fl.jit(static_argnames=("k", "n_steps"))
def errors(model, keys, *, k, n_steps):
    """Mean squared error on each of the new tasks [len(keys)] after n_steps of learning from k points."""
    grid = np.linspace(-5, 5, 100, dtype=np.float32)[:, None]

    def error(key):
        task = draw_task(key, k)
        return loss_fn(adapt(model, task.x, task.y, n_steps), grid, curve(task, grid))

    return fl.vmap(error)(keys)


def to_host(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)  # a CuPy array comes to the host by .get()


def plot(path, models, keys, k):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = np.linspace(-5, 5, 100, dtype=np.float32)[:, None]
    for row, (name, model) in zip(figure.subplots(2, 3, sharex=True, sharey=True), models.items(), strict=True):
        for axes, key in zip(row, keys, strict=False):
            task = draw_task(key, k)
            axes.plot(grid, curve(task, grid), linewidth=3, alpha=0.4, label="task")
            axes.plot(to_host(task.x), to_host(task.y), "k^")
            for n_steps, style in ((0, ":"), (1, "--"), (10, "-")):
                axes.plot(grid, to_host(adapt(model, task.x, task.y, n_steps)(grid)), style, label=f"{n_steps} steps")
        row[0].set_ylabel(name)
    figure.axes[0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")


def arguments(argv):
    parser = argparse.ArgumentParser(description="MAML on sinusoids.")
    parser.add_argument("--steps", type=int, default=20000, help="training steps (70,000 in the paper)")
    parser.add_argument("--tasks", type=int, default=25, help="tasks of a step")
    parser.add_argument("--points", type=int, default=10, help="points to learn a task from")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the picture")
    parser.add_argument("--out", type=Path, default=Path("out/maml"), help="folder of the picture")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    key_model, key_train, key_test = fl.random.split(fl.random.key(args.seed), 3)
    model, key_train, key_test = fl.tree.map(
        lambda leaf: fl.numpy.asarray(leaf, device=args.device),
        (nn.MLP((1, 40, 40, 1), key=key_model), key_train, key_test),
    )
    start = time.perf_counter()
    models = {
        "MAML": train_model(model, key_train, args, 1, "MAML"),
        "joint training": train_model(model, key_train, args, 0, "joint training"),
    }
    seconds = time.perf_counter() - start

    keys, table = fl.random.split(key_test, 600), {}
    print(f"{args.steps} steps each, {seconds:.0f} s; mean squared error on {len(keys)} new tasks:")
    for name, model in models.items():
        found = [to_host(errors(model, keys, k=args.points, n_steps=n)) for n in (0, 1, 10)]
        table[name] = [float(e.mean()) for e in found]
        margins = [1.96 * e.std() / np.sqrt(len(e)) for e in found]  # of 95% confidence
        cells = (f"{e:.2f} +- {m:.2f} after {n}" for e, m, n in zip(table[name], margins, (0, 1, 10), strict=True))
        print(f"  {name:15s} {',   '.join(cells)} steps")
    if args.plot:
        plot(args.out / "tasks.png", models, keys, args.points)
    return table


if __name__ == "__main__":
    main()

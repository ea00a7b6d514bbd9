# SPDX-License-Identifier: MIT
"""What the trainers share: their record, and the plain training loop of each library.

A trainer runs the step of an example as it stands in examples/, and beside it the same model, optimizer and batches
written by hand for PyTorch and for JAX with optax, as a user of each would write them.
"""

import importlib.util
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl

Batches = Sequence[tuple[np.ndarray, ...]]


class Run(NamedTuple):
    """A training under way. step(): takes the next batch, updates everything, waits, and returns the loss.

    n_parameters: how many numbers are trained; it must agree between the libraries.
    """

    step: Callable[[], float]
    n_parameters: int


@dataclass(frozen=True)
class Trainer:
    """One training job in each library; each function starts it afresh. torch(compiled) says whether to compile.

    jax and torch are None where a peer has no like of it.
    """

    name: str
    ours: Callable[[], Run]
    jax: Callable[[], Run] | None
    torch: Callable[[bool], Run] | None


def example(name: str) -> Any:
    """The module examples/<name>.py, so that its own model and step are what is measured."""
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"examples_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def our_run(
    step: Callable[..., Any], state: Any, batches: Iterable[Any], n_parameters: int, figure: str = "loss"
) -> Run:
    """The loop over step(state, batch) -> (state, {figure: ...}), the step jitted."""
    turn, held = itertools.cycle(batches), [state]

    def once():
        held[0], metrics = step(held[0], next(turn))
        return float(metrics[figure])

    return Run(once, n_parameters)


def jax_run(loss: Callable[..., Any], params: Any, optimizer: Any, batches: Iterable[Any]) -> Run:
    """loss(params, *batch) minimised by an optax optimizer, one jitted step with donated state."""
    import jax
    import optax

    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    step = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jax.numpy.asarray, params)
    held = [params, optimizer.init(params)]
    turn = itertools.cycle([tuple(jax.numpy.asarray(part) for part in batch) for batch in batches])

    def once():
        *held[:], value = step(*held, next(turn))
        return float(value)

    return Run(once, sum(leaf.size for leaf in jax.tree.leaves(params)))


def torch_run(model: Any, loss: Callable[..., Any], optimizer: Any, batches: Iterable[Any], compiled: bool) -> Run:
    """loss(*batch), which calls `model`, minimised by a torch optimizer; compiled as a whole by torch.compile."""
    import torch

    turn = itertools.cycle([tuple(torch.from_numpy(np.asarray(part)) for part in batch) for batch in batches])
    value_of = torch.compile(loss) if compiled else loss

    def once():
        optimizer.zero_grad()
        value = value_of(*next(turn))
        value.backward()
        optimizer.step()
        return value.item()

    return Run(once, sum(p.numel() for p in model.parameters() if p.requires_grad))


def count(model: Any) -> int:
    """How many numbers of one of our models are trained: buffers do not count."""
    kept = zip(fl.tree.leaves(model), fl.tree.leaves(fl.nn.trainable_mask(model)), strict=True)
    return sum(leaf.size for leaf, trained in kept if trained)


# --- parameters of the hand-written models ------------------------------------------------------------------------


def dense(rng: np.random.Generator, n_in: int, n_out: int) -> dict[str, np.ndarray]:
    """{"w" [n_in, n_out], "b" [n_out]}, float32, with variance 1 / n_in."""
    w = rng.standard_normal((n_in, n_out)) * n_in**-0.5
    return {"w": w.astype(np.float32), "b": np.zeros(n_out, np.float32)}


def filters(rng: np.random.Generator, n_out: int, n_in: int, size: int, *, bias: bool = True) -> dict[str, np.ndarray]:
    """{"w" [n_out, n_in, size, size], "b" [n_out]} of a convolution, float32, with variance 1 / (n_in size^2)."""
    w = rng.standard_normal((n_out, n_in, size, size)) * (n_in * size * size) ** -0.5
    found = {"w": w.astype(np.float32)}
    return found | {"b": np.zeros(n_out, np.float32)} if bias else found


def scales(n: int) -> dict[str, np.ndarray]:
    """{"w": ones [n], "b": zeros [n]} of a normalisation."""
    return {"w": np.ones(n, np.float32), "b": np.zeros(n, np.float32)}


def images(n_batches: int, batch: int, size: int) -> list[np.ndarray]:
    """Batches of uint8 images [batch, size, size] with something to learn: blobs at random places."""
    rng = np.random.default_rng(0)
    x = np.arange(size)
    found = []
    for _ in range(n_batches):
        centres = rng.uniform(0.2 * size, 0.8 * size, (2, batch, 1))
        rows, columns = np.exp(-((x - centres) ** 2) / (0.1 * size) ** 2)
        found.append((255 * rows[:, :, None] * columns[:, None]).astype(np.uint8))
    return found

# SPDX-License-Identifier: MIT
"""The cost of a call that gives its state away: 1 to 1000 leaves of four numbers, donated and not, here and in JAX."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

import functorch_lite as fl
from benchmarks.timing import interleaved, show

LEAVES = (1, 10, 100, 1000)


def _step(state: dict[str, Any]) -> dict[str, Any]:
    return {name: x + 1 for name, x in state.items()}


def _loop(step: Callable[..., Any], state: dict[str, Any], calls: int = 4) -> Callable[[], object]:
    """A call of the step on what the call before it returned, after as many calls as a program needs to be at speed."""
    held = [state]

    def once():
        held[0] = step(held[0])
        return held[0]

    for _ in range(calls):
        once()
    return once


def _state(n: int) -> dict[str, np.ndarray]:
    return {f"w{i}": np.zeros(4, np.float32) for i in range(n)}


def _candidates(n: int) -> dict[str, Callable[[], object]]:
    found = {
        "functorch_lite, donated": _loop(fl.jit(_step, donate_argnums=0), _state(n)),
        "functorch_lite": _loop(fl.jit(_step), _state(n)),
    }
    if importlib.util.find_spec("jax") is None:
        return found
    import jax

    for name, options in (("jax, donated", {"donate_argnums": 0}), ("jax", {})):
        loop = _loop(jax.jit(_step, **options), jax.tree.map(jax.numpy.asarray, _state(n)))
        found[name] = lambda loop=loop: jax.block_until_ready(loop())
    return found


def main() -> None:
    """Print a table for each number of leaves."""
    for n in LEAVES:
        show(f"x + 1 on {n} leaves", interleaved(_candidates(n)), "functorch_lite, donated")


if __name__ == "__main__":
    main()

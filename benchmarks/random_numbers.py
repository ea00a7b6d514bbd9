# SPDX-License-Identifier: MIT
"""A million random numbers, eagerly: functorch_lite on NumPy, JAX, and NumPy's own generator (another algorithm)."""

import importlib.util

import numpy as np

import functorch_lite as fl
from benchmarks.timing import interleaved, show

N = 1_000_000


def main() -> None:
    """Print a table for uniform and one for normal numbers."""
    key = fl.random.key(0)
    generator = np.random.default_rng(0)
    peers = _jax() if importlib.util.find_spec("jax") is not None else {}
    for name in ("uniform", "normal"):
        ours = getattr(fl.random, name)
        theirs = generator.random if name == "uniform" else generator.standard_normal
        candidates = {
            "functorch_lite": lambda f=ours: f(key, (N,)),
            "numpy (another generator)": lambda f=theirs: f(N, np.float32),
            **({"jax eager": peers[name]} if peers else {}),
        }
        show(f"{N} float32 {name} numbers", interleaved(candidates, rounds=10, target=1e-2), "functorch_lite")


def _jax():
    import jax

    key = jax.random.key(0)
    return {
        "uniform": lambda: jax.block_until_ready(jax.random.uniform(key, (N,))),
        "normal": lambda: jax.block_until_ready(jax.random.normal(key, (N,))),
    }


if __name__ == "__main__":
    main()

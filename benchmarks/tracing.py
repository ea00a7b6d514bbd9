# SPDX-License-Identifier: MIT
"""Tracing is linear: chains of operations traced, differentiated and evaluated; a captured array costs nothing."""

import time
import tracemalloc

import numpy as np

import functorch_lite as fl


def chain(n):
    """A function of n chained operations."""

    def f(x):
        for _ in range(n):
            x = np.sin(x) * 1.0001
        return np.sum(x)

    return f


def main() -> None:
    """Print seconds for growing chains, and for a closed-over array of 1 GB."""
    x = np.ones(4)
    for n in (1250, 2500, 5000, 10000):
        start = time.perf_counter()
        program = fl.make_program(chain(n))(x)
        traced = time.perf_counter()
        fl.grad(chain(n))(x)
        differentiated = time.perf_counter()
        fl.jit(chain(n))(x)
        print(f"  {2 * n:6d} operations: trace {traced - start:6.3f} s ({len(program.equations)} equations), "
              f"grad {differentiated - traced:6.3f} s, jit and run {time.perf_counter() - differentiated:6.3f} s")
    big = np.zeros(2**28, np.float32)
    tracemalloc.start()
    start = time.perf_counter()
    fl.make_program(lambda x: x + big[:4])(x.astype(np.float32))
    fl.make_program(lambda x: np.sum(x * np.reshape(big, (-1, 4))))(x.astype(np.float32))
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    print(f"  a closed-over array of 1 GB: {seconds * 1e3:.2f} ms to trace, {peak / 2**20:.1f} MB allocated")


if __name__ == "__main__":
    main()

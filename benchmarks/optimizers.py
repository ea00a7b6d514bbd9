# SPDX-License-Identifier: MIT
"""Optimizer steps over many parameters, as shares of the memory bandwidth measured in the same run.

`python -m benchmarks optimizers [--parameters 100e6] [--rounds 9] [--names adam sgd]`. A step reads and writes each
number that it must once: that is its traffic, and traffic by time its rate. The bandwidth is the best of two loops on
arrays of that size: `a = 0.5 a + b` in place, compiled by us for all threads, and NumPy's copy in as many threads.
Everything has its turn in each round, and shares are medians over the rounds, for the machine may be busy with other
things. Our steps are jitted with donated parameters and state ("in place") and without ("into new arrays", which
the operating system has to provide and clear); PyTorch's are its fused and its foreach implementation, in place.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import optim

BAR = 0.85  # of the bandwidth, for Adam in place
FLOAT = 4  # bytes


class Entry(NamedTuple):
    """arrays: how many a step reads and writes, each access counted. torch: the class and arguments of PyTorch's."""

    make: Callable[[], optim.GradientTransformation]
    arrays: int
    torch: tuple[str, dict[str, Any]] | None = None


OPTIMIZERS = {
    "adam": Entry(lambda: optim.adam(1e-3), 7, ("Adam", {"lr": 1e-3})),
    "adamw": Entry(lambda: optim.adamw(1e-3), 7, ("AdamW", {"lr": 1e-3})),
    "sgd": Entry(lambda: optim.sgd(1e-3), 3, ("SGD", {"lr": 1e-3})),
    "sgd_momentum": Entry(lambda: optim.sgd(1e-3, 0.9), 5, ("SGD", {"lr": 1e-3, "momentum": 0.9})),
    "lion": Entry(lambda: optim.lion(1e-4, weight_decay=0.1), 5),
}


def main(argv: Sequence[str] = ()) -> int:
    """Print a table for each optimizer; 1 where Adam in place does not reach the bar."""
    args = _arguments(argv)
    n = int(args.parameters)
    threads = fl.config.num_threads
    print(f"{n:,} float32 parameters, {threads} threads, {args.rounds} rounds")
    failures = 0
    for name in args.names or OPTIMIZERS:
        shares = _measured(name, n, args.rounds)
        failures += name == "adam" and shares["in place"] < BAR
    return failures


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks optimizers", description="Optimizer steps and memory bandwidth.")
    parser.add_argument("--parameters", type=float, default=100e6)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--names", nargs="*", choices=list(OPTIMIZERS))
    return parser.parse_args(argv)


def _measured(name: str, n: int, rounds: int) -> dict[str, float]:
    entry = OPTIMIZERS[name]
    gradient = np.random.default_rng(0).random(n, np.float32)
    gradient -= np.float32(0.5)
    candidates = {"in place": _ours(entry, gradient, True), "into new arrays": _ours(entry, gradient, False)}
    if importlib.util.find_spec("torch") is not None and entry.torch is not None:
        candidates |= {f"torch {kind}": _torch(entry.torch, gradient, kind) for kind in ("fused", "foreach")}
    loops = {"a = 0.5 a + b": (_triad(gradient), 3), "NumPy's copy": (_copy(gradient), 2)}
    for call in (*candidates.values(), *(call for call, _ in loops.values())):
        for _ in range(3):  # to trace, to compile for good, to touch all memory
            call()
    rates: dict[str, list[float]] = {key: [] for key in (*candidates, *loops)}
    for _ in range(rounds):
        for key, call in candidates.items():
            rates[key].append(entry.arrays * FLOAT * n / _seconds(call))
        for key, (call, arrays) in loops.items():
            rates[key].append(arrays * FLOAT * n / _seconds(call))
    return _shown(name, entry, n, rates, list(candidates), list(loops))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _shown(name: str, entry: Entry, n: int, rates: dict[str, list[float]], steps, loops) -> dict[str, float]:
    bandwidth = [max(found) for found in zip(*(rates[key] for key in loops), strict=True)]
    typical = statistics.median(bandwidth) / 1e9
    print(f"\n{name}: {entry.arrays * FLOAT} bytes a parameter; bandwidth {typical:.1f} GB/s")
    shares = {}
    for key in (*steps, *loops):
        shares[key] = statistics.median(r / b for r, b in zip(rates[key], bandwidth, strict=True))
        rate = statistics.median(rates[key])
        seconds = f"{entry.arrays * FLOAT * n / rate * 1e3:9.1f} ms" if key in steps else " " * 12
        print(f"  {key:<18} {seconds} {rate / 1e9:7.1f} GB/s {shares[key]:7.1%}")
    return shares


# The steps, each a function of nothing that keeps its state.


def _ours(entry: Entry, gradient: np.ndarray, in_place: bool) -> Callable[[], object]:
    opt, grads = entry.make(), {"w": gradient}
    step = fl.jit(lambda state, grads: opt.step(state[0], grads, state[1]), donate_argnums=0 if in_place else ())
    params = {"w": np.ones_like(gradient)}
    kept = [(params, opt.init(params))]

    def call():
        kept.append(step(kept.pop(), grads))

    del params
    return call


def _torch(named: tuple[str, dict[str, Any]], gradient: np.ndarray, kind: str) -> Callable[[], object]:
    import torch

    torch.set_num_threads(fl.config.num_threads)
    point = torch.nn.Parameter(torch.ones(gradient.size))
    point.grad = torch.from_numpy(gradient)
    return getattr(torch.optim, named[0])([point], **named[1], **{kind: True}).step


def _triad(b: np.ndarray) -> Callable[[], object]:
    half = np.float32(0.5)
    loop = fl.jit(lambda a, b: {"a": half * a["a"] + b["b"]}, donate_argnums=0)
    kept, other = [{"a": np.ones_like(b)}], {"b": b}

    def call():
        kept.append(loop(kept.pop(), other))

    return call


def _copy(source: np.ndarray) -> Callable[[], object]:
    """NumPy's copy of a part in each thread; it holds no lock while it copies."""
    threads = fl.config.num_threads
    target, pool = np.ones_like(source), ThreadPoolExecutor(threads)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)

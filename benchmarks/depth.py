# SPDX-License-Identifier: MIT
"""How long to compile and to call takes by the number of equal layers: forward, gradient, and a step of training.

    python -m benchmarks.depth [--layers 6,24,96] [--rounds 3] [--kind library|own|stacked|jax] [--what first|compile]

--what: the first call, whose code is made quickly, and which runs it; or `f.lower(...).compile()`, which traces, makes
the usual code and runs nothing.

Each is made in a process of its own, without a cache on disk. What is measured is the processor time of that process,
which others disturb little: threads that make code of a long module beside the caller count, too. A line a workload:
the median of the rounds for each depth, which take turns, and the median of the ratios of the deepest to the shallowest
in a round. --kind: blocks of the library in a list; of a class of the user's, which is traced layer by layer;
`nn.Stacked`, whose program has one layer in it; or the same network in JAX, layers in a list.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import functorch_lite as fl
from benchmarks import depth_jax
from functorch_lite import nn, optim, random

WIDTH, HEADS, HIDDEN = 32, 4, 64


class PlainBlock(nn.TransformerEncoderLayer):
    """A block that the library does not know."""


KINDS = ("library", "own", "stacked", "jax")


def model(layers: int, kind: str) -> Any:
    """`layers` equal transformer layers."""
    block = PlainBlock if kind == "own" else nn.TransformerEncoderLayer
    keys = random.split(random.key(0), layers)
    blocks = [block(WIDTH, HEADS, HIDDEN, 0.0, norm_first=True, key=k) for k in keys]
    return nn.Stacked(blocks) if kind == "stacked" else nn.Sequential(*blocks)


def loss(m: Any, x: Any) -> Any:
    return (m(x) ** 2).mean()


def _forward(m):
    return (lambda m, x: m(x)), (m,)


def _gradient(m):
    return fl.value_and_grad(loss), (m,)


def _training(m):
    opt = optim.adam(1e-3)

    def step(m, state, x):
        value, grads = fl.value_and_grad(loss)(m, x)
        return value, opt.step(m, grads, state)

    return step, (m, opt.init(m))


WORKLOADS: dict[str, Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    "forward": _forward, "gradient": _gradient, "training step": _training,
}


def seconds(name: str, layers: int, kind: str, what: str) -> float:
    """Seconds of the first call, or of compiling, after a small program has loaded the compiler."""
    if kind == "jax":
        return depth_jax.seconds(name, layers, (WIDTH, HEADS, HIDDEN), what)
    fl.jit(lambda x: np.sin(x) @ x)(np.ones((2, 2), np.float32))
    fun, args = WORKLOADS[name](model(layers, kind))
    x = np.ones((2, 16, WIDTH), np.float32)
    jitted = fl.jit(fun)
    start = time.process_time()
    if what == "compile":
        jitted.lower(*args, x).compile()
    else:
        jitted(*args, x)
    return time.process_time() - start


def measured(name: str, layers: int, kind: str, what: str) -> float:
    """Seconds in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.depth", "--child", name, str(layers), "--kind", kind, "--what", what]
    environment = {**os.environ, "FUNCTORCH_LITE_CACHE_DIR": ""}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main(argv: Sequence[str] = ()) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="6,24,96", help="depths, the shallowest first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=KINDS, default="library")
    parser.add_argument("--what", choices=("first", "compile"), default="first")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(list(argv))
    if options.child:
        print(seconds(options.child[0], int(options.child[1]), options.kind, options.what))
        return
    depths = [int(n) for n in options.layers.split(",")]
    title = "compile, ms" if options.what == "compile" else "first call, ms"
    print(f"{title:<16}" + "".join(f"{n:>6} layers" for n in depths) + "   ratio")
    for name in WORKLOADS:
        rounds = [[measured(name, n, options.kind, options.what) for n in depths] for _ in range(options.rounds)]
        times = map(statistics.median, zip(*rounds, strict=True))
        ratio = statistics.median([times[-1] / times[0] for times in rounds])
        print(f"{name:<16}" + "".join(f"{1e3 * t:>13.0f}" for t in times) + f"{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

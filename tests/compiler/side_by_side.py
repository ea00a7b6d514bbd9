# SPDX-License-Identifier: MIT
"""Programs with parts that need nothing of one another, and their sections: what the tests of sections share."""

from typing import Any

import numpy as np

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite import numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.nodes import Function, Sections

THREADS = (1, 2, 4)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) * np.float32(0.1)


def positive(n: int) -> np.ndarray:
    x = floats(n, n)
    return x @ x.T + np.eye(n, dtype=np.float32) * n


def compiled(fun, *args, number: int = 2):
    """The program of `fun` as native code for a number of threads."""
    program = fl.make_program(fun)(*args)
    with fl.config(num_threads=number):
        return native.compile_native(program, pipeline.optimize(program))


def sections_of(function: Function) -> list[Sections]:
    return [s for s in function.body if isinstance(s, Sections)]


def count(fun, *args) -> list[int]:
    """How many sections run together, of each time that some do in a program."""
    return [len(s.blocks) for s in sections_of(compiled(fun, *args).lowered.function)]


# --- programs ---------------------------------------------------------------------------------------------------------


def recurrent(w, u, x, reverse=False):
    def step(h, row):
        h = fnp.tanh(row @ w + h @ u)
        return h, h

    return lax.scan(step, fnp.zeros((x.shape[1], u.shape[0]), np.float32), x, reverse=reverse)[1]


def bidirectional(w, u, v, z, x):
    return fnp.concatenate([recurrent(w, u, x), recurrent(v, z, x, reverse=True)], axis=-1)


def ensemble(members, x):
    return [fnp.sum(recurrent(w, u, x)) for w, u in members]


def network(layers, x):
    for w in layers:
        x = fnp.tanh(x @ w)
    return x


def deep(layers, x):
    for w in layers:
        for _ in range(6):
            x = fnp.tanh(x) * np.float32(0.5) + fnp.sin(x)
        x = x + x @ w
    return x


def repeated(x):
    return lax.while_loop(lambda c: c[1] < 3000, lambda c: (fnp.sin(c[0] + x), c[1] + 1), (x, 0))[0]


def looked_up(table, w, x, places):
    def step(h, place):
        return fnp.tanh(h @ w + table[place]), None

    return lax.scan(step, x, places)[0]


RECURRENT = [floats(16, 32), floats(32, 32), floats(16, 33)[:, :32], floats(32, 33)[:, :32], floats(100, 8, 16)]
MEMBERS = [(floats(16, 32 + k)[:, :32], floats(32, 32 + k)[:, :32]) for k in range(4)]
LAYERS = [[floats(64, 64 + k)[:, :64] for k in range(4)], [floats(64, 70 + k)[:, :64] for k in range(4)]]
BLOCKS = [[floats(48, 48 + k)[:, :48] for k in range(12)], [floats(48, 70 + k)[:, :48] for k in range(12)]]
ORDER = np.random.default_rng(0).integers(0, 50, 200)
PROGRAMS: dict[str, tuple[Any, list[Any]]] = {
    "bidirectional": (bidirectional, RECURRENT),
    "its gradient": (fl.grad(lambda *a: fnp.sum(bidirectional(*a) ** 2), argnums=(0, 1, 2, 3, 4)), RECURRENT),
    "ensemble": (ensemble, [MEMBERS, RECURRENT[-1]]),
    "gradient of an ensemble": (fl.grad(lambda m, x: sum(ensemble(m, x))), [MEMBERS, RECURRENT[-1]]),
    "two networks": (lambda a, b, x: (network(a, x), network(b, x)), [*LAYERS, floats(256, 64)]),
    "gradient of two networks": (
        fl.grad(lambda a, b, x: fnp.sum(network(a, x)) - fnp.sum(network(b, x)), argnums=(0, 1)),
        [*LAYERS, floats(256, 64)]),
    "blocks": (lambda a, b, x: (deep(a, x), deep(b, x + 1)), [*BLOCKS, floats(64, 48)]),
    "running sums": (lambda x, y: (fnp.cumsum(x), fnp.cumsum(y)), [floats(100_000), floats(100_001)]),
    "sorts": (lambda x, y: (fnp.sort(x), fnp.argsort(y)), [floats(20_000), floats(20_001)]),
    "transforms": (lambda x, y: (fnp.fft.fft(x), fnp.fft.fft(y)), [floats(32_768), floats(32_767)]),
    "factors": (lambda x, y: fnp.linalg.cholesky(x) + fnp.linalg.cholesky(y), [positive(200), positive(200) * 2]),
    "eigenvalues": (lambda x, y: (fnp.linalg.eigh(x), fnp.linalg.eigh(y)), [positive(80), positive(81)]),
    "solutions": (lambda x, y: (fnp.linalg.solve(x, x[0]), fnp.linalg.solve(y, y[0])), [positive(90), positive(91)]),
    "indices": (lambda t, w, v, x, i: (looked_up(t, w, x, i), looked_up(t + 1, v, x, i[::-1])),
                [floats(50, 32), floats(32, 32), floats(32, 33)[:, :32], floats(8, 32), ORDER]),
    "numbers": (lambda x: lax.scan(lambda c, v: (fnp.sin(c + v), None), 0.0, x)[0]
                - lax.scan(lambda c, v: (fnp.cos(c * v), None), 1.0, x)[0], [np.linspace(0, 1, 15000)]),
    "whiles": (lambda x: (repeated(x), repeated(2 * x)), [floats(500).astype(np.float64)]),
}

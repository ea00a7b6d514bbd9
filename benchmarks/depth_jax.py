# SPDX-License-Identifier: MIT
"""The network of benchmarks/depth.py in JAX, its layers in a list."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Norm = dict[str, np.ndarray]
Layer = dict[str, Any]


def seconds(name: str, layers: int, sizes: tuple[int, int, int], what: str) -> float:
    """Seconds of the process's time of a workload's first call, or compilation. sizes: width, heads, hidden width."""
    import jax

    width, heads, hidden = sizes
    fun, args = workloads([_layer(width, hidden) for _ in range(layers)], heads)[name]
    x = np.ones((2, 16, width), np.float32)
    jax.block_until_ready(jax.jit(lambda x: jax.numpy.sin(x) @ x)(np.ones((2, 2), np.float32)))
    start = time.process_time()
    if what == "compile":
        jax.jit(fun).lower(*args, x).compile()
    else:
        jax.block_until_ready(jax.jit(fun)(*args, x))
    return time.process_time() - start


def _layer(width: int, hidden: int) -> Layer:
    draw = np.random.default_rng(0).standard_normal
    shapes = {"qkv": (width, 3 * width), "qkv_bias": (3 * width,), "out": (width, width), "out_bias": (width,),
              "up": (width, hidden), "up_bias": (hidden,), "down": (hidden, width), "down_bias": (width,)}
    norm = {"scale": np.ones(width, np.float32), "shift": np.zeros(width, np.float32)}
    return {"norm1": norm, "norm2": norm, **{name: draw(shape, np.float32) / 8 for name, shape in shapes.items()}}


def workloads(model: list[Layer], heads: int) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Functions and their arguments but for the input: forward, gradient, and a step of Adam."""
    import jax

    def forward(model, x):
        for p in model:
            x = _block(p, x, heads)
        return x

    gradient = jax.value_and_grad(lambda model, x: (forward(model, x) ** 2).mean())

    def step(model, first, second, x):
        value, grads = gradient(model, x)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
        updated = jax.tree.map(lambda p, m, v: p - 1e-3 * m / (v**0.5 + 1e-8), model, first, second)
        return value, updated, first, second

    zeros = jax.tree.map(np.zeros_like, model)
    return {"forward": (forward, (model,)), "gradient": (gradient, (model,)),
            "training step": (step, (model, zeros, zeros))}


def _block(p: Layer, x: Any, heads: int) -> Any:
    """A transformer layer whose norms come first; x [batch, length, width]."""
    import jax
    import jax.numpy as jnp

    mixed = _norm(p["norm1"], x) @ p["qkv"] + p["qkv_bias"]
    q, k, v = jnp.moveaxis(mixed.reshape(*x.shape[:2], 3, heads, -1), (2, 3), (0, 2))
    scale = np.float32(q.shape[-1] ** -0.5)
    weights = jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) * scale)
    x = x + jnp.moveaxis(weights @ v, 1, 2).reshape(x.shape) @ p["out"] + p["out_bias"]
    return x + jax.nn.relu(_norm(p["norm2"], x) @ p["up"] + p["up_bias"]) @ p["down"] + p["down_bias"]


def _norm(p: Norm, x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x / ((x * x).mean(-1, keepdims=True) + 1e-5) ** 0.5 * p["scale"] + p["shift"]

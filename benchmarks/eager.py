# SPDX-License-Identifier: MIT
"""Eager gradients of a three-layer MLP with cross-entropy (32x64x64x10, batch 32), and eager calls on ten floats."""

import importlib.util

import numpy as np

import functorch_lite as fl
from benchmarks.timing import interleaved, show

SIZES = (32, 64, 64, 10)


def _data():
    rng = np.random.default_rng(0)
    weights = [(rng.normal(size=s) * 0.1).astype(np.float32) for s in zip(SIZES[:-1], SIZES[1:], strict=True)]
    biases = [np.zeros(n, np.float32) for n in SIZES[1:]]
    return weights, biases, rng.normal(size=(32, 32)).astype(np.float32), rng.integers(0, 10, 32)


def _mlp(xp, log_softmax, params, x):
    for w, b in params[:-1]:
        x = xp.tanh(x @ w + b)
    w, b = params[-1]
    return log_softmax(x @ w + b)


def ours():
    """The MLP in plain NumPy, its loss from `nn`."""
    weights, biases, x, y = _data()
    params = list(zip(weights, biases, strict=True))

    def loss(params):
        return fl.nn.cross_entropy(_mlp(np, lambda z: z, params, x), y)

    def composed(params):
        z = _mlp(np, lambda z: z, params, x)
        top = np.max(z, axis=-1, keepdims=True)
        log_norm = np.log(np.sum(np.exp(z - top), axis=-1, keepdims=True)) + top
        return -np.mean((z - log_norm)[np.arange(32), y])

    gradient, composed_gradient = fl.grad(loss), fl.grad(composed)
    return {"functorch_lite": lambda: gradient(params), "functorch_lite, composed": lambda: composed_gradient(params)}


def jax_peer():
    """The same with jax.grad, not jitted."""
    if importlib.util.find_spec("jax") is None:
        return {}
    import jax
    import jax.numpy as jnp

    weights, biases, x, y = _data()
    params = [(jnp.asarray(w), jnp.asarray(b)) for w, b in zip(weights, biases, strict=True)]
    x, y = jnp.asarray(x), jnp.asarray(y)

    def loss(params):
        logp = _mlp(jnp, jax.nn.log_softmax, params, x)
        return -jnp.mean(jnp.take_along_axis(logp, y[:, None], 1))

    gradient = jax.grad(loss)
    return {"jax eager": lambda: jax.block_until_ready(gradient(params))}


def torch_peer():
    """The same with PyTorch's eager autograd, one and two threads."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch
    import torch.nn.functional as F

    weights, biases, x, y = _data()
    flat = [torch.tensor(p, requires_grad=True) for pair in zip(weights, biases, strict=True) for p in pair]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    x, y = torch.tensor(x), torch.tensor(y)

    def step(threads):
        torch.set_num_threads(threads)
        return torch.autograd.grad(F.cross_entropy(_mlp(torch, lambda z: z, pairs, x), y), flat)

    return {"torch eager": lambda: step(1)}


def main() -> None:
    """Print both tables."""
    show("eager grad, 3-layer tanh MLP with cross-entropy", interleaved({**ours(), **jax_peer(), **torch_peer()}),
         "functorch_lite")
    x = np.ones(10, np.float32)
    fnp = fl.numpy
    show("eager x + x on ten floats",
         interleaved({"numpy": lambda: np.add(x, x), "functorch_lite": lambda: fnp.add(x, x)}), "numpy")
    take = fnp.take
    show("eager x[3] on ten floats",
         interleaved({"numpy": lambda: np.take(x, 3), "functorch_lite": lambda: take(x, 3)}), "numpy")


if __name__ == "__main__":
    main()

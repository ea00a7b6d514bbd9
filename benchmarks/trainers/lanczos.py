# SPDX-License-Identifier: MIT
"""examples/lanczos.py: 20 steps of Lanczos on the Hessian of a network 64-32-10 over 1,797 examples, float64."""

import numpy as np

from benchmarks.trainers.common import Run, Trainer, example

K, WIDTH, EXAMPLES = 20, 32, 1797
SHAPES = ((WIDTH, 64), (WIDTH,), (10, WIDTH), (10,))
N = sum(int(np.prod(shape)) for shape in SHAPES)


def _arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(size=(EXAMPLES, 64)), rng.integers(0, 10, EXAMPLES), 0.2 * rng.normal(size=N), rng.normal(size=N)


def _ours() -> Run:
    lanczos, (x, labels, point, start) = example("lanczos"), _arrays()
    like = lanczos.nn.MLP((64, WIDTH, 10), activation=lanczos.nn.tanh, dtype=np.float64, key=lanczos.fl.random.key(0))
    model = lanczos.unflatten(like, point)

    def once():
        diagonals, _ = lanczos.spectrum(model, x, labels, start[None], k=K)
        return float(diagonals.sum())

    return Run(once, N)


def _jax() -> Run:
    import jax
    import jax.numpy as jnp

    x, labels, point, start = _arrays()
    bounds = np.cumsum([np.prod(shape) for shape in SHAPES])[:-1]

    def loss(p):
        w1, b1, w2, b2 = (part.reshape(shape) for part, shape in zip(jnp.split(p, bounds), SHAPES, strict=True))
        logits = jnp.tanh(x @ w1.T + b1) @ w2.T + b2
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(EXAMPLES), labels])

    @jax.jit
    def trace(point, start):
        def step(carry, i):
            basis, q = carry
            basis = basis.at[i].set(q)
            w = jax.jvp(jax.grad(loss), (point,), (q,))[1]
            diagonal = jnp.sum(q * w)
            for _ in range(2):
                w = w - (basis @ w) @ basis
            length = jnp.sqrt(jnp.sum(w * w))
            return (basis, w / length), (diagonal, length)

        q = start / jnp.linalg.norm(start)
        return jax.lax.scan(step, (jnp.zeros((K, N)), q), jnp.arange(K))[1][0].sum()

    def once():
        with jax.enable_x64(True):
            return float(trace(point, start))

    return Run(once, N)


def _torch(compiled: bool) -> Run:
    import torch

    x, labels, point, start = (torch.from_numpy(part) for part in _arrays())
    sizes = [int(np.prod(shape)) for shape in SHAPES]

    def loss(p):
        w1, b1, w2, b2 = (part.reshape(shape) for part, shape in zip(p.split(sizes), SHAPES, strict=True))
        return torch.nn.functional.cross_entropy(torch.tanh(x @ w1.T + b1) @ w2.T + b2, labels)

    def product(v):
        return torch.func.jvp(torch.func.grad(loss), (point,), (v,))[1]

    product = torch.compile(product) if compiled else product

    def once():
        basis, q, total = torch.zeros(K, N, dtype=torch.float64), start / start.norm(), 0.0
        for i in range(K):
            basis[i] = q
            w = product(q)
            total = total + (q * w).sum()
            for _ in range(2):
                w = w - (basis @ w) @ basis
            q = w / w.norm()
        return total.item()

    return Run(once, N)


TRAINER = Trainer("lanczos", _ours, _jax, _torch)

# SPDX-License-Identifier: MIT
"""functorch_lite in 30 seconds: `grad`, `vmap` and `jit` of a function written in plain NumPy.

    python examples/quickstart.py

It fits y = a sin(b x) to noisy points by gradient descent, then takes the gradient of every example by itself.
"""

import numpy as np

import functorch_lite as fl

rng = np.random.default_rng(0)
x = rng.uniform(-3, 3, 200)
y = 1.5 * np.sin(0.8 * x) + 0.1 * rng.normal(size=200)


def loss(params, x, y):
    """Nothing here knows of the library: it is NumPy."""
    return np.mean((params["a"] * np.sin(params["b"] * x) - y) ** 2)


@fl.jit
def step(params):
    value, grads = fl.value_and_grad(loss)(params, x, y)
    return fl.tree.map(lambda p, g: p - 0.1 * g, params, grads), value


params = {"a": np.array(1.0), "b": np.array(1.0)}
for i in range(200):
    params, value = step(params)
    if i % 50 == 0:
        print(f"step {i:3d}: loss {value:.4f}")
print(f"a = {params['a']:.2f}, b = {params['b']:.2f}; the points were made with a = 1.5, b = 0.8")

per_example = fl.vmap(fl.grad(loss), in_axes=(None, 0, 0))(params, x, y)
print("one gradient an example:", {name: g.shape for name, g in per_example.items()})
print("Hessian in a:", fl.hessian(lambda a: loss({"a": a, "b": params["b"]}, x, y))(params["a"]))

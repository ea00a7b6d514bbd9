# SPDX-License-Identifier: MIT
"""examples/pinn.py: Burgers' equation, four layers of 32 units in float64, 2,000 points, Adam.

PyTorch 2.13 does not compile a forward derivative within another: torch.compile has an error in its column.
"""

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, example, jax_run, our_run, torch_run

WIDTH, POINTS, RATE, NU = 32, 2000, 1e-3, 0.01 / np.pi


def _batches():
    rng = np.random.default_rng(0)
    return [(rng.uniform(0, 1, POINTS), rng.uniform(-1, 1, POINTS)) for _ in range(20)]


def _ours() -> Run:
    pinn = example("pinn")
    model = pinn.network(WIDTH, 4, pinn.fl.random.key(0))
    opt = pinn.optim.adam(RATE)
    return our_run(pinn.make_adam_step(opt, NU), pinn.State(model, opt.init(model)), _batches(), count(model))


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    with jax.enable_x64(True):
        init = jax.nn.initializers.glorot_uniform()
        sizes, keys = (2, WIDTH, WIDTH, WIDTH, WIDTH, 1), jax.random.split(jax.random.key(0), 5)
        shapes = zip(sizes[:-1], sizes[1:], keys, strict=True)
        params = [(init(key, (n, m), jnp.float64), jnp.zeros(m)) for n, m, key in shapes]

        def u(params, t, x):
            y = jnp.stack([t, x], axis=-1)
            for w, b in params[:-1]:
                y = jnp.tanh(y @ w + b)
            w, b = params[-1]
            return -jnp.sin(jnp.pi * x) + t * (1 - x**2) * (y @ w + b)[:, 0]

        def loss(params, t, x):
            one = jnp.ones_like(x)

            def by_x(x):
                return jax.jvp(lambda x: u(params, t, x), (x,), (one,))

            (value, u_x), (_, u_xx) = jax.jvp(by_x, (x,), (one,))
            u_t = jax.jvp(lambda t: u(params, t, x), (t,), (one,))[1]
            return jnp.mean((u_t + value * u_x - NU * u_xx) ** 2)

        run = jax_run(loss, params, optax.adam(RATE), _batches())

    def step():
        with jax.enable_x64(True):
            return run.step()

    return Run(step, run.n_parameters)


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn

    layers: list[nn.Module] = [nn.Linear(2, WIDTH), nn.Tanh()]
    for _ in range(3):
        layers += [nn.Linear(WIDTH, WIDTH), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, 1)).double()

    def u(t, x):
        return -torch.sin(torch.pi * x) + t * (1 - x**2) * model(torch.stack([t, x], dim=-1))[:, 0]

    def loss(t, x):
        one = torch.ones_like(x)

        def by_x(x):
            return torch.func.jvp(lambda x: u(t, x), (x,), (one,))

        (value, u_x), (_, u_xx) = torch.func.jvp(by_x, (x,), (one,))
        u_t = torch.func.jvp(lambda t: u(t, x), (t,), (one,))[1]
        return torch.mean((u_t + value * u_x - NU * u_xx) ** 2)

    return torch_run(model, loss, torch.optim.Adam(model.parameters(), RATE), _batches(), compiled)


TRAINER = Trainer("pinn", _ours, _jax, _torch)

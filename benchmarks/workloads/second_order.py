# SPDX-License-Identifier: MIT
"""Second derivatives: Hessians of a logistic regression and of a small network, and a physics-informed network.

The network solves Burgers' equation u_t + u u_x = 0.01 u_xx, its derivatives nested under vmap: M. Raissi and others,
"Physics-informed neural networks", J. Comput. Phys. 378 (2019).
"""

import numpy as np

from benchmarks.workloads.common import Workload, dense, normal

VISCOSITY = 0.01
HIDDEN = 8


def _data(n_parameters, n_features):
    rng = np.random.default_rng(0)
    x = normal(rng, 256, n_features)
    return normal(rng, n_parameters, scale=0.3), x, np.sign(x[:, 0] + normal(rng, 256))


def _logistic(api):
    np = api.np
    return api.hessian(lambda w, x, y: np.mean(np.log1p(np.exp(-y * (x @ w)))))


def _torch_logistic(t):
    torch = t.torch
    return torch.func.hessian(lambda w, x, y: torch.mean(torch.log1p(torch.exp(-y * (x @ w)))))


def _network_loss(mean, tanh, flat, x, y):
    w1, b1, w2 = flat[: 2 * HIDDEN].reshape(2, HIDDEN), flat[2 * HIDDEN : 3 * HIDDEN], flat[3 * HIDDEN :]
    return mean((tanh(x @ w1 + b1) @ w2 - y) ** 2)


def _network(api):
    return api.hessian(lambda flat, x, y: _network_loss(api.np.mean, api.np.tanh, flat, x, y))


def _torch_network(t):
    torch = t.torch
    return torch.func.hessian(lambda flat, x, y: _network_loss(torch.mean, torch.tanh, flat, x, y))


# --- a physics-informed network -----------------------------------------------------------------------------------


def _pinn_inputs():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (2, 256)).astype(np.float32)
    return [dense(rng, 2, 32), dense(rng, 32, 32), dense(rng, 32, 1)], points[0], points[1]


def _pinn_loss(grad, vmap, stack, tanh, mean):
    def u(params, t, x):
        z = stack([t, x])
        for w, b in params[:-1]:
            z = tanh(z @ w + b)
        w, b = params[-1]
        return (z @ w + b)[0]

    u_t, u_x = grad(u, 1), grad(u, 2)
    u_xx = grad(u_x, 2)

    def residual(params, t, x):
        return u_t(params, t, x) + u(params, t, x) * u_x(params, t, x) - VISCOSITY * u_xx(params, t, x)

    return lambda params, t, x: mean(vmap(residual, (None, 0, 0))(params, t, x) ** 2)


def _pinn(api):
    np = api.np
    return api.value_and_grad(_pinn_loss(api.grad, api.vmap, np.stack, np.tanh, np.mean))


def _torch_pinn(t):
    torch = t.torch
    return t.value_and_grad(_pinn_loss(torch.func.grad, torch.func.vmap, torch.stack, torch.tanh, torch.mean))


WORKLOADS = [
    Workload("hessian-logistic", "small", _logistic, _torch_logistic, lambda: _data(20, 20)),
    Workload("hessian-network", "small", _network, _torch_network, lambda: _data(4 * HIDDEN, 2)),
    Workload("pinn-grad", "rest", _pinn, _torch_pinn, _pinn_inputs),
]

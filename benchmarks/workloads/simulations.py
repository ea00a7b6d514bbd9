# SPDX-License-Identifier: MIT
"""Scans of many small steps: Runge-Kutta, Hamiltonian Monte Carlo, a Kalman filter, sixty coupled scalars.

Random numbers are inputs, so that all libraries take the same path.
"""

import numpy as np

from benchmarks.workloads.common import Workload, normal

RK4_STEPS, HMC_SAMPLES, LEAPFROG_STEPS, KALMAN_STEPS, SCALARS, SCALAR_STEPS = 4000, 300, 10, 2000, 60, 600


# --- RK4: van der Pol's oscillator --------------------------------------------------------------------------------


def _rk4_step(stack, mu, x, dt=0.01):
    def velocity(x):
        return stack([x[1], mu * (1 - x[0] * x[0]) * x[1] - x[0]])

    k1 = velocity(x)
    k2 = velocity(x + 0.5 * dt * k1)
    k3 = velocity(x + 0.5 * dt * k2)
    k4 = velocity(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _rk4(api, n=RK4_STEPS):
    np = api.np

    def path(mu, start):
        def step(x, _):
            x = _rk4_step(np.stack, mu, x)
            return x, x

        return api.lax.scan(step, start, None, length=n)[1]

    return path


def _rk4_grad(api):
    path = _rk4(api, RK4_STEPS // 2)
    return api.value_and_grad(lambda mu, start: api.np.mean(path(mu, start) ** 2))


def _torch_rk4(t, n=RK4_STEPS):
    torch = t.torch

    def path(mu, start):
        x, rows = start, []
        for _ in range(n):
            x = _rk4_step(torch.stack, mu, x)
            rows.append(x)
        return torch.stack(rows)

    return path


def _torch_rk4_grad(t):
    path = _torch_rk4(t, RK4_STEPS // 2)
    return t.value_and_grad(lambda mu, start: t.torch.mean(path(mu, start) ** 2))


def _rk4_inputs():
    return np.array(1.0, np.float32), np.array([2.0, 0.0], np.float32)


# --- Hamiltonian Monte Carlo: R. Neal, "MCMC using Hamiltonian dynamics", arXiv:1206.1901 --------------------------


def _hmc_inputs():
    rng = np.random.default_rng(0)
    scales = np.linspace(0.5, 2.0, 10).astype(np.float32)
    momenta, uniforms = normal(rng, HMC_SAMPLES, 10), rng.random(HMC_SAMPLES).astype(np.float32)
    return scales, np.zeros(10, np.float32), momenta, uniforms


def _log_density(sum_, scales, q):
    return -0.5 * sum_(scales * q * q) - 0.05 * sum_(q * q * q * q)


def _hmc(api, size=0.1):
    np, lax = api.np, api.lax

    def sample(scales, start, momenta, uniforms):
        def log_density(q):
            return _log_density(np.sum, scales, q)

        def leapfrog(_, state):
            q, p = state
            p = p + 0.5 * size * api.grad(log_density)(q)
            q = q + size * p
            return q, p + 0.5 * size * api.grad(log_density)(q)

        def step(q, drawn):
            momentum, uniform = drawn
            new, p = lax.fori_loop(0, LEAPFROG_STEPS, leapfrog, (q, momentum))
            gain = log_density(new) - log_density(q) + 0.5 * (np.sum(momentum * momentum) - np.sum(p * p))
            q = np.where(np.log(uniform) < gain, new, q)
            return q, q

        return lax.scan(step, start, (momenta, uniforms))[1]

    return sample


def _torch_hmc(t, size=0.1):
    torch = t.torch

    def sample(scales, start, momenta, uniforms):
        def log_density(q):
            return _log_density(torch.sum, scales, q)

        def gradient(q):
            q = q.detach().requires_grad_()
            return torch.autograd.grad(log_density(q), q)[0]

        q, rows = start, []
        for momentum, uniform in zip(momenta, uniforms, strict=True):
            new, p = q, momentum
            for _ in range(LEAPFROG_STEPS):
                p = p + 0.5 * size * gradient(new)
                new = new + size * p
                p = p + 0.5 * size * gradient(new)
            gain = log_density(new) - log_density(q) + 0.5 * (torch.sum(momentum * momentum) - torch.sum(p * p))
            q = torch.where(torch.log(uniform) < gain, new, q)
            rows.append(q)
        return torch.stack(rows)

    return sample


# --- a Kalman filter: 4 states (positions and velocities in the plane), 2 observations ------------------------------


def _kalman_inputs():
    rng = np.random.default_rng(0)
    move = np.eye(4, dtype=np.float32)
    move[0, 2] = move[1, 3] = 0.1
    move[2, 2] = move[3, 3] = 0.95
    return move, np.eye(2, 4, dtype=np.float32), np.cumsum(normal(rng, KALMAN_STEPS, 2, scale=0.1), axis=0)


def _kalman_step(eye, solve, move, observe, mean, cov, y):
    mean, cov = move @ mean, move @ cov @ move.T + 0.01 * eye(4)
    spread = observe @ cov @ observe.T + 0.1 * eye(2)
    gain = solve(spread, observe @ cov).T
    return mean + gain @ (y - observe @ mean), cov - gain @ observe @ cov


def _kalman(api):
    np = api.np

    def filtered(move, observe, ys):
        def step(carry, y):
            mean, cov = _kalman_step(np.eye, np.linalg.solve, move, observe, carry[0], carry[1], y)
            return (mean, cov), mean

        (_, cov), means = api.lax.scan(step, (np.zeros(4, np.float32), np.eye(4, dtype=np.float32)), ys)
        return means, cov

    return filtered


def _torch_kalman(t):
    torch = t.torch

    def filtered(move, observe, ys):
        mean, cov, means = torch.zeros(4), torch.eye(4), []
        for y in ys:
            mean, cov = _kalman_step(torch.eye, torch.linalg.solve, move, observe, mean, cov, y)
            means.append(mean)
        return torch.stack(means), cov

    return filtered


# --- sixty scalar carries -----------------------------------------------------------------------------------------


def _scalar_inputs():
    rng = np.random.default_rng(0)
    return tuple(normal(rng, SCALARS)[i] for i in range(SCALARS)), normal(rng, SCALAR_STEPS, scale=0.1)


def _coupled(sin, cs, x):
    return tuple(0.9 * c + 0.1 * sin(before) + x for c, before in zip(cs, cs[-1:] + cs[:-1], strict=True))


def _scalars(api):
    np = api.np

    def loss(start, xs):
        last, sums = api.lax.scan(lambda cs, x: (_coupled(np.sin, cs, x), cs[0]), start, xs)
        return sum(c * c for c in last) + np.mean(sums)

    return api.value_and_grad(loss)


def _torch_scalars(t):
    torch = t.torch

    def loss(start, xs):
        cs, sums = start, []
        for x in xs:
            sums.append(cs[0])
            cs = _coupled(torch.sin, cs, x)
        return sum(c * c for c in cs) + torch.mean(torch.stack(sums))

    return t.value_and_grad(loss)


WORKLOADS = [
    Workload("rk4", "scan", _rk4, _torch_rk4, _rk4_inputs, "never", 1e-3),
    Workload("rk4-grad", "scan", _rk4_grad, _torch_rk4_grad, _rk4_inputs, "never", 1e-3),
    Workload("hmc", "scan", _hmc, _torch_hmc, _hmc_inputs, "never", 1e-3),
    Workload("kalman", "scan", _kalman, _torch_kalman, _kalman_inputs, "never"),
    Workload("sixty-scalars-grad", "scan", _scalars, _torch_scalars, _scalar_inputs, "never"),
]

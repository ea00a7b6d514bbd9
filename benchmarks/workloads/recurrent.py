# SPDX-License-Identifier: MIT
"""Gradients of a GRU and an LSTM over 100 steps: batch 32, 32 inputs, 64 hidden units.

The gates' order and the equations are those of torch.nn.GRU and torch.nn.LSTM.
"""

import numpy as np

from benchmarks.workloads.common import Workload, normal

STEPS, BATCH, INPUTS, HIDDEN = 100, 32, 32, 64


def _inputs(n_gates):
    rng = np.random.default_rng(0)
    params = {
        "w_in": normal(rng, n_gates * HIDDEN, INPUTS, scale=0.15),
        "w_hidden": normal(rng, n_gates * HIDDEN, HIDDEN, scale=0.1),
        "b_in": normal(rng, n_gates * HIDDEN, scale=0.1),
        "b_hidden": normal(rng, n_gates * HIDDEN, scale=0.1),
    }
    return params, normal(rng, STEPS, BATCH, INPUTS)


def _sigmoid(np, x):
    return 0.5 * (np.tanh(0.5 * x) + 1)


def _gru(api):
    np = api.np

    def loss(params, xs):
        def step(h, gates_x):
            gates_h = h @ params["w_hidden"].T + params["b_hidden"]
            (rx, zx, nx), (rh, zh, nh) = np.split(gates_x, 3, axis=-1), np.split(gates_h, 3, axis=-1)
            r, z = _sigmoid(np, rx + rh), _sigmoid(np, zx + zh)
            h = (1 - z) * np.tanh(nx + r * nh) + z * h
            return h, h

        start = np.zeros((BATCH, HIDDEN), np.float32)
        _, hs = api.lax.scan(step, start, xs @ params["w_in"].T + params["b_in"])
        return np.mean(hs * hs)

    return api.value_and_grad(loss)


def _lstm(api):
    np = api.np

    def loss(params, xs):
        def step(carry, gates_x):
            h, c = carry
            gates = gates_x + h @ params["w_hidden"].T + params["b_hidden"]
            i, f, g, o = np.split(gates, 4, axis=-1)
            c = _sigmoid(np, f) * c + _sigmoid(np, i) * np.tanh(g)
            h = _sigmoid(np, o) * np.tanh(c)
            return (h, c), h

        zeros = np.zeros((BATCH, HIDDEN), np.float32)
        _, hs = api.lax.scan(step, (zeros, zeros), xs @ params["w_in"].T + params["b_in"])
        return np.mean(hs * hs)

    return api.value_and_grad(loss)


def _torch(name):
    def make(t):
        torch = t.torch

        def loss(params, xs):
            zeros = torch.zeros(1, BATCH, HIDDEN)
            weights = [params[k] for k in ("w_in", "w_hidden", "b_in", "b_hidden")]
            start = zeros if name == "gru" else (zeros, zeros)
            hs = getattr(torch, name)(xs, start, weights, True, 1, 0.0, True, False, False)[0]
            return torch.mean(hs * hs)

        return t.value_and_grad(loss)

    return make


WORKLOADS = [
    Workload("gru-grad", "scan", _gru, _torch("gru"), lambda: _inputs(3), "never"),
    Workload("lstm-grad", "scan", _lstm, _torch("lstm"), lambda: _inputs(4), "never"),
]

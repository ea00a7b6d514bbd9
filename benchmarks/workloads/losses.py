# SPDX-License-Identifier: MIT
"""Softmax, layer norm and cross-entropy alone, on [256, 1024]: forward, and gradient."""

import numpy as np

from benchmarks.workloads.common import Workload, cross_entropy, labels, normal

ROWS, COLUMNS = 256, 1024


def _inputs():
    rng = np.random.default_rng(0)
    return normal(rng, ROWS, COLUMNS), normal(rng, ROWS, COLUMNS)


def _scaled_inputs():
    rng = np.random.default_rng(0)
    scale, shift = normal(rng, COLUMNS), normal(rng, COLUMNS)
    return normal(rng, ROWS, COLUMNS), scale, shift, normal(rng, ROWS, COLUMNS)


def _labelled_inputs():
    rng = np.random.default_rng(0)
    return normal(rng, ROWS, COLUMNS), labels(rng, COLUMNS, ROWS)


# --- over functorch_lite and JAX ----------------------------------------------------------------------------------


def _softmax(api):
    np = api.np

    def softmax(x, _):
        y = np.exp(x - api.lax.stop_gradient(np.max(x, axis=-1, keepdims=True)))
        return y / np.sum(y, axis=-1, keepdims=True)

    return softmax


def _layer_norm(api):
    np = api.np

    def layer_norm(x, scale, shift, _):
        centred = x - np.mean(x, axis=-1, keepdims=True)
        return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * scale + shift

    return layer_norm


def _cross_entropy(api):
    return lambda x, y: cross_entropy(api, x, y)


def _gradient(make):
    """Of the sum of the outcome times the last argument."""
    return lambda api: api.grad(lambda *args: api.np.sum(make(api)(*args) * args[-1]))


# --- PyTorch ------------------------------------------------------------------------------------------------------


def _torch_softmax(t):
    return lambda x, _: t.torch.softmax(x, -1)


def _torch_layer_norm(t):
    return lambda x, scale, shift, _: t.torch.nn.functional.layer_norm(x, (COLUMNS,), scale, shift)


def _torch_cross_entropy(t):
    return t.torch.nn.functional.cross_entropy


def _torch_gradient(make):
    def gradient(t):
        graded = t.value_and_grad(lambda *args: t.torch.sum(make(t)(*args) * args[-1]))
        return lambda *args: graded(*args)[1]

    return gradient


def _torch_cross_entropy_grad(t):
    graded = t.value_and_grad(t.torch.nn.functional.cross_entropy)
    return lambda x, y: graded(x, y)[1]


WORKLOADS = [
    Workload("softmax", "rest", _softmax, _torch_softmax, _inputs, "always"),
    Workload("softmax-grad", "rest", _gradient(_softmax), _torch_gradient(_torch_softmax), _inputs, "always"),
    Workload("layer-norm", "rest", _layer_norm, _torch_layer_norm, _scaled_inputs),
    Workload("layer-norm-grad", "rest", _gradient(_layer_norm), _torch_gradient(_torch_layer_norm), _scaled_inputs),
    Workload("cross-entropy", "rest", _cross_entropy, _torch_cross_entropy, _labelled_inputs),
    Workload("cross-entropy-grad", "rest", lambda api: api.grad(_cross_entropy(api)), _torch_cross_entropy_grad,
             _labelled_inputs),
]

# SPDX-License-Identifier: MIT
"""The table of optimizers: ours, and the class and arguments of PyTorch's that must agree with it.

A row without a PyTorch class is checked by its own test only. `torch_kwargs` are PyTorch's names.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from functorch_lite import optim


@dataclass(frozen=True)
class OptimizerRecord:
    """make() -> the transformation; rate: a learning rate with which the bowl of `problem` is descended."""

    name: str
    make: Callable[[], optim.GradientTransformation]
    torch: str | None = None
    torch_kwargs: dict[str, Any] = field(default_factory=dict)


R = OptimizerRecord
OPTIMIZERS = [
    R("sgd", lambda: optim.sgd(0.05), "SGD", {"lr": 0.05}),
    R(
        "sgd_momentum",
        lambda: optim.sgd(0.02, 0.9, dampening=0.3, weight_decay=0.01),
        "SGD",
        {"lr": 0.02, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    ),
    R(
        "sgd_nesterov",
        lambda: optim.sgd(0.02, 0.8, nesterov=True),
        "SGD",
        {"lr": 0.02, "momentum": 0.8, "nesterov": True},
    ),
    R("adam", lambda: optim.adam(0.05), "Adam", {"lr": 0.05}),
    R(
        "adam_l2_amsgrad",
        lambda: optim.adam(0.05, 0.8, 0.95, 1e-6, weight_decay=0.1, amsgrad=True),
        "Adam",
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True},
    ),
    R("adamw", lambda: optim.adamw(0.05, weight_decay=0.1), "AdamW", {"lr": 0.05, "weight_decay": 0.1}),
    R("rmsprop", lambda: optim.rmsprop(0.01), "RMSprop", {"lr": 0.01}),
    R(
        "rmsprop_centered",
        lambda: optim.rmsprop(0.01, 0.9, momentum=0.5, centered=True, weight_decay=0.05),
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "centered": True, "weight_decay": 0.05},
    ),
    R("adagrad", lambda: optim.adagrad(0.3), "Adagrad", {"lr": 0.3}),
    R("lion", lambda: optim.lion(0.01)),
]

N_STEPS = 100


def problem():
    """A bowl with noisy gradients: matrix [6, 6], centre [6], start [6], noise [N_STEPS, 6], all float64."""
    rng = np.random.default_rng(11)
    root = rng.normal(size=(6, 6))
    matrix = root @ root.T / 6 + 0.1 * np.eye(6)
    return matrix, rng.normal(size=6), rng.normal(size=6), 0.1 * rng.normal(size=(N_STEPS, 6))

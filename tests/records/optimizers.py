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
    R("adamax", lambda: optim.adamax(0.05), "Adamax", {"lr": 0.05}),
    R(
        "adamax_l2",
        lambda: optim.adamax(0.05, 0.8, 0.95, 1e-6, weight_decay=0.1),
        "Adamax",
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
    ),
    R("nadam", lambda: optim.nadam(0.05), "NAdam", {"lr": 0.05}),
    R(
        "nadam_decoupled",
        lambda: optim.nadam(0.05, 0.8, 0.95, momentum_decay=0.01, weight_decay=0.1, decoupled=True),
        "NAdam",
        {"lr": 0.05, "betas": (0.8, 0.95), "momentum_decay": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    R("radam", lambda: optim.radam(0.05), "RAdam", {"lr": 0.05}),
    R(
        "radam_decoupled",
        lambda: optim.radam(0.05, 0.8, 0.95, weight_decay=0.1, decoupled=True),
        "RAdam",
        {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    R(
        "radam_l2",
        lambda: optim.radam(0.05, weight_decay=0.1),
        "RAdam",
        {"lr": 0.05, "weight_decay": 0.1},
    ),
    R(
        "adadelta",
        lambda: optim.adadelta(2.0, 0.8, 1e-2, weight_decay=0.05),
        "Adadelta",
        {"lr": 2.0, "rho": 0.8, "eps": 1e-2, "weight_decay": 0.05},
    ),
    R("rprop", lambda: optim.rprop(0.02), "Rprop", {"lr": 0.02}),
    R(
        "rprop_bounded",
        lambda: optim.rprop(0.02, shrink=0.4, grow=1.5, smallest=1e-3, largest=0.1),
        "Rprop",
        {"lr": 0.02, "etas": (0.4, 1.5), "step_sizes": (1e-3, 0.1)},
    ),
    R("asgd", lambda: optim.asgd(0.05), "ASGD", {"lr": 0.05}),
    R(
        "asgd_averaged",
        lambda: optim.asgd(0.05, decay=0.1, power=0.6, start=20, weight_decay=0.05),
        "ASGD",
        {"lr": 0.05, "lambd": 0.1, "alpha": 0.6, "t0": 20, "weight_decay": 0.05},
    ),
    R("adafactor", lambda: optim.adafactor(0.1), "Adafactor", {"lr": 0.1}),
    R(
        "adafactor_decay",
        lambda: optim.adafactor(0.1, b2_decay=-0.6, eps1=1e-4, eps2=0.01, clip=1.5, weight_decay=0.1),
        "Adafactor",
        {"lr": 0.1, "beta2_decay": -0.6, "eps": (1e-4, 0.01), "d": 1.5, "weight_decay": 0.1},
    ),
    R("lion", lambda: optim.lion(0.01)),
    R("lamb", lambda: optim.lamb(0.02, weight_decay=0.01)),
    R("lars", lambda: optim.lars(0.5, 0.5, trust=0.1, weight_decay=0.01)),
    R("adabelief", lambda: optim.adabelief(0.05, weight_decay=0.01)),
    R("yogi", lambda: optim.yogi(0.05, weight_decay=0.01)),
    R("novograd", lambda: optim.novograd(0.02, weight_decay=0.001)),
    R("muon", lambda: optim.muon(0.05, weight_decay=0.01)),
    R("soap", lambda: optim.soap(0.05)),
    R("sophia", lambda: optim.sophia(0.02, weight_decay=0.01)),
    R("prodigy", lambda: optim.prodigy(initial=1e-2, weight_decay=0.01)),
    R("schedule_free_sgd", lambda: optim.schedule_free_sgd(0.2)),
    R("schedule_free_adamw", lambda: optim.schedule_free_adamw(0.1, weight_decay=0.01)),
    R("accumulate", lambda: optim.accumulate(optim.sgd(0.3), 2)),
    R("lookahead", lambda: optim.lookahead(optim.adam(0.1), 3)),
    R("skip_nonfinite", lambda: optim.skip_nonfinite(optim.adam(0.05))),
    R("ema", lambda: optim.chain(optim.adam(0.05), optim.ema(0.9))),
    R("swa", lambda: optim.chain(optim.adam(0.05), optim.swa(10, 3))),
    R("inject", lambda: optim.inject(optim.adamw, learning_rate=0.05, b1=0.9, weight_decay=0.01)),
    R("amsgrad_optax", lambda: optim.adam(0.05, amsgrad=True, compat="optax")),
    R("nadam_optax", lambda: optim.nadam(0.05, compat="optax")),
    R("radam_optax", lambda: optim.radam(0.05, compat="optax")),
    R("adagrad_optax", lambda: optim.adagrad(0.3, compat="optax")),
    R("rmsprop_optax", lambda: optim.rmsprop(0.01, momentum=0.5, centered=True, compat="optax")),
    R("yogi_optax", lambda: optim.yogi(0.05, compat="optax")),
    R("lars_optax", lambda: optim.lars(0.5, 0.5, trust=0.1, weight_decay=0.01, compat="optax")),
    R("adafactor_optax", lambda: optim.adafactor(0.1, compat="optax")),
    R("muon_optax", lambda: optim.muon(0.05, compat="optax")),
    R("clip_optax", lambda: optim.chain(optim.clip_by_global_norm(0.5, compat="optax"), optim.sgd(0.3))),
    R("clip_adaptive", lambda: optim.chain(optim.clip_adaptive(0.1), optim.sgd(0.3))),
]

MATRICES = [
    R("adafactor", lambda: optim.adafactor(0.1, weight_decay=0.01)),
    R("muon", lambda: optim.muon(0.05)),
    R("soap", lambda: optim.soap(0.05, every=3)),
]
"""Optimizers that see more in a matrix than its elements."""

N_STEPS = 100


def problem():
    """A bowl with noisy gradients: matrix [6, 6], centre [6], start [6], noise [N_STEPS, 6], all float64."""
    rng = np.random.default_rng(11)
    root = rng.normal(size=(6, 6))
    matrix = root @ root.T / 6 + 0.1 * np.eye(6)
    return matrix, rng.normal(size=6), rng.normal(size=6), 0.1 * rng.normal(size=(N_STEPS, 6))

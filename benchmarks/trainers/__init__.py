# SPDX-License-Identifier: MIT
"""Training steps of the examples, side by side with PyTorch, torch.compile and JAX with optax; one job a file."""

from collections.abc import Sequence

from benchmarks.trainers import (
    char_gpt,
    diffusion,
    dp_sgd,
    ensemble,
    fashion_mnist,
    finetune_lora,
    gan,
    gaussian_process,
    hmc,
    lanczos,
    lstm_forecasting,
    maml,
    neural_ode,
    pinn,
    policy_gradient,
    resnet,
    running,
    vae,
)

_FILES = (
    char_gpt, fashion_mnist, resnet, vae, gan, diffusion, lstm_forecasting, pinn, neural_ode, maml, dp_sgd, ensemble,
    policy_gradient, hmc, gaussian_process, lanczos, finetune_lora,
)

ALL = {file.TRAINER.name: file.TRAINER for file in _FILES}


def main(argv: Sequence[str] = ()) -> int:
    """Measure all trainers, or those that `--only` names; returns how many failed with functorch_lite."""
    return running.main(ALL, argv)

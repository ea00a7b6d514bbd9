# SPDX-License-Identifier: MIT
"""Writes torch_reference.npz: where PyTorch's optimizers are after 1, 10 and 100 steps.

Run it when records/optimizers.py changes:

    python tests/optim/make_torch_reference.py
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.records.optimizers import OPTIMIZERS, problem  # noqa: E402


def run(record):
    matrix, centre, start, noise = (torch.tensor(a) for a in problem())
    point = torch.nn.Parameter(start.clone())
    optimizer = getattr(torch.optim, record.torch)([point], **record.torch_kwargs)
    path = []
    for extra in noise:
        point.grad = (matrix @ (point.detach() - centre)) + extra
        optimizer.step()
        path.append(point.detach().numpy().copy())
    return np.stack([path[0], path[9], path[-1]])


def main():
    # By default torch keeps NAdam's and ASGD's numbers in float32.
    torch.set_default_dtype(torch.float64)
    found = {record.name: run(record) for record in OPTIMIZERS if record.torch}
    arrays = {"torch_version": np.array(torch.__version__), **found}
    np.savez(Path(__file__).with_name("torch_reference.npz"), allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()

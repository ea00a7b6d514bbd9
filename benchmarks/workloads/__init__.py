# SPDX-License-Identifier: MIT
"""The workloads of `benchmarks.compiled`, one family a file."""

from benchmarks.workloads import (
    calls,
    chains,
    convnet,
    convolutions,
    losses,
    per_example,
    products,
    recurrent,
    reductions,
    resnet,
    second_order,
    simulations,
    sorting,
    training,
    transformer,
)

_FAMILIES = (training, transformer, convnet, resnet, products, convolutions, recurrent, per_example, second_order,
             simulations, losses, chains, reductions, sorting, calls)

ALL = {workload.name: workload for family in _FAMILIES for workload in family.WORKLOADS}

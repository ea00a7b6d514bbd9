# SPDX-License-Identifier: MIT
"""The cost of a call: a function that adds one to each of 1 to 1000 leaves of four numbers."""

from functools import partial

import numpy as np

from benchmarks.workloads.common import Workload, normal


def _inputs(n):
    rng = np.random.default_rng(0)
    return ([normal(rng, 4) for _ in range(n)],)


def _make(_):
    return lambda leaves: [x + 1.0 for x in leaves]


WORKLOADS = [
    Workload(f"call-{n}", "call", _make, _make, partial(_inputs, n), "always" if n <= 10 else "full")
    for n in (1, 10, 100, 1000)
]

# SPDX-License-Identifier: MIT
"""Every primitive that arrays can reach stands in some record, so that the laws see it."""

import numpy as np

from functorch_lite.core.aval import aval_of
from functorch_lite.core.program import subprograms
from functorch_lite.core.rules import eval_rules
from functorch_lite.core.staging import stage
from functorch_lite.rules import families
from tests.records import ALL_RECORDS

ELSEWHERE = {
    "transforms/checkpoint": "tests/transforms",
    "primitives/barrier": "tests/transforms",
    "primitives/higher_order": "tests/transforms",
    "primitives/loops": "tests/control_flow",
    "primitives/host": "tests/transforms",
    "primitives/collective": "tests/transforms",
    "control_flow/implicit": "tests/control_flow",
    "primitives/random_bits": "tests/random",
    "primitives/key_use": "tests/random",
}


def _primitives(program):
    for eqn in program.equations:
        yield eqn.prim
        for sub in subprograms(eqn.params):
            yield from _primitives(sub)


def test_every_primitive_is_in_a_record():
    seen = set()
    with np.errstate(all="ignore"):
        for record in ALL_RECORDS:
            for sample in record.draw():
                avals = [aval_of(np.asarray(a)) for a in sample.args]
                seen.update(_primitives(stage(record.flat, avals).program))
    missing = [
        f"{family}: {p.name}" for family, prims in families().items() if family not in ELSEWHERE
        for p in prims if p in eval_rules and p not in seen
    ]
    assert missing == []

# SPDX-License-Identifier: MIT
"""Law: vmap equals a Python loop, for every choice of mapped and unmapped arguments."""

import itertools

import numpy as np
import pytest

from functorch_lite.transforms.batching import batch_flat
from tests.records import ALL_RECORDS

SIZE = 2


def batch_cases():
    for record in ALL_RECORDS:
        for number, sample in enumerate(record.draw()):
            for batched in itertools.product((True, False), repeat=len(sample.args)):
                if any(batched):
                    flags = "".join("01"[b] for b in batched)
                    yield pytest.param(record, number, batched, id=f"{record.name}-{number}-{flags}")


@pytest.mark.parametrize(("record", "number", "batched"), list(batch_cases()))
def test_vmap_equals_a_loop(record, number, batched):
    lanes = [record.draw(lane)[number].args for lane in range(SIZE)]
    args = [
        np.stack([np.asarray(lane[i]) for lane in lanes]) if b else lanes[0][i] for i, b in enumerate(batched)
    ]
    outs, flags = batch_flat(record.flat, args, batched, size=SIZE)
    for lane in range(SIZE):
        one = [np.asarray(a)[lane] if b else a for a, b in zip(args, batched, strict=True)]
        for out, flag, expected in zip(outs, flags, record.flat(*one), strict=True):
            found = np.asarray(out)[lane] if flag else np.asarray(out)
            assert found.dtype == expected.dtype and found.shape == expected.shape
            rtol = record.rtol * 1e-4
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)

# SPDX-License-Identifier: MIT
"""Law: wherever a record of these families evaluates a primitive, its kernel gives the same outputs."""

import numpy as np
import pytest

from functorch_lite.compiler.lowering import cumulative, indexing, sorting, windows
from functorch_lite.compiler.lowering.rules import kernel_rules
from functorch_lite.core.rules import eval_rules
from tests.compiler.comparing import assert_same
from tests.compiler.support import run_rule
from tests.laws.test_eval import cast
from tests.records.cumulative import RECORDS as CUMULATIVE
from tests.records.indexing import RECORDS as INDEXING
from tests.records.sorting import RECORDS as SORTING
from tests.records.windows import RECORDS as WINDOWS

LOWERINGS = (cumulative, indexing, sorting, windows)
RECORDS = (*CUMULATIVE, *INDEXING, *SORTING, *WINDOWS)
_ROUNDED = ("cumsum", "cumprod", "reduce_window_sum", "window_put", "window_spread")


@pytest.fixture
def compared(monkeypatch):
    """Every kernel is run, and compared, where its primitive is evaluated; holds the names of those that were."""
    names = []

    def watch(prim, rule):
        def evaluate(xp, *arrays, **params):
            expected = rule(xp, *arrays, **params)
            names.append(prim.name)
            assert_same(run_rule(prim, *arrays, **params), expected, exact=prim.name not in _ROUNDED)
            return expected

        monkeypatch.setitem(eval_rules, prim, evaluate)

    for prim, rule in kernel_rules.items():
        if rule.__module__ in {m.__name__ for m in LOWERINGS}:
            watch(prim, eval_rules[prim])
    return names


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_kernels_give_what_the_records_evaluate(record, compared):
    for sample in record.draw():
        for name in (None, *record.dtypes):
            kind = "c" if name and name.startswith("complex") else "f"
            if name is None or any(np.asarray(a).dtype.kind == kind for a in sample.args):
                record.flat(*(sample.args if name is None else cast(sample.args, name)))
    assert compared

# SPDX-License-Identifier: MIT
"""Law: the jvp is the derivative (central differences in float64), and the tape run forwards is the jvp."""

import numpy as np
import pytest

from functorch_lite.core import dtypes
from tests.laws.support import Active, assert_close, cases, central, differentiable, jvp, replay, smooth
from tests.laws.test_eval import cast, dtype_cases


@cases(smooth)
def test_jvp_equals_central_difference(record, number):
    fun = Active(record, record.draw()[number])
    u = fun.directions(1)
    assert_close(jvp(fun, fun.point, u), central(fun, fun.point, u), record)


@cases(differentiable)
def test_tape_replay_equals_jvp(record, number):
    fun = Active(record, record.draw()[number])
    u = fun.directions(1)
    assert_close(replay(fun, fun.point, u), jvp(fun, fun.point, u), record, 1e-4)


@cases(differentiable)
def test_jvp_in_one_argument_at_a_time_sums_to_the_whole(record, number):
    fun = Active(record, record.draw()[number])
    u = fun.directions(1)
    total = None
    for i in range(len(u)):
        part = jvp(fun, fun.point, [t if i == j else None for j, t in enumerate(u)])
        total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
    assert_close(total, jvp(fun, fun.point, u), record, 1e-4)


@pytest.mark.parametrize(("record", "number", "name"), list(dtype_cases()))
def test_tangents_keep_their_dtype(record, number, name):
    sample = record.draw()[number]
    if not differentiable(record, sample):
        return
    sample = sample._replace(args=tuple(cast(sample.args, name)))
    fun = Active(record, sample)
    for out, t in zip(fun(*fun.point), jvp(fun, fun.point, fun.directions(1)), strict=True):
        assert t.dtype == out.dtype and np.shape(t) == np.shape(out)
        assert dtypes.is_inexact(t.dtype)

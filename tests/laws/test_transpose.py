# SPDX-License-Identifier: MIT
"""Law: <ct, J u> = <J^T ct, u> for random u and ct, complex numbers included (no conjugation)."""

import numpy as np
import pytest

from tests.laws.support import Active, cases, differentiable, inner, jvp, vjp
from tests.laws.test_eval import cast, dtype_cases


@cases(differentiable)
def test_transpose_is_adjoint_of_jvp(record, number):
    fun = Active(record, record.draw()[number])
    u, cts = fun.directions(1), fun.cotangents(1)
    dots, back = jvp(fun, fun.point, u), vjp(fun, fun.point, cts)
    scale = inner([np.abs(c) for c in cts], [np.abs(t) for t in dots])
    rtol = record.rtol * 1e-3
    np.testing.assert_allclose(inner(cts, dots), inner(back, u), rtol=rtol, atol=rtol * scale)


@cases(differentiable)
def test_transpose_in_one_output_at_a_time_sums_to_the_whole(record, number):
    fun = Active(record, record.draw()[number])
    cts = fun.cotangents(1)
    whole = vjp(fun, fun.point, cts)
    parts = [vjp(fun, fun.point, [c if i == j else None for j, c in enumerate(cts)]) for i in range(len(cts))]
    for position, expected in enumerate(whole):
        found = sum(p[position] for p in parts)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("record", "number", "name"), list(dtype_cases()))
def test_cotangents_have_the_type_of_their_argument(record, number, name):
    sample = record.draw()[number]
    if not differentiable(record, sample):
        return
    fun = Active(record, sample._replace(args=tuple(cast(sample.args, name))))
    for p, c in zip(fun.point, vjp(fun, fun.point, fun.cotangents(1)), strict=True):
        assert c.dtype == p.dtype and np.shape(c) == np.shape(p)

# SPDX-License-Identifier: MIT
"""Law: a staged function, its staged jvp and its staged vjp are well-typed programs and give the eager values."""

import numpy as np

from functorch_lite.core.aval import Aval
from functorch_lite.core.check import check_program
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.staging import stage
from tests.laws.support import Active, cases, differentiable, jvp, vjp


def assert_staged_equals_eager(fun, args):
    program, captured = stage(fun, [Aval(np.shape(a), np.asarray(a).dtype) for a in args])
    check_program(program)
    found, expected = evaluator(program)(*captured, *args), fun(*args)
    for f, e, aval in zip(found, expected, program.out_avals, strict=True):
        assert tuple(np.shape(f)) == aval.shape and f.dtype == aval.dtype
        np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-12)


@cases()
def test_staged_equals_eager(record, number):
    assert_staged_equals_eager(record.flat, record.draw()[number].args)


@cases(differentiable)
def test_staged_jvp_equals_eager(record, number):
    fun = Active(record, record.draw()[number])
    n = len(fun.point)
    assert_staged_equals_eager(lambda *a: jvp(fun, a[:n], a[n:]), [*fun.point, *fun.directions(1)])


@cases(differentiable)
def test_staged_vjp_equals_eager(record, number):
    fun = Active(record, record.draw()[number])
    n = len(fun.point)
    assert_staged_equals_eager(lambda *a: vjp(fun, a[:n], a[n:]), [*fun.point, *fun.cotangents(1)])

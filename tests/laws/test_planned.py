# SPDX-License-Identifier: MIT
"""Law: eager gradients by plans of primitives, functions of arrays and whole tapes are those by rules, bit for bit."""

import pytest

from functorch_lite.config import config
from functorch_lite.transforms import backward as planned_backward
from functorch_lite.transforms import composites
from tests.laws.support import Active, assert_same_bits, by_plans, by_rules, cases, differentiable
from tests.laws.test_eval import cast, dtype_cases

ROUNDS = 4  # enough for functions of arrays and for the whole tape, if two times are often


@pytest.fixture(autouse=True)
def plan_early(monkeypatch):
    """What has come once before is planned."""
    for module in (composites, planned_backward):
        monkeypatch.setattr(module, "SIGHTINGS", 2)


@cases(differentiable)
def test_planned_gradients_are_those_of_the_rules(record, number):
    fun = Active(record, record.draw()[number])
    cts = fun.cotangents(1)
    expected_outs, expected = by_rules(fun, fun.point, cts)
    for _ in range(ROUNDS):
        outs, found = by_plans(fun, fun.point, cts)
        assert_same_bits(outs, expected_outs)
        assert_same_bits(found, expected)


@pytest.mark.parametrize(("record", "number", "name"), list(dtype_cases()))
def test_planned_gradients_in_other_dtypes_are_those_of_the_rules(record, number, name):
    sample = record.draw()[number]
    if not differentiable(record, sample):
        return
    fun = Active(record, sample._replace(args=tuple(cast(sample.args, name))))
    cts = fun.cotangents(1)
    _, expected = by_rules(fun, fun.point, cts)
    for _ in range(ROUNDS):
        assert_same_bits(by_plans(fun, fun.point, cts)[1], expected)


@cases(differentiable)
def test_planned_gradients_with_ieee_products_are_those_of_the_rules(record, number):
    fun = Active(record, record.draw()[number])
    cts = fun.cotangents(1)
    with config(strong_zero=False):
        _, expected = by_rules(fun, fun.point, cts)
        for _ in range(ROUNDS):
            assert_same_bits(by_plans(fun, fun.point, cts)[1], expected)

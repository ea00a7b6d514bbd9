# SPDX-License-Identifier: MIT
"""Law: the shape rule says exactly the shape and dtype that evaluation gives, in every dtype of the record."""

import numpy as np
import pytest

from functorch_lite.core.aval import Aval
from functorch_lite.core.check import check_program
from functorch_lite.core.staging import stage
from tests.laws.support import cases
from tests.laws.test_eval import cast, dtype_cases


def assert_types_agree(record, args):
    """Stage and evaluate; the two types of each output are equal."""
    program, _ = stage(record.flat, [Aval(np.shape(a), np.asarray(a).dtype) for a in args])
    check_program(program)
    outs = record.flat(*args)
    assert [(tuple(o.shape), o.dtype) for o in outs] == [(a.shape, a.dtype) for a in program.out_avals]


@cases()
def test_shape_rule_equals_evaluated_type(record, number):
    assert_types_agree(record, record.draw()[number].args)


@pytest.mark.parametrize(("record", "number", "name"), list(dtype_cases()))
def test_shape_rule_equals_evaluated_type_in_other_dtypes(record, number, name):
    assert_types_agree(record, cast(record.draw()[number].args, name))

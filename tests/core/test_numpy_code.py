# SPDX-License-Identifier: MIT
"""Code for NumPy alone computes what the program's evaluator does, and holds no value longer than it needs it."""

import weakref

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.numpy_code import numpy_code

X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
ROW = np.arange(3, dtype=np.float32)

FUNCTIONS = {
    "repeated_row": lambda x, b: x + b,
    "repeated_column": lambda x, b: x - x[:, :1] + b,
    "both_repeated": lambda x, b: x[:, :1] * b,
    "repeated_constant": lambda x, b: x * fnp.full((4, 3), 2.0, np.float32) + fnp.ones(3, np.float32),
    "repeated_result": lambda x, b: fnp.broadcast_to(b, (4, 3)),
    "scalars": lambda x, b: (1.0 - x) * 0.5 + b.sum() * 2.0,
    "products": lambda x, b: (x.T @ x + x[:3] @ x[:3].T) @ b,
    "sums": lambda x, b: x.sum(0) + x.sum() + fnp.sum(x.astype(np.float16), axis=0),
    "elements": lambda x, b: x[np.array([0, 3]), np.array([2, -1])] / b[1:],
    "computed_before_it_is_repeated": lambda x, b: -fnp.broadcast_to(b.sum() / b[1], (4, 3)) * x,
    "repeated_scalar": lambda x, b: fnp.broadcast_to(b.sum(), (2, 3)),
    "repeated_twice": lambda x, b: x * fnp.broadcast_to(fnp.broadcast_to(b[:1] * 2, (3,)), (4, 3)),
    "rows_and_columns": lambda x, b: fnp.exp(x[:, :1]) * fnp.sin(b) + fnp.where(b > 1, b, x[:, :1]),
    "extrema": lambda x, b: x.max(0) - x.min() + x.max((0, 1)),
    "updates": lambda x, b: fnp.at(x)[np.arange(3), np.array([0, 2, -1])].add(b)
    + fnp.at(x)[np.array([1, 1, 2]), np.array([0, 0, 2])].add(b),
    "unused_input": lambda x, b: x * x,
    "input_returned": lambda x, b: (b, x + x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_code_computes_what_the_evaluator_does(name):
    program = fl.make_program(FUNCTIONS[name])(X, ROW)
    expected = evaluator(program)(X, ROW)
    given = [X, ROW]
    for found in (numpy_code(program)(X, ROW), numpy_code(program, from_list=True)(given)):
        for f, e in zip(found, expected, strict=True):
            assert type(f) is type(e) and f.dtype == e.dtype and f.shape == e.shape
            assert np.ascontiguousarray(f).tobytes() == np.ascontiguousarray(e).tobytes()


def test_inputs_are_taken_out_of_the_list():
    program = fl.make_program(lambda x, b: np.tanh(x + b) * b)(X, ROW)
    given = [X.copy(), ROW.copy()]
    freed = []
    weakref.finalize(given[0], freed.append, "x")
    numpy_code(program, from_list=True)(given)
    assert given == [None, None] and freed == ["x"]


def test_a_repeated_constant_cannot_be_written_to():
    program = fl.make_program(lambda x, b: x + fnp.full((4, 3), 2.0, np.float32))(X, ROW)
    run = numpy_code(program)
    constants = [v for v in run.__globals__.values() if isinstance(v, np.ndarray) and v.shape]
    assert all(not c.flags.writeable for c in constants)

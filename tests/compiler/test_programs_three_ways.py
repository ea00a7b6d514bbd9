# SPDX-License-Identifier: MIT
"""Random programs as native code, by the evaluator, and by the interpreter of loop IR agree.

The interpreter runs the lowered program twice: with memory of its own for every temporary, which starts as NaN, and with
the temporaries where the memory plan puts them in one arena. Exact values agree bit by bit.
"""

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.verify import verify
from functorch_lite.core import dtypes
from functorch_lite.core.evaluate import Evaluator
from tests.compiler.interpreting import run_interpreted, with_constants
from tests.compiler.random_programs import STEPS, Recipe, function_of, inputs_of

# Transcendental functions and sums in other orders, through some ten steps of moderate gain.
RTOL = {"float64": 1e-9, "complex128": 1e-9, "float32": 3e-4, "complex64": 3e-4, "float16": 0.1, "bfloat16": 0.5}


def assert_agree(found, expected, exact):
    """Outputs of one dtype and shape each, equal where exact, else close relative to the largest entry or to 1."""
    for f, e, same in zip(found, expected, exact, strict=True):
        f, e = np.asarray(f), np.asarray(e)
        assert (f.dtype, f.shape) == (e.dtype, e.shape)
        if same or not dtypes.is_inexact(e.dtype):
            np.testing.assert_array_equal(f, e)
            continue
        rtol = RTOL[e.dtype.name]
        wide = np.complex128 if dtypes.is_complex(e.dtype) else np.float64
        f, e = f.astype(wide), e.astype(wide)
        scale = max(1.0, np.abs(e[np.isfinite(e)]).max(initial=0))
        np.testing.assert_allclose(f, e, rtol=rtol, atol=rtol * scale)


def check(fun, args, exact=None, interpreted=True):
    """Compile `fun` for these arguments and compare; exact: which outputs must be equal, filled in by tracing it."""
    program = fl.make_program(fun)(*args)
    if len(program.inputs) > len(args):
        args = [*fl.closure_convert(fun, *args)[1], *args]
    optimized = pipeline.optimize(program)
    with np.errstate(all="ignore"):
        expected = Evaluator(program)(*args)
        exact = [False] * len(expected) if exact is None else exact
        assert native.can_lower(optimized)
        executable = native.compile_native(program, optimized)
        verify(with_constants(executable.lowered))
        copies = [np.array(a) for a in args]
        for _ in range(2):  # the second call finds an arena that is full of the first one's numbers
            assert_agree(executable(*args), expected, exact)
        for a, copy in zip(args, copies, strict=True):
            np.testing.assert_array_equal(a, copy)
        if interpreted:
            for plan in (None, executable.plan):
                assert_agree(run_interpreted(executable.lowered, args, program.out_avals, plan), expected, exact)
    return executable


_small = st.integers(0, 11)
_dtypes = st.one_of(st.integers(0, 3), st.integers(0, 13))
recipes = st.builds(
    Recipe,
    st.lists(st.tuples(st.integers(0, 17), _dtypes), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 5), _small, _small), min_size=1, max_size=14),
    st.lists(st.integers(0, 7), min_size=1, max_size=4),
    st.integers(0, 1000),
)
BOUNDED = settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@BOUNDED
@given(recipes)
@example(Recipe([(6, 5), (4, 4), (9, 1)], [("take", 1, 17, 3)], [1, 0]))
def test_random_programs(recipe):
    fun, exact = function_of(recipe)
    check(fun, inputs_of(recipe), exact)

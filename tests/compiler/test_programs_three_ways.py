# SPDX-License-Identifier: MIT
"""Random programs as native code, by the evaluator, and by the interpreter of loop IR agree.

The interpreter runs the lowered program twice: with memory of its own for every temporary, which starts as NaN, and
with the temporaries where the memory plan puts them in one arena. Exact values agree bit by bit.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite import numpy as fnp
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
_shapes = st.integers(0, 17)


def recipes(names, most_steps, large):
    steps = st.tuples(st.sampled_from(names), st.integers(0, 5), _small, _small)
    return st.builds(
        Recipe, st.lists(st.tuples(_shapes, _dtypes), min_size=1, max_size=4),
        st.lists(steps, min_size=1, max_size=most_steps), st.lists(st.integers(0, 7), min_size=1, max_size=4),
        st.integers(0, 1000), st.just(large),
    )


FUSED = [
    "sin", "negative", "add", "where", "compare", "cast", "sum", "extremum", "any", "prod", "transpose", "reverse",
    "slice", "merge_axes", "split_axis", "softmax", "layer_norm", "broadcast", "square", "divide", "larger",
]  # fmt: skip


def bounded(examples):
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@bounded(300)
@given(recipes(sorted(STEPS), 30, False))
@example(Recipe([(6, 5), (4, 4), (9, 1)], [("take", 1, 17, 3)], [1, 0]))
def test_random_programs(recipe):
    fun, exact = function_of(recipe)
    check(fun, inputs_of(recipe), exact)


@bounded(60)
@given(recipes(FUSED, 16, True))
def test_random_programs_on_large_arrays(recipe):
    """Above the size where sums down the columns of an array add whole rows into memory."""
    fun, exact = function_of(recipe)
    check(fun, inputs_of(recipe), exact, interpreted=False)


# --- programs with a point --------------------------------------------------------------------------------------------

X = np.random.default_rng(0).standard_normal((7, 17))
SIZES = (0, 1, 2, 3, 7, 16, 17, 33, 100)


@pytest.mark.parametrize("n", SIZES)
def test_every_size(n):
    x = np.random.default_rng(n).standard_normal((3, n))

    def fun(x):
        y = np.exp(x) + x[:, ::-1]
        return y, np.sum(y, 0), np.sum(y, 1), np.cumsum(x, 1), np.sort(x, 1), x @ x.T, x.T @ x, x > 0, np.any(x > 1, 1)

    check(fun, [x])
    check(fun, [x.astype(np.float32)])


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "uint8"])
@pytest.mark.parametrize("shape", [(300, 257), (257, 300), (70000, 1), (1, 70000), (4, 130, 133), (70000, 3)])
def test_sums_of_large_arrays_over_every_axis(shape, dtype):
    """Columns, rows and both at once, on their own and with the array written too."""
    x = np.random.default_rng(1).integers(-9, 9, shape).astype(dtype)

    def fun(x):
        y = x + x
        sums = [np.sum(y, d) for d in range(y.ndim)] + [np.max(x, 0), np.min(y, -1), np.sum(x)]
        return y, sums, x - np.sum(y, 0), x - np.sum(x, -1, keepdims=True), np.sum(y, 0, keepdims=True)

    found = check(fun, [x], [np.dtype(dtype).kind in "iu"] * (x.ndim + 7), interpreted=False)
    assert np.dtype(dtype).kind == "f" or found.arena_bytes < 10 * x.nbytes


OUTPUTS = {
    "an input": lambda x: x,
    "an input twice": lambda x: (x, x),
    "a literal": lambda x: np.float32(2.5),
    "literals and inputs": lambda x: (3, x, True, 3),
    "one value twice": lambda x: (lambda y: (y, y, x))(np.sin(x)),
    "a value and another shape of it": lambda x: (lambda y: (y, y.reshape(-1), y[None]))(np.sin(x)),
    "a value and its transpose": lambda x: (lambda y: (y, y.T, y.T.T, y[::-1]))(np.sin(x)),
    "shapes of an input": lambda x: (x.reshape(-1), x[None], x.T, x[1:]),
    "a value that others are made of": lambda x: (lambda y: (y, y * 2, np.sum(y, 0)))(np.sin(x)),
    "an array of one constant": lambda x: (np.zeros((2, 3)), fnp.broadcast_to(fnp.asarray(2.0), (3,)) + x[0, 0]),
    "a large constant": lambda x: (fnp.asarray(np.arange(100.0)), x @ fnp.asarray(np.ones((17, 9)))),
    "nothing": lambda x: (),
    "an empty array": lambda x: (x[:0], np.sum(x[:0], 0), np.sin(x[:0])),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_are(name):
    check(OUTPUTS[name], [X])


def swapped_scan(x):
    return lax.scan(lambda s, v: ((s[1], s[0] + v, s[0]), (s[2], s)), (x[0], x[1], x[2]), x)


def nested_scan(x):
    def inner(s, v):
        return s * 0.5 + v, np.sin(s)

    def outer(s, row):
        carry, ys = lax.scan(inner, s, row)
        return carry + np.sum(ys), (ys, carry)

    return lax.scan(outer, np.float64(0), x, reverse=True)


def scan_with_branches(x):
    def body(s, v):
        new = lax.cond(np.sum(v) > 0, lambda s, v: s + v, lambda s, v: s[::-1] * 0.9, s, v)
        return new, (s, new, np.float64(3))

    return lax.scan(body, x[0], x)


def scan_of_nothing(x):
    return lax.scan(lambda s, v: (s + v, s), x[0], x[:0])


def scan_of_one(x):
    """The carry's last value is not used: its place is free as soon as the iteration has read it."""
    return lax.scan(lambda s, v: (np.sin(s) + v, (s * v, s - v)), x[0] * 2, x[:1])[1]


def passing_while(x):
    """Carried values that move on to other places, and one that stays."""
    return lax.while_loop(lambda s: s[0] < 5, lambda s: (s[0] + 1, s[2], s[3], s[1], s[4]), (0, x, x + 1, x * 2, x - 1))


def while_in_scan(x):
    def body(s, v):
        found = lax.while_loop(lambda t: np.sum(t) < 10, lambda t: t + 1 + np.abs(v), s * 0)
        return found * 0.1, found

    return lax.scan(body, x[0], x)


def switch_of_inputs(x):
    k = (np.sum(x) > 0).astype(np.int32)
    return lax.switch(k, [lambda a, b: (a, b), lambda a, b: (b, a), lambda a, b: (a + b, a)], x, x * 2)


LOOPS = (swapped_scan, nested_scan, scan_with_branches, scan_of_nothing, scan_of_one, passing_while,
         while_in_scan, switch_of_inputs)  # fmt: skip


@pytest.mark.parametrize("fun", LOOPS, ids=lambda f: f.__name__)
def test_loops_and_branches(fun):
    check(fun, [X])
    check(fl.vmap(fun), [np.stack([X, X * 0.5])])


DIFFERENTIABLE = (swapped_scan, nested_scan, scan_with_branches, scan_of_one, switch_of_inputs)


@pytest.mark.parametrize("fun", DIFFERENTIABLE, ids=lambda f: f.__name__)
def test_gradients_of_loops_and_branches(fun):
    def total(x):
        return sum(np.sum(np.sin(leaf)) for leaf in fl.tree.leaves(fun(x)))

    check(fl.grad(total), [X])
    check(lambda x: fl.jvp(fl.grad(total), (x,), (x,)), [X])


def test_a_long_program():
    """More equations than the scheduler looks back over, which meet again at the end."""

    def fun(x):
        early = [np.sin(x * k) for k in range(20)]
        y = x
        for k in range(300):
            y = np.tanh(y @ y.T @ y) + early[k % 20] if k % 7 == 0 else y * 0.9 + early[k % 20][::-1]
        return y, sum(early), np.sum(y, 0)

    check(fun, [X[:, :7] * 0.1], interpreted=False)


# --- random loops: next values of a carry are computed in the place of present ones where that is possible ------------

_ops = st.tuples(st.integers(0, 11), st.integers(0, 6), st.integers(0, 6))


def random_body(steps, n_carry, following, outputs):
    """A loop's body from integers: what a step makes of two values, which values come next, and which are stacked."""

    def body(carry, v):
        values = [*carry, v]
        for op, i, j in steps:
            a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
            values.append((
                lambda a, b: a + b, lambda a, b: a - b, lambda a, b: np.maximum(a, b), lambda a, b: a[::-1],
                lambda a, b: fnp.at(a)[1].set(b[0]), lambda a, b: a + np.max(b), lambda a, b: np.flip(a, -1) - b,
                lambda a, b: fnp.at(a)[0, 1].add(b[1, 0]), lambda a, b: np.concatenate([a[1:], b[:1]]),
                lambda a, b: lax.cond(b[0, 0] > 0, lambda p, q: (p + q, q), lambda p, q: (q, p), a, b)[0],
                lambda a, b: lax.scan(lambda s, r: (s - r, s), b[0], a)[1],
                lambda a, b: lax.fori_loop(0, 2, lambda k, s: (s[1], s[0] + s[1]), (a, b))[1],
            )[op](a, b))  # fmt: skip
        chosen = tuple(values[k % len(values)] for k in following[:n_carry])
        return chosen, tuple(values[k % len(values)] for k in outputs)

    return body


@bounded(120)
@given(
    st.lists(_ops, max_size=7), st.lists(st.integers(0, 10), min_size=1, max_size=4),
    st.lists(st.integers(0, 10), max_size=2), st.booleans(), st.booleans(),
)
def test_random_loops(steps, following, outputs, reverse, is_while):
    n = len(following)
    x = np.random.default_rng(5).integers(-4, 5, (5, 3, 2)).astype(np.float64)
    body = random_body(steps, n, following, outputs)

    def fun(x):
        start = tuple(x[k % 2] for k in range(n))
        if is_while:
            return lax.while_loop(lambda s: s[0] < 4, lambda s: (s[0] + 1, body(s[1], x[4])[0]), (0, start))
        return lax.scan(body, start, x, reverse=reverse)

    check(fun, [x])

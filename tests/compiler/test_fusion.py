# SPDX-License-Identifier: MIT
"""What fuses with what: golden schedules and kernels of programs that matter, and their numbers of kernels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite import nn, optim
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.printer import function_text
from functorch_lite.compiler.lowering.program import lower_program
from functorch_lite.compiler.schedule.fusion import Schedule
from functorch_lite.compiler.schedule.printer import schedule_text
from functorch_lite.primitives.indexing import gather
from tests.compiler.test_programs_three_ways import check

GOLDEN = Path(__file__).parent / "golden" / "fusion"
F32 = np.float32


def numbers(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(F32)


X, CT, SCALE, BIAS, LABELS = numbers(7, 17), numbers(17, 7).T.copy(), numbers(17), numbers(1, 17)[0], np.arange(7)
ONE_HOT = np.eye(17, dtype=F32)[LABELS]


def softmax(x):
    return nn.softmax(x, -1)


def layer_norm(x, scale, bias):
    return (x - np.mean(x, -1, keepdims=True)) / np.sqrt(np.var(x, -1, keepdims=True) + F32(1e-5)) * scale + bias


def cross_entropy(x, targets):
    return -np.mean(np.sum(nn.log_softmax(x, -1) * targets, -1))


def picked_cross_entropy(x, labels):
    return -np.mean(np.take_along_axis(nn.log_softmax(x, -1), labels[:, None], -1))


def bias_relu(x, bias):
    return np.maximum(x + bias, F32(0))


def backward(fun):
    """(arguments, cotangent) -> cotangents of the arguments."""
    return lambda *args: fl.vjp(fun, *args[:-1])[1](args[-1])


def both_sums(x):
    return np.sum(x, 0), np.sum(x, 1)


def centred_columns(x):
    return x - np.mean(x, 0)


def chain_of_updates(x):
    for k in range(5):
        x = np.tanh(x * F32(k + 1)) + x
    return x


def transposed_sum(x, y):
    return np.sin(x).T + np.cos(y)


CASES = {
    "softmax": (softmax, X),
    "softmax_backward": (backward(softmax), X, CT),
    "layer_norm": (layer_norm, X, SCALE, BIAS),
    "layer_norm_backward": (backward(layer_norm), X, SCALE, BIAS, CT),
    "cross_entropy": (cross_entropy, X, ONE_HOT),
    "cross_entropy_gradient": (fl.grad(cross_entropy), X, ONE_HOT),
    "picked_cross_entropy": (picked_cross_entropy, X, LABELS),
    "picked_cross_entropy_gradient": (fl.grad(picked_cross_entropy), X, LABELS),
    "bias_relu": (bias_relu, X, BIAS),
    "bias_relu_backward": (backward(bias_relu), X, BIAS, CT),
    "column_sums": (lambda x: np.sum(x, 0), X),
    "both_sums": (both_sums, X),
    "centred_columns": (centred_columns, X),
    "chain_of_updates": (chain_of_updates, X),
    "transposed_sum": (transposed_sum, X, CT.T.copy()),
    "concatenated": (lambda x, y: np.concatenate([np.sin(x), y * y]), X, CT),
    "dense_layer": (lambda x, w, b: np.maximum(x @ w + b, F32(0)), X, numbers(17, 5), numbers(5)),
}
KERNELS = {"softmax": 1, "softmax_backward": 1, "layer_norm": 1, "layer_norm_backward": 1, "cross_entropy_gradient": 1,
           "bias_relu": 1, "bias_relu_backward": 1, "column_sums": 1, "both_sums": 1, "centred_columns": 1,
           "chain_of_updates": 1}  # fmt: skip


def optimized(name):
    fun, *args = CASES[name]
    return pipeline.optimize(fl.make_program(fun)(*args))


@pytest.mark.parametrize("name", CASES)
def test_schedule_is_the_golden_one(name, check_golden):
    check_golden(GOLDEN / f"{name}.schedule.txt", schedule_text(Schedule(optimized(name))))


@pytest.mark.parametrize("name", ["softmax", "layer_norm", "both_sums", "column_sums", "bias_relu_backward"])
def test_kernel_is_the_golden_one(name, check_golden):
    check_golden(GOLDEN / f"{name}.kernel.txt", function_text(lower_program(optimized(name)).function))


@pytest.mark.parametrize("name", KERNELS)
def test_number_of_kernels(name):
    lowered = lower_program(optimized(name))
    assert (len(lowered.kernels), len(lowered.function.body)) == (KERNELS[name], KERNELS[name])


@pytest.mark.parametrize("name", CASES)
def test_the_fused_programs_compute_the_right_numbers(name):
    fun, *args = CASES[name]
    check(fun, args)


@pytest.mark.parametrize("leaves", [1, 5, 40])
def test_an_optimizer_step_of_equal_leaves_shares_one_kernel(leaves):
    opt = optim.adam(1e-3)
    params = [numbers(17, 33) for _ in range(leaves)]
    program = pipeline.optimize(fl.make_program(opt.step)(params, params, opt.init(params)))
    lowered = lower_program(program)
    assert len(lowered.kernels) == 2  # the bias corrections, and the update of one leaf
    bodies = [s.kernel.body if s.kernel.arena is not None else [s] for s in lowered.function.body]
    assert sum(map(len, bodies)) == 1 + leaves  # some leaves are updated by calls of a part


def test_compiling_twice_gives_the_same_code():
    program = optimized("layer_norm_backward")
    assert native.compile_native(program, program).ir == native.compile_native(program, program).ir


# --- gathers that are read through their indices ----------------------------------------------------------------------

PLACES = np.random.default_rng(2).integers(-9, 12, (7, 5))


def looked_up(fun, *args):
    """The schedule of a program, which gives the same as the function."""
    found, expected = fl.jit(fun)(*args), fun(*args)
    for a, b in zip(found if isinstance(found, tuple) else (found,),
                    expected if isinstance(expected, tuple) else (expected,), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    return fl.jit(fun).lower(*args).as_text("schedule")


@pytest.mark.parametrize("mode", ["clip", "wrap", "fill", "zero", "unchecked"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.int32])
def test_a_gather_that_cannot_fail_is_read_through_its_indices(mode, dtype):
    x = (numbers(8, 6) * 9).astype(dtype)
    places = np.abs(PLACES) % 8 if mode == "unchecked" else PLACES

    def rows(x, i):
        return gather(x, i, mode=mode) * x.dtype.type(2) + x.dtype.type(1)

    def elements(x, i):
        return gather(x, i, i % 6, mode=mode) * x.dtype.type(2)

    for fun in (rows, elements):
        assert "gather" not in looked_up(fun, x, places)


def test_a_gather_along_an_axis_with_weights():
    x, i, w = numbers(4, 9, 6), np.abs(PLACES[0]) % 9, numbers(5)

    def between(x, i, w):
        low, high = (np.take(x, i + k, axis=1, mode="clip") for k in (0, 1))
        return low * (1 - w)[:, None] + high * w[:, None]

    assert "gather" not in looked_up(between, x, i, w)


@pytest.mark.parametrize("fun", [
    lambda x, i: gather(x, i, mode="raise") * F32(2),
    lambda x, i: gather(x, i, mode="clip"),
    lambda x, i: (lambda y: (y, y + F32(1)))(gather(x, i, mode="clip")),
    lambda x, i: gather(x, i, mode="clip").sum(0),
    lambda x, i: gather(x, i, mode="clip") @ x.T,
])
def test_what_may_fail_or_is_read_otherwise_is_a_step(fun):
    assert "step gather" in looked_up(fun, numbers(12, 6), PLACES)


def test_the_array_may_be_computed_and_the_indices_too():
    def fun(x, i):
        y = np.exp(x)
        return gather(y, np.maximum(i, 0) // 2, mode="clip") + y[0]

    assert "gather" not in looked_up(fun, numbers(7, 6), PLACES)


def test_an_output_does_not_take_the_place_of_what_is_looked_up():
    f = fl.jit(lambda x, i: gather(x, i, mode="clip") * F32(2), donate_argnums=0)
    x, i = numbers(1000), np.arange(1000)[::-1].copy()
    expected = x[::-1] * 2
    np.testing.assert_array_equal(f(x.copy(), i), expected)


def test_a_search_reads_its_probes_in_the_kernels_that_need_them():
    a, v = np.sort(numbers(100)), numbers(300)
    for side in ("left", "right"):
        f = fl.jit(lambda a, v, side=side: np.searchsorted(a, v, side))
        assert "gather" not in f.lower(a, v).as_text("schedule")
        np.testing.assert_array_equal(f(a, v), np.searchsorted(a, v, side))


# --- order ------------------------------------------------------------------------------------------------------------


def test_groups_are_not_united_around_what_lies_between():
    """The select joins what computes -j; what computes d runs before the product that the select waits for."""
    def fun(h, j):
        d = -(h @ j)
        return fl.numpy.where(d @ j < 0, d, -j)

    check(fun, [np.arange(9.0).reshape(3, 3), np.ones(3)])


STEPS = {
    "negated": lambda v, w, m: -v,
    "added": lambda v, w, m: v + w,
    "times": lambda v, w, m: v * w[::-1],
    "product": lambda v, w, m: m @ v,
    "scaled by a product": lambda v, w, m: (v @ w) * v,
    "chosen by a sum": lambda v, w, m: np.where(v.sum() < 0, v, w),
    "chosen by a product": lambda v, w, m: np.where(v @ w < 0, v, -w),
    "centred": lambda v, w, m: v - w.max(),
    "running": lambda v, w, m: np.cumsum(v) - w,
    "of columns": lambda v, w, m: (m * v).sum(0) + (m * w[:, None]).sum(1),
    "shifted": lambda v, w, m: np.roll(v, 1) + w,
}


GRAPHS = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=12
)


def graph_of(steps):
    """A function of a matrix and a vector: each step computes a vector from two of those there are."""
    def fun(m, v):
        values = [v, m[0]]
        for name, i, j in steps:
            values.append(np.tanh(STEPS[name](values[i % len(values)], values[j % len(values)], m)))
        return values[-3:]

    return fun, [np.linspace(-1, 1, 25).reshape(5, 5), np.linspace(-2, 1, 5)]


@given(GRAPHS)
@settings(max_examples=60, deadline=None, derandomize=True)
@example([("added", 0, 0), ("added", 0, 0), ("of columns", 0, 0), ("added", 0, 0), ("product", 8, 0), ("added", 4, 9),
          ("chosen by a product", 0, 6)])
def test_random_graphs_have_an_order(steps):
    check(*graph_of(steps), interpreted=False)


@given(GRAPHS)
@settings(max_examples=300, deadline=None, derandomize=True)
@pytest.mark.parametrize("near", [1, 3])
def test_paths_longer_than_what_is_looked_at(near, steps):
    """Groups that were put together around one are found in the end, and looked for again with care."""
    fun, args = graph_of(steps)
    program = pipeline.optimize(fl.make_program(fun)(*args))
    schedule, done = Schedule(program, near), set()
    for group in schedule.groups:
        assert schedule.needs(group) <= done
        done.add(group)

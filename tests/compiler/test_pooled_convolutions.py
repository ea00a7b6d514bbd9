# SPDX-License-Identifier: MIT
"""Convolutions with the pooling of their output in one kernel: against the evaluator and the interpreter of loop IR."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax, nn
from functorch_lite import numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.lowering import convolution, convolution_image, convolution_outputs, convolution_pixels
from functorch_lite.compiler.lowering.cutting import Cutting
from functorch_lite.compiler.lowering.program import lower_program
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.runtime.executable import Executable
from functorch_lite.compiler.schedule.parallel import shared_loops
from tests.compiler.guarded import Guarded
from tests.compiler.support import run_kernel
from tests.compiler.test_epilogues import schedule_of
from tests.compiler.test_programs_three_ways import check

F32 = np.float32
ONE = "conv_general_dilated"
LAYOUTS = {"first": ("NCHW", "OIHW", "NCHW"), "last": ("NHWC", "HWIO", "NHWC"), "both": ("NCHW", "OIHW", "NHWC")}
# examples, channels, height, width, filters, kernel
SIZES = ((3, 1, 12, 12, 6, 5), (2, 3, 13, 15, 7, 3), (2, 16, 11, 12, 32, 3), (1, 3, 30, 33, 5, 3),
         (1, 2, 9, 140, 18, 3), (5, 4, 6, 7, 17, 2), (1, 2, 6, 300, 3, 3), (2, 8, 5, 4, 65, 3))  # fmt: skip
# window, strides, padding
POOLS = {
    "halved": ((2, 2), (2, 2), ((0, 0), (0, 0))),
    "overlapping": ((3, 3), (2, 2), ((0, 0), (0, 0))),
    "padded": ((3, 3), (2, 2), ((1, 1), (1, 1))),
    "uneven": ((3, 2), (3, 1), ((0, 1), (1, 0))),
    "rows": ((2, 1), (2, 1), ((0, 0), (0, 0))),
    "columns": ((1, 3), (1, 3), ((0, 0), (1, 2))),
    "cropped": ((2, 2), (2, 2), ((-1, 0), (0, -1))),
    "spread": ((2, 2), (3, 3), ((0, 0), (0, 0))),
}


def floats(*shape: int, dtype: Any = F32) -> np.ndarray:
    return (np.random.default_rng(shape).standard_normal(shape) / 2).astype(dtype)


def pooled(y, settings, layout="first", kind="max"):
    window, strides, padding = settings

    def over(spatial, rest):
        return (rest, rest, *spatial) if LAYOUTS[layout][2] == "NCHW" else (rest, *spatial, rest)

    how, start = {"max": (lax.max, -np.inf), "min": (lax.min, np.inf), "add": (lax.add, 0)}[kind]
    return lax.reduce_window(y, y.dtype.type(start), how, over(window, 1), over(strides, 1), over(padding, (0, 0)))


def convolved(x, w, layout="first", strides=(1, 1), padding=((1, 1), (1, 1)), **options):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=LAYOUTS[layout], **options)


def biased(y, b, layout="first"):
    return y + (b[:, None, None] if LAYOUTS[layout][2] == "NCHW" else b)


def relu(y):
    return fnp.maximum(y, y.dtype.type(0))


def operands(sizes, layout="first", dtype=F32):
    n, c, h, w, o, k = sizes
    x = floats(n, c, h, w, dtype=dtype) if LAYOUTS[layout][0] == "NCHW" else floats(n, h, w, c, dtype=dtype)
    kernel = floats(o, c, k, k, dtype=dtype) if LAYOUTS[layout][1] == "OIHW" else floats(k, k, c, o, dtype=dtype)
    return [x, kernel, floats(o, dtype=dtype)]


def is_one_kernel(fun, args) -> bool:
    return any(ONE in line and "reduce_window" in line for line in schedule_of(fun, *args).splitlines())


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", POOLS)
def test_pools_of_many_sizes(name, layout):
    start = list(POOLS).index(name) + 3 * list(LAYOUTS).index(layout)
    for number, sizes in enumerate((*SIZES, *SIZES)[start % len(SIZES) :][:2]):
        args = operands(sizes, layout)
        kind = ("max", "add", "min")[number]

        def fun(x, w, b, kind=kind):
            return pooled(relu(biased(convolved(x, w, layout), b, layout)), POOLS[name], layout, kind)

        assert is_one_kernel(fun, args)
        check(fun, args, interpreted=sizes in SIZES[:3])


@pytest.mark.parametrize("kind", ["max", "add", "min"])
@pytest.mark.parametrize("name", ["halved", "padded"])
def test_either_way_to_compute_it(name, kind, monkeypatch):
    def fun(x, w, b):
        return pooled(fnp.tanh(biased(convolved(x, w), b)), POOLS[name], kind=kind)

    for way in (convolution_pixels.Pixels, convolution_outputs.Outputs):
        monkeypatch.setattr(convolution.Convolution, "_tiles", lambda self, b, x, y, out, machine, pool, way=way: way(
            b, machine, self, x, y, out, None, pool))
        for sizes in SIZES[:3]:
            check(fun, operands(sizes), interpreted=False)


@pytest.mark.parametrize("dtype", [np.float64, ml_dtypes.bfloat16, np.float16], ids=str)
@pytest.mark.parametrize("kind", ["max", "add"])
def test_other_precisions(dtype, kind):
    for sizes in SIZES[:2]:
        for name in ("halved", "padded"):
            args = operands(sizes, dtype=dtype)
            check(lambda x, w, b, name=name: pooled(relu(biased(convolved(x, w), b)), POOLS[name], kind=kind), args,
                  interpreted=sizes == SIZES[0])


def test_pools_of_integers():
    args = [(a * 9).astype(np.int32) for a in operands(SIZES[0])]

    def fun(x, w, b):
        found = relu(biased(convolved(x, w), b))
        padding = (0, 0), (0, 0), (1, 1), (1, 1)
        return lax.reduce_window(found, np.int32(-(2**31)), lax.max, (1, 1, 3, 3), (1, 1, 2, 2), padding)

    assert is_one_kernel(fun, args)
    check(fun, args, [True])


CHAINS = {
    "nothing": lambda y, b, r: y,
    "bias": lambda y, b, r: biased(y, b),
    "silu": lambda y, b, r: nn.silu(biased(y, b)),
    "residual": lambda y, b, r: relu(y + r),
    "cast": lambda y, b, r: biased(y, b).astype(np.float64),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", POOLS)
def test_what_comes_between(chain, name):
    sizes = 2, 3, 8, 9, 6, 3
    args = [*operands(sizes), floats(2, 6, 8, 9)]

    def fun(x, w, b, r):
        return pooled(CHAINS[chain](convolved(x, w), b, r), POOLS[name])

    has_place = chain == "residual" and any(n > 0 for pair in POOLS[name][2] for n in pair)
    assert is_one_kernel(fun, args) != has_place
    check(fun, args)


@pytest.mark.parametrize("options", [
    {"strides": (2, 2)}, {"strides": (2, 3), "padding": ((2, 2), (0, 1))}, {"rhs_dilation": (2, 1)},
    {"padding": ((-1, 0), (0, -2))},
], ids=str)  # fmt: skip
def test_settings_of_the_convolution(options):
    for name in ("halved", "padded"):
        args = operands((2, 3, 21, 26, 9, 3))
        check(lambda x, w, b, name=name: pooled(biased(convolved(x, w, **options), b), POOLS[name]), args,
              interpreted=name == "padded")


def test_groups():
    x, w, b = floats(2, 8, 11, 10), floats(12, 4, 3, 3), floats(12)
    for name in ("halved", "padded"):
        check(lambda x, w, b, name=name: pooled(relu(biased(convolved(x, w, feature_group_count=2), b)), POOLS[name]),
              [x, w, b])


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("layout", ["NC{}", "N{}C"])
def test_one_and_three_axes(n, layout):
    axes, shape, ones = "WHD"[:n][::-1], (4, 7, 6)[-n:], (1,) * n
    first = layout == "NC{}"
    numbers = layout.format(axes), "OI" + axes, layout.format(axes)
    x, w = floats(*((2, 3, *shape) if first else (2, *shape, 3))), floats(7, 3, *[3] * n)
    b = floats(7, *ones) if first else floats(7)
    for window, stride, pair in ((2, 2, (0, 0)), (3, 2, (1, 1))):
        def over(v, rest, first=first):
            return (rest, rest, *[v] * n) if first else (rest, *[v] * n, rest)

        def fun(x, w, b, window=window, stride=stride, pair=pair, over=over):
            y = relu(lax.conv_general_dilated(x, w, ones, [(1, 1)] * n, dimension_numbers=numbers) + b)
            return lax.reduce_window(y, F32(-np.inf), lax.max, over(window, 1), over(stride, 1), over(pair, (0, 0)))

        assert is_one_kernel(fun, [x, w, b])
        check(fun, [x, w, b])


def test_no_examples():
    args = [floats(0, 3, 8, 8), floats(5, 3, 3, 3), floats(5)]
    check(lambda x, w, b: pooled(relu(biased(convolved(x, w), b)), POOLS["halved"]), args)


def test_values_that_are_not_finite():
    x, w, b = operands((2, 2, 12, 12, 5, 3))
    x[0, 0, 3, 3], x[0, 1, 7, 8], x[1, 0, 0, 0] = np.nan, np.inf, -np.inf
    for name in ("halved", "padded"):
        check(lambda x, w, b, name=name: pooled(biased(convolved(x, w), b), POOLS[name]), [x, w, b])


def test_blocks_of_large_examples(monkeypatch):
    monkeypatch.setattr(convolution_pixels, "IMAGE_BYTES", 4 << 10)
    monkeypatch.setattr(convolution_outputs, "BLOCK_BYTES", 8 << 10)
    monkeypatch.setattr(convolution_image, "LEAST_COLUMNS", 8)
    for sizes in (SIZES[3], (2, 3, 40, 21, 40, 3), (1, 2, 17, 300, 3, 3)):
        for name in ("halved", "padded", "uneven"):
            check(lambda x, w, b, name=name: pooled(relu(biased(convolved(x, w), b)), POOLS[name]), operands(sizes),
                  interpreted=sizes == SIZES[3])


TAILS = {
    "mean": lambda y, c, f: y / y.dtype.type(4),
    "counts": lambda y, c, f: y / c[0, 0],
    "filters": lambda y, c, f: fnp.tanh(y * f),
    "all": lambda y, c, f: y * c + f,
    "cast": lambda y, c, f: (y * f).astype(np.float16),
    "signs": lambda y, c, f: y > c,
    "rows": lambda y, c, f: y - c[..., :1],
}


def tailed(tail, name, kind, over=lambda x, w, b: relu(biased(convolved(x, w), b))):
    def fun(x, w, b, c, f):
        return TAILS[tail](pooled(over(x, w, b), POOLS[name], kind=kind), c, f)

    return fun


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", POOLS)
def test_what_comes_after(tail, name):
    sizes = (2, 3, 12, 13, 6, 3), (2, 9, 7, 8, 33, 3), (1, 3, 30, 33, 5, 3)
    k = list(TAILS).index(tail) + list(POOLS).index(name)
    shape = sizes[k % 3]
    args = operands(shape)
    made = np.shape(pooled(floats(shape[0], shape[4], *shape[2:4]), POOLS[name]))
    args += [floats(*made) + F32(3), floats(made[1], 1, 1)]
    fun = tailed(tail, name, ("max", "add")[k % 2])
    (line,) = schedule_of(fun, *args).splitlines()
    assert ONE in line
    check(fun, args, interpreted=k % 6 == 0)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", POOLS)
def test_what_comes_after_the_pooling_of_an_array(tail, name):
    for shape in ((2, 3, 9, 10), (1, 5, 9, 40)):
        made = np.shape(pooled(floats(*shape), POOLS[name]))
        fun = tailed(tail, name, "add", lambda x, w, b: x)
        args = [floats(*shape), F32(0), F32(0), floats(*made) + F32(3), floats(made[1], 1, 1)]
        (line,) = schedule_of(fun, *args).splitlines()
        assert "reduce_window_sum" in line
        check(fun, args, interpreted=shape[0] == 2 and tail in ("mean", "rows"))


@pytest.mark.parametrize("name", POOLS)
def test_tails_of_channels_that_come_last(name):
    for shape in ((2, 7, 8, 5), (1, 9, 10, 40)):
        made = np.shape(pooled(floats(*shape), POOLS[name], "last"))
        for fun in (lambda x, c, f: pooled(x, POOLS[name], "last", "add") * f + c,
                    lambda x, c, f: fnp.maximum(pooled(x, POOLS[name], "last") + f, c[..., :1])):
            check(fun, [floats(*shape), floats(*made), floats(made[-1])], interpreted=shape[0] == 2)


def test_tails_in_other_precisions_and_that_are_shared():
    x, f = floats(2, 3, 8, 8, dtype=ml_dtypes.bfloat16), floats(3, 1, 1, dtype=ml_dtypes.bfloat16)

    def fun(x, f):
        first, second = (pooled(v, POOLS["halved"], kind="add") * f for v in (x, x * x))
        return first, second, pooled(x, POOLS["halved"], kind="add") * first

    check(fun, [x, f])


def test_a_tail_in_a_loop():
    x = floats(3, 2, 4, 12, 12)
    check(lambda x: lax.scan(lambda c, x: (c, pooled(x, POOLS["halved"], kind="add") / F32(4)), F32(0), x)[1], [x])


# --- threads, memory, neighbours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(16, 3, 32, 32, 16, 3), (16, 16, 14, 14, 32, 5), (1, 3, 112, 112, 32, 7)], ids=str)
@pytest.mark.parametrize("name", ["halved", "padded"])
def test_threads_and_cuts_change_no_bit(sizes, name):
    args, found = operands(sizes), []

    def fun(x, w, b):
        return pooled(relu(biased(convolved(x, w), b)), POOLS[name], kind="add")

    program = fl.make_program(fun)(*args)
    for threads, cutting in ((1, Cutting()), (2, Cutting()), (4, Cutting()), (2, Cutting(lanes=True, jobs=2.0))):
        with fl.config(num_threads=threads):
            optimized = pipeline.optimize(program)
            executable = Executable(program, optimized, lower_program(optimized, cutting))
            assert any(shared_loops(kernel) for kernel in executable.lowered.kernels)
            found.append(executable(*args)[0])
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_what_is_pooled_is_never_in_memory():
    args = operands((16, 3, 64, 64, 32, 3))

    def fun(x, w, b):
        return pooled(relu(biased(convolved(x, w), b)), POOLS["halved"])

    whole = 16 * 32 * 64 * 64 * 4
    assert fl.jit(fun).memory(*args).temporaries < whole / 16
    kept = fl.jit(lambda x, w, b: (fun(x, w, b), relu(biased(convolved(x, w), b)))).memory(*args)
    assert kept.peak > fl.jit(fun).memory(*args).peak + whole / 2


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["halved", "padded"])
def test_nothing_beside_the_arrays_is_touched(layout, name, at_end):
    args = operands((2, 3, 13, 18, 20, 3), layout)

    def fun(x, w, b):
        return pooled(relu(biased(convolved(x, w, layout), b, layout)), POOLS[name], layout)

    program = fl.make_program(fun)(*args)
    lowered = native.compile_native(program, pipeline.optimize(program)).lowered
    (call,) = [s for s in lowered.function.body if s.kernel.name.startswith(ONE)]
    arrays = []
    for buffer, place in zip(call.kernel.params, call.places, strict=True):
        guarded = Guarded(buffer.size, np.dtype(F32), at_end)
        if place[0] in lowered.inputs:
            guarded.array[:] = args[lowered.inputs.index(place[0])].ravel()
        arrays.append(guarded)
    run_kernel(call.kernel, [g.array for g, p in zip(arrays, call.kernel.params, strict=True) if p.role != "scratch"],
               engine.target().lanes_bytes)
    assert all(g.untouched() for g in arrays)


# --- where it is not done ---------------------------------------------------------------------------------------------


def test_what_is_read_elsewhere_is_pooled_from_memory():
    args = operands(SIZES[1])

    def fun(x, w, b):
        y = relu(biased(convolved(x, w), b))
        return pooled(y, POOLS["halved"]), y

    assert not is_one_kernel(fun, args)
    check(fun, args)


@pytest.mark.parametrize("kind", ["max", "add"])
@pytest.mark.parametrize("name", ["halved", "padded"])
def test_gradients(kind, name):
    args = operands((2, 3, 13, 15, 7, 3))

    def loss(x, w, b):
        return (pooled(fnp.tanh(biased(convolved(x, w), b)), POOLS[name], kind=kind) ** 2).sum()

    found = fl.value_and_grad(loss, argnums=(0, 1, 2))
    assert not is_one_kernel(lambda *a: found(*a), args)
    check(lambda x, w, b: (lambda v, g: (v, *g))(*found(x, w, b)), args, interpreted=False)


def test_the_gradient_of_a_linear_pool_needs_no_output_of_the_convolution():
    args = operands((2, 3, 13, 15, 7, 3))

    def loss(x, w, b):
        return (pooled(biased(convolved(x, w), b), POOLS["halved"], kind="add") ** 2).sum()

    found = fl.value_and_grad(loss, argnums=(1, 2))
    assert is_one_kernel(lambda *a: found(*a), args)
    check(lambda x, w, b: (lambda v, g: (v, *g))(*found(x, w, b)), args, interpreted=False)


def test_equal_convolutions_keep_one_kernel():
    x, w, b = operands((2, 6, 12, 12, 6, 3))

    def fun(x, w, b):
        y = relu(biased(convolved(x, w), b))
        return pooled(relu(biased(convolved(y, w), b)), POOLS["halved"])

    assert not is_one_kernel(fun, [x, w, b])
    check(fun, [x, w, b])


@pytest.mark.parametrize("settings", [((4, 4), (1, 1), ((0, 0), (0, 0))), ((3, 3), (1, 1), ((1, 1), (1, 1)))], ids=str)
def test_windows_that_overlap_much_have_a_kernel_of_their_own(settings):
    args = operands(SIZES[1])

    def fun(x, w, b):
        return pooled(relu(biased(convolved(x, w), b)), settings)

    assert not is_one_kernel(fun, args)
    check(fun, args)


def test_products_and_depthwise_convolutions_have_a_pool_after_them():
    x, w, b = floats(2, 6, 12, 12), floats(9, 6, 1, 1), floats(9)

    def product(x, w, b):
        return pooled(relu(biased(convolved(x, w, padding=((0, 0), (0, 0))), b)), POOLS["halved"])

    def depthwise(x, w, b):
        return pooled(relu(biased(convolved(x, w, feature_group_count=6), b)), POOLS["halved"])

    assert not is_one_kernel(product, [x, w, b])
    check(product, [x, w, b])
    w, b = floats(6, 1, 3, 3), floats(6)
    assert not is_one_kernel(depthwise, [x, w, b])
    check(depthwise, [x, w, b])


def test_a_pool_in_a_loop():
    x, w, b = floats(3, 2, 4, 12, 12), floats(5, 4, 3, 3), floats(5)

    def fun(x, w, b):
        return lax.scan(lambda c, x: (c, pooled(relu(biased(convolved(x, w), b)), POOLS["halved"])), F32(0), x)[1]

    check(fun, [x, w, b])

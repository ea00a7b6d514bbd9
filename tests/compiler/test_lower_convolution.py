# SPDX-License-Identifier: MIT
"""Each way to compute a convolution, made to be taken: against the eval rule and the interpreter; shared by threads."""

import ctypes
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.nodes import Function, Loop, Prefetch
from functorch_lite.compiler.loop_ir.verify import verify
from functorch_lite.compiler.lowering import convolution_filters as filters
from functorch_lite.compiler.lowering import convolution_image as image
from functorch_lite.compiler.lowering import convolution_outputs as outputs
from functorch_lite.compiler.lowering import convolution_parts as parts
from functorch_lite.compiler.lowering import convolution_pixels as pixels
from functorch_lite.compiler.lowering.contraction import bilinear_kernel
from functorch_lite.compiler.lowering.convolution import convolution_of
from functorch_lite.compiler.lowering.convolution_image import divisor, even_blocks
from functorch_lite.compiler.lowering.cutting import LOOPED
from functorch_lite.compiler.lowering.tiles import Machine
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.schedule import epilogues
from functorch_lite.compiler.schedule.parallel import accesses, every, own_buffers, shared_loops
from functorch_lite.core.aval import Aval
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.primitives.convolution import conv_general_dilated_p
from tests.compiler.guarded import Guarded
from tests.compiler.support import kernel_module, run_kernel
from tests.compiler.test_threads import compiled, floats, shares

MACHINES = (Machine(64, 32), Machine(16, 32))
RNG = np.random.default_rng(11)

WAYS = ("outputs", "outputs, several at once", "outputs, by panels", "outputs, in blocks of rows", "pixels",
        "pixels, in blocks of rows", "filters", "filters, in jobs")


def take(way: str, monkeypatch: Any) -> None:
    """Have convolutions computed in one way, with small blocks, wherever they can be."""
    monkeypatch.setattr(outputs.Outputs, "fits", lambda self: way.startswith("outputs"))
    monkeypatch.setattr(outputs.Outputs, "cost", lambda self: 0.0)
    for module in (outputs, filters):
        whole = way in ("outputs, several at once", "outputs, by panels")
        monkeypatch.setattr(module, "KERNEL_BYTES", 0 if whole else 1500)
    if way != "outputs, by panels":
        monkeypatch.setattr(outputs, "SUMS_BYTES", -1)
    for module in (image, filters):
        monkeypatch.setattr(module, "LEAST_COLUMNS", 5 if "in " in way else 128)
    monkeypatch.setattr(filters, "TURNED_BYTES", 1 << 12)
    monkeypatch.setattr(parts, "IMAGE_BYTES", 1 << 11)
    monkeypatch.setattr(parts, "BLOCK_BYTES", 1 << 11)
    monkeypatch.setattr(outputs, "BLOCK_BYTES", 2500 if "in " in way else 1 << 20)
    for module in (pixels, filters):
        monkeypatch.setattr(module, "IMAGE_BYTES", 900)
    for module in (pixels, outputs, filters, parts):
        monkeypatch.setattr(module, "WORTH", 1 if "in " in way else 1 << 60)
    for module in (outputs, filters):
        monkeypatch.setattr(module, "FETCHED_BYTES", 0 if "in " in way else 1 << 60)
    monkeypatch.setattr(outputs, "PIECE_BYTES", 1 << 10 if "in " in way else 1 << 12)


def params_of(strides, padding, lhs=None, rhs=None, groups=1, batch_groups=1) -> dict[str, Any]:
    ones = (1,) * len(strides)
    return {"strides": strides, "padding": padding, "lhs_dilation": lhs or ones, "rhs_dilation": rhs or ones,
            "groups": groups, "batch_groups": batch_groups}


def kernel_of(x, w, params, machine=MACHINES[0], layout="") -> tuple[Function, Any]:
    """The kernel of a convolution, and its output's type. layout: of the operands, see `in_memory`."""
    out = shape_rules[conv_general_dilated_p](Aval(x.shape, x.dtype), Aval(w.shape, w.dtype), **params)
    arrays = [laid_out(a, k, layout) for k, a in enumerate((x, w))]
    strides = [tuple(s // a.itemsize for s in a.strides) for a in arrays]
    problem = convolution_of(x.shape, w.shape, out.shape, *strides, **params)
    return bilinear_kernel("kernel", out.dtype, problem, (x.size, w.size, out.size), machine), out


def axes_in_memory(ndim: int, number: int, layout: str) -> tuple[int, ...]:
    """The axes of an operand, by its number, in the order in which they lie in memory."""
    spatial = range(2, ndim)
    return {"exchanged": (1, 0, *spatial), "last": (0, *spatial, 1) if number == 0 else (*spatial, 1, 0)}[layout]


def in_memory(x, number, layout):
    """An operand as it lies: with its first two axes exchanged, or with channels (of a kernel: filters) last."""
    return np.array(x.transpose(axes_in_memory(x.ndim, number, layout)), order="C") if layout else x


def laid_out(x, number, layout):
    axes = axes_in_memory(x.ndim, number, layout) if layout else range(x.ndim)
    return in_memory(x, number, layout).transpose(np.argsort(axes))


def check(x, w, params, machine=MACHINES[0], layout="") -> Function:
    """The kernel gives what the eval rule does."""
    function, aval = kernel_of(x, w, params, machine, layout)
    verify(function)
    out = np.full(aval.shape, np.nan, aval.dtype)
    memory = [in_memory(a, k, layout) for k, a in enumerate((x, w))]
    run_kernel(function, [*memory, out], machine.vector_bytes)
    expected = eval_rules[conv_general_dilated_p](np, x, w, **params)
    rtol = 1e-5 if x.dtype.itemsize // (x.dtype.kind == "c" or 1) == 4 else 1e-12
    np.testing.assert_allclose(out, expected, rtol, rtol * max(np.abs(expected).max(initial=0), np.sqrt(x.size)))
    return function


def drawn(*shape, dtype="float64"):
    return RNG.standard_normal(shape).astype(dtype)


# name: x, w, strides, padding, dilations
FORWARD: dict[str, Any] = {
    "one row": ((8, 3, 1, 9), (5, 3, 1, 3), (1, 1), ((0, 0), (1, 1))),
    "tiny": ((12, 5, 4, 4), (17, 5, 3, 3), (1, 1), ((1, 1), (1, 1))),
    "odd": ((5, 3, 7, 7), (33, 3, 3, 3), (1, 1), ((1, 1), (1, 1))),
    "wide": ((2, 2, 5, 31), (20, 2, 3, 5), (1, 1), ((1, 1), (2, 2))),
    "stride": ((6, 4, 14, 14), (18, 4, 3, 3), (2, 2), ((1, 1), (1, 1))),
    "stride of one row and column": ((6, 4, 14, 13), (18, 4, 1, 1), (2, 3), ((0, 0), (0, 0))),
    "large strided kernel": ((2, 2, 23, 23), (16, 2, 7, 7), (2, 2), ((3, 3), (3, 3))),
    "transposed": ((4, 6, 7, 7), (5, 6, 4, 4), (1, 1), ((2, 2), (2, 2)), (2, 2)),
    "transposed to an odd size": ((4, 6, 5, 4), (5, 6, 3, 3), (1, 1), ((1, 2), (1, 1)), (2, 3)),
    "dilated kernel": ((3, 4, 12, 12), (7, 4, 3, 3), (1, 1), ((2, 2), (2, 2)), None, (2, 2)),
    "cropped": ((3, 4, 12, 12), (7, 4, 3, 3), (1, 2), ((-1, -2), (-2, 3))),
    "three axes": ((2, 3, 5, 6, 7), (4, 3, 3, 2, 3), (1, 2, 1), ((1, 1), (0, 1), (1, 1))),
    "groups": ((4, 6, 6, 6), (6, 2, 3, 3), (1, 1), ((1, 1), (1, 1)), None, None, 3),
    "depthwise": ((3, 9, 8, 8), (9, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), None, None, 9),
    "groups of examples": ((6, 2, 6, 6), (6, 2, 3, 3), (1, 1), ((1, 1), (1, 1)), None, None, 1, 3),
}
GRADIENTS: dict[str, Any] = {
    "of a kernel": ((4, 12, 9, 9), (20, 12, 9, 9), (1, 1), ((1, 1), (1, 1))),
    "of a strided kernel": ((4, 6, 14, 14), (19, 6, 7, 7), (1, 1), ((1, 0), (1, 0)), None, (2, 2)),
    "of one element": ((9, 8, 10, 10), (40, 8, 5, 5), (1, 1), ((0, -1), (0, -1)), None, (2, 2)),
    "of a transposed kernel": ((7, 8, 5, 5), (6, 8, 10, 10), (1, 1), ((2, 2), (2, 2)), (2, 2)),
    "of an odd transposed kernel": ((7, 8, 5, 4), (6, 8, 11, 10), (1, 1), ((1, 3), (2, 2)), (2, 3)),
    "with one filter": ((1, 12, 20, 20), (16, 12, 20, 20), (1, 1), ((1, 1), (1, 1))),
    "with many filters": ((3, 8, 8, 8), (150, 8, 8, 8), (1, 1), ((1, 1), (1, 1))),
    "of large images": ((2, 3, 34, 30), (18, 3, 34, 30), (1, 1), ((1, 1), (1, 1))),
    "in three axes": ((3, 4, 5, 6, 7), (5, 4, 5, 6, 7), (1, 1, 1), ((1, 1), (1, 1), (1, 1))),
    "of channels in two blocks": ((3, 3, 1), (17, 3, 5), (1,), ((0, 4),)),
    "of groups": ((2, 6, 8, 8), (9, 2, 8, 8), (1, 1), ((1, 1), (1, 1)), None, None, 3),
}
CASES = FORWARD | GRADIENTS


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_every_way_gives_what_the_eval_rule_does(case, way, monkeypatch):
    take(way, monkeypatch)
    x, w, *how = CASES[case]
    for machine in MACHINES:
        check(drawn(*x, dtype="float32"), drawn(*w, dtype="float32"), params_of(*how), machine)


LONG: dict[str, Any] = {
    "long": ((2, 5, 1, 600), (18, 5, 1, 9), (1, 1), ((0, 0), (4, 4))),
    "long and strided": ((2, 5, 1, 601), (18, 5, 1, 9), (1, 3), ((0, 0), (5, 3)), None, (1, 2)),
    "long and transposed": ((2, 5, 1, 300), (18, 5, 1, 8), (1, 1), ((0, 0), (4, 4)), (1, 2)),
    "the gradient of a long kernel": ((2, 5, 1, 600), (18, 5, 1, 600), (1, 1), ((0, 0), (4, 4))),
    "depthwise, of a vector and some": ((3, 41, 9, 8), (41, 1, 3, 3), (2, 1), ((1, 1), (1, 1)), None, None, 41),
    "depthwise, of many examples": ((17, 19, 11, 7), (19, 1, 5, 3), (1, 1), ((2, 2), (1, 2)), None, None, 19),
    "depthwise, of many small examples": ((9, 16, 1, 1), (16, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), None, None, 16),
    "depthwise and transposed": ((3, 41, 9, 8), (41, 1, 4, 4), (1, 1), ((2, 2), (2, 2)), (2, 2), None, 41),
    "the gradient of a depthwise kernel": ((41, 6, 9, 8), (41, 6, 9, 8), (1, 1), ((1, 1), (1, 1)), None, None, 1, 41),
    "that of a strided one": ((41, 6, 9, 8), (41, 6, 5, 4), (1, 1), ((1, 1), (1, 1)), None, (2, 2), 1, 41),
}


@pytest.mark.parametrize("way", ["outputs, in blocks of rows", "pixels, in blocks of rows", "filters, in jobs"])
@pytest.mark.parametrize("case", LONG)
def test_long_axes_are_cut(case, way, monkeypatch):
    take(way, monkeypatch)
    x, w, *how = LONG[case]
    check(drawn(*x, dtype="float32"), drawn(*w, dtype="float32"), params_of(*how))


@pytest.mark.parametrize("way", ["outputs, by panels", "outputs, in blocks of rows", "pixels", "filters, in jobs"])
@pytest.mark.parametrize("case", CASES | LONG)
def test_channels_may_be_last(case, way, monkeypatch):
    """In the input, the kernel, and the output; or in the last alone, as in the gradient of such a kernel."""
    take(way, monkeypatch)
    x, w, *how = (CASES | LONG)[case]
    x, w, params = drawn(*x, dtype="float32"), drawn(*w, dtype="float32"), params_of(*how)
    spatial = range(2, x.ndim)
    check(x, w, {**params, "order": (0, *spatial, 1)}, layout="last")
    check(x, w, {**params, "order": (*spatial, 0, 1)})
    check(x, w, {**params, "order": (1, 0, *spatial)}, MACHINES[1])


OF_PARTS: dict[str, Any] = {
    "strides": ((3, 64, 9, 8), (64, 1, 3, 3), (2, 1), ((1, 1), (1, 1)), None, None, 64),
    "transposed": ((3, 48, 9, 8), (48, 1, 4, 4), (1, 1), ((2, 2), (2, 2)), (2, 2), None, 48),
    "channels of a part": ((2, 64, 7, 7), (64, 2, 3, 3), (1, 1), ((1, 1), (1, 1)), None, None, 32),
    "one axis": ((2, 208, 30), (208, 1, 4), (1,), ((3, 0),), None, None, 208),
    "a single output": ((2, 96, 3, 3), (96, 1, 3, 3), (1, 1), ((0, 0), (0, 0)), None, None, 96),
}


@pytest.mark.parametrize("case", OF_PARTS)
def test_parts_go_in_blocks_of_vectors(case, monkeypatch):
    x, w, *how = OF_PARTS[case]
    x, w, params = drawn(*x, dtype="float32"), drawn(*w, dtype="float32"), params_of(*how)
    params = {**params, "order": (0, *range(2, x.ndim), 1)}
    for most in (1 << 30, 0):
        monkeypatch.setattr(parts, "NEAR_BYTES", most)
        for machine in MACHINES:
            check(x, w, params, machine, layout="last")
            check(x, w, params, machine, layout="exchanged")


@pytest.mark.parametrize("way", ["outputs, in blocks of rows", "pixels"])
@pytest.mark.parametrize("case", FORWARD | LONG | {"gradient": GRADIENTS["of a kernel"]})
def test_a_kernel_may_be_read_backwards(case, way, monkeypatch):
    take(way, monkeypatch)
    x, w, *how = (CASES | LONG | {"gradient": GRADIENTS["of a kernel"]})[case]
    x, w, params = drawn(*x, dtype="float32"), drawn(*w, dtype="float32"), params_of(*how)
    check(x, w, {**params, "flipped": tuple(range(2, x.ndim))})
    check(x, w, {**params, "flipped": (x.ndim - 1,)}, layout="last")


@pytest.mark.parametrize("case", ["transposed", "groups", "of a kernel", "of a transposed kernel"])
@pytest.mark.parametrize("way", WAYS)
def test_operands_may_lie_in_another_order_and_be_complex(case, way, monkeypatch):
    take(way, monkeypatch)
    x, w, *how = CASES[case]
    check(drawn(*x), drawn(*w), params_of(*how), layout="exchanged")
    check(drawn(*x) + 1j * drawn(*x), drawn(*w) - 1j * drawn(*w), params_of(*how))


@st.composite
def convolutions(draw):
    """Convolutions over one to three axes, with every setting."""
    n = draw(st.integers(1, 3))
    numbers = [[draw(st.integers(1, most)) for _ in range(n)] for most in (20 if n < 3 else 7, 5, 3, 3, 3)]
    size, window, strides, lhs, rhs = map(tuple, numbers)
    padding = tuple((draw(st.integers(-1, 3)), draw(st.integers(0, 3)) + r * k)
                    for r, k in zip(rhs, window, strict=True))
    parts, kind = draw(st.integers(1, 3)), draw(st.sampled_from(("groups", "batch_groups")))
    examples, channels = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    x = examples * (parts if kind == "batch_groups" else 1), channels * (parts if kind == "groups" else 1), *size
    w = draw(st.integers(1, 20)) * parts, channels, *window
    return x, w, params_of(strides, padding, lhs, rhs, **{kind: parts})


@given(convolutions(), st.sampled_from(WAYS), st.sampled_from(MACHINES))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_random_convolutions_in_every_way(case, way, machine):
    x, w, params = case
    with pytest.MonkeyPatch.context() as patch:
        take(way, patch)
        check(drawn(*x), drawn(*w), params, machine)


@pytest.mark.parametrize(("case", "way"), [("tiny", "outputs"), ("transposed", "outputs, several at once"),
                                           ("odd", "outputs, in blocks of rows"),
                                           ("three axes", "outputs, in blocks of rows"),
                                           ("one row", "pixels"), ("transposed", "pixels, in blocks of rows"),
                                           ("of one element", "filters, in jobs")])
def test_the_interpreter_agrees(case, way, monkeypatch):
    take(way, monkeypatch)
    x, w, *how = CASES[case]
    x, w = drawn(2, *x[1:]), drawn(*w)
    function, aval = kernel_of(x, w, params_of(*how))
    out = np.full(aval.shape, np.nan)
    interpret(function, [x, w, out, *(np.full(b.size, np.nan) for b in function.scratch)])
    np.testing.assert_allclose(out, eval_rules[conv_general_dilated_p](np, x, w, **params_of(*how)), 1e-12, 1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_no_way_reads_or_writes_beside_its_arrays(way, monkeypatch):
    """Working space included: all arrays end, or begin, at a page that faults."""
    take(way, monkeypatch)
    for case in ("odd", "stride", "transposed", "cropped", "of a strided kernel", "of an odd transposed kernel", "long",
                 "long and strided"):
        x, w, *how = (CASES | LONG)[case]
        check_guarded(x, w, params_of(*how))


@pytest.mark.parametrize("case", ["odd", "stride", "transposed", "of a strided kernel", *LONG])
def test_none_does_where_channels_are_last_and_kernels_read_backwards(case, monkeypatch):
    take("outputs, in blocks of rows", monkeypatch)
    x, w, *how = (CASES | LONG)[case]
    check_guarded(x, w, {**params_of(*how), "order": (0, *range(2, len(x)), 1), "flipped": (2, 3)}, "last")
    check_guarded(x, w, {**params_of(*how), "order": (0, *range(2, len(x)), 1)}, "last")


def check_guarded(x, w, params, layout=""):
    """The kernel of a convolution, on arrays with pages beside them that fault."""
    x, w = drawn(*x, dtype="float32"), drawn(*w, dtype="float32")
    function, _ = kernel_of(x, w, params, layout=layout)
    expected = eval_rules[conv_general_dilated_p](np, x, w, **params)
    memory = [in_memory(a, k, layout) for k, a in enumerate((x, w))]
    for at_end in (True, False):
        arrays = [Guarded(b.size, np.dtype(np.float32), at_end) for b in function.params]
        arrays[0].array[:], arrays[1].array[:] = memory[0].ravel(), memory[1].ravel()
        run_with_working_space(function, [g.array for g in arrays])
        assert all(g.untouched() for g in arrays)
        np.testing.assert_allclose(arrays[2].array.reshape(expected.shape), expected, 1e-5, 1e-4)


def run_with_working_space(function, arrays):
    """Run a kernel whose working space is given too."""
    loaded = engine.load(kernel_module(function, 64, True), cache=False)
    places = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
    ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(loaded.address("entry"))(ctypes.addressof(places))


# --- what tiles fetch, and where they leave sums ----------------------------------------------------------------------


def fetches(function: Function) -> set[str]:
    """The arrays of which a kernel fetches something."""
    return {s.buffer.name for s in every(function.body) if isinstance(s, Prefetch)}


def test_tiles_fetch_the_lines_of_their_outputs_and_the_next_image_of_large_arrays_only(monkeypatch):
    monkeypatch.setattr(outputs.Outputs, "cost", lambda self: 0.0)
    params = params_of((1, 1), ((1, 1), (1, 1)))
    for examples, found in ((2, set()), (20, {"x", "out"})):
        x, w = floats(examples, 32, 32, 32), floats(32, 32, 3, 3)
        assert fetches(kernel_of(x, w, params)[0]) == found
        assert not fetches(kernel_of(x, w, params, Machine(64, 32, LOOPED))[0])


def test_tiles_of_a_kernels_gradient_fetch_the_next_channels_and_images_of_large_arrays_only():
    for examples, found in ((2, set()), (6, {"x", "y"})):
        x, w = floats(64, examples, 32, 32), floats(64, examples, 32, 32)
        assert fetches(kernel_of(x, w, params_of((1, 1), ((1, 1), (1, 1))))[0]) == found


@pytest.mark.parametrize(("columns", "outputs_at_once"), ((32, 32), (56, 56), (300, 30), (14, 28), (8, 32)))
def test_few_outputs_at_a_time_are_put_in_order(columns, outputs_at_once, monkeypatch):
    """So many for each of 32 filters are in working space: rows, or tiles of long ones."""
    monkeypatch.setattr(outputs.Outputs, "cost", lambda self: 0.0)
    x, w = floats(2, 16, 8, columns), floats(32, 16, 3, 3)
    function, aval = kernel_of(x, w, params_of((1, 1), ((1, 1), (1, 1))))
    (sums,) = [b for b in function.scratch if b.name == "sums"]
    assert sums.size == outputs_at_once * 32
    out = np.empty(aval.shape, np.float32)
    run_kernel(function, [x, w, out], 64)
    expected = eval_rules[conv_general_dilated_p](np, x, w, **params_of((1, 1), ((1, 1), (1, 1))))
    np.testing.assert_allclose(out, expected, 1e-4, 1e-4)


def test_channels_of_a_row_lie_side_by_side_where_a_tile_goes_from_one_to_the_next():
    """That is, where its taps are written out: nine of eight outputs, not of ten."""
    for columns, is_so in ((32, True), (20, False)):
        problem = convolution_of((2, 16, 8, columns), (32, 16, 3, 3), (2, 32, 8, columns), (128 * columns, 8 * columns,
                                 columns, 1), (144, 9, 3, 1), **params_of((1, 1), ((1, 1), (1, 1))))
        b = Builder("kernel")
        x, w = b.input("x", "f32", 256 * columns), b.input("w", "f32", 32 * 144)
        way = outputs.Outputs(b, MACHINES[0], problem, x, w, b.output("out", "f32", 512 * columns))
        way.write()
        assert (way.image.strides[0] > way.image.of_channels[1]) == is_so


# --- epilogues ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [w for w in WAYS if not w.startswith("filters")])
@pytest.mark.parametrize("case", FORWARD)
def test_what_follows_element_by_element_is_in_the_same_kernel(case, way, monkeypatch):
    take(way, monkeypatch)
    monkeypatch.setattr(epilogues, "LEAST", 1)
    x, w, *how = FORWARD[case]
    params, x, w = params_of(*how), floats(*x), floats(*w)

    def convolve(x, w):
        return fl.core.tracer.bind1(conv_general_dilated_p, x, w, **params)

    def fused(x, w, bias, residual):
        y = convolve(x, w) + bias
        return np.maximum(y, np.float32(0)), y * residual

    with fl.config(cache_dir=""):
        y = fl.jit(convolve)(x, w)
        bias, residual = floats(y.shape[1], *[1] * (y.ndim - 2)), floats(*y.shape)
        f = fl.jit(fused)
        assert len(f.lower(x, w, bias, residual).as_text("schedule").splitlines()) == 1
        found = f(x, w, bias, residual)
    for a, b in zip(found, (np.maximum(y + bias, 0), (y + bias) * residual), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", ["tiny", "wide", "stride", "transposed", "three axes", "depthwise", "many channels"])
def test_what_follows_channels_last_is_in_the_same_kernel(case, monkeypatch):
    many: Any = ((3, 40, 8, 8), (40, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), None, None, 40)
    x, w, *how = (FORWARD | {"many channels": many})[case]
    monkeypatch.setattr(epilogues, "LEAST", 1)
    params, n = params_of(*how), len(x) - 2
    x, w = floats(x[0], *x[2:], x[1]), floats(*w[2:], w[1], w[0])
    letters = "DHW"[3 - n :]

    def convolve(x, w):
        return fl.lax.conv_general_dilated(
            x, w, params["strides"], params["padding"], lhs_dilation=params["lhs_dilation"],
            feature_group_count=params["groups"], dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"))

    def fused(x, w, bias, residual):
        y = convolve(x, w) + bias
        return np.maximum(y, np.float32(0)), y * residual

    with fl.config(cache_dir=""):
        y = fl.jit(convolve)(x, w)
        bias, residual = floats(y.shape[-1]), floats(*y.shape)
        f = fl.jit(fused)
        assert len(f.lower(x, w, bias, residual).as_text("schedule").splitlines()) == 1
        found = f(x, w, bias, residual)
    np.testing.assert_allclose(y, convolve(x, w), 1e-4, 1e-4)
    for a, b in zip(found, (np.maximum(y + bias, 0), (y + bias) * residual), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("x", "w", "mask"), [((4, 8, 9, 9), (24, 8, 3, 3), (4, 24, 9, 9)),
                                              ((4, 12, 9, 9), (20, 12, 9, 9), (4, 20, 3, 3))])
def test_what_cannot_go_over_blocks_goes_over_all(x, w, mask, monkeypatch):
    """A chain that adds into memory, and one after a kernel's gradient."""
    monkeypatch.setattr(epilogues._Finder, "_suits", lambda self, product, group: True)
    x, w, mask = floats(*x), floats(*w), floats(*mask)

    def fun(x, w, mask):
        y = fl.lax.conv_general_dilated(x, w, (1, 1), [(1, 1)] * 2) * mask
        return y, y.sum(0)

    with fl.config(cache_dir=""):
        f = fl.jit(fun)
        assert len(f.lower(x, w, mask).as_text("schedule").splitlines()) == 1
        y, total = f(x, w, mask)
    expected = fl.lax.conv_general_dilated(x, w, (1, 1), [(1, 1)] * 2) * mask
    np.testing.assert_allclose(y, expected, 1e-4, 1e-4)
    np.testing.assert_allclose(total, expected.sum(0), 1e-4, 1e-4)


# --- jobs -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 100))
def test_blocks_cover_everything_and_are_even_where_that_is_possible(n, most):
    assert n % divisor(n, most) == 0 and divisor(n, most) <= most
    found = even_blocks(n, most)
    assert sum(c.count * c.size for c in found) == n and max(c.size for c in found) <= most


SHARED: dict[str, Any] = {
    "many examples": ((32, 16, 28, 28), (16, 16, 3, 3), (1, 1), ((1, 1), (1, 1))),
    "small examples": ((64, 64, 7, 7), (64, 64, 3, 3), (1, 1), ((1, 1), (1, 1))),
    "one large example": ((1, 32, 90, 90), (32, 32, 3, 3), (1, 1), ((1, 1), (1, 1))),
    "one example in three axes": ((1, 8, 24, 24, 24), (16, 8, 3, 3, 3), (1, 1, 1), ((1, 1), (1, 1), (1, 1))),
    "large kernels": ((16, 256, 4, 4), (256, 256, 3, 3), (1, 1), ((1, 1), (1, 1))),
    "strided": ((32, 16, 28, 28), (32, 16, 3, 3), (2, 2), ((1, 1), (1, 1))),
    "transposed": ((32, 32, 14, 14), (16, 32, 4, 4), (1, 1), ((2, 2), (2, 2)), (2, 2)),
    "a kernel's gradient": ((16, 64, 28, 28), (16, 64, 28, 28), (1, 1), ((1, 1), (1, 1))),
    "a large kernel's gradient": ((64, 16, 16, 16), (256, 16, 16, 16), (1, 1), ((1, 1), (1, 1))),
    "a transposed kernel's gradient": ((64, 32, 7, 7), (32, 32, 14, 14), (1, 1), ((2, 2), (2, 2)), (2, 2)),
    "a depthwise kernel's gradient": ((64, 16, 28, 28), (64, 16, 28, 28), (1, 1), ((1, 1), (1, 1)), None, None, 1,
                                      64),
}


@pytest.mark.parametrize("case", SHARED)
def test_the_loop_around_all_work_is_shared(case):
    """All loops are of jobs with working space of their own, but those that copy the kernel or add up sums of jobs."""
    x, w, *how = SHARED[case]
    function, _ = kernel_of(np.empty(x, np.float32), np.empty(w, np.float32), params_of(*how))
    assert shared_loops(function)
    writing = [s for s in function.body if isinstance(s, Loop) and any(
        a.writes and a.buffer.role == "out" for t in every([s]) for a in accesses(t))]
    assert writing and all(own_buffers(s, function) is not None for s in writing)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pools are for Linux")
@pytest.mark.parametrize("case", ["many examples", "small examples", "one large example", "a kernel's gradient"])
def test_any_number_of_threads_gives_the_same_bits(case):
    x, w, strides, padding = SHARED[case]

    def fun(x, w):
        return fl.lax.conv_general_dilated(x, w, strides, padding)

    first = None
    for number in (1, 2, 4):
        executable = compiled(fun, floats(*x), floats(*w), number=number)
        assert shares(executable)
        for _ in range(2):
            found = np.asarray(executable(floats(*x), floats(*w))[0]).tobytes()
            first = first or found
            assert found == first


LAST: dict[str, Any] = {
    "channels": ((16, 28, 28, 16), (3, 3, 16, 32), 1),
    "depthwise": ((16, 28, 28, 40), (3, 3, 1, 40), 40),
    "depthwise, in blocks of parts": ((8, 14, 14, 320), (5, 5, 1, 320), 320),
    "few outputs of a large kernel": ((8, 7, 7, 256), (3, 3, 256, 256), 1),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pools are for Linux")
@pytest.mark.parametrize("case", LAST)
def test_any_number_of_threads_gives_the_same_bits_where_channels_are_last(case):
    """The convolution, and both of its gradients."""
    x, w, groups = LAST[case]

    def fun(x, w):
        def convolve(x, w):
            return fl.lax.conv_general_dilated(
                x, w, (1, 1), [(1, 1)] * 2, feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"))

        y, pull = fl.vjp(convolve, x, w)
        return y, *pull(y)

    first = None
    for number in (1, 2, 4):
        executable = compiled(fun, floats(*x), floats(*w), number=number)
        assert shares(executable)
        found = [np.asarray(a).tobytes() for a in executable(floats(*x), floats(*w))]
        first = first or found
        assert found == first

# SPDX-License-Identifier: MIT
"""Code written for LLVM's fast instruction selection: the same bits as the usual code; and conditions noted as bits."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import functorch_lite as fl
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.numpy_ops import DTYPES
from functorch_lite.compiler.loop_ir.verify import verify
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.compiler.runtime.tiers import improver
from tests.compiler.random_kernels import random_cases, some_numbers
from tests.compiler.support import kernel_module, run_kernel

LANES_BYTES = (64, 32, 16)
SIZES = (2, 4, 5, 8, 16, 37, 100, 128, 203)


def both(function, arrays, lanes_bytes):
    """The arrays after the usual code, and after the quick one."""
    usual, quick = ([a.copy() for a in arrays] for _ in range(2))
    assert run_kernel(function, usual, lanes_bytes) == run_kernel(function, quick, lanes_bytes, quick=True)
    return usual, quick


@given(random_cases())
@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))
def test_random_kernels_have_the_same_bits(case):
    for a, b in zip(*both(case.function, case.arrays, 64), strict=True):
        if a.dtype.kind not in "biu":  # bfloat16, too
            a, b = a.astype("f8"), b.astype("f8")
            np.testing.assert_array_equal(np.signbit(np.nan_to_num(a)), np.signbit(np.nan_to_num(b)))
        np.testing.assert_array_equal(a, b)


def reduction(kind, combine, n, start):
    b = Builder("kernel")
    x, out = b.input("x", kind, n), b.output("out", kind, 1)
    total = b.reduce(n, [b.constant(start, kind)], lambda i, a: [b.op(combine, a, b.load(x, i))], combine=[combine],
                     vector=True)
    b.store(out, 0, total[0])
    return b.finish()


ARITHMETIC, BITWISE = ("add", "mul", "max", "min"), ("and", "or")
REDUCTIONS = [(kind, combine) for kind in ("f16", "f32", "f64", "i8", "i32", "u64")
              for combine in ARITHMETIC + BITWISE * (kind[0] != "f")]


@pytest.mark.parametrize(("kind", "combine"), REDUCTIONS)
def test_reductions_have_the_same_bits(kind, combine):
    rng = np.random.default_rng(0)
    for n in SIZES:
        x = some_numbers(rng, kind, n)
        if kind[0] == "f":
            x[::3] = -0.0
            if n > 30:
                x[7] = np.nan
        function = reduction(kind, combine, n, 0 if n % 2 else 1)
        verify(function)
        for lanes_bytes in (64, 16):
            usual, quick = both(function, [x, np.empty(1, DTYPES[kind])], lanes_bytes)
            assert usual[1].tobytes() == quick[1].tobytes() or (np.isnan(usual[1]).all() and np.isnan(quick[1]).all())


@pytest.mark.parametrize("combine", ["max", "min"])
@pytest.mark.parametrize("start", [np.inf, -np.inf])
def test_extremes_from_an_infinity(combine, start):
    for pair in ((-np.inf, -np.inf), (np.inf, np.inf), (1.5, np.nan), (-0.0, -0.0)):
        x, expected = np.array(pair * 10, "f4"), np.empty(1, "f4")
        function = reduction("f32", combine, 20, start)
        interpret(function, [x, expected])
        for found in both(function, [x, np.empty(1, "f4")], 64):
            assert found[1].tobytes() == expected.tobytes() or (np.isnan(found[1][0]) and np.isnan(expected[0]))


def test_quickly_made_sums_have_no_shuffles():
    function = reduction("f32", "add", 96, 0)
    assert "shufflevector" in kernel_module(function)
    quick = kernel_module(function, quick=True)
    assert "shufflevector" not in quick and "phi <16 x float> [splat" not in quick


def test_quickly_made_arithmetic_loads_its_constants_once():
    b = Builder("kernel")
    x, out = b.input("x", "f32", 1000), b.output("out", "f32", 1000)
    one, three = b.constant(1, "f32"), b.constant(3, "f32")
    with b.loop(1000, vector=True) as i:
        b.store(out, i, b.op("add", b.op("mul", b.op("sub", b.load(x, i), one), three), one))
    function = b.finish()
    quick = kernel_module(function, quick=True)
    assert "splat (float" in kernel_module(function)
    assert not [line for line in quick.splitlines() if " = f" in line and "splat" in line]
    assert quick.count("load <16 x float>, ptr @constant") == 2
    for lanes_bytes in LANES_BYTES:
        usual, other = both(function, [np.linspace(-1, 1, 1000, dtype=np.float32), np.empty(1000, "f4")], lanes_bytes)
        assert usual[1].tobytes() == other[1].tobytes()


def test_quickly_made_strided_loads_are_gathers():
    b = Builder("kernel")
    x, out = b.input("x", "f32", 48), b.output("out", "f32", 16)
    with b.loop(16, vector=True) as i:
        b.store(out, i, b.load(x, i * 3 + 1))
    function = b.finish()
    assert "masked.gather" in kernel_module(function, quick=True) and "masked.gather" not in kernel_module(function)
    given = np.arange(48, dtype="f4")
    for lanes_bytes in LANES_BYTES:
        for found in both(function, [given, np.empty(16, "f4")], lanes_bytes):
            np.testing.assert_array_equal(found[1], given[1::3])


@pytest.mark.parametrize("op", [np.sum, np.max, np.prod, np.mean, np.var])
def test_the_first_call_and_later_ones_agree_to_the_bit(op):
    objects.forget()
    x = np.random.default_rng(0).standard_normal((7, 300), dtype=np.float32)
    f = fl.jit(lambda x: op(x, axis=1))
    first = f(x)
    executable = next(reversed(f._cache.values())).executable
    assert executable.is_quick and executable.alone
    f(x)
    improver.finish()
    assert not executable.is_quick and f(x).tobytes() == first.tobytes()


# --- conditions as bits -----------------------------------------------------------------------------------------------


def noted(n, kind, start, more=False):
    """out[0]: which of x are above 0, as bits, beside those of `start`. more: the condition has another use, too."""
    b = Builder("kernel")
    x, out, copy = b.input("x", "f32", n), b.output("out", kind, 1), b.output("copy", "bool", n)
    one, none = b.constant(1, kind), b.constant(0, kind)

    def look(i, found):
        above = b.op("gt", b.load(x, i), b.constant(0.0, "f32"))
        if more:
            b.store(copy, i, above)
        return [b.op("or", found, b.op("select", above, b.op("shl", one, b.value_of(i, kind)), none))]

    b.store(out, 0, b.reduce(n, [b.constant(start, kind)], look, combine=["or"], vector=True)[0])
    return b.finish()


@pytest.mark.parametrize("kind", ["i32", "u64"])
@pytest.mark.parametrize("n", [2, 3, 8, 16, 31])
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("more", [False, True])
def test_conditions_are_noted_as_bits(kind, n, start, more):
    x = np.random.default_rng(n).standard_normal(n).astype("f4")
    function = noted(n, kind, start, more)
    verify(function)
    expected = sum(1 << i for i in range(n) if x[i] > 0) | start
    given = [x, np.zeros(1, DTYPES[kind]), np.zeros(n, bool)]
    interpreted = [a.copy() for a in given]
    interpret(function, interpreted)
    assert int(interpreted[1][0]) == expected
    for lanes_bytes in LANES_BYTES:
        for found in both(function, given, lanes_bytes):
            assert int(found[1][0]) == expected
            np.testing.assert_array_equal(found[2], (x > 0) & more)


def test_bits_are_not_made_lane_by_lane():
    text = kernel_module(noted(16, "i32", 0))
    assert "bitcast <16 x i1>" in text and "shl <16" not in text

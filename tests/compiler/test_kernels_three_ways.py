# SPDX-License-Identifier: MIT
"""Kernels run three ways: by the verifier's rules, by the interpreter, and compiled.

Random ones, and ones of every size on arrays between pages that fault, so that no masked or gathered access strays.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.nodes import Index
from functorch_lite.compiler.loop_ir.numpy_ops import DTYPES
from functorch_lite.compiler.loop_ir.printer import function_text
from functorch_lite.compiler.loop_ir.verify import verify
from tests.compiler.guarded import Guarded
from tests.compiler.random_kernels import KINDS, Case, random_cases, some_numbers
from tests.compiler.support import run_kernel

LANES_BYTES = (64, 32, 16)
EPSILON = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52}


def copies(arrays):
    return [a.copy() for a in arrays]


def same(a, b):
    """Equal to the bit, but that all NaN are the same."""
    if a.dtype.kind in "biu":
        return np.array_equal(a, b)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    return np.array_equal(wide_a, wide_b, equal_nan=True) and np.array_equal(
        np.signbit(wide_a)[~np.isnan(wide_a)], np.signbit(wide_b)[~np.isnan(wide_b)])


def close(a, b, magnitude, kind, terms):
    """Sums of the same terms in two orders; where the magnitudes overflow, anything goes."""
    a, b, magnitude = (x.astype(np.float64) for x in (a, b, magnitude))
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= 2 * terms * EPSILON[kind] * magnitude
    return np.all(near | (a == b) | ~np.isfinite(magnitude))


def check(case: Case, lanes_bytes):
    expected, found = copies(case.arrays), copies(case.arrays)
    status = interpret(case.function, expected)
    assert run_kernel(case.function, found, lanes_bytes) == status
    sums = {k: (magnitude, terms) for k, magnitude, terms in case.sums}
    magnitudes = {magnitude for _, magnitude, _ in case.sums}
    for k, buffer in enumerate(case.function.params):
        a, b = expected[k], found[k]
        if k in sums:
            magnitude, terms = sums[k]
            assert close(a, b, expected[magnitude], buffer.kind, terms), f"{buffer!r}: {a} {b}"
        elif k in magnitudes:
            assert close(a, b, a, buffer.kind, 2 * max(t for _, t in sums.values())), f"{buffer!r}: {a} {b}"
        else:
            assert a.dtype == DTYPES[buffer.kind]
            assert same(a, b), f"{buffer!r}:\n{a}\n{b}\n{function_text(case.function)}"


@given(random_cases())
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_kernels_compute_what_the_interpreter_does(case):
    verify(case.function)
    for lanes_bytes in LANES_BYTES:
        check(case, lanes_bytes)


# --- every operation on every pair of numbers at the ends of its kind -----------------------------------------------

UNARY = {"float": ("neg", "abs", "sqrt", "floor", "ceil", "trunc", "round", "is_nan", "is_finite"), "bool": ("not",),
         "integer": ("neg", "abs", "not")}
BINARY = {
    "float": ("add", "sub", "mul", "div", "max", "min", "eq", "ne", "lt", "le", "gt", "ge", "rem"),
    "bool": ("add", "sub", "mul", "div", "rem", "max", "min", "and", "or", "xor", "eq", "ne", "lt", "le", "gt", "ge",
             "shl", "shr"),
    "integer": ("add", "sub", "mul", "div", "rem", "max", "min", "and", "or", "xor", "shl", "shr", "eq", "ne", "lt",
                "le", "gt", "ge"),
}


def ends_of(kind):
    """Numbers at which operations of a kind turn."""
    dtype = DTYPES[kind]
    if kind == "bool":
        return np.array([False, True])
    if family(kind) == "float":
        numbers = [0.0, 0.5, 1.0, 1.5, 2.5, 3.1, 127.5, 255.0, 256.0, 65504.0, 65520.0, 2.0**31, 2.0**31 - 1, 2.0**32,
                   2.0**63, 2.0**64, 3e38, 1e300, 1e-40, 6e-8, np.inf, np.nan]
        with np.errstate(over="ignore"):
            return np.array([*numbers, *(-n for n in numbers)]).astype(dtype)
    info = np.iinfo(dtype)
    numbers = [0, 1, 2, 3, 7, 8, 9, 31, 32, 63, 64, info.max, info.max - 1, info.max // 2]
    return np.array([*numbers, *((info.min, info.min + 1, -1, -3) if info.min else (info.max // 2 + 1,))], dtype)


def family(kind):
    return "float" if kind in EPSILON else kind if kind == "bool" else "integer"


def check_same(function, arrays):
    verify(function)
    expected = copies(arrays)
    interpret(function, expected)
    for lanes_bytes in LANES_BYTES:
        found = copies(arrays)
        run_kernel(function, found, lanes_bytes)
        for buffer, a, b in zip(function.params, expected, found, strict=True):
            assert same(a, b), f"{buffer!r}: {[*zip(arrays[0], arrays[-1], a, b, strict=False)]}"


@pytest.mark.parametrize("kind", KINDS)
def test_operations_on_pairs(kind):
    ends = ends_of(kind)
    first, second = (a.reshape(-1) for a in np.meshgrid(ends, ends))
    b, n = Builder("kernel"), first.size
    x, y = b.input("x", kind, n), b.input("y", kind, n)
    arrays = [first, second]
    with b.loop(n, vector=True) as i:
        p, q = b.load(x, i), b.load(y, i)
        values = {name: b.op(name, p) for name in UNARY[family(kind)]}
        values |= {name: b.op(name, p, q) for name in BINARY[family(kind)]}
        values["select"] = b.op("select", b.op("lt", p, q), p, q)
        for name, value in values.items():
            b.store(b.output(f"of_{name}", value.kind, n), i, value)
            arrays.append(np.zeros(n, DTYPES[value.kind]))
    check_same(b.finish(), arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_operations_with_a_constant(kind):
    """What a constant operand lets a target write in another way."""
    numbers = ends_of(kind)
    b, n = Builder("kernel"), numbers.size
    x = b.input("x", kind, n)
    arrays = [numbers]
    with b.loop(n, vector=True) as i:
        for k, number in enumerate([*numbers.tolist(), *((0.1, 1 / 3) if family(kind) == "float" else ())]):
            for name in BINARY[family(kind)]:
                value = b.op(name, b.load(x, i), b.constant(number, kind))
                b.store(b.output(f"of_{name}_{k}", value.kind, n), i, value)
                arrays.append(np.zeros(n, DTYPES[value.kind]))
    check_same(b.finish(), arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_conversions_to_all_kinds(kind):
    numbers = ends_of(kind)
    b, n = Builder("kernel"), numbers.size
    x = b.input("x", kind, n)
    arrays = [numbers]
    with b.loop(n, vector=True) as i:
        for target in KINDS:
            b.store(b.output(f"to_{target}", target, n), i, b.op("convert", b.load(x, i), kind=target))
            arrays.append(np.zeros(n, DTYPES[target]))
    check_same(b.finish(), arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_reductions_of_every_extent(kind):
    """Sums below 256, so that no order of adding rounds; what a lane beyond the end would add is not zero."""
    b = Builder("kernel")
    x = b.input("x", kind, 40)
    numbers = np.random.default_rng(1).choice(np.array([1, 2, 3]), 40).astype(DTYPES[kind])
    names = ("add", "max", "min") if family(kind) == "float" else ("add", "mul", "max", "min", "and", "or", "xor")
    arrays = [numbers]
    for extent in (2, 3, 5, 8, 15, 16, 17, 33):
        for name in names:
            def body(i, total, name=name):
                return [b.op(name, b.op("add", b.load(x, i), b.load(x, 0)), total)]

            [total] = b.reduce(extent, [b.load(x, 39)], body, combine=[name], vector=True)
            b.store(b.output(f"{name}_{extent}", kind, 1), 0, total)
            arrays.append(np.zeros(1, DTYPES[kind]))
    check_same(b.finish(), arrays)


# --- nothing outside the arrays is touched --------------------------------------------------------------------------

SIZES = (0, 1, 2, 3, 15, 16, 17, 31, 33, 64, 127)


def elementwise(b, kind, n, x, at, out):
    with b.loop(n, vector=True) as i:
        b.store(out, i, b.op("max", b.load(x, i), b.load(x, i * -1 + (n - 1))))


def gather(b, kind, n, x, at, out):
    with b.loop(n, vector=True) as i:
        b.store(out, i, b.load(x, Index.of(b.load(at, i))))


def scatter(b, kind, n, x, at, out):
    with b.loop(n, vector=True) as i:
        b.store(out, Index.of(b.load(at, i)), b.load(x, i))


def strided(b, kind, n, x, at, out):
    half = (n + 1) // 2
    with b.loop(half, vector=True) as i:
        b.store(out, i * 2, b.load(x, i * -2 + 2 * (half - 1)))


def maximum(b, kind, n, x, at, out):
    first = b.load(x, 0)
    [most] = b.reduce(n, [first], lambda i, most: [b.op("max", most, b.load(x, i))], combine=["max"], vector=True)
    b.store(out, n - 1, most)


def copied(b, kind, n, x, at, out):
    b.fill(out, n)
    b.copy(out, x, n)
    b.fill(out, n // 2)
    b.copy(out, x, 1, at=Index(n - 1))


def in_rows(b, kind, n, x, at, out):
    """A vector loop inside another loop, whose last row ends where the array does."""
    columns = next(c for c in (31, 17, 5, 3, 2, 1) if n % c == 0)
    with b.loop(n // columns) as i, b.loop(columns, vector=True) as j:
        b.store(out, i * columns + j, b.load(x, i * columns + j))


GUARDED = [elementwise, gather, scatter, strided, maximum, copied, in_rows]


def guarded_kernel(body, n):
    """The kernel that does the same for each kind, and what it runs on."""
    b, random = Builder("kernel"), np.random.default_rng(n)
    at = b.input("at", "i32", n)
    numbers = [random.permutation(n).astype(np.int32)]
    for kind in KINDS:
        x, out = b.input(f"x_{kind}", kind, n), b.output(f"out_{kind}", kind, n)
        numbers += [some_numbers(random, kind, n), some_numbers(random, kind, n)]
        if n:
            body(b, kind, n, x, at, out)
    return b.finish(), numbers


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("body", GUARDED)
def test_nothing_outside_the_arrays_is_touched(body, n):
    function, numbers = guarded_kernel(body, n)
    verify(function)
    expected = copies(numbers)
    interpret(function, expected)
    for lanes_bytes in LANES_BYTES:
        for at_end in (True, False):
            places = [Guarded(a.size, a.dtype, at_end) for a in numbers]
            for place, a in zip(places, numbers, strict=True):
                place.array[:] = a
            run_kernel(function, [p.array for p in places], lanes_bytes)
            assert all(p.untouched() for p in places)
            assert all(_same_numbers(p.array, a) for p, a in zip(places, expected, strict=True))


def _same_numbers(a, b):
    return np.array_equal(a.astype(np.float64), b.astype(np.float64), equal_nan=True)


@pytest.mark.parametrize("count", [0, 1, 16])
def test_a_loop_of_an_extent_in_data_touches_no_more(count):
    b = Builder("kernel")
    n, x, out = b.input("n", "i64", 1), b.input("x", "f32", count), b.output("out", "f32", count)
    with b.loop(b.load(n, 0)) as i:
        b.store(out, i, b.load(x, i))
    places = [Guarded(1, np.dtype(np.int64), True), *(Guarded(count, np.dtype(np.float32), True) for _ in range(2))]
    places[0].array[:] = count
    places[1].array[:] = np.arange(count)
    assert run_kernel(b.finish(), [p.array for p in places]) == 0
    assert np.array_equal(places[2].array, np.arange(count)) and places[2].untouched()

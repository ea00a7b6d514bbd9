# SPDX-License-Identifier: MIT
"""Element-wise lowerings against the eval rules: every record, every dtype, sizes, and the values at the boundaries."""

import importlib

import ml_dtypes
import numpy as np
import pytest

from functorch_lite.compiler.lowering.rules import elementwise_rules
from functorch_lite.core.aval import Aval
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.errors import DTypeError, MissingRuleError
from functorch_lite.primitives import casts, comparison, complex_parts, elementwise, random_bits, rounding, special
from functorch_lite.primitives import transcendental as functions
from tests.compiler.equations import case, cases_of, check_all, run_all
from tests.compiler.support import run_rule
from tests.laws.test_eval import cast

for _family in ("comparison", "casts", "rounding", "complex_parts", "transcendental", "special", "random_bits",
                "broadcast", "elementwise"):
    importlib.import_module(f"functorch_lite.compiler.lowering.{_family}")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
INTEGERS = [np.dtype(k) for k in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
FLOATS = [np.dtype("f2"), BFLOAT16, np.dtype("f4"), np.dtype("f8")]
COMPLEX = [np.dtype("c8"), np.dtype("c16")]
DTYPES = [np.dtype(bool), *INTEGERS, *FLOATS, *COMPLEX]
SIZES = (0, 1, 3, 16, 17, 33)
SPECIAL = (special.erf_p, special.erfc_p, special.lgamma_p, special.digamma_p, random_bits.erf_inv_p)
UNARY = (
    comparison.is_finite_p, comparison.not_p, comparison.population_count_p, elementwise.neg_p,
    elementwise.log_for_pow_p, rounding.floor_p, rounding.ceil_p, rounding.round_p, rounding.trunc_p,
    complex_parts.real_p, complex_parts.imag_p, complex_parts.conj_p, complex_parts.abs_p, complex_parts.sign_p,
    casts.stop_gradient_p, *SPECIAL,
    *[v for name, v in vars(functions).items() if name.endswith("_p") and name not in ("atan2_p", "safe_div_p")],
)
BINARY = (
    comparison.eq_p, comparison.ne_p, comparison.lt_p, comparison.le_p, comparison.gt_p, comparison.ge_p,
    comparison.and_p, comparison.or_p, comparison.xor_p, comparison.shift_left_p, comparison.shift_right_p,
    elementwise.add_p, elementwise.sub_p, elementwise.mul_p, elementwise.div_p, elementwise.rem_p, elementwise.max_p,
    elementwise.min_p, elementwise.scale_p, elementwise.safe_div_p, elementwise.add_any_p, rounding.nextafter_p,
    complex_parts.complex_p, functions.atan2_p, special.xlogy_p, special.xlog1py_p,
)


def boundary(dtype):
    """Values where a rule may go wrong: the ends of the range, zeros, infinities, NaN, subnormal numbers."""
    if dtype.kind == "b":
        return np.array([True, False])
    if dtype.kind in "iu":
        i = np.iinfo(dtype)
        return np.array([0, 1, 2, 3, 7, i.max, i.max - 1, i.min, i.min + 1, *[-1, -2, -7] * (dtype.kind == "i")], dtype)
    if dtype.kind == "c":
        parts = np.array([0.0, -0.0, 1, -1, 0.5, -2.5, 30, -100, np.inf, -np.inf, np.nan])
        return np.array([complex(a, b) for a in parts for b in parts]).astype(dtype)
    f = ml_dtypes.finfo(dtype)
    ends = [float(v) for v in (f.max, f.min, f.tiny, -f.tiny, f.smallest_subnormal)]
    ordinary = [0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, 10.25, -30, 100.5, 1e3, -1e4, 1 + float(f.eps)]
    return np.array([*ordinary, *ends, np.inf, -np.inf, np.nan]).astype(dtype)


def pairs(values, rng):
    """Every value with every other (of many, some)."""
    if len(values) > 40:
        values = rng.permutation(values)[:40]
    return [v.ravel() for v in np.meshgrid(values, values)]


def takes(prim, *dtypes):
    try:
        shape_rules[prim](*[Aval((2,), d) for d in dtypes])
    except DTypeError:
        return False
    return True


def records_of(family):
    """A case for each equation of each record, in each of its dtypes."""
    for record in importlib.import_module(f"tests.records.{family}").RECORDS:
        for sample in record.draw():
            for name in (None, *record.dtypes):
                args = [np.asarray(a) for a in sample.args] if name is None else cast(sample.args, name)
                yield from cases_of(record.name, record.fun, args)


@pytest.mark.parametrize("family", ("elementwise", "comparison", "casts", "transcendental", "special"))
def test_records(family):
    check_all(list(records_of(family)))


@pytest.mark.parametrize("family", ("elementwise", "transcendental"))
def test_records_in_half_the_lanes(family):
    first = {(c.prim, c.expected.dtype): c for c in records_of(family) if c.expected.size > 1}
    check_all(list(first.values()), lanes_bytes=32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_operand_at_the_boundaries(dtype):
    values = boundary(dtype)
    normal = values[np.abs(values.astype("f8")) != np.finfo("f8").smallest_subnormal] if dtype.kind == "f" else values
    check_all([case(p.name, p, normal if p in SPECIAL else values) for p in UNARY if takes(p, dtype)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_operands_at_the_boundaries(dtype):
    x, y = pairs(boundary(dtype), np.random.default_rng(0))
    derivative = dtype.kind in "iub"
    prims = [p for p in BINARY if takes(p, dtype, dtype) and not (derivative and p is elementwise.safe_div_p)]
    check_all([case(p.name, p, x, y) for p in prims])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_three_operands(dtype):
    values = boundary(dtype)
    x, y = pairs(values, np.random.default_rng(0))
    found = [case("select", comparison.select_p, np.arange(x.size) % 3 == 0, x, y)]
    if dtype.kind not in "cb":
        with np.errstate(invalid="ignore"):
            found.append(case("clamp", elementwise.clamp_p, np.minimum(x, y), np.flip(x), np.maximum(x, y)))
    if dtype in FLOATS:
        moderate = np.random.default_rng(0).standard_normal((3, 100)).astype(dtype)
        found.append(case("fused", random_bits.fused_multiply_add_p, *moderate))
    check_all(found)


@pytest.mark.parametrize("lanes_bytes", (64, 32, 16))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sizes(dtype, lanes_bytes):
    found = []
    for size in SIZES:
        values = np.resize(boundary(dtype)[:5], size)
        found.append(case("eq", comparison.eq_p, values, values[::-1]))
        found.append(case("convert", casts.convert_p, values, dtype=np.dtype("f4")))
        found.append(case("select", comparison.select_p, np.arange(size) % 2 == 0, values, values[::-1]))
        found.append(case("add", elementwise.add_p, values, values[:1].reshape(()) if size else values))
        if dtype.kind in "fcV":
            found.append(case("exp", functions.exp_p, values))
    check_all(found, lanes_bytes=lanes_bytes)


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_conversions(source):
    found = []
    for target in DTYPES:
        values = boundary(source)
        if source.kind not in "iub" and target.kind in "iu":  # what is out of range depends on the machine
            real, i = np.real(values).astype("f8"), np.iinfo(target)
            values = values[np.isfinite(real) & (real >= i.min) & (real < float(i.max))]
        found.append(case(f"to {target}", casts.convert_p, values, dtype=target))
        if source.itemsize == target.itemsize and target.kind != "b":
            found.append(case(f"bits of {target}", casts.bitcast_p, values, dtype=target))
    check_all(found)


def test_a_float64_is_rounded_to_float16_once():
    near_ties = np.array([2049.0, 2051.0, 2049 + 1e-9, 2051 - 1e-9, 65519.999999, 65520.0, 2.0**-25, 1.1 * 2.0**-25])
    values = np.concatenate([near_ties, -near_ties, [1e300], np.random.default_rng(0).standard_normal(1000)])
    one = case("convert", casts.convert_p, values, dtype=np.dtype("f2"))
    assert np.array_equal(run_all([one])[0].view("u2"), one.expected.view("u2"))


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS], ids=str)
def test_powers(dtype):
    x, y = pairs(boundary(dtype), np.random.default_rng(0))
    if dtype.kind == "i":
        x, y = x[y >= 0], y[y >= 0]
    exponents = [n for n in (-2, -1, 0, 1, 2, 3, 7) if n >= 0 or dtype in FLOATS]
    check_all([case("pow", elementwise.pow_p, x, y),
               *[case("integer_pow", elementwise.integer_pow_p, boundary(dtype), n=n) for n in exponents]])


def test_a_negative_integer_power_is_the_quotient():
    x, y = np.array([1, -1, -1, 2, 0]), np.array([-3, -3, -2, -1, -1])
    assert np.array_equal(run_rule(elementwise.pow_p, x, y), [1, -1, 1, 0, 0])


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_complex_powers(dtype):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((2, 200, 2)) @ [2, 2j]).astype(dtype)
    y[:3], x[1:3], y[2] = 0, 0, 1
    expected = np.power(x.astype("c16"), y.astype("c16")).astype(dtype)
    found = run_rule(elementwise.pow_p, x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == np.complex64 else 1e-13)
    check_all([case("integer_pow", elementwise.integer_pow_p, boundary(dtype), n=n) for n in (-2, -1, 0, 1, 2, 3)])


def test_complex_magnitudes_do_not_overflow():
    x = np.array([3e300 + 4e300j, 3e-310 + 4e-310j, 1e308 - 1e308j, complex(np.inf, np.nan), 5e-324j])
    check_all([case(p.name, p, x) for p in (complex_parts.abs_p, functions.log_p, functions.sqrt_p)])
    check_all([case("div", elementwise.div_p, x[:3], x[:3])])


def test_random_values_without_fused_multiply_add():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50))
    unary = [p for p in UNARY if takes(p, x.dtype)]
    check_all([case(p.name, p, v) for p in unary for v in (x, x.astype("f4"))], has_fma=False, factor=2)
    check_all([case(p.name, p, x, y) for p in BINARY if takes(p, x.dtype, x.dtype)], has_fma=False, factor=2)


def test_what_scipy_computes_states_it():
    with pytest.raises(MissingRuleError, match="SciPy"):
        elementwise_rules[special.zeta_p]
    assert special.zeta_p in eval_rules


def test_cases_of_one_module_do_not_share_memory():
    first, second = (case("neg", elementwise.neg_p, np.full(3, v)) for v in (1.0, 2.0))
    assert [v.tolist() for v in run_all([first, second])] == [[-1.0] * 3, [-2.0] * 3]

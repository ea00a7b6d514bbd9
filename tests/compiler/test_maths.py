# SPDX-License-Identifier: MIT
"""Vector maths: error in units in the last place over all exponents, special values, lanes, processors without FMA.

References: float32 against float64 of NumPy and SciPy, float64 against long double (80 bits on x86-64).
"""

import ctypes
import functools
import math

import numpy as np
import pytest
from scipy import special

import functorch_lite as fl
from functorch_lite.backends import inverse_erf
from functorch_lite.compiler.codegen.llvm.emitter import BYTES, TYPES, Emitter
from functorch_lite.compiler.codegen.llvm.maths import MATHS
from functorch_lite.compiler.runtime import engine

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Long = np.longdouble
DTYPES = {"f16": np.dtype("f2"), "f32": np.dtype("f4"), "f64": np.dtype("f8")}
BOUND = {"f32": 2.0, "f64": 4.0}
STRIDE = 16381  # of the 2^32 float32 patterns: odd, so every exponent is met
PATTERNS = 1 << 15  # random float64 patterns


# --- running a function ----------------------------------------------------------------------------------------------
def module(name, kind, lanes, n_args, has_fma, lanes_bytes):
    """IR of `run(a0, ..., out, n)`: a loop over n / lanes vectors."""
    emitter = Emitter(has_fma, lanes_bytes)
    scalar = TYPES[kind]
    emitter.line("br label %loop")
    emitter.start("loop")
    emitter.line("%i = phi i64 [0, %entry], [%next, %latch]")
    args = []
    for k in range(n_args):
        emitter.line(f"%p{k} = getelementptr {scalar}, ptr %a{k}, i64 %i")
        args.append(emitter.load(f"%p{k}", kind, lanes))
    result = MATHS[name](emitter, *args)
    emitter.line("br label %latch")
    emitter.start("latch")
    emitter.line(f"%po = getelementptr {scalar}, ptr %out, i64 %i")
    emitter.store(result, "%po")
    emitter.line(f"%next = add i64 %i, {lanes}")
    emitter.line("%more = icmp slt i64 %next, %n")
    emitter.line("br i1 %more, label %loop, label %done")
    emitter.start("done")
    emitter.line("ret void")
    params = ", ".join([f"ptr %a{k}" for k in range(n_args)] + ["ptr %out", "i64 %n"])
    return "\n".join([
        *emitter.tables.values(), *emitter.declarations.values(), f"define void @run({params}) {{", "entry:",
        *emitter.lines, "}", "",
    ])


@functools.cache
def compiled(name, kind, lanes, n_args, target):
    text = module(name, kind, lanes, n_args, target.has_fma, target.lanes_bytes)
    code = engine.load(text, cache=False, target=target).keep()
    types = [ctypes.c_void_p] * (n_args + 1) + [ctypes.c_int64]
    return ctypes.CFUNCTYPE(None, *types)(code.address("run"))


def run(name, *args, lanes=None, has_fma=None, target=None):
    """MATHS[name] of equally long arrays of one dtype, on this processor or as a lesser one does it."""
    kind = next(k for k, dtype in DTYPES.items() if dtype == args[0].dtype)
    lanes = lanes or 64 // BYTES[kind]
    size, padding = args[0].size, -args[0].size % lanes
    given = [np.concatenate([a, np.ones(padding, a.dtype)]) for a in args]
    out = np.empty_like(given[0])
    target = target or (engine.NEHALEM if has_fma is False else engine.target())
    function = compiled(name, kind, lanes, len(args), target)
    function(*[a.ctypes.data for a in given], out.ctypes.data, out.size)
    return out[:size]


# --- references ------------------------------------------------------------------------------------------------------
def logistic(x):
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def exp_of_minus_square(x):
    high = x.astype("f4").astype(Long)  # so that its square is exact
    return np.exp(-high * high) * np.exp(-(x - high) * (x + high))


def erf_series(x):
    """2 / sqrt(pi) e^(-x^2) times the sum of 2^n x^(2n+1) / (1 3 ... (2n+1)): all terms have one sign."""
    term = total = x
    for n in range(1, 90):
        term = term * (2 * x * x) / (2 * n + 1)
        total = total + term
    return total * exp_of_minus_square(x) * 2 / np.sqrt(Long(PI))


def erfc_fraction(x):
    """e^(-x^2) / sqrt(pi) times 1/(x + (1/2)/(x + (2/2)/(x + ...)))."""
    tail = x
    for n in range(240, 0, -1):
        tail = x + n / (2 * tail)
    return exp_of_minus_square(x) / tail / np.sqrt(Long(PI))


PI = Long(math.pi) + Long(1.2246467991473532e-16)


def erf(x):
    if x.dtype != Long:
        return special.erf(x)
    return np.where(np.abs(x) < 2, erf_series(np.where(np.abs(x) < 2, x, 0)), np.sign(x) * (1 - erfc(np.abs(x))))


def erfc(x):
    if x.dtype != Long:
        return special.erfc(x)
    a = np.abs(x)
    far = erfc_fraction(np.clip(a, 2, 40))
    return np.where(a < 2, 1 - erf_series(np.where(a < 2, x, 0)), np.where(x < 0, 2 - far, far + 0 * np.sign(x)))


def erfinv(x):
    """SciPy's with the sign of a zero, and two of Newton's steps; next to 1 of what is missing to 1."""
    first = np.copysign(special.erfinv(x.astype("f8")), x)
    if x.dtype != Long:
        return first
    a, y = np.abs(x), np.abs(first).astype(Long)
    for _ in range(2):
        y = y + np.where(a < 0.5, a - erf(y), erfc(y) - (1 - a)) * np.sqrt(PI) / 2 * np.exp(y * y)
    return np.where(np.isfinite(first), np.copysign(y, x), first)


REFERENCES = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "logistic": logistic,
    "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "erf": erf, "erfc": erfc, "erfinv": erfinv, "cbrt": np.cbrt, "rsqrt": lambda x: 1 / np.sqrt(x), "sqrt": np.sqrt,
    "log_or_zero": lambda x: np.where(x == 0, 0, np.log(x)),
}
EXACT = {"floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint}
PAIRS = {"pow": np.power, "atan2": np.arctan2}
SPECIAL_PAIRS = {**PAIRS, "rem": np.fmod, "xlogy": special.xlogy, "xlog1py": special.xlog1py}

SPECIAL = np.array([
    0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.17549435e-38, -1.17549435e-38, 1.1754942e-38, 3.4028235e38,
    -3.4028235e38, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 2.5, -2.5, 1 - 2.0**-24, -1 + 2.0**-24, 1 + 2.0**-23, 88.72283,
    88.72284, -87.33655, -103.97208, -103.9721, -104, 89, 127, 128, -126, -149, -150, 1e5, 100001, 8388608, 16777216,
    16777217, 1e10, -1e10, 1e38, 0.625, 10, -36, 5.877472e-39,
], "f4")
SPECIAL_DOUBLE = np.concatenate([SPECIAL.astype("f8"), [
    5e-324, -5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308, -1.7976931348623157e308,
    709.782712893384, 709.7827128933841, -708.4, -745.1332191019411, -745.1332191019412, -746, 710.4758600739439,
    710.475860073944, 1 - 2.0**-53, 1 + 2.0**-52, -1 + 2.0**-53, 2.0**1000, -(2.0**-1000), 2.0**53, 2.0**53 + 2,
]])


# --- measuring -------------------------------------------------------------------------------------------------------
def units(got, wanted):
    """|got - wanted| in units in the last place of `wanted`, which has a wider dtype; infinite where one is wrong."""
    info = np.finfo(got.dtype)
    rounded = wanted.astype(got.dtype)
    finite = np.isfinite(rounded)
    _, exponent = np.frexp(np.where(finite, wanted, 1))
    unit = np.ldexp(wanted.dtype.type(1), np.maximum(exponent - info.nmant - 1, info.minexp - info.nmant))
    error = np.abs(got.astype(wanted.dtype) - wanted) / unit
    special_error = np.where((got == rounded) | (np.isnan(got) & np.isnan(rounded)), 0, np.inf)
    zero_error = np.where((got == 0) & (wanted == 0) & (np.signbit(got) != np.signbit(wanted)), np.inf, 0)
    return np.maximum(np.where(finite & np.isfinite(got), error, special_error), zero_error).astype("f8")


def check(name, *args, bound=None, **options):
    """Run `name` and compare with its reference in a wider type."""
    got = run(name, *args, **options)
    kind = "f32" if got.dtype == np.float32 else "f64"
    wide = np.dtype("f8") if kind == "f32" else np.dtype(Long)
    wanted = {**REFERENCES, **PAIRS}[name](*[a.astype(wide) for a in args])
    error = units(got, wanted)
    worst = int(np.argmax(error))
    place = [a[worst] for a in args]
    limit = BOUND[kind] if bound is None else bound
    assert error[worst] <= limit, f"{name}{place} = {got[worst]!r}, wanted {wanted[worst]!r}: {error[worst]} ulp"


def patterns32(stride, start=5):
    return np.arange(start, 1 << 32, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)


def patterns64(size, seed=0):
    rng = np.random.default_rng(seed)
    every = rng.integers(0, 1 << 64, size, dtype=np.uint64).view(np.float64)
    signs = rng.choice([-1.0, 1.0], size // 2)
    common = np.exp(rng.uniform(-40, 7, size // 2)) * signs
    near_one = 1 + signs * 10.0 ** rng.uniform(-12, 0, size // 2)
    return np.concatenate([every, common, near_one, rng.uniform(-1, 1, size // 2)])


# --- accuracy --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", REFERENCES)
def test_float32_functions_are_within_two_units(name):
    check(name, patterns32(STRIDE))


@pytest.mark.parametrize("name", REFERENCES)
def test_float64_functions_are_within_four_units(name):
    check(name, patterns64(PATTERNS))


@pytest.mark.parametrize("name", REFERENCES)
def test_bounds_hold_without_fused_multiply_add(name):
    check(name, patterns32(STRIDE * 16), has_fma=False)
    check(name, patterns64(PATTERNS // 16, seed=1), has_fma=False)


@pytest.mark.skipif(not engine.target().has_fma, reason="the processor has no fused multiply-add")
@pytest.mark.parametrize("name", [
    "exp", "log", "log2", "log10", "log_or_zero", "logistic", "tanh", "erf", "erfc", "erfinv",
])
def test_bounds_hold_without_tables_in_registers(name):
    check(name, patterns32(STRIDE * 16), target=engine.HASWELL)
    check(name, patterns64(PATTERNS // 16, seed=1), target=engine.HASWELL)
    check(name, SPECIAL, target=engine.HASWELL)
    check(name, SPECIAL_DOUBLE, target=engine.HASWELL)


def test_erfinv_next_to_one_is_within_the_bounds():
    near = 1 - 2.0 ** np.linspace(-53, -1, 20000)
    check("erfinv", near)
    check("erfinv", -near)
    check("erfinv", np.arange(0x3F7E0000, 0x3F800000, 3, dtype=np.uint32).view(np.float32))


def test_erfc_of_float32_keeps_its_relative_precision():
    check("erfc", np.linspace(-6, 10.3, 200000, dtype=np.float32))


# --- square roots ----------------------------------------------------------------------------------------------------
def roots_modulo_powers_of_two(a, n):
    """All r with r^2 = a modulo 2^n, for a = 1 modulo 8."""
    r, whole = 1, 1 << n
    for i in range(3, n):
        if (r * r - a) % (1 << (i + 1)):
            r += 1 << (i - 1)
    return {k % whole for k in (r, -r, r + whole // 2, -r + whole // 2)}


def roots_near_midpoints(span):
    """Numbers x in [1, 4) with m^2 + m = x 2^n + k for whole m and k, |k| <= span.

    Their roots are about k / 2^53 units from the middle of two neighbours, and all so near are among them.
    """
    found = set()
    for n, k in ((n, k) for n in (52, 53) for k in range(-span, span + 1, 2)):
        for root in roots_modulo_powers_of_two(4 * k + 1, n + 2):
            for m in ((root - 1) // 2 + j * (1 << n) for j in (-1, 0, 1, 2)):
                x, rest = divmod(m * m + m - k, 1 << n)
                if not rest and 1 << 52 <= m < 1 << 53 and 1 << 52 <= x < 1 << 53:
                    found.add(x * 2.0 ** (n - 104))
    return np.array(sorted(found))


def assert_roots(x):
    found, wanted = run("sqrt", x), np.sqrt(x)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found)[x == 0], np.signbit(x)[x == 0])


def test_square_roots_next_to_the_middle_of_two_numbers_are_rounded_correctly():
    x = roots_near_midpoints(1000)
    assert x.size > 1000
    for exponent in (-1000, -968, -100, 0, 900):
        assert_roots(x * 2.0**exponent)


def test_square_roots_of_every_mantissa_of_float32_are_rounded_correctly():
    every = np.arange(1 << 24, dtype=np.uint32)  # two exponents
    for exponent in (1, 26, 28, 126, 252):
        assert_roots((every + (exponent << 23)).view(np.float32)[:: 1 if exponent == 126 else 31])


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_square_roots_of_zeros_and_what_is_no_number(kind):
    assert_roots(np.array([0.0, -0.0, 4.0, np.inf, np.nan, -1.0, -np.inf, 1e-45, 2.0, 0.0] * 5).astype(DTYPES[kind]))


@pytest.mark.parametrize("name, far", [("tanh", 9.5), ("erf", 6.0)])
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_functions_that_level_off_reach_one_and_never_pass_it(name, far, kind):
    x = np.linspace(0, 25, 1 << 18).astype(DTYPES[kind])
    y = run(name, x)
    assert (y <= 1).all()
    assert (y[x > (far if kind == "f32" or name == "erf" else 20)] == 1).all()


def pairs(dtype, size, seed):
    """Random patterns; powers within the range of results; integer exponents; points of the plane."""
    rng = np.random.default_rng(seed)
    unsigned = np.uint32 if dtype == np.float32 else np.uint64
    bits = 8 * dtype.itemsize
    span = 100 if dtype == np.float32 else 740
    any_x, any_y = (rng.integers(0, 1 << bits, size, dtype=np.uint64).astype(unsigned).view(dtype) for _ in "xy")
    base = np.concatenate([np.exp(rng.uniform(-80, 80, size)), 1 + rng.normal(size=size) * 1e-3]).astype(dtype)
    exponent = rng.uniform(-span, span, 2 * size) / np.log(base.astype("f8"))
    few = rng.integers(-20, 20, size)
    return (
        np.concatenate([any_x, base, rng.uniform(-50, 50, size), rng.normal(size=size)]).astype(dtype),
        np.concatenate([any_y, exponent, few, rng.normal(size=size)]).astype(dtype),
    )


@pytest.mark.parametrize("has_fma", [True, False])
@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", PAIRS)
def test_functions_of_two_arguments_are_within_the_bounds(name, kind, has_fma):
    check(name, *pairs(DTYPES[kind], PATTERNS // 8, seed=has_fma), has_fma=has_fma)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
@pytest.mark.parametrize("has_fma", [True, False])
def test_large_multiples_of_a_quarter_turn_keep_their_precision(name, has_fma):
    rng = np.random.default_rng(2)
    near = rng.integers(-(10**5), 10**5, 4000) * (np.pi / 4)
    far = np.ldexp(rng.uniform(1, 2, 4000), rng.integers(19, 1023, 4000))
    check(name, np.concatenate([near, far]), has_fma=has_fma)
    check(name, np.concatenate([near, np.ldexp(rng.uniform(1, 2, 4000), rng.integers(10, 127, 4000))]).astype("f4"))


@pytest.mark.parametrize("base", [2.0, 10.0])
def test_logarithms_of_powers_are_integers(base):
    powers = np.arange(-300 if base == 10 else -1074, 300 if base == 10 else 1024).astype("f8")
    powers = powers[powers >= 0] if base == 10 else powers
    powers = powers[:23] if base == 10 else powers  # 10^22 is the last exact one
    got = run("log2" if base == 2 else "log10", np.power(base, powers))
    np.testing.assert_array_equal(got, powers)


def test_integer_powers_that_fit_are_exact():
    x, y = (a.ravel().astype("f8") for a in np.meshgrid(np.arange(-12, 13), np.arange(0, 13)))
    wanted = [float(int(a) ** int(b)) for a, b in zip(x, y, strict=True)]
    np.testing.assert_array_equal(run("pow", x, y), wanted)


# --- gamma functions -------------------------------------------------------------------------------------------------
def lgamma_reference(x):
    """log Gamma of x > 0 in long double: Stirling's series at x + 40, less the logarithm of the product between."""
    x = x.astype(Long)
    z, product = x + 40, np.ones_like(x)
    logs = np.zeros_like(x)
    for k in range(40):
        product = product * (x + k)
        if k % 10 == 9:
            logs, product = logs + np.log(product), np.ones_like(x)
    series = 1 / (12 * z) - 1 / (360 * z**3) + 1 / (1260 * z**5) - 1 / (1680 * z**7)
    return (z - Long(0.5)) * np.log(z) - z + np.log(2 * PI) / 2 + series - logs


def digamma_reference(x):
    x = x.astype(Long)
    z = x + 40
    series = np.log(z) - 1 / (2 * z) - 1 / (12 * z**2) + 1 / (120 * z**4) - 1 / (252 * z**6) + 1 / (240 * z**8)
    return series - sum(1 / (x + k) for k in range(40))


@pytest.mark.parametrize("has_fma", [True, False])
@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_gamma_functions_of_positive_numbers(name, has_fma):
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(0, 40, 8000), np.exp(rng.uniform(-30, 3, 2000))])
    wanted = (lgamma_reference if name == "lgamma" else digamma_reference)(x)
    got = run(name, x, has_fma=has_fma)
    error = np.abs(got - wanted) / np.maximum(np.abs(wanted), 1) * 2.0**52
    assert error.max() <= 4
    narrow = run(name, x.astype("f4"), has_fma=has_fma)
    exact = (special.gammaln if name == "lgamma" else special.digamma)(x.astype("f4").astype("f8"))
    assert (np.abs(narrow - exact) <= np.abs(exact) * 2.0**-23 + 2.0**-50).all()


@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_gamma_functions_of_negative_numbers(name):
    """Gamma(x) Gamma(1 - x) = pi / sin(pi x) and its logarithmic derivative."""
    x = np.random.default_rng(4).uniform(-30, 0, 10000)
    angle = PI * (x - np.rint(x)).astype(Long)
    if name == "lgamma":
        wanted = np.log(PI / np.abs(np.sin(angle))) - lgamma_reference(1 - x.astype(Long))
    else:
        wanted = digamma_reference(1 - x.astype(Long)) - PI / np.tan(angle)
    error = np.abs(run(name, x) - wanted) / np.maximum(np.abs(wanted), 1)
    assert error.max() < 16 * 2.0**-53


@pytest.mark.parametrize("name, reference", [("lgamma", special.gammaln), ("digamma", special.digamma)])
def test_gamma_functions_at_special_values(name, reference):
    x = SPECIAL.astype("f8")
    got, wanted = run(name, x), reference(x)
    usual = np.isfinite(wanted)
    assert same(got[~usual], wanted[~usual]).all()
    np.testing.assert_allclose(got[usual], wanted[usual], rtol=1e-10, atol=1e-12)  # SciPy's own errors at the edges


def test_lgamma_keeps_its_relative_precision_next_to_its_zeros():
    h = np.ldexp(np.random.default_rng(5).uniform(1, 2, 2000), -np.random.default_rng(6).integers(29, 45, 2000))
    h = (1 + h) - 1  # so that 1 + h is exact
    for point, sign in ((1.0, 1), (1.0, -1), (2.0, 1), (2.0, -1)):
        step = ((point + sign * h) - point).astype(Long)
        gamma_constant = Long(np.euler_gamma) - Long(4.942915152430645e-18)
        slope, curve = (-gamma_constant, PI**2 / 6) if point == 1 else (1 - gamma_constant, PI**2 / 6 - 1)
        wanted = step * (slope + step * curve / 2)
        got = run("lgamma", (point + sign * h))
        assert (np.abs(got - wanted) / np.abs(wanted)).max() < 2.0**-50


# --- special values, exact functions ---------------------------------------------------------------------------------
def same(got, wanted):
    """Equal with signs of zero, NaN equal to NaN."""
    return ((got == wanted) & (np.signbit(got) == np.signbit(wanted))) | (np.isnan(got) & np.isnan(wanted))


@pytest.mark.parametrize("has_fma", [True, False])
@pytest.mark.parametrize("name", REFERENCES)
def test_special_values(name, has_fma):
    check(name, SPECIAL, has_fma=has_fma)
    check(name, SPECIAL_DOUBLE, has_fma=has_fma)


@pytest.mark.parametrize("has_fma", [True, False])
@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", SPECIAL_PAIRS)
def test_special_pairs(name, kind, has_fma):
    values = SPECIAL if kind == "f32" else SPECIAL_DOUBLE
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    got = run(name, x, y, has_fma=has_fma)
    wide = np.dtype("f8") if kind == "f32" or name[0] == "x" else np.dtype(Long)
    wanted = SPECIAL_PAIRS[name](x.astype(wide), y.astype(wide))
    bound = 0 if name == "rem" else 6 if name[0] == "x" else BOUND[kind]
    error = units(got, wanted)
    assert error.max() <= bound, (name, x[error.argmax()], y[error.argmax()], got[error.argmax()])


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", EXACT)
def test_rounding_is_numpys(name, kind):
    x = patterns32(STRIDE * 8) if kind == "f32" else patterns64(PATTERNS // 8)
    x = np.concatenate([x, np.arange(-8, 8, 0.5).astype(x.dtype), SPECIAL.astype(x.dtype)])
    assert same(run(name, x), EXACT[name](x)).all()


@pytest.mark.parametrize("has_fma", [True, False])
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_the_remainder_is_exact(kind, has_fma):
    rng = np.random.default_rng(7)
    x, y = pairs(DTYPES[kind], 4000, seed=8)
    quotient = np.ldexp(rng.uniform(1, 2, x.size), rng.integers(-3, 70, x.size))
    x = np.concatenate([x, (y * quotient).astype(x.dtype), (y * np.floor(quotient)).astype(x.dtype)])
    y = np.concatenate([y, y, y])
    assert same(run("rem", x, y, has_fma=has_fma), np.fmod(x, y)).all()


@pytest.mark.parametrize("kind", ["f16", "f32", "f64"])
def test_the_next_number_is_numpys(kind):
    values = np.concatenate([SPECIAL, [65504, -65504, 6e-8]]).astype(DTYPES[kind])
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    wanted = np.where(x == y, y, np.nextafter(x, y))  # NumPy before 2.5 gives x there for float16: zero's sign differs
    assert same(run("nextafter", x, y), wanted).all()


# --- the functions that repeat another's roundings -------------------------------------------------------------------
@pytest.mark.parametrize("has_fma", [True, False])
def test_erf_inv_has_the_bits_of_the_backends(has_fma):
    x = patterns32(STRIDE)
    x = np.concatenate([x, np.linspace(-1, 1, 1 << 18, dtype="f4"), SPECIAL])
    assert same(run("erf_inv", x, has_fma=has_fma), inverse_erf.erf_inv(np, x)).all()


def test_erf_inv_of_float64_differs_by_the_logarithm_only():
    x = np.concatenate([np.random.default_rng(9).uniform(-1, 1, PATTERNS), [0, -0.0, 1, -1, 2, np.nan]])
    got, wanted = run("erf_inv", x), inverse_erf.erf_inv(np, x)
    inside = np.isfinite(wanted)
    assert same(got[~inside], wanted[~inside]).all()
    assert (np.abs(got - wanted)[inside] <= 8 * np.spacing(np.abs(wanted[inside]))).all()
    small = np.abs(x) < 0.6  # no logarithm there
    assert same(got[small], wanted[small]).all()


@pytest.mark.parametrize("has_fma", [True, False])
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_fused_multiply_add_has_the_bits_of_the_backends(kind, has_fma):
    rng = np.random.default_rng(10)
    x, y, z = (rng.normal(size=PATTERNS).astype(DTYPES[kind]) for _ in range(3))
    z[::2] = -(x * y)[::2] * (1 + rng.integers(-3, 3, PATTERNS // 2) * np.finfo(x.dtype).eps)
    wanted = inverse_erf.fused_multiply_add(np, x, y, z)
    assert same(run("fused_multiply_add", x, y, z, has_fma=has_fma), wanted).all()


# --- lanes -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MATHS)
def test_a_result_does_not_depend_on_the_lanes_around_it(name):
    n_args = {"fused_multiply_add": 3}.get(name, 2 if name in {*SPECIAL_PAIRS, "nextafter"} else 1)
    for kind in ("f32", "f64"):
        rng = np.random.default_rng(11)
        values = (SPECIAL if kind == "f32" else SPECIAL_DOUBLE)[:48]
        args = [np.concatenate([rng.permutation(values), rng.uniform(-9, 9, 48)]).astype(DTYPES[kind])
                for _ in range(n_args)]
        scalar = run(name, *args, lanes=1)
        for lanes in (4, 8, 16):
            assert same(run(name, *args, lanes=lanes), scalar).all(), (kind, lanes)


@pytest.mark.skipif(engine.target().lanes_bytes < 64, reason="the processor has no AVX-512")
def test_roots_are_steps_only_where_there_is_no_other_function():
    """Beside an exponential, the instruction runs in a unit that has nothing else to do."""
    x = np.linspace(0, 9, 1000, dtype=np.float32)
    alone, beside = (fl.jit(f).lower(x) for f in (lambda x: np.sqrt(x) + 1, lambda x: np.exp(-np.sqrt(x))))
    assert "rsqrt14" in alone.as_text("llvm") and "rsqrt14" not in beside.as_text("llvm")
    np.testing.assert_array_equal(beside.compile()(x), fl.jit(lambda x: np.exp(-x))(fl.jit(np.sqrt)(x)))

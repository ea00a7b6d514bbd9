# SPDX-License-Identifier: MIT
"""Functions of complex numbers, composed of scalar operations on their two parts.

Branch cuts and signed zeros are those of C99, and so of NumPy. A magnitude neither overflows nor underflows on the way.

Source: W. Kahan, "Branch cuts for complex elementary functions, or much ado about nothing's sign bit", 1987; R. L.
Smith, "Algorithm 116: complex division", CACM 5 (1962).
"""

import math

from functorch_lite.compiler.loop_ir.nodes import Value
from functorch_lite.compiler.lowering.rules import Pair, Point

LN2, LN10 = math.log(2), math.log(10)
_TANH_FLAT = 22  # beyond, tanh x is 1 to rounding
_EXP_SPLIT = {"f32": 88.0, "f64": 709.0}  # beyond, exp x may overflow where a product with it does not


def _c(like: Value, at: Point, number: float) -> Value:
    return at.constant(number, like.kind)


def add(at: Point, x: Pair, y: Pair) -> Pair:
    """x + y."""
    return Pair(at.op("add", x.real, y.real), at.op("add", x.imag, y.imag))


def mul(at: Point, x: Pair, y: Pair) -> Pair:
    """x y, by the four products."""
    real = at.op("sub", at.op("mul", x.real, y.real), at.op("mul", x.imag, y.imag))
    imag = at.op("add", at.op("mul", x.real, y.imag), at.op("mul", x.imag, y.real))
    return Pair(real, imag)


def scaled(at: Point, x: Pair, factor: float) -> Pair:
    """x times a real number."""
    c = _c(x.real, at, factor)
    return Pair(at.op("mul", x.real, c), at.op("mul", x.imag, c))


def div(at: Point, x: Pair, y: Pair) -> Pair:
    """x / y by Smith's method, as NumPy does."""
    (a, b), (c, d) = x, y
    size_c, size_d = at.op("abs", c), at.op("abs", d)
    big = at.op("ge", size_c, size_d)
    p, q = at.op("select", big, c, d), at.op("select", big, d, c)
    u, v = at.op("select", big, a, b), at.op("select", big, b, a)
    ratio = at.op("div", q, p)
    factor = at.op("div", _c(a, at, 1), at.op("add", p, at.op("mul", q, ratio)))
    real = at.op("mul", at.op("add", u, at.op("mul", v, ratio)), factor)
    imag = at.op("mul", at.op("sub", v, at.op("mul", u, ratio)), factor)
    imag = at.op("select", big, imag, at.op("neg", imag))
    zero = _c(a, at, 0)
    none = at.op("and", at.op("eq", c, zero), at.op("eq", d, zero))
    return Pair(at.op("select", none, at.op("div", a, size_c), real),
                at.op("select", none, at.op("div", b, size_c), imag))


def reciprocal(at: Point, x: Pair) -> Pair:
    """1 / x by Smith's method; NaN at 0."""
    c, d = x
    big = at.op("ge", at.op("abs", c), at.op("abs", d))
    p, q = at.op("select", big, c, d), at.op("select", big, d, c)
    ratio, one = at.op("div", q, p), _c(c, at, 1)
    below = at.op("add", p, at.op("mul", q, ratio))
    whole, part = at.op("div", one, below), at.op("div", ratio, below)
    return Pair(at.op("select", big, whole, part), at.op("neg", at.op("select", big, part, whole)))


def hypot(at: Point, a: Value, b: Value) -> Value:
    """sqrt(a^2 + b^2); infinite if either is, even beside NaN."""
    if a.kind == "f32":
        wide = [at.op("convert", v, kind="f64") for v in (a, b)]
        squares = [at.op("mul", v, v) for v in wide]
        size = at.op("convert", at.op("sqrt", at.op("add", *squares)), kind="f32")
    else:
        size = _scaled_hypot(at, at.op("abs", a), at.op("abs", b))
    infinite = at.op("or", is_infinite(at, a), is_infinite(at, b))
    return at.op("select", infinite, _c(a, at, math.inf), size)


def _scaled_hypot(at, a, b):
    """With the numbers brought near 1 by a power of two where their squares would leave the range of float64."""
    largest = at.op("max", a, b)
    one = _c(a, at, 1)
    large, small = at.op("gt", largest, _c(a, at, 2.0**500)), at.op("lt", largest, _c(a, at, 2.0**-400))
    down, up = _c(a, at, 2.0**-600), _c(a, at, 2.0**600)
    factor = at.op("select", large, down, at.op("select", small, up, one))
    back = at.op("select", large, up, at.op("select", small, down, one))
    squares = [at.op("mul", v, v) for v in (at.op("mul", a, factor), at.op("mul", b, factor))]
    return at.op("mul", at.op("sqrt", at.op("add", *squares)), back)


def is_infinite(at: Point, a: Value) -> Value:
    """Whether a real number is an infinity."""
    return at.op("eq", at.op("abs", a), _c(a, at, math.inf))


def sign(at: Point, x: Pair) -> Pair:
    """x / |x|, and 0 at 0; an infinite part beside a finite one counts alone."""
    a, b = x
    size = hypot(at, a, b)
    zero, one, nan = _c(a, at, 0), _c(a, at, 1), _c(a, at, math.nan)
    far_a, far_b = is_infinite(at, a), is_infinite(at, b)
    none = at.op("eq", size, zero)

    def part(v, own, other):
        near = at.op("select", none, zero, at.op("div", v, size))
        alone = at.op("select", other, nan, at.op("copysign", one, v))
        return at.op("select", own, alone, at.op("select", other, zero, near))

    return Pair(part(a, far_a, far_b), part(b, far_b, far_a))


# --- exponentials and logarithms ---


def exp(at: Point, x: Pair) -> Pair:
    """e^x."""
    a, b = x
    zero = _c(a, at, 0)
    size, cosine, sine = at.op("exp", a), at.op("cos", b), at.op("sin", b)
    half = at.op("exp", at.op("mul", a, _c(a, at, 0.5)))
    near_top = at.op("and", at.op("gt", a, _c(a, at, _EXP_SPLIT[a.kind])), at.op("is_finite", a))

    def part(v):
        split = at.op("mul", at.op("mul", half, v), half)
        return at.op("select", near_top, split, at.op("mul", size, v))

    vanishes = at.op("eq", a, _c(a, at, -math.inf))
    unknown = at.op("not", at.op("is_finite", b))
    real = at.op("select", at.op("and", is_infinite(at, a), unknown), size, part(cosine))
    imag = at.op("select", at.op("and", vanishes, unknown), zero, part(sine))
    is_real = at.op("eq", b, zero)
    return Pair(at.op("select", is_real, size, real), at.op("select", is_real, b, imag))


def expm1(at: Point, x: Pair) -> Pair:
    """e^x - 1."""
    a, b = x
    sine = at.op("sin", at.op("mul", b, _c(a, at, 0.5)))
    real = at.op("sub", at.op("mul", at.op("expm1", a), at.op("cos", b)),
                 at.op("mul", at.op("mul", _c(a, at, 2), sine), sine))
    return Pair(real, at.op("mul", at.op("exp", a), at.op("sin", b)))


def log(at: Point, x: Pair) -> Pair:
    """The logarithm with imaginary part in [-pi, pi]."""
    return Pair(log_abs(at, x), at.op("atan2", x.imag, x.real))


def log_abs(at: Point, x: Pair) -> Value:
    """log |x|, accurate where |x| is near 1."""
    a, b = [at.op("abs", v) for v in x]
    large, small = at.op("max", a, b), at.op("min", a, b)
    one, half = _c(a, at, 1), _c(a, at, 0.5)
    ratio = at.op("div", small, large)
    log_large, log_rest = at.op("log", large), at.op("log1p", at.op("mul", ratio, ratio))
    far = at.op("add", log_large, at.op("mul", log_rest, half))
    excess = at.op("fma", small, small, at.op("mul", at.op("sub", large, one), at.op("add", large, one)))
    near = at.op("mul", at.op("log1p", excess), half)
    is_near = at.op("and", at.op("gt", large, half), at.op("lt", large, _c(a, at, 2)))
    found = at.op("select", is_near, near, far)
    found = at.op("select", at.op("eq", large, _c(a, at, 0)), _c(a, at, -math.inf), found)
    infinite = at.op("or", is_infinite(at, a), is_infinite(at, b))
    return at.op("select", infinite, _c(a, at, math.inf), found)


def log2(at: Point, x: Pair) -> Pair:
    """The logarithm to base 2."""
    return scaled(at, log(at, x), 1 / LN2)


def log10(at: Point, x: Pair) -> Pair:
    """The logarithm to base 10."""
    return scaled(at, log(at, x), 1 / LN10)


def log1p(at: Point, x: Pair) -> Pair:
    """log(1 + x), accurate near 0: |1 + x|^2 - 1 = a (2 + a) + b^2."""
    a, b = x
    moved = Pair(at.op("add", a, _c(a, at, 1)), b)
    excess = at.op("fma", b, b, at.op("mul", a, at.op("add", a, _c(a, at, 2))))
    near = at.op("mul", at.op("log1p", excess), _c(a, at, 0.5))
    is_near = at.op("lt", at.op("max", at.op("abs", a), at.op("abs", b)), _c(a, at, 0.5))
    whole = log(at, moved)
    return Pair(at.op("select", is_near, near, whole.real), whole.imag)


def logistic(at: Point, x: Pair) -> Pair:
    """1 / (1 + e^-x)."""
    one = Pair(_c(x.real, at, 1), _c(x.real, at, 0))
    return div(at, one, add(at, one, exp(at, Pair(at.op("neg", x.real), at.op("neg", x.imag)))))


def sqrt(at: Point, x: Pair) -> Pair:
    """The root with a real part that is not negative."""
    a, b = x
    zero, one, half, two = (_c(a, at, v) for v in (0, 1, 0.5, 2))
    below, power = (2.0**-60, 40) if a.kind == "f32" else (2.0**-900, 200)
    tiny = at.op("lt", at.op("max", at.op("abs", a), at.op("abs", b)), _c(a, at, below))  # halves lose a bit there
    up = at.op("select", tiny, _c(a, at, 2.0**power), one)
    p, q = at.op("mul", a, at.op("mul", up, half)), at.op("mul", b, at.op("mul", up, half))
    root = at.op("sqrt", at.op("add", at.op("abs", p), hypot(at, p, q)))  # sqrt((|a| + |x|) / 2)
    root = at.op("mul", root, at.op("select", tiny, _c(a, at, 2.0 ** -(power // 2)), one))
    other = at.op("div", at.op("abs", b), at.op("mul", root, two))
    right = at.op("ge", a, zero)
    real, imag = at.op("select", right, root, other), at.op("select", right, other, root)
    imag = at.op("copysign", imag, b)
    none = at.op("and", at.op("eq", a, zero), at.op("eq", b, zero))
    return _sqrt_far(at, x, Pair(at.op("select", none, zero, real), at.op("select", none, b, imag)))


def _sqrt_far(at, x, near):
    """Infinities: an infinite imaginary part wins; -inf + ib is on the cut."""
    a, b = x
    inf = _c(a, at, math.inf)
    nothing = at.op("sub", b, b)  # 0, or NaN for NaN
    left, right = at.op("eq", a, _c(a, at, -math.inf)), at.op("eq", a, inf)
    real = at.op("select", left, at.op("abs", nothing), at.op("select", right, inf, near.real))
    imag = at.op("select", left, at.op("copysign", inf, b),
                 at.op("select", right, at.op("copysign", nothing, b), near.imag))
    far = is_infinite(at, b)
    return Pair(at.op("select", far, inf, real), at.op("select", far, b, imag))


def pow(at: Point, x: Pair, y: Pair) -> Pair:
    """x^y = e^(y log x), of float32 in float64; x^0 = 1, and 0^y = 0 where y has a positive real part, else NaN."""
    if x.real.kind == "f32":
        wide = [Pair(*[at.op("convert", v, kind="f64") for v in z]) for z in (x, y)]
        found = pow(at, *wide)
        return Pair(*[at.op("convert", v, kind="f32") for v in found])
    zero, one, nan = (_c(x.real, at, v) for v in (0, 1, math.nan))
    found = exp(at, mul(at, y, log(at, x)))
    no_base = at.op("and", at.op("eq", x.real, zero), at.op("eq", x.imag, zero))
    no_power = at.op("and", at.op("eq", y.real, zero), at.op("eq", y.imag, zero))
    of_zero = at.op("select", at.op("gt", y.real, zero), zero, nan)
    found = at.select(no_base, Pair(of_zero, of_zero), found)
    return at.select(no_power, Pair(one, zero), found)


# --- trigonometric and hyperbolic ---


def turned(at: Point, x: Pair) -> Pair:
    """i x."""
    return Pair(at.op("neg", x.imag), x.real)


def turned_back(at: Point, x: Pair) -> Pair:
    """-i x."""
    return Pair(x.imag, at.op("neg", x.real))


def sinh(at: Point, x: Pair) -> Pair:
    """sinh a cos b + i cosh a sin b."""
    a, b = x
    return _turned_by(at, x, at.op("sinh", a), at.op("cosh", a), at.op("cos", b), at.op("sin", b))


def cosh(at: Point, x: Pair) -> Pair:
    """cosh a cos b + i sinh a sin b."""
    a, b = x
    return _turned_by(at, x, at.op("cosh", a), at.op("sinh", a), at.op("cos", b), at.op("sin", b))


def _turned_by(at, x, p, q, cosine, sine):
    """p cos b + i q sin b: 0 where a factor is, even beside NaN; and infinite where a is."""
    a, b = x

    def part(size, turn):
        zero = _c(a, at, 0)
        found = at.op("select", at.op("eq", turn, zero), turn, at.op("mul", size, turn))
        return at.op("select", at.op("and", at.op("eq", size, zero), at.op("is_nan", turn)), size, found)

    lost = at.op("and", is_infinite(at, a), at.op("is_nan", cosine))
    return Pair(at.op("select", lost, at.op("abs", p), part(p, cosine)), part(q, sine))


def sin(at: Point, x: Pair) -> Pair:
    """i sinh(-i x)."""
    return turned(at, sinh(at, turned_back(at, x)))


def cos(at: Point, x: Pair) -> Pair:
    """cosh(i x)."""
    return cosh(at, turned(at, x))


def tanh(at: Point, x: Pair) -> Pair:
    """By t = tan b and s = sinh a: (beta rho s + i t) / (1 + beta s^2), beta = 1 + t^2, rho = sqrt(1 + s^2)."""
    a, b = x
    one = _c(a, at, 1)
    t, s = at.op("tan", b), at.op("sinh", a)
    beta, s2 = at.op("add", one, at.op("mul", t, t)), at.op("mul", s, s)
    rho = at.op("sqrt", at.op("add", one, s2))
    below = at.op("add", one, at.op("mul", beta, s2))
    real = at.op("div", at.op("mul", at.op("mul", beta, rho), s), below)
    imag = at.op("div", t, below)
    zero = _c(a, at, 0)
    real = at.op("select", at.op("eq", a, zero), a, real)
    imag = at.op("select", at.op("eq", b, zero), b, imag)
    is_flat = at.op("gt", at.op("abs", a), _c(a, at, _TANH_FLAT))
    return at.select(is_flat, _flat_tanh(at, x), Pair(real, imag))


def _flat_tanh(at, x):
    """Of large |a|: 1 with the sign of a, and 4 sin b cos b e^(-2 |a|); 0 at infinity, whatever b is."""
    a, b = x
    decay = at.op("exp", at.op("mul", at.op("abs", a), _c(a, at, -2)))
    turn = at.op("mul", at.op("mul", at.op("sin", b), at.op("cos", b)), _c(a, at, 4))
    no_turn = at.op("copysign", _c(a, at, 0), b)
    lost = at.op("not", at.op("is_finite", b))
    turn = at.op("select", at.op("and", lost, is_infinite(at, a)), no_turn, turn)
    one = at.op("select", at.op("is_nan", turn), turn, at.op("copysign", _c(a, at, 1), a))
    return Pair(one, at.op("mul", turn, decay))


def tan(at: Point, x: Pair) -> Pair:
    """-i tanh(i x)."""
    return turned_back(at, tanh(at, turned(at, x)))


# --- inverse functions ---


def _roots_beside(at, x):
    """sqrt(1 - x) and sqrt(1 + x)."""
    one = _c(x.real, at, 1)
    minus = sqrt(at, Pair(at.op("sub", one, x.real), at.op("neg", x.imag)))
    return minus, sqrt(at, Pair(at.op("add", one, x.real), x.imag))


def _at_infinity(at, x, far, found, on_axis):
    """`far` where a part of x is infinite, `found` elsewhere; the real part is `on_axis` where that of x is 0."""
    real = at.op("select", at.op("eq", x.real, _c(x.real, at, 0)), on_axis, found.real)
    infinite = at.op("or", is_infinite(at, x.real), is_infinite(at, x.imag))
    return at.select(infinite, far, Pair(real, found.imag))


def asin(at: Point, x: Pair) -> Pair:
    """The inverse sine, cut along |x| > 1."""
    p, q = _roots_beside(at, x)
    real = at.op("atan2", x.real, at.op("sub", at.op("mul", p.real, q.real), at.op("mul", p.imag, q.imag)))
    imag = at.op("sub", at.op("mul", p.real, q.imag), at.op("mul", p.imag, q.real))
    found = Pair(real, at.op("asinh", imag))
    angle = at.op("atan2", x.real, at.op("abs", x.imag))
    far = Pair(angle, at.op("copysign", _c(x.real, at, math.inf), x.imag))
    return _at_infinity(at, x, far, found, x.real)


def acos(at: Point, x: Pair) -> Pair:
    """The inverse cosine, cut along |x| > 1."""
    p, q = _roots_beside(at, x)
    real = at.op("mul", at.op("atan2", p.real, q.real), _c(x.real, at, 2))
    imag = at.op("sub", at.op("mul", q.real, p.imag), at.op("mul", q.imag, p.real))
    found = Pair(real, at.op("asinh", imag))
    angle = at.op("atan2", at.op("abs", x.imag), x.real)
    far = Pair(angle, at.op("copysign", _c(x.real, at, math.inf), at.op("neg", x.imag)))
    return _at_infinity(at, x, far, found, _c(x.real, at, math.pi / 2))


def asinh(at: Point, x: Pair) -> Pair:
    """i asin(-i x)."""
    return turned(at, asin(at, turned_back(at, x)))


def acosh(at: Point, x: Pair) -> Pair:
    """The inverse hyperbolic cosine, cut along x < 1: i acos(x) or -i acos(x), on the side of a real part >= 0."""
    found = acos(at, x)
    return Pair(at.op("abs", found.imag), at.op("copysign", found.real, x.imag))


def atanh(at: Point, x: Pair) -> Pair:
    """log1p(4 a / ((1 - a)^2 + b^2)) / 4 + i atan2(2 b, (1 - a) (1 + a) - b^2) / 2."""
    a, b = x
    one = _c(a, at, 1)
    size = at.op("abs", a)
    low, high, b2 = at.op("sub", one, size), at.op("add", one, size), at.op("mul", b, b)
    below = at.op("add", at.op("mul", low, low), b2)
    grown = at.op("div", at.op("mul", size, _c(a, at, 4)), below)
    real = at.op("copysign", at.op("mul", at.op("log1p", grown), _c(a, at, 0.25)), a)
    angle = at.op("atan2", at.op("add", b, b), at.op("sub", at.op("mul", low, high), b2))
    found = Pair(real, at.op("mul", angle, _c(a, at, 0.5)))
    quarter = at.op("select", at.op("is_nan", b), b, at.op("copysign", _c(a, at, math.pi / 2), b))
    far = Pair(at.op("copysign", _c(a, at, 0), a), quarter)
    return _at_infinity(at, x, far, found, a)


def atan(at: Point, x: Pair) -> Pair:
    """-i atanh(i x)."""
    return turned_back(at, atanh(at, turned(at, x)))

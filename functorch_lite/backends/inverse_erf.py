# SPDX-License-Identifier: MIT
"""The inverse error function of Giles, and fused multiply-add, with the roundings of XLA's CPU code.

`normal` samples are sqrt(2) erf_inv(u). Near |u| = 1 the rounding of u * u decides most of the result's bits, so other
evaluations (SciPy's, say, which is more accurate) differ by dozens of units in the last place: to give the samples of
`jax.random.normal`, its evaluation is repeated here operation by operation.

    w = -log1p(-u * u);  u * P(w - 2.5) for w < 5,  u * Q(sqrt(w) - 3) beyond       (float32; float64 has three ranges)

float32 is exact: a fused multiply-add is computed in float64, where the product has no rounding. float64 polynomials
use a rounded product and sum, at most 2 eps from XLA's. 16-bit floats are computed in float32.

Source: M. Giles, "Approximating the erfinv function", GPU Computing Gems, volume 2, 2012; logarithms: S. L. Moshier,
Cephes mathematical library (`logf`, `log1p`), in the form XLA emits.
"""

from typing import Any, NamedTuple

import numpy as np

CHUNK = 1 << 15  # elements: the work arrays, 1.2 MB, stay in the second-level cache

_f32, _f64 = np.dtype(np.float32), np.dtype(np.float64)


def _floats(dtype: Any, unsigned: Any, *words: str) -> tuple[Any, ...]:
    return tuple(np.array([int(w, 16) for w in words], unsigned).view(dtype))


# Giles' coefficients, highest power first.
_CENTRE32 = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
             -0.00417768164, 0.246640727, 1.50140941)
_TAIL32 = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
           1.00167406, 2.83297682)
_CENTRE64 = (
    -3.6444120640178196996e-21, -1.685059138182016589e-19, 1.2858480715256400167e-18, 1.115787767802518096e-17,
    -1.333171662854620906e-16, 2.0972767875968561637e-17, 6.6376381343583238325e-15, -4.0545662729752068639e-14,
    -8.1519341976054721522e-14, 2.6335093153082322977e-12, -1.2975133253453532498e-11, -5.4154120542946279317e-11,
    1.051212273321532285e-09, -4.1126339803469836976e-09, -2.9070369957882005086e-08, 4.2347877827932403518e-07,
    -1.3654692000834678645e-06, -1.3882523362786468719e-05, 0.0001867342080340571352, -0.00074070253416626697512,
    -0.0060336708714301490533, 0.24015818242558961693, 1.6536545626831027356)
_MIDDLE64 = (
    2.2137376921775787049e-09, 9.0756561938885390979e-08, -2.7517406297064545428e-07, 1.8239629214389227755e-08,
    1.5027403968909827627e-06, -4.013867526981545969e-06, 2.9234449089955446044e-06, 1.2475304481671778723e-05,
    -4.7318229009055733981e-05, 6.8284851459573175448e-05, 2.4031110387097893999e-05, -0.0003550375203628474796,
    0.00095328937973738049703, -0.0016882755560235047313, 0.0024914420961078508066, -0.0037512085075692412107,
    0.005370914553590063617, 1.0052589676941592334, 3.0838856104922207635)
_TAIL64 = (
    -2.7109920616438573243e-11, -2.5556418169965252055e-10, 1.5076572693500548083e-09, -3.7894654401267369937e-09,
    7.6157012080783393804e-09, -1.4960026627149240478e-08, 2.9147953450901080826e-08, -6.7711997758452339498e-08,
    2.2900482228026654717e-07, -9.9298272942317002539e-07, 4.5260625972231537039e-06, -1.9681778105531670567e-05,
    7.5995277030017761139e-05, -0.00021503011930044477347, -0.00013871931833623122026, 1.0103004648645343977,
    4.8499064014085844221)

# log1p: x - x^2 / 2 + x^3 N(x) / D(x) where |x| is below sqrt(2) - 1.
_NUMERATOR32 = _floats("f4", "u4", "383DE04B", "3EFF40C5", "40D284FA", "41EF4B9C", "4273CC76", "426473AD", "41A05101")
_DENOMINATOR32 = _floats("f4", "u4", "3F800000", "417101AD", "42A6185B", "435DC32D", "439A8CA3", "43586D8A", "42707982")
_NUMERATOR64 = _floats("f8", "u8", "3F07BC0962B395CA", "3FDFE818A0FE1A83", "401A509F46F4FA53", "403DE9738B8CB9C9",
                       "404E798EB86C3351", "404C8E7597479A10", "40340A202D99830A")
_DENOMINATOR64 = _floats("f8", "u8", "3FF0000000000000", "402E20359E903E37", "4054C30B52213498", "406BB86590FCFB56",
                         "407351945DC908A5", "406B0DB13E48E066", "404E0F304466448E")
_SMALL32, _SMALL64 = *_floats("f4", "u4", "3ED413CD"), *_floats("f8", "u8", "3FDA827999FCEF32")

# log: three interleaved cubics in z = m - 1, for a mantissa m in [sqrt(1/2), sqrt(2)).
_LOG = _floats("f4", "u4", "3D9021BB", "BDEBD1B8", "3DEF251A", "BDFE5D4F", "3E11E9BF", "BE2AAE50", "3E4CCEAC",
               "BE7FFFFC", "3EAAAAAA")
_LN2_LOW, _LN2_HIGH, _SQRT_HALF = _floats("f4", "u4", "B95E8083", "3F318000", "3F3504F3")
_TINY = np.float32(np.finfo(np.float32).tiny)


def erf_inv(xp: Any, x: Any, out: Any = None) -> Any:
    """The y with erf(y) = x, of the shape and dtype of `x` (a real float): infinite at -1 and 1, NaN beyond.

    out: a C-contiguous array for the result, which may be `x` itself.

    >>> erf_inv(np, np.float32([0, 0.5, -1]))
    array([0.        , 0.47693628,       -inf], dtype=float32)
    """
    out = xp.empty(x.shape, x.dtype) if out is None else out
    if x.dtype.itemsize < 4:
        out[...] = erf_inv(xp, x.astype(_f32)).astype(x.dtype)
        return out
    flat, target = xp.ascontiguousarray(x).reshape(-1), out.reshape(-1)
    length = min(flat.size, CHUNK) if xp is np else flat.size
    work = _work(xp, length if x.dtype == _f32 else 0)
    with np.errstate(all="ignore"):
        for start in range(0, flat.size, length or 1):
            part, into = flat[start : start + length], target[start : start + length]
            if x.dtype == _f32:
                _erf_inv32(xp, part, into, work.cut(part.size))
            else:
                _erf_inv64(xp, part, into)
    return out


def fused_multiply_add(xp: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z with one rounding, for operands of one float dtype (scalars broadcast).

    float64: by error-free transformations, one rounding in all but about 1 of 50000 cases, where it is two.
    Source: T. J. Dekker, "A floating-point technique for extending the available precision", 1971.
    """
    dtype = x.dtype
    if dtype.itemsize < 8:
        wide = _f64 if dtype == _f32 else _f32
        return (x.astype(wide) * y.astype(wide) + z.astype(wide)).astype(dtype)
    product = x * y
    total = product + z
    back = total - product
    return total + (_product_error(x, y, product) + ((product - (total - back)) + (z - back)))


def _product_error(x, y, product):
    high_x, low_x = _halves(x)
    high_y, low_y = _halves(y)
    return ((high_x * high_y - product) + high_x * low_y + low_x * high_y) + low_x * low_y


def _halves(x):
    scaled = x * np.float64(134217729.0)  # 2^27 + 1
    high = scaled - (scaled - x)
    return high, x - high


# --- float32, on flat arrays; every step writes to a work array ------------------------------------------------------


class _Work(NamedTuple):
    """Work arrays of one chunk: `half` [5, n] float32, `whole` [2, n] float64, `mask` [n] bool."""

    half: Any
    whole: Any
    mask: Any

    def cut(self, n: int) -> "_Work":
        """The first `n` elements of each."""
        return _Work(self.half[:, :n], self.whole[:, :n], self.mask[:n])


def _work(xp, n):
    return _Work(xp.empty((5, n), _f32), xp.empty((2, n), _f64), xp.empty(n, bool))


def _round(xp, wide, out):
    xp.copyto(out, wide, casting="same_kind")
    return out


def _horner32(xp, coefficients, wide, step, out):
    """The polynomial at `wide`, with one rounding to float32 a step."""
    first, second, *rest = coefficients
    xp.multiply(wide, np.float64(np.float32(first)), out=step)
    xp.add(step, np.float64(np.float32(second)), out=step)
    for c in rest:
        xp.copyto(step, _round(xp, step, out))
        xp.multiply(step, wide, out=step)
        xp.add(step, np.float64(np.float32(c)), out=step)
    return _round(xp, step, out)


def _fma32(xp, x, y, z, whole, out):
    """x * y + z with one rounding; `y` may be a float64 scalar."""
    product, other = whole
    xp.copyto(product, x)
    if np.ndim(y):
        xp.copyto(other, y)
        y = other
    xp.multiply(product, y, out=product)
    xp.copyto(other, z)
    xp.add(product, other, out=product)
    return _round(xp, product, out)


def _erf_inv32(xp, x, out, work):
    w, t = work.half[:2]
    xp.multiply(x, x, out=t)
    xp.negative(t, out=t)
    _log1p32(xp, t, w, work)
    xp.negative(w, out=w)
    wide, step = work.whole
    xp.subtract(w, np.float32(2.5), out=t)
    xp.copyto(wide, t)
    _horner32(xp, _CENTRE32, wide, step, t)
    far = xp.flatnonzero(xp.logical_not(xp.less(w, np.float32(5), out=work.mask), out=work.mask))
    if far.size:
        wide = (xp.sqrt(w[far]) - np.float32(3)).astype(_f64)
        t[far] = _horner32(xp, _TAIL32, wide, xp.empty_like(wide), xp.empty(far.shape, _f32))
    _times(xp, t, x, far, out)


def _times(xp, factor, x, far, out):
    """factor * x to `out`, which may be `x`; x times infinity where x is -1 or 1, which are among the places `far`."""
    ends = far[xp.abs(x[far]) == 1]
    if ends.size:
        factor[ends] = np.inf
    xp.multiply(factor, x, out=out)


def _log1p32(xp, x, out, work):
    """log(1 + x) of `x` <= 0 to `out`: the first two rows of `work.half` stay as they are."""
    small = xp.greater(x, -_SMALL32, out=work.mask)
    near = xp.flatnonzero(small)
    far = xp.flatnonzero(xp.logical_not(small, out=small))
    for places, function in ((near, _log1p_small32), (far, _log_after_add32)):
        if places.size:
            out[places] = function(xp, x[places], work.cut(places.size))


def _log1p_small32(xp, x, work):
    ratio, square = work.half[2:4]
    wide, step = work.whole
    xp.copyto(wide, x)
    _horner32(xp, _NUMERATOR32, wide, step, ratio)
    xp.divide(ratio, _horner32(xp, _DENOMINATOR32, wide, step, square), out=ratio)
    xp.multiply(x, x, out=square)
    xp.multiply(x * square, ratio, out=ratio)
    return xp.add(x, _fma32(xp, square, np.float64(-0.5), ratio, work.whole, ratio), out=ratio)


def _log_after_add32(xp, x, work):
    """log(x + 1), the sum rounded."""
    x = x + np.float32(1)
    z, exponent = _mantissa_and_exponent(xp, x)
    square = z * z
    cube = square * z
    a, b, c = work.half[2:5]
    wide, step = work.whole
    xp.copyto(wide, z)
    for i, out in enumerate((a, b, c)):
        _horner32(xp, _LOG[3 * i : 3 * i + 3], wide, step, out)
    y = _fma32(xp, a, cube, b, work.whole, a)
    y = _fma32(xp, y, cube, c, work.whole, a)
    y = _fma32(xp, y, cube, exponent * _LN2_LOW, work.whole, a)
    xp.add(_fma32(xp, square, np.float64(-0.5), z, work.whole, b), y, out=y)
    y = _fma32(xp, exponent, np.float64(_LN2_HIGH), y, work.whole, a)
    return xp.where(x > 0, y, xp.where(x == 0, np.float32(-np.inf), np.float32(np.nan)))


def _mantissa_and_exponent(xp, x):
    """(m - 1, e) with x = m 2^e and m in [sqrt(1/2), sqrt(2)), for normal x > 0."""
    bits = xp.maximum(x, _TINY).view(np.uint32)
    exponent = (bits >> np.uint32(23)).astype(_f32) - np.float32(126)
    mantissa = ((bits & np.uint32(0x807FFFFF)) | np.uint32(0x3F000000)).view(_f32)
    low = mantissa < _SQRT_HALF
    exponent -= low
    return (mantissa - np.float32(1)) + mantissa * low, exponent


# --- float64, on flat arrays -----------------------------------------------------------------------------------------


def _horner64(x, coefficients):
    value = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        value *= x
        value += c
    return value


def _erf_inv64(xp, x, out):
    w = -_log1p64(xp, x * -x)
    factor = _horner64(w - 3.125, _CENTRE64)
    far = xp.flatnonzero(~(w < 6.25))
    if far.size:
        root = xp.sqrt(w[far])
        factor[far] = xp.where(w[far] < 16, _horner64(root - 3.25, _MIDDLE64), _horner64(root - 5, _TAIL64))
    _times(xp, factor, x, far, out)


def _log1p64(xp, x):
    square = x * x
    ratio = _horner64(x, _NUMERATOR64) / _horner64(x, _DENOMINATOR64)
    near = x + (square * -0.5 + (x * square) * ratio)
    return xp.where(xp.abs(x) < _SMALL64, near, xp.log(x + 1))

# SPDX-License-Identifier: MIT
"""Complex numbers: real, imag, conj, complex, and abs and sign, whose derivatives need the parts.

The convention is JAX's: a transposition never conjugates, and the derivative at a kink is 0.
"""

from typing import Any

from functorch_lite.core import dtypes
from functorch_lite.core.linear import is_linear
from functorch_lite.core.rules import jvp_rules, transpose_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.primitives.broadcast import fit
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import zero_like
from functorch_lite.primitives.declare import derivatives, elementwise, linear, not_linear, ufunc
from functorch_lite.primitives.elementwise import add_any, neg, safe_div_p, scale

# --- real, imag, conj, complex ---------------------------------------------------------------------------------------
real_p = elementwise("real", lambda xp, x: xp.real(x).copy(), allowed="c", out=dtypes.real_dtype)
imag_p = elementwise("imag", lambda xp, x: xp.imag(x).copy(), allowed="c", out=dtypes.real_dtype)
conj_p = elementwise("conj", ufunc("conjugate"), allowed="c")


def _complex(xp, x, y):
    out = xp.empty(x.shape or y.shape, dtypes.complex_dtype(x.dtype))
    out.real, out.imag = x, y
    return out


complex_p = elementwise("complex", _complex, allowed="f", out=dtypes.complex_dtype)


def real(x: Any) -> Any:
    """The real part of a complex array."""
    return bind1(real_p, x)


def imag(x: Any) -> Any:
    """The imaginary part of a complex array."""
    return bind1(imag_p, x)


def conj(x: Any) -> Any:
    """The complex conjugate."""
    return bind1(conj_p, x)


def make_complex(x: Any, y: Any) -> Any:
    """x + iy."""
    return bind1(complex_p, x, y)


# JAX's convention: transposition does not conjugate, so Re^T ct = ct + 0i and Im^T ct = -i ct (z -> -i z is Im's row).
linear(real_p, lambda ct, x: convert(ct, x.dtype))
linear(imag_p, lambda ct, x: make_complex(zero_like(ct), neg(ct)))
linear(conj_p, lambda ct, x: conj(ct))
jvp_rules.add(
    complex_p,
    (
        lambda t, out, x, y: convert(t, out.dtype),
        lambda t, out, x, y: make_complex(zero_like(t), t),
    ),
)


@transpose_rules.register(complex_p)
def _(ct, x, y):
    return fit(real(ct), x) if is_linear(x) else None, fit(neg(imag(ct)), y) if is_linear(y) else None

# --- abs, sign and rounding: derivative 0 or the middle at a kink ----------------------------------------------------
sign_p = elementwise("sign", ufunc("sign"), allowed="iufc")
abs_p = elementwise("abs", ufunc("absolute"), allowed="iufc", out=dtypes.real_dtype)


def sign(x: Any) -> Any:
    """-1, 0 or 1; for complex x, x / |x| and 0 at 0."""
    return bind1(sign_p, x)


def absolute(x: Any) -> Any:
    """|x|; real for complex x. Its derivative at 0 is 0."""
    return bind1(abs_p, x)


def _abs_jvp(t, out, x):
    if not dtypes.is_complex(x.dtype):
        return scale(sign(x), t)
    unit = sign(x)  # d|z| = Re(conj(z) / |z| dz)
    return add_any(scale(real(unit), real(t)), scale(imag(unit), imag(t)))


def _sign_jvp(t, out, x):
    if not dtypes.is_complex(x.dtype):
        return None
    size = absolute(x)  # d(z/|z|) = i u Im(conj(u) dz) / |z|
    turn = imag(scale(conj(out), t))
    return scale(out, make_complex(zero_like(turn), bind1(safe_div_p, turn, size)))


derivatives(abs_p, _abs_jvp)
derivatives(sign_p, _sign_jvp)
not_linear(abs_p, sign_p)

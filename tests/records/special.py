# SPDX-License-Identifier: MIT
"""Records of the special functions, against SciPy."""

import numpy as np
import scipy.special as scipy

from functorch_lite.primitives import special as p
from tests.records.op_record import OpRecord, Sample, calls, normal, positive

FLOATS = ("float32", "float16", "bfloat16")


def signed(rng):
    """Moderate numbers of either sign."""
    return (normal(rng, 2, 3),)


def unit(rng):
    """Numbers inside (0, 1)."""
    return (rng.uniform(0.1, 0.9, (2, 3)),)


def above(rng):
    """Numbers inside (0.5, 2.5)."""
    return (positive(rng, 2, 3),)


def unary(name, fun, reference, *makers, **more):
    """A record of a function of one argument."""
    return OpRecord(name, fun, calls(*makers), reference, more.pop("dtypes", FLOATS), **more)


def scalar(value):
    """A sample of rank 0 (a NumPy array, not a Python number)."""
    return lambda rng: (np.array(value),)


RECORDS = [
    unary("erf", p.erf, scipy.erf, signed, scalar(0.3)),
    unary("erfc", p.erfc, scipy.erfc, signed, scalar(3.0)),
    unary("erfinv", p.erfinv, scipy.erfinv, lambda rng: (rng.uniform(-0.9, 0.9, 4),)),
    unary("erfcx", p.erfcx, scipy.erfcx, signed),
    unary("ndtri", p.ndtri, scipy.ndtri, unit),
    unary("log_ndtr", p.log_ndtr, scipy.log_ndtr, signed, scalar(-20.0)),
    unary("lgamma", p.lgamma, scipy.gammaln, above, lambda rng: (np.array([-0.5, -1.5, 30.0]),)),
    unary("gamma", p.gamma, scipy.gamma, above),
    unary("digamma", p.digamma, scipy.digamma, above),
    unary("polygamma", lambda x: p.polygamma(1, x), lambda x: scipy.polygamma(1, x), above),
    unary("polygamma_two", lambda x: p.polygamma(2, x), lambda x: scipy.polygamma(2, x), above, dtypes=("float32",)),
    unary("polygamma_zero", lambda x: p.polygamma(0, x), lambda x: scipy.polygamma(0, x), above),
    OpRecord(
        "zeta", p.zeta, calls(lambda rng: (rng.uniform(1.5, 4.0, 4), positive(rng, 4))), scipy.zeta, FLOATS,
        wrt=(False, True),
    ),
    *(
        unary(f"bessel_{kind}_{order}", lambda x, f=fun, n=order: f(n, x), lambda x, r=reference, n=order: r(n, x),
              signed, dtypes=("float32",), eval_rtol=1e-11, reason="scipy.jv and iv are less exact than j0, j1, i0, i1")
        for kind, fun, reference in (
            ("j", p.bessel_j, scipy.jv), ("i", p.bessel_i, scipy.iv), ("ie", p.bessel_ie, scipy.ive)
        )
        for order in (0, 1, 2, 3)
    ),
    unary("bessel_i_at_zero", lambda x: p.bessel_i(1, x), scipy.i1, lambda rng: (np.zeros(2),), dtypes=("float32",)),
    OpRecord(
        "gammainc", p.gammainc, calls(lambda rng: (positive(rng, 4), positive(rng, 4))), scipy.gammainc, FLOATS,
        order=1,
    ),
    OpRecord(
        "gammaincc", p.gammaincc, calls(lambda rng: (positive(rng, 4), positive(rng, 4))), scipy.gammaincc, FLOATS,
        order=1,
    ),
    OpRecord(
        "gammainc_second_derivative_in_x", p.gammainc, calls(lambda rng: (positive(rng, 4), positive(rng, 4))),
        scipy.gammainc, wrt=(False, True),
    ),
    OpRecord(
        "gammainc_slope", p.gammainc_slope,
        calls(
            lambda rng: (np.array([0.3, 2.0, 5.0, 1.0, 30.0]), np.array([0.1, 4.0, 3.0, 1.5, 32.0])),
            lambda rng: Sample((np.array([2.0, 2.0]), np.array([0.0, np.inf])), "ends", smooth=False, derive=False),
        ),
        lambda a, x: np.where(
            np.isfinite(x), (scipy.gammainc(a + 1e-6, x) - scipy.gammainc(a - 1e-6, x)) / 2e-6, 0.0
        ),
        wrt=(False, True), eval_rtol=1e-7, reason="the reference is a difference quotient",
    ),
    OpRecord(
        "random_gamma_grad", p.random_gamma_grad, calls(lambda rng: (positive(rng, 4), positive(rng, 4))),
        lambda a, x: (
            scipy.gammaincinv(a + 1e-6, scipy.gammainc(a, x)) - scipy.gammaincinv(a - 1e-6, scipy.gammainc(a, x))
        ) / 2e-6,
        wrt=(False, True), eval_rtol=1e-7, reason="the reference is a difference quotient",
    ),
    OpRecord(
        "betainc", p.betainc, calls(lambda rng: (positive(rng, 4), positive(rng, 4), rng.uniform(0.1, 0.9, 4))),
        scipy.betainc, FLOATS, wrt=(False, False, True),
    ),
    OpRecord(
        "xlogy", p.xlogy,
        calls(
            lambda rng: (normal(rng, 4), positive(rng, 4)),
            lambda rng: Sample((np.zeros(2), np.array([0.0, 3.0])), "x = 0", smooth=False),
        ),
        scipy.xlogy, FLOATS,
    ),
    OpRecord(
        "xlog1py", p.xlog1py,
        calls(
            lambda rng: (normal(rng, 4), positive(rng, 4)),
            lambda rng: Sample((np.zeros(2), np.array([-1.0, 3.0])), "x = 0", smooth=False),
        ),
        scipy.xlog1py, FLOATS,
    ),
]

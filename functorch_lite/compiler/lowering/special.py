# SPDX-License-Identifier: MIT
"""Lowering of special functions that the code generator has. SciPy computes the others, in Python."""

from functorch_lite.compiler.lowering.rules import elementwise_rules, scalar
from functorch_lite.primitives import random_bits
from functorch_lite.primitives import special as p

for _prim in (p.erf_p, p.erfc_p, p.erfinv_p, p.lgamma_p, p.digamma_p, p.xlogy_p, p.xlog1py_p):
    elementwise_rules.add(_prim, scalar(_prim.name))
for _prim in (
    p.erfcx_p, p.ndtri_p, p.log_ndtr_p, p.gamma_p, p.polygamma_p, p.zeta_p, p.bessel_j_p, p.bessel_i_p,
    p.bessel_ie_p, p.gammainc_p, p.gammaincc_p, p.gammainc_slope_p, p.betainc_p,
):
    elementwise_rules.absent(_prim, "SciPy computes it, in Python")
elementwise_rules.absent(random_bits.random_gamma_p, "it tries a varying number of times; it runs in Python")

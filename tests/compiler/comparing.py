# SPDX-License-Identifier: MIT
"""Comparing a lowering, compiled, with the eval rule of its primitive."""

import ml_dtypes
import numpy as np

from functorch_lite.core.rules import eval_rules
from tests.compiler.support import run_rule

RTOL = {"f4": 2e-6, "c8": 2e-6, "f8": 1e-13, "c16": 1e-13, "f2": 1e-3, "V2": 8e-3}


def array(rng, shape, dtype):
    """Random numbers of a dtype given by name: about -9 to 9, from 0 where it is unsigned."""
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    drawn = rng.standard_normal(shape) * 3
    if dtype.kind == "c":
        drawn = drawn + 1j * rng.standard_normal(shape)
    return (abs(drawn) if dtype.kind == "u" else drawn).astype(dtype)


def assert_same(found, expected, exact=True, signs=False):
    """The same dtypes, shapes and values (and signs of zeros), or values within a few units in the last place."""
    found = found if isinstance(found, list) else [found]
    expected = expected if isinstance(expected, list) else [expected]
    for f, e in zip(found, expected, strict=True):
        e = np.asarray(e)
        assert f.dtype == e.dtype and f.shape == e.shape
        rtol = RTOL.get(f.dtype.str[1:], 0)
        if f.dtype.kind == "V":
            f, e = f.astype(np.float32), e.astype(np.float32)
        if exact:
            np.testing.assert_array_equal(f, e)
            if signs and f.dtype.kind == "f":
                np.testing.assert_array_equal(np.signbit(f), np.signbit(e))
        else:
            np.testing.assert_allclose(f, e, rtol, rtol * np.abs(e).max(initial=0, where=np.isfinite(e)))


def check(prim, *arrays, exact=True, signs=False, **params):
    """The lowering's outputs are the eval rule's."""
    arrays = [np.asarray(a) for a in arrays]
    with np.errstate(all="ignore"):
        expected = eval_rules[prim](np, *arrays, **params)
    assert_same(run_rule(prim, *arrays, **params), expected, exact, signs)

# SPDX-License-Identifier: MIT
"""Law: an operation's value is its NumPy reference's, in every dtype of its record."""

import numpy as np
import pytest

from functorch_lite.core import dtypes
from tests.laws.support import cases
from tests.records import ALL_RECORDS

# Per dtype: a few units in the last place of an accumulation of some tens of terms.
RTOL = {"float16": 1e-2, "bfloat16": 8e-2, "float32": 2e-5, "complex64": 2e-5}


def as_list(out):
    return list(out) if isinstance(out, (list, tuple)) else [out]


@cases(lambda record, sample: record.reference is not None)
def test_value_equals_the_reference(record, number):
    args = record.draw()[number].args
    found, expected = record.flat(*args), as_list(record.reference(*args))
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        e = np.asarray(e)
        assert f.dtype == e.dtype and f.shape == e.shape
        np.testing.assert_allclose(f, e, rtol=record.eval_rtol, atol=record.eval_rtol)


def dtype_cases():
    for record in ALL_RECORDS:
        for name in record.dtypes:
            for number, sample in enumerate(record.draw()):
                wanted = "c" if name.startswith("complex") else "f"
                if any(np.asarray(a).dtype.kind == wanted for a in sample.args):
                    yield pytest.param(record, number, name, id=f"{record.name}-{number}-{name}")


def cast(args, name):
    """Floating-point (or complex) arguments in another dtype."""
    dtype = dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)
    kinds = "c" if dtype.kind == "c" else "f"
    others = {"f": dtypes.real_dtype(dtype), "c": dtypes.complex_dtype(dtype)}
    return [np.asarray(a).astype(others[k]) if (k := np.asarray(a).dtype.kind) in kinds + "f" else a for a in args]


@pytest.mark.parametrize(("record", "number", "name"), list(dtype_cases()))
def test_value_in_other_dtypes(record, number, name):
    sample = record.draw()[number]
    args = cast(sample.args, name)
    wide = [a.astype(o.dtype) if dtypes.is_inexact(a.dtype) else a for a, o in zip(args, sample.args, strict=True)]
    for f, e in zip(record.flat(*args), record.flat(*wide), strict=True):
        f, e = np.asarray(f), np.asarray(e)
        if not dtypes.is_inexact(e.dtype):
            assert f.dtype == e.dtype
        e = e.astype(np.complex128 if dtypes.is_complex(e.dtype) else np.float64)
        np.testing.assert_allclose(f.astype(e.dtype), e, rtol=RTOL[name], atol=RTOL[name])

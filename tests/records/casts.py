# SPDX-License-Identifier: MIT
"""Records of casts, rounding and complex parts."""

import numpy as np

from functorch_lite.core.tracer import bind
from functorch_lite.primitives import casts, complex_parts, rounding
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, distinct, normal

FLOATS = ("float32", "float16", "bfloat16")
_POINTS = np.array([-2.5, -1.5, -0.5, 0.5, 1.2, 2.5, 3.7])


def _rounding(name, fun, plain):
    samples = calls(
        lambda rng: Sample((_POINTS,), "halves", smooth=False), lambda rng: (normal(rng, 3),),
        lambda rng: Sample((np.array([np.inf, -np.inf, np.nan]),), "infinite", smooth=False),
    )
    return OpRecord(name, fun, samples, plain, FLOATS, order=2, plain=plain)



def _complex_sign(z):
    size = np.abs(z)
    return np.where(size == 0, 0, z / np.where(size == 0, 1, size))


RECORDS = [
    OpRecord(
        "convert_complex_to_real", lambda x: casts.convert(x, np.float64), calls(lambda rng: (complex_normal(rng, 3),)),
        lambda x: x.real, order=1,
    ),
    OpRecord("convert_real_to_complex", lambda x: casts.convert(x, np.complex128), calls(lambda rng: (normal(rng, 3),)),
             lambda x: x.astype(complex), order=1),
    OpRecord(
        "convert_to_int", lambda x: casts.convert(x, np.int32),
        calls(lambda rng: (_POINTS,), lambda rng: (np.arange(3),), lambda rng: (np.array([True]),)),
        lambda x: x.astype(np.int32), FLOATS, order=0,
    ),
    OpRecord("convert_int_to_float", lambda x: casts.convert(x, np.float64), calls(lambda rng: (np.arange(3),)),
             lambda x: x.astype(float), order=0),
    OpRecord("convert_to_bool", lambda x: casts.convert(x, bool),
             calls(lambda rng: (np.array([0.0, 1.0, np.nan]),), lambda rng: (np.array([0, 1j]),)),
             lambda x: x.astype(bool),
             FLOATS, order=0),
    OpRecord("bitcast", lambda x: casts.bitcast(x, np.int64), calls(lambda rng: (normal(rng, 3),)),
             lambda x: x.view(np.int64), (), order=0),
    OpRecord("stop_gradient", casts.stop_gradient_of, calls(lambda rng: (normal(rng, 3),)),
             lambda x: x, FLOATS, order=0),
    OpRecord("name", lambda x: bind(casts.name_p, x, name="kept"), calls(lambda rng: (normal(rng, 3),)),
             lambda x: x, FLOATS),
    _rounding("floor", rounding.floor, np.floor),
    _rounding("ceil", rounding.ceil, np.ceil),
    _rounding("round", rounding.round_to_even, np.rint),
    _rounding("trunc", rounding.trunc, np.trunc),
    OpRecord("nextafter", rounding.nextafter, calls(lambda rng: Sample((normal(rng, 3), normal(rng, 3)), derive=False)),
             np.nextafter, ("float32",), plain=np.nextafter),
    OpRecord("real", complex_parts.real, calls(lambda rng: (complex_normal(rng, 3),)), np.real, ("complex64",)),
    OpRecord("imag", complex_parts.imag, calls(lambda rng: (complex_normal(rng, 3),)), np.imag, ("complex64",)),
    OpRecord("conj", complex_parts.conj, calls(lambda rng: (complex_normal(rng, 3),)), np.conj, ("complex64",)),
    OpRecord(
        "make_complex", complex_parts.make_complex,
        calls(lambda rng: (normal(rng, 3), normal(rng, 3)), lambda rng: (np.float64(rng.normal()), normal(rng, 3)),
              lambda rng: Sample((np.array([1.0, np.inf]), np.array([np.inf, np.nan])), "infinite", derive=False)),
        lambda x, y: np.array([complex(a, b) for a, b in np.broadcast(x, y)]), ("float32",),
    ),
    OpRecord(
        "abs", complex_parts.absolute,
        calls(lambda rng: (distinct(rng, 4),), lambda rng: (complex_normal(rng, 3),),
              lambda rng: (np.array([-3, 0, 2]),),
              lambda rng: Sample((np.array([0.0, -1.0]),), "kink", smooth=False),
              lambda rng: Sample((np.array([0j, 1 + 1j]),), "complex kink", smooth=False)),
        np.abs, (*FLOATS, "complex64"), plain=np.abs,
    ),
    OpRecord(
        "sign", complex_parts.sign,
        calls(lambda rng: (distinct(rng, 4),), lambda rng: (complex_normal(rng, 3),),
              lambda rng: (np.array([-3, 0, 2]),),
              lambda rng: Sample((np.array([0.0, -1.0, np.nan]),), "kink", smooth=False)),
        lambda x: _complex_sign(x) if x.dtype.kind == "c" else np.sign(x), (*FLOATS, "complex64"), plain=np.sign,
    ),
]

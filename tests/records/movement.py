# SPDX-License-Identifier: MIT
"""Records of the movement family."""

import numpy as np

from functorch_lite.primitives import movement as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, normal

ALL_FLOATS = ("float32", "float16", "bfloat16", "complex64")


def _pad_reference(x, value, config):
    shape = [n + lo + hi + max(n - 1, 0) * i for n, (lo, hi, i) in zip(x.shape, config, strict=True)]
    out = np.full(shape, value, x.dtype)
    for index in np.ndindex(*x.shape):
        place = tuple(lo + k * (i + 1) for k, (lo, _, i) in zip(index, config, strict=True))
        if all(0 <= a < n for a, n in zip(place, out.shape, strict=True)):
            out[place] = x[index]
    return out


def _pad(name, shape, config):
    return OpRecord(
        f"pad_{name}", lambda x, v: p.pad(x, v, config),
        calls(lambda rng: (normal(rng, *shape), np.float64(rng.standard_normal()))),
        lambda x, v: _pad_reference(x, v, config), ALL_FLOATS[:3], order=1,
    )


RECORDS = [
    OpRecord(
        "reshape", lambda x: p.reshape(x, (3, 2)),
        calls(lambda rng: (normal(rng, 2, 3),), lambda rng: (complex_normal(rng, 6),), lambda rng: (np.arange(6),)),
        lambda x: x.reshape(3, 2), ALL_FLOATS, order=1, plain=lambda x: np.reshape(x, (3, 2)),
    ),
    OpRecord("reshape_empty", lambda x: p.reshape(x, (0,)), calls(lambda rng: Sample((normal(rng, 0, 3),), "size 0")),
             lambda x: x.reshape(0), order=1),
    OpRecord("reshape_scalar", lambda x: p.reshape(x, ()), calls(lambda rng: (normal(rng, 1, 1),)),
             lambda x: x.reshape(()), order=1),
    OpRecord(
        "permute_dims", lambda x: p.permute_dims(x, (2, 0, 1)),
        calls(lambda rng: (normal(rng, 2, 3, 4),), lambda rng: Sample((normal(rng, 2, 0, 1),), "size 0")),
        lambda x: x.transpose(2, 0, 1), ALL_FLOATS, order=1, plain=lambda x: np.transpose(x, (2, 0, 1)),
    ),
    OpRecord("moveaxis", lambda x: p.moveaxis(x, 0, 2), calls(lambda rng: (normal(rng, 2, 3, 4),)),
             lambda x: np.moveaxis(x, 0, 2), order=1, plain=lambda x: np.moveaxis(x, 0, 2)),
    OpRecord(
        "slice", lambda x: p.slice(x, (1, 0), (5, 3), (2, 1)),
        calls(lambda rng: (normal(rng, 6, 3),), lambda rng: (complex_normal(rng, 5, 4),),
              lambda rng: (np.arange(15).reshape(5, 3),)),
        lambda x: x[1:5:2, 0:3], ALL_FLOATS, order=1, plain=lambda x: x[1:5:2, 0:3],
    ),
    OpRecord("slice_long_step", lambda x: p.slice(x, (1,), (7,), (4,)), calls(lambda rng: (normal(rng, 7),)),
             lambda x: x[1:7:4], order=1),
    OpRecord("slice_empty", lambda x: p.slice(x, (2,), (2,), (1,)), calls(lambda rng: (normal(rng, 4),)),
             lambda x: x[2:2], order=1),
    _pad("border", (2, 3), ((1, 2, 0), (0, 1, 0))),
    _pad("interior", (3, 2), ((0, 0, 1), (1, 0, 2))),
    _pad("negative", (4, 3), ((-1, -2, 0), (-1, 1, 0))),
    _pad("negative_interior", (4,), ((-2, -1, 2),)),
    _pad("negative_interior_long", (5,), ((-4, -3, 1),)),
    _pad("empty", (0, 2), ((1, 1, 0), (0, 0, 0))),
    OpRecord(
        "concatenate", lambda *xs: p.concatenate(xs, 1),
        calls(
            lambda rng: (normal(rng, 2, 1), normal(rng, 2, 3)), lambda rng: (normal(rng, 2, 0), normal(rng, 2, 2)),
            lambda rng: (normal(rng, 2, 1), normal(rng, 2, 2), normal(rng, 2, 1)),
        ),
        lambda *xs: np.concatenate(xs, 1), ALL_FLOATS, order=1, plain=lambda *xs: np.concatenate(xs, 1),
    ),
    OpRecord(
        "rev", lambda x: p.rev(x, (0, 1)), calls(lambda rng: (normal(rng, 2, 3),), lambda rng: (normal(rng, 0, 3),)),
        lambda x: np.flip(x, (0, 1)), ALL_FLOATS, order=1, plain=lambda x: np.flip(x, (0, 1)),
    ),
]

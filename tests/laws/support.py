# SPDX-License-Identifier: MIT
"""What the law files share: parameter lists, random directions, finite differences, flat derivatives, comparison."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from functorch_lite.core import dtypes
from functorch_lite.core.aval import aval_of
from functorch_lite.transforms.arguments import quiet
from functorch_lite.transforms.backward import backward
from functorch_lite.transforms.jvp import jvp_flat
from functorch_lite.transforms.linearize import linearize_flat
from tests.records import ALL_RECORDS
from tests.records.op_record import OpRecord, Sample


def cases(keep: Callable[[OpRecord, Sample], bool] = lambda record, sample: True) -> Any:
    """Parametrize a test by (record, sample number) over the samples that `keep` accepts."""
    found = [
        pytest.param(record, number, id=f"{record.name}-{number}-{sample.note.replace(' ', '_')}")
        for record in ALL_RECORDS
        for number, sample in enumerate(record.draw())
        if keep(record, sample)
    ]
    return pytest.mark.parametrize(("record", "number"), found)


def differentiable(record: OpRecord, sample: Sample) -> bool:
    """Whether the laws of derivatives apply to this sample."""
    return record.order > 0 and sample.derive and any(record.active(sample.args))


def smooth(record: OpRecord, sample: Sample, order: int = 1) -> bool:
    """Whether finite differences of derivatives below `order` are meaningful here."""
    return differentiable(record, sample) and sample.smooth and record.order >= order


def direction(like: Any, rng: np.random.Generator) -> Any:
    """A random array of the shape and dtype of `like` (zeros for integers)."""
    like = np.asarray(like)
    u = rng.standard_normal(like.shape)
    if dtypes.is_complex(like.dtype):
        u = u + 1j * rng.standard_normal(like.shape)
    return u.astype(like.dtype) if dtypes.is_inexact(like.dtype) else np.zeros(like.shape, like.dtype)


class Active:
    """A record's function of its differentiated arguments only, at one sample."""

    def __init__(self, record: OpRecord, sample: Sample):
        self.mask = record.active(sample.args)
        self.args = sample.args
        self.record = record
        self.point = [a for a, on in zip(sample.args, self.mask, strict=True) if on]

    def __call__(self, *values: Any) -> list[Any]:
        found = iter(values)
        full = [next(found) if on else a for a, on in zip(self.args, self.mask, strict=True)]
        return [o for o in self.record.flat(*full) if dtypes.is_inexact(o.dtype)]

    def directions(self, seed: int) -> list[Any]:
        """Random tangents for the arguments."""
        rng = np.random.default_rng(seed)
        return [direction(a, rng) for a in self.point]

    def cotangents(self, seed: int) -> list[Any]:
        """Random cotangents for the outputs."""
        rng = np.random.default_rng(1000 + seed)
        return [direction(o, rng) for o in self(*self.point)]


def zeros(value: Any) -> Any:
    """Zeros of the type of `value`, traced or not."""
    aval = aval_of(value)
    return np.zeros(aval.shape, aval.dtype)


def jvp(fun: Callable[..., list[Any]], point: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """Output tangents of `fun`, zeros filled in."""
    outs, dots = jvp_flat(fun, point, tangents)
    return [zeros(o) if t is None else t for o, t in zip(outs, dots, strict=True)]


def replay(fun: Callable[..., list[Any]], point: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """Output tangents of `fun` by running its tape forwards."""
    outs, tape = linearize_flat(fun, point, [True] * len(point))
    return [zeros(o) if t is None else t for o, t in zip(outs, tape.replay(tangents), strict=True)]


def vjp(fun: Callable[..., list[Any]], point: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
    """Input cotangents of `fun`, zeros filled in."""
    _, tape = linearize_flat(fun, point, [True] * len(point))
    return [zeros(p) if c is None else c for p, c in zip(point, tape.backward(cts), strict=True)]


def by_rules(fun: Callable[..., list[Any]], point: Sequence[Any], cts: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Outputs and cotangents from a tape of rules, as `linearize` writes it."""
    with quiet():
        outs, tape = linearize_flat(fun, point, [True] * len(point))
        return outs, tape.backward(cts)


def by_plans(fun: Callable[..., list[Any]], point: Sequence[Any], cts: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The same from the tape that `grad` writes."""
    with quiet():
        outs, tape = linearize_flat(fun, point, [True] * len(point), backwards_only=True)
        return outs, backward(tape, cts, consume=True)


def assert_same_bits(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Compare lists of arrays, None among them, by type and bits."""
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert (f is None) == (e is None)
        if e is not None:
            assert f.dtype == e.dtype and np.shape(f) == np.shape(e)
            assert np.ascontiguousarray(f).tobytes() == np.ascontiguousarray(e).tobytes()


def central(fun: Callable[..., list[Any]], point: Sequence[Any], tangents: Sequence[Any], h: float = 5e-4) -> list[Any]:
    """The derivative of `fun` along `tangents` by the fourth-order central difference."""

    def at(step):
        return fun(*[p + step * t for p, t in zip(point, tangents, strict=True)])

    return [
        np.asarray((8 * (a - b) - (c - d)) / (12 * h))
        for a, b, c, d in zip(at(h), at(-h), at(2 * h), at(-2 * h), strict=True)
    ]


def inner(left: Sequence[Any], right: Sequence[Any]) -> float:
    """The real part of the sum of products: the pairing that transposition keeps (without conjugation)."""
    return float(sum(np.sum(np.asarray(a) * np.asarray(b)).real for a, b in zip(left, right, strict=True)))


def assert_close(found: Sequence[Any], expected: Sequence[Any], record: OpRecord, factor: float = 1.0) -> None:
    """Compare lists of arrays within the record's tolerances, relative to the largest entry of each array."""
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        f, e = np.asarray(f), np.asarray(e)
        assert f.shape == e.shape
        finite = np.abs(e[np.isfinite(e)]) if dtypes.is_inexact(e.dtype) else np.zeros(0)
        scale = float(finite.max()) if finite.size else 0.0
        np.testing.assert_allclose(
            f, e, rtol=record.rtol * factor, atol=(record.atol + record.rtol * scale) * factor
        )

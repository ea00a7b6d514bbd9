# SPDX-License-Identifier: MIT
"""The laws on a device: whatever a record's function gives on NumPy arrays it gives there too, and there it stays."""

import numpy as np

from functorch_lite.backends.registry import at_home_of, is_scalar
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.staging import stage
from functorch_lite.transforms.batching import batch_flat
from functorch_lite.transforms.jvp import jvp_flat
from functorch_lite.transforms.linearize import linearize_flat
from tests.laws.support import Active, differentiable

SIZE = 2
MAKES = ("full", "iota")  # their results depend on no array, so outside of a transform they are NumPy's


def same(xp, found, expected, record):
    """Arrays of `xp` (or scalars) that hold what NumPy found; None where NumPy has None."""
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert (f is None) == (e is None)
        if e is None:
            continue
        e = np.asarray(e)
        assert isinstance(f, xp.ndarray) or (is_scalar(f) and not e.shape), type(f)
        f = f.get() if isinstance(f, xp.ndarray) else np.asarray(f)
        assert (f.shape, f.dtype) == (e.shape, e.dtype)
        if not dtypes.is_inexact(e.dtype):
            np.testing.assert_array_equal(f, e)
            continue
        finite = np.abs(e[np.isfinite(e)])
        scale = float(finite.max()) if finite.size else 0.0
        rtol = max(record.rtol * 1e-3, 1e-9)
        np.testing.assert_allclose(f, e, rtol=rtol, atol=rtol * max(scale, 1e-3))


def moved(xp, values):
    """The arrays among `values` on the device."""
    return [xp.asarray(v) if isinstance(v, np.ndarray) else v for v in values]


def evaluation(xp, record, sample):
    """Law: eager values."""
    args = moved(xp, sample.args)
    if record.name in MAKES:
        with at_home_of(args):
            found = record.flat(*args)
    else:
        found = record.flat(*args)
    same(xp, found, record.flat(*sample.args), record)


def forward(xp, record, sample):
    """Law: jvp."""
    fun, there = Active(record, sample), there_of(xp, record, sample)
    u = fun.directions(1)
    same(xp, jvp_flat(there, there.point, moved(xp, u))[1], jvp_flat(fun, fun.point, u)[1], record)


def replayed(xp, record, sample):
    """Law: the tape run forwards."""
    fun, there = Active(record, sample), there_of(xp, record, sample)
    u = fun.directions(1)
    found = linearize_flat(there, there.point, [True] * len(u))[1].replay(moved(xp, u))
    same(xp, found, linearize_flat(fun, fun.point, [True] * len(u))[1].replay(u), record)


def backward(xp, record, sample):
    """Law: the tape run backwards, by rules and by planned pullbacks."""
    fun, there = Active(record, sample), there_of(xp, record, sample)
    cts, active = fun.cotangents(1), [True] * len(fun.point)
    for planned in (False, True):
        _, tape = linearize_flat(there, there.point, active, backwards_only=planned)
        _, expected = linearize_flat(fun, fun.point, active, backwards_only=planned)
        same(xp, tape.backward(moved(xp, cts)), expected.backward(cts), record)


def there_of(xp, record, sample):
    """The record's function of its active arguments, at the sample moved to the device."""
    active = Active(record, sample)
    active.args = moved(xp, sample.args)
    active.point = moved(xp, active.point)
    return active


def batch(xp, record, number):
    """Law: vmap over all arguments, and over the first only."""
    lanes = [record.draw(lane)[number].args for lane in range(SIZE)]
    count = len(lanes[0])
    for flags in {(True,) * count, (True,) + (False,) * (count - 1)} if count else ():
        args = [
            np.stack([np.asarray(lane[i]) for lane in lanes]) if b else lanes[0][i] for i, b in enumerate(flags)
        ]
        expected, expected_flags = batch_flat(record.flat, args, flags, size=SIZE)
        found, found_flags = batch_flat(record.flat, moved(xp, args), flags, size=SIZE)
        assert found_flags == expected_flags
        same(xp, found, expected, record)


def staged(xp, record, sample):
    """Law: a program, and the programs of its jvp and its vjp; each runs on NumPy and on the device."""
    _runs_on_both(xp, record, record.flat, sample.args)
    if differentiable(record, sample):
        fun = Active(record, sample)
        n = len(fun.point)
        _runs_on_both(xp, record, lambda *a: _nonzero(jvp_flat(fun, a[:n], a[n:])[1]), [*fun.point, *fun.directions(1)])
        _runs_on_both(xp, record, lambda *a: _pulled(fun, a[:n], a[n:]), [*fun.point, *fun.cotangents(1)])


def _pulled(fun, point, cts):
    return _nonzero(linearize_flat(fun, point, [True] * len(point))[1].backward(cts))


def _nonzero(values):
    return [v for v in values if v is not None]


def _runs_on_both(xp, record, fun, args):
    program, captured = stage(fun, [Aval(np.shape(a), np.asarray(a).dtype) for a in args])
    run = evaluator(program)
    same(xp, run(*moved(xp, captured), *moved(xp, args)), run(*captured, *args), record)


LAWS = {law.__name__: law for law in (evaluation, forward, replayed, backward, batch, staged)}


def assert_law(name, xp, record):
    """One law, at every sample of a record to which it applies."""
    for number, sample in enumerate(record.draw()):
        if name == "batch":
            batch(xp, record, number)
        elif name in ("evaluation", "staged") or differentiable(record, sample):
            LAWS[name](xp, record, sample)

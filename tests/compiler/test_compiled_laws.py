# SPDX-License-Identifier: MIT
"""Law: every operation's values, derivatives of first and second order, and mapped forms are the same compiled.

All of a record's samples are one program, so that each record is compiled once. Arguments are inputs of the program,
also those that are not differentiated: nothing is folded away.
"""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import tree
from functorch_lite.compiler import native, pipeline
from functorch_lite.core import dtypes
from functorch_lite.transforms.batching import batch_flat
from tests.laws.support import differentiable, direction, jvp, vjp
from tests.laws.test_eval import RTOL, cast
from tests.records import ALL_RECORDS

# What compiled code may add to the errors of the record's own tolerance: sums in another order, other approximations.
VALUE_RTOL = 1e-11
DERIVATIVE_RTOL = 1e-8


def active_function(record, args, mask):
    """The record's inexact outputs as a function of its differentiated arguments."""

    def fun(*values):
        found = iter(values)
        full = [next(found) if on else a for a, on in zip(args, mask, strict=True)]
        return [o for o in record.flat(*full) if dtypes.is_inexact(o.dtype)]

    return fun


def first_and_second_order(record, order, mask, args, u, v, cts, back_cts):
    """Tangents and cotangents; if the record has second derivatives, forward and reverse over reverse mode."""
    fun = active_function(record, args, mask)
    point = [a for a, on in zip(args, mask, strict=True) if on]
    found = [jvp(fun, point, u), vjp(fun, point, cts)]
    if order > 1:
        gradient = lambda *x: vjp(fun, x, cts)  # noqa: E731
        found += [jvp(gradient, point, v), vjp(gradient, point, back_cts)]
    return found


def derivative_inputs(record, sample):
    """Directions and cotangents for a sample."""
    rng = np.random.default_rng(3)
    mask = record.active(sample.args)
    point = [a for a, on in zip(sample.args, mask, strict=True) if on]
    outs = active_function(record, sample.args, mask)(*point)
    draw = lambda values: [direction(x, rng) for x in values]  # noqa: E731
    return [draw(point), draw(point), draw(outs), draw(point)]


def program_and_inputs(record):
    """A function that computes every law's values for every sample, and its arguments; names of its results."""
    samples, lanes = record.draw(), record.draw(1)
    inputs = []
    for sample, lane in zip(samples, lanes, strict=True):
        other = [np.stack([np.asarray(a), np.asarray(b)]) for a, b in zip(sample.args, lane.args, strict=True)]
        derive = derivative_inputs(record, sample) if differentiable(record, sample) else None
        inputs.append((list(sample.args), other, derive))

    def run(inputs):
        found = []
        for sample, (args, stacked, derive) in zip(samples, inputs, strict=True):
            results = {"value": record.flat(*args)}
            results["mapped"] = batch_flat(record.flat, stacked, [True] * len(stacked), size=2)[0]
            if derive is not None:
                mask = record.active(sample.args)
                results["derivatives"] = first_and_second_order(record, record.order, mask, args, *derive)
            found.append(results)
        return found

    return run, inputs


def compiled(fun, *args):
    """What the native code of `fun` gives for these arguments; code made quickly must give the same bits."""
    program = fl.make_program(fun)(*args)
    leaves = [*fl.closure_convert(fun, *args)[1], *tree.leaves(args)]
    executable = native.compile_native(program, pipeline.optimize(program), quick=True)
    early = executable(*leaves)
    executable.improve()
    found = executable(*leaves)
    for number, (e, f) in enumerate(zip(early, found, strict=True)):
        assert np.all((e == f) | ((e != e) & (f != f))), f"output {number} of quickly made code: {e}, {f}"
    return found


def assert_near(found, expected, rtol):
    f, e = np.asarray(found), np.asarray(expected)
    assert (f.dtype, f.shape) == (e.dtype, e.shape)
    if not dtypes.is_inexact(e.dtype):
        np.testing.assert_array_equal(f, e)
        return
    rtol = max(rtol, RTOL.get(e.dtype.name, 0.0))
    wide = np.complex128 if dtypes.is_complex(e.dtype) else np.float64
    f, e = f.astype(wide), e.astype(wide)
    scale = np.abs(e[np.isfinite(e)]).max(initial=0)
    np.testing.assert_allclose(f, e, rtol=rtol, atol=rtol * scale + 1e-300)


@pytest.mark.parametrize("record", ALL_RECORDS, ids=lambda r: r.name)
def test_values_derivatives_and_mapped_forms(record):
    with np.errstate(all="ignore"):
        run, inputs = program_and_inputs(record)
        expected, treedef = tree.flatten(run(inputs))
        found = compiled(run, inputs)
    both = zip(tree.unflatten(treedef, found), tree.unflatten(treedef, expected), strict=True)
    for number, (f, e) in enumerate(both):
        for name in e:
            rtol = DERIVATIVE_RTOL if name == "derivatives" else VALUE_RTOL
            for k, (x, y) in enumerate(zip(tree.leaves(f[name]), tree.leaves(e[name]), strict=True)):
                try:
                    assert_near(x, y, rtol)
                except AssertionError as error:
                    raise AssertionError(f"sample {number}, {name} {k}: {error}") from None


def other_dtypes(record):
    """The record's samples in its other dtypes."""
    for name in record.dtypes:
        kind = "c" if name.startswith("complex") else "f"
        for sample in record.draw():
            if any(np.asarray(a).dtype.kind == kind for a in sample.args):
                yield [np.asarray(a) for a in cast(sample.args, name)]


@pytest.mark.parametrize("record", [r for r in ALL_RECORDS if any(other_dtypes(r))], ids=lambda r: r.name)
def test_values_in_other_dtypes(record):
    inputs = list(other_dtypes(record))

    def run(inputs):
        return [record.flat(*args) for args in inputs]

    with np.errstate(all="ignore"):
        expected = tree.leaves(run(inputs))
        found = compiled(run, inputs)
    for f, e in zip(found, expected, strict=True):
        assert_near(f, e, VALUE_RTOL)

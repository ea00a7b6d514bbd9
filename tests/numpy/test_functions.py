# SPDX-License-Identifier: MIT
"""Every function gives NumPy's value and dtype: eager, on tracers under grad and vmap, and in a staged program."""

import numpy as np
import pytest

import functorch_lite.numpy as fnp
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.staging import stage
from functorch_lite.core.tracer import Tracer
from functorch_lite.transforms.batching import batch_flat
from functorch_lite.transforms.linearize import linearize_flat

from . import cases

pytestmark = pytest.mark.filterwarnings("ignore:numpy.fix is deprecated")  # from NumPy 2.5 on
IDS = [f"{i}-{name}" for i, (name, _, _) in enumerate(cases.CASES)]
CREATORS = {"arange", "tri"}
NOT_ARRAYS = {"einsum_path", "result_type"}
SIZED = [c for c in cases.CASES if c[0] not in cases.DATA_DEPENDENT | NOT_ARRAYS]
SIZED_IDS = [f"{i}-{name}" for i, (name, _, _) in enumerate(SIZED)]


def leaves(value):
    """The arrays in nested lists and tuples."""
    if isinstance(value, (list, tuple)):
        return [x for v in value for x in leaves(v)]
    return [value]


def rebuilt(value, arrays):
    """`value` with its arrays replaced by the next of `arrays`."""
    if isinstance(value, (list, tuple)):
        return type(value)(rebuilt(v, arrays) for v in value)
    return next(arrays) if isinstance(value, np.ndarray) else value


def call(function, args, options):
    """The flat function of the arrays among the arguments."""
    arrays = [x for x in leaves(args) if isinstance(x, np.ndarray)]

    def run(*xs):
        return leaves(function(*rebuilt(args, iter(xs)), **options))

    return run, arrays


def assert_equal(found, wanted, same_dtype=True):
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted, strict=True):
        if isinstance(w, str):
            continue
        assert not isinstance(f, Tracer)
        if same_dtype and isinstance(w, (np.ndarray, np.generic)):
            assert f.dtype == w.dtype
        assert np.shape(f) == np.shape(w)
        if isinstance(w, np.dtype):
            assert f == w
            continue
        kind = np.asarray(w).dtype
        tolerance = 1e-12 if kind in (np.float64, np.complex128, np.int64) else 2e-3 if kind == np.float16 else 1e-6
        np.testing.assert_allclose(f, w, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name, args, options", cases.CASES, ids=IDS)
def test_function_equals_numpy(name, args, options):
    wanted = leaves(getattr(np, name)(*args, **options))
    assert_equal(leaves(getattr(fnp, name)(*args, **options)), wanted, name not in CREATORS)


def functions_of(name):
    """The name in `fl.numpy`, and NumPy's own, which dispatches to it."""
    own = getattr(fnp, name)
    return [own] if name in CREATORS else [own, getattr(np, name)]


@pytest.mark.parametrize("name, args, options", cases.CASES, ids=IDS)
def test_linearized_function_has_the_same_value_and_dtype(name, args, options):
    wanted = leaves(getattr(np, name)(*args, **options))
    for function in functions_of(name):
        run, arrays = call(function, args, options)
        active = [x.dtype.kind in "fc" for x in arrays]
        assert_equal(linearize_flat(run, arrays, active)[0], wanted, name not in CREATORS)


@pytest.mark.parametrize("name, args, options", SIZED, ids=SIZED_IDS)
def test_staged_function_has_the_same_value_and_dtype(name, args, options):
    wanted = leaves(getattr(np, name)(*args, **options))
    for function in functions_of(name):
        run, arrays = call(function, args, options)
        program, captured = stage(run, [Aval(x.shape, x.dtype) for x in arrays])
        assert_equal(evaluator(program)(*captured, *arrays), wanted, name not in CREATORS)


@pytest.mark.parametrize("name, args, options", SIZED, ids=SIZED_IDS)
def test_mapped_function_has_the_same_value_and_dtype(name, args, options):
    wanted = leaves(getattr(np, name)(*args, **options))
    run, arrays = call(getattr(fnp, name), args, options)
    outs, batched = batch_flat(run, [np.stack([x, x]) for x in arrays], [True] * len(arrays), size=2)
    assert_equal([o[1] if b else o for o, b in zip(outs, batched, strict=True)], wanted, name not in CREATORS)


@pytest.mark.parametrize("dtype", ("float16", "float32", "float64"))
@pytest.mark.parametrize("n, low, high", [(1, -1, 1), (3, 0.1, 0.7), (50, -4, 4), (1000, 0, 1), (7, 1e3, 1.001e3)])
def test_equal_bins_have_the_elements_that_lie_between_their_edges(n, low, high, dtype):
    rng = np.random.default_rng(3)
    edges = np.linspace(low, high, n + 1).astype(dtype)
    beside = [np.nextafter(edges, edges.dtype.type(side)) for side in (-np.inf, np.inf)]
    others = rng.uniform(low - 0.1 * (high - low), high + 0.1 * (high - low), 2000)
    x = np.concatenate([edges, *beside, others, [np.nan, np.inf, -np.inf]]).astype(dtype)
    program, captured = stage(lambda x: list(fnp.histogram(x, n, (low, high))), [Aval(x.shape, x.dtype)])
    found, edges = evaluator(program)(*captured, x)
    kept = x[(x >= edges[0]) & (x <= edges[-1])]
    wanted = np.bincount(np.minimum(np.searchsorted(edges, kept, side="right") - 1, n - 1), minlength=n)
    np.testing.assert_array_equal(found, wanted)

# SPDX-License-Identifier: MIT
"""The kernels of attention: against what they are composed of, in guarded memory, on other processors, in threads."""

import itertools

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.schedule import parallel
from functorch_lite.compiler.schedule.parallel import shared_loops
from functorch_lite.core.aval import Aval
from functorch_lite.core.rules import shape_rules
from functorch_lite.primitives import attention as p
from tests.compiler.guarded import Guarded
from tests.compiler.interpreting import run_interpreted
from tests.compiler.support import rule_kernel, run_kernel, run_rule

# heads of keys, groups, n, m, e, f
SIZES = [(1, 1, 1, 1, 1, 1), (2, 1, 5, 7, 3, 2), (2, 2, 24, 33, 8, 40), (1, 1, 37, 45, 16, 17), (3, 1, 13, 64, 64, 64),
         (1, 3, 67, 31, 5, 33), (2, 1, 64, 64, 32, 32)]
BOUNDS = [(None, None), (None, 0), (3, 1), (2, None), (None, -2), (0, -5), (-40, None)]


def inputs(heads, groups, n, m, e, f, dtype=np.float64):
    rng = np.random.default_rng(n * m)
    shapes = (heads * groups, n, e), (heads, m, e), (heads, m, f), (heads * groups, n, f)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def params(bounds, groups=1, factor=0.7, strict=False):
    return {"factor": factor, "before": bounds[0], "after": bounds[1], "groups": groups, "strict": strict}


def exact(q, k, v, ct, settings, *mask):
    """[out, lse, dq, dk, dv] in float64, as composed."""
    wide = [x.astype(np.float64) for x in (q, k, v, ct)]
    mask = [m if m.dtype == bool else m.astype(np.float64) for m in mask]
    with np.errstate(all="ignore"):
        out, lse = p.composed(*wide[:3], *mask, **settings)
        return [out, lse, *p.composed_cotangents(wide[3], *wide[:3], out, lse, *mask, **settings)]


def assert_near(found, expected, dtype):
    """Sums of k products round to within a few k ulp of the largest terms."""
    tolerance = 1e-12 if dtype == np.float64 else 3e-5
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        same = np.isinf(f) & (f == e)
        np.testing.assert_allclose(np.where(same, 0, f), np.where(same, 0, e), tolerance, tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_size_and_bound(sizes, dtype):
    q, k, v, ct = inputs(*sizes, dtype=dtype)
    for bounds in BOUNDS if dtype == np.float64 else BOUNDS[:3]:
        settings = params(bounds, sizes[1])
        out, lse = run_rule(p.attention_p, q, k, v, **settings)
        pulled = run_rule(p.attention_cotangents_p, ct, q, k, v, out, lse, **settings)
        assert_near([out, lse, *pulled], exact(q, k, v, ct, settings), dtype)


def masks_of(heads, groups, n, m, dtype):
    """Masks for every head, for some and for all, with rows and without; some rows let nothing through."""
    rng = np.random.default_rng(n)
    for shape in dict.fromkeys([(1, n, m), (heads, 1, m), (heads * groups, n, m)]):
        yield rng.random(shape) < 0.4
        yield np.where(rng.random(shape) < 0.7, rng.standard_normal(shape), -np.inf).astype(dtype)
    yield np.tri(n, m, dtype=bool)[None]


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@pytest.mark.parametrize("sizes", SIZES[:5], ids=str)
def test_every_mask(sizes, strict):
    heads, groups, n, m, *_ = sizes
    for dtype, bounds in ((np.float64, (None, None)), (np.float32, (None, 2)), (np.float64, (1, -2))):
        q, k, v, ct = inputs(*sizes, dtype=dtype)
        settings = params(bounds, groups, strict=strict)
        for mask in masks_of(heads, groups, n, m, dtype):
            out, lse = run_rule(p.attention_p, q, k, v, mask, **settings)
            pulled = run_rule(p.attention_cotangents_p, ct, q, k, v, out, lse, mask, **settings)
            assert_near([out, lse, *pulled], exact(q, k, v, ct, settings, mask), dtype)


@pytest.mark.parametrize("at_end", [False, True])
def test_nothing_outside_a_mask_is_touched(at_end):
    q, k, v, ct = inputs(*SIZES[2], dtype=np.float32)
    settings = params((None, None), 2, strict=True)
    for mask in masks_of(2, 2, 24, 33, np.float32):
        out, lse = (np.asarray(x) for x in run_rule(p.attention_p, q, k, v, mask, **settings))
        pulls = p.attention_cotangents_p, (ct, q, k, v, out, lse, mask)
        for prim, arrays in ((p.attention_p, (q, k, v, mask)), pulls):
            avals = [Aval(x.shape, x.dtype) for x in arrays]
            outs = shape_rules[prim](*avals, **settings)
            guarded = [Guarded(a.size, a.dtype, at_end) for a in (*avals, *outs)]
            for g, x in zip(guarded, arrays, strict=False):
                g.array[:] = x.ravel()
            assert run_kernel(rule_kernel(prim, avals, outs, settings), [g.array for g in guarded]) == 0
            assert all(g.untouched() for g in guarded)


@pytest.mark.parametrize(("lanes_bytes", "has_fma"), [(32, True), (16, False)], ids=["AVX2", "SSE"])
def test_on_other_processors(lanes_bytes, has_fma):
    q, k, v, ct = inputs(2, 1, 13, 37, 8, 20, dtype=np.float32)
    settings = params((5, 2))
    out, lse = run_rule(p.attention_p, q, k, v, lanes_bytes=lanes_bytes, has_fma=has_fma, **settings)
    pulled = run_rule(p.attention_cotangents_p, ct, q, k, v, out, lse, lanes_bytes=lanes_bytes, has_fma=has_fma,
                      **settings)
    assert_near([out, lse, *pulled], exact(q, k, v, ct, settings), np.float32)


@pytest.mark.parametrize("at_end", [False, True])
def test_nothing_outside_the_arrays_is_touched(at_end):
    for sizes, bounds in itertools.product(SIZES[1:4], BOUNDS[:3]):
        q, k, v, ct = inputs(*sizes, dtype=np.float32)
        settings = params(bounds, sizes[1])
        out, lse = (np.asarray(x) for x in run_rule(p.attention_p, q, k, v, **settings))
        for prim, arrays in ((p.attention_p, (q, k, v)), (p.attention_cotangents_p, (ct, q, k, v, out, lse))):
            avals = [Aval(x.shape, x.dtype) for x in arrays]
            outs = shape_rules[prim](*avals, **settings)
            guarded = [Guarded(a.size, np.dtype(np.float32), at_end) for a in (*avals, *outs)]
            for g, x in zip(guarded, arrays, strict=False):
                g.array[:] = x.ravel()
            assert run_kernel(rule_kernel(prim, avals, outs, settings), [g.array for g in guarded]) == 0
            assert all(g.untouched() for g in guarded)


@pytest.mark.parametrize("bounds", BOUNDS[:3], ids=str)
def test_the_loop_ir_means_the_same(bounds):
    q, k, v, ct = inputs(1, 2, 7, 35, 3, 4)
    settings = params(bounds, 2)

    def run(q, k, v, ct):
        out, lse = p.attention(q, k, v, **settings)
        return [out, lse, *p.bind(p.attention_cotangents_p, ct, q, k, v, out, lse, **settings)]

    program = fl.make_program(run)(q, k, v, ct)
    lowered = native.lower_program(pipeline.optimize(program))
    assert_near(run_interpreted(lowered, [q, k, v, ct], program.out_avals), exact(q, k, v, ct, settings), np.float64)


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_the_loop_ir_of_masks_means_the_same(strict):
    q, k, v, ct = inputs(1, 2, 7, 35, 3, 4)
    settings = params((None, None), 2, strict=strict)

    def run(q, k, v, ct, mask):
        out, lse = p.attention(q, k, v, mask, **settings)
        return [out, lse, *p.bind(p.attention_cotangents_p, ct, q, k, v, out, lse, mask, **settings)]

    for mask in masks_of(1, 2, 7, 35, np.float64):
        program = fl.make_program(run)(q, k, v, ct, mask)
        lowered = native.lower_program(pipeline.optimize(program))
        found = run_interpreted(lowered, [q, k, v, ct, mask], program.out_avals)
        assert_near(found, exact(q, k, v, ct, settings, mask), np.float64)


THREADED = {
    **{str(bounds): (None, params(bounds)) for bounds in BOUNDS[:3]},
    "mask": (np.random.default_rng(0).random((1, 40, 39)) < 0.5, params((None, None))),
    "mask, strict": (np.random.default_rng(1).random((5, 40, 39)) < 0.1, params((None, None), strict=True)),
    "mask of keys": (np.random.default_rng(2).random((5, 1, 39)) < 0.5, params((None, 0))),
    "added": (np.random.default_rng(3).standard_normal((1, 40, 39)).astype(np.float32), params((None, None))),
}


@pytest.mark.parametrize("name", THREADED)
def test_any_number_of_threads_gives_the_same_bits(name, monkeypatch):
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)
    monkeypatch.setattr(parallel, "GRAIN_NS", 0.0)
    mask, settings = THREADED[name]
    q, k, v, ct = inputs(5, 1, 40, 40 if mask is None else 39, 8, 8, dtype=np.float32)
    masks = [] if mask is None else [mask]

    def run(q, k, v, ct, *mask):
        return fl.vjp(lambda *x: p.attention(*x, *mask, **settings)[0], q, k, v)[1](ct)

    program = fl.make_program(run)(q, k, v, ct, *masks)
    found = []
    for number in (1, 2, 4):
        with fl.config(num_threads=number):
            executable = native.compile_native(program, pipeline.optimize(program))
        assert all(shared_loops(kernel) for kernel in executable.lowered.kernels if "attention" in kernel.name)
        found.append([x.tobytes() for x in executable(q, k, v, ct, *masks)])
    assert found[0] == found[1] == found[2]


def test_the_weights_are_never_whole_in_memory():
    length = 1024
    q = np.random.default_rng(0).standard_normal((2, length, 16)).astype(np.float32)
    step = fl.jit(fl.grad(lambda q: (nn.scaled_dot_product_attention(q, q, q, is_causal=True) ** 2).sum()))
    weights = 2 * length * length * 4
    assert step.memory(q).peak < weights / 4
    text = step.lower(q).as_text("optimized")
    assert "attention_cotangents" in text and f"{length},{length}" not in text.replace(" ", "")

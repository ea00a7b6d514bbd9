# SPDX-License-Identifier: MIT
"""What each function of the scipy namespaces is held to: SciPy's values and dtypes, and derivatives by differences."""

import numpy as np

import functorch_lite as fl


def flat(out):
    """The arrays in nested tuples and lists."""
    return [v for part in out for v in flat(part)] if isinstance(out, (tuple, list)) else [out]


def check_agrees(fun, reference, *args, rtol=1e-9):
    """`fun` has the shapes, dtypes and values of `reference` on plain arrays (exactly), under jit and under vmap."""
    expected = flat(reference(*args))
    for out, value in zip(flat(fun(*args)), expected, strict=True):
        np.testing.assert_array_equal(out, value)
        assert np.asarray(out).dtype == np.asarray(value).dtype
    mapped = fl.vmap(lambda *xs: tuple(flat(fun(*xs))))(*[np.stack([a, a]) for a in args])
    compiled = fl.jit(lambda *xs: tuple(flat(fun(*xs))))(*args)
    for rows, out, value in zip(mapped, compiled, expected, strict=True):
        value = np.asarray(value)
        assert out.shape == rows[1].shape == value.shape
        assert out.dtype == rows.dtype == value.dtype
        np.testing.assert_allclose(out, value, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(rows[1], value, rtol=rtol, atol=rtol)


def weighted(fun):
    """The real sum of what `fun` gives times fixed random weights (complex ones for complex results)."""
    weights, rng = {}, np.random.default_rng(0)

    def total(*args):
        found = 0.0
        for k, out in enumerate(flat(fun(*args))):
            if k not in weights:
                weights[k] = rng.standard_normal((2, *np.shape(out)))
            real, imag = weights[k]
            found = found + np.sum(real * np.real(out)) + (np.sum(imag * np.imag(out)) if out.dtype.kind == "c" else 0)
        return found

    return total


def check_derivatives(fun, *args, rtol=1e-5):
    """The gradients of `fun` in all arguments, eager and compiled, are central differences along random directions.

    Under a transform and with plain arrays `fun` is computed by different code, so this compares values, too.
    """
    total, rng = weighted(fun), np.random.default_rng(1)
    total(*args)
    argnums = tuple(range(len(args)))
    grads = fl.grad(total, argnums)(*args)
    compiled = fl.jit(fl.grad(total, argnums))(*args)
    for k, (x, g, h) in enumerate(zip(args, grads, compiled, strict=True)):
        assert g.dtype == x.dtype and np.isfinite(g).all()
        np.testing.assert_allclose(h, g, rtol=1e-9, atol=1e-9)
        direction = rng.standard_normal(x.shape)
        high, low = (total(*[a + s * direction if i == k else a for i, a in enumerate(args)]) for s in (1e-6, -1e-6))
        np.testing.assert_allclose(np.sum(g * direction), (high - low) / 2e-6, rtol=rtol, atol=rtol)

# SPDX-License-Identifier: MIT
"""Cosine and sine transforms: SciPy's values for each type and norm, and gradients that are transposes."""

import functools

import numpy as np
import pytest
import scipy.fft

import functorch_lite as fl
from functorch_lite import errors
from functorch_lite.scipy import fft

from .agreement import check_agrees, check_derivatives

RNG = np.random.default_rng(6)
ONE = ("dct", "idct", "dst", "idst")


def both(name, *args, **options):
    return [lambda x, module=module: getattr(module, name)(x, *args, **options) for module in (fft, scipy.fft)]


@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize("type", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ONE)
def test_each_type_and_norm_equals_scipys(name, type, norm):
    for n in (2, 5, 8):
        for orthogonalize in (None, True, False):
            ours, reference = both(name, type, norm=norm, orthogonalize=orthogonalize)
            x = RNG.standard_normal((3, n))
            np.testing.assert_allclose(fl.vmap(ours)(x), reference(x), rtol=1e-9, atol=1e-9)
    check_agrees(*both(name, type, norm=norm), RNG.standard_normal(7))


@pytest.mark.parametrize("dtype", ["f4", "i4", "c8", "c16"])
def test_dtypes_are_scipys(dtype):
    x = (9 * RNG.standard_normal((2, 6))).astype(dtype)
    check_agrees(*both("dct", norm="ortho"), x, rtol=1e-5)
    check_agrees(*both("dst", 4), x, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"axes": (0, 2)}, {"s": (6, 3)}, {"s": (2, 7), "axes": (1, 0)}, {"axes": 1}], ids=str
)
@pytest.mark.parametrize("name", ["dctn", "idctn", "dstn", "idstn"])
def test_several_axes_equal_scipys(name, options):
    check_agrees(*both(name, norm="ortho", **options), RNG.standard_normal((3, 4, 5)))


def test_a_length_cuts_or_fills_any_axis():
    x = RNG.standard_normal((4, 6))
    check_agrees(*both("dct", n=9, axis=0), x)
    check_agrees(*both("idct", 3, n=3), x)
    check_agrees(*both("dct", 2), x[:, :1])


@pytest.mark.parametrize("type", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ONE)
def test_gradients_of_transforms(name, type):
    check_derivatives(functools.partial(getattr(fft, name), type=type), RNG.standard_normal((2, 7)))


def test_the_orthogonal_transform_keeps_lengths():
    x = RNG.standard_normal((4, 6))
    gradient = fl.jit(fl.grad(lambda x: np.sum(fft.dctn(x, norm="ortho") ** 2)))(x)
    np.testing.assert_allclose(gradient, 2 * x, rtol=1e-12)


@pytest.mark.parametrize(("message", "fun", "kind"), [
    ("type must be", lambda x: fft.dct(x, 5), errors.ArgumentError),
    ("norm must be", lambda x: fft.dct(x, norm="unit"), errors.ArgumentError),
    ("at least 2 elements", lambda x: fft.dct(x[..., :1], 1), errors.ArgumentError),
    ("at least one axis", lambda x: fft.dct(x[0, 0]), errors.ArgumentTypeError),
    ("number of data points", lambda x: fft.dct(x, n=0), errors.ArgumentError),
    ("distinct axes", lambda x: fft.dctn(x, s=(2, 2), axes=(0, 0)), errors.ArgumentError),
    ("`n` must be known", lambda x: fft.dct(x, n=x[0, 0]), errors.ConcretizationError),
])
def test_a_mistake_is_named(message, fun, kind):
    with pytest.raises(kind, match=message):
        fl.jit(fun)(np.ones((4, 5)))

# SPDX-License-Identifier: MIT
"""Special functions composed of primitives: SciPy's values over wide ranges and at the edges, derivatives, dtypes."""

import numpy as np
import pytest
import scipy.special

import functorch_lite as fl
from functorch_lite.errors import ArgumentError, DTypeError
from functorch_lite.scipy import special

rng = np.random.default_rng(5)
EDGES = np.array([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, np.inf, -np.inf, np.nan])
SIZES = np.concatenate([np.logspace(-290, 2.8, 150), np.linspace(0.01, 60, 200)])
SIGNED = np.concatenate([-SIZES, EDGES, SIZES])
N, K = np.meshgrid([0.0, 1, 5, 12, 99, 150, 171, 400, 1000], [0.0, 1, 2, 9, 10, 75, 200, 499])
Z, M = np.meshgrid([0.3, 1.0, 2.5, 8.0, 40.0, 160.0, 900.0, -0.4, -3.0, -7.3], [0.0, 1.0, 2.0, 0.5, 4.0, 9.3])
H, A = np.meshgrid([0.0, 1e-9, 0.3, 1.0, 2.5, -4.0, 9.0, 20.0, 36.0], [0.0, 0.2, 0.9, 1.0, 1.1, -3.0, 30.0, np.inf])
ORDERS = [0.0, 1, 2, 3, 7, 30, 200, 100000]
ORDER, EXPN_X = np.meshgrid(ORDERS, np.append(SIZES[SIZES > 1e-100][::7], [0, np.inf, -1, 2]))
POWERS = [0.0, 1e-25, 1e-12, -1e-5, 0.3, -0.7, 1.0, 2.5, -2.0]
BOX_X, BOX_L = np.meshgrid([0.0, 1e-30, 0.2, 1.0, 3.0, 1e20, -1.0], POWERS)

CASES = {  # operands; relative and absolute tolerance
    "exp1": ((SIGNED,), 1e-13, 0), "expi": ((SIGNED,), 2e-13, 1e-16), "sici": ((SIGNED,), 1e-12, 2e-16),
    "expn": ((ORDER, EXPN_X), 1e-12, 0), "exprel": ((SIGNED,), 1e-13, 0), "spence": ((SIGNED,), 1e-13, 1e-300),
    "dawsn": ((SIGNED,), 1e-13, 0), "fresnel": ((SIGNED[np.abs(SIGNED) < 60],), 1e-12, 0),
    "owens_t": ((H, A), 1e-12, 1e-300), "poch": ((Z, M), 1e-12, 0), "loggamma": ((SIGNED,), 1e-13, 0),
    "gammasgn": ((np.concatenate([SIGNED, [-2.5, -3.5]]),), 0, 0), "boxcox": ((BOX_X, BOX_L), 1e-12, 0),
    "boxcox1p": ((BOX_X - 1, BOX_L), 1e-12, 0), "comb": ((N, K), 1e-12, 0),
}
SMOOTH = {  # where derivatives are compared with differences
    "exp1": (np.array([0.3, 1.9, 2.1, 9.0]),), "expi": (np.array([-3.0, -0.4, 0.2, 5.0, 39.9]),),
    "sici": (np.array([-5.0, -0.1, 0.3, 3.9, 20.0]),), "exprel": (np.array([-30.0, -1.9, 0.0, 1e-5, 2.1]),),
    "spence": (np.array([0.2, 0.499, 1.0, 1.7, 2.4]),), "dawsn": (np.array([-4.0, 0.0, 0.3, 2.0, 12.0]),),
    "fresnel": (np.array([-3.0, 0.0, 0.4, 1.2, 6.0]),),
    "owens_t": (np.array([0.0, 0.7, -1.2]), np.array([0.4, 1.0, -2.0])),
    "poch": (np.array([0.3, 2.5, 20.0]), np.array([0.4, 2.0, 1.5])), "loggamma": (np.array([0.3, 2.0, 50.0]),),
    "boxcox": (np.array([0.2, 1.0, 3.0, 7.0]), np.array([0.0, 1e-9, 0.4, -1.2])),
    "boxcox1p": (np.array([-0.5, 0.0, 3.0, 7.0]), np.array([0.0, 1e-9, 0.4, -1.2])),
    "comb": (np.array([5.5, 12.0, 400.0]), np.array([2.2, 3.0, 1.5])),
}


def traced(fun, *args):
    """The values of `fun` under a transform: composed of primitives, where without one they are SciPy's."""
    return fl.jvp(fun, args, args)[0]


def reference(fun, *args):
    with np.errstate(all="ignore"):
        return fun(*args)


@pytest.mark.parametrize("name", CASES)
def test_traced_and_compiled_values_equal_scipys(name):
    args, rtol, atol = CASES[name]
    ours = getattr(special, name)
    expected = reference(getattr(scipy.special, name), *args)
    for out in (traced(ours, *args), fl.jit(ours)(*args), reference(ours, *args)):
        np.testing.assert_allclose(out, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_equal_differences(name):
    args = SMOOTH[name]
    ours, scipys = getattr(special, name), getattr(scipy.special, name)
    for i in range(len(args)):
        tangents = [np.ones_like(a) if i == k else np.zeros_like(a) for k, a in enumerate(args)]
        _, dots = fl.jvp(ours, args, tuple(tangents))
        up, down = [scipys(*[a + s * 1e-5 * t for a, t in zip(args, tangents, strict=True)]) for s in (1, -1)]
        np.testing.assert_allclose(dots, (np.asarray(up) - down) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", SMOOTH)
def test_second_derivatives_equal_differences_of_the_first(name):
    args = SMOOTH[name]
    ours = getattr(special, name)

    def slope(*xs):
        return fl.grad(lambda *ys: np.sum(np.stack(ours(*ys)) if name in ("sici", "fresnel") else ours(*ys)))(*xs)

    found = fl.jit(fl.grad(lambda *xs: np.sum(slope(*xs))))(*args)
    ends = [slope(args[0] + s * 1e-5, *args[1:]) for s in (1, -1)]
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SMOOTH)
def test_float32_is_kept_and_vmap_equals_a_loop(name):
    args = [a.astype(np.float32) for a in SMOOTH[name]]
    ours = getattr(special, name)
    expected = np.asarray(getattr(scipy.special, name)(*[a.astype(float) for a in args]))
    mapped = fl.jit(fl.vmap(ours))(*args)
    for out in (traced(ours, *args), mapped):
        assert all(o.dtype == np.float32 for o in (out if isinstance(out, tuple) else (out,)))
        np.testing.assert_allclose(np.asarray(out), expected, rtol=3e-7, atol=1e-7)


def test_scipys_own_ufunc_takes_traced_arrays():
    x = np.array([0.3, 2.5])
    np.testing.assert_allclose(fl.jit(lambda x: scipy.special.expi(x))(x), scipy.special.expi(x), rtol=1e-14)
    np.testing.assert_allclose(fl.jit(lambda x: scipy.special.sici(x)[0])(x), scipy.special.sici(x)[0], rtol=1e-14)


def test_expn_of_integer_orders_and_its_derivative():
    x = np.array([0.4, 1.9, 2.3, 8.0])
    for n in (0, 1, 2, 6):
        np.testing.assert_allclose(fl.jit(lambda x, n=n: special.expn(n, x))(x), scipy.special.expn(n, x), rtol=1e-13)
        slope = fl.grad(lambda x, n=n: special.expn(n, x).sum())(x)
        lower = scipy.special.expn(n - 1, x) if n else np.exp(-x) * (1 / x + 1 / x**2)
        np.testing.assert_allclose(slope, -lower, rtol=1e-12)


def test_derivative_of_dawsn_keeps_its_digits_far_out():
    x = np.array([30.0, 50.0, 1e4])
    expected = -sum(c / (2 * x * x) ** k for k, c in ((1, 1), (2, 3), (3, 15), (4, 105), (5, 945), (6, 10395)))
    np.testing.assert_allclose(fl.grad(lambda x: special.dawsn(x).sum())(x), expected, rtol=1e-10)


@pytest.mark.parametrize(("x", "lmbda", "expected"), [
    (0.0, 2.0, (0.0, 0.25)), (1.0, 0.0, (1.0, 0.0)), (2.0, 0.0, (0.5, np.log(2) ** 2 / 2)), (0.0, 1.0, (1.0, 1.0)),
])
def test_derivatives_of_boxcox_at_the_edges_for_python_numbers(x, lmbda, expected):
    np.testing.assert_allclose(fl.grad(special.boxcox, (0, 1))(x, lmbda), expected, rtol=1e-14)


def test_owens_t_of_a_small_slope_keeps_its_digits():
    h = np.array([0.0, 3.0, 9.0, 20.0])
    found = traced(special.owens_t, h, np.full(4, 1e-9))
    np.testing.assert_allclose(found, 1e-9 / (2 * np.pi) * np.exp(-h * h / 2), rtol=1e-13)


def test_spence_and_logarithmic_poles_have_their_derivatives_at_the_edge():
    assert fl.grad(special.spence)(1.0) == -1.0
    assert fl.grad(special.spence)(0.0) == -np.inf
    assert fl.grad(fl.grad(special.spence))(1.0) == 0.5


def test_comb_of_plain_numbers_is_scipys_and_of_traced_ones_is_refused_exactly():
    assert special.comb(40, 20, exact=True) == scipy.special.comb(40, 20, exact=True)
    n, k = np.arange(5.0, 9), np.arange(4.0)
    expected = scipy.special.comb(n, k, repetition=True)
    np.testing.assert_allclose(fl.jit(lambda n, k: special.comb(n, k, repetition=True))(n, k), expected, rtol=1e-14)
    assert fl.jit(special.comb)(np.arange(5), 2).dtype == np.float64
    with pytest.raises(ArgumentError, match="exact=True takes plain integers"):
        fl.jit(lambda n: special.comb(n, 2, exact=True))(5)


@pytest.mark.parametrize(("z", "m", "expected"), [
    (-3.0, 2.0, -5.0), (-3.0, 4.0, -6.0), (0.0, 2.0, 1.0), (-2.0, 1.0, 1.0), (0.0, 0.0, 0.0),
])
def test_slope_of_poch_where_gamma_has_poles(z, m, expected):
    np.testing.assert_allclose(fl.grad(special.poch)(z, m), expected, rtol=1e-13)


def test_bernoulli_numbers_are_scipys():
    np.testing.assert_array_equal(special.bernoulli(8), scipy.special.bernoulli(8))
    with pytest.raises(ArgumentError, match="bernoulli: n must be a Python integer"):
        special.bernoulli(-1)


@pytest.mark.parametrize("name", ["jv", "iv", "ive"])
@pytest.mark.parametrize("order", [0, 1, 5, -2, -3])
def test_bessel_functions_of_integer_order(name, order):
    x = np.array([-3.0, 0.0, 0.4, 7.0, 30.0])
    ours, scipys = getattr(special, name), getattr(scipy.special, name)
    np.testing.assert_allclose(fl.jit(lambda x: ours(order, x))(x), scipys(order, x), rtol=1e-12, atol=1e-16)
    slope = fl.grad(lambda x: ours(order, x).sum())(x[2:])
    ends = [scipys(order, x[2:] + s * 1e-6) for s in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(ours(0.5, x[2:]), scipys(0.5, x[2:]))


def test_bessel_jn_is_the_stack_of_orders():
    x = np.array([[0.3, 4.0]])
    expected = scipy.special.jv(np.arange(4)[:, None, None], x)
    np.testing.assert_allclose(fl.jit(lambda x: special.bessel_jn(x, v=3))(x), expected, rtol=1e-12)


THETA, PHI = np.array([0.0, 0.3, 1.0, 2.0, np.pi, 4.0, -1.0]), np.array([0, 0.4, 3.0, -2.0, 7.0, 1.0, 1.0])


@pytest.mark.parametrize(("n", "m"), [
    (0, 0), (1, 1), (3, -2), (5, 6), (60, 31), (150, -150), (200, 0),
    (np.arange(4)[:, None, None], np.arange(-3, 4)[:, None]),
])
def test_spherical_harmonics_equal_scipys(n, m):
    expected = scipy.special.sph_harm_y(n, m, THETA, PHI)
    for dtype, tolerance in ((np.float64, 2e-13), (np.float32, 1e-3)):
        angles = THETA.astype(dtype), PHI.astype(dtype)
        out = fl.jit(lambda t, p: special.sph_harm_y(n, m, t, p))(*angles)
        np.testing.assert_allclose(out, expected, atol=tolerance)
        assert out.dtype == np.result_type(dtype, np.complex64)
    np.testing.assert_array_equal(special.sph_harm_y(n, m, THETA, PHI), expected)


def test_derivatives_of_spherical_harmonics_are_scipys():
    n, m, angles = 5, -1, (THETA[:5], PHI[:5])
    slopes = scipy.special.sph_harm_y(n, m, *angles, diff_n=1)[1]
    for i in (0, 1):
        tangents = [np.full(5, float(i == k)) for k in (0, 1)]
        found = fl.jvp(lambda t, p: special.sph_harm_y(n, m, t, p), angles, tuple(tangents))[1]
        np.testing.assert_allclose(found, slopes[..., i], atol=1e-13)


@pytest.mark.parametrize("call", [
    lambda x: special.sph_harm_y(2, 1, x, x, diff_n=1), lambda x: special.sph_harm_y(x, 1, x, x),
    lambda x: special.sph_harm_y(-1, 0, x, x), lambda x: special.sph_harm_y(0.5, 0, x, x),
])
def test_wrong_arguments_of_spherical_harmonics_are_refused(call):
    with pytest.raises(ArgumentError, match="sph_harm_y: n and m must be"):
        fl.jit(call)(0.3)


def test_what_is_not_supported_is_refused():
    with pytest.raises(ArgumentError, match="jv: of a traced array the order must be a Python integer"):
        fl.jit(lambda x: special.jv(0.5, x))(1.0)
    with pytest.raises(ArgumentError, match="bessel_jn: v must be"):
        special.bessel_jn(1.0, v=-1)
    with pytest.raises(DTypeError, match="exp1: traced operands must be real"):
        fl.jit(special.exp1)(np.ones(2, complex))

# SPDX-License-Identifier: MIT
"""Donation: outputs take the memory of donated arrays where that is safe, and only there."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.errors import ArgumentError, DonationError


def descend(params, grads):
    return {k: params[k] - 0.5 * grads[k] for k in params}


def made():
    return {"w": np.ones((40, 30)), "b": np.ones(7)}, {"w": np.ones((40, 30)), "b": np.ones(7)}


def address(x):
    return x.__array_interface__["data"][0]


@pytest.mark.parametrize("donate", ["may", "must"])
def test_an_update_of_donated_parameters_lives_in_their_memory(donate):
    step = fl.jit(descend, donate_argnums=0, donate=donate)
    params, grads = made()
    before = {k: address(v) for k, v in params.items()}
    for n in range(1, 4):
        params = step(params, grads)
        assert {k: address(v) for k, v in params.items()} == before
        np.testing.assert_array_equal(params["w"], np.full((40, 30), 1 - 0.5 * n))
        if donate == "must":
            break  # its memory is now that of another array


def test_an_array_that_a_view_shares_is_left_alone():
    step = fl.jit(descend, donate_argnums=0)
    params, grads = made()
    view, where = params["w"][::2], address(params["w"])
    out = step(params, grads)
    assert address(out["w"]) != where
    np.testing.assert_array_equal(view, np.ones((20, 30)))


def test_an_array_that_another_argument_shares_is_left_alone():
    step = fl.jit(lambda p, q: (p * 2, q + 1), donate_argnums=0)
    whole = np.arange(20.0)
    p = whole[:10]
    np.testing.assert_array_equal(step(p, whole)[1], np.arange(20.0) + 1)
    np.testing.assert_array_equal(whole, np.arange(20.0))


def test_an_input_that_is_read_again_later_is_not_overwritten():
    f = fl.jit(lambda x: (x * 2, np.cumsum(x), x[::-1] + 1), donate_argnums=0)
    x = np.arange(50.0)
    doubled, running, turned = f(np.arange(50.0))
    np.testing.assert_array_equal(doubled, x * 2)
    np.testing.assert_array_equal(running, np.cumsum(x))
    np.testing.assert_array_equal(turned, x[::-1] + 1)


def test_an_input_that_a_loop_reads_in_each_iteration_is_not_overwritten():
    def f(a, b):
        return fl.lax.fori_loop(0, 3, lambda i, a: np.float32(0.5) * a + b, a)

    for donated in (0, 1, (0, 1)):
        a, b = np.ones(8192, np.float32), np.ones(8192, np.float32)
        assert set(fl.jit(f, donate_argnums=donated)(a, b)) == {1.875}


def test_must_refuses_what_cannot_be_reused():
    with pytest.raises(DonationError, match="leaf 0 of <lambda> cannot be reused: no output can take its place"):
        fl.jit(lambda x: np.sum(x), donate_argnums=0, donate="must")(np.ones(9))
    held = np.ones(9)
    view = held[:3]
    with pytest.raises(DonationError, match="it is held by something else too"):
        fl.jit(lambda d: d["x"] * 2, donate_argnums=0, donate="must")({"x": held})
    assert view[0] == 1
    with pytest.raises(ArgumentError, match="donate is 'never', expected 'may' or 'must'"):
        fl.jit(descend, donate="never")


def test_a_donated_array_is_turned_away_by_native_calls_too():
    double = fl.jit(lambda x: x * 2)
    x = np.ones(4)
    double(x)
    fl.jit(lambda x: x + 1, donate_argnums=0)(x)
    with pytest.raises(DonationError, match="`x` of <lambda> was donated"):
        double(x)

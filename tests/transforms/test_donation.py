# SPDX-License-Identifier: MIT
"""Donation: outputs take the memory of donated arrays where that is safe, and only there."""

import gc
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite.compiler.runtime.native_code import share_memory
from functorch_lite.compiler.runtime.tiers import improver
from functorch_lite.errors import ArgumentError, DonationError
from tests.compiler.native_calls import assert_keeps_nothing


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


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=12))
def test_pieces_of_memory_that_meet_are_found(pieces):
    starts, sizes = (np.array(column, np.uintp) for column in zip(*pieces, strict=True))
    found = share_memory(starts, sizes)
    for i, (start, size) in enumerate(pieces):
        touched = set(range(start, start + size))
        assert found[i] == any(touched & set(range(a, a + n)) for k, (a, n) in enumerate(pieces) if k != i)


def test_of_many_leaves_those_that_are_shared_are_left_alone():
    params, grads = ({f"w{i}": np.full(3, i + 1.0) for i in range(50)} for _ in range(2))
    held = params["w7"][:2]
    grads["w9"] = params["w9"].view()
    before = {k: address(v) for k, v in params.items()}
    out = fl.jit(descend, donate_argnums=0)(params, grads)
    assert {k for k, v in out.items() if address(v) != before[k]} == {"w7", "w9"}
    np.testing.assert_array_equal(held, [8, 8])
    for i in range(50):
        np.testing.assert_array_equal(out[f"w{i}"], np.full(3, 0.5 * (i + 1)))


# --- in native calls --------------------------------------------------------------------------------------------------


def native_step():
    """A donating function after the calls that go through Python, and its state."""
    step = fl.jit(descend, donate_argnums=0)
    params, grads = made()
    for _ in range(3):
        params = step(params, grads)
    assert type(type(step).__call__).__name__ == "builtin_function_or_method"
    return step, params, grads


def test_native_calls_go_on_in_the_same_memory():
    step, params, grads = native_step()
    before = {k: address(v) for k, v in params.items()}
    for n in range(4, 9):
        params = step(params, grads)
        assert {k: address(v) for k, v in params.items()} == before
        np.testing.assert_array_equal(params["w"], np.full((40, 30), 1 - 0.5 * n))
    plain = np.empty((40, 30))
    assert params["w"].base is None and str(params["w"].flags) == str(plain.flags)
    assert step.cache_info().hits >= 7


def test_what_a_native_call_was_given_is_turned_away_and_stays_readable():
    step, params, grads = native_step()
    old = params
    params = step(params, grads)
    for again in (step, fl.jit(lambda p, g: p["w"] + g["w"])):
        with pytest.raises(DonationError, match=r"`(params|p)\['[bw]'\]`") as error:
            again(old, grads)
        assert "was donated to descend at test_donation.py" in str(error.value)
    del params
    gc.collect()
    assert old["w"].shape == (40, 30) and np.isfinite(old["w"]).all()


def test_a_view_or_another_name_keeps_its_values_beside_native_calls():
    step, params, grads = native_step()
    view = params["w"][3:5]
    kept = view.copy()
    out = step(params, grads)
    np.testing.assert_array_equal(view, kept)
    name = out["w"]
    kept = name.copy()
    step(out, grads)
    np.testing.assert_array_equal(name, kept)


def test_donated_once_and_given_twice_is_refused_beside_native_calls():
    step, params, _ = native_step()
    with pytest.raises(DonationError, match="is donated and also passed as another argument"):
        step(params, params)


def test_a_donated_argument_that_is_an_array_itself():
    double = fl.jit(lambda x: x * 2, donate_argnums=0)
    x = np.ones(1000)
    for _ in range(6):
        where = address(x)
        x = double(x)
        assert address(x) == where
    for _ in range(2):
        name = x
        kept = name.copy()
        x = double(x)
        np.testing.assert_array_equal(name, kept)
    must = fl.jit(lambda x: x * 2, donate_argnums=0, donate="must")
    np.testing.assert_array_equal(must(np.ones(9)), np.full(9, 2.0))


def test_a_name_for_a_donated_array_keeps_its_values_in_the_first_calls():
    for calls in range(4):
        double = fl.jit(lambda x: x * 2, donate_argnums=0)
        for _ in range(calls):
            double(np.ones(1000))
        x = np.ones(1000)
        name = x
        double(x)
        np.testing.assert_array_equal(name, np.ones(1000))


def test_a_reshaped_array_gives_the_memory_of_its_base():
    double = fl.jit(lambda d: {"x": d["x"] * 2}, donate_argnums=0)
    for _ in range(4):
        x = {"x": np.arange(12.0).reshape(3, 4)}
        where = address(x["x"])
        x = double(x)
        assert address(x["x"]) == where
    np.testing.assert_array_equal(x["x"], 2 * np.arange(12.0).reshape(3, 4))
    part = {"x": np.arange(15.0)[3:].reshape(3, 4)}
    np.testing.assert_array_equal(double(part)["x"], 2 * np.arange(3.0, 15.0).reshape(3, 4))


def test_a_read_only_array_is_left_alone_by_native_calls():
    step, params, grads = native_step()
    params["b"].flags.writeable = False
    held = params["b"]
    kept = held.copy()
    step(params, grads)
    np.testing.assert_array_equal(held, kept)


def test_native_donation_keeps_nothing():
    step, params, grads = native_step()
    improver.finish()
    held = [params]

    def once():
        held[0] = step(held[0], grads)

    assert_keeps_nothing(once, grads["w"])
    count = sys.getrefcount(held[0]["w"])
    assert count == 2


def test_a_run_that_fails_leaves_the_donated_array_whole():
    f = fl.jit(lambda x, i: (x * 2, x[i]), donate_argnums=0)
    for _ in range(3):
        x = f({}.setdefault("x", np.arange(50.0)), 3)[0]
    for _ in range(3):
        with pytest.raises(IndexError):
            f(x, 50)
        assert x.flags.owndata or x.base is not None
    np.testing.assert_array_equal(f(np.arange(50.0), 4)[0], 2 * np.arange(50.0))

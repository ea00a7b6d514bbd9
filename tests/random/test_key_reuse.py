# SPDX-License-Identifier: MIT
"""SEMANTICS J15: a key used twice is found, eagerly, in compiled functions and in loops; what is no reuse is not."""

import re

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax, random
from functorch_lite.config import Settings
from functorch_lite.errors import KeyReuseError
from functorch_lite.primitives.key_use import use_key_p, without_key_uses
from tests.random.samplers import SAMPLERS


@pytest.fixture(autouse=True)
def checking():
    with fl.config(check_key_reuse=True):
        yield


def two_lines(error):
    """The source texts of the two lines that the message names: the first use, the second."""
    return re.findall(r"test_key_reuse\.py:\d+ \([\w<>]+\): (.*)", str(error.value))


def unchecked(f, *args):
    """What `f` gives where nobody watches its keys."""
    with fl.config(check_key_reuse=False):
        return f(*args)


WRAP = pytest.mark.parametrize("wrap", [lambda f: f, fl.jit, lambda f: fl.jit(fl.jit(f))], ids=["eager", "jit", "jit²"])


@WRAP
def test_J15_a_key_used_twice_is_an_error_that_names_both_lines(wrap):
    def f(key):
        a = random.normal(key, (2,))
        b = random.uniform(key, (2,))
        return a + b

    with pytest.raises(KeyReuseError, match="random.uniform: the key .* was used before, by random.normal") as error:
        wrap(f)(random.key(0))
    assert two_lines(error) == ["a = random.normal(key, (2,))", "b = random.uniform(key, (2,))"]
    assert "Split it, `key, sub = random.split(key)`" in error.value.message
    assert len(str(error.value).splitlines()) <= 8


@WRAP
def test_J15_equal_draws_that_common_subexpressions_would_join_are_found(wrap):
    with pytest.raises(KeyReuseError):
        wrap(lambda key: random.normal(key) + random.normal(key))(random.key(0))


@WRAP
@pytest.mark.parametrize("mode", [lambda f: f, fl.checkpoint], ids=["plain", "checkpoint"])
def test_J15_a_scan_whose_steps_use_one_key_is_found(wrap, mode):
    def f(key):
        step = mode(lambda c: c + random.normal(key))
        return lax.scan(lambda c, _: (step(c), None), np.float32(0), None, length=3)[0]

    with pytest.raises(KeyReuseError) as error:
        wrap(f)(random.key(0))
    assert two_lines(error) == ["step = mode(lambda c: c + random.normal(key))"] * 2


@WRAP
def test_J15_loops_that_split_or_fold_or_map_over_keys_are_fine(wrap):
    def split_each(key):
        def step(key, _):
            key, sub = random.split(key)
            return key, random.normal(sub)

        return lax.scan(step, key, None, length=3)[1]

    def fold_each(key):
        return lax.scan(lambda c, i: (c + random.normal(random.fold_in(key, i)), None), np.float32(0), np.arange(3))[0]

    def over_keys(key):
        return lax.scan(lambda c, k: (c + random.normal(k), None), np.float32(0), random.split(key, 3))[0]

    def while_split(key):
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, random.split(s[1])[0]), (0, key))[1]

    for i, f in enumerate((split_each, fold_each, over_keys, while_split)):
        np.testing.assert_array_equal(wrap(f)(random.key(i)), unchecked(f, random.key(i)))


@WRAP
def test_J15_a_while_loop_that_keeps_its_key_is_found(wrap):
    def f(key):
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + random.normal(key)), (0, np.float32(0)))

    with pytest.raises(KeyReuseError, match="by random.normal"):
        wrap(f)(random.key(0))


@WRAP
def test_J15_a_split_key_is_used_up(wrap):
    def f(key):
        sub = random.split(key)[1]
        return random.normal(sub) + random.normal(key)

    with pytest.raises(KeyReuseError, match="random.normal: .* by random.split"):
        wrap(f)(random.key(0))


def test_J15_across_two_calls_of_a_compiled_function():
    f = fl.jit(random.normal, static_argnums=1)
    keys = random.split(random.key(0))
    f(keys[0], (2,))
    f(keys[1], (2,))
    with pytest.raises(KeyReuseError):
        f(keys[0], (2,))
    with pytest.raises(KeyReuseError):
        random.bits(keys[1])


@WRAP
def test_J15_under_vmap_each_row_is_a_key(wrap):
    mapped = wrap(fl.vmap(lambda key, x: random.normal(key) * x))
    keys = random.split(random.key(0), 4)
    mapped(keys, np.ones(4))
    with pytest.raises(KeyReuseError):
        random.normal(keys[2])
    wrap(fl.vmap(lambda x: random.normal(random.key(1)) * x))(np.ones(4))  # one draw for all rows
    with pytest.raises(KeyReuseError):
        wrap(fl.vmap(lambda key: random.normal(key) + random.uniform(key)))(random.split(random.key(2), 4))


@WRAP
def test_J15_a_batched_cond_uses_a_shared_key_once(wrap):
    def f(x, key):
        return lax.cond(x > 0, lambda: random.normal(key), lambda: np.float32(0))

    x = np.array([1.0, -1.0, 2.0, 3.0, 4.0])
    wrap(fl.vmap(f, (0, None)))(x, random.key(0))
    wrap(fl.vmap(f))(x, random.split(random.key(1), 5))
    with pytest.raises(KeyReuseError):
        random.normal(random.key(0))


def test_J15_a_batched_while_loop_whose_rows_end_apart_is_no_false_alarm():
    def f(n, key):
        def body(state):
            i, key, total = state
            key, sub = random.split(key)
            return i + 1, key, total + random.normal(sub)

        return lax.while_loop(lambda s: s[0] < n, body, (0, key, np.float32(0)))[2]

    counts, keys = np.array([0, 3, 1]), random.split(random.key(0), 3)
    np.testing.assert_array_equal(fl.vmap(f)(counts, keys), unchecked(fl.vmap(f), counts, keys))


DERIVATIVES = {
    "grad": fl.grad,
    "jit grad": lambda f: fl.jit(fl.grad(f)),
    "grad jit": lambda f: fl.grad(fl.jit(f)),
    "jvp": lambda f: lambda x: fl.jvp(f, (x,), (x,)),
    "vmap grad": lambda f: lambda x: fl.vmap(fl.grad(f))(np.stack([x, x])),
    "hessian": fl.hessian,
    "jit hessian": lambda f: fl.jit(fl.hessian(f)),
    "grad of grad": lambda f: fl.grad(lambda x: np.sum(fl.grad(f)(x) ** 2)),
    "jacrev of jacrev": lambda f: fl.jacrev(fl.jacrev(f)),
}


@pytest.mark.parametrize("derivative", list(DERIVATIVES))
@pytest.mark.parametrize("wrap", [lambda f: f, fl.checkpoint, lambda f: fl.checkpoint(fl.jit(fl.checkpoint(f)))],
                         ids=["plain", "checkpoint", "nested"])
def test_J15_derivatives_and_recomputation_are_no_second_use(derivative, wrap):
    key = random.key(0)

    def f(x):
        def dropped(h):
            return np.sum(np.where(random.bernoulli(key, 0.5, h.shape), np.sin(h) ** 2, 0.0))

        return wrap(dropped)(x)

    DERIVATIVES[derivative](f)(np.linspace(0.1, 1, 5))
    with pytest.raises(KeyReuseError, match="by random.bernoulli"):
        random.normal(key)


@pytest.mark.parametrize("loop", ["scan", "while", "cond"])
def test_J15_recomputation_of_loops_and_branches_is_no_second_use(loop):
    key = random.key(0)

    def body(c, i):
        return c * random.uniform(random.split(random.fold_in(key, i))[0], (), np.float64)

    def f(x):
        if loop == "scan":
            return lax.scan(lambda c, i: (body(c, i), None), x, np.arange(3))[0]
        if loop == "while":
            def nested(s):
                once = lax.while_loop(lambda t: t[0] < 1, lambda t: (t[0] + 1, body(t[1], s[0])), (0, s[1]))
                return s[0] + 1, once[1]

            return lax.while_loop(lambda s: s[0] < 3, nested, (0, x))[1]
        return lax.cond(x > 0, lambda c: body(c, 0), lambda c: c, x)

    want = fl.jit(f)(2.0)
    for derivative in (fl.grad(fl.checkpoint(f)), fl.jit(fl.grad(fl.checkpoint(f))), fl.grad(f)):
        with fl.config(check_key_reuse=True):
            assert derivative(2.0) == pytest.approx(want / 2, rel=1e-12)


@pytest.mark.parametrize("kind", ["jvp", "vjp"])
@WRAP
def test_J15_custom_rules_use_their_keys_once(wrap, kind):
    def noisy(x, key):
        return x * random.normal(key, (), np.float64)

    if kind == "jvp":
        f = fl.custom_jvp(noisy, nondiff_argnums=(1,))

        @f.defjvp
        def rule(key, primals, tangents):
            noise = random.normal(key, (), np.float64)
            return primals[0] * noise, tangents[0] * noise
    else:
        f = fl.custom_vjp(noisy, nondiff_argnums=(1,))

        def forward(x, key):
            noise = random.normal(key, (), np.float64)
            return x * noise, noise

        f.defvjp(forward, lambda key, noise, ct: (ct * noise,))
    key = random.key(0)
    assert wrap(fl.grad(lambda x: f(x, key)))(2.0) == random.normal(random.clone(key), (), np.float64)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_J15_no_sampler_uses_its_key_twice(name):
    draw = SAMPLERS[name]
    np.testing.assert_array_equal(draw(random.key(0)), unchecked(draw, random.key(0)))
    np.testing.assert_array_equal(fl.jit(draw)(random.key(1)), unchecked(fl.jit(draw), random.key(1)))
    keys = random.split(random.key(2), 3)
    np.testing.assert_array_equal(fl.vmap(draw)(keys), unchecked(fl.vmap(draw), keys))


def test_J15_clone_allows_one_more_use():
    key = random.key(0)
    np.testing.assert_array_equal(random.normal(key), random.normal(random.clone(key)))
    with pytest.raises(KeyReuseError):
        random.normal(key)
    f = fl.jit(lambda key: random.normal(key) - random.normal(random.clone(key)))
    assert f(random.key(1)) == 0


def test_J15_a_block_begins_with_all_keys_unused_and_may_change_other_settings():
    key = random.key(0)
    random.normal(key)
    with fl.config(strong_zero=False), pytest.raises(KeyReuseError):
        random.normal(key)
    with fl.config(check_key_reuse=True):
        random.normal(key)
        with fl.config(check_key_reuse=False):
            random.normal(key)
    with pytest.raises(KeyReuseError):
        random.normal(key)


def test_J15_off_by_default_and_absent_from_programs_then():
    f = fl.jit(lambda key: random.normal(key) + random.normal(key))
    with fl.config(check_key_reuse=False):
        assert not fl.config.settings.used_keys
        f(random.key(0))
        off = f.lower(random.key(0)).program
    assert use_key_p not in [e.prim for e in off.equations]
    on = f.lower(random.key(0)).program
    assert [e.prim for e in on.equations].count(use_key_p) == 2
    assert use_key_p not in [e.prim for e in without_key_uses(on).equations]
    assert without_key_uses(off) is off
    assert not Settings().check_key_reuse


def test_J15_the_same_settings_share_compiled_functions():
    f = fl.jit(lambda key: random.normal(key))
    for seed in range(3):
        with fl.config(check_key_reuse=True):
            f(random.key(seed))
    assert f.cache_info().misses == 1

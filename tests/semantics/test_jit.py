# SPDX-License-Identifier: MIT
"""SEMANTICS I: staging, purity, donation, effects, errors and the state they leave."""

import contextlib
import io
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.control_flow import fori_loop
from functorch_lite.core.tracer import current_trace, root
from functorch_lite.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConcretizationError,
    DonationError,
    LeakedTracerError,
    PurityWarning,
    RetraceWarning,
)

TRANSFORMS = {"jit": fl.jit, "grad": fl.grad, "vmap": fl.vmap, "jvp": lambda f: lambda x: fl.jvp(f, (x,), (x,))}


def cube(x):
    return x**3


cube_jit = fl.jit(cube)


# --- I1 to I5: what a traced value refuses --------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSFORMS)
def test_I1_a_leaked_tracer_is_refused_with_transform_and_name(name):
    kept = []

    def leaky(x):
        kept.append(x * 2)
        return x * 1.0

    argument = np.ones(3) if name == "vmap" else 1.0
    TRANSFORMS[name](leaky)(argument)
    with pytest.raises(LeakedTracerError, match=rf"`{name}\(leaky\)` is used after that transform ended"):
        np.sin(kept[0]) + 1.0


@pytest.mark.parametrize("transform", ["jit", "vmap"])
@pytest.mark.parametrize(
    "fun, fix",
    [
        (lambda x: x if x > 0 else -x, "lax.cond"),
        (lambda x: sum(range(x)), "static_argnums"),
        (lambda x: fl.numpy.zeros(x), "static_argnums"),
        (lambda x: float(x), "static_argnums"),
    ],
    ids=["if", "range", "zeros", "float"],
)
def test_I2_python_cannot_ask_for_a_value_that_is_not_there(transform, fun, fix):
    argument = np.arange(3) if transform == "vmap" else 3
    with pytest.raises(ConcretizationError, match=rf"(.|\n)*{fix}") as caught:
        TRANSFORMS[transform](fun)(argument)
    assert transform in str(caught.value) or "example" in str(caught.value)


def test_I2_a_shape_given_to_numpy_itself_names_the_transform():
    with pytest.raises(TypeError, match=r"integer, got 'Traced i64\[\] of jit\(<lambda>\)'"):
        fl.jit(lambda x: np.zeros(x))(3)


def test_I2_the_messages_differ_and_are_short():
    messages = set()
    for fun in (lambda x: x if x else 0, lambda x: range(x), lambda x: float(x), lambda x: np.asarray(x)):
        with pytest.raises(ConcretizationError) as caught:
            fl.jit(fun)(3)
        text = str(caught.value)
        assert len(text.splitlines()) <= 8 and "Tracer" not in text
        messages.add(text.split(" runs, so it ")[1].split(".")[0])
    assert len(messages) == 4


@pytest.mark.parametrize("transform", ["jit", "vmap"])
def test_I2_numpy_functions_just_work(transform):
    x = np.arange(3.0)
    np.testing.assert_allclose(TRANSFORMS[transform](np.sin)(x), np.sin(x))
    with pytest.raises(ConcretizationError, match=r"np\.sin\(x\)"):
        fl.jit(lambda x: np.asarray(x))(x)


def test_I3_if_works_under_grad_alone():
    f = fl.grad(lambda x: x * x if x > 0 else -x)
    assert (f(3.0), f(-3.0)) == (6.0, -1.0)


def test_I4_a_static_argument_that_cannot_be_one():
    f = fl.jit(lambda x, shape: np.reshape(x, shape), static_argnames="shape")
    with pytest.raises(
        ArgumentTypeError, match="static argument `shape` of <lambda> is a list, which cannot be hashed"
    ):
        f(np.ones(4), [2, 2])
    with pytest.raises(ArgumentTypeError, match=r"static argument `shape` of <lambda> is a traced value of grad"):
        fl.grad(lambda n: f(np.ones(4), n))(2.0)


def test_I5_results_that_are_no_arrays():
    with pytest.raises(ArgumentTypeError, match=r"jit: <lambda> returned a str \('a'\) at `output\['name'\]`"):
        fl.jit(lambda x: {"name": "a", "value": x})(1.0)
    assert fl.jit(lambda x: None)(1.0) is None
    assert fl.jit(lambda x: (x, None))(1.0) == (1.0, None)


# --- I6 to I8: donation ---------------------------------------------------------------------------------------------


def test_I6_a_donated_array_used_again_names_leaf_and_line():
    f = fl.jit(lambda p, x: p["w"] * x, donate_argnums=0)
    params = {"w": np.ones(3)}
    f(params, 2.0)
    with pytest.raises(DonationError, match=r"`p\['w'\]` of <lambda> was donated to <lambda> at test_jit.py:\d+"):
        f(params, 2.0)
    with pytest.raises(DonationError, match=r"`x` of other was donated"):
        fl.jit(lambda x: x, donate_argnums=0)
        other = fl.jit(_other)
        other(params["w"])


def _other(x):
    return x


_other.__name__ = "other"


def test_I6_one_buffer_donated_twice_raises_before_anything_runs():
    ran = []

    def f(x, y):
        fl.debug.callback(lambda: ran.append(1))
        return x + y

    x = np.ones(3)
    with pytest.raises(DonationError, match="is donated and also passed as another argument of f"):
        fl.jit(f, donate_argnums=(0, 1))(x, x)
    assert not ran
    fl.jit(f)(x, x)  # nothing was donated


def test_I7_donation_under_grad_keeps_a_needed_residual():
    x = np.array([1.0, 2.0])
    f = fl.jit(lambda x: np.sum(x**3), donate_argnums=0)
    np.testing.assert_array_equal(fl.grad(f)(x), [3.0, 12.0])
    np.testing.assert_array_equal(x, [1.0, 2.0])
    value, pullback = fl.vjp(f, x)
    np.testing.assert_array_equal(pullback(1.0)[0], [3.0, 12.0])
    np.testing.assert_array_equal(pullback(1.0)[0], [3.0, 12.0])


def test_I8_a_donated_buffer_that_is_also_captured_or_viewed_is_not_corrupted():
    x = np.arange(1000.0)
    view = x[::2]
    f = fl.jit(lambda y: y * 2 + x, donate_argnums=0)
    np.testing.assert_array_equal(f(x), np.arange(1000.0) * 3)
    np.testing.assert_array_equal(view, np.arange(0, 1000.0, 2))
    np.testing.assert_array_equal(x, np.arange(1000.0))


# --- I9 to I11: purity, effects, exceptions -------------------------------------------------------------------------


def test_I9_an_impure_function_is_found_by_tracing_twice():
    def noisy(x):
        return x + np.random.default_rng().normal()

    kept = []

    def counting(x):
        kept.append(1)
        return x * len(kept)

    with fl.config(check_purity=True):
        for fun in (noisy, counting):
            with pytest.warns(
                PurityWarning, match=f"{fun.__name__} is not pure: two traces differ: first `.*`, then `"
            ):
                fl.jit(fun)(1.0)
        assert fl.jit(cube)(2.0) == 8.0  # a pure one does not warn


def test_I10_effects_happen_in_program_order():
    seen = []

    def step(i, x):
        fl.debug.callback(lambda i, x: seen.append((int(i), float(x))), i, x)
        return x * 2

    fl.jit(lambda x: fori_loop(0, 3, step, x))(1.0)
    assert seen == [(0, 1.0), (1, 2.0), (2, 4.0)]


def test_I10_a_batched_effect_happens_for_each_row():
    seen = []

    def f(x):
        fl.debug.callback(lambda x: seen.append(("a", float(x))), x)
        fl.debug.callback(lambda x: seen.append(("b", float(x))), x)
        return x

    fl.vmap(f)(np.array([1.0, 2.0]))
    assert seen == [("a", 1.0), ("a", 2.0), ("b", 1.0), ("b", 2.0)]


def test_I10_print_shows_values(capsys):
    fl.jit(lambda x: fl.debug.print("x = {x}, twice {}", x * 2, x=x))(3)
    assert capsys.readouterr().out == "x = 3, twice 6\n"


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_I11_an_exception_leaves_a_clean_state(name, error):
    raise_now = [True]

    def f(x):
        if raise_now[0]:
            raise error("mine")
        return x * 2.0

    wrapped = TRANSFORMS[name](f)
    argument = np.ones(2) if name == "vmap" else 1.0
    with pytest.raises(error, match="mine") as caught:
        wrapped(argument)
    assert current_trace() is root
    assert caught.traceback[-1].path.name == "test_jit.py"
    raise_now[0] = False
    wrapped(argument)
    assert cube_jit(2.0) == 8.0


def test_I11_an_exception_at_run_time_names_the_equation_and_the_line():
    def fails(x):
        raise RuntimeError("no luck")

    f = fl.jit(lambda x: fl.pure_callback(fails, fl.ShapeDtype((), np.dtype(float)), x))
    with pytest.raises(RuntimeError, match="no luck") as caught:
        f(1.0)
    assert any("`pure_callback` at test_jit.py:" in note for note in caught.value.__notes__)
    assert current_trace() is root


# --- I12 to I18: caches, threads, sizes -----------------------------------------------------------------------------


def test_I12_the_cache_is_bounded_and_says_why_it_missed():
    f = fl.jit(lambda x: x + 1)
    for n in range(300):
        f(np.zeros(n))
    info = f.cache_info()
    assert info.misses == 300
    assert len(info.entries) == info.maxsize == 256
    assert info.entries[0].signature == "(f64[44])"  # the 44 oldest were dropped
    assert info.entries[-1].reason == "`x`: f64[299] after f64[298]"
    f(np.zeros(44))
    f(np.zeros(45))
    assert [e.signature for e in f.cache_info().entries][-2:] == ["(f64[44])", "(f64[45])"]


def test_I13_a_function_wrapped_anew_in_a_loop_warns_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(25):
            assert fl.jit(lambda x: x * 2)(3.0) == 6.0
    (warning,) = caught
    assert warning.category is RetraceWarning and warning.filename.endswith("test_jit.py")
    assert "traced 20 times" in str(warning.message) and "outside the loop" in str(warning.message)


def test_I13_a_function_that_closes_over_another_value_is_another_function():
    found = [fl.jit(lambda x, k=k: x * k)(3.0) for k in (1.0, 2.0)]
    assert found == [3.0, 6.0]
    assert [fl.jit(scaled(k))(3.0) for k in (1.0, 2.0, np.float32(2.0), np.ones(()))] == [3.0, 6.0, 6.0, 3.0]


def scaled(k):
    return lambda x: x * k


def test_I14_threads_share_one_jitted_function():
    f = fl.jit(lambda x, n: np.sum(np.sin(x) * n))
    wrong, start = [], threading.Barrier(8)

    def work(k):
        start.wait()
        for i in range(20):
            x = np.arange(float(1 + (k + i) % 5))
            if abs(f(x, float(k)) - np.sum(np.sin(x) * k)) > 1e-12:
                wrong.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_I14_a_jitted_function_is_pickled_with_its_options():
    again = pickle.loads(pickle.dumps(cube_jit))
    assert again(2.0) == 8.0


_IN_A_FORK = """
import multiprocessing
import functorch_lite as fl

cube = fl.jit(lambda x: x**3)
assert cube(2.0) == 8.0
context = multiprocessing.get_context("fork")
queue = context.Queue()
child = context.Process(target=lambda: queue.put(float(cube(3.0))))
child.start()
assert queue.get(timeout=30) == 27.0
child.join()
assert child.exitcode == 0
"""


def test_I14_a_jitted_function_works_in_a_forked_process():
    """In a process of its own: other libraries warn when a process that they are in is forked."""
    done = subprocess.run([sys.executable, "-c", _IN_A_FORK], stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_I15_a_large_captured_array_is_an_input_not_a_constant():
    big = np.broadcast_to(np.float32(1.5), (1 << 14, 1 << 14))  # 1 GB if it were copied

    def f(i):
        return fl.numpy.take(big, i, axis=0)[0]

    program = fl.make_program(f)(3)
    assert [v.aval.shape for v in program.inputs] == [(1 << 14, 1 << 14), ()]
    assert len(str(program)) < 2000
    assert fl.jit(f)(3) == 1.5
    _, captured = fl.closure_convert(f, 3)
    assert captured[0] is big


def test_I18_long_chains_are_traced_and_differentiated_without_recursion():
    n = 3000

    def f(x):
        for _ in range(n):
            x = np.sin(x)
        return x

    program = fl.make_program(f)(1.0)
    assert len(program.equations) == n
    expected = fl.grad(f)(1.0)
    assert fl.jit(fl.grad(f))(1.0) == pytest.approx(expected, rel=1e-12)
    assert fl.grad(fl.jit(f))(1.0) == pytest.approx(expected, rel=1e-12)


def test_I18_twenty_thousand_equations():
    """The work grows with the length: each equation is written once, and evaluated once."""
    sizes = {}
    for n in (2000, 20000):

        def f(x, n=n):
            for _ in range(n):
                x = x * 1.0001
            return x

        program = fl.make_program(lambda x: fl.grad(f)(x))(1.0)
        sizes[n] = len(program.equations)
        assert fl.jit(f)(1.0) == pytest.approx(1.0001**n, rel=1e-9)
        assert fl.grad(f)(1.0) == pytest.approx(1.0001**n, rel=1e-9)
    assert sizes[20000] <= 10 * sizes[2000]


def test_I18_deep_nesting_of_jit_is_not_deep_recursion_in_the_text():
    f = cube
    for _ in range(20):
        f = fl.jit(lambda x, f=f: f(x) * 1.0)
    assert f(2.0) == 8.0
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print(fl.make_program(f)(2.0))
    assert out.getvalue().count("jit") == 20


def test_I4_max_traces_raises_with_the_reason():
    f = fl.jit(lambda x: x, max_traces=2)
    f(np.ones(1))
    f(np.ones(2))
    with pytest.raises(ArgumentError, match=r"traced 3 times, max_traces is 2: `x`: f64\[3\] after f64\[2\]"):
        f(np.ones(3))

# SPDX-License-Identifier: MIT
"""jit: static and donated arguments, weak types, methods, pickling, caches; and the tools that show a program."""

import gc
import pickle
import threading

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.core.tracer import current_trace, root
from functorch_lite.errors import ArgumentError, ArgumentTypeError

TRACED = []


def power(x, n=2):
    TRACED.append(1)
    return x**n


power_jit = fl.jit(power, static_argnames="n")


def traces(call):
    before = len(TRACED)
    call()
    return len(TRACED) - before


def test_static_arguments_by_number_by_name_and_by_default():
    for f in (fl.jit(power, static_argnums=1), fl.jit(power, static_argnums=-1), fl.jit(power, static_argnames="n")):
        assert [f(3.0, 2), f(3.0, n=3), f(3.0)] == [9.0, 27.0, 9.0]
        assert traces(lambda f=f: (f(4.0, 2), f(4.0, n=3), f(4.0))) == 0
    f = fl.jit(lambda *args: args[0] * len(args[1]), static_argnums=1)
    assert f(2.0, "abc") == 6.0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"static_argnums": 5}, "static_argnums names argument 5, but power takes 2"),
        ({"static_argnames": "m"}, "static_argnames names `m`, which power does not take"),
        ({"donate_argnums": 7}, "donate_argnums names argument 7"),
    ],
)
def test_options_that_name_no_argument(options, message):
    with pytest.raises(ArgumentError, match=message):
        fl.jit(power, **options)


def test_jit_as_a_decorator_with_options_and_of_a_method():
    class Model:
        def __init__(self, scale):
            self.scale = scale

        @fl.jit
        def plain(x):
            return x + 1

        @staticmethod
        @fl.jit(static_argnames="k")
        def times(x, *, k):
            return x * k

    assert Model.plain(1.0) == 2.0
    assert Model(3).times(2.0, k=4) == 8.0


def test_a_module_method_takes_its_instance_as_a_tree():
    class Scale(dict):
        pass

    @fl.jit
    def call(self, x):
        return self["w"] * x

    Scale.call = call
    assert fl.jit(lambda s, x: call(s, x))({"w": 3.0}, 2.0) == 6.0


def test_python_scalars_are_weak_inside_and_outside():
    f = fl.jit(lambda x, y: x * y)
    x32 = np.ones(2, np.float32)
    assert f(x32, 2.0).dtype == np.float32
    assert f(x32, np.float64(2.0)).dtype == np.float64
    assert f(2, 3) == 6 and type(f(2, 3)) is int
    assert type(fl.jit(lambda x: x * 2)(1.5)) is float
    nested = fl.jit(lambda x, y: f(x, y) * x)
    assert nested(x32, 2.0).dtype == np.float32


def test_results_are_arrays_structures_and_constants():
    out = fl.jit(lambda x: {"x": x, "c": np.arange(2), "t": (1, None), "same": x})(np.ones(2))
    np.testing.assert_array_equal(out["c"], [0, 1])
    assert out["t"] == (1, None)
    assert type(out["x"]) is np.ndarray


def test_changing_settings_means_another_program():
    f = fl.jit(lambda x: np.where(x > 0, np.sqrt(x), 0.0))
    assert fl.jit(fl.grad(f))(0.0) == 0.0
    f(1.0)
    with fl.config(strong_zero=False):
        f(1.0)
    assert [e.reason for e in f.cache_info().entries][-1] == "the settings in `config` differ"


def test_reasons_of_a_miss():
    f = fl.jit(lambda x, flag: x, static_argnames="flag")
    for args in (
        (np.ones(2), True),
        (np.ones(2, np.float32), True),
        (np.ones(2, np.float32), False),
        ((np.ones(2),), False),
    ):
        f(*args)
    reasons = [e.reason for e in f.cache_info().entries]
    assert reasons[0] == "first call"
    assert reasons[1] == "`x`: f32[2] after f64[2]"
    assert "static argument differs" in reasons[2] and "False" in reasons[2]
    assert "structure" in reasons[3]
    assert all("test_jit.py" in e.source for e in f.cache_info().entries)
    f.clear_cache()
    assert f.cache_info().entries == []


def test_a_closed_over_tracer_is_not_cached():
    def f(y):
        inner = fl.jit(lambda x: x * y)
        return inner(2.0) + inner(3.0)

    assert fl.grad(f)(1.0) == 5.0
    assert fl.jit(f)(4.0) == 20.0
    np.testing.assert_array_equal(fl.vmap(f)(np.array([1.0, 2.0])), [5.0, 10.0])

    kept = {}

    def g(y):
        kept.setdefault("f", fl.jit(lambda x: x * kept["y"]))
        kept["y"] = y
        return kept["f"](2.0)

    assert [fl.grad(g)(1.0), fl.grad(g)(5.0)] == [2.0, 2.0]


def test_nested_under_every_other_transform():
    x = np.array([0.3, 0.8])
    f = fl.jit(lambda x: np.sum(np.sin(x) * x))
    slope = np.cos(x) * x + np.sin(x)
    np.testing.assert_allclose(fl.grad(f)(x), slope)
    np.testing.assert_allclose(fl.jvp(f, (x,), (np.ones(2),))[1], slope.sum())
    np.testing.assert_allclose(fl.vjp(f, x)[1](1.0)[0], slope)
    np.testing.assert_allclose(fl.linearize(f, x)[1](np.ones(2)), slope.sum())
    np.testing.assert_allclose(fl.vmap(f)(x[:, None]), np.sin(x) * x)
    np.testing.assert_allclose(fl.grad(fl.checkpoint(f))(x), slope)
    np.testing.assert_allclose(fl.hessian(f)(x), np.diag(2 * np.cos(x) - x * np.sin(x)), rtol=1e-13)
    np.testing.assert_allclose(fl.jit(fl.jit(fl.grad(fl.jit(f))))(x), slope)
    (found,) = fl.linear_transpose(fl.jit(lambda x: np.cumsum(x)), x)(np.ones(2))
    np.testing.assert_array_equal(found, [2.0, 1.0])


def test_pickle_keeps_options():
    again = pickle.loads(pickle.dumps(power_jit))
    assert again(2.0, n=3) == 8.0
    with pytest.raises(ArgumentTypeError, match="static argument `n` of power is a list"):
        again(2.0, n=[1])


def test_threads_have_their_own_traces():
    """While one thread is inside a transform, another computes at once."""
    inside, leave, found = threading.Event(), threading.Event(), []

    def slow(x):
        inside.set()
        leave.wait(10)
        return x * 2

    worker = threading.Thread(target=lambda: found.append(fl.jit(slow)(3.0)))
    worker.start()
    inside.wait(10)
    assert current_trace() is root
    assert fl.grad(np.sin)(0.0) == 1.0
    leave.set()
    worker.join()
    assert found == [6.0]


# --- looking at programs --------------------------------------------------------------------------------------------


def test_make_program_prints_types_and_operations():
    program = fl.make_program(lambda x: np.sin(x) * 2)(np.ones(3, np.float32))
    text = str(program)
    assert "lambda a:f32[3]" in text and "sin a" in text and "mul" in text
    assert fl.make_jaxpr is fl.make_program
    assert fl.make_program(power, static_argnums=1)(2.0, 3).out_avals[0].shape == ()
    assert fl.make_program(np.sin)(fl.ShapeDtype((3,), np.dtype("f4"))).in_avals[0].shape == (3,)


def test_equal_functions_have_equal_fingerprints():
    one, two, other = (fl.make_program(f)(1.0) for f in (lambda x: np.sin(x) * 2, lambda y: np.sin(y) * 2, np.cos))
    assert one == two and hash(one) == hash(two)
    assert one != other


def test_eval_shape_computes_nothing():
    huge = fl.ShapeDtype((1 << 20, 1 << 20), np.dtype("f4"))
    out = fl.eval_shape(lambda x, y: {"d": x @ y, "n": 3}, huge, huge)
    assert out["d"] == fl.ShapeDtype((1 << 20, 1 << 20), np.dtype("f4"))
    assert out["n"].shape == ()


def test_closure_convert_makes_captured_values_arguments():
    def f(y):
        converted, captured = fl.closure_convert(lambda x: x * y, 1.0)
        assert len(captured) == 1
        return fl.grad(lambda c: converted(5.0, c))(captured[0]) * y

    assert fl.grad(f)(3.0) == 5.0
    converted, captured = fl.closure_convert(lambda p: p["a"] + 1, {"a": 1.0})
    assert captured == [] and converted({"a": 2.0}) == 3.0


def test_ensure_compile_time_eval_runs_at_once():
    seen = []

    @fl.jit
    def f(x):
        with fl.ensure_compile_time_eval():
            n = fl.numpy.sum(fl.numpy.arange(4))
            seen.append(int(n))
        return x * int(n)

    assert f(2.0) == 12.0
    assert seen == [6]


def test_check_purity_accepts_effects():
    with fl.config(check_purity=True):
        assert fl.jit(lambda x: (fl.debug.callback(lambda v: None, x), x * 2)[1])(3.0) == 6.0


# --- garbage collection -----------------------------------------------------------------------------------------------


def collecting(seen):
    """A function that notes whether there is automatic garbage collection while Python runs in a call."""

    def note(x):
        seen.append(gc.isenabled())
        return x

    return note


def test_tracing_and_compiling_are_not_held_up_by_garbage_collection():
    traced = []

    def fun(x):
        traced.append(gc.isenabled())
        return np.sin(x) + 1

    f = fl.jit(fun)
    for _ in range(3):
        f(np.ones(3))
        assert gc.isenabled()
    assert traced == [False]
    gc.disable()
    try:
        fl.jit(fun)(np.ones(4))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_steps_in_python_have_garbage_collection_in_a_first_call():
    seen = []
    f = fl.jit(lambda x: fl.pure_callback(collecting(seen), x, x) * 2)
    for _ in range(2):
        np.testing.assert_array_equal(f(np.ones(3)), 2 * np.ones(3))
    assert seen == [True, True] and gc.isenabled()


def test_errors_leave_garbage_collection_on():
    def wrong(x):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fl.jit(wrong)(np.ones(3))
    assert gc.isenabled()
    x = np.ones(3)
    with pytest.raises(IndexError):
        fl.jit(lambda x, i: x[i])(x, np.array([7]))
    assert gc.isenabled()

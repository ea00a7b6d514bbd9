# SPDX-License-Identifier: MIT
"""Looking at compilation: `lower`, its stages, costs, the memory forecast, and the modes that verify and profile."""

import gc
import tracemalloc

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim
from functorch_lite.errors import ArgumentError, ArgumentTypeError


def softmax(x):
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)


def test_every_stage_has_a_text():
    lowered = fl.jit(softmax).lower(X)
    assert lowered.stages[0] == "program" and lowered.stages[-1] == "llvm"
    for stage in lowered.stages:
        assert lowered.as_text(stage).strip()
    assert lowered.as_text("schedule") == "kernel 4x6 in rows of 6 = reduce_max sub exp reduce_sum div\n"
    with pytest.raises(ArgumentError, match="there is no stage 'assembler'. The stages are program, "):
        lowered.as_text("assembler")


def test_lowering_takes_shapes_and_traces_nothing_into_the_cache():
    f = fl.jit(softmax)
    lowered = f.lower(fl.ShapeDtype((4, 6), np.dtype(np.float32)))
    assert f.cache_info().misses == 0
    assert str(lowered.program) == str(f.lower(X).program)


def test_a_compiled_function_takes_its_own_signature_only():
    compiled = fl.jit(lambda d, n: {"y": d["x"] * n}).lower({"x": X}, 2.0).compile()
    np.testing.assert_array_equal(compiled({"x": X}, 3.0)["y"], X * 3)
    with pytest.raises(ArgumentTypeError, match="called with arguments of another structure"):
        compiled([X], 3.0)
    with pytest.raises(ArgumentTypeError, match=r"called with float32\[3, 6\] where it was compiled for f32\[4,6\]"):
        compiled({"x": X[:3]}, 3.0)


def test_costs_are_counted():
    a, b = np.ones((30, 40), np.float32), np.ones((40, 50), np.float32)
    cost = fl.jit(lambda a, b: a @ b).lower(a, b).cost_analysis()
    assert cost.flops == 2 * 30 * 40 * 50
    assert cost.bytes == 4 * (30 * 40 + 40 * 50 + 30 * 50)
    cost = fl.jit(lambda x: fl.lax.scan(lambda c, _: (np.sin(c), None), x, None, length=7)[0]).lower(X).cost_analysis()
    assert cost.transcendentals == 7 * X.size


def _model_step():
    model = nn.MLP([300, 500, 10], key=fl.random.key(0))
    opt = optim.adam(1e-3)

    def step(model, state, x):
        grads = fl.grad(lambda m: np.mean(m(x) ** 2))(model)
        return opt.step(model, grads, state)

    return step, (model, opt.init(model), np.ones((256, 300), np.float32))


@pytest.mark.parametrize("make", [
    lambda: (lambda x: np.cumsum(np.sin(x) @ np.cos(x).T, 0), (np.ones((500, 400)),)),
    lambda: (lambda x: fl.lax.scan(lambda c, r: (c * 0.5 + np.outer(r, r), np.sum(c)), np.zeros((300, 300)), x),
             (np.ones((20, 300)),)),
    _model_step,
], ids=["products", "scan", "training step"])
def test_the_forecast_is_what_is_needed_and_never_less(make):
    fun, args = make()
    f = fl.jit(fun)
    forecast = f.memory(*args)
    f(*args)
    f.clear_cache()
    f.lower(*args)
    gc.collect()
    compiled = f.lower(*args).compile()
    tracemalloc.start()
    try:
        compiled(*args)
        measured = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    predicted = forecast.outputs + forecast.temporaries
    assert forecast.peak == predicted + forecast.arguments + forecast.captured
    assert measured <= predicted * 1.02 + 20_000  # what Python itself allocates in a call
    assert measured >= predicted * 0.98


def test_the_forecast_names_what_lives_at_the_peak():
    forecast = fl.jit(lambda x: np.sum((np.sin(x) @ x) @ x)).memory(np.ones((200, 200)))
    assert forecast.at_peak[0].bytes == 320_000
    assert "test_stages.py" in forecast.at_peak[0].source
    assert "temporaries" in str(forecast)


def test_a_profile_tells_kernels_and_lines():
    f = fl.jit(lambda x: np.exp(x) @ x.T, profile=True)
    with pytest.raises(ArgumentError, match="profile: there is nothing counted for <lambda>"):
        f.profile()
    for _ in range(3):
        f(X)
    profile = f.profile()
    assert profile.calls == 3
    assert any("exp" in row.name for row in profile.kernels)
    assert any("test_stages.py" in row.name for row in profile.lines)


def test_a_verified_function_gives_the_same():
    f = fl.jit(fl.grad(lambda x: np.sum(softmax(x) ** 2)), verify=True)
    np.testing.assert_allclose(f(X), fl.grad(lambda x: np.sum(softmax(x) ** 2))(X), rtol=1e-5, atol=1e-7)
    with pytest.raises(ArgumentError, match="verify and profile cannot be asked for together"):
        fl.jit(softmax, verify=True, profile=True)

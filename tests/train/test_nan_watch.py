# SPDX-License-Identifier: MIT
from typing import Any, NamedTuple

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import lax, nn, train


class State(NamedTuple):
    w: Any
    best: Any


def training_step(loss_fn, **options):
    def step(state, batch):
        loss, grad = fl.value_and_grad(loss_fn)(state.w, batch)
        return State(state.w - np.float32(0.1) * grad, state.best), {"loss": loss}

    return fl.jit(step, **options) if options.pop("jit", True) else step


def watched(loss_fn, batches=None, **options):
    batches = [np.ones((2, 3), np.float32)] * 3 if batches is None else batches
    state = State(np.ones(3, np.float32), np.inf)
    with pytest.raises(train.NonFiniteError) as caught:
        train.fit(training_step(loss_fn, **options), state, batches, nan_watch=True, show=False)
    return caught.value


def log_of_negative(w, x):
    h = fnp.tanh(x @ w)
    z = fnp.log(h - 1.0)  # here
    return fnp.mean(z)


@pytest.mark.parametrize("options", [{}, {"jit": False}, {"donate_argnums": 0}], ids=["jit", "eager", "donated"])
def test_the_line_the_primitive_and_the_operands_are_named(options):
    error = watched(log_of_negative, **options)
    assert error.primitive == "log" and error.step == 1 and error.path == "loss"
    assert "z = fnp.log(h - 1.0)  # here" in str(error.source)
    message = str(error)
    assert "step 1: `loss` is no longer finite: float32[] nan" in message
    assert "made by `log`: float32[2] with 2 NaN,\nfrom float32[2] in [-0.0049" in message
    assert len(message.splitlines()) <= 8
    assert error.state.w.tolist() == [1, 1, 1] and error.batch.shape == (2, 3)


def test_the_infinity_behind_a_nan_comes_first():
    def loss(w, x):
        h = fnp.log(x @ w * 0.0)  # first
        return fnp.mean(h * 0.0)  # then

    error = watched(loss)
    assert error.primitive == "log" and "# first" in str(error.source)
    assert "It becomes NaN by `mul` at" in str(error) and "# then" in str(error)


def test_masked_scores_are_not_blamed():
    def loss(w, x):
        scores = fnp.where(x @ w > 99.0, x @ w, -fnp.inf)
        return fnp.mean(nn.softmax(scores))  # here

    error = watched(loss)
    assert error.primitive == "sub" and "# here" in str(error.source)


def test_a_nan_that_a_where_drops_is_not_blamed():
    def loss(w, x):
        h = x @ w
        dropped = fnp.where(h > 0.0, 0.0, fnp.log(-h))
        return fnp.sum(dropped) + fnp.sum(fnp.sqrt(-h))  # here

    error = watched(loss)
    assert error.primitive == "sqrt" and "# here" in str(error.source)


def test_inside_a_scan_the_iteration_is_named():
    def loss(w, x):
        def body(c, _):
            c = c * c  # here
            return c, None

        return fnp.mean(lax.scan(body, x @ w * 10.0, None, length=10)[0])

    error = watched(loss)
    assert "made in iteration 4 of a scan by `mul`" in str(error) and "# here" in str(error.source)


def test_inside_a_branch():
    def loss(w, x):
        h = fnp.sum(x @ w)
        return lax.cond(h > 0.0, lambda h: fnp.log(-h), lambda h: h, h)  # here

    error = watched(loss)
    assert error.primitive == "log" and "# here" in str(error.source)


def test_a_gradient_that_overflows_is_found_in_the_state():
    def loss(w, x):
        return fnp.sum(fnp.sqrt(w * np.float32(1e-38)) * np.float32(1e-19)) * np.float32(0.0) + fnp.sum(w**2)

    def step(state, batch):
        w = state.w * batch
        return State(w, state.best), {"loss": loss(state.w, batch)}

    state = State(np.full(3, 1e30, np.float32), np.inf)
    with pytest.raises(train.NonFiniteError, match=r"`state\.w`|`loss`"):
        train.fit(fl.jit(step), state, [np.float32(1e20)], nan_watch=True, show=False)


def test_a_leaf_of_the_state_is_named():
    def step(state, batch):
        return State(state.w * batch, state.best), {}  # here

    state = State(np.full(3, 1e30, np.float32), np.inf)
    with pytest.raises(train.NonFiniteError) as caught:
        train.fit(fl.jit(step), state, [np.float32(2.0), np.float32(1e20)], nan_watch=True, show=False)
    assert caught.value.path == "state.w" and caught.value.step == 2 and "# here" in str(caught.value.source)
    assert caught.value.state.w[0] == np.float32(2e30)


def test_a_batch_with_nan_is_named():
    error = watched(lambda w, x: fnp.sum(x["a"] @ w), [{"a": np.full((2, 3), np.nan, np.float32)}])
    assert "It is in what the step was given: `batch['a']`." in str(error) and error.primitive == ""


def test_captured_arrays_are_told():
    captured = np.full((64, 64), np.nan, np.float32)
    error = watched(lambda w, x: fnp.sum(captured) * fnp.sum(w))
    assert "It is in what the step was given: a captured array." in str(error)


def test_a_step_that_cannot_be_traced_is_told_without_a_line():
    def step(state, batch):
        return state, {"loss": np.float32(np.nan) if float(state) > 0 else state}

    with pytest.raises(train.NonFiniteError, match="tracing the step raised ConcretizationError") as caught:
        train.fit(step, np.float32(1.0), [1], nan_watch=True, show=False)
    assert caught.value.__cause__ is not None


def test_values_that_were_never_finite_are_left_alone():
    result = train.fit(
        training_step(lambda w, x: fnp.sum(x @ w)), State(np.ones(3, np.float32), np.inf),
        [np.ones((2, 3), np.float32)] * 3, nan_watch=True, show=False,
    )
    assert result.step == 3


def test_the_last_good_checkpoint_stays(tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints are safetensors files")
    batches = [np.float32(1.0)] * 5 + [np.float32(np.inf)]
    with pytest.raises(train.NonFiniteError, match="step 6: "):
        train.fit(
            fl.jit(lambda w, x: (w + x, {})), np.zeros(3, np.float32), batches, nan_watch=True, show=False,
            checkpoint=train.Checkpoints(tmp_path, every=1),
        )
    assert train.Checkpoints(tmp_path).restore(like=np.zeros(3, np.float32)).state.tolist() == [5, 5, 5]

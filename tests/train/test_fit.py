# SPDX-License-Identifier: MIT
import os
import re
import signal
import subprocess
import sys
import threading
from typing import Any, NamedTuple
from unittest.mock import ANY

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import optim, train
from functorch_lite.errors import ArgumentError, ArgumentTypeError
from functorch_lite.train import display, loop


class State(NamedTuple):
    w: Any
    key: Any


@fl.jit
def noisy_step(state, batch):
    key, noise_key = fl.random.split(state.key)
    loss, grad = fl.value_and_grad(lambda w: ((w - batch) ** 2).mean())(state.w)
    w = state.w - np.float32(0.1) * grad + np.float32(0.01) * fl.random.normal(noise_key, (3,))
    return State(w, key), {"loss": loss}


def start():
    return State(np.zeros(3, np.float32), fl.random.key(0))


def batches(epoch):
    return (np.full(3, epoch + i, np.float32) for i in range(7))


def fit(*args, **kwargs):
    return train.fit(*args, **{"show": False, **kwargs})


def same(a, b):
    for x, y in zip(fl.tree.leaves(a), fl.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.tobytes() == y.tobytes()


# --- what it runs -----------------------------------------------------------------------------------------------------


def test_it_is_the_loop_one_would_write():
    state, losses = start(), []
    for epoch in range(3):
        for batch in batches(epoch):
            state, metrics = noisy_step(state, batch)
            losses.append(float(metrics["loss"]))
    result = fit(noisy_step, start(), batches, epochs=3)
    same(result.state, state)
    assert result.step == 21 and result.history == {"loss": list(enumerate(losses, 1))}


@pytest.mark.parametrize(
    "limits, steps",
    [({}, 7), ({"epochs": 2}, 14), ({"steps": 5}, 5), ({"steps": 9, "epochs": 2}, 9), ({"steps": 99, "epochs": 2}, 14)],
)
def test_it_ends_at_the_first_limit(limits, steps):
    for given in (batches, list(batches(0))):
        assert fit(noisy_step, start(), given, **limits).step == steps


def test_steps_alone_run_through_as_many_epochs_as_it_takes():
    assert fit(noisy_step, start(), list(batches(0)), steps=17).step == 17


def test_no_steps_change_nothing():
    result = fit(noisy_step, start(), list(batches(0)), steps=0)
    same(result.state, start())
    assert result.step == 0 and result.history == {}


def test_a_step_need_not_be_jitted_nor_return_metrics():
    result = fit(lambda state, batch: (state + batch, {}), 0, [1, 2, 3], epochs=2)
    assert result == train.Result(12, {}, 6)


def test_an_iterator_gives_one_epoch():
    assert fit(noisy_step, start(), batches(0)).step == 7
    with pytest.raises(ArgumentError, match="epoch 1 has no batches. An iterator gives its batches once"):
        fit(noisy_step, start(), batches(0), epochs=2)


def test_wrong_arguments_are_named():
    for given, error, message in [
        ({"steps": -1}, ArgumentError, "`steps` should be at least 0, but is -1"),
        ({"epochs": -1}, ArgumentError, "`epochs` should be at least 0, but is -1"),
        ({"every": 0}, ArgumentError, "`every` should be at least 1"),
        ({"callbacks": [3]}, ArgumentTypeError, "a train.Callback or a function of the run, got 3"),
        ({"evaluate": lambda state: 3}, ArgumentTypeError, "`evaluate` should return a dict of figures, .* int"),
    ]:
        with pytest.raises(error, match=message):
            fit(noisy_step, start(), list(batches(0)), **given)
    with pytest.raises(ArgumentTypeError, match="`step` should be a function of .state, batch., got int"):
        fit(3, start(), [])
    with pytest.raises(ArgumentTypeError, match="`batches` should be an iterable or a function of the epoch"):
        fit(noisy_step, start(), 3)
    for wrong in (lambda s, b: 3.0, lambda s, b: (s, {}, 1)):
        with pytest.raises(ArgumentTypeError, match=r"a pair \(state, metrics\), but returned (float|tuple)"):
            fit(wrong, 0, [1])
    with pytest.raises(ArgumentTypeError, match="a dict of metrics, but they are float64"):
        fit(lambda s, b: (s, np.float64(1)), 0, [1])
    with pytest.raises(ArgumentTypeError, match=r"the metric `loss` should be a scalar or a metric object .* \[3\]|3"):
        fit(lambda s, b: (s, {"loss": np.zeros(3)}), 0, [1])


# --- evaluation, metrics, callbacks -----------------------------------------------------------------------------------


def test_evaluation_comes_after_each_epoch_and_at_the_end():
    result = fit(noisy_step, start(), batches, steps=16, evaluate=lambda state: {"w": state.w.sum()})
    assert [step for step, _ in result.history["eval/w"]] == [7, 14, 16]
    assert result.history["eval/w"][-1][1] == pytest.approx(float(result.state.w.sum()))


def test_evaluation_comes_every_so_many_steps():
    seen = []
    result = fit(noisy_step, start(), batches, epochs=2, every=7, evaluate=lambda s: seen.append(1) or {"n": len(seen)})
    assert result.history["eval/n"] == [(7, 1.0), (14, 2.0)]
    result = fit(noisy_step, start(), batches, steps=11, every=5, evaluate=lambda s: {"n": 0})
    assert [step for step, _ in result.history["eval/n"]] == [5, 10, 11]


def test_evaluation_may_return_metric_objects():
    result = fit(noisy_step, start(), batches, evaluate=lambda s: {"mean": train.Mean.of(np.array([1.0, 2.0]))})
    assert result.history["eval/mean"] == [(7, 1.5)]


def test_metric_objects_are_merged_between_reports():
    def step(state, batch):
        return state, {"mean": train.Mean.of(batch), "batch": batch.mean()}

    result = fit(step, 0, [np.array([1.0, 2.0]), np.array([6.0])], epochs=2)
    assert result.history["mean"] == [(2, 3.0), (4, 3.0)]
    assert result.history["batch"] == [(1, 1.5), (2, 6.0), (3, 1.5), (4, 6.0)]
    every = fit(step, 0, [np.array([1.0, 2.0]), np.array([6.0])], epochs=2, every=3)
    assert every.history["mean"] == [(3, (3 + 6 + 3) / 5), (4, 6.0)]


def test_a_metric_that_is_a_matrix_stays_one_in_the_history():
    def step(state, batch):
        return state, {"confusion": train.ConfusionMatrix.of(batch, batch, n_classes=3)}

    result = fit(step, 0, [np.array([0, 1]), np.array([2, 2])])
    ((at, matrix),) = result.history["confusion"]
    assert at == 2 and matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 2]]


class Recorder(train.Callback):
    def __init__(self):
        self.calls = []

    def on_start(self, run):
        self.calls.append(("start", run.step))

    def on_step(self, run):
        self.calls.append(("step", run.step))

    def on_evaluate(self, run, figures):
        self.calls.append(("evaluate", run.step, sorted(figures)))

    def on_epoch(self, run):
        self.calls.append(("epoch", run.epoch))

    def on_end(self, run):
        self.calls.append(("end", run.step))


def test_callbacks_are_told_in_order():
    recorder = Recorder()
    fit(noisy_step, start(), list(batches(0))[:2], epochs=2, callbacks=[recorder], evaluate=lambda s: {"n": 1})
    figures = ["eval/n", "loss"]
    assert recorder.calls == [
        ("start", 0), ("step", 1), ("step", 2), ("evaluate", 2, figures), ("epoch", 1),
        ("step", 3), ("step", 4), ("evaluate", 4, figures), ("epoch", 2), ("end", 4),
    ]  # fmt: skip


def test_every_callback_is_told_of_the_end_whatever_happens():
    class Failing(train.Callback):
        def on_end(self, run):
            raise RuntimeError("at the end")

    recorder = Recorder()
    with pytest.raises(RuntimeError, match="at the end"):
        fit(noisy_step, start(), batches, callbacks=[Failing(), recorder, lambda run: 1 // 0])
    assert recorder.calls[-1] == ("end", 1)


def test_epochs_of_unknown_length_are_told_alike():
    recorders = [Recorder(), Recorder()]
    for recorder, given in zip(recorders, (batches, lambda epoch: list(batches(epoch))), strict=True):
        fit(noisy_step, start(), given, epochs=2, every=7, callbacks=[recorder], evaluate=lambda s: {"n": 1})
    assert recorders[0].calls == recorders[1].calls


def test_a_function_is_called_after_each_step_and_may_stop_log_and_change_the_state():
    def call(run):
        run.log(double=2 * run.step)
        if run.step == 2:
            run.state = run.state + 100
        if run.step == 4:
            run.stop("enough")

    result = fit(lambda s, b: (s + b, {}), 0, [1] * 10, callbacks=[call])
    assert result.state == 104 and result.history["double"] == [(1, 2.0), (2, 4.0), (3, 6.0), (4, 8.0)]


def test_early_stopping_waits_for_its_patience():
    values = iter([5.0, 4.0, 4.5, 3.9999, 4.2, 1.0])
    stopping = train.EarlyStopping("eval/loss", patience=2, least_change=0.01)
    result = fit(
        noisy_step, start(), batches, epochs=9, callbacks=[stopping], evaluate=lambda s: {"loss": next(values)}
    )
    assert result.step == 4 * 7 and stopping.best == 4.0 and stopping.best_step == 14


def test_early_stopping_of_a_figure_that_should_grow():
    values = iter([0.1, 0.3, 0.2, 0.4, 0.4, 0.4])
    stopping = train.EarlyStopping("eval/accuracy", patience=2, largest_is_best=True)
    result = fit(
        noisy_step, start(), batches, epochs=9, callbacks=[stopping], evaluate=lambda s: {"accuracy": next(values)}
    )
    assert result.step == 6 * 7 and stopping.best_step == 28


def test_early_stopping_names_the_figures_there_are():
    with pytest.raises(ArgumentError, match="the evaluation has no figure `eval/loss`; it has loss"):
        fit(noisy_step, start(), batches, callbacks=[train.EarlyStopping("eval/loss", patience=1)])
    with pytest.raises(ArgumentError, match="`patience` should be at least 1"):
        train.EarlyStopping("loss", patience=0)


def test_accumulated_gradients_make_one_step_of_several_batches():
    def step_with(opt):
        @fl.jit
        def step(state, batch):
            w, opt_state = state
            loss, grad = fl.value_and_grad(lambda w: ((w - batch) ** 2).mean())(w)
            return opt.step(w, grad, opt_state), {"loss": loss}

        return step

    w, data = np.zeros(3), [np.full(3, float(i)) for i in range(6)]
    opt = optim.accumulate(optim.adam(0.1), every=3)
    many = fit(step_with(opt), (w, opt.init(w)), data)
    opt = optim.adam(0.1)
    few = fit(step_with(opt), (w, opt.init(w)), [np.full(3, 1.0), np.full(3, 4.0)])
    np.testing.assert_allclose(many.state[0], few.state[0], rtol=1e-12)


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_weights_batches_by_their_size():
    def step(state, batch):
        x, y = batch
        return {"loss": (x - state).mean(), "accuracy": train.Accuracy.of(y, np.zeros_like(y))}

    data = [(np.ones(3), np.array([0, 0, 1])), (np.array([5.0]), np.array([0]))]
    assert train.evaluate(step, 0.0, data) == {"loss": 2.0, "accuracy": 0.75}
    assert train.evaluate(step, 0.0, lambda: iter(data)) == {"loss": 2.0, "accuracy": 0.75}
    with pytest.raises(ArgumentError, match="there are no batches"):
        train.evaluate(step, 0.0, [])


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_lines_tell_evaluations_and_progress(capsys, monkeypatch):
    monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(loop, "_TICK", 0.0)
    train.fit(noisy_step, start(), list(batches(0)), epochs=2, title="toy", evaluate=lambda s: {"n": 1.0})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("toy: step 1/14  loss") and lines[0].endswith("s to go")
    assert any(re.fullmatch(r"toy: step 14  loss \d\.\d{4}  eval/n 1\.0000", line) for line in lines)


def test_the_line_of_an_epoch_has_its_mean_figures(capsys):
    train.fit(lambda s, b: (s, {"x": float(b)}), 0, [1, 2, 6], epochs=2, title="toy")
    assert capsys.readouterr().out.splitlines() == ["toy: step 3  x 3.0000", "toy: step 6  x 3.0000"]


def test_where_the_number_of_steps_is_unknown_none_is_shown(capsys, monkeypatch):
    monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(loop, "_TICK", 0.0)
    train.fit(noisy_step, start(), batches, title="toy", callbacks=[lambda run: run.step == 3 and run.stop("enough")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("toy: step 1  loss") and lines[-1] == "toy: stopped at step 3: enough"


def test_on_a_terminal_rich_draws(capsys, monkeypatch):
    pytest.importorskip("rich", reason="the terminal display is drawn by Rich")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(loop, "_TICK", 0.0)
    train.fit(noisy_step, start(), list(batches(0)), title="toy", evaluate=lambda s: {"n": 1.0})
    assert re.search(r"toy: step 7  loss .*  eval/n 1\.0000", capsys.readouterr().out)


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    fit(noisy_step, start(), batches, evaluate=lambda s: {"n": 1.0}, plot=tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


# --- interruption -----------------------------------------------------------------------------------------------------


def at_step(n, act):
    return lambda run: act() if run.step == n else None


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_after_the_step_under_way_and_saves_it(tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints are safetensors files")
    whole = fit(noisy_step, start(), batches, epochs=3)
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        fit(noisy_step, start(), batches, epochs=3, checkpoint=tmp_path, callbacks=[at_step(9, press_ctrl_c), recorder])
    assert train.Checkpoints(tmp_path).steps() == [7, 9] and recorder.calls[-1] == ("end", 9)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = fit(noisy_step, start(), batches, epochs=3, checkpoint=tmp_path)
    same(resumed.state, whole.state)
    assert resumed.history == whole.history


def test_a_second_ctrl_c_acts_at_once():
    def twice():
        press_ctrl_c()
        press_ctrl_c()
        pytest.fail("the second Ctrl-C came to nothing")

    with pytest.raises(KeyboardInterrupt):
        fit(noisy_step, start(), batches, callbacks=[at_step(2, twice)])


def test_handlers_of_the_program_are_left_to_it():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        assert fit(noisy_step, start(), batches, callbacks=[at_step(2, press_ctrl_c)]).step == 7
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]


TERMINATED = """
import os, signal, sys
from functorch_lite import train

def terminate(run):
    if run.step == 5:
        os.kill(os.getpid(), signal.SIGTERM)

train.fit(lambda s, b: (s + b, {}), 0, [1] * 9, checkpoint=sys.argv[1], callbacks=[terminate], show=False)
"""


def test_sigterm_saves_and_ends_the_process(tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints are safetensors files")
    done = subprocess.run([sys.executable, "-c", TERMINATED, str(tmp_path)], timeout=60)
    assert done.returncode == -signal.SIGTERM
    assert train.Checkpoints(tmp_path).restore(like=0) == train.Saved(5, 5, ANY)


def test_it_runs_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(noisy_step, start(), batches).step))
    thread.start()
    thread.join()
    assert found == [7]


def test_a_loader_whose_worker_died_loses_nothing_that_was_saved(tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints are safetensors files")

    def dying(epoch):
        for i, batch in enumerate(batches(epoch)):
            if (epoch, i) == (1, 3):
                raise RuntimeError("worker 0 was killed")
            yield batch

    with pytest.raises(RuntimeError, match="worker 0 was killed"):
        fit(noisy_step, start(), dying, epochs=3, checkpoint=train.Checkpoints(tmp_path, every=2))
    assert train.Checkpoints(tmp_path).steps() == [6, 8, 10]
    resumed = fit(noisy_step, start(), batches, epochs=3, checkpoint=tmp_path)
    same(resumed.state, fit(noisy_step, start(), batches, epochs=3).state)

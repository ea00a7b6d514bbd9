# SPDX-License-Identifier: MIT
"""A small real training run that is killed with SIGKILL at random moments and begun anew, until it ends.

    python trainer_to_kill.py FOLDER N_KILLS SEED

First it runs uninterrupted, into FOLDER/whole; then with kills, into FOLDER/killed. The library is imported once; each
attempt is a process of its own, forked from here. Prints a line of JSON: the newest checkpoint after each kill, and how
many kills left a half-written file.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorboardX  # noqa: F401  (loaded once, before the forks)

import functorch_lite as fl
from functorch_lite import nn, optim, train

STEPS = 420
ROUNDS = 12  # until kills come in the middle of the run, and of a write, on a disk of whatever speed


class State(NamedTuple):
    model: Any
    average: Any
    opt_state: Any
    key: Any


class Place:
    """Batches without end, from a place that it can tell: 16 rows of [64, 8], drawn by (epoch, batch)."""

    def __init__(self):
        self.x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
        self.epoch = self.batch = 0

    def __len__(self):
        return 13

    def __iter__(self):
        epoch = self.epoch
        while self.epoch == epoch:
            rows = np.random.default_rng((self.epoch, self.batch)).integers(64, size=16)
            self.epoch, self.batch = (epoch, self.batch + 1) if self.batch < 12 else (epoch + 1, 0)
            yield self.x[rows], (self.x[rows].sum(-1) > 0).astype(np.int64)

    def state(self):
        return {"epoch": self.epoch, "batch": self.batch}

    def restore(self, state):
        self.epoch, self.batch = state["epoch"], state["batch"]


def make():
    """The step and the state it begins with: a network with dropout, Adam, weights averaged over the run."""
    key = fl.random.key(0)
    keys = fl.random.split(key, 2)
    layers = [nn.Linear(8, 256, key=keys[0]), nn.Lambda(nn.relu), nn.Dropout(0.3), nn.Linear(256, 2, key=keys[1])]
    model = nn.Sequential(*layers)
    opt = optim.adam(1e-2)

    @fl.jit
    def step(state, batch):
        x, y = batch
        key, dropout_key = fl.random.split(state.key)

        def loss_fn(model):
            logits, _ = nn.apply(model, x, key=dropout_key, training=True)
            return nn.cross_entropy(logits, y), logits

        (loss, logits), grads = fl.value_and_grad(loss_fn, has_aux=True)(state.model)
        model, opt_state = opt.step(state.model, grads, state.opt_state)
        average = fl.tree.map(lambda a, w: a + (w - a) * np.float32(0.01), state.average, model)
        metrics = {"loss": loss, "accuracy": train.Accuracy.of(logits, y), "area": train.AUROC.of(logits[:, 1], y)}
        return State(model, average, opt_state, key), metrics

    return step, State(model, model, opt.init(model), key)


def run(folder, tell=None, log_dir=None):
    """Train to the end, from what `folder` holds; `tell` is called after its first step."""
    step, state = make()
    checkpoints = train.Checkpoints(folder, every=2, keep=3, best="eval/norm")
    callbacks = [train.EarlyStopping("eval/norm", patience=1000), First(tell)]
    return train.fit(
        step, state, Place(), steps=STEPS, every=60, checkpoint=checkpoints, callbacks=callbacks, show=False,
        evaluate=lambda state: {"norm": float(np.square(state.average.layers[0].weight).sum())}, log_dir=log_dir,
    )


class First(train.Callback):
    """Calls a function after the first step of this process."""

    def __init__(self, tell):
        self._tell = tell

    def on_step(self, run):
        if self._tell is not None:
            self._tell()
            self._tell = None


def attempt(folder, seconds, once_begun):
    """Fork a process that trains, and kill it after `seconds`; whether it had ended by itself.

    once_begun: whether the seconds count from the end of its first step.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(folder, lambda: os.write(writer, b"."), folder / "logs")
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    if once_begun:
        os.read(reader, 1)  # also returns when the process ends before
    os.close(reader)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"an attempt failed with exit status {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def main(folder, n_kills, seed):
    attempt(folder / "whole", 0.1, once_begun=True)  # compiles, so that what is timed below is the run
    begin = time.perf_counter()
    shutil.rmtree(folder / "whole")
    attempt(folder / "whole", None, once_begun=False)
    longest_life = 1.2 * (time.perf_counter() - begin) / n_kills  # seconds; in the mean all lives are 0.6 of the run
    rng, places, torn = random.Random(seed), None, 0
    for _ in range(ROUNDS):
        shutil.rmtree(folder / "killed", ignore_errors=True)
        places, torn = kill(folder / "killed", n_kills, longest_life, rng)
        if places is not None and torn and len(set(places)) > 1:
            break
        longest_life *= 0.6 if places is None else 1.3  # it ended before; it came nowhere, or no write was met
    attempt(folder / "killed", None, once_begun=False)
    print(json.dumps({"places": places, "torn": torn, "left": len(list(folder.glob("*/*.tmp-*")))}))


def kill(folder, n_kills, longest_life, rng):
    """Begin and kill so many times: the newest checkpoint after each kill, and how many kills left a half-written file.

    None for the checkpoints when the run ended before.
    """
    places, torn = [], 0
    while len(places) < n_kills:
        if attempt(folder, rng.triangular(0.0, 2 * longest_life, 0.0), once_begun=rng.random() < 0.9):
            return None, 0
        torn += bool(list(folder.glob("*.tmp-*")))
        places.append(max(train.Checkpoints(folder).steps(), default=0))
    return places, torn


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

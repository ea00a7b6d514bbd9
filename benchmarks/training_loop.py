# SPDX-License-Identifier: MIT
"""What `train.fit` adds to a step, and what a checkpoint costs: `python -m benchmarks.training_loop`.

The step does next to nothing, so that what is left is the loop's own time. A checkpoint of 100 MB is timed in its
parts: what the training waits for (a copy), what the thread does beside it, and reading it again.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

import functorch_lite as fl
from benchmarks.timing import interleaved, show
from functorch_lite import train

N = 5000
MEGABYTES = 100


@fl.jit
def step(w, batch):
    """A step that returns at once."""
    return w, {"loss": batch[0]}


def loops(folder: Path) -> dict:
    """Functions that run N steps: the bare loop, and `fit` with more and more around it."""
    w, batches = np.zeros(3), [np.ones(3)] * N

    def bare():
        state = w
        for batch in batches:
            state, _ = step(state, batch)

    def fit(**options):
        return lambda: train.fit(step, w, batches, show=False, **options)

    return {
        "a bare loop": bare,
        "fit": fit(),
        "fit, a callback": fit(callbacks=[lambda run: None]),
        "fit, nan_watch": fit(nan_watch=True),
        "fit, logs": fit(log_dir=folder / "logs"),
    }


def checkpoints(folder: Path) -> None:
    """Print the seconds that a large checkpoint takes."""
    state = {f"w{i}": np.random.default_rng(i).normal(size=MEGABYTES * 12_500) for i in range(10)}
    with train.Checkpoints(folder / "large") as kept:
        times = []
        for n in range(1, 4):
            begin = time.perf_counter()
            kept.save(n, state)
            waited = time.perf_counter() - begin
            kept.wait()
            times.append((waited, time.perf_counter() - begin))
        begin = time.perf_counter()
        kept.restore(like=state)
        reading = time.perf_counter() - begin
    waited, whole = min(times)
    print(f"\na checkpoint of {MEGABYTES} MB")
    print(f"  training waits {waited:.3f} s, on the disk after {whole:.3f} s, read and checked in {reading:.3f} s")


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = interleaved(loops(folder), rounds=5)
        show("one step", {kind: value / N for kind, value in seconds.items()}, "a bare loop")
        checkpoints(folder)


if __name__ == "__main__":
    main()

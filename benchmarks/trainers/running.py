# SPDX-License-Identifier: MIT
"""The table of `python -m benchmarks trainers [--only NAME,NAME] [--rounds N] [--json FILE]`.

A line a trainer: seconds of the first step (trace, compile, run), a later step (median, all libraries in turn), how
many times our time each peer takes, and the loss of each at its 30th step, on the same batches from its own initial
values. Data come ready in memory.
"""

import argparse
import importlib.util
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.compiled import machine, machine_text
from benchmarks.timing import interleaved
from benchmarks.trainers.common import Run, Trainer
from benchmarks.workloads.peers import COMPILED, JAX, OURS, TORCH
from benchmarks.workloads.peers import ours as our_peer

LOSS_AT = 30
_NAMES = {OURS: "ours", JAX: "jax", TORCH: "torch", COMPILED: "t.compile"}


@dataclass
class Row:
    """What was measured of a trainer, by library: seconds of the first and of a later step, losses, errors."""

    name: str
    first: dict[str, float] = field(default_factory=dict)
    later: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def measure(trainer: Trainer, settle: Callable[[], None], *, rounds: int = 15, target: float = 0.2) -> Row:
    """Train with each library that is installed, in turns of about `target` seconds.

    settle: waits for what functorch_lite still prepares in the background.
    """
    row, runs = Row(trainer.name), dict[str, Run]()
    for name, start in starts(trainer).items():
        try:
            run = start()
            begun = time.perf_counter()
            run.step()
            row.first[name] = time.perf_counter() - begun
            row.losses[name] = [run.step() for _ in range(LOSS_AT - 1)][-1]
            runs[name] = run
        except Exception as error:  # a line of the table, not the end of the run
            row.errors[name] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    settle()
    row.later = interleaved({name: run.step for name, run in runs.items()}, rounds=rounds, target=target)
    for name, run in runs.items():
        problem = wrong(run, runs.get(OURS, run), row.losses[name])
        if problem:
            row.errors[name] = problem
    return row


def starts(trainer: Trainer) -> dict[str, Callable[[], Run]]:
    """How each library that is here and takes part starts the job."""
    found = {OURS: trainer.ours}
    if trainer.jax and importlib.util.find_spec("jax") and importlib.util.find_spec("optax"):
        found[JAX] = trainer.jax
    if trainer.torch and importlib.util.find_spec("torch"):
        start = trainer.torch
        found |= {TORCH: lambda: start(False), COMPILED: lambda: start(True)}
    return found


def wrong(run: Run, ours: Run, loss: float) -> str | None:
    """What is wrong with a run, or None."""
    if run.n_parameters != ours.n_parameters:
        return f"{run.n_parameters} parameters, ours has {ours.n_parameters}"
    return None if math.isfinite(loss) else f"the loss is {loss}"


def header() -> str:
    """The two lines above the table."""
    names = "".join(f"{name:>10}" for name in _NAMES.values())
    ratios = "".join(f"{name + '/o.':>12}" for name in list(_NAMES.values())[1:])
    titles = f"{'':<18}{'first step, s':>40} |{'later step, ms':>40} |{'':36} |{'loss':>40}"
    return f"{titles}\n{'':<18}{names} |{names} |{ratios} |{names}"


def line(row: Row) -> str:
    """A row of the table, and a line for each error below it."""
    ours = row.later.get(OURS, math.nan)
    ratios = {name: seconds / ours for name, seconds in row.later.items()}
    cells = (
        _cells(row.first, "10.2f", _NAMES),
        _cells({name: seconds * 1e3 for name, seconds in row.later.items()}, "10.2f", _NAMES),
        _cells(ratios, "12.2f", list(_NAMES)[1:]),
        _cells(row.losses, "10.4f", _NAMES),
    )
    errors = "".join(f"\n    ERROR {name}: {text}" for name, text in row.errors.items())
    return f"{row.name:<18}{' |'.join(cells)}{errors}"


def _cells(values: Mapping[str, float], form: str, names: Sequence[str] | Mapping[str, str]) -> str:
    width = int(form.partition(".")[0])
    return "".join(f"{values[name]:{form}}" if name in values else f"{'-':>{width}}" for name in names)


def main(trainers: Mapping[str, Trainer], argv: Sequence[str] = ()) -> int:
    """Print the table; returns the number of trainers that failed with functorch_lite."""
    parser = argparse.ArgumentParser(prog="benchmarks trainers", description="Training steps of the examples.")
    parser.add_argument("--only", metavar="NAME[,NAME]", help=f"some of {', '.join(trainers)}")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each library")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    chosen = parser.parse_args(list(argv))
    names = chosen.only.split(",") if chosen.only else list(trainers)
    unknown = [name for name in names if name not in trainers]
    if unknown:
        parser.error(f"no trainer {', '.join(unknown)}; there are {', '.join(trainers)}")
    settle = _compile_anew()
    about = machine()
    print(machine_text(about))
    print(header())
    rows = []
    for name in names:
        rows.append(measure(trainers[name], settle, rounds=chosen.rounds))
        print(line(rows[-1]), flush=True)
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump({"machine": about, "rows": [asdict(row) for row in rows]}, file, indent=1)
    return sum(OURS in row.errors for row in rows)


def _compile_anew() -> Callable[[], None]:
    """A first step compiles in every library: no code comes from a folder of an earlier run. Returns our `settle`."""
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    warnings.filterwarnings("ignore", module="torch")
    return our_peer().settle

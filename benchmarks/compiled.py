# SPDX-License-Identifier: MIT
"""Compiled programs: `jit` against jax.jit, eager PyTorch and torch.compile, on the same functions and inputs.

    python -m benchmarks.compiled [--quick] [--only name,name] [--one-thread] [--json FILE]

A line a workload: the first call (trace, compile, run), a later call (median, all libraries in turn), and how many
times our time each peer takes. Outcomes are compared; one that differs is an error. Buffers are never donated.
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.workloads import ALL
from benchmarks.workloads.common import Workload, leaves
from benchmarks.workloads.peers import COMPILED, JAX, OURS, TORCH, Peer, jax_peer, ours, torch_peers

GROUPS = {"small": "small programs", "scan": "scans", "call": "call overhead", "bound": "products, convolutions",
          "rest": "the rest"}
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Effort:
    """How long to measure: turns of each library, seconds of a turn, and seconds of a library in all."""

    rounds: int
    turn: float
    seconds: float


FULL, QUICK = Effort(15, 2e-2, 1.5), Effort(5, 1e-2, 0.15)


@dataclass
class Row:
    """What was measured of a workload: seconds of the first and of a later call by library, errors by library."""

    name: str
    group: str
    first: dict[str, float] = field(default_factory=dict)
    steady: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def ratio(self, peer: str) -> float | None:
        """How many times our time a call of `peer` takes; None if either is missing or wrong."""
        if peer not in self.steady or OURS not in self.steady or {peer, OURS} & self.errors.keys():
            return None
        return self.steady[peer] / self.steady[OURS]


# --- measuring ----------------------------------------------------------------------------------------------------


def measure(workload: Workload, peers: Sequence[Peer], effort: Effort) -> Row:
    """Run a workload with each library: first calls, outcomes compared with JAX's (else PyTorch's), later calls."""
    row = Row(workload.name, workload.group)
    calls: dict[str, Callable[[], Any]] = {}
    outcomes: dict[str, list[np.ndarray]] = {}
    for peer in peers:
        if not peer.takes(workload):
            continue
        try:
            call = peer.stage(workload)
            start = time.perf_counter()
            outcome = call()
            row.first[peer.name] = time.perf_counter() - start
            call()
            peer.settle()
            outcomes[peer.name] = [peer.value(leaf) for leaf in leaves(outcome)]
            calls[peer.name] = call
        except Exception as error:  # a line of the table, not the end of the run
            row.errors[peer.name] = _first_line(error)
    reference = next((name for name in (JAX, TORCH, OURS) if name in outcomes), None)
    for name, values in outcomes.items():
        problem = reference and difference(values, outcomes[reference], workload.tolerance)
        if problem:
            row.errors[name] = f"differs from {reference}: {problem}"
    row.steady = steady(calls, effort)
    return row


def difference(values: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float) -> str | None:
    """What is wrong with `values`, or None: each within `tolerance` of the largest expected magnitude."""
    if len(values) != len(expected):
        return f"{len(values)} arrays, {len(expected)} expected"
    for i, (x, y) in enumerate(zip(values, expected, strict=True)):
        if x.shape != y.shape:
            return f"leaf {i} has shape {x.shape}, {y.shape} expected"
        if x.dtype.kind != y.dtype.kind or (x.dtype.kind == "f" and x.dtype != y.dtype):
            return f"leaf {i} has dtype {x.dtype}, {y.dtype} expected"
        scale = float(np.max(np.abs(y), initial=0))
        if not np.allclose(x, y, rtol=tolerance, atol=tolerance * scale):
            return f"leaf {i} is off by {float(np.max(np.abs(x - y))):.2g}, largest value {scale:.2g}"
    return None


REST = 0.03
"""Seconds before a turn: until the threads of the candidate before it sleep. PyTorch's spin for some 15 ms."""


def steady(calls: dict[str, Callable[[], Any]], effort: Effort) -> dict[str, float]:
    """Median seconds of a call of each, called in turns; a slow one has fewer turns, short ones warm up in each."""
    plan, samples = {}, {name: [] for name in calls}
    for name, call in calls.items():
        once = _seconds(call, 1)
        repeats = max(1, int(effort.turn / max(once, 1e-9)))
        plan[name] = repeats, min(effort.rounds, max(2, int(effort.seconds / max(once * repeats, 1e-9))))
    for turn in range(effort.rounds):
        for name, call in calls.items():
            repeats, rounds = plan[name]
            if turn < rounds:
                time.sleep(REST)
                for _ in range(min(repeats - 1, 3)):
                    call()
                samples[name].append(_seconds(call, repeats))
    return {name: statistics.median(values) for name, values in samples.items()}


def _seconds(call, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


# --- the table ----------------------------------------------------------------------------------------------------

_NAMES = {OURS: "ours", JAX: "jax", TORCH: "torch", COMPILED: "t.compile"}
_RATIOS = {JAX: "jax/ours", TORCH: "torch/o.", COMPILED: "t.c./o."}


def header() -> str:
    """The two lines above the table."""
    names = "".join(f"{name:>10}" for name in _NAMES.values())
    ratios = "".join(f"{name:>10}" for name in _RATIOS.values())
    return f"{'':<20}{'first call, ms':>40} |{'later call':>40} |\n{'':<20}{names} |{names} |{ratios}"


def line(row: Row) -> str:
    """A row of the table, and a line for each error below it."""
    first = "".join(f"{row.first[n] * 1e3:>10.1f}" if n in row.first else f"{'-':>10}" for n in _NAMES)
    later = "".join(f"{_time_text(row.steady[n]) if n in row.steady else '-':>10}" for n in _NAMES)
    ratios = "".join(f"{'-' if (r := row.ratio(n)) is None else f'{r:.2f}':>10}" for n in _RATIOS)
    errors = "".join(f"\n    ERROR {name}: {text}" for name, text in row.errors.items())
    return f"{row.name:<20}{first} |{later} |{ratios}{errors}"


def _time_text(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def means(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Geometric means of a peer's time over ours, of first and of later calls: {"first": {group: {peer: mean}}}."""
    found: dict[str, dict[str, dict[str, float]]] = {"first": {}, "later": {}}
    for label, chosen in (("all", rows), *((t, [r for r in rows if r.group == g]) for g, t in GROUPS.items())):
        for kind in found:
            ratios = {peer: [_ratio(r, peer, kind) for r in chosen if r.ratio(peer) is not None] for peer in _RATIOS}
            found[kind][label] = {
                peer: math.exp(statistics.fmean(map(math.log, values))) for peer, values in ratios.items() if values
            }
    return found


def _ratio(row: Row, peer: str, kind: str) -> float:
    seconds = row.first if kind == "first" else row.steady
    return seconds[peer] / seconds[OURS]


def show_means(rows: Sequence[Row]) -> None:
    """Print the geometric means: above 1, ours is faster."""
    found = means(rows)
    names = "".join(f"{_NAMES[n]:>10}" for n in _RATIOS)
    print(f"\n{'geometric means, time over ours':<42}{'first call':>30} |{'later call':>30}\n{'':<42}{names} |{names}")
    for label in ("all", *GROUPS.values()):
        cells = [
            "".join(f"{f'{known[n]:.2f}' if n in known else '-':>10}" for n in _RATIOS)
            for known in (found["first"][label], found["later"][label])
        ]
        count = sum(r.ratio(JAX) is not None for r in rows if label in ("all", GROUPS[r.group]))
        print(f"{f'{label} ({count} workloads)':<42}{cells[0]} |{cells[1]}")


def machine() -> dict[str, Any]:
    """Cores given to this process, the load on them as we begin, versions, date."""
    packages = {}
    for name in ("functorch-lite", "numpy", "jax", "torch"):
        try:
            packages[name] = version(name)
        except ModuleNotFoundError:  # an optional peer
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cores": cores, "processor": platform.processor() or platform.machine(), "load": load,
            "python": platform.python_version(), "packages": packages, "date": time.strftime("%Y-%m-%d %H:%M")}


def machine_text(about: dict[str, Any]) -> str:
    """The machine in a line, and a warning if it is busy."""
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    text = f"{about['cores']} cores ({about['processor']}), Python {about['python']}, {packages}"
    if about["load"] is not None and about["load"] > 0.5:
        text += (f"\nWARNING: the machine is busy (load {about['load']:.1f}): thread pools that wait for one another, "
                 "PyTorch's above all, look up to a thousand times slower than they are")
    return text


# --- the command --------------------------------------------------------------------------------------------------


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; names of workloads that do not exist are an error."""
    parser = argparse.ArgumentParser(prog="benchmarks.compiled", description="jit against JAX and PyTorch.")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="these workloads only")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and torch.compile on a few workloads")
    parser.add_argument("--one-thread", action="store_true", help="one core and one thread for all libraries")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parsed = parser.parse_args(argv)
    parsed.names = parsed.only.split(",") if parsed.only else list(ALL)
    unknown = [name for name in parsed.names if name not in ALL]
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(ALL)}")
    return parsed


def on_one_thread(argv: Sequence[str]) -> None:
    """Start anew on one core with all thread pools of size one: they are made when the libraries are loaded."""
    if ONE_THREAD.items() <= os.environ.items():
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks.compiled", *argv], {**os.environ, **ONE_THREAD})


def main(argv: Sequence[str] = ()) -> int:
    """Print the table and the means; returns the number of workloads that failed or differed with functorch_lite."""
    chosen = arguments(argv)
    if chosen.one_thread:
        on_one_thread(argv)
    about = machine()
    print(machine_text(about))
    peers = [ours(), *jax_peer(), *torch_peers(one_thread=chosen.one_thread, quick=chosen.quick)]
    print(header())
    rows = []
    for name in chosen.names:
        rows.append(measure(ALL[name], peers, QUICK if chosen.quick else FULL))
        print(line(rows[-1]), flush=True)
    show_means(rows)
    failures = [row.name for row in rows if OURS in row.errors]
    print(f"\n{len(failures)} of {len(rows)} workloads failed with functorch_lite{': ' * bool(failures)}"
          f"{', '.join(failures)}")
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            figures = {"machine": about, "rows": [asdict(row) for row in rows], "means": means(rows)}
            json.dump(figures, file, indent=1)
    return len(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)

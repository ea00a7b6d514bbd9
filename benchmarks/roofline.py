# SPDX-License-Identifier: MIT
"""How near compiled programs come to what this machine can do: its roofline, measured through our own compiler.

    python -m benchmarks roofline [--only name,name] [--rounds 7] [--picture FILE]

The roof over a program of F operations on B bytes is min(peak, bandwidth * F / B). Peak: the best rate of some large
matrix products. Bandwidth: that of `a = 0.5 a + b` in place on arrays that together are as large as what the program
needs, so small programs are held to the speed of a cache; a program that reads more than it writes may be faster.
Operations and bytes are those of `cost_analysis`, with a transcendental function counted as `TRANSCENDENTAL`
operations; a byte that one kernel writes and another reads counts twice, so a program that fuses less has more of them.
Loops whose length is known only as they run count as one iteration, so workloads with attention are left out. All times
are the best of the rounds, since other processes only ever slow a machine down; a busy one has a low roof all the same.
A line a workload, for one thread and for all; the picture has both.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures",
2009.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from benchmarks.workloads import ALL
from benchmarks.workloads.peers import our_api
from functorch_lite.compiler.runtime.tiers import improver
from functorch_lite.errors import MissingPackageError
from functorch_lite.packages import need

WORKLOADS = (
    "matmul-64", "matmul-256", "matmul-1024", "matmul-batched", "conv-3x3", "conv-3x3-grad", "conv-1x1",
    "conv-depthwise", "softmax", "softmax-grad", "layer-norm", "layer-norm-grad", "cross-entropy", "chain-64k",
    "chain-1m", "chain-16m", "sum-1", "sum-all", "variance-2", "mlp-adam", "resnet-step", "lstm-grad",
)  # fmt: skip
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "roofline.png"
TRANSCENDENTAL = 16  # operations: about what an exponential of a vector takes
TRIADS = tuple(1 << k for k in range(13, 25, 2))  # elements of an array
PRODUCTS = (256, 512, 768, 1024)
SWEPT = 1 << 22  # elements that a call of a triad goes over
FEWEST_SWEEPS = 16
TURN = 1e-2  # seconds of a round


class Roof(NamedTuple):
    """What a machine can do with some threads: operations a second, and bytes a second by how many are touched."""

    threads: int
    peak: float
    bandwidths: tuple[tuple[int, float], ...]

    def bandwidth(self, size: int) -> float:
        """Bytes a second of a triad over arrays of `size` bytes in all, or of the largest measured.

        A rate of larger arrays is one of smaller ones, too: a measurement that was disturbed counts for nothing.
        """
        return max((rate for measured, rate in self.bandwidths if measured >= size), default=self.bandwidths[-1][1])

    def at(self, intensity: float, size: int) -> float:
        """The most operations a second of a program with so many a byte, which touches `size` bytes."""
        return min(self.peak, intensity * self.bandwidth(size))


class Point(NamedTuple):
    """A workload as it ran: operations and bytes of a call, bytes that it needs at once, seconds of a call."""

    name: str
    operations: int
    moved: int
    size: int
    seconds: float

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.operations / self.moved

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds

    def share(self, roof: Roof) -> float:
        """Its rate, as a share of the roof over it."""
        return self.rate / roof.at(self.intensity, self.size)


# --- measuring ----------------------------------------------------------------------------------------------------


def best(call: Callable[[], object], rounds: int) -> float:
    """Seconds of a call in the best of some rounds, after the compiler has done all it does for it."""
    call()
    call()
    improver.finish()
    call()
    start = time.perf_counter()
    call()
    repeats = max(1, int(TURN / max(time.perf_counter() - start, 1e-9)))
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        found.append((time.perf_counter() - start) / repeats)
    return min(found)


def measured_roof(rounds: int) -> Roof:
    """The roof of this machine with the threads that the settings give."""
    peak = max(2 * n**3 / best(_product(n), rounds) for n in PRODUCTS)
    return Roof(fl.config.num_threads, peak, tuple((2 * 4 * n, _bandwidth(n, rounds)) for n in TRIADS))


def _product(n: int) -> Callable[[], object]:
    x = np.random.default_rng(0).random((n, n), np.float32)
    product = fl.jit(lambda x, y: x @ y)
    return lambda: product(x, x)


def _bandwidth(n: int, rounds: int) -> float:
    """Bytes a second of sweeps over two arrays of n elements: two are read, and one is written."""
    half, sweeps = np.float32(0.5), max(FEWEST_SWEEPS, SWEPT // n)
    triad = fl.jit(lambda a, b: fl.lax.fori_loop(0, sweeps, lambda i, a: half * a + b, a))
    a, b = np.ones(n, np.float32), np.ones(n, np.float32)
    return 4 * n * (3 * sweeps + 2) / best(lambda: triad(a, b), rounds)  # and a copy of `a`, which is kept


def measured_point(name: str, rounds: int) -> Point:
    """A workload, run."""
    fun, inputs = fl.jit(ALL[name].make(our_api())), ALL[name].inputs()
    lowered = fun.lower(*inputs)
    cost = lowered.cost_analysis()
    operations = cost.flops + TRANSCENDENTAL * cost.transcendentals
    seconds = best(lambda: fun(*inputs), rounds)
    return Point(name, operations, cost.bytes, lowered.memory_analysis().peak, seconds)


# --- the table and the picture ------------------------------------------------------------------------------------


def roof_text(roof: Roof) -> str:
    """The line above a table."""
    rates = ", ".join(f"{rate / 1e9:.0f} GB/s of {_size_text(size)}" for size, rate in roof.bandwidths)
    return f"{_threads_text(roof)}: {roof.peak / 1e9:.0f} GFLOP/s; {rates}"


def _threads_text(roof: Roof) -> str:
    return f"{roof.threads} thread{'s' * (roof.threads > 1)}"


def _size_text(size: int) -> str:
    return f"{size >> 20} MB" if size >> 20 else f"{size >> 10} KB"


def header() -> str:
    """The line over the columns."""
    return f"{'':<24}{'time':>12}{'needs':>10}{'FLOP/byte':>11}{'GFLOP/s':>10}{'GB/s':>8}{'roof':>9}{'share':>8}"


def line(point: Point, roof: Roof) -> str:
    """A row of the table."""
    above = roof.at(point.intensity, point.size)
    return (
        f"{point.name:<24}{point.seconds * 1e6:>9.1f} us{_size_text(point.size):>10}{point.intensity:>11.2f}"
        f"{point.rate / 1e9:>10.1f}{point.moved / point.seconds / 1e9:>8.1f}{above / 1e9:>9.1f}"
        f"{point.share(roof):>8.0%}"
    )


def draw(path: Path, found: Sequence[tuple[Roof, Sequence[Point]]]) -> None:
    """Write the picture: a panel for each number of threads. Raises MissingPackageError without matplotlib."""
    figure = _matplotlib("figure").Figure(figsize=(7 * len(found), 6), layout="constrained")
    _matplotlib("backends.backend_agg").FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (roof, points) in zip(panels, found, strict=True):
        _draw_roof(axes, roof, points)
        for point in points:
            axes.plot(point.intensity, point.rate / 1e9, "o", markersize=4, color="tab:red")
            axes.annotate(point.name, (point.intensity, point.rate / 1e9), (3, 3), textcoords="offset points",
                          fontsize=6)
        axes.set_title(_threads_text(roof))
        axes.set_xlabel("operations a byte")
    panels[0].set_ylabel("GFLOP/s")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_roof(axes: Any, roof: Roof, points: Sequence[Point]) -> None:
    ends = [p.intensity for p in points] or [1.0]
    x = np.geomspace(min(ends) / 2, max(max(ends) * 2, 2 * roof.peak / roof.bandwidths[-1][1]), 200)
    fastest, slowest = max(roof.bandwidths, key=lambda found: found[1]), roof.bandwidths[-1]
    for (size, rate), style in ((fastest, "--"), (slowest, "-")):
        axes.loglog(x, np.minimum(roof.peak, x * rate) / 1e9, style, color="black", linewidth=1,
                    label=f"{rate / 1e9:.0f} GB/s ({_size_text(size)})")
    axes.legend(title=f"{roof.peak / 1e9:.0f} GFLOP/s", loc="lower right")
    axes.grid(True, which="both", alpha=0.2)


def _matplotlib(module: str) -> Any:
    return need(f"matplotlib.{module}", by="the picture of the roofline", install="matplotlib")


# --- the command --------------------------------------------------------------------------------------------------


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; names of workloads that do not exist are an error."""
    parser = argparse.ArgumentParser(prog="benchmarks roofline", description="Workloads under this machine's roof.")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="these workloads only")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--picture", type=Path, default=PICTURE, metavar="FILE")
    parsed = parser.parse_args(list(argv))
    parsed.names = parsed.only.split(",") if parsed.only else WORKLOADS
    unknown = [name for name in parsed.names if name not in ALL]
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(ALL)}")
    return parsed


def measured(names: Sequence[str], rounds: int) -> tuple[Roof, list[Point]]:
    """The roof and the workloads under it, printed on the way."""
    roof = measured_roof(rounds)
    print(f"\n{roof_text(roof)}\n{header()}", flush=True)
    points = []
    for name in names:
        points.append(measured_point(name, rounds))
        print(line(points[-1], roof), flush=True)
    return roof, points


def main(argv: Sequence[str] = ()) -> int:
    """Print the tables and write the picture, where matplotlib is."""
    chosen = arguments(argv)
    cores = fl.config.num_threads
    found = []
    try:
        for threads in sorted({1, cores}):
            fl.config.update(num_threads=threads)
            found.append(measured(chosen.names, chosen.rounds))
    finally:
        fl.config.update(num_threads=cores)
    try:
        draw(chosen.picture, found)
        print(f"\n{chosen.picture}")
    except MissingPackageError as error:
        print(f"\nno picture: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

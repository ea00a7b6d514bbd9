# SPDX-License-Identifier: MIT
"""Where a compiled program spends its time: by kernel, and by the user's source line.

    print(profile(executable, *args))

The program is compiled again with a clock around each kernel, step in Python, library call and large copy (about 50 ns
for each); what the executable itself runs is not changed. The time of a kernel that computes several lines is shared
among them by the work of their equations, estimated from sizes. "inline" is what runs between kernels: loops and
branches themselves, and small operations inside them, which are no kernels.
"""

import ctypes
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.codegen.llvm.profiled import (
    COPY,
    KERNEL,
    LIBRARY,
    PROGRAM,
    STEP,
    ProfiledWriter,
    Site,
)
from functorch_lite.compiler.codegen.llvm.program import write_module
from functorch_lite.compiler.cost import cost_of_kernel
from functorch_lite.compiler.lowering.program import INLINE, Lowered
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.runtime.executable import Executable
from functorch_lite.core.program import Equation, Program, memoized
from functorch_lite.primitives.casts import stop_gradient_p
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.convolution import conv_general_dilated_p

SECONDS = 0.2  # how long `profile` runs a program
CALIBRATION = 0.02
MOST_KERNELS = 10
MOST_LINES = 9
NAME_WIDTH = 60
_COSTLY = 8  # elements' worth of a function such as exp
_OTHER = "(the compiler)"


class Row(NamedTuple):
    """What one kernel, or one line of the user's, costs in one call of the program.

    calls: how often it runs. flops: floating-point operations, a function such as exp counted once. bytes: of the
    arrays that kernels are given.
    """

    name: str
    seconds: float
    calls: float
    flops: float
    bytes: float

    @property
    def gflops(self) -> float:
        """Billions of operations a second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        """Billions of bytes a second."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0


class Profile(NamedTuple):
    """Times of one call of a program, the mean of `calls`: of its kernels and the user's lines, the longest first."""

    name: str
    calls: int
    seconds: float
    kernels: tuple[Row, ...]
    lines: tuple[Row, ...]

    def __str__(self):
        return "\n".join([
            f"{self.name}: {_time(self.seconds)} a call (mean of {self.calls})",
            *_table("kernel", self.kernels, MOST_KERNELS, self.seconds),
            *_table("line", self.lines, MOST_LINES, self.seconds),
        ])


def profile(executable: Executable, *args: Any, seconds: float = SECONDS) -> Profile:
    """The profile of a program, called with these arguments for about this many seconds, once at least.

    >>> import functorch_lite as fl
    >>> from functorch_lite.compiler import compile
    >>> x = np.ones(1000, np.float32)
    >>> program = fl.make_program(lambda x: np.sum(np.sin(x)))(x)
    >>> found = profile(compile(program), x, seconds=0.001)
    >>> [(row.name, row.calls) for row in found.kernels if row.flops]
    [('k0 (sin, reduce_sum)', 1.0)]
    """
    profiled = profiled_executable(executable)
    profiled(*args)  # the first call finds cold caches
    profiled.reset()
    end = time.perf_counter() + seconds
    profiled(*args)
    while time.perf_counter() < end:
        profiled(*args)
    return profiled.profile()


def profiled_executable(executable: Executable) -> "ProfiledExecutable":
    """The executable with clocks in it, made once."""
    if isinstance(executable, ProfiledExecutable):
        return executable
    return memoized(executable.optimized, "profiled", lambda: ProfiledExecutable(
        executable.program, executable.optimized, executable.lowered))


class ProfiledExecutable(Executable):
    """An executable that counts in every call; `profile()` tells what it counted since the last `reset()`.

    Calls from several threads at once are not counted right.
    """

    _writer: ProfiledWriter

    def __init__(self, program: Program, optimized: Program, lowered: Lowered, donated: Sequence[int] = ()):
        super().__init__(program, optimized, lowered, donated)
        self.sites: list[Site] = list(self._writer.sites)
        self._counters = np.zeros((len(self.sites), 2), np.int64)
        self._context[-1] = self._counters.ctypes.data
        self._cycles = ctypes.CFUNCTYPE(ctypes.c_int64)(self._code[-1].address("cycles"))

    def _module(self) -> str:
        def writer(*args):
            self._writer = ProfiledWriter(*args)
            return self._writer

        machine, lowered = engine.target(), self.lowered
        return write_module(
            lowered.function, lowered.kernels, lowered.inputs, lowered.outputs, lowered.constant_buffers, self.plan,
            parts=lowered.parts, has_fma=machine.has_fma, lanes_bytes=machine.lanes_bytes, writer=writer,
        )

    def reset(self) -> None:
        """Forget what was counted."""
        self._counters[:] = 0

    def profile(self) -> Profile:
        """Times of the calls since the last reset."""
        tick = _seconds_of_a_tick(self._cycles)
        ticks, counts = self._counters[0]
        calls = max(int(counts), 1)
        lines: dict[str, Row] = {}
        rows: dict[str, Row] = {}
        for site, (spent, entered) in zip(self.sites[1:], self._counters[1:].tolist(), strict=True):
            if entered:
                row = self._row(site, spent * tick / calls, entered / calls)
                rows[row.name] = _sum(row.name, rows.get(row.name), row)
                for line, share in self._shares(site):
                    lines[line] = _sum(line, lines.get(line), _part(row, share))
        whole = float(ticks * tick / calls)
        rest = whole - sum(r.seconds for r in rows.values())
        if rest > 0:
            row = rows[INLINE] = Row(self._title(INLINE), rest, 1, 0.0, 0.0)
            for line, share in self._shares(Site(KERNEL, INLINE)):
                lines[line] = _sum(line, lines.get(line), _part(row, share))
        return Profile(self.program.name, calls, whole, _sorted(rows), _sorted(lines))

    def _row(self, site: Site, seconds: float, calls: float) -> Row:
        if site.kind == KERNEL:
            cost = cost_of_kernel(next(k for k in self.lowered.kernels if k.name == site.name))
            flops = cost.flops + cost.transcendentals
            return Row(self._title(site.name), seconds, calls, calls * flops, calls * cost.bytes)
        if site.kind == COPY:
            return Row("copies", seconds, calls, 0.0, calls * site.name)
        if site.kind == STEP:
            return Row(f"in Python: {self.lowered.steps[site.name].equation.prim.name}", seconds, calls, 0.0, 0.0)
        assert site.kind in (LIBRARY, PROGRAM)
        return Row(f"library: {site.name}", seconds, calls, 0.0, 0.0)

    def _title(self, kernel: str) -> str:
        names = dict.fromkeys("copy" if e.prim is stop_gradient_p else e.prim.name
                              for e in self.lowered.sources.get(kernel, ()))
        return _cut(f"{kernel} ({', '.join(names)})" if names else kernel)

    def _shares(self, site: Site) -> list[tuple[str, float]]:
        """The user's lines that a site runs, and their parts of its time."""
        equations: Sequence[Equation] = ()
        if site.kind == KERNEL:
            equations = self.lowered.sources.get(site.name, ())
        elif site.kind == STEP:
            equations = [self.lowered.steps[site.name].equation]
        work: dict[str, float] = {}
        for e in equations:
            line = _OTHER if e.source is None else str(e.source)
            work[line] = work.get(line, 0.0) + work_of(e)
        total = sum(work.values())
        return [(line, w / total) for line, w in work.items()] if total else [(_OTHER, 1.0)]


def work_of(equation: Equation) -> float:
    """A rough count of what an equation computes, to share a kernel's time among its lines."""
    out = sum(_size(v) for v in equation.outputs)
    prim = equation.prim
    if prim is dot_general_p:
        contracted = equation.params["contract"][0]
        return 2.0 * out * math.prod(equation.inputs[0].aval.shape[a] for a in contracted)
    if prim is conv_general_dilated_p:
        return 2.0 * out * math.prod(equation.inputs[1].aval.shape[1:])
    most = max([float(out), *(_size(a) for a in equation.inputs)])
    return most * (_COSTLY if prim.name in _FUNCTIONS else 1)


_FUNCTIONS = frozenset({
    "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin",
    "acos", "atan", "asinh", "acosh", "atanh", "atan2", "cbrt", "logistic", "pow", "erf", "erfc", "erfinv", "erf_inv",
    "lgamma", "digamma", "ndtri", "log_ndtr", "random_bits",
})


def _size(atom) -> float:
    return float(max(math.prod(atom.aval.shape), 1))


_TICKS: list[float] = []  # seconds of a tick, once measured: the clock's rate is the machine's


def _seconds_of_a_tick(clock: Callable[[], int]) -> float:
    if not _TICKS:
        start, before = time.perf_counter(), clock()
        while time.perf_counter() - start < CALIBRATION:
            pass
        _TICKS.append((time.perf_counter() - start) / (clock() - before))
    return _TICKS[0]


# --- rows and their table -------------------------------------------------------------------------------------------


def _sum(name: str, a: Row | None, b: Row) -> Row:
    numbers = b[1:] if a is None else [x + y for x, y in zip(a[1:], b[1:], strict=True)]
    return Row(name, *numbers)


def _part(row: Row, share: float) -> Row:
    """A line's part of a kernel; it runs as often as the kernel."""
    return Row(row.name, row.seconds * share, row.calls, row.flops * share, row.bytes * share)


def _sorted(rows: dict[str, Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows.values(), key=lambda r: (-r.seconds, r.name)))


def _table(title: str, rows: Sequence[Row], most: int, whole: float) -> list[str]:
    shown, rest = list(rows[:most]), rows[most:]
    if rest:
        shown.append(functools.reduce(lambda a, b: _sum(f"{len(rest)} more", a, b), rest)._replace(
            name=f"{len(rest)} more"))
    width = max(len(_cut(r.name)) for r in (*shown, Row(title, 0, 0, 0, 0)))
    lines = [f"{title:<{width}}      time       %    calls  GFLOP/s     GB/s"]
    for r in shown:
        share = r.seconds / whole if whole else 0.0
        lines.append(f"{_cut(r.name):<{width}}  {_time(r.seconds):>8}  {share:>6.1%}  {r.calls:>7.4g}  {r.gflops:>7.3g}"
                     f"  {r.gbytes:>7.3g}")
    return lines


def _cut(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 3]}..."


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"

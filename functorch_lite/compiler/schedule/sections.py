# SPDX-License-Identifier: MIT
"""Which statements of a program run at the same time: those that need nothing of one another, as two scans.

A loop that threads share (schedule/parallel.py) keeps all of them busy by itself. What is left, the loops whose
iterations need one another and the kernels that are too small, is put side by side where it is independent:

    seeds      statements of which none needs another, from the first on; not far apart, so that what they read is in
               the caches still, and is not kept for long
    growing    what only one of them needs, or what needs only one of them, goes with it, as far as the others last
    sections   so many at most, filled evenly; what they need goes before, everything else after them

again and again in what goes before and after. Never in sections: steps in Python, memory that grows, and statements
whose time is mostly in shared loops. The order in which errors would be raised does not change. Sections must save
some time, by the estimates of parallel.py, and must not need much more memory; very long functions have none. All of it
follows from the program alone, so any number of threads runs the same plan.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.effects import Effects
from functorch_lite.compiler.loop_ir.nodes import Buffer, Function, Loop, Sections, Value, blocks
from functorch_lite.compiler.memory.plan import plan_memory
from functorch_lite.compiler.schedule import parallel
from functorch_lite.core.program import Program, memoized, subprograms
from functorch_lite.primitives.barrier import barrier_p

WORTH_NS = 60_000.0  # saved by two threads: a sleeping worker takes 10 to 40 us to come, and each step is code to make
MOST_STATEMENTS = 256  # of a function: it would take long to look through more,
MOST_OPERANDS = 8192  # or through statements with more than these
SEED_NS = 1_000.0
MOST = 16  # sections of one step
TRIES = 64
NEAR = 128  # statements that are looked at together
EVEN = 4  # times as long as another a section may take, where there are more than two
UNEVEN = 32  # what counts as so at most
MORE_BYTES = 4 << 20  # none where values are computed again to save memory
MORE = 1 / 32  # of the memory of the whole program
PLANS = 8  # that are made to find which sections need much memory
STACK_BYTES = 512 << 10  # of a kernel: a thread of the pool has 4 MB
_UNKNOWN_EXTENT = 100
_FLOPS_PER_NS = 10.0  # of a library
_CALL_NS = 20.0
_CALLS = nodes.KernelCall | nodes.LibraryCall | nodes.HostCall


def in_sections(function: Function, in_place: dict[Buffer, list[Buffer]], program: Program) -> Function:
    """The function of a program, with sections or as it is. in_place: see memory/plan.py."""
    if not 2 <= len(function.body) <= MOST_STATEMENTS or _operands(function) > MOST_OPERANDS:
        return function
    times = _Times()
    each = [times.of(s) for s in function.body]
    if sum(t.total - t.shared >= SEED_NS and not t.is_shared for t in each) < 2:
        return function
    body = _Finder(function.body, each).body()
    if not any(type(s) is Sections for s in body):
        return function
    return _in_memory(function, body, in_place, 0 if _computes_again(program) else MORE_BYTES)


def _operands(function: Function) -> int:
    return sum([len(s.buffers) for s in function.body if type(s) is nodes.KernelCall])


def _computes_again(program: Program) -> bool:
    """Whether values are computed again to save memory, of which sections then must not need more."""
    return memoized(program, "computes again", lambda: any(
        e.prim is barrier_p or any(map(_computes_again, subprograms(e.params))) for e in program.equations))


def _in_memory(function: Function, body: list[Any], in_place: dict[Buffer, list[Buffer]], more: int) -> Function:
    """The function with this body, in which sections that need `more` memory and more run in order; or as it is."""
    found = dataclasses.replace(function, body=body)
    if sum(b.nbytes for b in function.locals) <= more:
        return found
    size = plan_memory(function, in_place).size
    most = size + (more and more + MORE * (size + sum(b.nbytes for b in function.params)))
    now = plan_memory(found, in_place).size
    for s in [s for s in body if type(s) is Sections][:PLANS]:
        if now <= most:
            return found
        k = found.body.index(s)
        other = dataclasses.replace(function, body=[*found.body[:k], *s.in_order, *found.body[k + 1 :]])
        less = plan_memory(other, in_place).size
        if less < now:
            found, now = other, less
    return found if now <= most and any(type(s) is Sections for s in found.body) else function


# --- time -------------------------------------------------------------------------------------------------------------


class Time(NamedTuple):
    """About how many nanoseconds something takes, and how many of them in loops that threads share."""

    total: float
    shared: float

    @property
    def is_shared(self) -> bool:
        """Whether threads run it well as it is."""
        return 2 * self.shared > self.total

    def times(self, n: float) -> "Time":
        return Time(n * self.total, n * self.shared)


def _sum(times: Iterator[Time]) -> Time:
    total = shared = 0.0
    for t in times:
        total, shared = total + t.total, shared + t.shared
    return Time(total, shared)


class _Times:
    """The times of a program's statements."""

    def __init__(self):
        self._kernels: dict[Function, Time] = {}

    def of(self, s: Any) -> Time:
        """The time of one statement."""
        if isinstance(s, nodes.KernelCall):
            return self._kernel(s.kernel)
        if isinstance(s, nodes.LibraryCall):
            return Time(_CALL_NS + s.flops / _FLOPS_PER_NS, 0.0)
        if not any(isinstance(inside, _CALLS) for block in blocks(s) for inside in parallel.every(block)):
            return Time(parallel.time_of(s), 0.0).times(_UNKNOWN_EXTENT if isinstance(s, nodes.While) else 1)
        inside = _sum(self.of(inside) for block in blocks(s) for inside in block)
        if isinstance(s, Loop) and isinstance(s.extent, int):
            return inside.times(s.extent)
        return inside.times(_UNKNOWN_EXTENT) if isinstance(s, Loop | nodes.While) else inside

    def _kernel(self, kernel: Function) -> Time:
        found = self._kernels.get(kernel)
        if found is None:
            found = _sum(map(self.of, kernel.body)) if kernel.arena is not None else _time_of_kernel(kernel)
            found = self._kernels[kernel] = Time(found.total + _CALL_NS, found.shared)
        return found


def _time_of_kernel(kernel: Function) -> Time:
    total = parallel.time_of_kernel(kernel)
    shared = _time_in(kernel.body, parallel.shared_loops(kernel)) if total >= parallel.WORTH_NS else 0.0
    return Time(total, shared)


def _time_in(statements: Sequence[Any], loops: Any) -> float:
    """The time of these loops, as often as they run."""
    total = 0.0
    for s in statements:
        if id(s) in loops:
            total += parallel.time_of(s)
        elif loops:
            inside = sum(_time_in(block, loops) for block in blocks(s))
            total += inside * (s.extent if isinstance(s, Loop) and isinstance(s.extent, int) else 1)
    return total


# --- what needs what --------------------------------------------------------------------------------------------------


class _Graph:
    """Which statements need which: sets of them are the bits of a number.

    before, after: of each statement, those that it needs at once, and those that need it. above, below: also by way of
    others. fails: may leave the program. fits: may be in a section.
    """

    def __init__(self, statements: Sequence[Any]):
        self.effects = [Effects([s]) for s in statements]
        n = len(statements)
        self.before: list[set[int]] = [set() for _ in range(n)]
        self.after: list[set[int]] = [set() for _ in range(n)]
        self._writers: dict[Any, int] = {}
        self._readers: dict[Any, list[int]] = {}
        self._last_step = -1
        self._failing: list[int] = []
        for k, effects in enumerate(self.effects):
            self._add(k, effects)
        self.fails = [e.can_fail for e in self.effects]
        stacks: dict[Function, int] = {}
        self.fits = [not (e.calls_python or e.grows or isinstance(s, nodes.Exit)) and _stack(s, stacks) <= STACK_BYTES
                     for s, e in zip(statements, self.effects, strict=True)]
        self.above, self.below = [0] * n, [0] * n
        for k in range(n):
            for b in self.before[k]:
                self.above[k] |= self.above[b] | 1 << b
        for k in reversed(range(n)):
            for a in self.after[k]:
                self.below[k] |= self.below[a] | 1 << a

    def _add(self, k: int, effects: Effects) -> None:
        needs, writers = self.before[k], self._writers
        needs.update([writers[what] for what in (*effects.touches, *effects.needs) if what in writers])
        for buffer in effects.writes:
            needs.update(self._readers.pop(buffer, ()))
        for buffer in effects.reads:
            if buffer.role != "in":  # which nothing writes
                self._readers.setdefault(buffer, []).append(k)
        self._writers.update(dict.fromkeys((*effects.writes, *effects.defines), k))
        self._keep_order(k, effects, needs)
        needs.discard(k)
        for b in needs:
            self.after[b].add(k)

    def _keep_order(self, k: int, effects: Effects, needs: set[int]) -> None:
        """Steps in Python stay in order, and what may fail stays between them."""
        if not effects.can_fail:
            return
        if self._last_step >= 0:
            needs.add(self._last_step)
        if effects.calls_python:
            needs.update(self._failing)
            self._last_step, self._failing = k, []
        else:
            self._failing.append(k)


def _stack(s: Any, known: dict[Function, int]) -> int:
    """The bytes that a statement's kernels have on the stack, at most. known: of each kernel, once it is found."""
    if not isinstance(s, nodes.KernelCall):
        return max((_stack(inside, known) for block in blocks(s) for inside in block), default=0)
    kernel = s.kernel
    if kernel not in known:
        own = sum(b.nbytes for b in kernel.locals)
        known[kernel] = own if kernel.arena is None else max((_stack(s, known) for s in kernel.body), default=0)
    return known[kernel]


# --- sections ---------------------------------------------------------------------------------------------------------


class _Finder:
    """Finds the sections of a block of statements."""

    def __init__(self, statements: Sequence[Any], times: Sequence[Time]):
        self.statements = statements
        self.times = [t.total for t in times]
        self.graph = _Graph(statements)
        self.fits = [fits and not t.is_shared for fits, t in zip(self.graph.fits, times, strict=True)]

    def body(self) -> list[Any]:
        """The statements, with sections."""
        found: list[Any] = []
        waiting: list[Any] = [list(range(len(self.statements)))]
        while waiting:
            part = waiting.pop()
            if isinstance(part, Sections):
                found.append(part)
                continue
            done, *rest = self._cut(part)
            found += [self.statements[k] for k in done]
            waiting += reversed(rest)
        return found

    def _cut(self, part: list[int]) -> tuple[Any, ...]:
        """What is without sections, and where there are some, what goes before them, they, and what goes after them."""
        everyone, tries = sum(1 << k for k in part if self._may_begin(k)), 0
        for place, k in enumerate(part):
            if not everyone >> k & 1 or not everyone & ~self._related(k):
                continue
            near, rest = part[place : place + NEAR], part[place + NEAR :]
            seeds = self._independent(near)
            found = self._tried(near, seeds) if len(seeds) > 1 else None
            if found is not None:
                before, together, after = found
                return part[:place], before, together, after + rest
            tries += len(seeds) > 1
            if tries == TRIES:
                break
        return (part,)

    def _may_begin(self, k: int) -> bool:
        return self.fits[k] and self.times[k] >= SEED_NS

    def _related(self, k: int) -> int:
        return self.graph.above[k] | self.graph.below[k] | 1 << k

    def _independent(self, near: list[int]) -> list[int]:
        """Statements that do not need one another: the first, and others that less is between than goes with them."""
        first, *others = near
        found, related, roots = [first], self._related(first), 1 << first
        own, foreign = self.times[first], 0.0
        for k in others:
            time = self.times[k]
            if self._may_begin(k) and not related >> k & 1 and foreign <= own + time:
                found.append(k)
                related |= self._related(k)
                roots |= 1 << k
                own += time
            elif self.fits[k] and self.graph.above[k] & roots:
                own += time
            else:
                foreign += time
        return found

    def _tried(self, part: list[int], seeds: list[int]) -> tuple[list[int], Sections, list[int]] | None:
        """A cut around sections of these seeds, where that saves time and keeps the order of failures."""
        home = self._grown(part, seeds)
        spent = self._spent(home, len(seeds))
        longest = max(range(len(seeds)), key=spent.__getitem__)
        others = sum(spent) - spent[longest]
        if spent[longest] > others:
            home = self._grown(part, seeds, longest, others)
            spent = self._spent(home, len(seeds))
        if sum(spent) - max(*spent, sum(spent) / 2) < WORTH_NS:
            return None
        before, after = self._around(part, home)
        phases = [[k for k in phase if self.graph.fails[k]] for phase in (before, list(home), after)]
        in_order = all(not a or not b or max(a) < min(b) for a, b in
                       ((phases[0], phases[1]), (phases[1], phases[2]), (phases[0], phases[2])))
        return (before, self._sections(home, spent), after) if in_order else None

    def _spent(self, home: dict[int, int], n: int) -> list[float]:
        spent = [0.0] * n
        for k, place in home.items():
            spent[place] += self.times[k]
        return spent

    def _grown(self, part: list[int], seeds: list[int], longest: int = -1, most: float = 0.0) -> dict[int, int]:
        """For each statement in a section, which one. The section `longest` grows until it takes `most`."""
        graph, home, roots = self.graph, {k: n for n, k in enumerate(seeds)}, sum(1 << k for k in seeds)
        inside, left = sum(1 << k for k in part), most - self.times[seeds[longest]]

        def join(k: int, seed: int, near: set[int], is_fine: Callable[[int], bool]) -> None:
            nonlocal left
            n = home[seed.bit_length() - 1]
            if not all(home[x] == n if x in home else is_fine(x) for x in near if inside >> x & 1):
                return
            if n == longest:
                if left <= 0:
                    return
                left -= self.times[k]
            home[k] = n

        for k in part:
            seed = graph.above[k] & roots
            if self._may_join(k, home, seed):
                join(k, seed, graph.before[k], lambda x: not graph.above[x] & roots)
        for k in reversed(part):
            seed = graph.below[k] & roots
            if self._may_join(k, home, seed) and not graph.above[k] & roots:
                join(k, seed, graph.after[k], lambda x: bool(graph.above[x] & roots))
        return home

    def _may_join(self, k: int, home: dict[int, int], seed: int) -> bool:
        """Whether a statement may be in a section, and `seed` is one."""
        return self.fits[k] and k not in home and seed != 0 and seed & (seed - 1) == 0

    def _around(self, part: list[int], home: dict[int, int]) -> tuple[list[int], list[int]]:
        """What goes before the sections, and what after."""
        graph, members, first = self.graph, sum(1 << k for k in home), min(home)
        before, after = [], []
        for k in part:
            if k in home:
                continue
            is_early = not graph.above[k] & members and (k < first or graph.below[k] & members)
            (before if is_early else after).append(k)
        return before, after

    def _sections(self, home: dict[int, int], spent: list[float]) -> Sections:
        """The sections, the longest first."""
        bins = _bins(spent)
        goes = {n: b for b, group in enumerate(bins) for n in group}
        numbers: list[list[int]] = [[] for _ in bins]
        for k in sorted(home):
            numbers[goes[home[k]]].append(k)
        filled = [sum(spent[n] for n in group) for group in bins]
        uneven = min(UNEVEN, math.ceil(filled[0] / max(min(filled), 1.0)))
        return Sections([[self.statements[k] for k in block] for block in numbers], numbers,
                        [self._results(block) for block in numbers], uneven)

    def _results(self, block: list[int]) -> list[Value]:
        """The values defined in a section that are used after it."""
        graph, members = self.graph, set(block)
        used = {v for k in block for a in graph.after[k] if a not in members for v in graph.effects[a].needs}
        return [v for k in block for v in graph.effects[k].defines if v in used]


def _bins(spent: Sequence[float]) -> list[list[int]]:
    """What is to be done (numbers) in groups, the longest first: many, of which none is much shorter than another."""
    order = sorted(range(len(spent)), key=lambda n: (-spent[n], n))
    for count in range(min(MOST, len(spent)), 1, -1):
        bins: list[list[int]] = [[] for _ in range(count)]
        filled = [0.0] * count
        for n in order:
            b = min(range(count), key=filled.__getitem__)
            bins[b].append(n)
            filled[b] += spent[n]
        if count == 2 or max(filled) <= EVEN * min(filled):
            return [bins[b] for b in sorted(range(count), key=lambda b: (-filled[b], b))]
    raise AssertionError("sections of one statement")

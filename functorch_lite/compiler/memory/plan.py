# SPDX-License-Identifier: MIT
"""Where each temporary of a program lives: one arena, whose parts are used again when what was in them is dead.

Statements are numbered in order. A buffer is alive from the first statement that touches it to the last; one touched
inside a loop and outside it is alive for the whole loop. An output that a kernel writes where it has just read an input
for the last time may take that input's place.

Sections run at the same time, though they are numbered in order: a buffer that two of them touch is alive in all, and
what is free again in one serves no other before all have ended.
"""

import bisect
import functools
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import BUFFER, Buffer, Function, Loop, Sections, Value, While, blocks

ALIGNMENT = 64
MANY = 4  # buffers that live equally long are in a row


class Section(NamedTuple):
    """The numbers of a section's first and last statement, and of what follows all sections that run with it."""

    first: int
    last: int
    end: int


@dataclass(slots=True)
class Plan:
    """Byte offsets in the arena, its size, and the lifetimes (first and last statement) they come from."""

    offsets: dict[Buffer, int] = field(default_factory=dict)
    size: int = 0
    lifetimes: dict[Buffer, tuple[int, int]] = field(default_factory=dict)


Takeovers = Mapping[int, Sequence[int]]
"""For inputs, by number, the numbers of the outputs that may take over their memory."""


def by_input(pairs: Iterable[tuple[int, int]]) -> Takeovers:
    """Pairs of an input and an output that may take over its memory, by input."""
    found: dict[int, list[int]] = {}
    for i, k in pairs:
        found.setdefault(i, []).append(k)
    return found


class Part(NamedTuple):
    """A part of a program that is called many times: its function, and where in its arena its temporaries are.

    in_place: which outputs may take over the memory of an input.
    """

    function: Function
    plan: Plan
    in_place: Takeovers


def plan_memory(function: Function, in_place: dict[Buffer, list[Buffer]]) -> Plan:
    """The plan of a program's temporaries (its locals). in_place: inputs whose memory an output may take over."""
    walk = _Walk(function, set(function.locals))
    top = walk.block(function.body)
    lifetimes = {**walk.final, **{b: (first, last) for b, (first, last, _) in top.items()}}
    plan = Plan(lifetimes={b: lifetimes[b] for b in function.locals if b in lifetimes})
    _assign(plan, in_place, walk.sections)
    return plan


def plan_donations(
    function: Function, in_place: dict[Buffer, list[Buffer]], inputs: list[Buffer], outputs: list[Buffer],
    donated: Iterable[int],
) -> dict[int, int]:
    """For each output that may live in the memory of a donated input: the numbers of the two."""
    free = set(donated)
    if not free:
        return {}
    found: dict[int, int] = {}
    for i, k in takeovers(function, in_place, inputs, outputs):
        if i in free and k not in found:
            found[k] = i
            free.remove(i)
    return found


def takeovers(
    function: Function, in_place: dict[Buffer, list[Buffer]], inputs: list[Buffer], outputs: list[Buffer]
) -> list[tuple[int, int]]:
    """(input, output), by number, where the output may take over the memory of the input.

    The kernel that writes the output must be the last to read the input, each element just before it is written.
    """
    lives = _Walk(function, {*inputs, *outputs}).block(function.body)
    numbers = {b: i for i, b in enumerate(inputs)}
    return [(numbers[old], k) for k, out in enumerate(outputs) for old in in_place.get(out, ())
            if old in numbers and {old, out} <= lives.keys()  # what is not there is touched in one loop alone
            and lives[old][1] == lives[out][0] and old.nbytes == out.nbytes]


def touched(statement: Any) -> Iterable[Buffer]:
    """The buffers that one statement (not the blocks inside it) reads or writes."""
    if isinstance(statement, Value):
        return [statement.attr[0]] if statement.op == "load" else ()
    if isinstance(statement, nodes.KernelCall):
        return statement.buffers if statement.failure is None else [*statement.buffers, *touched(statement.failure)]
    if isinstance(statement, nodes.HostCall):
        return list(map(BUFFER, statement.places))
    if isinstance(statement, nodes.Store | nodes.Prefetch):
        return [statement.buffer]
    if isinstance(statement, nodes.Copy | nodes.Transpose):
        return [statement.target, statement.source]
    if isinstance(statement, nodes.Fill):
        return [statement.target]
    if isinstance(statement, nodes.LibraryCall):
        return [arg[0] for arg in statement.args if isinstance(arg, tuple) and isinstance(arg[0], Buffer)]
    return ()


def _count(statements, counts):
    for statement in statements:
        for buffer in set(touched(statement)):
            counts[buffer] = counts.get(buffer, 0) + 1
        for block in blocks(statement):
            _count(block, counts)


_SIMPLE = (nodes.KernelCall, nodes.HostCall, nodes.Copy, nodes.Store, Value)


class _Walk:
    """Numbers statements; `final` has the lifetimes of buffers that live inside one loop only. of: which buffers."""

    def __init__(self, function: Function, of: set[Buffer]):
        self._function = function
        self._of = of
        self.sections: list[Section] = []
        self.final: dict[Buffer, tuple[int, int]] = {}
        self.now = 0

    @functools.cached_property
    def counts(self) -> dict[Buffer, int]:
        """By how many statements each buffer is touched: what only loops have to know."""
        counts: dict[Buffer, int] = {}
        _count(self._function.body, counts)
        return counts

    def block(self, statements) -> dict[Buffer, tuple[int, int, int]]:
        """(first, last, number of statements that touch it) of each buffer in a block."""
        found: dict[Buffer, tuple[int, int, int]] = {}
        for statement in statements:
            self.now += 1
            start = self.now
            for buffer in self._of.intersection(touched(statement)):
                old = found.get(buffer)
                found[buffer] = (start, start, 1) if old is None else (old[0], start, old[2] + 1)
            if type(statement) in _SIMPLE:
                continue
            if type(statement) is Sections:
                self._sections(statement, found)
                continue
            inside: dict[Buffer, tuple[int, int, int]] = {}
            for inner in blocks(statement):
                for buffer, life in self.block(inner).items():
                    _merge(inside, buffer, life)
            if inside:
                self._inner(isinstance(statement, Loop | While), start, inside, found)
        return found

    def _sections(self, statement, found):
        """Blocks that run at the same time."""
        start, ends = self.now, []
        inside: list[dict[Buffer, tuple[int, int, int]]] = []
        for block in statement.blocks:
            first = self.now + 1
            inside.append(self.block(block))
            ends.append((first, self.now))
        self.now += 1
        self.sections += [Section(first, last, self.now) for first, last in ends]
        homes = Counter(buffer for lives in inside for buffer in lives)
        for lives in inside:
            for buffer, (first, last, count) in lives.items():
                _merge(found, buffer, (first, last, count) if homes[buffer] == 1 else (start, self.now, count))

    def _inner(self, loops, start, inside, found):
        self.now += 1
        for buffer, (first, last, count) in inside.items():
            if loops and count == self.counts[buffer]:
                self.final[buffer] = (first, last)
            else:
                whole = (start, self.now) if loops else (first, last)
                _merge(found, buffer, (*whole, count))


def _merge(found, buffer, new):
    old = found.get(buffer)
    found[buffer] = new if old is None else (old[0], new[1], old[2] + new[2])  # statements are met in order


def _assign(plan: Plan, in_place: dict[Buffer, list[Buffer]], sections: list[Section]) -> None:
    """Best fit among the free parts, in order of first use."""
    free = _Free(plan, sections) if sections else _FreeForAll(plan)
    alive: list[tuple[int, int, int, Buffer]] = []
    taken: set[Buffer] = set()
    for number, ((first, last), bundle) in enumerate(_bundles(plan, in_place)):
        candidates = in_place.get(bundle[0])
        place = _taken_over(plan, bundle[0], first, candidates, taken) if candidates else None
        free.go_to(first)
        while alive and alive[0][0] < first:
            end, _, size, old = heapq.heappop(alive)
            if old not in taken:
                free.release(end, plan.offsets[old], size)
        sizes = [_rounded(buffer.nbytes) for buffer in bundle]
        size = sum(sizes)
        at = free.take(size) if place is None else place
        plan.offsets.update(zip(bundle, itertools.accumulate(sizes, initial=at), strict=False))
        heapq.heappush(alive, (last, number, size, bundle[0]))


def _bundles(plan: Plan, in_place: dict[Buffer, list[Buffer]]) -> list[tuple[tuple[int, int], list[Buffer]]]:
    """Buffers in order of first use, each with those that live exactly as long, if many do: the results of a call."""
    alone = {*in_place, *itertools.chain.from_iterable(in_place.values())}
    alike: dict[Any, list[Buffer]] = {}
    for buffer, life in plan.lifetimes.items():
        alike.setdefault((buffer if buffer in alone else None, life), []).append(buffer)
    parts = [[bundle] if len(bundle) >= MANY else [[b] for b in bundle] for bundle in alike.values()]
    found = [(plan.lifetimes[bundle[0]], bundle) for part in parts for bundle in part]
    return sorted(found, key=lambda item: item[0][0])


class _FreeForAll:
    """The free parts of the arena of statements that run in order: (offset, size), sorted, not touching."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.parts: list[tuple[int, int]] = []

    def go_to(self, statement: int) -> None:
        """Come to a statement."""

    def release(self, end: int, offset: int, size: int) -> None:
        """Free a part that was in use up to the statement `end`."""
        _release(self.parts, offset, size)

    def take(self, size: int) -> int:
        """A part of this size."""
        return _take(self.plan, self.parts, size)


class _Free(_FreeForAll):
    """The free parts of the arena where sections run at the same time.

    own: those that only the present section may use. kept: those of the sections that run with it.
    """

    def __init__(self, plan: Plan, sections: list[Section]):
        super().__init__(plan)
        self.own: list[tuple[int, int]] = []
        self.kept: list[tuple[int, int]] = []
        self._sections = sections
        self._firsts = [s.first for s in sections]
        self._present: Section | None = None

    def go_to(self, statement: int) -> None:
        before, found = self._present, self._section_at(statement)
        if found is before:
            return
        self._present = found
        self.kept += self.own
        self.own = []
        if before is not None and (found is None or found.end != before.end):
            for offset, size in self.kept:
                _release(self.parts, offset, size)
            self.kept = []

    def _section_at(self, statement: int) -> Section | None:
        k = bisect.bisect(self._firsts, statement) - 1
        return self._sections[k] if k >= 0 and statement <= self._sections[k].last else None

    def release(self, end: int, offset: int, size: int) -> None:
        present, section = self._present, self._section_at(end)
        if section is None or present is None or section.end != present.end:
            _release(self.parts, offset, size)
        elif section is present:
            _release(self.own, offset, size)
        else:
            self.kept.append((offset, size))

    def take(self, size: int) -> int:
        fits = any(room >= size for _, room in self.own)
        return _take(self.plan, self.own if fits else self.parts, size)


def _taken_over(plan, buffer, first, candidates, taken):
    for old in candidates:
        if old in plan.offsets and old not in taken and plan.lifetimes[old][1] == first and old.nbytes == buffer.nbytes:
            taken.add(old)
            return plan.offsets[old]
    return None


def _rounded(size):
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


def _take(plan, free, size):
    best = min([(s, o, k) for k, (o, s) in enumerate(free) if s >= size], default=None)
    if best is not None:
        room, offset, k = best
        if room == size:
            del free[k]
        else:
            free[k] = (offset + size, room - size)
        return offset
    if free and free[-1][0] + free[-1][1] == plan.size:  # the last free part grows
        offset, room = free.pop()
        plan.size += size - room
        return offset
    offset = plan.size
    plan.size += size
    return offset


def _release(free, offset, size):
    k = bisect.bisect(free, (offset, size))
    if k < len(free) and offset + size == free[k][0]:
        size += free.pop(k)[1]
    if k and sum(free[k - 1]) == offset:
        offset, before = free.pop(k - 1)
        k, size = k - 1, size + before
    free.insert(k, (offset, size))

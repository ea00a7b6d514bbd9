# SPDX-License-Identifier: MIT
"""Where each temporary of a program lives: one arena, whose parts are used again when what was in them is dead.

Statements are numbered in order. A buffer is alive from the first statement that touches it to the last; one touched
inside a loop and outside it is alive for the whole loop. An output that a kernel writes where it has just read an input
for the last time may take that input's place.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import Buffer, Function, Loop, Value, While, blocks

ALIGNMENT = 64


@dataclass(slots=True)
class Plan:
    """Byte offsets in the arena, its size, and the lifetimes (first and last statement) they come from."""

    offsets: dict[Buffer, int] = field(default_factory=dict)
    size: int = 0
    lifetimes: dict[Buffer, tuple[int, int]] = field(default_factory=dict)


def plan_memory(function: Function, in_place: dict[Buffer, list[Buffer]]) -> Plan:
    """The plan of a program's temporaries (its locals). in_place: inputs whose memory an output may take over."""
    counts: dict[Buffer, int] = {}
    _count(function.body, counts)
    walk = _Walk(counts)
    top = walk.block(function.body)
    lifetimes = {**walk.final, **{b: (first, last) for b, (first, last, _) in top.items()}}
    plan = Plan(lifetimes={b: lifetimes[b] for b in function.locals if b in lifetimes})
    _assign(plan, in_place)
    return plan


def plan_donations(
    function: Function, in_place: dict[Buffer, list[Buffer]], inputs: list[Buffer], outputs: list[Buffer],
    donated: Iterable[int],
) -> dict[int, int]:
    """For each output that may live in the memory of a donated input: the numbers of the two.

    The kernel that writes the output must be the last to read the input, each element just before it is written.
    """
    counts: dict[Buffer, int] = {}
    _count(function.body, counts)
    lives = {b: (first, last) for b, (first, last, _) in _Walk(counts).block(function.body).items()}
    free = {inputs[i]: i for i in donated}
    found: dict[int, int] = {}
    for k, out in enumerate(outputs):
        for old in in_place.get(out, ()):
            if old in free and out in lives and lives[old][1] == lives[out][0] and old.nbytes == out.nbytes:
                found[k] = free.pop(old)
                break
    return found


def touched(statement: Any) -> Iterable[Buffer]:
    """The buffers that one statement (not the blocks inside it) reads or writes."""
    if isinstance(statement, Value):
        if statement.op == "load":
            yield statement.attr[0]
    elif isinstance(statement, nodes.KernelCall | nodes.HostCall):
        for buffer, _ in statement.places:
            yield buffer
        if isinstance(statement, nodes.KernelCall) and statement.failure is not None:
            yield from touched(statement.failure)
    elif isinstance(statement, nodes.Store):
        yield statement.buffer
    elif isinstance(statement, nodes.Copy):
        yield statement.target
        yield statement.source
    elif isinstance(statement, nodes.Fill):
        yield statement.target
    elif isinstance(statement, nodes.LibraryCall):
        for arg in statement.args:
            if isinstance(arg, tuple) and isinstance(arg[0], Buffer):
                yield arg[0]


def _count(statements, counts):
    for statement in statements:
        for buffer in touched(statement):
            counts[buffer] = counts.get(buffer, 0) + 1
        for block in blocks(statement):
            _count(block, counts)


class _Walk:
    """Numbers statements; `final` has the lifetimes of buffers that live inside one loop only."""

    def __init__(self, counts: dict[Buffer, int]):
        self.counts = counts
        self.final: dict[Buffer, tuple[int, int]] = {}
        self.now = 0

    def block(self, statements) -> dict[Buffer, tuple[int, int, int]]:
        """(first, last, number of touches) of each buffer in a block."""
        found: dict[Buffer, tuple[int, int, int]] = {}
        for statement in statements:
            self.now += 1
            start = self.now
            for buffer in touched(statement):
                _merge(found, buffer, (start, start, 1))
            inside: dict[Buffer, tuple[int, int, int]] = {}
            for inner in blocks(statement):
                for buffer, life in self.block(inner).items():
                    _merge(inside, buffer, life)
            if inside:
                self._inner(isinstance(statement, Loop | While), start, inside, found)
        return found

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
    found[buffer] = new if old is None else (min(old[0], new[0]), max(old[1], new[1]), old[2] + new[2])


def _assign(plan: Plan, in_place: dict[Buffer, list[Buffer]]) -> None:
    """Best fit among the free parts, in order of first use."""
    free: list[tuple[int, int]] = []  # (offset, size), sorted, not touching
    alive: list[tuple[int, int, Buffer]] = []
    taken: set[Buffer] = set()
    for number, buffer in enumerate(sorted(plan.lifetimes, key=lambda b: plan.lifetimes[b][0])):
        first, _ = plan.lifetimes[buffer]
        place = _taken_over(plan, buffer, first, in_place.get(buffer, ()), taken)
        while alive and alive[0][0] < first:
            old = heapq.heappop(alive)[2]
            if old not in taken:
                _release(free, plan.offsets[old], _rounded(old.nbytes))
        if place is None:
            place = _take(plan, free, _rounded(buffer.nbytes))
        plan.offsets[buffer] = place
        heapq.heappush(alive, (plan.lifetimes[buffer][1], number, buffer))


def _taken_over(plan, buffer, first, candidates, taken):
    for old in candidates:
        if old in plan.offsets and old not in taken and plan.lifetimes[old][1] == first and old.nbytes == buffer.nbytes:
            taken.add(old)
            return plan.offsets[old]
    return None


def _rounded(size):
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


def _take(plan, free, size):
    best = min((s, o, k) for k, (o, s) in enumerate(free) if s >= size) if any(s >= size for _, s in free) else None
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
    free.append((offset, size))
    free.sort()
    merged: list[tuple[int, int]] = []
    for start, room in free:
        if merged and merged[-1][0] + merged[-1][1] == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + room)
        else:
            merged.append((start, room))
    free[:] = merged

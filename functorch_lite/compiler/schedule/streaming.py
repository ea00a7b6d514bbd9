# SPDX-License-Identifier: MIT
"""Which stores of a kernel go past the caches: those of long outputs that the kernel does not read.

A store into a line that is not in a cache reads the line first, and throws out another one. A streaming store writes
whole lines without, so a loop that is held up by memory alone moves a half to two thirds of the bytes. What it wrote is
in no cache then: for short arrays, which the next kernel would find in one, and for loops that compute for longer than
they wait, it loses.

Measured on two cores (AVX-512, 48 MB of last-level cache shared with other machines), time without over time with, one
thread and two: x + 1 on 16 and 64 MB 1.6 to 2.0 and 1.5 to 2.9, x y + z 1.2 to 1.7 and 2.0 to 2.3, zeros 1.8 to 2.6 and
2.7 to 3.9, three outputs of one input 1.7 to 2.1 and 2.3 to 3.5, Adam 1.5, a bias and a relu on rows of 1 to 16 KB 1.3
to 1.8, layer norm 1.1 to 1.5. With a kernel that reads what was written: 8 MB 0.7 to 1.0, 16 MB 1.05 to 1.2, 64 MB 1.2
to 1.3. exp(x) + x 0.6 to 1.3; reversed reads 0.2; stores of a quarter of a cache line 1.0. In a new array of 64 MB,
whose pages the system has to make, 1.0 to 1.4.
"""

from collections.abc import Collection, Sequence, Set

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Buffer, Function, Loop, Prefetch, Store, Value
from functorch_lite.compiler.schedule import parallel

STREAM_BYTES = 16 << 20
ROW_BYTES = 1 << 10
"""Of the rows of an output at least: each begins and ends with part of a vector, which is not streamed."""


def streamed(function: Function, shared: Collection[int]) -> dict[int, tuple[Buffer, ...]]:
    """The outputs that a kernel's shared loops, given by identity, stream.

    A loop that does is a vector loop, or has vector loops in it, of operations and of loads and stores in order. A
    vector loop by itself reads nothing it writes, so it may run an iteration twice.
    """
    loops = [s for s in parallel.every(function.body) if isinstance(s, Loop) and id(s) in shared]
    long = [b for b in function.params if b.role == "out" and b.nbytes >= STREAM_BYTES]
    if not loops or not long:
        return {}
    read = {a.buffer for s in parallel.every(function.body) for a in parallel.accesses(s) if not a.writes}
    free = [b for b in long if b not in read]
    return {id(loop): found for loop in loops if (found := _outputs(loop, free, read)) and parallel.waits(loop)}


def _outputs(loop: Loop, free: Sequence[Buffer], read: Set[Buffer]) -> tuple[Buffer, ...]:
    """Those of some buffers that a shared loop streams."""
    if loop.vector:
        places = {s.index.key for s in _stores(loop)}
        fits = places == {(0, ((loop.variable, 1),))} and not read & {s.buffer for s in _stores(loop)}
        return tuple(b for b in free if fits and b in in_order(loop))
    inside = [s for s in parallel.every(loop.body) if isinstance(s, Loop) and s.vector]
    found = [b for s in inside if isinstance(s.extent, int) for b in in_order(s)
             if s.extent * ITEM_BYTES[b.kind] >= ROW_BYTES]
    stores = [a.buffer for s in parallel.every(loop.body) for a in parallel.accesses(s) if a.writes]
    return tuple(b for b in found if b in free and stores.count(b) == 1)


def in_order(loop: Loop) -> list[Buffer]:
    """What a vector loop that carries nothing stores place by place, in full vectors; nothing if it reads otherwise."""
    if loop.carried or any(type(s) not in (Value, Store, Prefetch) for s in loop.body):
        return []
    inside = {loop.variable, *(s for s in loop.body if type(s) is Value)}
    for s in loop.body:
        for a in parallel.accesses(s):
            steps = [(v, c) for v, c in a.index.terms if v in inside]
            if steps != [(loop.variable, 1)] and (steps or a.writes):
                return []
    size = parallel.VECTOR_BYTES // parallel.lanes_of(loop)
    stores = [s.buffer for s in _stores(loop)]
    keys = {s.index.key for s in _stores(loop)}
    return [b for b in stores if len(keys) == 1 and stores.count(b) == 1 and ITEM_BYTES[b.kind] == size]


def _stores(loop: Loop) -> list[Store]:
    return [s for s in loop.body if type(s) is Store]

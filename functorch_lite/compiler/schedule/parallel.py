# SPDX-License-Identifier: MIT
"""Which loops of a kernel threads may share: those whose iterations do not meet in memory, and that are worth it.

A loop qualifies when it carries no value and leaves nothing between its iterations:

    apart    a buffer written in the loop is written and read at `c * i + rest`, where i is the loop's variable and
             either all the rests lie in one window no wider than c, or they do modulo M, a divisor of the strides
             above c, and M has room for the windows of all iterations side by side. A rest may have terms that do not
             change in the loop, the same in all accesses. Or the loop's writer says so (`nodes.Loop.apart`).
    own      a local or working space where an iteration reads nothing but what it has written, and of which nothing is
             read after the loop before it is written anew, may be another one for each range of iterations.

A loop around calls, or that may leave the kernel, is left alone. Buffers of one kernel do not overlap, but that an
output may lie where an input is that is read only at the place about to be written (memory/plan.py).

How iterations are dealt out changes no result: nothing inside an iteration depends on it.

The outermost loop that is long enough is taken; where it has few iterations, the loops inside if they are very long.
Times are rough: nanoseconds of an operation on one vector, or of bytes from a shared cache, whichever is more.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Buffer, Function, Index, Loop, Value, blocks

WORTH_NS = 80_000.0  # a sleeping worker takes 10 to 40 us to come
WORTH_SHORT_NS = 20_000.0  # of all such loops, if a worker is awake, which the pool looks for in each call
WORTH_PART_NS = 5_000.0  # of one of them
WORTH_AWAKE_NS = 15_000.0  # in a kernel with another shared loop, for which the workers come anyway
GRAIN_NS = 10_000.0
LEAST_RANGES = 6  # of a short loop
FEW = 8  # iterations, too few to be dealt out evenly
VERY_LONG = 4
OWN_BYTES = 640 << 10  # on the stack of a thread; the panels of a large product, above all
VECTOR_BYTES = 64
MOST_LANES = 16
_OP_NS = 0.3
_LOAD_NS = 0.15
_SLOW_NS = 8.0
_DIVIDE_NS = 3.0
_BYTE_NS = 0.05
_UNKNOWN_EXTENT = 8

_MOVES = nodes.Copy | nodes.Transpose | nodes.Fill
_FREE = frozenset({"constant", "index", "variable", "carried", "result", "parameter"})
_DIVIDES = frozenset({"div", "sqrt", "rem"})
_FAST = frozenset({
    "add", "sub", "mul", "fma", "neg", "abs", "max", "min", "floor", "ceil", "round", "trunc", "copysign", "select",
    "and", "or", "xor", "not", "shl", "shr", "sar", "eq", "ne", "lt", "le", "gt", "ge", "is_nan", "is_finite",
    "convert", "bitcast", "clz",
})


class Shared(NamedTuple):
    """How a loop is shared: ranges are about `grain` long or longer, a multiple of 16 if it is one, as of vector loops;
    `own` are the buffers that each has for itself.

    streams: the outputs that it writes past the caches. short: whether it is over before a sleeping worker comes.
    """

    grain: int
    own: tuple[Buffer, ...]
    streams: tuple[Buffer, ...] = ()
    short: bool = False


def shared_loops(function: Function, worth: float | None = None) -> dict[int, Shared]:
    """The loops of a kernel, by identity, that threads share: those that take `worth` nanoseconds.

    None: WORTH_NS, or where no loop does, those that are worth it for workers that are awake and that compute: what
    waits for memory has it in the caches of one processor.
    """
    if function.integers:
        return {}
    facts = _facts_of(function)
    found = facts.team(function.body, WORTH_NS if worth is None else worth)
    if found or worth is not None:
        return found
    if sum(map(facts.time, function.body)) < WORTH_SHORT_NS:
        return {}
    found = facts.block(function.body, WORTH_PART_NS)
    loops = [s for s in every(function.body) if id(s) in found and not waits(s)] if found else []
    if sum(map(facts.time, loops)) < WORTH_SHORT_NS:
        return {}
    return {id(s): found[id(s)]._replace(short=True) for s in loops}


def time_of_kernel(function: Function) -> float:
    """About how many nanoseconds one run of a kernel takes."""
    facts = _facts_of(function)
    return sum(map(facts.time, function.body))


def _facts_of(function: Function) -> "_Finder":
    """What was found out about a function before: it is asked for by who makes sections and by who writes its loops."""
    if function.facts is None or function.facts.body is not function.body:
        function.facts = _Finder(function)
    return function.facts


class _Finder:
    def __init__(self, function: Function):
        self.body = function.body
        self._function = function
        self._times: dict[int, float] = {}  # of loops, by identity; and what their ranges own
        self._own: dict[int, tuple[Buffer, ...] | None] = {}

    def time(self, statement: Any) -> float:
        """The time of one run of a statement; that of a loop is kept."""
        if not isinstance(statement, Loop):
            return time_of(statement)
        found = self._times.get(id(statement))
        if found is None:
            found = self._times[id(statement)] = time_of(statement)
        return found

    def team(self, statements: Sequence[Any], worth: float) -> dict[int, Shared]:
        """Loops worth waking workers for, and with them those worth a few microseconds."""
        found = self.block(statements, worth)
        return found and found | self.block([s for s in statements if id(s) not in found], WORTH_AWAKE_NS)

    def block(self, statements: Sequence[Any], worth: float) -> dict[int, Shared]:
        found: dict[int, Shared] = {}
        for s in statements:
            if isinstance(s, Loop):
                found |= self.loop(s, worth)
            elif isinstance(s, nodes.If):
                found |= self.block(s.then, worth) | self.block(s.otherwise, worth)
        return found

    def loop(self, loop: Loop, worth: float) -> dict[int, Shared]:
        time = self.time(loop)
        if time < worth or not isinstance(loop.extent, int):
            return {}
        if id(loop) not in self._own:
            self._own[id(loop)] = own_buffers(loop, self._function)
        own = self._own[id(loop)]
        if own is None:
            return {} if loop.vector else self.block(loop.body, worth)
        inside = {} if loop.vector or loop.extent >= FEW else self.team(loop.body, VERY_LONG * WORTH_NS)
        if inside:
            return inside
        least = min(GRAIN_NS, time / LEAST_RANGES)
        grain = max(1, math.ceil(least / (time / loop.extent)))
        return {id(loop): Shared(-(-grain // MOST_LANES) * MOST_LANES if loop.vector else grain, own)}


# --- time -------------------------------------------------------------------------------------------------------------


def time_of(statement: Any) -> float:
    """About how many nanoseconds one run of a loop, or of another statement, takes."""
    return max(_times_of(statement))


def waits(loop: Loop) -> bool:
    """Whether a loop is held up by memory, not by what it computes."""
    busy, moving = _times_of(loop)
    return busy < moving


def _times_of(statement: Any) -> tuple[float, float]:
    """About how many nanoseconds the operations of one run of a statement take, and moving its bytes."""
    moved: dict[Buffer, float] = {}
    busy = _time([statement], 1, 1.0, moved)
    return busy, _BYTE_NS * sum(min(size, b.nbytes) for b, size in moved.items())


def _time(statements: Sequence[Any], lanes: int, times: float, moved: dict[Buffer, float]) -> float:
    total = 0.0
    for s in statements:
        if isinstance(s, Value):
            total += times * _value_time(s) / lanes
            if s.op == "load":
                _move(moved, s.attr[0], times)
        elif isinstance(s, nodes.Store):
            total += times * _OP_NS / lanes
            _move(moved, s.buffer, times)
        elif isinstance(s, nodes.Copy | nodes.Fill):
            total += times * s.count * ITEM_BYTES[s.target.kind] * _BYTE_NS / 2
            _move(moved, s.target, times * s.count)
        elif isinstance(s, nodes.Transpose):
            total += times * s.rows * s.columns * _OP_NS
            _move(moved, s.source, times * s.rows * s.columns)
        elif isinstance(s, Loop):
            extent = s.extent if isinstance(s.extent, int) else _UNKNOWN_EXTENT
            inner = lanes_of(s) if s.vector and lanes == 1 else lanes
            total += _time(s.body, inner, times * extent, moved)
        else:
            total += sum(_time(block, lanes, times, moved) for block in blocks(s))
    return total


def _value_time(v: Value) -> float:
    if v.op in _FREE:
        return 0.0
    if v.op == "load":
        return _LOAD_NS
    if v.op in _FAST:
        return _OP_NS
    return _DIVIDE_NS if v.op in _DIVIDES else _SLOW_NS


def _move(moved: dict[Buffer, float], buffer: Buffer, elements: float) -> None:
    moved[buffer] = moved.get(buffer, 0.0) + elements * ITEM_BYTES[buffer.kind]


def lanes_of(loop: Loop) -> int:
    """How many iterations of a vector loop a vector has room for, on a machine of wide vectors."""
    kinds = [s.kind if isinstance(s, Value) else s.value.kind for s in every(loop.body)
             if isinstance(s, nodes.Store) or isinstance(s, Value) and s.op not in ("index", "constant")]
    widest = max((ITEM_BYTES[k] for k in kinds if k != "bool"), default=8)
    return max(1, min(MOST_LANES, VECTOR_BYTES // widest))


def every(statements: Iterable[Any]) -> Iterator[Any]:
    for s in statements:
        yield s
        if type(s) is not Value:
            for block in blocks(s):
                yield from every(block)


# --- accesses ---------------------------------------------------------------------------------------------------------


class Access(NamedTuple):
    """`count` elements of a buffer from `index` on; of them only `n` pieces of `size`, `step` apart, if `pieces` says.

    pieces: size, step, n.
    """

    buffer: Buffer
    index: Index
    writes: bool
    count: int = 1
    pieces: tuple[int, int, int] | None = None


def accesses(s: Any) -> Sequence[Access]:
    if isinstance(s, Value):
        if s.op != "load":
            return ()
        buffer, index = s.attr
        return [Access(buffer, index, False)]
    if isinstance(s, nodes.Store):
        return [Access(s.buffer, s.index, True)]
    if isinstance(s, nodes.Copy):
        return [Access(s.source, s.start, False, s.count), Access(s.target, s.at, True, s.count)]
    if isinstance(s, nodes.Transpose):
        return [Access(s.source, s.start, False, s.reads, (s.columns, s.stride, s.rows)),
                Access(s.target, s.at, True, s.writes, (s.rows, s.step, s.columns))]
    if isinstance(s, nodes.Fill):
        return [Access(s.target, s.at, True, s.count)]
    return ()


class _Place(NamedTuple):
    """Where an access may be: constant + sum of n * stride over `steps` (n below the extent), + count.

    fixed: terms that do not change in the loop; unknown: strides of terms that change in no known way.
    """

    constant: int
    steps: tuple[tuple[int, int], ...]
    fixed: frozenset[tuple[Value, int]]
    unknown: tuple[int, ...]
    count: int


class Inside:
    """What is inside a loop: accesses to each buffer, and what its values are."""

    def __init__(self, loop: Loop):
        self.loop = loop
        self.accesses: dict[Buffer, list[Access]] = {}
        self.extents: dict[Value, int] = {}
        self.defined: set[Value] = {loop.variable}
        self.leaves = False  # calls something, or may leave the function
        for s in every(loop.body):
            self._meet(s)

    def _meet(self, s: Any) -> None:
        if isinstance(s, Value):
            self.defined.add(s)
            if s.op != "load":  # by far the most
                return
        for access in accesses(s):
            self.accesses.setdefault(access.buffer, []).append(access)
        if isinstance(s, Loop | nodes.While):
            for c in s.carried:
                self.defined |= {c.value, c.result}
            if isinstance(s, Loop):
                self.defined.add(s.variable)
                if isinstance(s.extent, int):
                    self.extents[s.variable] = s.extent
        elif isinstance(s, nodes.If):
            self.defined |= {result for result, _, _ in s.results}
        elif not isinstance(s, _MOVES | nodes.Store | nodes.Prefetch | Value):
            self.leaves = True

    def place(self, access: Access, in_pieces: bool = False) -> tuple[int, _Place]:
        """The stride of the loop's variable in an access, and the rest of it, as one range or in its pieces."""
        index = self._plain(access.index)
        steps, fixed, unknown, count = [], [], [], access.count
        if in_pieces and access.pieces is not None:
            count, step, n = access.pieces
            steps += [(step, n)] * (n > 1)
        for v, c in index.terms:
            if v is self.loop.variable:
                continue
            if v in self.extents:
                steps.append((c, self.extents[v]))
            elif v in self.defined:
                unknown.append(c)
            else:
                fixed.append((v, c))
        rest = _Place(index.constant, tuple(steps), frozenset(fixed), tuple(unknown), count)
        return index.coefficient(self.loop.variable), rest

    def _plain(self, index: Index) -> Index:
        """An index with the values that are indices themselves written out."""
        while True:
            term = next(((v, c) for v, c in index.terms if v.op == "index" and v.kind == "i64" and v in self.defined),
                        None)
            if term is None:
                return index
            others = Index(index.constant, tuple(t for t in index.terms if t is not term))
            index = others + term[0].attr * term[1]


def own_buffers(loop: Loop, function: Function) -> tuple[Buffer, ...] | None:
    """The buffers that a shared loop's ranges have for themselves; None where the loop cannot be shared."""
    if loop.carried:
        return None
    inside = Inside(loop)
    if inside.leaves:
        return None
    own, whole = [], functools.cache(lambda: Inside(Loop(Value("variable", "i64"), 1, function.body)))
    for buffer, accesses in inside.accesses.items():
        if buffer in loop.apart or not any(a.writes for a in accesses):
            continue
        if _are_apart(loop.extent, [inside.place(a, in_pieces=True) for a in accesses]):
            continue
        if buffer.role not in ("local", "scratch") or not _is_own(inside, buffer, function, whole):
            return None
        own.append(buffer)
    return tuple(own) if sum(b.nbytes for b in own) <= OWN_BYTES else None


# --- apart ------------------------------------------------------------------------------------------------------------


def _are_apart(extent: int | Value, places: Sequence[tuple[int, _Place]]) -> bool:
    """Whether accesses at different values of the loop's variable never meet."""
    stride, first = places[0]
    if stride <= 0 or any(s != stride or p.fixed != first.fixed for s, p in places) or not isinstance(extent, int):
        return False
    rests = [p for _, p in places]
    if not any(p.unknown for p in rests):
        low, high = _window(rests, 0)
        if high - low < stride:
            return True
    return any(_fits(extent, stride, rests, m) for m in _divisors(extent * stride, rests))


def _window(rests: Sequence[_Place], modulus: int) -> tuple[int, int]:
    """The first and the last position of all accesses; modulo a number, if it is not 0."""
    start = min(p.constant for p in rests)
    lows, highs = [], []
    for p in rests:
        low = p.constant - start
        low = high = low % modulus if modulus else low
        high += p.count - 1
        for c, n in p.steps:
            if not modulus or c % modulus:
                low, high = low + min(0, c * (n - 1)), high + max(0, c * (n - 1))
        lows.append(low)
        highs.append(high)
    return min(lows), max(highs)


def _divisors(room: int, rests: Sequence[_Place]) -> Iterator[int]:
    """Numbers that divide the large strides of all accesses and have room for all iterations."""
    common = math.gcd(*[abs(c) for p in rests for c, _ in p.steps if abs(c) >= room],
                      *[abs(c) for p in rests for c in p.unknown])
    start = min(p.constant for p in rests)
    yield from {m for m in {common, *(math.gcd(common, p.constant - start) for p in rests)} if m >= room}


def _fits(extent: int, stride: int, rests: Sequence[_Place], modulus: int) -> bool:
    if any(c % modulus for p in rests for c in p.unknown):
        return False
    low, high = _window(rests, modulus)
    return high - low < stride and (extent - 1) * stride + high - low < modulus


# --- own --------------------------------------------------------------------------------------------------------------


def _is_own(inside: Inside, buffer: Buffer, function: Function, whole: Callable[[], Inside]) -> bool:
    """Whether an iteration reads of a buffer nothing but what it has written itself, and others nothing of that."""
    if not _Written(inside, buffer).block(inside.loop.body, set()):
        return False
    return _Written(whole(), buffer, inside.loop).block(function.body, set())


class _Written:
    """Follows one iteration: what of a buffer has been written for sure, and whether every read is of that.

    What a loop writes counts as a range when the loop is over, and in it at the very index that was written. After
    `spoiling`, a loop that is left out, nothing counts as written any more.
    """

    def __init__(self, inside: Inside, buffer: Buffer, spoiling: Loop | None = None):
        self.inside = inside
        self.buffer = buffer
        self.spoiling = spoiling
        self.open: set[Value] = set()  # variables of the loops around
        self.writes: list[tuple[_Place, set[Value]]] = []

    def block(self, statements: Sequence[Any], exact: set[Any]) -> bool:
        """Whether the reads of some statements are fine. exact: the very indices that have been written."""
        return all(self._statement(s, exact) for s in statements)

    def _statement(self, s: Any, exact: set[Any]) -> bool:
        if type(s) is Value and s.op != "load":
            return True
        inner = blocks(s)
        if inner:
            return self._blocks(s, inner, exact)
        for access in accesses(s):
            if access.buffer is not self.buffer:
                continue
            if access.writes:
                self._note(access, exact)
            elif (access.index.key, access.count) not in exact and not self._covers(access):
                return False
        return True

    def _blocks(self, s: Any, inner: Sequence[list[Any]], exact: set[Any]) -> bool:
        spoils = self.spoiling is not None and any(x is self.spoiling for x in every([s]))
        if spoils:
            exact.clear()
            self.writes.clear()
        if s is self.spoiling:
            return True
        runs = isinstance(s, Loop) and isinstance(s.extent, int) and not spoils
        return all([self._inner(s, block, exact, runs) for block in inner])

    def _inner(self, s: Any, block: Sequence[Any], exact: set[Any], runs: bool) -> bool:
        """A block in a statement, which runs at least once, or may not."""
        variables = {s.variable} if isinstance(s, Loop) else set()
        before = len(self.writes)
        self.open |= variables
        fine = self.block(block, set(exact))
        self.open -= variables
        if not runs:
            del self.writes[before:]
        return fine

    def _note(self, access: Access, exact: set[Any]) -> None:
        exact.add((access.index.key, access.count))
        stride, place = self.inside.place(access)
        if not stride and not place.fixed and not place.unknown:
            self.writes.append((place, {v for v, _ in access.index.terms}))

    def _covers(self, access: Access) -> bool:
        """Whether all that a read may touch lies in what finished loops have written: all of it, if who knows where."""
        stride, place = self.inside.place(access)
        if stride or place.fixed or place.unknown:
            low, high = 0, access.buffer.size - 1
        else:
            low, high = _window([place], 0)
            low, high = low + place.constant, high + place.constant
        done = [p for p, variables in self.writes if not variables & self.open]
        return any(start <= low and high < end for start, end in _ranges(done))


def _ranges(writes: Sequence[_Place]) -> list[tuple[int, int]]:
    """The ranges that writes fill without a gap."""
    alike: dict[Any, list[tuple[int, int]]] = {}
    for p in writes:
        alike.setdefault(tuple(sorted(p.steps)), []).append((p.constant, p.constant + p.count))
    found = []
    for steps, starts in alike.items():
        ranges = _joined(starts)
        for c, n in steps:
            ranges = _joined([(start, end + c * (n - 1)) for start, end in ranges if 0 <= c <= end - start])
        found += ranges
    return _joined(found)


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that touch made one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found

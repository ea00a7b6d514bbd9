# SPDX-License-Identifier: MIT
"""Loads and stores of lanes that lie a few elements apart: whole vectors and shuffles, where a gather or a scatter goes
lane by lane.

Nothing before the first lane's element or after the last one's is touched, nor, under a mask, beyond the last lane that
is on. Masks have the first lanes on: those of the last iterations of a vector loop.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.codegen.llvm.emitter import Emitter, Value
from functorch_lite.compiler.loop_ir.nodes import Store

if TYPE_CHECKING:
    from functorch_lite.compiler.codegen.llvm.function import FunctionWriter

MOST = 8
"""Elements from lane to lane, at most: as many vectors are loaded or stored, each with a shuffle."""
FEWEST_LANES = 4


def is_near(step: int, lanes: int) -> bool:
    """Whether lanes this far apart are loaded so."""
    return lanes >= FEWEST_LANES and (step == -1 or 2 <= abs(step) <= MOST)


def load_near(e: Emitter, pointer: str, kind: str, lanes: int, step: int, mask: Value | None) -> Value:
    """The elements at pointer[0], pointer[step], pointer[2 * step], ..., one a lane."""
    size = abs(step)
    reach = (lanes - 1) * size
    base = e.moved(pointer, kind, -reach) if step < 0 else pointer
    starts = [v * lanes for v in range(size)]
    if mask is None:
        starts[-1] = reach + 1 - lanes  # ends with the last lane's element
    vectors = []
    for start in starts:
        owners = [_owner(start + k, lanes, step) for k in range(lanes)]
        on = None if mask is None else _lanes_of_mask(e, mask, owners)
        vectors.append(e.load(e.moved(base, kind, start), kind, lanes, on))
    wanted = [reach - k * size if step < 0 else k * size for k in range(lanes)]
    return _picked(e, vectors, starts, wanted)


def _owner(element: int, lanes: int, step: int) -> int:
    """The first lane that has to be on for an element of the range to be read; `lanes` beyond the range."""
    if element > (lanes - 1) * abs(step):
        return lanes
    return -(-element // step) if step > 0 else lanes - 1 - element // -step


def _picked(e: Emitter, vectors: Sequence[Value], starts: Sequence[int], wanted: Sequence[int]) -> Value:
    """The wanted elements of a range that vectors cover from `starts` on."""
    lanes = len(wanted)
    homes = [max(v for v, start in enumerate(starts) if start <= w < start + lanes) for w in wanted]
    found = vectors[0]
    order = [w - starts[0] if home == 0 else -1 for w, home in zip(wanted, homes, strict=True)]
    if len(vectors) == 1:
        return e.shuffled(found, found, order)
    for v in range(1, len(vectors)):
        order = [lanes + w - starts[v] if home == v else k for k, w, home in zip(order, wanted, homes, strict=True)]
        found = e.shuffled(found, vectors[v], order)
        order = [k if home <= v else -1 for k, home in enumerate(homes)]
    return found


def stores_beside(statements: Sequence[Any], variable: Any, lanes: int, varying: set[Any]) -> dict[Any, list[Store]]:
    """Stores in a vector loop that follow one another and together fill a range: with the last one, all; else none."""
    found: dict[Any, list[Store]] = {}
    for k, s in enumerate(statements):
        n = s.index.coefficient(variable) if type(s) is Store and s not in found else 0
        row = statements[k : k + n] if n in (2, 4, 8) and is_near(n, lanes) else []
        if row and len(row) == n and _are_beside(row, varying):
            found |= {x: [] for x in row[:-1]} | {row[-1]: row}
    return found


def _are_beside(row: Sequence[Any], varying: set[Any]) -> bool:
    """Whether statements are stores to places beside one another, which only the loop's variable moves."""
    first = row[0]
    if any(type(s) is not Store for s in row) or sum(v in varying for v, _ in first.index.terms) != 1:
        return False
    return all(s.buffer is first.buffer and s.index.key == (first.index + k).key for k, s in enumerate(row))


def store_row(writer: "FunctionWriter", stores: Sequence[Store]) -> None:
    """Write stores that together fill a range, in their order."""
    e, first = writer.e, stores[0]
    values = [e.splat(writer.get(s.value), writer.lanes) for s in stores]
    if first.buffer.kind == "bool":
        values = [e.convert("zext", v, "i8") for v in values]
    store_near(e, values, writer.address(first.buffer, first.index), writer.mask)


def store_near(e: Emitter, values: Sequence[Value], pointer: str, mask: Value | None) -> None:
    """Lane k of value v to pointer[k * n + v], of n values: a power of two."""
    lanes, n = values[0].lanes, len(values)
    for v, vector in enumerate(_interleaved(e, list(values))):
        owners = [(v * lanes + k) // n for k in range(lanes)]
        on = None if mask is None else _lanes_of_mask(e, mask, owners)
        e.store(vector, e.moved(pointer, vector.kind, v * lanes), on)


def _interleaved(e: Emitter, values: list[Value]) -> list[Value]:
    """First lanes, second lanes and so on of all values, as vectors of as many lanes."""
    if len(values) == 1:
        return values
    half, lanes = len(values) // 2, values[0].lanes
    low = [k // 2 + lanes * (k % 2) for k in range(lanes)]
    high = [k + lanes // 2 for k in low]
    even, odd = _interleaved(e, values[::2]), _interleaved(e, values[1::2])
    return [e.shuffled(even[v], odd[v], order) for v in range(half) for order in (low, high)]


def _lanes_of_mask(e: Emitter, mask: Value, owners: Sequence[int]) -> Value:
    """A mask with each lane on where another one's lane of this number is; off for a number that is none."""
    key = "near", mask.text, *owners
    found = e.known.get(key)
    if found is None:
        off = Value("zeroinitializer", "i1", mask.lanes)
        found = e.shuffled(mask, off, [min(k, mask.lanes) for k in owners])
        e.know(key, found)
    return found

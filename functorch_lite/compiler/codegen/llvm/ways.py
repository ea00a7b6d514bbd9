# SPDX-License-Identifier: MIT
"""Vector loops that add up little in an iteration, several vectors at a time.

An addition waits four cycles for the one before it, in which a core could do eight. So a loop that is long, and has
little else to do, keeps several sums a lane, one for each of some vectors side by side; they are added up after it, and
what is left of the loop goes on with their sum. Which loops do depends on what they are alone, so bits are the same
whoever runs them.

The vectors of a very long loop are a quarter of it apart: four places are fetched from memory at a time.
"""

from typing import TYPE_CHECKING

from functorch_lite.compiler.codegen.llvm.carried import go_on, lane_start, loaded_before
from functorch_lite.compiler.codegen.llvm.emitter import Value
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.varying import varying_values

if TYPE_CHECKING:
    from functorch_lite.compiler.codegen.llvm.function import FunctionWriter

WAYS = 4
LEAST_VECTORS = 2 * WAYS
FAR = 1 << 15  # iterations of a loop whose ways are a quarter of it apart
MOST_CARRIED = 2
MOST_OPERATIONS = 6
_COMBINED = frozenset({"add", "max", "min"})
_FREE = frozenset({"constant", "index"})
_SHORT = frozenset({"load", "add", "sub", "mul", "fma", "neg", "abs", "max", "min"})
_KINDS = frozenset({"f32", "f64"})


def has_ways(loop: nodes.Loop, lanes: int) -> bool:
    """Whether a vector loop is long, and waits for what it carries."""
    assert isinstance(loop.extent, int)
    if not 0 < len(loop.carried) <= MOST_CARRIED or loop.extent < LEAST_VECTORS * lanes:
        return False
    if any(c.combine not in _COMBINED or c.value.kind not in _KINDS for c in loop.carried):
        return False
    values = [s for s in loop.body if type(s) is nodes.Value]
    if len(values) + sum(type(s) is nodes.Prefetch for s in loop.body) < len(loop.body):
        return False
    busy = [v for v in values if v.op not in _FREE]
    return len(busy) <= MOST_OPERATIONS and all(v.op in _SHORT and v.kind in _KINDS for v in busy)


def whole_ways(w: "FunctionWriter", loop: nodes.Loop, lanes: int) -> tuple[int, list[Value]]:
    """Write the iterations that fill all ways. Returns how many these are, and what is carried on, lane by lane."""
    e, extent = w.e, loop.extent
    assert isinstance(extent, int)
    whole = extent // (WAYS * lanes) * (WAYS * lanes)
    apart, step = (whole // WAYS, lanes) if extent >= FAR else (lanes, WAYS * lanes)
    variable, header, after = w.open_loop(loop.variable)
    w.lanes, w.variable, w.varying = lanes, loop.variable, varying_values(loop)
    starts = [loaded_before(w, lane_start(w, c, lanes)) for c in loop.carried]
    phis, given = [], []
    for _ in range(WAYS):
        phis += [w.phi(c, start) for c, start in zip(loop.carried, starts, strict=True)]
        given.append([w.values[c.value] for c in loop.carried])
    nexts = [_one_way(w, loop, lanes, k * apart, totals) for k, totals in enumerate(given)]
    w.ahead = 0
    e.close()
    following = [value for totals in nexts for value in totals]
    go_on(w, variable, step, whole // (WAYS * lanes) * step, (header, after), phis, following)
    w.lanes, w.variable, w.varying = 1, None, set()
    return whole, [_merged(w, c, [totals[k] for totals in nexts]) for k, c in enumerate(loop.carried)]


def _one_way(w: "FunctionWriter", loop: nodes.Loop, lanes: int, ahead: int, totals: list[Value]) -> list[Value]:
    """The body for the vector so many iterations ahead, with what is carried of its way; returns what follows."""
    w.ahead = ahead
    for c, total in zip(loop.carried, totals, strict=True):
        w.values[c.value] = total
    w.block(loop.body)
    return [w.e.splat(w.get(c.next), lanes) for c in loop.carried]


def _merged(w: "FunctionWriter", c: nodes.Carried, totals: list[Value]) -> Value:
    """The sums of all ways combined, by halves."""
    while len(totals) > 1:
        half = len(totals) // 2
        totals = [w.combined(c, a, b) for a, b in zip(totals[:half], totals[half:], strict=True)]
    return totals[0]

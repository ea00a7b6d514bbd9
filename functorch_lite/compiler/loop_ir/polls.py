# SPDX-License-Identifier: MIT
"""Which loops look for signals, so that Ctrl-C ends a long one: whiles, and loops whose iterations take long together.

Times are estimates, in nanoseconds; that they are wrong by a factor of ten does no harm.
"""

from collections.abc import Iterable
from typing import Any

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Function, Value, blocks

EVERY = 1e6
"""How long a loop runs before it looks again."""
POLL = "poll_signals"
"""The function that looks."""
_CHEAP = frozenset({"constant", "index", "load", "add", "sub", "mul", "select", "max", "min", "convert", "neg", "and",
                    "or", "xor", "eq", "ne", "lt", "le", "gt", "ge", "not", "fma"})


_AROUND = (nodes.Loop, nodes.While, nodes.If, nodes.Sections)


def mark_polls(function: Function) -> None:
    """Set `poll` of the loops of a program that look for signals: the estimated time of an iteration."""
    if any(type(s) in _AROUND for s in function.body):
        _block(function.body, {})


def _block(statements: list[Any], known: dict[Function, float]) -> float:
    return sum(_time(s, known) for s in statements)


def _time(s: Any, known: dict[Function, float]) -> float:
    if isinstance(s, Value):
        return 0.3 if s.op in _CHEAP else 4
    if isinstance(s, nodes.Copy):
        return 2 + s.count * ITEM_BYTES[s.target.kind] / 16
    if isinstance(s, nodes.Transpose):
        return 2 + s.rows * s.columns / 2
    if isinstance(s, nodes.KernelCall):
        if s.kernel not in known:
            known[s.kernel] = 2 + _block(s.kernel.body, known)
        return known[s.kernel]
    if isinstance(s, nodes.LibraryCall):
        return 50 + s.flops / 10
    if isinstance(s, nodes.HostCall):
        return 5000
    inside = sum(_block(block, known) for block in blocks(s))
    if isinstance(s, nodes.While):
        s.poll = 1 + inside
        return 1
    if isinstance(s, nodes.Loop):
        return _loop(s, inside)
    return inside + 0.3


def _loop(s: nodes.Loop, inside: float) -> float:
    """A loop inside a kernel is never looked at, so only the program's get polls that are written."""
    each = (inside + 1) / (4 if s.vector else 1)
    if not isinstance(s.extent, int):
        s.poll = each
        return 1
    if s.extent * each >= EVERY or has_polls(s.body):
        s.poll = each
    return s.extent * each


def has_polls(statements: Iterable[Any]) -> bool:
    """Whether a loop among these statements looks for signals."""
    around = (s for s in statements if type(s) in _AROUND)
    return any(getattr(s, "poll", 0) or any(map(has_polls, blocks(s))) for s in around)

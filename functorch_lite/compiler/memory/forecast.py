# SPDX-License-Identifier: MIT
"""What a program will need before it runs: the memory plan, told to its user."""

from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.nodes import Buffer
from functorch_lite.compiler.memory.plan import Plan


class LiveValue(NamedTuple):
    """A value in memory at the peak: its bytes, type and the user's line that made it."""

    bytes: int
    type: str
    source: str


class MemoryForecast(NamedTuple):
    """Bytes that one call needs; `peak` is their sum.

    arguments: the arrays passed in. captured: constants and arrays closed over. outputs: the arrays it returns.
    temporaries: the arena that holds everything in between. at_peak: the largest temporaries alive together when most
    are, the largest first.
    """

    peak: int
    arguments: int
    captured: int
    outputs: int
    temporaries: int
    at_peak: tuple[LiveValue, ...]

    def __str__(self):
        lines = [f"peak {_amount(self.peak)}: arguments {_amount(self.arguments)}, captured {_amount(self.captured)}, "
                 f"outputs {_amount(self.outputs)}, temporaries {_amount(self.temporaries)}"]
        lines += [f"  {_amount(v.bytes):>10} {v.type} from {v.source}" for v in self.at_peak]
        return "\n".join(lines)


def live_at_peak(plan: Plan, made: dict[Buffer, tuple[Any, Any]], most: int = 10) -> tuple[LiveValue, ...]:
    """The temporaries alive at the statement where they need most memory. made: type and source of each."""
    changes: dict[int, int] = {}
    for buffer, (first, last) in plan.lifetimes.items():
        changes[first] = changes.get(first, 0) + buffer.nbytes
        changes[last + 1] = changes.get(last + 1, 0) - buffer.nbytes
    now = best = at = 0
    for position in sorted(changes):
        now += changes[position]
        if now > best:
            best, at = now, position
    alive = [b for b, (first, last) in plan.lifetimes.items() if first <= at <= last]
    alive.sort(key=lambda b: -b.nbytes)
    found = []
    for buffer in alive[:most]:
        aval, source = made.get(buffer, (buffer, None))
        found.append(LiveValue(buffer.nbytes, str(aval), "the compiler" if source is None else str(source)))
    return tuple(found)


def _amount(n: float) -> str:
    for unit in ("B", "KB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"

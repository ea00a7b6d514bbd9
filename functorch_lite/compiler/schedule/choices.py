# SPDX-License-Identifier: MIT
"""What code generation may decide by the clock: which loops threads share, and whether long outputs are streamed.

The defaults are rules that follow from sizes alone, so a program gets the same code each time. `config(autotune=True)`
has candidates run instead (runtime/tuning.py). No choice changes a bit of a result.
"""

from dataclasses import dataclass

from functorch_lite.compiler.loop_ir.nodes import Function
from functorch_lite.compiler.schedule import parallel
from functorch_lite.compiler.schedule.parallel import Shared
from functorch_lite.compiler.schedule.streaming import streamed


@dataclass(frozen=True, slots=True)
class Choices:
    """worth_ns: how long a loop takes at least that threads share (None: `parallel.WORTH_NS`).

    streams: whether long outputs are written past the caches (schedule/streaming.py).
    """

    worth_ns: float | None = None
    streams: bool = True

    def __str__(self) -> str:
        if self == USUAL:
            return "as usual"
        worth = self.worth_ns
        shared = "" if worth is None else "no loop shared" if worth > 1e15 else f"loops of {worth / 1e3:g} us shared"
        return ", ".join(filter(None, [shared, "" if self.streams else "no output streamed"]))


USUAL = Choices()


def candidates(threads: int) -> list[Choices]:
    """What is tried for a program that this many threads may run: the usual first."""
    by_threads = [Choices(parallel.WORTH_NS / 4), Choices(1e18), Choices(1e18, streams=False)] if threads > 1 else []
    return [USUAL, Choices(streams=False), *by_threads]


def shared_loops(kernel: Function, choices: Choices = USUAL) -> dict[int, Shared]:
    """The loops of a kernel, by identity, that threads share, and what they stream."""
    loops = parallel.shared_loops(kernel, choices.worth_ns)
    streams = streamed(kernel, loops) if choices.streams and loops else {}
    return {key: shared._replace(streams=streams.get(key, ())) for key, shared in loops.items()}

# SPDX-License-Identifier: MIT
"""What may be decided by the clock: which loops threads share, whether long outputs are streamed, how products and
convolutions are cut (lowering/cutting.py).

The defaults are rules that follow from sizes alone, so a program gets the same code each time. `jit(f, autotune=True)`
has candidates run instead (runtime/tuning.py). No choice changes a bit of a result.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from functorch_lite.compiler.loop_ir.nodes import Function
from functorch_lite.compiler.lowering.cutting import AS_USUAL, OF_CONVOLUTIONS, OF_PRODUCTS, Cutting
from functorch_lite.compiler.schedule import parallel
from functorch_lite.compiler.schedule.parallel import Shared
from functorch_lite.compiler.schedule.streaming import streamed


@dataclass(frozen=True, slots=True)
class Choices:
    """worth_ns: how long a loop takes at least that threads share (None: `parallel.WORTH_NS`).

    streams: whether long outputs are written past the caches (schedule/streaming.py).
    cutting: how products and convolutions are cut.
    """

    worth_ns: float | None = None
    streams: bool = True
    cutting: Cutting = AS_USUAL

    def __str__(self) -> str:
        if self == USUAL:
            return "as usual"
        worth = self.worth_ns
        shared = "" if worth is None else "no loop shared" if worth > 1e15 else f"loops of {worth / 1e3:g} us shared"
        return ", ".join(filter(None, [shared, "" if self.streams else "no output streamed", str(self.cutting)]))


USUAL = Choices()
CONVOLUTION = "conv_general_dilated"
PRODUCTS = frozenset({"dot_general", CONVOLUTION})  # some convolutions are products


def candidates(threads: int) -> list[Choices]:
    """What is tried for a program that this many threads may run: the usual first."""
    by_threads = [Choices(parallel.WORTH_NS / 4), Choices(1e18), Choices(1e18, streams=False)] if threads > 1 else []
    return [USUAL, Choices(streams=False), *by_threads]


def cuttings(names: Set[str]) -> list[Cutting]:
    """What is tried for a program with operations of these names, those that are likely to gain first."""
    found = [*(OF_CONVOLUTIONS if CONVOLUTION in names else ()), *(OF_PRODUCTS if names & PRODUCTS else ())]
    return list(dict.fromkeys(found))


def shared_loops(kernel: Function, choices: Choices = USUAL) -> dict[int, Shared]:
    """The loops of a kernel, by identity, that threads share, and what they stream."""
    loops = parallel.shared_loops(kernel, choices.worth_ns)
    streams = streamed(kernel, loops) if choices.streams and loops else {}
    return {key: shared._replace(streams=streams.get(key, ())) for key, shared in loops.items()}


def choices_text(kernels: Sequence[Function], choices: Choices = USUAL) -> str:
    """Some choices, and which loops of some kernels threads then share: a line each."""
    lines = [str(choices)]
    for kernel in kernels:
        shared = shared_loops(kernel, choices)
        for loop in (s for s in parallel.every(kernel.body) if id(s) in shared):
            how = shared[id(loop)]
            streams = "".join(f", {b.name} streamed" for b in how.streams)
            lines.append(f"{kernel.name}: a loop of {loop.extent} shared, {how.grain} and more at a time{streams}")
    return "\n".join(lines)

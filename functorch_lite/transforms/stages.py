# SPDX-License-Identifier: MIT
"""Compilation seen from outside: what `f.lower(...)`, `.compile()` and `f.memory(...)` return.

    lowered = jit(f).lower(x)             # traced, not compiled
    lowered.as_text("optimized")          # the program after the passes; see `stages`
    compiled = lowered.compile()
    compiled.cost_analysis().flops
    compiled(x)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from functorch_lite import tree
from functorch_lite.compiler import pipeline
from functorch_lite.core.garbage import uncollected
from functorch_lite.core.program import Program
from functorch_lite.errors import ArgumentError, ArgumentTypeError


class Traced(NamedTuple):
    """A traced signature: its program, the arrays it captured, and how its leaves are put together."""

    program: Program
    captured: list[Any]
    in_tree: Any
    out_tree: Any
    flatten: Callable[..., tuple[list[Any], Any]]
    finish: Callable[[Sequence[Any]], Any]
    autotune: bool | None = None


class Lowered:
    """A function traced for one signature; `compile` makes it callable."""

    _executable: Any = None

    def __init__(self, traced: Traced):
        self._traced = traced

    @property
    def program(self) -> Program:
        """The program as traced."""
        return self._traced.program

    @property
    def stages(self) -> list[str]:
        """The names that `as_text` knows, in the order of compilation."""
        return pipeline.stage_names()

    def as_text(self, stage: str = "program") -> str:
        """The program at a stage of its compilation.

        Raises ArgumentError for a name that is not in `stages`.
        """
        if stage not in self.stages:
            raise ArgumentError(f"as_text: there is no stage {stage!r}. The stages are {', '.join(self.stages)}.")
        return pipeline.stage_text(self.program, stage, self._executable)

    def memory_analysis(self, *, jitted: bool = False) -> Any:
        """What a call will need, as a `MemoryForecast`; nothing is run, and no machine code made.

        jitted: a call of the jitted function, which runs quickly made code at first, instead of one that is compiled.
        """
        return pipeline.forecast(self.program, self._traced.captured, quick=jitted)

    def cost_analysis(self) -> Any:
        """Operations and bytes of a call, as a `Cost`."""
        return pipeline.cost(self.program)

    def compile(self) -> "Compiled":
        """The machine code."""
        return Compiled(self._traced)


class Compiled(Lowered):
    """A compiled function of one signature. Called with arguments of other types or structure it raises.

    `as_text("choices")` is what was decided for it; where it is tuned, with the times that its first call measured.
    """

    def __init__(self, traced: Traced):
        super().__init__(traced)
        with uncollected():
            self._executable = pipeline.compile(traced.program, autotune=traced.autotune)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, treedef = self._traced.flatten(args, kwargs)
        if treedef != self._traced.in_tree:
            raise ArgumentTypeError(
                f"a compiled function was called with arguments of another structure: {treedef}, "
                f"compiled for {self._traced.in_tree}. Lower and compile it for these, or call the jitted function."
            )
        wanted = self.program.in_avals[len(self._traced.captured) :]
        for leaf, aval in zip(leaves, wanted, strict=True):
            if leaf.shape != aval.shape or leaf.dtype != aval.dtype:
                raise ArgumentTypeError(
                    f"a compiled function was called with {leaf.dtype}{list(leaf.shape)} where it was compiled for "
                    f"{aval}. Lower and compile it for these arguments, or call the jitted function."
                )
        outs = self._executable(*self._traced.captured, *leaves)
        return tree.unflatten(self._traced.out_tree, self._traced.finish(outs))

# SPDX-License-Identifier: MIT
"""Epilogues: a group of element-wise equations that goes over a product's values while they are in the cache.

    for each job of the product                 a block of rows and columns that threads share (product_tiles)
      the register tiles of the block           sums go to memory: an output's, where one can hold them
      for each row, for each column (vector)    the epilogue: load the sum, compute the chain, store its results

The schedule decides what is fused (`schedule/epilogues.py`). Whoever writes the product says when a box of its values
is complete, by `box`; the rest is the lowering of any group. The tiles know nothing of it, so what a chain costs is one
more load and store of the first- or second-level cache, and its code is vectorized as elsewhere. Where a product's axes
and the chain's do not go together, all of the chain comes after all of the product.

The sums of a box are in working space of the job, if that is small. Else all sums are where the product itself is
wanted, or where a result of the chain of the same type will be, or in working space: if half precision is added up in
single, and if a result may take the place of an array that the program is given (an updated weight), which the tiles
would write over before the chain reads it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index
from functorch_lite.compiler.lowering.group import GroupLowering
from functorch_lite.compiler.lowering.group_key import group_key
from functorch_lite.compiler.lowering.rules import Element, kind_of, linear, strides_of, words
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.core.program import Var


class Span(NamedTuple):
    """Part of an axis of a box: its stride in the output, its elements, and the step from one to the next in sums."""

    stride: int
    count: int
    step: int = 0


class Epilogue(GroupLowering):
    """Writes the chain of a fused group into the kernel of its product.

    A writer of products asks `fits` once; if it says yes, it calls `box` when values are complete, until all are.
    """

    def __init__(self, group: Group, schedule: Schedule, stored: Sequence[Var]):
        assert group.chain is not None
        self.equations = group.equations
        self.equation = group.equations[0]
        self.product = self.equation.outputs[0]
        super().__init__("epilogue", group.chain, schedule, [v for v in stored if v is not self.product])
        self.keeps = self.product in stored
        self.results = [self.product] * self.keeps + self.stored
        self.complete = False
        self._sum: Element | None = None
        self._whole: Buffer | None = None
        self._sums: Buffer | None = None  # of the present box
        self._at: Index | None = None  # where the sum of the present element is, if not where it is in the output
        self._runs: list[tuple[int, int, int]] = []  # (stride of an axis of the product, position, steps of it)

    @property
    def adds(self) -> bool:
        """Whether the chain adds into memory that other boxes of the same columns add into too."""
        return bool(self.group.ends)

    def key(self) -> tuple[Any, list[Any]]:
        """What equal epilogues have in common (None: nothing is equal), and the arrays read besides the sums."""
        key, inputs = group_key(self.group, self.schedule, self.stored)
        sums = tuple(k for k, a in enumerate(inputs) if self._is_sum(a))
        rest = [a for a in inputs if not self._is_sum(a)]
        return None if key is None else (key, sums, self.keeps, self.is_apart()), rest

    def is_apart(self) -> bool:
        """Whether a result may be wanted in the place of an array that the program is given."""
        if not self.identical:
            self.find_inputs()
        return any(map(self._may_take, self.identical))

    def _may_take(self, source: Any) -> list[int]:
        """The results that may take the place of an array, if the program is given it."""
        if not self.identical[source] or self.schedule.root(source) not in self.schedule.program.inputs:
            return []
        return [k for k, v in enumerate(self.results) if v is not self.product and v not in self.group.ends
                and words(source.aval) == words(v.aval) and source.aval.dtype == v.aval.dtype]

    def takeovers(self, others: Sequence[Any]) -> list[tuple[int, int]]:
        """(source, result) by number where the result may take the memory of the source, as the chain reads it last."""
        if not self.identical:
            self.find_inputs()
        return [(2 + i, k) for i, source in enumerate(others) for k in self._may_take(source)]

    # --- the kernel -------------------------------------------------------------------------------------------------

    def begin(self, b: Builder) -> None:
        """Declare what the kernel reads and writes besides the operands of the product."""
        self.b, self.inputs = b, {}
        self.find_inputs()
        for k, var in enumerate(self.results):
            self.outputs[var] = b.output(f"out{k}", kind_of(var.aval.dtype) or "", words(var.aval))
        self._find_levels()
        self._start_ends()

    @property
    def sums(self) -> Buffer:
        """Memory for all sums, where the writer of the product leaves them; made when it is asked for."""
        if self._whole is None:
            self._whole = self._place_of_sums()
        return self._whole

    def holds_sums(self) -> bool:
        """Whether the product itself is wanted, and memory for it can have the sums."""
        return self.keeps and kind_of(self.product.aval.dtype) not in ("f16", "bf16")

    def _place_of_sums(self) -> Buffer:
        kind = kind_of(self.product.aval.dtype) or ""
        if kind in ("f16", "bf16"):
            return self.b.scratch("sums", "f32", words(self.product.aval))
        if self.keeps:
            return self.outputs[self.product]
        size = words(self.product.aval)
        found = [] if self.is_apart() else [b for v, b in self.outputs.items()
                                            if b.kind == kind and b.size == size and v not in self.group.ends]
        return found[0] if found else self.b.scratch("sums", kind, size)

    def finish(self) -> None:
        """Write the whole chain, where no boxes have been written."""
        if not self.complete:
            self._sums, self._at = self.sums, None
            rows, inner = self._loops()
            self._over([*rows, *inner], self._element)

    def _element(self) -> None:
        """Write the chain at the present position."""
        self._sum = None
        self._row([])
        if self.keeps and self.outputs[self.product] is not self._sums:
            self.b.store(self.outputs[self.product], self._here(), self._the_sum())

    # --- boxes ------------------------------------------------------------------------------------------------------

    def fits(self, strides: Sequence[int]) -> bool:
        """Whether boxes along axes with these strides in the output, all it has, can be written; if so they must be.

        Each axis must be whole axes of the chain's domain, which all that it reads and writes walks as one; the last
        must be in order.
        """
        domain = self.group.domain or ()
        own, walks = strides_of(domain), self._walks()
        runs, last = [], words(self.product.aval)
        for stride in sorted(strides, reverse=True):
            at = next(k for k, s in enumerate(own) if s <= stride)
            if stride % own[at]:
                return False
            for p in range(at, 0, -1):
                if own[p - 1] < last and (walks is None or any(w[p - 1] != w[p] * domain[p] for w in walks)):
                    return False
                if own[p - 1] >= last:
                    break
            runs.append((stride, at, stride // own[at]))
            last = stride
        self._runs = runs
        self.complete = last == 1
        return self.complete

    def box(self, at: Index, spans: Sequence[Span], sums: Buffer | None = None, start: Index = ZERO) -> None:
        """Write the chain for a box of complete values, from `at` of the output on.

        sums: where the tiles have left them, from `start` on, if not at the same place of `self.sums`.
        """
        self._sums = sums or self.sums
        self._at = None if self._sums is self._whole else start
        self._go_to(at)
        self._along(sorted(spans, reverse=True))
        self.position = [ZERO] * len(self.position)

    def _along(self, spans: Sequence[Span]) -> None:
        if not spans:
            self._element()
            return
        span, rest = spans[0], spans[1:]
        with self.b.loop(span.count, vector=span.stride == 1) as i:
            before = list(self.position), self._at
            self._move(i, span.stride)
            self._at = self._at + i * span.step if self._at is not None else None
            self._along(rest)
            self.position, self._at = before

    def _go_to(self, at: Index) -> None:
        """Have the position be that of an element of the output."""
        left = at.constant
        for stride, _, _ in self._runs:
            self._move(Index(left // stride), stride)
            left %= stride
        for value, step in at.terms:
            stride = next(s for s, _, _ in self._runs if s <= step)
            self._move(Index.of(value) * (step // stride), stride)

    def _move(self, by: Index, along: int) -> None:
        position, steps = next((p, n) for s, p, n in self._runs if s == along)
        self.position[position] = self.position[position] + by * steps

    # --- reading ----------------------------------------------------------------------------------------------------

    def is_given(self, source: Any) -> bool:
        return self._is_sum(source)

    def _is_sum(self, atom: Any) -> bool:
        return self.schedule.root(atom) is self.product

    def load(self, atom: Any, at: Index) -> Element:
        """The element at a position of an array in memory; of the product, what the tiles have left."""
        return self._the_sum() if self._is_sum(atom) else super().load(atom, at)

    def _the_sum(self) -> Element:
        if self._sum is None:
            kind = kind_of(self.product.aval.dtype)
            assert self._sums is not None
            at = self._here() if self._at is None else self._at
            self._sum = self.b.op("convert", self.b.load(self._sums, at), kind=kind)
        return self._sum

    def _here(self) -> Index:
        return linear(self.position, self.group.domain or ())


def reads_given(schedule: Schedule, group: Group, source: Var) -> bool:
    """Whether the product of a fused group reads an array."""
    operands = group.equations[0].inputs
    return any(schedule.root(s) is source for a in operands for s in schedule.sources(a))

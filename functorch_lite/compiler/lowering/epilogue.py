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

A chain that reduces the rows of a product (their maximum, a softmax, a norm) goes over whole rows, where one job has
them, in as many passes as elsewhere. One that reduces all of it (a loss) leaves a part for each of some rows, whoever
computes them, and the parts are combined in order in the end: any number of threads gives the same bits.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder, identity
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.cutting import Cutting
from functorch_lite.compiler.lowering.group_key import group_key
from functorch_lite.compiler.lowering.prologue import Prologue, wide_kind
from functorch_lite.compiler.lowering.rules import Element, kind_of, layout, reduction_rules, words
from functorch_lite.compiler.lowering.tiles import even_cuts
from functorch_lite.compiler.lowering.walked_group import WalkedGroup
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.core.program import Equation, Var

ROWS_OF_A_PART = 32  # of a product, for a sum of all of it


class Span(NamedTuple):
    """Part of an axis of a box: its stride in the output, its elements, and the step from one to the next in sums."""

    stride: int
    count: int
    step: int = 0


class Epilogue(WalkedGroup):
    """Writes the chain of a fused group into the kernel of its product.

    A writer of products asks `fits` once; if it says yes, it calls `box` when values are complete, until all are.
    """

    def __init__(self, group: Group, schedule: Schedule, stored: Sequence[Var]):
        assert group.chain is not None and group.product is not None
        self.prologues = group.prologues
        self.equations = group.equations
        self.equation = group.product
        self.product = self.equation.outputs[0]
        super().__init__("epilogue", group.chain, schedule, [v for v in stored if v is not self.product])
        self.keeps = self.product in stored
        self.results = [self.product] * self.keeps + self.stored
        self.complete = False
        self._step = 0  # of columns in the sums, where `_at` is the beginning of a row
        self._parts_of: list[tuple[Equation, str, Buffer]] = []  # reductions of everything, how they combine, parts
        self._whole: Buffer | None = None
        self._sums: Buffer | None = None  # of the present box
        self._at: Index | None = None  # where the sum of the present element is, if not where it is in the output

    @property
    def adds(self) -> bool:
        """Whether the chain adds into memory that other boxes of the same columns add into too."""
        return bool(self.group.ends)

    def cutting(self, wanted: Cutting) -> Cutting:
        """How the product may be cut where it is wanted so: the order of what is added up goes by jobs and boxes."""
        if self.is_total:
            return Cutting(looped=wanted.looped)
        return Cutting(short=wanted.short, looped=wanted.looped) if self.adds else wanted

    def prologue(self, operand: Any) -> Prologue | None:
        """The prologue that computes an operand of the product, if there is one."""
        root = self.schedule.root(operand)
        found = self.prologues.get(root)
        return None if found is None else Prologue(found, self.schedule, root)

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
        given = self.schedule.root(source) in self.schedule.given
        if self.whole_rows or not self.identical[source] or not given:
            return []
        return [k for k, v in enumerate(self.results) if v is not self.product and v not in self.group.ends
                and words(source.aval) == words(v.aval) and source.aval.dtype == v.aval.dtype]

    def takeovers(self, others: Sequence[Any], first: int) -> list[tuple[int, int]]:
        """(source, result) by number where the result may take the memory of the source, as the chain reads it last.

        first: the number of the first of the other sources.
        """
        if not self.identical:
            self.find_inputs()
        return [(first + i, k) for i, source in enumerate(others) for k in self._may_take(source)]

    # --- the kernel -------------------------------------------------------------------------------------------------

    def begin(self, b: Builder) -> None:
        """Declare what the kernel reads and writes besides the operands of the product."""
        self.b, self.inputs = b, {}
        self.find_inputs()
        for k, var in enumerate(self.results):
            self.outputs[var] = b.output(f"out{k}", *layout(var.aval))
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
        found = [] if self.is_apart() or self.group.reduced is not None else [b for v, b in self.outputs.items()
                                            if b.kind == kind and b.size == size and v not in self.group.ends]
        return found[0] if found else self.b.scratch("sums", kind, size)

    def finish(self) -> None:
        """Write the whole chain, where no boxes have been written."""
        if self._parts_of:
            self._combine_parts()
        if self.complete:
            return
        self._sums, self._at = self.sums, None
        rows, inner = self._loops()
        if not self.whole_rows:
            self._over([*rows, *inner], self._element)
            return
        self._over(rows, lambda: self._row(inner))
        if self.keeps:
            self._over([*rows, *inner], self._keep_product)

    def _element(self) -> None:
        """Write the chain at the present position."""
        self._row([])
        self._keep_product()

    def _keep_product(self) -> None:
        """Write the product itself at the present position, if it is wanted and not there."""
        if self.keeps and self.outputs[self.product] is not self._sums:
            self.pass_values = {}
            self.b.store(self.outputs[self.product], self.here(), self._the_sum())

    # --- boxes ------------------------------------------------------------------------------------------------------

    def fits(self, strides: Sequence[int]) -> bool:
        """Whether boxes along axes with these strides in the output, all it has, can be written; if so they must be.

        Each axis must be whole axes of the chain's domain, which all that it reads and writes walks as one; the last
        must be in order.
        """
        if not self.makers and self.holds_sums():
            self.complete = True
            return False
        self.complete = self.follows(strides, words(self.product.aval))
        if self.complete and self.is_total:
            self._begin_parts(self.row_size)
        return self.complete

    @property
    def whole_rows(self) -> bool:
        """Whether a box must have whole rows of the product."""
        return self.group.reduced is not None

    @property
    def row_size(self) -> int:
        """The columns of the product."""
        return self.product.aval.shape[-1]

    @property
    def is_total(self) -> bool:
        """Whether all of the product is reduced."""
        return self.group.reduced is not None and len(self.group.reduced) == len(self.group.domain or ())

    def box(self, at: Index, spans: Sequence[Span], sums: Buffer | None = None, start: Index = ZERO) -> None:
        """Write the chain for a box of complete values, from `at` of the output on.

        sums: where the tiles have left them, from `start` on, if not at the same place of `self.sums`.
        """
        self._sums = sums or self.sums
        self._at = None if self._sums is self._whole else start
        self.go_to(at)
        spans = sorted(spans, reverse=True)
        if self.is_total:
            self._total(at, spans)
        elif self.whole_rows:
            self._step = spans[-1].step
            self._along(spans[:-1])
        else:
            self._along(spans)
        self._step = 0
        self.position = [ZERO] * len(self.position)

    def _along(self, spans: Sequence[Span]) -> None:
        if not spans:
            self._whole_row() if self.whole_rows else self._element()
            return
        span, rest = spans[0], spans[1:]
        with self.b.loop(span.count, vector=span.stride == 1) as i:
            before = list(self.position), self._at
            self.move(i, span.stride)
            self._at = self._at + i * span.step if self._at is not None else None
            self._along(rest)
            self.position, self._at = before

    # --- reductions -------------------------------------------------------------------------------------------------

    def _whole_row(self) -> None:
        """Write the chain for a row, in its passes."""
        last = len(self.group.domain or ()) - 1
        self._row([(last, self.row_size)])
        if self.keeps:
            self._over([(last, self.row_size)], self._keep_product)

    def _begin_parts(self, columns: int) -> None:
        """Working space for the parts of a sum of everything: each row has a place, the first of some uses it."""
        for equation in self.group.equations:
            if equation.prim in reduction_rules:
                kind, combine = wide_kind(equation.outputs[0].aval.dtype), reduction_rules[equation.prim].combine
                parts = self.b.scratch(f"parts{len(self._parts_of)}", kind, words(self.product.aval) // columns)
                start = self.b.constant(identity(combine, kind), kind)
                with self.b.loop(parts.size, vector=True) as i:
                    self.b.store(parts, i, start)
                self._parts_of.append((equation, combine, parts))

    def _total(self, at: Index, spans: Sequence[Span]) -> None:
        """Write the chain for a box, and what it adds to the reductions."""
        *outer, columns = spans
        rows = outer[-1] if outer else Span(0, 1)
        for cut in even_cuts(rows.count, ROWS_OF_A_PART):
            with self.b.loop(cut.count) as i:
                first = i * cut.size + cut.start
                before = list(self.position), self._at
                self._move_by(first, rows)
                self._some_rows(at + first * rows.stride, rows._replace(count=cut.size), columns)
                self.position, self._at = before

    def _some_rows(self, at: Index, rows: Span, columns: Span) -> None:
        """The part of some rows: as one row, if all that is read walks them so, else each lane along its column."""
        if self._is_flat() and rows.step == columns.step * columns.count:
            rows, columns = Span(0, 1), columns._replace(count=rows.count * columns.count)
        starts = [self.b.constant(identity(c, parts.kind), parts.kind) for _, c, parts in self._parts_of]
        combines = [c for _, c, _ in self._parts_of]

        def along_columns(j: Index, *totals: Value) -> list[Value]:
            before = list(self.position), self._at
            self._move_by(j, columns)
            found = self.b.reduce(rows.count, starts, along_rows) if rows.count > 1 else self._values_here()
            self.position, self._at = before
            return [self.b.op(c, t, v) for c, t, v in zip(combines, totals, found, strict=True)]

        def along_rows(i: Index, *totals: Value) -> list[Value]:
            before = list(self.position), self._at
            self._move_by(i, rows)
            found = self._values_here()
            self.position, self._at = before
            return [self.b.op(c, t, v) for c, t, v in zip(combines, totals, found, strict=True)]

        totals = self.b.reduce(columns.count, starts, along_columns, combine=combines, vector=True)
        place = Index(at.constant // self.row_size, tuple((v, c // self.row_size) for v, c in at.terms))
        for (_, _, parts), total in zip(self._parts_of, totals, strict=True):
            self.b.store(parts, place, total)

    def _is_flat(self) -> bool:
        """Whether all that is read and written walks rows, one after the other, as one."""
        return len(self._merged(range(len(self.group.domain or ())), self._walks())) == 1

    def _move_by(self, by: Index, span: Span) -> None:
        if span.stride:
            self.move(by, span.stride)
            self._at = self._at + by * span.step if self._at is not None else None

    def _values_here(self) -> list[Value]:
        """Write what is stored at the present position; the values that are reduced."""
        self.stage, self.rows, self.pass_values = 0, {}, {}
        full = len(self.group.domain or ())
        stored = [e.outputs[0] for e in self.group.equations
                  if e.outputs[0] in self.outputs and e.prim not in reduction_rules and self._needs_pass(e, full)]
        self._compute(stored, [e for e, _, _ in self._parts_of])
        for var in stored:
            self.put(var, self.value(var))
        found = [v for e, _, _ in self._parts_of for v in self._parts(e)]
        self._keep_product()
        return found

    def _combine_parts(self) -> None:
        """Combine the parts in order, and write what is computed of the results."""
        self.rows, self.pass_values = {}, {}
        for equation, combine, parts in self._parts_of:
            start = self.b.constant(identity(combine, parts.kind), parts.kind)
            (total,) = self.b.reduce(
                parts.size, [start], lambda i, t, c=combine, p=parts: [self.b.op(c, t, self.b.load(p, i))],
                combine=[combine], vector=True)
            out = equation.outputs[0]
            self.rows[out] = self.b.op("convert", total, kind=kind_of(out.aval.dtype))
        full = len(self.group.domain or ())
        once = [e for e in self.group.equations if self._is_wanted(e) and e.prim in reduction_rules
                or self._is_wanted(e) and not self._needs_pass(e, full)]
        self.stage = max(self.levels.values())
        self._finish(once)

    # --- reading ----------------------------------------------------------------------------------------------------

    def is_given(self, source: Any) -> bool:
        return self._is_sum(source)

    def _is_sum(self, atom: Any) -> bool:
        return self.schedule.root(atom) is self.product

    def load(self, atom: Any, at: Index) -> Element:
        """The element at a position of an array in memory; of the product, what the tiles have left."""
        return self._the_sum() if self._is_sum(atom) else super().load(atom, at)

    def _the_sum(self) -> Element:
        found = self.pass_values.get(self.product)
        if found is None:
            kind = kind_of(self.product.aval.dtype)
            assert self._sums is not None
            at = self.here() if self._at is None else self._at
            if self._step and self._at is not None:
                at = at + self.position[-1] * self._step
            found = self.pass_values[self.product] = self.b.op("convert", self.b.load(self._sums, at), kind=kind)
        return found


def reads_given(schedule: Schedule, group: Group, source: Var) -> bool:
    """Whether the product of a fused group, or a prologue of it, reads an array."""
    before = [e for g in group.prologues.values() for e in g.equations]
    equations = [*before, group.product] if group.product is not None else before
    return any(schedule.root(s) is source for e in equations for a in e.inputs for s in schedule.sources(a))

# SPDX-License-Identifier: MIT
"""A group of fused equations as one kernel.

The domain's positions that are not reduced are loops over rows; inside, one pass over the row for each stage: a value
that needs a reduction's result is of a later stage than what was reduced. The last position is the vector loop.
Values are computed where they are read, and kept: the builder finds them again. What is costly and needed by a later
pass is kept in memory for one row.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite.compiler.loop_ir.builder import Builder, identity
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Function, Index, Value
from functorch_lite.compiler.lowering.next_row import fetch_next_rows
from functorch_lite.compiler.lowering.rules import (
    Element,
    Pair,
    Point,
    elementwise_rules,
    is_complex,
    kind_of,
    layout,
    linear,
    load_element,
    movement_rules,
    reduction_rules,
    store_element,
    strides_of,
    words,
)
from functorch_lite.compiler.schedule.fusion import LARGE, Group, Schedule, is_number
from functorch_lite.compiler.schedule.joined import JOINING, part_at
from functorch_lite.compiler.schedule.prologues import CHEAP
from functorch_lite.core.program import Equation, Literal, Var

ROW_SCRATCH_BYTES = 32 << 10


class GroupLowering:
    """Builds the kernel of one group. `stored` are the values that others read; they become outputs, in order."""

    def __init__(self, name: str, group: Group, schedule: Schedule, stored: Sequence[Var]):
        assert group.domain is not None
        self.b = Builder(name)
        self.group = group
        self.schedule = schedule
        self.stored = list(stored)
        self.makers = {e.outputs[0]: e for e in group.equations}
        self.inputs: dict[Any, Buffer] = {}
        self.prefix = "x"  # of their names
        self.identical: dict[Any, bool] = {}  # inputs read only where the kernel is, so an output may take their place
        self.outputs: dict[Var, Buffer] = {}
        self.kept: dict[Var, Buffer] = {}
        self.position: list[Index] = [ZERO] * len(group.domain)
        self.rows: dict[Var, Element] = {}  # values known once a row
        self.pass_values: dict[Var, Element] = {}
        self.stage = 0
        self.adds_rows = False
        self.levels: dict[Var, int] = {}

    # --- the kernel -------------------------------------------------------------------------------------------------

    def build(self) -> Function:
        """The kernel: parameters are the arrays it reads, then `stored`."""
        self.find_inputs()
        for var in self.stored:
            self.outputs[var] = self.b.output(f"out{len(self.outputs)}", *layout(var.aval))
        self._find_levels()
        self._choose_rows()
        self._start_ends()
        if self.group.cuts:
            self._in_pieces(0)
        else:
            rows, inner = self._loops()
            self._over(rows, lambda: self._row(inner))
        function = self.b.finish()
        fetch_next_rows(function)
        return function

    def find_inputs(self) -> None:
        """Find the arrays that the kernel reads, and which of them only at its own position."""
        for equation in self.group.equations:
            for atom in equation.inputs:
                base, found = self.schedule.base(atom) if not is_number(atom) else (None, None)
                for source in self.schedule.sources(atom):
                    if source in self.makers or self.is_given(source):
                        continue
                    same = found is not None and source is base and found.whole and self._walks_all(atom, base, found)
                    self.identical[source] = same and self.identical.get(source, True)
                    if source not in self.inputs:
                        self.inputs[source] = self.b.input(
                            f"{self.prefix}{len(self.inputs)}", *layout(source.aval))

    def is_given(self, source: Any) -> bool:
        """Whether an array that is read is not a parameter of the kernel."""
        return False

    def _walks_all(self, atom, base, found) -> bool:
        """Whether an operand is read at the kernel's own position, in its own order, all of it."""
        shape = tuple(n for n in base.aval.shape if n != 1)
        axes = [a for a, n in zip(found.axes, base.aval.shape, strict=True) if n != 1]
        return shape == self.group.domain and axes == sorted(axes)

    def _find_levels(self) -> None:
        for equation in self.group.equations:
            out = equation.outputs[0]
            level = max((self._level(a) for a in equation.inputs), default=0)
            row = equation.prim in reduction_rules and out not in self.group.ends
            self.levels[out] = level + 1 if row else level

    def _level(self, atom) -> int:
        if is_number(atom):
            return 0
        found = self.levels.get(atom)
        if found is not None:
            return found
        equation = self.schedule.movement.get(atom)
        return max((self._level(a) for a in equation.inputs), default=0) if equation is not None else 0

    def _start_ends(self) -> None:
        """Memory that rows add into starts with what changes nothing."""
        for equation in self.group.equations:
            out = equation.outputs[0]
            if out not in self.group.ends:
                continue
            combine = reduction_rules[equation.prim].combine
            start = self.b.constant(identity(combine, _kind(out)), _kind(out))
            with self.b.loop(words(out.aval), vector=True) as i:
                self.b.store(self.outputs[out], i, start)

    # --- loops ------------------------------------------------------------------------------------------------------

    def _loops(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(position, extent) of loops over rows, and inside one. Neighbours that all accesses walk as one are one."""
        domain = self.group.domain or ()
        rows = self.group.rows()
        inner = tuple(d for d in range(len(domain)) if d not in rows)
        if self.adds_rows:
            rows, inner = tuple(range(len(domain))), ()
        walks = self._walks()
        return self._merged(rows, walks), self._merged(inner, walks)

    def _choose_rows(self) -> None:
        """Sums down the columns of a large array add whole rows into memory, so that it is read in order."""
        domain = self.group.domain or ()
        size = 1
        for n in domain:
            size *= n
        reductions = [e for e in self.group.equations if self._is_row_reduction(e)]
        after = [e for e in self.group.equations if self.levels[e.outputs[0]] and e not in reductions]
        narrow = any(_kind(e.outputs[0]) in ("f16", "bf16") or is_complex(e.outputs[0].aval.dtype) for e in reductions)
        if self._row_is_vector() or not reductions or after or narrow or size < LARGE:
            return
        self.adds_rows = True
        self.group.ends |= {e.outputs[0] for e in reductions}
        self.levels = dict.fromkeys(self.levels, 0)

    def _merged(self, positions: Sequence[int], walks: set[tuple[int, ...]] | None) -> list[tuple[int, int]]:
        domain = self.group.domain or ()
        loops: list[tuple[int, int]] = []
        for p in positions:
            if loops and walks is not None and loops[-1][0] == p - 1:
                if all(w[p - 1] == w[p] * domain[p] for w in walks):
                    loops[-1] = (p, loops[-1][1] * domain[p])
                    continue
            loops.append((p, domain[p]))
        return loops

    def _walks(self) -> set[tuple[int, ...]] | None:
        """How far each access moves in memory for a step of each position; None if one has no such steps."""
        found: set[tuple[int, ...]] = set()
        for equation in self.group.equations:
            out = equation.outputs[0]
            if out in self.outputs:
                found.add(self._own_walk(out))
            shape = self._shape_at(equation)
            axes = self._axes_at(equation)
            for atom in equation.inputs:
                if is_number(atom) or atom in self.makers:
                    continue
                base, through = self.schedule.base(atom)
                if base in self.makers:
                    continue
                if through is None or base in self.schedule.movement:
                    return None
                place = dict(zip([d for d, n in enumerate(shape) if n != 1], axes, strict=True))
                walk = [0] * len(self.group.domain or ())
                for axis, step, stride in zip(through.axes, through.steps, strides_of(base.aval.shape), strict=True):
                    if axis in place:
                        walk[place[axis]] += step * stride
                found.add(tuple(walk))
        return found

    def _own_walk(self, var: Var) -> tuple[int, ...]:
        walk = [0] * len(self.group.domain or ())
        strides = [s for s, n in zip(strides_of(var.aval.shape), var.aval.shape, strict=True) if n != 1]
        for axis, stride in zip(self.group.axes[var], strides, strict=True):
            walk[axis] = stride
        return tuple(walk)

    def _shape_at(self, equation: Equation) -> tuple[int, ...]:
        """The shape at whose positions an equation reads its operands."""
        of = equation.inputs[0] if equation.prim in reduction_rules else equation.outputs[0]
        return of.aval.shape

    def _axes_at(self, equation: Equation) -> tuple[int, ...]:
        if equation.prim not in reduction_rules:
            return self.group.axes[equation.outputs[0]]
        domain = self.group.domain or ()
        n = sum(1 for k in self._shape_at(equation) if k != 1)
        return tuple(range(n)) if n == len(domain) else self.group.rows()

    def _over(self, loops: list[tuple[int, int]], body: Callable[[], None]) -> None:
        """Run the body at every position of nested loops."""
        if not loops:
            body()
            return
        (position, extent), rest = loops[0], loops[1:]
        with self.b.loop(extent, vector=self._is_vector(position)) as i:
            self.position[position] = i
            self._over(rest, body)
            self.position[position] = ZERO

    def _in_pieces(self, position: int) -> None:
        """Run at every position of the domain, in pieces in each of which one part of a concatenation is read."""
        domain = self.group.domain or ()
        if position == len(domain):
            self._row([])
            return
        ends = [0, *self.group.cuts[position], domain[position]]
        for start, end in itertools.pairwise(ends):
            with self.b.loop(end - start, vector=self._is_vector(position)) as i:
                self.position[position] = i + start
                self._in_pieces(position + 1)
        self.position[position] = ZERO

    def _is_vector(self, position: int) -> bool:
        return position == len(self.group.domain or ()) - 1

    # --- a row ------------------------------------------------------------------------------------------------------

    def _row(self, inner: list[tuple[int, int]]) -> None:
        self.rows = {}
        full = len(self.group.domain or ())
        last = max(self.levels.values(), default=0)
        for self.stage in range(last + 1):
            self.pass_values = {}
            here = [e for e in self.group.equations if self._at_stage(e)]
            reductions = [e for e in here if self._is_row_reduction(e)]
            passing = [e for e in here if e not in reductions and self._needs_pass(e, full) and self._is_wanted(e)]
            if inner and (reductions or passing):
                self._pass(inner, reductions, passing)
            elif not inner:
                for e in reductions:  # over nothing but axes of one element
                    self.rows[e.outputs[0]] = self.read(e.inputs[0], self._index_of(e.inputs[0], e))
                self._finish(passing)
            self._finish([e for e in here if e not in passing and self._is_wanted(e)])

    def _at_stage(self, equation: Equation) -> bool:
        level = self.levels[equation.outputs[0]]
        return level - 1 == self.stage if self._is_row_reduction(equation) else level == self.stage

    def _is_row_reduction(self, equation: Equation) -> bool:
        return equation.prim in reduction_rules and equation.outputs[0] not in self.group.ends

    def _needs_pass(self, equation: Equation, full: int) -> bool:
        return len(self._axes_at(equation)) == full and bool(self.group.reduced)

    def _is_wanted(self, equation: Equation) -> bool:
        out = equation.outputs[0]
        return out in self.outputs or out in self.group.ends or self._is_costly_later(equation)

    def _is_costly_later(self, equation: Equation) -> bool:
        """Whether a later pass over the row needs a value that this one computes at some cost."""
        out = equation.outputs[0]
        if not self.group.reduced or self._is_row_reduction(equation) or equation.prim.name in CHEAP:
            return False
        if len(self.group.axes[out]) < len(self.group.domain or ()) or not self._row_is_vector():
            return False
        used = any(out in self._reads(e) and self._read_at(e) > self.levels[out] for e in self.group.equations)
        return used and self._row_size() * ITEM_BYTES[_kind(out)] <= ROW_SCRATCH_BYTES

    def _reads(self, equation: Equation) -> list[Any]:
        return [s for atom in equation.inputs for s in self.schedule.sources(atom)]

    def _read_at(self, equation: Equation) -> int:
        level = self.levels[equation.outputs[0]]
        return level - 1 if self._is_row_reduction(equation) else level

    def _row_is_vector(self) -> bool:
        return len(self.group.domain or ()) - 1 in (self.group.reduced or ())

    def _row_size(self) -> int:
        size = 1
        for d in self.group.reduced or ():
            size *= (self.group.domain or ())[d]
        return size

    def _finish(self, equations: list[Equation]) -> None:
        """Write what belongs at this position. All is computed first: an output may take the place of an input."""
        ends = [e for e in equations if e.outputs[0] in self.group.ends]
        values = [e.outputs[0] for e in equations if e.outputs[0] not in self.group.ends]
        self._compute(values, ends)
        for equation in ends:
            self._add_to_end(equation)
        for var in values:
            if var not in self.kept:
                self._keep(var)

    def _keep(self, var: Var) -> None:
        """Compute a value at the present position and write it to memory."""
        element = self.value(var)
        if var in self.outputs:
            self.put(var, element)
        else:
            if var not in self.kept:
                self.kept[var] = self.b.local(f"row{len(self.kept)}", _kind(var),
                                              self._row_size() * (2 if is_complex(var.aval.dtype) else 1))
            store_element(self.b, self.kept[var], self._row_position(), element)

    def put(self, var: Var, element: Element) -> None:
        """Write an element of an output at the present position."""
        store_element(self.b, self.outputs[var], self._own_position(var), element)

    def load(self, atom: Any, at: Index) -> Element:
        """The element at a position of an array in memory."""
        return load_element(self.b, self.inputs[atom], at, atom.aval.dtype)

    def _own_position(self, var: Var) -> Index:
        return linear(self._index(var.aval.shape, self.group.axes[var]), var.aval.shape)

    def _row_position(self) -> Index:
        domain = self.group.domain or ()
        reduced = self.group.reduced or ()
        return linear([self.position[d] for d in reduced], [domain[d] for d in reduced])

    def _index(self, shape: Sequence[int], axes: Sequence[int]) -> list[Index]:
        own = iter(axes)
        return [ZERO if n == 1 else self.position[next(own)] for n in shape]

    def _index_of(self, atom: Any, equation: Equation) -> list[Index]:
        return self._index(self._shape_at(equation), self._axes_at(equation))

    def _pass(self, inner, reductions: list[Equation], passing: list[Equation]) -> None:
        """One pass over the row: write what passes, and reduce."""
        starts, combines = [], []
        for equation in reductions:
            out, rule = equation.outputs[0], reduction_rules[equation.prim]
            kind = _wide(_kind(out))
            for _ in range(2 if is_complex(out.aval.dtype) else 1):
                starts.append(self.b.constant(identity(rule.combine, kind), kind))
                combines.append(rule.combine)

        def body(totals):
            self._compute([e.outputs[0] for e in passing if e.outputs[0] not in self.group.ends], reductions)
            for equation in passing:
                if equation.outputs[0] in self.group.ends:
                    self._add_to_end(equation)
                else:
                    self._keep(equation.outputs[0])
            values = [v for e in reductions for v in self._parts(e)]
            return [self.b.op(c, t, v) for c, t, v in zip(combines, totals, values, strict=True)]

        totals = self._reduce_over(inner, starts, combines, body)
        self.pass_values = {}
        for equation in reductions:
            out = equation.outputs[0]
            count = 2 if is_complex(out.aval.dtype) else 1
            parts = [self.b.op("convert", t, kind=_kind(out)) for t in totals[:count]]
            totals = totals[count:]
            self.rows[out] = Pair(*parts) if count == 2 else parts[0]

    def _parts(self, equation: Equation) -> list[Value]:
        element = self.read(equation.inputs[0], self._index_of(equation.inputs[0], equation))
        parts = list(element) if isinstance(element, Pair) else [element]
        return [self.b.op("convert", v, kind=_wide(v.kind)) for v in parts]

    def _reduce_over(self, loops, starts, combines, body) -> list[Value]:
        (position, extent), rest = loops[0], loops[1:]

        def run(i, *totals):
            self.position[position] = i
            found = self._reduce_over(rest, totals, combines, body) if rest else body(totals)
            self.position[position] = ZERO
            return found

        vector = self._is_vector(position)
        if not starts:
            with self.b.loop(extent, vector=vector) as i:
                run(i)
            return []
        return self.b.reduce(extent, starts, run, combine=combines, vector=vector)

    def _add_to_end(self, equation: Equation) -> None:
        """Add the present value into the result of a reduction that ends with the kernel."""
        out = equation.outputs[0]
        shape, axes = self._shape_at(equation), self._axes_at(equation)
        element = self.read(equation.inputs[0], self._index(shape, axes))
        at = linear(self._index(out.aval.shape, self.group.axes[out]), out.aval.shape)
        buffer = self.outputs[out]
        combine = reduction_rules[equation.prim].combine
        self.b.store(buffer, at, self.b.op(combine, self.b.load(buffer, at), element))

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, atom: Any, index: Sequence[Index]) -> Element:
        """The element of a value at an index of it."""
        if is_number(atom):
            return literal_element(self.b, atom)
        if atom in self.makers:
            return self.value(atom)
        equation = self.schedule.movement.get(atom)
        if equation is None:
            return self.load(atom, linear(index, atom.aval.shape))
        if equation.prim in JOINING:
            return self.read(*part_at(equation, index))
        point = Point(self.b, [a.aval for a in equation.inputs], atom.aval)
        reads = [lambda at, a=a: self.read(a, at if a.aval.shape else ()) for a in equation.inputs]
        return movement_rules[equation.prim](point, reads, index, **equation.params)

    def _compute(self, wanted: Sequence[Var], readers: Sequence[Equation]) -> None:
        """Compute what is wanted, and what readers read, in the order of the equations: no recursion runs deep."""
        needed = {s for e in readers for s in self._reads(e)} | set(wanted)
        for equation in reversed(self.group.equations):
            out = equation.outputs[0]
            if out in needed and equation.prim in elementwise_rules and not self._is_in_memory(out):
                needed.update(self._reads(equation))
        for equation in self.group.equations:
            if equation.outputs[0] in needed and equation.prim in elementwise_rules:
                self.value(equation.outputs[0])

    def value(self, var: Var) -> Element:
        """A value of the group at the present position."""
        found = self.rows.get(var)
        if found is None:
            found = self.pass_values.get(var)
        if found is not None:
            return found
        equation = self.makers[var]
        if self._is_in_memory(var):
            buffer = self.outputs.get(var) or self.kept[var]
            at = self._own_position(var) if var in self.outputs else self._row_position()
            element = load_element(self.b, buffer, at, var.aval.dtype)
        else:
            shape, axes = equation.outputs[0].aval.shape, self.group.axes[var]
            point = Point(self.b, [a.aval for a in equation.inputs], var.aval)
            index = self._index(shape, axes)
            values = [self.read(a, index if a.aval.shape else ()) for a in equation.inputs]
            element = elementwise_rules[equation.prim](point, *values, **equation.params)
        row = bool(self.group.reduced) and len(self.group.axes[var]) < len(self.group.domain or ())
        (self.rows if row else self.pass_values)[var] = element
        return element

    def _is_in_memory(self, var: Var) -> bool:
        """Whether an earlier pass over this row has written the value."""
        return self.levels[var] < self.stage and (var in self.outputs or var in self.kept) and bool(
            self.group.reduced) and len(self.group.axes[var]) == len(self.group.domain or ())


def literal_element(b: Builder, literal: Literal) -> Element:
    """A constant of one element."""
    value = literal.value
    kind = kind_of(literal.aval.dtype)
    assert kind is not None
    item = value.reshape(())[()] if literal.aval.shape else value
    if is_complex(literal.aval.dtype):
        item = complex(item)
        return Pair(b.constant(item.real, kind), b.constant(item.imag, kind))
    return b.constant(item, kind)


def _kind(atom) -> str:
    kind = kind_of(atom.aval.dtype)
    assert kind is not None
    return kind


def _wide(kind: str) -> str:
    return "f32" if kind in ("f16", "bf16") else kind

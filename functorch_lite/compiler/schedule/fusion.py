# SPDX-License-Identifier: MIT
"""Fusion: which equations become one kernel. The whole policy is on this page.

- An element-wise equation joins a group of the same domain (its shape without axes of size 1) that computes one of its
  operands, or reads one of them, if no path between the two leads through another kernel. Groups that meet in an
  equation become one, so an optimizer's updates of one array are one loop.
- A movement operation (broadcast, permute, slice, flip, reshape) is never run: who reads it reads its operand through
  an index map. One that merges or splits axes is another name for its operand's memory. What no index map says
  (concatenate, pad) is a kernel of its own; but one that a single element-wise group reads is read in place, by pieces
  of the group's domain (schedule/joined.py).
- A gather that cannot fail, and that few equations read, all element-wise, is read through its indices as well.
- A reduction joins the group that computes its operand. The axes it reduces split the group's domain into rows and
  what is inside a row; all reductions of a group share the split. What is computed from its result, once a row, and
  what spreads that over the row again, joins too: softmax and layer norm are one kernel, with as many passes over a
  row (in cache) as there are reductions that need the one before.
- A reduction of other axes ends a group's kernel: it adds into memory as the rows go by (the gradients of a bias). So
  do sums down the columns of a LARGE array, whatever is computed from them, so that it is read in order.
- A group of element-wise equations that reads a matrix product at its own position is the product's epilogue: one
  kernel, which goes over a block of the product's values while they are in the cache (schedule/epilogues.py).
- The pooling of a convolution's output, or of its epilogue's, joins it where nothing else reads that: one kernel, which
  pools a block of values while they are in the cache (schedule/pools.py).
- A group of element-wise equations that makes an operand of a matrix product is the product's prologue: the operand is
  computed while the product copies it into panels (schedule/prologues.py).
- Everything else (other contractions, gathers, sorts, loops, calls) is a step of its own.
- A group has at most MAX_SIZE equations (MAX_SCALARS on single values), which bounds register pressure.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from functorch_lite.compiler.lowering.rules import (
    elementwise_rules,
    is_complex,
    kind_of,
    movement_rules,
    reduction_rules,
)
from functorch_lite.compiler.schedule.epilogues import with_epilogues
from functorch_lite.compiler.schedule.joined import with_joined
from functorch_lite.compiler.schedule.maps import AxisMap, axis_map, compose, identity_map
from functorch_lite.compiler.schedule.pools import with_pools
from functorch_lite.compiler.schedule.prologues import with_prologues
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind
from functorch_lite.core.program import Equation, Literal, Program, Var, subprograms
from functorch_lite.primitives.barrier import barrier_p
from functorch_lite.primitives.indexing import gather_p
from functorch_lite.primitives.movement import reshape_p

MAX_SIZE = 64
MAX_SCALARS = 400
LARGE = 1 << 16  # elements
MOST_READERS = 4  # of a gather that is read through its indices: most often they are of one kernel
NEAR = 128  # how many nodes back an equation may join a group; paths are looked for in four times as many


@dataclass(eq=False, slots=True)
class Group:
    """A node of the schedule: one kernel of fused equations, or one other step (`domain` None).

    domain: extents, without those of 1. reduced: positions in the domain that reductions run over (None: no reduction).
    axes: for each value computed here, the positions of the domain that its axes (without those of 1) are.
    ends: results of reductions that are complete only after the kernel.
    reads: what its equations read, through index maps.
    product: the product that others of its equations come before or after (else None).
    chain: with a product, the group of those that come after it. prologues: the groups of those that come before it,
    by the operand that they compute. pool: the pooling of what a convolution and its chain make, or of an array in
    memory; tail: the group of those that come after it.
    cuts: by positions of the domain, where it is cut into pieces that each read one part of a concatenation.
    bits: its numbers in the masks; after: the mask of nodes that must run before.
    """

    equations: list[Equation]
    domain: tuple[int, ...] | None
    bits: int
    after: int
    number: int
    reduced: tuple[int, ...] | None = None
    axes: dict[Var, tuple[int, ...]] = field(default_factory=dict)
    ends: set[Var] = field(default_factory=set)
    reads: list[Any] = field(default_factory=list)
    last: int = 0
    product: Equation | None = None
    chain: "Group | None" = None
    prologues: "dict[Var, Group]" = field(default_factory=dict)
    pool: Equation | None = None
    tail: "Group | None" = None
    cuts: tuple[tuple[int, ...], ...] = ()

    def results(self) -> list[Var]:
        """What its equations compute, but for what is only ever an operand on its way into a product."""
        inside = {v for g in self.prologues.values() for v in g.axes}
        return [e.outputs[0] for e in self.equations if e.outputs[0] not in inside]

    def is_elementwise(self) -> bool:
        """Whether it has no reductions, and is no part of a product's or a pool's kernel."""
        return self.reduced is None and not self.ends and self.product is None and self.pool is None

    def rows(self) -> tuple[int, ...]:
        """The positions of the domain that are not reduced."""
        assert self.domain is not None
        return tuple(d for d in range(len(self.domain)) if self.reduced is None or d not in self.reduced)


class Schedule:
    """The groups of a program in the order they run, and what each variable is.

    given: the inputs. movement: variables that are index maps of another (their equation). maps: those that keep axes
    whole, as the base variable and the map. alias: variables that are another's memory under a new shape.
    """

    def __init__(self, program: Program, near: int = NEAR):
        self.program = program
        self._near = near
        self.given = frozenset(program.inputs)
        self.movement: dict[Var, Equation] = {}
        self.maps: dict[Var, tuple[Any, AxisMap]] = {}
        self.alias: dict[Var, Any] = {}
        self._moved: set[Var] = set()  # those with a movement or an alias
        self.home: dict[Var, Group] = {}
        self._nodes: list[Group] = []
        self._readers: dict[Any, Group] = {}
        self._effects: Group | None = None
        self._reading: dict[Any, list[Equation]] | None = None  # the equations that read an atom
        self._positions = {e: i for i, e in enumerate(program.equations)}
        self._before: dict[int, Group] = {}  # effects run in order
        self.read_first: dict[Group, set[Group]] = {}  # what must have read the memory that a node writes over
        for position, equation in enumerate(program.equations):
            self._place(equation, position)
        order = self._ordered()
        if len(order) < len({*self._nodes}):  # groups wait for one another: a path was longer than what is looked at
            assert near < len(program.equations), "the schedule has a cycle"
            self.__init__(program, len(program.equations))
            return
        self.groups = with_joined(self, with_prologues(self, with_pools(self, with_epilogues(self, order))))

    # --- placing ----------------------------------------------------------------------------------------------------

    def _place(self, equation: Equation, position: int) -> None:
        if equation.prim is barrier_p:
            self.alias.update(zip(equation.outputs, equation.inputs, strict=True))
            self._moved.update(equation.outputs)
        elif equation.prim.kind is Kind.HIGHER_ORDER or not _held(equation):
            self._step(equation, position)
        elif equation.prim in movement_rules and (equation.prim is not gather_p or self._is_looked_up(equation)):
            self._move(equation)
        elif equation.prim in elementwise_rules or _reduces(equation):
            self._fuse(equation, position)
        else:
            self._step(equation, position)

    def _is_looked_up(self, gather: Equation) -> bool:
        """Whether what is gathered is read by few, where each element is wanted once, and no index is refused."""
        if gather.params["mode"] == "raise" or 0 in gather.inputs[0].aval.shape:
            return False
        if self._reading is None:
            self._reading = {}
            for equation in self.program.equations:
                for atom in dict.fromkeys(equation.inputs):
                    self._reading.setdefault(atom, []).append(equation)
        out = gather.outputs[0]
        readers = self._reading.get(out, ())
        few = 0 < len(readers) <= MOST_READERS and out not in self.program.outputs
        return few and all(e.prim in elementwise_rules for e in readers)

    def _move(self, equation: Equation) -> None:
        out = equation.outputs[0]
        self._moved.add(out)
        if equation.prim is reshape_p and axis_map(equation) is None:
            self.alias[out] = equation.inputs[0]
            return
        self.movement[out] = equation
        found = axis_map(equation)
        if found is not None:
            base, inner = self.base(equation.inputs[0])
            if inner is not None:
                self.maps[out] = (base, compose(inner, found))

    def base(self, atom: Any) -> tuple[Any, AxisMap | None]:
        """The array that an atom is an index map of, with the map; no map if it is not simple."""
        found = self.maps.get(atom)
        if found is not None:
            return found
        if atom in self.movement:
            return atom, None
        return atom, identity_map(len(atom.aval.shape))

    def read_in_place(self, equation: Equation) -> None:
        """Have what was a step of its own be an index map: who reads its result reads its operands."""
        out = equation.outputs[0]
        self.movement[out] = equation
        self._moved.add(out)
        del self.home[out]
        for var in [v for v, (base, _) in self.maps.items() if base is out]:
            del self.maps[var]

    def sources(self, atom: Any) -> list[Any]:
        """The arrays in memory, or computed in a group, that reading an atom reads."""
        if is_number(atom):
            return []
        if atom in self.alias:
            return [atom]
        equation = self.movement.get(atom)
        return [atom] if equation is None else [s for a in equation.inputs for s in self.sources(a)]

    def root(self, atom: Any) -> Any:
        """What an alias is another name for."""
        while atom in self.alias:
            atom = self.alias[atom]
        return atom

    def producers(self, atom: Any) -> list[Group]:
        """The nodes that must have run before an atom can be read."""
        if atom not in self.alias and atom not in self.movement:
            return [self.home[atom]] if atom in self.home else []
        found = []
        for source in self.sources(atom):
            root = self.root(source)
            if root in self.movement:
                found += self.producers(root)
            elif root in self.home:
                found.append(self.home[root])
        return found

    def is_in_memory(self, atoms: Sequence[Any]) -> bool:
        """Whether none of these atoms is an index map or another name of something."""
        return self._moved.isdisjoint(atoms)

    def makers(self, atoms: Sequence[Any]) -> set[Group]:
        """The nodes that must have run before some atoms can be read."""
        found: set[Any] = set(map(self.home.get, atoms))
        found.discard(None)
        if not self.is_in_memory(atoms):
            found.update(g for atom in atoms if atom not in self.home for g in self.producers(atom))
        return found

    def _step(self, equation: Equation, position: int) -> None:
        after = 0
        for group in self.makers(equation.inputs):
            after |= group.bits | group.after
        previous = self._effects if _effects(equation) else None
        if previous is not None:
            after |= previous.bits | previous.after
        node = self._new([equation], None, after, position)
        if previous is not None:
            self._before[node.number] = previous
        if _effects(equation):
            self._effects = node
        for out in equation.outputs:
            self.home[out] = node

    def _new(self, equations, domain, after, position) -> Group:
        node = Group(equations, domain, 1 << len(self._nodes), after, len(self._nodes), last=position)
        self._nodes.append(node)
        return node

    # --- fusing -----------------------------------------------------------------------------------------------------

    def _fuse(self, equation: Equation, position: int) -> None:
        reduces = equation.prim in reduction_rules
        shape = equation.inputs[0].aval.shape if reduces else equation.outputs[0].aval.shape
        makers = {g.number: g for atom in equation.inputs for g in self.producers(atom)}
        after = 0
        for group in makers.values():
            after |= group.bits | group.after
        domain = tuple(n for n in shape if n != 1)
        for group in self._candidates(equation, makers):
            axes = self._fit(equation, group, shape, domain, reduces)
            if axes is not None and not self._blocked(group, makers):
                self._join(group, equation, axes, reduces, makers, position)
                return
        group = self._new([], domain, after, position)
        axes = self._fit(equation, group, shape, domain, reduces)
        assert axes is not None
        self._join(group, equation, axes, reduces, {}, position)

    def _candidates(self, equation: Equation, makers: dict[int, Group]) -> list[Group]:
        found = dict(makers)
        for atom in equation.inputs:
            group = self._readers.get(self.base(atom)[0]) if not is_number(atom) else None
            if group is not None:
                found[group.number] = group
        near = len(self._nodes) - self._near
        return [found[k] for k in sorted(found, reverse=True) if found[k].domain is not None and k >= near]

    def _blocked(self, group: Group, makers: dict[int, Group]) -> bool:
        """Whether something that must run before the equation must itself run after the group."""
        return any(m is not group and m.after & group.bits for m in makers.values())

    def _fit(self, equation, group: Group, shape, domain, reduces) -> tuple[int, ...] | None:
        """Where in the group's domain the equation's (or its operand's) axes are, if it can be computed there."""
        limit = MAX_SIZE if group.domain else MAX_SCALARS
        if len(group.equations) >= limit:
            return None
        for axes in self._spans(group, domain):
            if len(axes) < len(group.domain or ()) and math.prod(group.domain or ()) >= LARGE and self.can_end(group):
                continue
            if all(self._aligned(atom, group, shape, axes) for atom in equation.inputs):
                if not reduces or self._can_reduce(equation, group, shape, axes):
                    return axes
        return None

    def _spans(self, group: Group, domain):
        assert group.domain is not None
        if domain == group.domain:
            yield tuple(range(len(domain)))
        rows = group.rows()
        if group.reduced is not None and rows != tuple(range(len(group.domain))):
            if domain == tuple(group.domain[d] for d in rows):
                yield rows

    def _aligned(self, atom, group: Group, shape, axes) -> bool:
        """Whether an operand is read at the group's own position, if it is computed in the group."""
        if is_number(atom):
            return True
        base, found = self.base(atom)
        if found is None or base in self.alias:
            return all(g is not group for g in self.producers(atom))
        if self.home.get(base) is not group:
            return True
        if base in group.ends or not found.whole:
            return False
        position = dict(zip([d for d, n in enumerate(shape) if n != 1], axes, strict=True))
        own = iter(group.axes[base])
        for d, n in enumerate(base.aval.shape):
            if n != 1 and position.get(found.axes[d], -2) != next(own):
                return False
        return True

    def _can_reduce(self, equation, group: Group, shape, axes) -> bool:
        reduced = self._reduced(equation, shape, axes)
        assert group.domain is not None
        whole, vector = len(axes) == len(group.domain), len(group.domain) - 1
        if whole and (group.reduced in (None, reduced) or (vector in reduced and self.can_end(group))):
            return True
        return _adds_up(equation) and vector not in reduced and (whole or vector not in axes)

    def can_end(self, group: Group) -> bool:
        """Whether nothing in a group needs its reductions, and they can add into memory as the rows go by."""
        domain = group.domain or ()
        if not group.reduced or len(domain) - 1 in group.reduced:
            return False
        reductions = [e for e in group.equations if e.prim in reduction_rules]
        others = [e for e in group.equations if e.prim not in reduction_rules]
        if not all(map(_adds_up, reductions)) or any(len(group.axes[e.outputs[0]]) < len(domain) for e in others):
            return False
        return not self._reads(group.equations, {e.outputs[0] for e in reductions})

    def _reads(self, equations: list[Equation], values: set[Var]) -> bool:
        return any(s in values for e in equations for atom in e.inputs for s in self.sources(atom))

    def end(self, group: Group) -> None:
        """Have a group's reductions add into memory as the rows go by."""
        group.ends |= {e.outputs[0] for e in group.equations if e.prim in reduction_rules}
        group.reduced = None

    def _reduced(self, equation, shape, axes) -> tuple[int, ...]:
        kept = [d for d, n in enumerate(shape) if n != 1]
        return tuple(axes[kept.index(a)] for a in equation.params["axes"] if shape[a] != 1)

    def _join(self, group: Group, equation, axes, reduces, makers, position) -> None:
        out = equation.outputs[0]
        shape = equation.inputs[0].aval.shape if reduces else out.aval.shape
        together = [g for g in makers.values() if g is not group and g.domain is not None
                    and all(self._aligned(atom, g, shape, axes) for atom in equation.inputs)]
        if reduces:
            reduced = tuple(sorted(self._reduced(equation, shape, axes)))
            whole = len(axes) == len(group.domain or ())
            if whole and group.reduced not in (None, reduced) and len(axes) - 1 in reduced:
                self.end(group)
            if whole and group.reduced in (None, reduced):
                group.reduced = reduced
            else:
                group.ends.add(out)
            axes = tuple(a for a in axes if a not in reduced)
        for other in sorted(together, key=lambda g: -g.number):
            apart = {k: m for k, m in makers.items() if not m.bits & group.bits}
            if not self._blocked(other, apart):
                self._unite(group, other, equation)
        for other in makers.values():
            if other is not group and not other.bits & group.bits:
                self._order(group, other)
        group.equations.append(equation)
        group.axes[out] = axes
        group.last = position
        self.home[out] = group
        for atom in equation.inputs:
            if not is_number(atom):
                base = self.base(atom)[0]
                self._readers[base] = group
                group.reads.append(base)

    def _unite(self, group: Group, other: Group, equation: Equation) -> None:
        """Make two groups of one domain one, if both can run at once. The equation joins the first after this."""
        if other.domain != group.domain or other.number < len(self._nodes) - self._near:
            return
        ending = None
        if None not in (group.reduced, other.reduced) and group.reduced != other.reduced:
            ending = self._ending(group, other, equation)
            if ending is None:
                return
        limit = MAX_SIZE if group.domain else MAX_SCALARS
        if len(group.equations) + len(other.equations) >= limit or self._between(group, other):
            return
        if not self._readable(group, other) or not self._readable(other, group):
            return
        if ending is not None:
            self.end(ending)
        group.equations = sorted([*other.equations, *group.equations], key=self._positions.__getitem__)
        group.axes.update(other.axes)
        group.ends |= other.ends
        group.reduced = group.reduced if group.reduced is not None else other.reduced
        group.bits |= other.bits
        group.after = (group.after | other.after) & ~group.bits
        self._tell(group, group.after | group.bits)
        for var in other.axes:
            self.home[var] = group
        bits = other.bits  # its own place, and those of groups that it took in before
        while bits:
            self._nodes[bits.bit_length() - 1] = group
            bits ^= 1 << bits.bit_length() - 1
        other.domain = None
        for base in other.reads:
            if self._readers[base] is other:
                self._readers[base] = group
        group.reads += other.reads

    def _ending(self, group: Group, other: Group, equation: Equation) -> Group | None:
        """Which of two groups that reduce different axes can have its reductions end with the kernel of both."""
        for one, rest in ((other, group), (group, other)):
            if one is group and equation.prim in reduction_rules:
                continue
            values = {e.outputs[0] for e in one.equations if e.prim in reduction_rules}
            if self.can_end(one) and not self._reads([*rest.equations, equation], values):
                return one
        return None

    def _readable(self, group: Group, other: Group) -> bool:
        """Whether every operand of `group` that `other` computes is read at the position where it is computed."""
        if not group.after & other.bits:
            return True
        for equation in group.equations:
            reduces = equation.prim in reduction_rules
            shape = equation.inputs[0].aval.shape if reduces else equation.outputs[0].aval.shape
            axes = tuple(range(len(group.domain or ()))) if reduces else group.axes[equation.outputs[0]]
            if reduces and len([n for n in shape if n != 1]) != len(axes):
                return False
            if not all(self._aligned(atom, other, shape, axes) for atom in equation.inputs):
                return False
        return True

    def _between(self, group: Group, other: Group) -> bool:
        """Whether a third node lies on a path between two groups."""
        both = group.bits | other.bits
        start = max(0, len(self._nodes) - 4 * self._near)
        before = ((group.after | other.after) & ~both) >> start
        while before:
            low = before & -before
            if self._nodes[start + low.bit_length() - 1].after & both:
                return True
            before ^= low
        return False

    def _order(self, group: Group, before: Group) -> None:
        self._add_after(group, before.bits | before.after)

    def _add_after(self, group: Group, mask: int) -> None:
        mask &= ~group.bits
        if mask & ~group.after == 0:
            return
        group.after |= mask
        self._tell(group, mask)

    def _tell(self, group: Group, mask: int) -> None:
        """Note that what runs after a group runs after these nodes, too."""
        for node in self._nodes[max(0, group.number - 2 * self._near) :]:
            if node is not group and node.after & group.bits:
                node.after |= mask & ~node.bits

    # --- order ------------------------------------------------------------------------------------------------------

    def _ordered(self) -> list[Group]:
        """The nodes, each after what it needs, otherwise as the program has them; without those in a cycle."""
        nodes = list(dict.fromkeys(self._nodes))
        needs = {n: self.needs(n) for n in nodes}
        waiting: dict[Group, list[Group]] = {n: [] for n in nodes}
        for node, needed in needs.items():
            for other in needed:
                waiting[other].append(node)
        counts = {n: len(needs[n]) for n in nodes}
        ready = [(n.last, n.number, n) for n in nodes if not counts[n]]
        heapq.heapify(ready)
        order = []
        while ready:
            node = heapq.heappop(ready)[2]
            order.append(node)
            for other in waiting[node]:
                counts[other] -= 1
                if not counts[other]:
                    heapq.heappush(ready, (other.last, other.number, other))
        return order

    def needs(self, node: Group) -> set[Group]:
        """The nodes that a node reads from, whose effect comes before its own, or that read what it writes over."""
        found = {g for e in node.equations for g in self.makers(e.inputs)}
        if node.number in self._before:
            found.add(self._before[node.number])
        found |= self.read_first.get(node, set())
        found.discard(node)
        return found


def is_number(atom: Any) -> bool:
    """Whether an operand is one constant, which stands in the code; a larger constant is an array in memory."""
    return type(atom) is Literal and atom.aval.size == 1


def _held(equation: Equation) -> bool:
    """Whether loop IR can hold every value of an equation, and there is something to compute."""
    for atom in (*equation.inputs, *equation.outputs):
        aval = atom.aval
        if type(aval) is not Aval or kind_of(aval.dtype) is None or aval.size == 0:
            return False
    return True


def _reduces(equation: Equation) -> bool:
    """Whether it is a reduction that goes element by element: of complex numbers, whose parts only add, a sum."""
    rule = reduction_rules.get(equation.prim)
    return rule is not None and (rule.combine == "add" or not is_complex(equation.outputs[0].aval.dtype))


def _adds_up(equation: Equation) -> bool:
    """Whether memory of the result's type can hold what a reduction has so far."""
    dtype = equation.outputs[0].aval.dtype
    return not is_complex(dtype) and dtype.itemsize != 2


def _effects(equation: Equation) -> bool:
    return equation.prim.effect or any(p.has_effects for p in subprograms(equation.params))

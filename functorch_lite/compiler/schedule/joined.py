# SPDX-License-Identifier: MIT
"""Which concatenations and padded arrays are read in place: `with_joined(schedule, groups)`.

The parts of a concatenation that one group of element-wise equations reads need not be written next to one another: the
group's domain is cut where one part ends and the next begins, and in each piece of it the part that lies there is read
(`lowering/group.py`). So with an array and what it is padded with. What shifts an array around its ends (`np.roll`) is
a concatenation of two parts, and the gradient of differences of neighbours a sum of padded arrays: a step of a grid's
equations is one kernel that reads the grid several times, in the cache, and writes it once.

One is read in place if

- a single group reads it, which is element-wise, has no reductions and is no part of a product's or pool's kernel;
- the group is over LEAST elements or more, and the longest piece of a row has ROW of them at least;
- all that the group reads lies in memory as the domain does, along rows: what is transposed goes by tiles, as a copy;
- there are few pieces (MOST_PIECES), and few equations in all of them (MOST_EQUATIONS): each is code of its own.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from functorch_lite.compiler.loop_ir.nodes import Index
from functorch_lite.compiler.schedule.epilogues import readers_of, roots_of
from functorch_lite.compiler.schedule.maps import axis_map
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Literal, Var
from functorch_lite.primitives.movement import concatenate_p, pad_p, rev_p, slice_p

if TYPE_CHECKING:
    from functorch_lite.compiler.schedule.fusion import Group, Schedule

JOINING = (concatenate_p, pad_p)
LEAST = 1 << 12
ROW = 16
MOST_PIECES = 27
MOST_EQUATIONS = 512


def with_joined(schedule: "Schedule", groups: "list[Group]") -> "list[Group]":
    """The groups in the order they run, without the concatenations and padded arrays that are read in place."""
    joins = [g for g in groups if g.domain is None and g.equations[0].prim in JOINING]
    if not joins:
        return groups
    readers = readers_of(schedule, groups)
    order = list(groups)
    for node in reversed(joins):
        equation = node.equations[0]
        group = _reader(readers, equation)
        cuts = _Cutter(schedule, group, equation).cuts() if group is not None else None
        if group is None or cuts is None:
            continue
        group.cuts = cuts
        for root in roots_of(schedule, equation.inputs):
            readers[root] = list(dict.fromkeys(group if g is node else g for g in readers[root]))
        schedule.read_in_place(equation)
        order.remove(node)
    return order


def part_at(equation: Equation, index: Sequence[Index]) -> tuple[Any, Sequence[Index]]:
    """What lies at an index of a concatenation or padded array, by where its loops begin, and the index of that."""
    if equation.prim is pad_p:
        array, value = equation.inputs
        inside = [i - low for i, (low, _, _) in zip(index, equation.params["config"], strict=True)]
        if all(0 <= i.constant < n for i, n in zip(inside, array.aval.shape, strict=True)):
            return array, inside
        return value, ()
    axis, start = equation.params["axis"], 0
    for part in equation.inputs[:-1]:
        size = part.aval.shape[axis]
        if index[axis].constant < start + size:
            break
        start += size
    else:
        part = equation.inputs[-1]
    return part, [*index[:axis], index[axis] - start, *index[axis + 1 :]]


# --- choosing ---------------------------------------------------------------------------------------------------------


def _reader(readers: "dict[Any, list[Group | None]]", equation: Equation) -> "Group | None":
    """The element-wise group that alone reads a concatenation or padded array."""
    found = readers.get(equation.outputs[0], ())
    group = found[0] if len(found) == 1 else None
    if group is None or not group.domain or math.prod(group.domain) < LEAST:
        return None
    return group if group.is_elementwise() else None


class _Along(NamedTuple):
    """Where an axis is read: at step * position + offset, of a position in the domain; at the offset if it is -1."""

    position: int
    step: int
    offset: int

    def then(self, step: int, offset: int) -> "_Along":
        """Where the axis is that is read at step * this + offset."""
        return _Along(self.position, self.step * step, self.offset * step + offset)

    def reaches(self, place: int) -> int:
        """The position where the axis comes to a place, or has passed it."""
        if self.step > 0:
            return -((self.offset - place) // self.step)
        return (self.offset - place) // -self.step + 1


class _Cutter:
    """Finds where the domain of a group is cut, so that each piece reads one part of `joined`, and of those before."""

    def __init__(self, schedule: "Schedule", group: "Group", joined: Equation):
        self.schedule = schedule
        self.group = group
        self.joined = joined
        self.domain: tuple[int, ...] = group.domain or ()
        self.found: list[set[int]] = [set() for _ in self.domain]

    def cuts(self) -> tuple[tuple[int, ...], ...] | None:
        """By the domain's positions; None if what is joined is not to be read in place."""
        if not all(type(a.aval) is Aval and a.aval.size for a in self.joined.inputs):
            return None
        if not all(self._reads(atom, at) for atom, at in self._operands()):
            return None
        found = tuple(tuple(sorted(c for c in cuts if 0 < c < n))
                      for cuts, n in zip(self.found, self.domain, strict=True))
        ends = [0, *found[-1], self.domain[-1]]
        pieces = math.prod(len(cuts) + 1 for cuts in found)
        few = pieces <= MOST_PIECES and pieces * len(self.group.equations) <= MOST_EQUATIONS
        return found if few and max(b - a for a, b in zip(ends, ends[1:], strict=False)) >= ROW else None

    def _operands(self) -> Iterator[tuple[Any, list[_Along]]]:
        """What the equations read that is not computed in the group, and where."""
        for equation in self.group.equations:
            out = equation.outputs[0]
            axes = iter(self.group.axes[out])
            at = [_Along(next(axes), 1, 0) if n != 1 else _Along(-1, 0, 0) for n in out.aval.shape]
            for atom in equation.inputs:
                if type(atom) is not Literal or atom.aval.size != 1:
                    yield atom, at if atom.aval.shape else []

    def _reads(self, atom: Any, at: list[_Along]) -> bool:
        """Note the cuts that reading an atom asks for; False if pieces do not fit it."""
        equation = self.joined if atom is self.joined.outputs[0] else self.schedule.movement.get(atom)
        if equation is None:
            return self._is_in_rows(atom, at)
        if equation.prim is concatenate_p:
            return self._is_concatenated(equation, at)
        if equation.prim is pad_p:
            return self._is_padded(equation, at)
        if equation.prim is slice_p:
            steps = equation.params["strides"] or [1] * len(at)
            at = [a.then(n, start) for a, n, start in zip(at, steps, equation.params["start"], strict=True)]
            return self._reads(equation.inputs[0], at)
        shape = equation.inputs[0].aval.shape if equation.inputs else ()
        if equation.prim is rev_p:
            turned = equation.params["axes"]
            at = [a.then(-1, n - 1) if d in turned else a for d, (a, n) in enumerate(zip(at, shape, strict=True))]
            return self._reads(equation.inputs[0], at)
        found = axis_map(equation)
        if found is None:
            return False
        return self._reads(equation.inputs[0], [at[d] if d >= 0 else _Along(-1, 0, 0) for d in found.axes])

    def _cut(self, along: _Along, place: int) -> None:
        """Cut the domain where an axis comes to a place."""
        if along.position >= 0:
            self.found[along.position].add(along.reaches(place))

    def _is_padded(self, equation: Equation, at: list[_Along]) -> bool:
        config, sizes = equation.params["config"], equation.inputs[0].aval.shape
        if any(low < 0 or high < 0 or inner for low, high, inner in config):
            return False
        for along, (low, _, _), n in zip(at, config, sizes, strict=True):
            self._cut(along, low)
            self._cut(along, low + n)
        return self._reads(equation.inputs[0], [a.then(1, -low) for a, (low, _, _) in zip(at, config, strict=True)])

    def _is_concatenated(self, equation: Equation, at: list[_Along]) -> bool:
        axis, start = equation.params["axis"], 0
        along = at[axis]
        for part in equation.inputs:
            self._cut(along, start)
            if not self._reads(part, [*at[:axis], along.then(1, -start), *at[axis + 1 :]]):
                return False
            start += part.aval.shape[axis]
        return True

    def _is_in_rows(self, atom: Any, at: list[_Along]) -> bool:
        """Whether an array in memory is walked along its rows, or not at all along a row of the domain."""
        if type(atom) is Var and self.joined.outputs[0] in roots_of(self.schedule, [atom]):
            return False  # under another name
        walked = [a for a in at if a.position >= 0]
        last = len(self.domain) - 1
        inner = [k for k, a in enumerate(walked) if a.position == last]
        return not inner or (inner == [len(walked) - 1] and abs(walked[-1].step) == 1)

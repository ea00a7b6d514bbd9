# SPDX-License-Identifier: MIT
"""Merging calls that feed each other, so that what they compute can be one kernel.

    m0 = jit[program=mean] g0 ; m1 = jit[program=mean] g1 ; ... ; u0 = jit[program=step] m0 ; u1 = jit[program=step] m1
    becomes
    m0 u0 = jit[program=mean_step] g0 ; m1 u1 = jit[program=mean_step] g1 ; ...

The stages of an optimizer are calls of a few programs, each called for every layer. Calls of one program join those of
another where each is first read by its own call of the other, in the same way, and both are programs of operations that
fuse. A call then moves down to the one that reads it: right because it has no effect and nothing reads it before.

    d1 g1 = jit[program=backward] d2 p1 ; d0 g0 = jit[program=backward] d1 p0 ; q0 = jit[program=step] p0 g0 ; ...
    becomes
    d1 q1 = jit[program=backward_step] d2 p1 ; d0 q0 = jit[program=backward_step] d1 p0

Calls of a program of whatever operations are joined by calls that fuse with it, which move up to it: an optimizer's
step to the backward pass of its layer, so that the gradients of a layer are gone when those of the next are computed.
Right where all else that the step reads is there by then, or can be computed by then from what is (a count of steps).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.passes.inline import inline_calls
from functorch_lite.compiler.passes.rewriting import is_heavy, program_pass, rebuilt
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Atom, Equation, Program, Var, memoized
from functorch_lite.primitives.higher_order import jit_p

MIN_CALLS = 4


@program_pass
def merge_calls(program: Program) -> Program:
    """The program with chains of calls of small programs as calls of larger ones."""
    found: dict[int, list[int]] = {}
    for i, eqn in enumerate(program.equations):
        if eqn.prim is jit_p:
            found.setdefault(id(eqn.params["program"]), []).append(i)
    groups = [_Group(places, _is_light(program.equations[places[0]])) for places in found.values()
              if len(places) >= MIN_CALLS and not program.equations[places[0]].params["program"].has_effects]
    return _Merging(program, groups).merged() if len(groups) > 1 and any(g.is_light for g in groups) else program


def is_light(program: Program) -> bool:
    """Whether all that a program computes can fuse."""
    return memoized(program, "is light", lambda: (all(map(_is_light, program.equations)),))[0]


def _is_light(eqn: Equation) -> bool:
    return is_light(eqn.params["program"]) if eqn.prim is jit_p else not is_heavy(eqn)


@dataclass(slots=True, eq=False)
class _Group:
    """The places of the calls of one program, and whether it is light."""

    places: list[int]
    is_light: bool


class _Pairing(NamedTuple):
    """Calls to put together: places of the first and the second of each pair, and whether the second moves up."""

    second: _Group
    pairs: list[tuple[int, int]]
    up: bool


class _Join(NamedTuple):
    """How calls are put together: the program, and which it has of the inputs of the two, and of their outputs."""

    program: Program
    inputs: list[int]  # numbers of those of the first call, and on, of those of the second
    outputs: list[int]


class _Merging:
    """Groups of calls, as their places in the program, and where what they compute is read (the end is one, too)."""

    def __init__(self, program: Program, groups: list[_Group]):
        self.program = program
        self.equations: list[Equation | None] = list(program.equations)
        self.groups = groups
        self.group_at = {i: group for group in groups for i in group.places}
        self.readers: dict[Atom, list[int]] = {v: [] for i in self.group_at for v in program.equations[i].outputs}
        for i, eqn in enumerate(program.equations):
            self._note(eqn.inputs, i)
        self._note(program.outputs, len(program.equations))
        self.made: dict[Atom, int] = {}  # the place of each value's equation, once it is asked for
        self.risen: set[int] = set()  # where calls moved up to

    def _note(self, atoms: Sequence[Atom], place: int) -> None:
        for atom in self.readers.keys() & atoms:
            self.readers[atom].append(place)

    def merged(self) -> Program:
        """The program with calls merged until none can be."""
        waiting = list(self.groups)
        changed = False
        while waiting:
            first = waiting.pop(0)
            for pairing in self._pairings(first):
                if len({_feeding(self._call(i), self._call(j)) for i, j in pairing.pairs}) == 1:
                    self._merge(first, pairing)
                    changed = True
                    waiting = [g for g in self.groups if g.places]  # for others, what reads them may have changed
                    break
        return rebuilt(self.program, self._in_order(), self.program.outputs) if changed else self.program

    def _call(self, place: int) -> Equation:
        found = self.equations[place]
        assert found is not None
        return found

    # --- which calls ------------------------------------------------------------------------------------------------

    def _pairings(self, first: _Group) -> Iterator[_Pairing]:
        """The groups that the calls of a group may be put together with."""
        if not first.places:
            return
        if first.is_light:
            next_ones = [min((self.readers[v][0] for v in self._call(i).outputs if self.readers.get(v)), default=-1)
                         for i in first.places]
            second = self.group_at.get(next_ones[0])
            if second is not None and second.is_light and second is not first and second.places == next_ones:
                yield _Pairing(second, list(zip(first.places, next_ones, strict=True)), False)
            return
        for second in {id(g): g for g in self._readers_of(first.places[0]).values() if g.is_light}.values():
            pairs = [(i, j) for i in first.places for j, group in self._readers_of(i).items() if group is second]
            if len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs) == len(first.places):
                if all(self._can_rise(i, j) for i, j in pairs):
                    yield _Pairing(second, pairs, True)

    def _readers_of(self, place: int) -> dict[int, _Group]:
        """The calls that read what a call computes: their places, and their groups."""
        found = [j for v in self._call(place).outputs for j in self.readers.get(v, ())]
        return {j: self.group_at[j] for j in found if j in self.group_at}

    def _can_rise(self, i: int, j: int) -> bool:
        """Whether call j can move up to call i: it has what it reads by then, and no more memory is taken."""
        one, two = self._call(i), self._call(j)
        own, ends = set(one.outputs), len(self.program.equations)
        freed = sum(_nbytes(v) for v in one.outputs if self.readers[v] == [j])
        kept = sum(_nbytes(v) for v in two.outputs if self.readers[v][:1] not in ([], [ends]))
        others = (self._made().keys() & two.inputs) - own
        return 0 < freed >= kept and all(self._can_be_there(a, i) for a in others)

    def _can_be_there(self, atom: Atom, place: int) -> bool:
        """Whether a value is there before a place, or can be: light equations move up."""
        made, waiting, seen = self._made(), [atom], {atom}
        while waiting:
            at = made.get(waiting.pop(), -1)
            if at < place:
                continue
            if at in self.group_at or not _is_light(self._call(at)):
                return False
            inputs = self._call(at).inputs
            waiting += [a for a in inputs if a not in seen]
            seen.update(inputs)
        return True

    def _made(self) -> dict[Atom, int]:
        """The place at which each value is computed."""
        if not self.made:
            for i, eqn in enumerate(self.equations):
                self.made |= dict.fromkeys(eqn.outputs, i) if eqn is not None else {}
        return self.made

    # --- putting them together --------------------------------------------------------------------------------------

    def _merge(self, first: _Group, pairing: _Pairing) -> None:
        join = self._join(pairing.pairs)
        for i, j in pairing.pairs:
            self._replace(i, j, join, pairing.up)
        gone = {j for _, j in pairing.pairs} if pairing.up else set(first.places)
        moved = pairing.second if pairing.up else first
        moved.places = [place for place in moved.places if place not in gone]

    def _join(self, places: Sequence[tuple[int, int]]) -> _Join:
        pairs = [(self._call(i), self._call(j)) for i, j in places]
        a, b = pairs[0]
        fed = dict(enumerate(_feeding(a, b)))
        slots: dict[tuple[int, ...], Var] = {}  # by the identities of the atoms in all calls
        given: list[list[Atom]] = [[], []]
        inputs = []
        made = [[Var(v.aval) for v in e.outputs] for e in (a, b)]
        for which, call in enumerate((a, b)):
            columns = zip(*[pair[which].inputs for pair in pairs], strict=True)
            for k, (atom, same) in enumerate(zip(call.inputs, columns, strict=True)):
                if which and fed[k] >= 0:
                    given[1].append(made[0][fed[k]])
                    continue
                column = tuple(map(id, same))
                if column not in slots:
                    slots[column] = Var(atom.aval)
                    inputs.append(k + which * len(a.inputs))
                given[which].append(slots[column])
        every = [*made[0], *made[1]]
        found = [(*one.outputs, *two.outputs) for one, two in pairs]
        outputs = [k for k in range(len(every)) if any(
            set(self.readers.get(outs[k], ())) - {j} for outs, (_, j) in zip(found, places, strict=True))]
        equations = tuple(Equation(jit_p, tuple(given[w]), tuple(made[w]), pairs[0][w].params, pairs[0][w].source)
                          for w in (0, 1))
        outs = tuple(every[k] for k in outputs)
        name = a.params["program"].name
        return _Join(inline_calls(Program(tuple(slots.values()), equations, outs, name)), inputs, outputs)

    def _replace(self, i: int, j: int, join: _Join, up: bool) -> None:
        """Put the call at place i and that at place j together, at one of them."""
        both = self._call(i), self._call(j)
        given, made = both[0].inputs + both[1].inputs, both[0].outputs + both[1].outputs
        inputs, outputs = tuple(map(given.__getitem__, join.inputs)), tuple(map(made.__getitem__, join.outputs))
        at, gone = (i, j) if up else (j, i)
        self.equations[gone] = None
        self.equations[at] = Equation(jit_p, inputs, outputs, {"program": join.program}, both[1].source)
        for v in both[0].outputs:
            self.readers[v] = [place for place in self.readers[v] if place != j]
        for atom in self.readers.keys() & both[1 if up else 0].inputs:
            self.readers[atom] = sorted({at if place == gone else place for place in self.readers[atom]})
        del self.group_at[gone]
        if up:
            self._made().update(dict.fromkeys(outputs, at))
            self.risen.add(at)

    def _in_order(self) -> list[Equation]:
        """The equations; those that a call that moved up needs, and what they need, before it."""
        if not self.risen:
            return [e for e in self.equations if e is not None]
        made, done, ordered = self._made(), set(), []
        for place, eqn in enumerate(self.equations):
            waiting = [place] if eqn is not None else []
            while waiting:
                at = waiting[-1]
                missing: list[int] = []
                if at != place or at in self.risen:
                    needs = {*map(made.get, self._call(at).inputs, itertools.repeat(-1))}
                    missing = sorted([k for k in needs if k >= place and k not in done])
                if missing and at not in done:
                    waiting += missing
                    continue
                waiting.pop()
                if at not in done:
                    done.add(at)
                    ordered.append(self._call(at))
        return ordered


def _nbytes(var: Var) -> int:
    """The bytes of an array; a run-time stack may have none."""
    return var.aval.size * var.aval.dtype.itemsize if type(var.aval) is Aval else 0


def _feeding(a: Equation, b: Equation) -> tuple[int, ...]:
    """For each input of call b, which output of call a it is, or -1."""
    numbers: dict[Atom, int] = {v: k for k, v in enumerate(a.outputs)}
    return tuple(map(numbers.get, b.inputs, itertools.repeat(-1)))

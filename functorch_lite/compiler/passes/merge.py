# SPDX-License-Identifier: MIT
"""Merging calls that follow each other, so that what they compute can be one kernel.

    m0 = jit[program=mean] g0 ; m1 = jit[program=mean] g1 ; ... ; u0 = jit[program=step] m0 ; u1 = jit[program=step] m1
    becomes
    m0 u0 = jit[program=mean_step] g0 ; m1 u1 = jit[program=mean_step] g1 ; ...

The stages of an optimizer are calls of a few programs, each called for every layer. Calls of one program join those of
another where each is first read by its own call of the other, in the same way, and both are programs of operations that
fuse. A call then moves down to the one that reads it: right because it has no effect and nothing reads it before.
"""

from collections.abc import Sequence
from typing import NamedTuple

from functorch_lite.compiler.passes.rewriting import is_heavy, program_pass, rebuilt
from functorch_lite.core.program import Atom, Equation, Program, Var, memoized
from functorch_lite.primitives.higher_order import jit_p

MIN_CALLS = 4


@program_pass
def merge_calls(program: Program) -> Program:
    """The program with chains of calls of small programs as calls of larger ones."""
    found: dict[int, list[int]] = {}
    for i, eqn in enumerate(program.equations):
        if eqn.prim is jit_p and is_light(eqn.params["program"]):
            found.setdefault(id(eqn.params["program"]), []).append(i)
    groups = [places for places in found.values() if len(places) >= MIN_CALLS]
    return _Merging(program, groups).merged() if len(groups) > 1 else program


def is_light(program: Program) -> bool:
    """Whether all that a program computes can fuse."""
    return memoized(program, "is light", lambda: (all(map(_is_light, program.equations)),))[0]


def _is_light(eqn: Equation) -> bool:
    return is_light(eqn.params["program"]) if eqn.prim is jit_p else not is_heavy(eqn)


class _Join(NamedTuple):
    """How calls are put together: the program, which inputs of the two it has, and which outputs."""

    program: Program
    inputs: list[tuple[int, int]]  # (0 or 1: the first or the second call; number of the input)
    outputs: list[tuple[int, int]]


class _Merging:
    """Groups of calls, as their places in the program, and where what they compute is read (the end is one, too)."""

    def __init__(self, program: Program, groups: list[list[int]]):
        self.program = program
        self.equations: list[Equation | None] = list(program.equations)
        self.groups = groups
        self.readers: dict[Atom, list[int]] = {v: [] for places in groups for i in places
                                               for v in program.equations[i].outputs}
        for i, eqn in enumerate(program.equations):
            self._note(eqn.inputs, i)
        self._note(program.outputs, len(program.equations))

    def _note(self, atoms: Sequence[Atom], place: int) -> None:
        for atom in atoms:
            places = self.readers.get(atom)
            if places is not None and (not places or places[-1] != place):
                places.append(place)

    def merged(self) -> Program:
        """The program with calls merged until none can be."""
        waiting = list(range(len(self.groups)))
        changed = False
        while waiting:
            first = waiting.pop(0)
            second = self._next(self.groups[first]) if self.groups[first] else None
            if second is not None and second != first and self._merge(first, second):
                changed = True
                waiting.append(second)
        equations = [e for e in self.equations if e is not None]
        return rebuilt(self.program, equations, self.program.outputs) if changed else self.program

    def _call(self, place: int) -> Equation:
        found = self.equations[place]
        assert found is not None
        return found

    def _next(self, places: Sequence[int]) -> int | None:
        """The group whose calls are the first readers of these, one by one."""
        first = [min((self.readers[v][0] for v in self._call(i).outputs if self.readers.get(v)), default=-1)
                 for i in places]
        return next((k for k, group in enumerate(self.groups) if group == first), None)

    def _merge(self, one: int, two: int) -> bool:
        pairs = [(self._call(i), self._call(j)) for i, j in zip(self.groups[one], self.groups[two], strict=True)]
        if len({_feeding(a, b) for a, b in pairs}) > 1:
            return False
        join = self._join(pairs, self.groups[two])
        for i, j in zip(self.groups[one], self.groups[two], strict=True):
            self._replace(i, j, join)
        self.groups[one] = []
        return True

    def _join(self, pairs: Sequence[tuple[Equation, Equation]], places: Sequence[int]) -> _Join:
        a, b = pairs[0]
        fed = dict(enumerate(_feeding(a, b)))
        slots: dict[tuple[int, ...], Var] = {}  # by the identities of the atoms in all calls
        given: list[list[Atom]] = [[], []]
        inputs = []
        made = [[Var(v.aval) for v in e.outputs] for e in (a, b)]
        for which, call in enumerate((a, b)):
            for k, atom in enumerate(call.inputs):
                if which and fed[k] >= 0:
                    given[1].append(made[0][fed[k]])
                    continue
                column = tuple([id(pair[which].inputs[k]) for pair in pairs])
                if column not in slots:
                    slots[column] = Var(atom.aval)
                    inputs.append((which, k))
                given[which].append(slots[column])
        outputs = [(which, k) for which in (0, 1) for k in range(len(made[which]))
                   if any(set(self.readers.get(pair[which].outputs[k], ())) - {place}
                          for pair, place in zip(pairs, places, strict=True))]
        equations = tuple(Equation(jit_p, tuple(given[w]), tuple(made[w]), pairs[0][w].params, pairs[0][w].source)
                          for w in (0, 1))
        outs = tuple(made[which][k] for which, k in outputs)
        name = a.params["program"].name
        return _Join(Program(tuple(slots.values()), equations, outs, name), inputs, outputs)

    def _replace(self, i: int, j: int, join: _Join) -> None:
        """Put the call at place i and that at place j together, at j."""
        both = self._call(i), self._call(j)
        inputs = tuple(both[which].inputs[k] for which, k in join.inputs)
        outputs = tuple(both[which].outputs[k] for which, k in join.outputs)
        self.equations[i] = None
        self.equations[j] = Equation(jit_p, inputs, outputs, {"program": join.program}, both[1].source)
        for v in both[0].outputs:
            self.readers[v] = [place for place in self.readers[v] if place != j]
        for atom in both[0].inputs:
            places = self.readers.get(atom)
            if places is None:
                continue
            if len(places) == 1:
                places[0] = j
            else:
                self.readers[atom] = sorted({j if place == i else place for place in places})


def _feeding(a: Equation, b: Equation) -> tuple[int, ...]:
    """For each input of call b, which output of call a it is, or -1."""
    numbers: dict[Atom, int] = {v: k for k, v in enumerate(a.outputs)}
    return tuple([numbers.get(atom, -1) for atom in b.inputs])

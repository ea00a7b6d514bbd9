# SPDX-License-Identifier: MIT
"""Rolling: equations that come again and again become calls of one program, which is compiled once.

    b = tanh a ; c = mul b w0 ; d = tanh c ; e = mul d w1 ; ...        becomes
    c = jit[program=block] a w0 ; e = jit[program=block] c w1 ; ...

The layers of a network are equal blocks of equations, one after the other, and so are their derivatives. A run of
blocks is found by its period: the distance between equal equations (of one primitive, parameters, types, constants and
source line). Blocks of a run are equal if each operand is found at the same place of the block, or comes from outside
in the same order; those that are not stay as they are. Where a period begins is free: the cut is made where least is
handed from one block to the next. Right because calling a program is computing its equations.

A view (a broadcast, a permutation, a reshape) is made where it is read, on either side of a call, so it is no array
that is handed over. Effects are in no block. What comes after the last heavy equation (a contraction, a gather, a loop
...) is first put in the order in which the outputs need it: an optimizer's stages become one chain a parameter.

What a call keeps apart from its surroundings is not fused with them, so only many blocks (`MIN_BLOCKS`) of some size
(`MIN_EQUATIONS`) are rolled; and blocks without a heavy equation, which could become one kernel, only if they hand
nothing on to each other, or are very many (`MANY`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.passes.rewriting import is_heavy, literal_key, program_pass, rebuilt, with_bodies
from functorch_lite.core.aval import Aval
from functorch_lite.core.periods import Run, find_runs
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var, subprograms
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.movement import permute_dims_p, reshape_p, rev_p

MIN_BLOCKS = 4
MIN_EQUATIONS = 30
MANY = 2000  # equations
_NUMBERS = (bool, float, complex, np.generic)
_VIEWS = frozenset((broadcast_in_dim_p, permute_dims_p, reshape_p, rev_p))


@program_pass
def roll_blocks(program: Program) -> Program:
    """The program, and the bodies of its loops, with runs of equal blocks as calls."""
    program = _with_bodies(program)
    if len(program.equations) < MIN_BLOCKS * MIN_EQUATIONS:
        return program
    ordered = rebuilt(program, outputs_first(program), program.outputs)
    found = find_runs(equation_keys(ordered.equations), MIN_BLOCKS, MIN_EQUATIONS)
    rolling = _Rolling(ordered, found)
    return rolling.rolled() if rolling.runs else program


def _with_bodies(program: Program) -> Program:
    found = [with_bodies(e, roll_blocks) for e in program.equations]
    changed = any(a is not b for a, b in zip(found, program.equations, strict=True))
    return rebuilt(program, found, program.outputs) if changed else program


def outputs_first(program: Program) -> list[Equation]:
    """The equations, those after the last heavy one in the order in which the outputs need them."""
    equations = program.equations
    first = next((i + 1 for i in reversed(range(len(equations))) if is_heavy(equations[i])), 0)
    makers: dict[Atom, Equation] = {v: e for e in equations[first:] for v in e.outputs}
    done: set[int] = set()
    ordered = list(equations[:first])
    for output in program.outputs:
        waiting = [output] if output in makers else []
        while waiting:
            eqn = makers.get(waiting[-1])
            missing = [] if eqn is None or id(eqn) in done else [
                a for a in eqn.inputs if a in makers and id(makers[a]) not in done]
            if missing:
                waiting += reversed(missing)
                continue
            waiting.pop()
            if eqn is not None and id(eqn) not in done:
                done.add(id(eqn))
                ordered.append(eqn)
    return ordered


# --- keys -------------------------------------------------------------------------------------------------------------


def equation_keys(equations: Sequence[Equation]) -> np.ndarray:
    """A number for each equation, the same for those that compute the same way on the same line; int64 [n]."""
    known: dict[Any, int] = {}
    literals: dict[Literal, Any] = {}
    keys = np.empty(len(equations), np.int64)
    for i, eqn in enumerate(equations):
        key = _key(eqn, literals)
        try:
            keys[i] = known.setdefault(key, len(known))
        except TypeError:  # a parameter that cannot be hashed
            keys[i] = known.setdefault(i, len(known))
    return keys


def _key(eqn: Equation, literals: dict[Literal, Any]) -> Any:
    if eqn.prim.effect or any(p.has_effects for p in subprograms(eqn.params)):
        return object()
    if eqn.prim is jit_p:  # its program has the types
        numbers = [(k, _literal_key(a, literals)) for k, a in enumerate(eqn.inputs)
                   if type(a) is not Var and not a.aval.shape] if Literal in map(type, eqn.inputs) else ()
        return eqn.prim, eqn.source, eqn.params["program"], *numbers
    atoms = [a.aval if type(a) is Var or a.aval.shape else _literal_key(a, literals) for a in eqn.inputs]
    params = tuple([(name, type(v), _exact(v)) for name, v in eqn.params.items()]) if eqn.params else ()
    return eqn.prim, eqn.source, params, *atoms


def _literal_key(literal: Any, known: dict[Literal, Any]) -> Any:
    found = known.get(literal)
    if found is None:
        found = known[literal] = literal_key(literal)
    return found


def _exact(value: Any) -> Any:
    """A parameter such that equal ones are the same: 0.0 is not -0.0, 1 is not True."""
    if type(value) is tuple:
        return tuple([_exact(v) for v in value])
    return repr(value) if isinstance(value, _NUMBERS) else value


# --- blocks -----------------------------------------------------------------------------------------------------------


class _Outside(NamedTuple):
    """An operand from outside a block: views (outermost first) of the atom in slot `slot`, or of a literal (-1)."""

    views: tuple[int, ...]
    slot: int


class _Block(NamedTuple):
    """Operands of each equation, as (equation of the block, output) or _Outside; and the atoms in the slots.

    A scalar constant stays in its equation. An array is in a slot; one that is the same in all blocks goes back.
    """

    operands: list[tuple[Any, ...]]
    slots: list[Atom]


class _Rolling:
    """Rewrites one program; `place[v]` is the equation that defines a variable and which of its outputs it is."""

    def __init__(self, program: Program, runs: Sequence[Run]):
        self.program = program
        self.equations = program.equations
        self.place: dict[Atom, tuple[int, int]] = {
            v: (i, k) for i, e in enumerate(self.equations) for k, v in enumerate(e.outputs)}
        self.view_keys: dict[Any, int] = {}
        self.constants: dict[Any, Atom] = {}
        self.literal_keys: dict[Literal, Any] = {}
        self.blocks: dict[int, _Block] = {}
        parts = [part for run in runs for part in self._equal_parts(self._well_cut(run))]
        self.runs = [run for run in parts if self._is_worth(run)]
        self.run_at = {start: run for run in self.runs for start in run.starts}
        self.block_of = {i: (run, (i - run.start) % run.period)
                         for run in self.runs for i in range(run.start, run.end)}

    def rolled(self) -> Program:
        """The program with calls."""
        bodies = {run: self._body(run, outs) for run, outs in self._outputs().items()}
        writer = _Writer(self)
        i = 0
        while i < len(self.equations):
            run = self.run_at.get(i)
            if run is None:
                writer.copy(self.equations[i])
                i += 1
            else:
                body, outs = bodies[run]
                outputs = tuple([self.equations[i + at].outputs[k] for at, k in outs])
                inputs = tuple(self.blocks[i].slots)
                writer.append(Equation(jit_p, inputs, outputs, {"program": body}, self.equations[i].source))
                i += run.period
        return rebuilt(self.program, writer.equations, self.program.outputs)

    # --- where blocks begin -----------------------------------------------------------------------------------------

    def _well_cut(self, run: Run) -> Run:
        """The run with its cuts where least is handed on; what is left over at both ends is in no block."""
        period = run.period
        first = run.start + period  # a block in the middle stands for all
        last: dict[Atom, int] = {}
        for i in range(first, first + 2 * period):
            for atom in self.equations[i].inputs:
                base = self.base(atom)[0]
                at = self.place.get(base, (-1, 0))[0]
                if first <= at < i and i - at < period:
                    last[base] = i
        handed = np.zeros(2 * period + 1, np.int64)
        for base, i in last.items():
            handed[self.place[base][0] + 1 - first] += _nbytes(base)
            handed[i + 1 - first] -= _nbytes(base)
        total = np.cumsum(handed)[period : 2 * period]
        shift = int(np.argmin(total))
        return Run(run.start + shift, period, run.count - (shift > run.rest))

    def _equal_parts(self, run: Run) -> list[Run]:
        """The parts of a run whose blocks are equal."""
        parts, first = [], run.start
        for start in (*run.starts, run.end):
            if start < run.end:
                self.blocks[start] = self._block(start, run.period)
                if self.blocks[start].operands == self.blocks[first].operands:
                    continue
            count = (start - first) // run.period
            if count >= MIN_BLOCKS:
                parts.append(Run(first, run.period, count))
            first = start
        return parts

    def _is_worth(self, run: Run) -> bool:
        """Whether a block is more than a few calls, and little fusion is lost by rolling it."""
        block = self.equations[run.start : run.start + run.period]
        if sum(e.prim is not jit_p for e in block) < MIN_EQUATIONS:
            return False
        if any(map(is_heavy, block)) or run.period * run.count >= MANY:
            return True
        return not any(run.start <= self.place.get(a, (-1, 0))[0] < run.end
                       for start in run.starts for a in self.blocks[start].slots)

    def _block(self, start: int, period: int) -> _Block:
        slots: dict[Atom, int] = {}
        operands = []
        for eqn in self.equations[start : start + period]:
            read = []
            for atom in eqn.inputs:
                at, k = self.place.get(atom, (-1, 0))
                if at >= start:
                    read.append((at - start, k))
                elif type(atom) is Var or atom.aval.shape:
                    read.append(self._outside(atom, slots))
            operands.append(tuple(read))
        return _Block(operands, list(slots))

    def _outside(self, atom: Atom, slots: dict[Atom, int]) -> _Outside:
        base, views = self.base(self._same(atom))
        keys = tuple([self.view_keys.setdefault((v.prim, str(v.params), v.inputs[0].aval), len(self.view_keys))
                      for v in views])
        return _Outside(keys, slots.setdefault(base, len(slots)))

    def _same(self, atom: Atom) -> Atom:
        """The first of equal constants."""
        if type(atom) is Var:
            return atom
        return self.constants.setdefault(_literal_key(atom, self.literal_keys), atom)

    def base(self, atom: Atom) -> tuple[Atom, list[Equation]]:
        """What an atom is a view of, and the views, outermost first; views of literals are values."""
        views = []
        while True:
            eqn = self.maker(atom)
            if eqn is None or eqn.prim not in _VIEWS or type(eqn.inputs[0]) is Literal:
                return atom, views
            views.append(eqn)
            atom = eqn.inputs[0]

    def maker(self, atom: Atom) -> Equation | None:
        at = self.place.get(atom)
        return None if at is None else self.equations[at[0]]

    # --- bodies -----------------------------------------------------------------------------------------------------

    def _outputs(self) -> dict[Run, list[tuple[int, int]]]:
        """For each run the (equation of the block, output) that anything outside a block reads."""
        found: dict[Run, set[tuple[int, int]]] = {run: set() for run in self.runs}

        def note(atom):
            i, k = self.place.get(atom, (-1, 0))
            if i in self.block_of:
                run, at = self.block_of[i]
                found[run].add((at, k))

        for run in self.runs:
            for start in run.starts:
                for atom in self.blocks[start].slots:
                    note(atom)
        others = [a for i, e in enumerate(self.equations) if i not in self.block_of for a in e.inputs]
        for atom in others:
            note(self.base(atom)[0] if self.is_inside(atom) else atom)
        for atom in self.program.outputs:  # an array in any case
            note(atom)
        return {run: sorted(outs) for run, outs in found.items()}

    def is_inside(self, atom: Atom) -> bool:
        """Whether an atom is computed in a block."""
        return self.place.get(atom, (-1, 0))[0] in self.block_of

    def _body(self, run: Run, outs: list[tuple[int, int]]) -> tuple[Program, list[tuple[int, int]]]:
        block = self.equations[run.start : run.start + run.period]
        slots = self.blocks[run.start].slots
        constant = [type(a) is Literal and all(self.blocks[s].slots[k] is a for s in run.starts)
                    for k, a in enumerate(slots)]
        for start in run.starts:
            own = self.blocks[start].slots
            own[:] = [a for a, same in zip(own, constant, strict=True) if not same]
        env: dict[Atom, Atom] = {a: Var(a.aval) for a in self.blocks[run.start].slots}
        inputs = tuple([v for v in env.values() if type(v) is Var])
        made = {v for e in block for v in e.outputs}
        written: list[Equation] = []
        for eqn in block:
            for atom in eqn.inputs:
                if type(atom) is Literal:
                    same = self._same(atom) if atom.aval.shape else atom
                    if same in env:
                        env[atom] = env[same]
                elif atom not in made and atom not in env:
                    self._write_views(atom, env, written)
            written.append(copied(eqn, env))
        outputs = tuple([env[block[at].outputs[k]] for at, k in outs])
        return Program(inputs, tuple(written), outputs, "block"), outs

    def _write_views(self, atom: Atom, env: dict[Atom, Atom], written: list[Equation]) -> None:
        for view in reversed(self.base(atom)[1]):
            if view.outputs[0] not in env:
                written.append(copied(view, env))


class _Writer:
    """The new equations; a view of what a block computes is made again for who reads it outside."""

    def __init__(self, rolling: _Rolling):
        self.rolling = rolling
        self.equations: list[Equation] = []
        self.append = self.equations.append
        self._views: dict[Atom, Atom] = {}

    def copy(self, eqn: Equation) -> None:
        """Append an equation that is in no block."""
        if not any(type(a) is Var and self.rolling.is_inside(a) for a in eqn.inputs):
            self.append(eqn)
            return
        inputs = tuple([self.read(a) for a in eqn.inputs])
        self.append(Equation(eqn.prim, inputs, eqn.outputs, eqn.params, eqn.source))

    def read(self, atom: Atom) -> Atom:
        """What stands for an atom outside blocks."""
        if type(atom) is Literal or not self.rolling.is_inside(atom):
            return atom
        for view in reversed(self.rolling.base(atom)[1]):
            if view.outputs[0] not in self._views:
                self.append(copied(view, self._views))
        return self._views.get(atom, atom)


def copied(eqn: Equation, env: dict[Atom, Atom]) -> Equation:
    """The equation with inputs looked up in `env` and new outputs, which are noted there."""
    outputs = tuple([Var(v.aval) for v in eqn.outputs])
    inputs = tuple([env.get(a, a) for a in eqn.inputs])
    env.update(zip(eqn.outputs, outputs, strict=True))
    return Equation(eqn.prim, inputs, outputs, eqn.params, eqn.source)


def _nbytes(atom: Atom) -> int:
    return atom.aval.size * atom.aval.dtype.itemsize if type(atom.aval) is Aval else 1

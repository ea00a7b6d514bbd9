# SPDX-License-Identifier: MIT
"""What a forward program leaves for its derivative: no views and no constants, which the derivative makes itself.

    forward: ... b = exp a ; c = broadcast_in_dim b ; ...  leaves c        becomes        leaves b
    linear:  c, t -> mul c t                                               becomes        b, t -> c = broadcast b ; ...

A view (a broadcast, a permutation, a reshape, a reversal) costs nothing where it is read, and an array where it is
stored. What it is a view of is never larger. Integers and truth values that depend on no input (a causal mask) are
made again, too.
"""

from collections.abc import Sequence
from typing import NamedTuple

from functorch_lite.core.primitive import Kind
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.movement import permute_dims_p, reshape_p, rev_p

_VIEWS = frozenset((broadcast_in_dim_p, permute_dims_p, reshape_p, rev_p))
_CHEAP = frozenset((Kind.ELEMENTWISE, Kind.BROADCAST, Kind.MOVEMENT))


class Residuals(NamedTuple):
    """The linear program, which inputs of the forward program come first in it, and the computed ones that follow."""

    linear: Program
    from_inputs: tuple[int, ...]
    computed: tuple[Atom, ...]


def without_views(forward: Program, linear: Program, from_inputs: Sequence[int], computed: Sequence[Atom]) -> Residuals:
    """The linear program, which computes the views among the residuals itself.

    computed: atoms of the forward program, which the linear program takes after the inputs `from_inputs` says.
    """
    return _Sinking(forward, linear, from_inputs).run(computed)


def _makers(forward: Program) -> dict[Atom, Equation]:
    """The equations that the linear program may have again, by what they compute."""
    found: dict[Atom, Equation] = {}
    closed: set[Atom] = set()
    for e in forward.equations:
        plain = e.prim.kind in _CHEAP and not e.prim.multiple
        if plain and e.outputs[0].aval.dtype.kind in "biu" and all(type(a) is Literal or a in closed for a in e.inputs):
            closed.add(e.outputs[0])
            found[e.outputs[0]] = e
        elif e.prim in _VIEWS:
            found[e.outputs[0]] = e
    return found


class _Sinking:
    def __init__(self, forward: Program, linear: Program, from_inputs: Sequence[int]):
        self.linear = linear
        self.makers = _makers(forward)
        self.numbers: dict[Atom, int] = {v: i for i, v in enumerate(forward.inputs)}
        self.given: dict[Atom, Var] = {forward.inputs[i]: v for i, v in zip(from_inputs, linear.inputs, strict=False)}
        self.equations: list[Equation] = []
        self.constants: dict[Atom, Atom] = {}

    def run(self, computed: Sequence[Atom]) -> Residuals:
        start = len(self.given)
        for atom, var in zip(computed, self.linear.inputs[start : start + len(computed)], strict=True):
            self._provide(atom, var)
        inputs = [v for v in self.given if v in self.numbers]
        others = [v for v in self.given if v not in self.numbers]
        tangents = self.linear.inputs[start + len(computed) :]
        variables = tuple(self.given[v] for v in (*inputs, *others)) + tangents
        equations = (*self.equations, *map(self._with_constants, self.linear.equations))
        linear = Program(variables, equations, self.linear.outputs, self.linear.name)
        return Residuals(linear, tuple(self.numbers[v] for v in inputs), tuple(others))

    def _provide(self, atom: Atom, var: Var) -> None:
        """Have the linear program's variable stand for an atom of the forward program."""
        if type(atom) is Literal:
            self.constants[var] = atom
        elif atom in self.makers:
            self._make(atom, var)
        elif atom in self.given:
            self.constants[var] = self.given[atom]
        else:
            self.given[atom] = var

    def _read(self, atom: Atom) -> Atom:
        """The atom of the linear program that is an atom of the forward program."""
        if type(atom) is Literal:
            return atom
        if atom not in self.makers:
            return self.given.setdefault(atom, Var(atom.aval))
        return self._make(atom, Var(atom.aval))

    def _make(self, atom: Atom, out: Var) -> Var:
        maker = self.makers[atom]
        inputs = tuple([self._read(a) for a in maker.inputs])
        self.equations.append(Equation(maker.prim, inputs, (out,), maker.params, maker.source))
        return out

    def _with_constants(self, equation: Equation) -> Equation:
        if not self.constants:
            return equation
        inputs = tuple([self.constants.get(a, a) for a in equation.inputs])
        return Equation(equation.prim, inputs, equation.outputs, equation.params, equation.source)

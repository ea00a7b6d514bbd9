# SPDX-License-Identifier: MIT
"""Constant folding: equations of constants only are computed now, by their eval rules.

    a = sin 2.0 ; b = mul x a          becomes      b = mul x 0.9092974268256817

An equation is folded where all of its inputs are known and its outputs take at most `MAX_BYTES` together. What is
cheap to make and large to keep is known, yet stays an equation (dead code elimination drops it when nobody reads it):
iota, and an array that is one scalar everywhere. An element-wise equation of such arrays is computed once, as a
scalar.

Not folded: effects, calls and loops, callbacks, collectives, barriers, and whatever raises (it is to raise at run
time, with the user's line, and only if it is reached). Right because eval rules are what run time would call, with
the same values; a literal has exactly the dtype of the variable it stands for.
"""

from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.passes.rewriting import (
    WITH_BODIES,
    literal,
    program_pass,
    rebuilt,
    with_bodies,
)
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var
from functorch_lite.core.rules import eval_rules
from functorch_lite.core.tracer import root, tracing
from functorch_lite.primitives.barrier import barrier_p
from functorch_lite.primitives.broadcast import broadcast_in_dim_p, iota_p
from functorch_lite.primitives.host import pure_callback_p

MAX_BYTES = 4096
_NEVER = frozenset((barrier_p, pure_callback_p))
_NEVER_KINDS = frozenset((Kind.HIGHER_ORDER, Kind.COLLECTIVE))


class Splat(NamedTuple):
    """An array that is one scalar everywhere."""

    value: Literal


@program_pass
def fold_constants(program: Program) -> Program:
    """The program with equations of constants replaced by literals."""
    folder = _Folder()
    changed = False
    for eqn in program.equations:
        changed |= folder.visit(eqn)
    if not changed:
        return program
    find = folder.literals.get
    return rebuilt(program, folder.equations, list(map(find, program.outputs, program.outputs)))


class _Folder:
    """literals: what is replaced. lazy: what is known and stays an equation."""

    def __init__(self):
        self.literals: dict[Atom, Atom] = {}
        self.lazy: dict[Atom, Equation | Splat] = {}
        self.equations: list[Equation] = []

    def visit(self, eqn: Equation) -> bool:
        """Fold the equation or append it; whether anything changed."""
        inputs, changed = eqn.inputs, False
        if self.literals:
            inputs = tuple(map(self.literals.get, inputs, inputs))
            changed = inputs != eqn.inputs
            if changed:
                eqn = Equation(eqn.prim, inputs, eqn.outputs, eqn.params, eqn.source)
        lazy = self.lazy
        for a in inputs:
            if type(a) is not Literal and a not in lazy:
                break
        else:
            if self._fold(eqn):
                return True
        if eqn.prim in WITH_BODIES:
            new = with_bodies(eqn, fold_constants)
            changed |= new is not eqn
            eqn = new
        self.equations.append(eqn)
        return changed

    def _fold(self, eqn: Equation) -> bool:
        """Whether the equation is gone; one that is only known now is not."""
        prim, out = eqn.prim, eqn.outputs
        if prim.effect or prim in _NEVER or prim.kind in _NEVER_KINDS or not out:
            return False
        if prim is iota_p or (prim is broadcast_in_dim_p and not eqn.params["dims"]):
            self.lazy[out[0]] = eqn if prim is iota_p else Splat(self._scalar_of(eqn.inputs[0]))
            return False
        if self._fold_splats(eqn):
            return True
        if sum(_bytes(v.aval) for v in out) > MAX_BYTES:
            return False
        found = _computed(eqn, [self._value(a) for a in eqn.inputs]) if self._all_small(eqn) else None
        if found is None:
            return False
        self.literals.update(zip(out, found, strict=True))
        return True

    def _fold_splats(self, eqn):
        """Compute an element-wise equation of scalars and splats once, and spread the result."""
        shape = eqn.outputs[0].aval.shape if len(eqn.outputs) == 1 else ()
        if not shape or eqn.prim.kind is not Kind.ELEMENTWISE:
            return False
        scalars = [self._scalar_of(a) for a in eqn.inputs]
        if any(s is None for s in scalars):
            return False
        aval = Aval((), eqn.outputs[0].aval.dtype)
        found = _computed(Equation(eqn.prim, tuple(scalars), (Var(aval),), eqn.params), [s.value for s in scalars])
        if found is None:
            return False
        facts = {"shape": shape, "dims": ()}
        self.equations.append(Equation(broadcast_in_dim_p, tuple(found), eqn.outputs, facts, eqn.source))
        self.lazy[eqn.outputs[0]] = Splat(found[0])
        return True

    def _scalar_of(self, atom: Atom) -> Any:
        """The rank-0 literal that the array is made of, or None."""
        if type(atom) is Literal:
            return None if atom.aval.shape else atom
        known = self.lazy[atom]
        return known.value if type(known) is Splat else None

    def _all_small(self, eqn):
        return all(type(a) is Literal or _bytes(a.aval) <= MAX_BYTES for a in eqn.inputs)

    def _value(self, atom: Atom) -> Any:
        if type(atom) is Literal:
            return atom.value
        known = self.lazy[atom]
        if isinstance(known, Splat):
            return np.full(atom.aval.shape, known.value.value, atom.aval.dtype)
        return eval_rules[iota_p](np, **known.params)


def _bytes(aval):
    return aval.size * aval.dtype.itemsize if isinstance(aval, Aval) and aval.dtype != dtypes.float0 else 1 << 62


def _computed(eqn: Equation, values: list[Any]) -> list[Literal] | None:
    """The outputs as literals; None where the rule raises, or is not defined for scalars."""
    arrays = [np.asarray(v, a.aval.dtype) for v, a in zip(values, eqn.inputs, strict=True)]
    try:
        with np.errstate(all="ignore"), tracing(root):
            found = eval_rules[eqn.prim](np, *arrays, **eqn.params)
        results = [np.asarray(f) for f in (found if eqn.prim.multiple else [found])]
    except Exception:
        return None
    for array, var in zip(results, eqn.outputs, strict=True):
        if (array.shape, array.dtype) != (var.aval.shape, var.aval.dtype):
            return None
    return [literal(array.copy(), array.dtype) for array in results]

# SPDX-License-Identifier: MIT
"""Common subexpression elimination: of equal equations the first one stays.

    a = sin x ; b = sin x ; c = add a b          becomes      a = sin x ; c = add a a

Equations are equal if primitive, inputs and parameters are: literals by dtype, shape and bytes, programs among the
parameters by fingerprint, functions by identity. Right because an equation without effect gives the same for the same
inputs. Effects are never merged, nor is a `barrier`: its outputs are new variables, so nothing behind one is ever
equal to anything before it, and a checkpointed function is computed again.
"""

from typing import Any

import numpy as np

from functorch_lite.compiler.passes.rewriting import (
    WITH_BODIES,
    literal_key,
    program_pass,
    rebuilt,
    with_bodies,
)
from functorch_lite.core.program import Atom, Equation, Literal, Program, subprograms
from functorch_lite.primitives.barrier import barrier_p

MOST_HASHED = 4  # operands: equations that have these in common are compared


@program_pass
def eliminate_common(program: Program) -> Program:
    """The same function, which computes nothing twice."""
    env: dict[Atom, Atom] = {}
    seen: dict[Any, list[tuple[tuple[Any, ...], Equation]]] = {}
    literals: dict[Literal, Any] = {}
    equations: list[Equation] = []
    changed = False
    for eqn in program.equations:
        inputs = eqn.inputs
        if env and not env.keys().isdisjoint(inputs):
            inputs = tuple(map(env.get, inputs, inputs))
            eqn = Equation(eqn.prim, inputs, eqn.outputs, eqn.params, eqn.source)
            changed = True
        prim = eqn.prim
        if prim in WITH_BODIES:
            new = with_bodies(eqn, eliminate_common)
            changed |= new is not eqn
            eqn = new
        if prim.effect or prim is barrier_p:
            equations.append(eqn)
            continue
        if Literal in map(type, inputs):
            inputs = tuple([_key(a, literals) if type(a) is Literal else a for a in inputs])
        key = prim, inputs[:MOST_HASHED]
        before = seen.get(key)
        if before is None:
            seen[key] = [(inputs, eqn)]
            equations.append(eqn)
            continue
        same = _equal_one([e for known, e in before if known == inputs], eqn)
        if same is None:
            before.append((inputs, eqn))
            equations.append(eqn)
        else:
            env.update(zip(eqn.outputs, same.outputs, strict=True))
            changed = True
    return rebuilt(program, equations, list(map(env.get, program.outputs, program.outputs))) if changed else program


def _key(atom: Literal, known: dict[Literal, Any]) -> Any:
    found = known.get(atom)
    if found is None:
        found = known[atom] = literal_key(atom)
    return found


def _equal_one(candidates: list[Equation], eqn: Equation) -> Equation | None:
    """The equation among those of the same primitive and inputs that has the same parameters, too."""
    params = eqn.params
    if any(p.has_effects for p in subprograms(params)):
        return None
    return next((c for c in candidates if c.params is params or _same(c.params, params)), None)


def _same(a: Any, b: Any) -> bool:
    """Whether two parameters are the same: 1 is not 1.0 or True, -0.0 is not 0.0."""
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b):
        return False
    if kind is dict:
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if kind in (float, complex) or isinstance(a, np.generic):
        return repr(a) == repr(b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return not callable(a) and bool(a == b)

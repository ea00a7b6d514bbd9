# SPDX-License-Identifier: MIT
"""Random keys in memory: a hash of many keys that are hashes themselves reads them, and does not compute them anew.

    b:u32[9,2] = split_key a ; c:u32[9,4] = random_bits b       becomes
    b:u32[9,2] = split_key a ; d:u32[9,2] = barrier b ; c:u32[9,4] = random_bits d

The scheduler computes a hash where it is read. For hashes of hashes of a loop's index that would be every hash of the
chain once an element, in one expression, whose optimization takes LLVM ten times longer with each further hash. A
barrier gives the keys memory, so each kernel has one hash. A single key is left alone: its hash is a constant of loops.
"""

import math

from functorch_lite.compiler.passes.rewriting import program_pass, rebuilt, with_bodies
from functorch_lite.core.primitive import Kind
from functorch_lite.core.program import Atom, Equation, Program, Var
from functorch_lite.primitives.barrier import barrier_p
from functorch_lite.primitives.random_bits import fold_in_key_p, random_bits_p, split_key_p

_KEYS = frozenset((split_key_p, fold_in_key_p))
_HASHES = frozenset((random_bits_p, *_KEYS))
_MOVES = frozenset((Kind.BROADCAST, Kind.MOVEMENT))
_ONE_KEY = 2  # words


@program_pass
def hold_keys(program: Program) -> Program:
    """The program with a barrier on each array of keys that one hash computes and another reads."""
    computed: set[Atom] = set()  # keys that are not in memory: outputs of hashes, and parts of them
    held: dict[Atom, Var] = {}
    equations: list[Equation] = []
    changed = False
    for eqn in program.equations:
        new = with_bodies(eqn, hold_keys)
        changed |= new is not eqn
        if eqn.prim in _KEYS or (eqn.prim.kind in _MOVES and any(a in computed for a in eqn.inputs)):
            computed.update(eqn.outputs)
        if eqn.prim in _HASHES and eqn.inputs[0] in computed and math.prod(eqn.inputs[0].aval.shape) > _ONE_KEY:
            key, *rest = eqn.inputs
            if key not in held:
                held[key] = Var(key.aval)
                equations.append(Equation(barrier_p, (key,), (held[key],), {}, eqn.source))
            new = Equation(eqn.prim, (held[key], *rest), eqn.outputs, eqn.params, eqn.source)
            changed = True
        equations.append(new)
    return rebuilt(program, equations, program.outputs) if changed else program

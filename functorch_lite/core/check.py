# SPDX-License-Identifier: MIT
"""The verifier of programs: every variable is defined once and before use, and every equation has its rule's type."""

from functorch_lite.core.program import Literal, Program, subprograms
from functorch_lite.core.rules import shape_rules


def check_program(program: Program) -> None:
    """Raise ValueError naming the first equation that breaks a rule of the representation."""
    known = set(program.inputs)
    if len(known) != len(program.inputs):
        raise ValueError(f"program {program.name}: an input appears twice.")
    for index, eqn in enumerate(program.equations):
        where = f"program {program.name}, equation {index} ({eqn.prim.name})"
        for atom in eqn.inputs:
            if type(atom) is not Literal and atom not in known:
                raise ValueError(f"{where}: an operand of type {atom.aval} is used before it is defined.")
        expected = shape_rules[eqn.prim](*[a.aval for a in eqn.inputs], **eqn.params)
        expected = list(expected) if eqn.prim.multiple else [expected]
        found = [v.aval for v in eqn.outputs]
        if expected != found:
            raise ValueError(f"{where}: has type {_types(found)}, its rule gives {_types(expected)}.")
        for var in eqn.outputs:
            if var in known:
                raise ValueError(f"{where}: a variable is assigned twice.")
            known.add(var)
        for sub in subprograms(eqn.params):
            check_program(sub)
    for atom in program.outputs:
        if type(atom) is not Literal and atom not in known:
            raise ValueError(f"program {program.name}: an output of type {atom.aval} is never defined.")


def _types(avals):
    return ", ".join(map(str, avals))

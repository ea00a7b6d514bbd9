# SPDX-License-Identifier: MIT
"""Dead code elimination: drop equations whose outputs nobody uses and that have no effect."""

from functorch_lite.core.program import Program, subprograms


def eliminate_dead_code(program: Program) -> Program:
    """The same function without equations that reach no output; inputs stay as they are."""
    live = set(program.outputs)
    kept = []
    for eqn in reversed(program.equations):
        effect = eqn.prim.effect or any(p.has_effects for p in subprograms(eqn.params))
        if effect or any(v in live for v in eqn.outputs):
            kept.append(eqn)
            live.update(eqn.inputs)
    if len(kept) == len(program.equations):
        return program
    return Program(program.inputs, tuple(reversed(kept)), program.outputs, program.name)

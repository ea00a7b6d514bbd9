# SPDX-License-Identifier: MIT
"""What is transposed and read by nothing else is made in that order: products, and padded arrays.

    c = dot_general a b ; d = permute_dims c       becomes      d = dot_general b a
    c = pad a ; d = permute_dims c                 becomes      b = permute_dims a ; d = pad b

The transposition would be a copy of the whole, or a kernel that reads across the rows. The first is the gradient of a
weight that is stored [out, in]. Right because products of real numbers commute: each sum has the same terms. A product
of few columns stays: its columns would not fill a vector.
"""

import math

from functorch_lite.compiler.passes.rewriting import program_pass, rebuilt, replaced, with_bodies
from functorch_lite.core.aval import Aval
from functorch_lite.core.dtypes import is_complex
from functorch_lite.core.program import Atom, Equation, Program, Var
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.movement import pad_p, permute_dims_p, reshape_p

FEWEST_COLUMNS = 16


@program_pass
def turn_products(program: Program) -> Program:
    """The program with products and padded arrays in the order in which they are read."""
    made = _read_once(program)
    turned: dict[Atom, list[Equation]] = {}  # by the arrays that they take the place of
    for eqn in program.equations:
        if eqn.prim is permute_dims_p and eqn.inputs[0] in made:
            maker = made[eqn.inputs[0]]
            found = (_turned if maker.prim is dot_general_p else _moved)(eqn, maker)
            if found:
                turned[eqn.inputs[0]] = found
    equations: list[Equation] = []
    changed = bool(turned)
    gone = {found[-1].outputs[0] for found in turned.values()}
    for eqn in program.equations:
        new = with_bodies(eqn, turn_products)
        changed |= new is not eqn
        if len(new.outputs) != 1 or new.outputs[0] not in gone:
            equations += turned.get(new.outputs[0], [new]) if len(new.outputs) == 1 else [new]
    return rebuilt(program, equations, program.outputs) if changed else program


def _read_once(program: Program) -> dict[Atom, Equation]:
    """The products and padded arrays that are read in one place."""
    made: dict[Atom, Equation] = {e.outputs[0]: e for e in program.equations if e.prim in (dot_general_p, pad_p)}
    uses = dict.fromkeys(made, 0)
    for atom in (*(a for e in program.equations for a in e.inputs), *program.outputs) if made else ():
        if atom in uses:
            uses[atom] += 1
    return {v: e for v, e in made.items() if uses[v] == 1}


def _turned(permuted: Equation, product: Equation) -> list[Equation]:
    """The product with its operands exchanged, if that is what the permutation makes of it."""
    x, y = product.inputs
    contract, batch = product.params["contract"], product.params["batch"]
    n_batch, ends = len(batch[0]), len(x.aval.shape) - len(contract[0])
    rank = len(product.outputs[0].aval.shape)
    axes = (*range(n_batch), *range(ends, rank), *range(n_batch, ends))
    columns = math.prod(permuted.outputs[0].aval.shape[n_batch + rank - ends :])
    if is_complex(x.aval.dtype) or permuted.params["axes"] != axes or columns < FEWEST_COLUMNS:
        return []
    return [replaced(permuted, dot_general_p, y, x, contract=contract[::-1], batch=batch[::-1])]


def _moved(permuted: Equation, pad: Equation) -> list[Equation]:
    """The permutation of what is padded, and the padding."""
    x, value = pad.inputs
    axes, config = permuted.params["axes"], pad.params["config"]
    shape = tuple([x.aval.shape[a] for a in axes])
    out = Var(Aval(shape, x.aval.dtype))
    wide = [a for a in axes if x.aval.shape[a] != 1]
    prim, params = (reshape_p, {"shape": shape}) if wide == sorted(wide) else (permute_dims_p, {"axes": axes})
    first = Equation(prim, (x,), (out,), params, permuted.source)
    return [first, replaced(permuted, pad_p, out, value, config=tuple([config[a] for a in axes]))]

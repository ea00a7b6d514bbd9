# SPDX-License-Identifier: MIT
"""What is transposed and read by nothing else is made in that order: products, convolutions and padded arrays.

    c = dot_general a b ; d = permute_dims c       becomes      d = dot_general b a
    c = conv a b ; d = permute_dims c              becomes      d = conv[order] a b
    b = rev a ; c = permute_dims b ; d = conv x c  becomes      c = permute_dims a ; d = conv[flipped] x c
    c = pad a ; d = permute_dims c                 becomes      b = permute_dims a ; d = pad b

The transposition would be a copy of the whole, or a kernel that reads across the rows. The first is the gradient of a
weight that is stored [out, in], the second a convolution whose channels come last, the third a convolution's gradient.
Right because products of real numbers commute: each sum has the same terms. A product of few columns stays: its columns
would not fill a vector.
"""

import math
from collections.abc import Sequence

from functorch_lite.compiler.passes.rewriting import program_pass, rebuilt, replaced, with_bodies
from functorch_lite.core.aval import Aval
from functorch_lite.core.dtypes import is_complex
from functorch_lite.core.program import Atom, Equation, Program, Var
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.convolution import conv_general_dilated_p
from functorch_lite.primitives.movement import pad_p, permute_dims_p, reshape_p, rev_p

FEWEST_COLUMNS = 16


@program_pass
def turn_products(program: Program) -> Program:
    """The program with products and padded arrays in the order in which they are read."""
    makers: dict[Atom, Equation] = {e.outputs[0]: e for e in program.equations if e.prim in (permute_dims_p, rev_p)}
    made = _read_once(program) if makers else {}
    turned: dict[Atom, list[Equation]] = {}  # by the arrays that they take the place of
    for eqn in program.equations:
        if eqn.prim is permute_dims_p and eqn.inputs[0] in made:
            maker = made[eqn.inputs[0]]
            found = _RULES[maker.prim](eqn, maker)
            if found:
                turned[eqn.inputs[0]] = found
    equations: list[Equation] = []
    changed = bool(turned)
    gone = {found[-1].outputs[0] for found in turned.values()}
    for eqn in program.equations:
        new = with_bodies(eqn, turn_products)
        changed |= new is not eqn
        if len(new.outputs) != 1 or new.outputs[0] not in gone:
            found = turned.get(new.outputs[0], [new]) if len(new.outputs) == 1 else [new]
            before = _unflipped(found[-1], makers) if found[-1].prim is conv_general_dilated_p else None
            changed |= before is not None
            equations += found if before is None else before
    return rebuilt(program, equations, program.outputs) if changed else program


def _read_once(program: Program) -> dict[Atom, Equation]:
    """The products, convolutions and padded arrays that are read in one place."""
    made: dict[Atom, Equation] = {e.outputs[0]: e for e in program.equations if e.prim in _RULES}
    uses = dict.fromkeys(made, 0)
    for atoms in (*[e.inputs for e in program.equations], program.outputs) if made else ():
        if not uses.keys().isdisjoint(atoms):
            for atom in uses.keys() & set(atoms):
                uses[atom] += atoms.count(atom)
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


def _ordered(permuted: Equation, convolution: Equation) -> list[Equation]:
    """The convolution with its output's axes in that order."""
    axes, order = permuted.params["axes"], convolution.params.get("order")
    order = axes if order is None else tuple([order[a] for a in axes])
    return [replaced(permuted, conv_general_dilated_p, *convolution.inputs, **{**convolution.params, "order": order})]


def _unflipped(convolution: Equation, makers: dict[Atom, Equation]) -> list[Equation] | None:
    """The convolution with its kernel read from where it is in the other direction, if it is reversed before."""
    x, w = convolution.inputs
    permuted = makers.get(w)
    axes: Sequence[int] = range(len(w.aval.shape))
    if permuted is not None and permuted.prim is permute_dims_p:
        axes, permuted = permuted.params["axes"], makers.get(permuted.inputs[0])
    if permuted is None or permuted.prim is not rev_p or "flipped" in convolution.params:
        return None
    flipped = tuple([k for k, a in enumerate(axes) if a in permuted.params["axes"]])
    kernel, out = w.aval.shape[2:], math.prod(convolution.outputs[0].aval.shape)
    if min(flipped) < 2 or math.prod(kernel) * x.aval.shape[0] * w.aval.shape[0] > out or is_complex(x.aval.dtype):
        return None
    params = {**convolution.params, "flipped": flipped}
    if isinstance(axes, range):
        return [replaced(convolution, conv_general_dilated_p, x, permuted.inputs[0], **params)]
    there = Var(w.aval)
    return [Equation(permute_dims_p, permuted.inputs, (there,), {"axes": axes}, convolution.source),
            replaced(convolution, conv_general_dilated_p, x, there, **params)]


_RULES = {dot_general_p: _turned, conv_general_dilated_p: _ordered, pad_p: _moved}

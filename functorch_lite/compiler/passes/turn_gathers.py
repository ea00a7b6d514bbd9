# SPDX-License-Identifier: MIT
"""Gathers from a transposed array read the array itself, along the axes that it has.

    b = permute_dims[axes=(1, 0, 2)] a ; c = gather b i ; d = permute_dims[axes=(1, 0, 2)] c      x[:, i]
    becomes
    d = gather[lead=1] a i

A gather reads an array in memory, so the transposition before it would be a copy of the whole, and the one after it
another. What is left of the two is one permutation of the result, or none. Constant indices that repeat each place, as
where an image is enlarged, are a broadcast.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from functorch_lite.compiler.passes import canonical
from functorch_lite.compiler.passes.rewriting import WITH_BODIES, Rewriter, Rule, program_pass, replaced, rewrite
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.indexing import gather_p
from functorch_lite.primitives.movement import permute_dims_p, reshape_p


@program_pass
def turn_gathers(program: Program) -> Program:
    """The program with gathers along any axes of arrays that are in order."""
    if all(e.prim is not gather_p and e.prim not in WITH_BODIES for e in program.equations):
        return program
    return rewrite(program, _RULES, turn_gathers)


def _gather(eqn: Equation, rewriter: Rewriter) -> Any:
    if "lead" in eqn.params:
        return None
    x, *indices = eqn.inputs
    axes, k, s = tuple(range(len(x.aval.shape))), len(indices), len(indices[0].aval.shape)
    permuted = rewriter.maker(x, permute_dims_p)
    if permuted is not None:
        first = permuted.params["axes"][0]
        if permuted.params["axes"][:k] == tuple(range(first, first + k)):
            x, axes = permuted.inputs[0], permuted.params["axes"]
    lead = axes[0]
    times = _times(indices, x.aval.shape[lead])
    if x is eqn.inputs[0] and not times:
        return None
    if times:
        found = _repeated(x, lead, times, rewriter)
    else:
        found = rewriter.emit(gather_p, x, *indices, **eqn.params, **({"lead": lead} if lead else {}))
    kept = [a if a < lead else a - k + s for a in axes[k:]]
    order = (*range(lead, lead + s), *kept)
    return found if order == tuple(range(len(order))) else replaced(eqn, permute_dims_p, found, axes=order)


def _times(indices: Sequence[Atom], n: int) -> int:
    """How often constant indices repeat each of n places in order; 0 if they do not, or once."""
    index = indices[0]
    if len(indices) != 1 or type(index) is not Literal or len(index.aval.shape) != 1 or not n:
        return 0
    times, rest = divmod(index.aval.size, n)
    if times < 2 or rest:
        return 0
    return times if np.array_equal(index.value, np.arange(n).repeat(times)) else 0


def _repeated(x: Atom, axis: int, times: int, rewriter: Rewriter) -> Var:
    """An array with each element along an axis so many times."""
    shape = x.aval.shape
    wide = (*shape[: axis + 1], times, *shape[axis + 1 :])
    dims = tuple([d + (d > axis) for d in range(len(shape))])
    spread = rewriter.emit(broadcast_in_dim_p, x, shape=wide, dims=dims)
    return rewriter.emit(reshape_p, spread, shape=(*shape[:axis], shape[axis] * times, *shape[axis + 1 :]))


_RULES: Mapping[Primitive, Rule] = {gather_p: _gather, permute_dims_p: canonical.permuted}

# SPDX-License-Identifier: MIT
"""Collective family: operations across the rows of a named mapped axis.

A collective's value differs from row to row of the axis, so it has no eval rule: the `vmap` that binds the name
interprets it (`transforms.collectives`). Here are types and derivatives.

    psum^T = psum,  all_gather^T = psum_scatter,  ppermute^T = ppermute of the inverse,  all_to_all^T = itself
"""

import numpy as np

from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind
from functorch_lite.errors import ShapeError
from functorch_lite.primitives.declare import linear
from functorch_lite.primitives.movement import moveaxis

psum_p = Primitive("psum", Kind.COLLECTIVE)
all_gather_p = Primitive("all_gather", Kind.COLLECTIVE)
psum_scatter_p = Primitive("psum_scatter", Kind.COLLECTIVE)
ppermute_p = Primitive("ppermute", Kind.COLLECTIVE)
all_to_all_p = Primitive("all_to_all", Kind.COLLECTIVE)
axis_index_p = Primitive("axis_index", Kind.COLLECTIVE)


def _leading(name: str, x: Aval, size: int) -> None:
    if not x.shape or x.shape[0] != size:
        raise ShapeError(f"{name}: the leading axis of shape {x.shape} must have the size of the named axis, {size}.")


shape_rules.add(psum_p, lambda x, *, axis_name, axis_size: x)
shape_rules.add(ppermute_p, lambda x, *, axis_name, axis_size, perm: x)
shape_rules.add(all_gather_p, lambda x, *, axis_name, axis_size: Aval((axis_size, *x.shape), x.dtype))
shape_rules.add(axis_index_p, lambda *, axis_name, axis_size: Aval((), np.dtype(np.int32)))


@shape_rules.register(psum_scatter_p)
def _(x, *, axis_name, axis_size):
    _leading("psum_scatter", x, axis_size)
    return Aval(x.shape[1:], x.dtype)


@shape_rules.register(all_to_all_p)
def _(x, *, axis_name, axis_size):
    _leading("all_to_all", x, axis_size)
    return x


linear(psum_p, lambda ct, x, **facts: bind(psum_p, ct, **facts))
linear(all_gather_p, lambda ct, x, **facts: bind(psum_scatter_p, ct, **facts))
linear(psum_scatter_p, lambda ct, x, **facts: bind(all_gather_p, ct, **facts))
linear(all_to_all_p, lambda ct, x, **facts: bind(all_to_all_p, ct, **facts))
linear(
    ppermute_p,
    lambda ct, x, *, perm, **facts: bind(ppermute_p, ct, perm=tuple((b, a) for a, b in perm), **facts),
)
jvp_rules.absent(axis_index_p, "it has no inputs")
transpose_rules.absent(axis_index_p, "it has no inputs")
batch_rules.absent(axis_index_p, "it has no inputs")
for _prim in (psum_p, all_gather_p, psum_scatter_p, ppermute_p, all_to_all_p, axis_index_p):
    eval_rules.absent(_prim, "the vmap that binds its axis name interprets it")


# A collective over another axis than the mapped one: the mapped axis only has to be out of the way.
def _same_place(prim):
    batch_rules.add(prim, lambda size, args, batched, **facts: (bind(prim, args[0], **facts), True))


_same_place(psum_p)
_same_place(ppermute_p)
batch_rules.add(
    all_gather_p, lambda size, args, batched, **facts: (moveaxis(bind(all_gather_p, args[0], **facts), 0, 1), True)
)
batch_rules.add(
    psum_scatter_p, lambda size, args, batched, **facts: (bind(psum_scatter_p, moveaxis(args[0], 0, 1), **facts), True)
)
batch_rules.add(
    all_to_all_p,
    lambda size, args, batched, **facts: (moveaxis(bind(all_to_all_p, moveaxis(args[0], 0, 1), **facts), 0, 1), True),
)

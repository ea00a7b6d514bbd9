# SPDX-License-Identifier: MIT
"""Lowering of matrix parts: triangles, diagonals and unit matrices are index maps."""

from typing import Any

from functorch_lite.compiler.loop_ir.nodes import Index
from functorch_lite.compiler.lowering.elementwise import zero
from functorch_lite.compiler.lowering.rules import Pair, Point, is_complex, movement_rules
from functorch_lite.primitives import matrix as p


def _compared(at: Point, name: str, i: Any, j: Any) -> Any:
    """A comparison of two positions."""
    return at.op(name, at.b.value_of(i, "i64"), at.b.value_of(j, "i64"))


def _triangle(at, reads, index, *, k, lower):
    inside = _compared(at, "le" if lower else "ge", index[-1] - index[-2], Index(k))
    return at.select(inside, reads[0](index), zero(at))


def _diagonal_matrix(at, reads, index):
    return at.select(_compared(at, "eq", index[-1], index[-2]), reads[0](index[:-1]), zero(at))


def _identity(at, reads, index):
    one = at.constant(1)
    inside = _compared(at, "eq", index[-1], index[-2])
    return at.select(inside, Pair(one, at.constant(0)) if is_complex(at.out.dtype) else one, zero(at))


movement_rules.add(p.triangle_p, _triangle)
movement_rules.add(p.diagonal_p, lambda at, reads, index: reads[0]([*index, index[-1]]))
movement_rules.add(p.diagonal_matrix_p, _diagonal_matrix)
movement_rules.add(p.identity_p, _identity)

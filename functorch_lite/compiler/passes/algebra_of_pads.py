# SPDX-License-Identifier: MIT
"""Algebra of zero padding: parts that are padded to a whole and added up are put side by side.

    add (add (pad a [0, 4]) (pad b [2, 2])) (pad c [4, 0])     becomes     concatenate (a + 0) (b + 0) (c + 0)

That is the derivative of cutting an array in parts, such as the gates of a recurrent layer or the three projections of
attention. Exact: every element is one number of one part to which zeros are added, and -0 + 0 is 0, hence the + 0.
"""

from typing import NamedTuple

from functorch_lite.compiler.passes.rewriting import Rewriter, literal, replaced, scalar
from functorch_lite.core.dtypes import dtype_kind
from functorch_lite.core.program import Atom, Equation
from functorch_lite.primitives.elementwise import add_p
from functorch_lite.primitives.movement import concatenate_p, pad_p

MOST_PARTS = 32


class Part(NamedTuple):
    """What is padded with zeros along one axis: from `start` to `end` of the whole it is `value`."""

    axis: int
    start: int
    end: int
    value: Atom


def joined_pads(eqn: Equation, rewriter: Rewriter) -> Equation | None:
    """A sum whose terms are padded parts that fill the whole, each element of it once, as a concatenation."""
    parts: list[Part] = []
    if not _collect(eqn, rewriter, parts):
        return None
    parts.sort(key=lambda p: p.start)
    axis, whole = parts[0].axis, eqn.outputs[0].aval.shape
    ends = [0, *(p.end for p in parts)]
    if any(p.axis != axis for p in parts) or [p.start for p in parts] != ends[:-1] or ends[-1] != whole[axis]:
        return None
    dtype = eqn.outputs[0].aval.dtype
    values = [p.value for p in parts]
    if dtype_kind(dtype) not in "iub":
        zero = literal(0, dtype)
        values = [rewriter.emit(add_p, v, zero) for v in values]
    return replaced(eqn, concatenate_p, *values, axis=axis)


def _collect(eqn: Equation, rewriter: Rewriter, parts: list[Part]) -> bool:
    """Append the terms of a sum; False if one is not a padded part, or there are too many."""
    for x in reversed(eqn.inputs):
        made = rewriter.made.get(x)
        if made is None or len(parts) >= MOST_PARTS:
            return False
        if made.prim is add_p:
            if not _collect(made, rewriter, parts):
                return False
            continue
        part = _part(made) if made.prim is pad_p else None
        if part is None:
            return False
        parts.append(part)
    return True


def _part(eqn: Equation) -> Part | None:
    x, value = eqn.inputs
    number = scalar(value)
    padded = [(axis, c) for axis, c in enumerate(eqn.params["config"]) if tuple(c) != (0, 0, 0)]
    if number is None or number != 0 or len(padded) != 1:
        return None
    axis, (low, high, between) = padded[0]
    if low < 0 or high < 0 or between or not x.aval.shape[axis]:
        return None
    return Part(axis, low, low + x.aval.shape[axis], x)

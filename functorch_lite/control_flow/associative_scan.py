# SPDX-License-Identifier: MIT
"""associative_scan: all prefix results of an associative operation in logarithmic depth.

    pairs are combined, the half-length problem is solved, and the other half follows by one more combination:
    out[1::2] = scan(fn(x[0::2], x[1::2])),  out[2::2] = fn(out[1:-1:2], x[2::2])

Source: Blelloch, "Prefix sums and their applications", 1990.
"""

from collections.abc import Callable
from typing import Any

from functorch_lite import tree
from functorch_lite.core.aval import aval_of
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.primitives.comparison import zero_like
from functorch_lite.primitives.elementwise import add
from functorch_lite.primitives.movement import concatenate, pad, rev, slice_in_axis
from functorch_lite.transforms.arguments import check_callable, on_its_device


@on_its_device
def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """`fn(elems[0], ... elems[i])` for every i along `axis`, where `fn` is associative and works on whole slices.

    `fn(a, b)` takes and returns pytrees like `elems` whose arrays hold many elements at once. The order of operands is
    kept, so `fn` need not commute. reverse: start at the last element, which is then the first operand.

    >>> associative_scan(lambda a, b: a + b, np.arange(5), reverse=True)
    array([10, 10,  9,  7,  4])
    """
    check_callable("associative_scan", fn)
    leaves, treedef = tree.flatten(elems)
    if not leaves:
        raise ArgumentError("associative_scan: elems has no array.")
    shapes = [aval_of(x).shape for x in leaves]
    axis = axis % len(shapes[0]) if shapes[0] else 0
    sizes = {s[axis] if axis < len(s) else -1 for s in shapes}
    if len(sizes) != 1 or -1 in sizes:
        raise ShapeError(f"associative_scan: all leaves need the same size along axis {axis}, got shapes {shapes}.")

    def combine(a, b):
        out, out_tree = tree.flatten(fn(tree.unflatten(treedef, a), tree.unflatten(treedef, b)))
        if out_tree != treedef:
            raise ArgumentError("associative_scan: fn must return the structure of elems.")
        return out

    leaves = [rev(x, (axis,)) for x in leaves] if reverse else leaves
    result = _scan(combine, leaves, axis)
    result = [rev(x, (axis,)) for x in result] if reverse else result
    return tree.unflatten(treedef, result)


def _scan(combine, leaves, axis):
    n = leaves[0].shape[axis]
    if n < 2:
        return leaves
    pairs = combine(
        [slice_in_axis(x, 0, n - n % 2, axis, 2) for x in leaves], [slice_in_axis(x, 1, n, axis, 2) for x in leaves]
    )
    odd = _scan(combine, pairs, axis)
    rest = (n - 1) // 2
    even = []
    if rest:
        even = combine(
            [slice_in_axis(x, 0, rest, axis) for x in odd], [slice_in_axis(x, 2, n, axis, 2) for x in leaves]
        )
    first = [slice_in_axis(x, 0, 1, axis) for x in leaves]
    even = [concatenate([f, e], axis) for f, e in zip(first, even, strict=True)] if rest else first
    return [_interleave(a, b, axis, n) for a, b in zip(even, odd, strict=True)]


def _interleave(even, odd, axis, n):
    """even[0], odd[0], even[1], odd[1], ... of total length n."""
    none = [(0, 0, 0)] * len(even.shape)
    at_even, at_odd = list(none), list(none)
    at_even[axis] = (0, 1 - n % 2, 1)
    at_odd[axis] = (1, n % 2, 1)
    return add(pad(even, zero_like(even), tuple(at_even)), pad(odd, zero_like(odd), tuple(at_odd)))

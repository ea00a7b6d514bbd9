# SPDX-License-Identifier: MIT
"""Products summed over axes: matmul, dot, vdot, inner, outer, tensordot, einsum, kron, vecdot, matvec, vecmat, trace.

All are `dot_general`. Paths of einsum come from opt_einsum.

Source: D. G. A. Smith and J. Gray, "opt_einsum", JOSS 2018.
"""

import functools
import math
from typing import Any

import numpy as np
import opt_einsum
from opt_einsum.parser import parse_einsum_input

from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ShapeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.dispatch import implement, public
from functorch_lite.numpy.indexing import take_along_axis
from functorch_lite.numpy.promotion import asarray as as_array
from functorch_lite.numpy.promotion import (
    broadcast,
    broadcast_shapes,
    broadcast_to,
    cast,
    operands_text,
    promote,
    unfit,
)
from functorch_lite.numpy.ufuncs import bodies
from functorch_lite.primitives.contraction import dot_general

_bool = np.dtype(bool)
_ARRAYS = (np.ndarray, Tracer)
_ROWS_BY_COLUMNS = ((1,), (0,))


def product(x: Any, y: Any, contract: Any, batch: Any = ((), ())) -> Any:
    """`dot_general`; products of booleans are combined by "or"."""
    if x.dtype == _bool:
        narrow = dot_general(e.convert(x, np.int64), e.convert(y, np.int64), contract, batch)
        return e.ne(narrow, np.int64(0))
    try:
        return dot_general(x, y, contract, batch)
    except ValueError:
        _check_sizes(x, y, contract)
        raise


def _check_sizes(x, y, contract):
    """Name the operands of a product whose paired axes differ in size."""
    for i, j in zip(*contract, strict=True):
        if x.shape[i] != y.shape[j]:
            why = f"do not fit: axis {i} of the first has size {x.shape[i]}, axis {j} of the second {y.shape[j]}"
            raise unfit("matrix product", (x, y), why) from None


# --- matmul and its kin -------------------------------------------------------------------------------------------


def matmul_body(x: Any, y: Any, **options: Any) -> Any:
    """The matrix product over the last two axes; leading axes broadcast; a vector is a row on the left, a column on the
    right."""
    if isinstance(x, _ARRAYS) and isinstance(y, _ARRAYS) and x.dtype is y.dtype and x.dtype.kind == "f":
        if len(x.shape) == len(y.shape) == 2 and x.shape[1] == y.shape[0]:  # the common case needs no promotion
            return dot_general(x, y, _ROWS_BY_COLUMNS)
    x, y = promote(x, y)
    nx, ny = len(x.shape), len(y.shape)
    if not nx or not ny:
        raise unfit("matmul", (x, y), "do not fit: each operand needs at least one axis. Multiply by a number with `*`")
    if nx <= 2 and ny <= 2:
        return product(x, y, ((nx - 1,), (max(ny - 2, 0),)))
    if ny == 1 or (ny == 2 and nx > 2):  # one matrix for all: a single large product
        return product(x, y, ((nx - 1,), (0,)))
    if nx == 1:
        return product(x, y, ((0,), (ny - 2,)))
    return _batched_matmul(x, y)


def _batched_matmul(x, y):
    try:
        lead = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ShapeError:
        raise unfit("matmul", (x, y), "do not fit: the axes before the last two do not broadcast") from None
    n = len(lead)
    x = broadcast_to(x, (*lead, *x.shape[-2:]))
    y = broadcast_to(y, (*lead, *y.shape[-2:]))
    batch = tuple(range(n))
    return product(x, y, ((n + 1,), (n,)), (batch, batch))


matmul = public(np.matmul)(matmul_body)


@public(np.vecdot)
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """The inner products over one axis of x and y, which broadcast; x is conjugated."""
    x, y = promote(x1, x2)
    x, y = _axis_last(x, axis), _axis_last(y, axis)
    x = bodies[np.conjugate](x)
    shape = broadcast_shapes(x.shape, y.shape)
    x, y = broadcast_to(x, shape), broadcast_to(y, shape)
    n = len(shape) - 1
    return product(x, y, ((n,), (n,)), (tuple(range(n)),) * 2)


def _axis_last(x, axis):
    n = len(x.shape)
    return e.moveaxis(x, normal_axis(axis, n), n - 1)


def matvec_body(x1: Any, x2: Any, /) -> Any:
    """Matrices [..., m, n] times vectors [..., n]."""
    y = as_array(x2)
    out = matmul_body(x1, e.reshape(y, (*y.shape, 1)))
    return e.reshape(out, out.shape[:-1])


def vecmat_body(x1: Any, x2: Any, /) -> Any:
    """Vectors [..., n], conjugated, times matrices [..., n, m]."""
    x = bodies[np.conjugate](as_array(x1))
    out = matmul_body(e.reshape(x, (*x.shape[:-1], 1, x.shape[-1])), x2)
    return e.reshape(out, (*out.shape[:-2], out.shape[-1]))


if hasattr(np, "matvec"):  # NumPy 2.2
    matvec = public(np.matvec)(matvec_body)
    vecmat = public(np.vecmat)(vecmat_body)
else:
    matvec, vecmat = matvec_body, vecmat_body


@public(np.dot)
def dot(a: Any, b: Any, out: None = None) -> Any:
    """The sum product over the last axis of a and the second-to-last (or only) axis of b; of scalars, the product."""
    x, y = promote(a, b)
    if not x.shape or not y.shape:
        return e.mul(*broadcast(x, y))
    return product(x, y, ((len(x.shape) - 1,), (max(len(y.shape) - 2, 0),)))


@public(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    """The inner product of a, conjugated, and b, both flattened."""
    x, y = promote(a, b)
    x, y = e.reshape(x, (math.prod(x.shape),)), e.reshape(y, (math.prod(y.shape),))
    return product(bodies[np.conjugate](x), y, ((0,), (0,)))


@public(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    """The sum product over the last axes of a and b."""
    x, y = promote(a, b)
    if not x.shape or not y.shape:
        return e.mul(*broadcast(x, y))
    return product(x, y, ((len(x.shape) - 1,), (len(y.shape) - 1,)))


@public(np.outer)
def outer(a: Any, b: Any, out: None = None) -> Any:
    """The products of all pairs of elements of a and b, both flattened."""
    x, y = promote(a, b)
    x, y = e.reshape(x, (math.prod(x.shape), 1)), e.reshape(y, (1, math.prod(y.shape)))
    return e.mul(*broadcast(x, y))


@public(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """The sum product over the last `axes` axes of a and the first of b, or over the pairs of axes given."""
    x, y = promote(a, b)
    if isinstance(axes, (int, np.integer)):
        left, right = tuple(range(len(x.shape) - axes, len(x.shape))), tuple(range(axes))
    else:
        left, right = (tuple(s) if isinstance(s, (tuple, list)) else (s,) for s in axes)
        left = tuple(normal_axis(int(i), len(x.shape)) for i in left)
        right = tuple(normal_axis(int(i), len(y.shape)) for i in right)
    if len(left) != len(right):
        raise ShapeError(f"tensordot: {len(left)} axes of the first operand and {len(right)} of the second.")
    return product(x, y, (left, right))


@public(np.kron)
def kron(a: Any, b: Any) -> Any:
    """The Kronecker product: blocks of b, scaled by the elements of a."""
    x, y = promote(a, b)
    n = max(len(x.shape), len(y.shape))
    left = (1,) * (n - len(x.shape)) + tuple(x.shape)
    right = (1,) * (n - len(y.shape)) + tuple(y.shape)
    x = e.reshape(x, tuple(m for size in left for m in (size, 1)))
    y = e.reshape(y, tuple(m for size in right for m in (1, size)))
    out = e.mul(*broadcast(x, y)) if n else e.mul(x, y)
    return e.reshape(out, tuple(p * q for p, q in zip(left, right, strict=True)))


# --- einsum -------------------------------------------------------------------------------------------------------


def _einsum(
    *operands: Any, out: None = None, optimize: Any = "auto", precision: Any = None, dtype: Any = None, **options: Any
) -> Any:
    """The sum of products that the subscripts describe: einsum("bij,bjk->bik", x, y).

    Pairs are contracted in the order that opt_einsum finds cheapest.
    """
    spec, arrays = _parsed(operands)
    arrays = promote(*arrays)
    if dtype is not None:
        arrays = [cast(x, np.dtype(dtype)) for x in arrays]
    optimize = "auto" if optimize is True or optimize is False else optimize
    optimize = (
        tuple(tuple(p) if isinstance(p, list) else p for p in optimize) if isinstance(optimize, list) else optimize
    )
    try:
        inputs, output, path = _einsum_path(spec, tuple(tuple(x.shape) for x in arrays), optimize)
    except ShapeError as error:
        raise ShapeError(f"{error.message} The operands of {spec!r}: {operands_text(arrays)}.") from None
    terms = list(zip(inputs, arrays, strict=True))
    for positions in path:
        chosen = [terms.pop(i) for i in sorted(positions, reverse=True)]
        rest = [names for names, _ in terms]
        keep = set(output).union(*rest) if terms else set(output)
        while len(chosen) > 1:
            (right, y), (left, x) = chosen.pop(0), chosen.pop(0)
            needed = keep.union(*[names for names, _ in chosen])
            chosen.insert(0, _contract_pair(left, x, right, y, needed, output if not terms and not chosen else None))
        names, x = chosen[0]
        terms.append(_reduced(names, x, keep))
    names, x = terms[0]
    names, x = _reduced(names, x, set(output))
    order = tuple(names.index(c) for c in output)
    return x if order == tuple(range(len(order))) else e.permute_dims(x, order)


def _parsed(operands):
    inputs, output, arrays = parse_einsum_input(
        [o if isinstance(o, str) or _is_sublist(o) else _Shaped(as_array(o)) for o in operands]
    )
    return f"{inputs}->{output}", [a.array for a in arrays]


def _is_sublist(value):
    return isinstance(value, (list, tuple)) and all(isinstance(v, (int, str)) or v is Ellipsis for v in value)


class _Shaped:
    """An operand as opt_einsum's parser sees it: a shape."""

    __slots__ = ("array", "shape", "ndim")

    def __init__(self, array: Any):
        self.array = array
        self.shape = tuple(array.shape)
        self.ndim = len(self.shape)


@functools.lru_cache(1024)
def _einsum_path(spec, shapes, optimize):
    left, output = spec.split("->")
    inputs = left.split(",")
    sizes: dict[str, int] = {}
    for names, shape in zip(inputs, shapes, strict=True):
        if len(names) != len(shape):
            raise ShapeError(f"einsum: subscripts {names!r} do not fit an operand of shape {shape}.")
        for c, n in zip(names, shape, strict=True):
            if sizes.setdefault(c, n) not in (n, 1) and n != 1:
                raise ShapeError(f"einsum: subscript {c!r} has size {sizes[c]} in one operand and {n} in another.")
            sizes[c] = max(sizes[c], n) if 0 not in (sizes[c], n) else 0
    if len(inputs) <= 2:
        return inputs, output, [tuple(range(len(inputs)))]
    path, _ = opt_einsum.contract_path(spec, *shapes, optimize=optimize, shapes=True)
    return inputs, output, path


def _without_repeats(names: str, x: Any) -> tuple[str, Any]:
    """The diagonal over each subscript that occurs twice in one operand."""
    for c in dict.fromkeys(names):
        while names.count(c) > 1:
            i = names.index(c)
            j = names.index(c, i + 1)
            x = _diagonal_of(x, i, j)
            names = names[:j] + names[j + 1 :]
    return names, x


def _diagonal_of(x, i, j):
    n = x.shape[i]
    if x.shape[j] != n:
        raise ShapeError(f"einsum: a subscript is repeated over axes of sizes {n} and {x.shape[j]}.")
    shape = [1] * len(x.shape)
    shape[i] = n
    full = [1 if a == j else m for a, m in enumerate(x.shape)]
    index = np.broadcast_to(np.arange(n).reshape(shape), full)
    out = take_along_axis(x, index, axis=j)
    return e.reshape(out, (*out.shape[:j], *out.shape[j + 1 :]))


def _reduced(names: str, x: Any, keep: Any) -> tuple[str, Any]:
    names, x = _without_repeats(names, x)
    gone = tuple(i for i, c in enumerate(names) if c not in keep)
    if not gone:
        return names, x
    if x.dtype == _bool:
        x = e.ne(e.reduce_sum(e.convert(x, np.int64), gone), np.int64(0))
    else:
        x = e.reduce_sum(x, gone)
    return "".join(c for c in names if c in keep), x


def _contract_pair(left, x, right, y, needed, output):
    left, x = _drop_ones(*_reduced(left, x, needed | set(right)), right, y, 1)
    right, y = _drop_ones(*_reduced(right, y, needed | set(left)), left, x, 0)
    shared = [c for c in left if c in right]
    batch = [c for c in shared if c in needed]
    contract = [c for c in shared if c not in needed]
    out = product(
        x,
        y,
        (tuple(left.index(c) for c in contract), tuple(right.index(c) for c in contract)),
        (tuple(left.index(c) for c in batch), tuple(right.index(c) for c in batch)),
    )
    names = "".join(batch) + "".join(c for c in left if c not in shared) + "".join(c for c in right if c not in shared)
    return names, out


def _drop_ones(names, x, others, y, _side):
    """Remove axes of size 1 that stand against a longer axis of the other operand (einsum broadcasts them)."""
    sizes = dict(zip(others, y.shape, strict=True))
    gone = [i for i, c in enumerate(names) if x.shape[i] == 1 and sizes.get(c, 1) != 1]
    if not gone:
        return names, x
    kept = [i for i in range(len(names)) if i not in gone]
    return "".join(names[i] for i in kept), e.reshape(x, tuple(x.shape[i] for i in kept))


einsum = public(np.einsum)(_einsum)


def einsum_path(*operands: Any, optimize: Any = "greedy") -> tuple[list[Any], str]:
    """The order of contraction that einsum would take, and a report of its cost, as numpy.einsum_path gives."""
    spec, arrays = _parsed(operands)
    path, report = opt_einsum.contract_path(spec, *[tuple(a.shape) for a in arrays], optimize="greedy", shapes=True)
    return ["einsum_path", *path], str(report)


implement(np.einsum_path)(einsum_path)

# SPDX-License-Identifier: MIT
"""Contraction family: dot_general, the general batched matrix product.

    dot_general(x, y, contract=((1,), (0,)), batch=((), ()))  =  x @ y

Output axes: the batch axes, then x's free axes, then y's free axes. Float16 and bfloat16 accumulate in float32.
`primitives.convolution` has conv_general_dilated.
"""

import functools
from typing import Any

from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, shape_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import ShapeError
from functorch_lite.primitives.declare import bilinear, check_dtypes
from functorch_lite.primitives.movement import permute_dims

Axes = tuple[tuple[int, ...], tuple[int, ...]]

# --- dot_general ------------------------------------------------------------------------------------------------------
dot_general_p = Primitive("dot_general", Kind.CONTRACTION)


def dot_general(x: Any, y: Any, contract: Axes, batch: Axes = ((), ())) -> Any:
    """Products of `x` and `y` summed over the paired axes `contract`, one for each index of the paired axes `batch`."""
    return bind1(dot_general_p, x, y, contract=contract, batch=batch)


def _free(ndim: int, *taken: tuple[int, ...]) -> tuple[int, ...]:
    used = {a for axes in taken for a in axes}
    return tuple(a for a in range(ndim) if a not in used)


@shape_rules.register(dot_general_p)
def _(x, y, *, contract, batch):
    dtype = check_dtypes("dot_general", (x, y))
    for what, (left, right) in (("contracted", contract), ("batch", batch)):
        sizes = [x.shape[a] for a in left], [y.shape[a] for a in right]
        if sizes[0] != sizes[1]:
            raise ShapeError(
                f"matrix product: shapes {x.shape} and {y.shape} do not fit: the {what} axes have sizes "
                f"{tuple(sizes[0])} and {tuple(sizes[1])}."
            )
    kept = [x.shape[a] for a in batch[0]]
    free_x = [x.shape[a] for a in _free(x.ndim, contract[0], batch[0])]
    free_y = [y.shape[a] for a in _free(y.ndim, contract[1], batch[1])]
    return Aval((*kept, *free_x, *free_y), dtype)


@functools.lru_cache(4096)
def _plan(nx: int, ny: int, contract: Axes, batch: Axes):
    """How to bring both operands to matrices: (permutation of x, of y); None where they already are."""
    free_x, free_y = _free(nx, contract[0], batch[0]), _free(ny, contract[1], batch[1])
    order_x = (*batch[0], *free_x, *contract[0])
    order_y = (*batch[1], *contract[1], *free_y)
    simple = not batch[0] and len(contract[0]) == 1 and len(free_x) <= 1 and len(free_y) <= 1
    return order_x, order_y, len(batch[0]), len(free_x), len(free_y), simple


def _matmul(xp, x, y):
    wide = dtypes.accumulator(x.dtype)
    if wide == x.dtype:
        return xp.matmul(x, y)
    return xp.matmul(x.astype(wide), y.astype(wide)).astype(x.dtype)


@eval_rules.register(dot_general_p)
def _(xp, x, y, *, contract, batch):
    order_x, order_y, nb, nx, ny, simple = _plan(x.ndim, y.ndim, contract, batch)
    if simple:  # a plain matrix or vector product: transposed views go straight to BLAS
        if contract[0][0] == 0 and nx:
            x = x.T
        if contract[1][0] == 1:
            y = y.T
        return _matmul(xp, x, y)
    x, y = x.transpose(order_x), y.transpose(order_y)
    kept, free_x, free_y = x.shape[:nb], x.shape[nb : nb + nx], y.shape[y.ndim - ny :]
    k = 1
    for n in x.shape[nb + nx :]:
        k *= n
    x = x.reshape((*kept, _size(free_x), k))
    y = y.reshape((*kept, k, _size(free_y)))
    return _matmul(xp, x, y).reshape((*kept, *free_x, *free_y))


def _size(shape):
    size = 1
    for n in shape:
        size *= n
    return size


@batch_rules.register(dot_general_p)
def _(size, args, batched, *, contract, batch):
    x, y = args
    up = tuple(tuple(a + 1 for a in axes) for axes in (*contract, *batch))
    if all(batched):
        return dot_general(x, y, (up[0], up[1]), ((0, *up[2]), (0, *up[3]))), True
    if batched[0]:
        out = dot_general(x, y, (up[0], contract[1]), (up[2], batch[1]))
        return _to_front(out, len(batch[0])), True
    out = dot_general(x, y, (contract[0], up[1]), (batch[0], up[3]))
    position = len(x.shape) - len(contract[0])
    return _to_front(out, position), True


def _to_front(x, position):
    n = len(x.shape)
    return x if position == 0 else permute_dims(x, (position, *(i for i in range(n) if i != position)))


def _left(ct, x, y, *, contract, batch):
    free_x = _free(x.ndim, contract[0], batch[0])
    return _operand_cotangent(ct, y, contract[::-1], batch[::-1], free_x, len(batch[0]) + len(free_x), True)


def _right(ct, x, y, *, contract, batch):
    free_y = _free(y.ndim, contract[1], batch[1])
    return _operand_cotangent(ct, x, contract, batch, free_y, len(batch[0]), False)


@functools.lru_cache(4096)
def _cotangent_plan(n_other, nct, contract, batch, free, start, ct_first):
    """Axes of the product that gives an operand's cotangent from `ct` and the other operand, and the final order."""
    nb = len(batch[0])
    other_free = _free(n_other, contract[0], batch[0])
    first = start if ct_first else nb
    ct_axes = tuple(range(first, nct)) if ct_first else tuple(range(nb, nct - len(free)))
    pair = (ct_axes, other_free)
    batch_pair = (tuple(range(nb)), batch[0])
    # result axes: batch, then ct's free axes (= free of the operand), then the other operand's contracted axes, in
    # increasing order of the axes of that operand
    contracted = sorted(range(len(contract[0])), key=lambda i: contract[0][i])
    order = (*batch[1], *free, *(contract[1][i] for i in contracted))
    inverse = [0] * len(order)
    for i, a in enumerate(order):
        inverse[a] = i
    inverse = tuple(inverse)
    return pair, batch_pair, None if inverse == tuple(range(len(order))) else inverse


def _operand_cotangent(ct, other, contract, batch, free, start, ct_first):
    pair, batch_pair, inverse = _cotangent_plan(
        len(other.shape), len(ct.shape), contract, batch, free, start, ct_first
    )
    out = dot_general(ct, other, pair, batch_pair)
    return out if inverse is None else permute_dims(out, inverse)


bilinear(dot_general_p, _left, _right)


def matrix_multiply(x: Any, y: Any) -> Any:
    """`x @ y` for two matrices."""
    return dot_general(x, y, ((1,), (0,)))



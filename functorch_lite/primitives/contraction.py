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
from functorch_lite.core.numpy_code import numpy_form
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, shape_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import ShapeError
from functorch_lite.primitives.declare import bilinear, check_dtypes
from functorch_lite.primitives.movement import inverse_permutation, permute_dims

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


def _product(multiply, x, y):
    wide = dtypes.accumulator(x.dtype)
    if wide == x.dtype:
        return multiply(x, y)
    return multiply(x.astype(wide), y.astype(wide)).astype(x.dtype)


@eval_rules.register(dot_general_p)
def _(xp, x, y, *, contract, batch):
    order_x, order_y, nb, nx, ny, simple = _plan(x.ndim, y.ndim, contract, batch)
    if simple:  # a plain matrix or vector product: transposed views go straight to BLAS
        if contract[0][0] == 0 and nx:
            x = x.T
        if contract[1][0] == 1:
            y = y.T
        return _product(xp.dot, x, y)  # dot starts sooner than matmul
    x, y = x.transpose(order_x), y.transpose(order_y)
    kept, free_x, free_y = x.shape[:nb], x.shape[nb : nb + nx], y.shape[y.ndim - ny :]
    k = 1
    for n in x.shape[nb + nx :]:
        k *= n
    x = x.reshape((*kept, _size(free_x), k))
    y = y.reshape((*kept, k, _size(free_y)))
    return _product(xp.matmul, x, y).reshape((*kept, *free_x, *free_y))


@numpy_form(dot_general_p)
def _(x, y, *, contract, batch):
    dtype = x.aval.dtype
    *_, nx, ny, simple = _plan(x.aval.ndim, y.aval.ndim, contract, batch)
    if not simple or dtypes.accumulator(dtype) != dtype:
        return None
    left = "{0}.T" if contract[0][0] == 0 and nx else "{0}"
    right = "{1}.T" if contract[1][0] == 1 else "{1}"
    return f"{left}.dot({right})"


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
    """ct_x = ct . y over y's free axes, which come last in ct: batch, x's free axes, x's contracted axes."""
    pair, batch_pair, order = _left_plan(len(x.shape), len(y.shape), contract, batch)
    out = dot_general(ct, y, pair, batch_pair)
    return out if order is None else permute_dims(out, order)


def _right(ct, x, y, *, contract, batch):
    """ct_y = x . ct over x's free axes, which follow the batch axes in ct: batch, y's contracted, y's free axes."""
    pair, batch_pair, order = _right_plan(len(x.shape), len(y.shape), contract, batch)
    out = dot_general(x, ct, pair, batch_pair)
    return out if order is None else permute_dims(out, order)


@functools.lru_cache(4096)
def _left_plan(nx: int, ny: int, contract: Axes, batch: Axes):
    free_x, free_y = _free(nx, contract[0], batch[0]), _free(ny, contract[1], batch[1])
    nb = len(batch[0])
    first = nb + len(free_x)
    pair = tuple(range(first, first + len(free_y))), free_y
    # the product's last axes are y's contracted axes in increasing order; each is paired with one of x
    paired = [contract[0][i] for i in sorted(range(len(contract[1])), key=contract[1].__getitem__)]
    return pair, (tuple(range(nb)), batch[1]), _to_increasing((*batch[0], *free_x, *paired))


@functools.lru_cache(4096)
def _right_plan(nx: int, ny: int, contract: Axes, batch: Axes):
    free_x, free_y = _free(nx, contract[0], batch[0]), _free(ny, contract[1], batch[1])
    nb = len(batch[0])
    pair = free_x, tuple(range(nb, nb + len(free_x)))
    paired = [contract[1][i] for i in sorted(range(len(contract[0])), key=contract[0].__getitem__)]
    return pair, (batch[0], tuple(range(nb))), _to_increasing((*batch[1], *paired, *free_y))


def _to_increasing(axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The permutation that puts a product with these axes in order; None if they are."""
    order = inverse_permutation(axes)
    return None if order == tuple(range(len(axes))) else order


bilinear(dot_general_p, _left, _right)

# SPDX-License-Identifier: MIT
"""Gradients of a large batch in the memory of a small one.

`optim.accumulate` makes one optimizer step of several calls of the training step; `microbatched` cuts the batch of one
call, inside the step.
"""

from collections.abc import Callable
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import lax, tree
from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ShapeError
from functorch_lite.train.history import is_metric
from functorch_lite.transforms import ShapeDtype, eval_shape


def microbatched(fun: Callable[..., Any], n: int) -> Callable[..., Any]:
    """`fun(params, *batch)`, computed on `n` equal parts of the batch, one after another.

    Every leaf [size, ...] of `batch` is cut along axis 0 into n parts of size / n; `params` is passed as it is. Of what
    `fun` returns, floating-point leaves are averaged (in float32 at least) and metric objects merged: losses that are
    means, and their gradients, are those of the whole batch.

    Raises ArgumentError when n is below 1, ShapeError when it does not divide the batch, ArgumentTypeError when `fun`
    returns something that cannot be averaged.

    >>> import functorch_lite as fl
    >>> grad = fl.grad(lambda w, x: ((w - x) ** 2).mean())
    >>> x = np.arange(6.0)
    >>> float(grad(1.0, x)), float(microbatched(grad, 3)(1.0, x))
    (-3.0, -3.0)
    """
    if n < 1:
        raise ArgumentError(f"microbatched: `n` should be at least 1, but is {n}.")

    def call(params: Any, *batch: Any) -> Any:
        parts = _cut(batch, n)
        shapes = eval_shape(fun, params, *tree.map(lambda x: ShapeDtype(x.shape[1:], x.dtype), parts))
        zeros = [_zeros(path, leaf) for path, leaf in _averaged(shapes)]

        def body(sums, part):
            out = fun(params, *part)
            sums = [s + fnp.asarray(x, dtype=s.dtype) for s, (_, x) in zip(sums, _averaged(out), strict=True)]
            return sums, _metrics(out)

        sums, metrics = lax.scan(body, zeros, parts)
        means = [
            fnp.asarray(s / fnp.asarray(n, dtype=s.dtype), dtype=leaf.dtype)
            for s, (_, leaf) in zip(sums, _averaged(shapes), strict=True)
        ]
        return _together(shapes, iter(means), iter(metrics))

    return call


def _cut(batch: Any, n: int) -> Any:
    for path, leaf in zip(tree.paths(batch), tree.leaves(batch), strict=True):
        if not getattr(leaf, "shape", ()) or leaf.shape[0] % n:
            raise ShapeError(
                f"microbatched: axis 0 of `batch{path}` should be divisible by {n}, but its shape is "
                f"{getattr(leaf, 'shape', ())}."
            )
    return tree.map(lambda leaf: leaf.reshape(n, leaf.shape[0] // n, *leaf.shape[1:]), batch)


def _is_leaf(value: Any) -> bool:
    return is_metric(value) or isinstance(value, ShapeDtype)


def _outermost(out: Any) -> list[tuple[str, Any]]:
    return list(zip(tree.paths(out, _is_leaf), tree.leaves(out, _is_leaf), strict=True))


def _averaged(out: Any) -> list[tuple[str, Any]]:
    return [(path, leaf) for path, leaf in _outermost(out) if not is_metric(leaf)]


def _metrics(out: Any) -> list[Any]:
    return [leaf for _, leaf in _outermost(out) if is_metric(leaf)]


def _zeros(path: str, leaf: Any) -> Any:
    if not dtypes.is_inexact(leaf.dtype):
        raise ArgumentTypeError(
            f"microbatched: the result{path} is {leaf.dtype}, which has no mean. Return floats, or metric objects such "
            "as train.Accuracy, which are merged."
        )
    wide = fnp.float32 if leaf.dtype.itemsize < 4 else leaf.dtype
    return fnp.zeros(leaf.shape, wide)


def _together(shapes: Any, means: Any, metrics: Any) -> Any:
    return tree.map(lambda leaf: next(metrics).merged() if is_metric(leaf) else next(means), shapes, is_leaf=_is_leaf)

# SPDX-License-Identifier: MIT
"""Host family: calls back into Python from inside a program.

    pure_callback   a function of values, which may be called any number of times or not at all
    debug_callback  an effect: kept, in program order, once for each time the program passes it
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.core.aval import Aval, aval_of
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind, root, tracing
from functorch_lite.errors import DTypeError, ShapeError

pure_callback_p = Primitive("pure_callback", Kind.OPAQUE, multiple=True)
debug_callback_p = Primitive("debug_callback", Kind.OPAQUE, multiple=True, effect=True)

shape_rules.add(pure_callback_p, lambda *avals, callback, out_avals, vectorized: list(out_avals))
shape_rules.add(debug_callback_p, lambda *avals, callback: [])
for _prim in (pure_callback_p, debug_callback_p):
    transpose_rules.absent(_prim, "it is a Python function")
jvp_rules.absent(
    pure_callback_p, "it is a Python function; give it a derivative with custom_jvp or custom_vjp around it"
)


@eval_rules.register(pure_callback_p)
def _(xp, *args, callback, out_avals, vectorized):
    with tracing(root):
        outs = callback(*args)
    for i, (out, want) in enumerate(zip(outs, out_avals, strict=True)):
        got = aval_of(out)
        if got.shape != want.shape:
            raise ShapeError(f"pure_callback: result {i} has shape {got.shape}, expected {want.shape}.")
        if got.dtype != want.dtype:
            raise DTypeError(f"pure_callback: result {i} has dtype {got.dtype}, expected {want.dtype}.")
    return outs


@eval_rules.register(debug_callback_p)
def _(xp, *args, callback):
    with tracing(root):
        callback(*args)
    return []


@jvp_rules.register(debug_callback_p)
def _(primals, tangents, *, callback):
    bind(debug_callback_p, *primals, callback=callback)
    return [], []


def _row(args, batched, i):
    return [a[i] if b else a for a, b in zip(args, batched, strict=True)]


@batch_rules.register(pure_callback_p)
def _(size, args, batched, *, callback, out_avals, vectorized):
    wide = tuple(Aval((size, *a.shape), a.dtype) for a in out_avals)
    flags = tuple(batched)

    def by_rows(*values):
        rows = [callback(*_row(values, flags, i)) for i in range(size)]
        columns = zip(*rows, strict=True) if rows else ([] for _ in out_avals)
        return [np.stack(c) if len(c) else np.zeros(a.shape, a.dtype) for c, a in zip(columns, wide, strict=True)]

    batched_call: Callable[..., Any] = callback if vectorized else by_rows
    if vectorized:
        args = [a if b else np.broadcast_to(a, (size, *np.shape(a))) for a, b in zip(args, batched, strict=True)]
    outs = bind(pure_callback_p, *args, callback=batched_call, out_avals=wide, vectorized=vectorized)
    return outs, [True] * len(outs)


@batch_rules.register(debug_callback_p)
def _(size, args, batched, *, callback):
    flags = tuple(batched)

    def by_rows(*values):
        for i in range(size):
            callback(*_row(values, flags, i))

    return bind(debug_callback_p, *args, callback=by_rows), []

# SPDX-License-Identifier: MIT
"""Batching: values carry a mapped axis, always at position 0; each primitive has a rule for it.

`vmap` moves a mapped axis to the front on the way in (a view) and to `out_axes` on the way out, so a rule sees an
argument with the mapped axis at 0, or without one.
"""

from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite.backends.registry import enter_home, leave_home
from functorch_lite.core.aval import Aval, Stack, StackAval, aval_of
from functorch_lite.core.primitive import Kind
from functorch_lite.core.program import subprograms
from functorch_lite.core.rules import RuleTable, batch_rules
from functorch_lite.core.tracer import Tag, Trace, Tracer, current_trace, reset_trace, set_trace
from functorch_lite.primitives.broadcast import broadcast_in_dim
from functorch_lite.transforms.jvp import closure_rules

collective_rules = RuleTable(
    "collective", "(trace, args, batched, **params) -> (out, batched): a primitive that reduces over the mapped axis"
)
program_batch_rules = RuleTable(
    "program batch", "(trace, args, batched, **params) -> (outs, batched): primitives whose parameters are programs"
)


class BatchTracer(Tracer):
    """An array with the mapped axis in front; shape and dtype are those of one example."""

    __slots__ = ("value",)

    def __init__(self, tag: Tag, value: Any, weak: bool = False):
        self.tag = tag
        self.value = value
        self.weak = weak

    @property
    def aval(self):
        value = aval_of(self.value)
        if isinstance(value, StackAval):
            return StackAval(Aval(value.element.shape[1:], value.element.dtype))
        return Aval(value.shape[1:], value.dtype)

    @property
    def shape(self):
        return self.value.shape[1:]

    @property
    def dtype(self):
        return self.value.dtype


class BatchTrace(Trace):
    """Applies batch rules; their work is done in the parent."""

    __slots__ = ("size", "axis_name")

    def __init__(self, tag: Tag, parent: Trace, size: int, axis_name: Any = None):
        self.tag = tag
        self.parent = parent
        self.size = size
        self.axis_name = axis_name

    def process(self, prim, args, params):
        """The primitive over the rows: by its batch rule, or in the parent where nothing is mapped."""
        tag = self.tag
        values, batched = [], []
        for a in args:
            mine = isinstance(a, Tracer) and a.tag is tag
            values.append(a.value if mine else a)  # type: ignore[attr-defined]
            batched.append(mine)
        may_close_over_mine = prim in closure_rules and "program" not in params
        if not any(batched) and not may_close_over_mine and not self._names_my_axis(prim, params):
            return self.parent.process(prim, args, params)
        token = set_trace(self.parent)
        try:
            out, flags = self._apply(prim, values, batched, params)
        finally:
            reset_trace(token)
        if flags is None:  # every output is batched
            return [BatchTracer(tag, o) for o in out]
        if prim.multiple:
            return [BatchTracer(tag, o) if f else o for o, f in zip(out, flags, strict=True)]
        return BatchTracer(tag, out) if flags else out

    def _names_my_axis(self, prim, params):
        if self.axis_name is None:
            return False
        if prim.kind is Kind.COLLECTIVE:
            names = params["axis_name"]
            return self.axis_name in (names if isinstance(names, tuple) else (names,))
        return prim.kind is Kind.HIGHER_ORDER and any(self.axis_name in p.axis_names for p in subprograms(params))

    def _apply(self, prim, values, batched, params) -> tuple[Any, Any]:
        if prim.kind is Kind.ELEMENTWISE:
            operands = self._align(values, batched)
            return self.parent.process(prim, operands, params), True
        if prim.kind is Kind.COLLECTIVE and self._names_my_axis(prim, params):
            return collective_rules[prim](self, values, batched, **params)
        special = program_batch_rules.get(prim)
        if special is not None:
            return special(self, values, batched, **params)
        return batch_rules[prim](self.size, values, batched, **params)

    def _align(self, values, batched):
        """Element-wise operands of one shape: an unbatched one is broadcast, a bare scalar may stay."""
        ranks = {len(v.shape) - b for v, b in zip(values, batched, strict=True) if hasattr(v, "shape")}
        if len(ranks) <= 1 and all(batched):
            return values
        shape = next((v.shape[1:] for v, b in zip(values, batched, strict=True) if b and len(v.shape) > 1), None)
        if shape is None:
            shape = next((v.shape for v, b in zip(values, batched, strict=True) if not b and aval_of(v).shape), ())
        return [self._widen(v, b, shape) for v, b in zip(values, batched, strict=True)]

    def _widen(self, value, batched, shape):
        if batched:
            return value if value.shape[1:] == shape else broadcast_in_dim(value, (self.size, *shape), (0,))
        aval = aval_of(value)
        if not aval.shape and not isinstance(value, Tracer):
            return value
        dims = tuple(range(1, 1 + aval.ndim))
        return broadcast_in_dim(value, (self.size, *shape), dims)


def materialize(value: Any, size: int) -> Any:
    """An unbatched value, repeated along a new axis 0."""
    if type(value) is Stack:
        return Stack(Aval((size, *value.shape), value.dtype), [materialize(v, size) for v in value])
    aval = aval_of(value)
    return broadcast_in_dim(value, (size, *aval.shape), tuple(range(1, 1 + aval.ndim)))


def batch_flat(
    fun: Callable[..., Sequence[Any]], args: Sequence[Any], batched: Sequence[bool], *, size: int,
    axis_name: Any = None, name: str = "f", paths: Callable[[], list[str]] | None = None,
) -> tuple[list[Any], list[bool]]:
    """Outputs of `fun` over the mapped axis 0 of the `batched` arguments, and which outputs have that axis.

    paths: names the arguments in errors.
    """
    tag = Tag("vmap", name)
    trace = BatchTrace(tag, current_trace(), size, axis_name)
    inputs = [BatchTracer(tag, a) if b else a for a, b in zip(args, batched, strict=True)]
    if paths is not None:
        tag.arguments = inputs, paths
    token, away = set_trace(trace), enter_home(args)
    try:
        outs = fun(*inputs)
    finally:
        reset_trace(token)
        leave_home(away)
        tag.end()
    flags = [isinstance(o, Tracer) and o.tag is tag for o in outs]
    return [o.value if f else o for o, f in zip(outs, flags, strict=True)], flags



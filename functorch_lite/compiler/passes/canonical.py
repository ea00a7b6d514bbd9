# SPDX-License-Identifier: MIT
"""The canonical form: one spelling for each computation, so that the passes behind this one have few cases.

- What changes nothing goes: stop_gradient, name, a convert, broadcast, reshape, permute_dims, slice, pad,
  concatenate, rev or dynamic_slice that gives its operand back.
- A chain of one movement becomes one: reshape of reshape, permute_dims of permute_dims, broadcast of broadcast, slice
  of slice; a broadcast of a reshape that only inserts axes of size 1 is a broadcast, a reshape of such a broadcast a
  reshape.
- Slices are taken, and axes of size 1 dropped, before permute_dims, and a matrix product names the axes of its
  unpermuted operands.
- convert of convert is one convert where the first loses nothing and the second gives the same from either type.
- add_any is add (but for run-time stacks and float0, which add does not take).
- Operands of commutative primitives: variables in the order of their definition, a literal last. Complex products
  keep their order (a fused multiply-add rounds one of the two products only), so do max and min of floats (of -0 and
  0 they return either).
- A scalar literal is a NumPy scalar of rank 0; an element-wise operand that is the same everywhere, too.

Nothing here rounds anything anew: values are the same bit for bit, -0 and infinities included; NaN stays NaN.
`use_key` is written only where `config.check_key_reuse` is on, and is an effect, so it stays.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.compiler.passes.rewriting import (
    Rewriter,
    Rule,
    is_stack,
    literal,
    program_pass,
    replaced,
    rewrite,
    scalar,
)
from functorch_lite.core import dtypes
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Equation, Literal, Program
from functorch_lite.primitives.blocks import dynamic_slice_p
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.casts import convert_p, name_p, stop_gradient_p
from functorch_lite.primitives.comparison import and_p, eq_p, ge_p, gt_p, le_p, lt_p, ne_p, or_p, xor_p
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.elementwise import add_any_p, add_p, max_p, min_p, mul_p, scale_p
from functorch_lite.primitives.movement import concatenate_p, pad_p, permute_dims_p, reshape_p, rev_p, slice_p

_FLIPPED = {lt_p: gt_p, gt_p: lt_p, le_p: ge_p, ge_p: le_p}


@program_pass
def canonicalize(program: Program) -> Program:
    """The program in canonical form."""
    return rewrite(program, RULES, canonicalize)


# --- movement ---------------------------------------------------------------------------------------------------------


def _identity(eqn: Equation, rewriter: Rewriter) -> Any:
    return eqn.inputs[0]


def _unless(changes: Callable[[Equation, Any], bool]) -> Rule:
    """The rule that drops an equation where the type stays and `changes(equation, aval of the operand)` is false."""

    def rule(eqn, rewriter):
        x = eqn.inputs[0]
        return x if x.aval == eqn.outputs[0].aval and not changes(eqn, x.aval) else None

    return rule


def _broadcast(eqn: Equation, rewriter: Rewriter) -> Any:
    x, dims = eqn.inputs[0], eqn.params["dims"]
    shape = eqn.params["shape"]
    if x.aval.shape == shape and dims == tuple(range(len(shape))):
        return x
    inner = rewriter.made.get(x)
    if inner is None:
        return None
    if inner.prim is broadcast_in_dim_p:
        dims = tuple([dims[d] for d in inner.params["dims"]])
        return replaced(eqn, broadcast_in_dim_p, *inner.inputs, shape=shape, dims=dims)
    source = inner.inputs[0] if inner.prim is reshape_p else None
    if source is None or 1 in source.aval.shape or 0 in source.aval.shape:
        return None
    kept = [i for i, n in enumerate(x.aval.shape) if n != 1]
    if tuple([x.aval.shape[i] for i in kept]) != source.aval.shape:
        return None
    return replaced(eqn, broadcast_in_dim_p, source, shape=shape, dims=tuple([dims[i] for i in kept]))


def _reshape(eqn: Equation, rewriter: Rewriter) -> Any:
    x = eqn.inputs[0]
    if x.aval.shape == eqn.params["shape"]:
        return x
    inner = rewriter.made.get(x)
    if inner is None:
        return None
    if inner.prim is reshape_p or (inner.prim is broadcast_in_dim_p and _is_reshape(inner)):
        return replaced(eqn, reshape_p, inner.inputs[0], shape=eqn.params["shape"])
    return _reshape_of_permuted(eqn, inner, rewriter) if inner.prim is permute_dims_p else None


def _is_reshape(eqn: Equation) -> bool:
    """Whether a broadcast repeats nothing and keeps the order of the axes."""
    dims, kept = eqn.params["dims"], _kept_axes(eqn.params["shape"], eqn.inputs[0].aval.shape)
    return kept is not None and list(dims) == sorted(dims)


def _reshape_of_permuted(eqn: Equation, inner: Equation, rewriter: Rewriter) -> Any:
    """Dropping axes of size 1 comes before permute_dims, where it may cancel the reshape that inserted them."""
    axes, shape = inner.params["axes"], eqn.params["shape"]
    kept = _kept_axes(inner.outputs[0].aval.shape, shape)
    if kept is None:
        return None
    order = [axes[i] for i in kept]
    ranks = sorted(order)
    x = inner.inputs[0]
    before = tuple([x.aval.shape[a] for a in ranks])
    earlier = rewriter.maker(x, reshape_p)
    x = x if earlier is None else earlier.inputs[0]
    x = x if x.aval.shape == before else rewriter.emit(reshape_p, x, shape=before)
    return replaced(eqn, permute_dims_p, x, axes=tuple([ranks.index(a) for a in order]))


def _kept_axes(wide: tuple[int, ...], narrow: tuple[int, ...]) -> list[int] | None:
    """The axes of `wide` that are those of `narrow`, the others being of size 1; None if that is not so."""
    kept: list[int] = []
    for axis, n in enumerate(wide):
        if len(kept) < len(narrow) and narrow[len(kept)] == n:
            kept.append(axis)
        elif n != 1:
            return None
    return kept if len(kept) == len(narrow) else None


def permuted(eqn: Equation, rewriter: Rewriter) -> Any:
    x, axes = eqn.inputs[0], eqn.params["axes"]
    if axes == tuple(range(len(axes))):
        return x
    inner = rewriter.maker(x, permute_dims_p)
    if inner is None:
        return None
    first = inner.params["axes"]
    return replaced(eqn, permute_dims_p, inner.inputs[0], axes=tuple([first[a] for a in axes]))


def _slice(eqn: Equation, rewriter: Rewriter) -> Any:
    x = eqn.inputs[0]
    if x.aval == eqn.outputs[0].aval:
        return x
    inner = rewriter.maker(x, slice_p)
    if inner is None:
        return _slice_of_permuted(eqn, rewriter)
    starts, limits, strides = [], [], []
    out = eqn.outputs[0].aval.shape
    outer = zip(eqn.params["start"], eqn.params["strides"], out, strict=True)
    for (a, s, n), b, t in zip(outer, inner.params["start"], inner.params["strides"], strict=True):
        start = b + a * t if n else 0
        starts.append(start)
        strides.append(s * t)
        limits.append(start + (n - 1) * s * t + 1 if n else 0)
    facts = {"start": tuple(starts), "limit": tuple(limits), "strides": tuple(strides)}
    return replaced(eqn, slice_p, inner.inputs[0], **facts)


def _slice_of_permuted(eqn: Equation, rewriter: Rewriter) -> Any:
    """What is sliced is cut before it is permuted: the slice of a leading axis is a place in memory."""
    inner = rewriter.maker(eqn.inputs[0], permute_dims_p)
    if inner is None:
        return None
    axes = inner.params["axes"]
    facts = {name: tuple([eqn.params[name][axes.index(d)] for d in range(len(axes))]) for name in eqn.params}
    return replaced(eqn, permute_dims_p, rewriter.emit(slice_p, inner.inputs[0], **facts), axes=axes)


def _concatenate(eqn: Equation, rewriter: Rewriter) -> Any:
    axis = eqn.params["axis"]
    parts = [x for x in eqn.inputs if x.aval.shape[axis]] or [eqn.inputs[0]]
    if len(parts) == 1:
        return parts[0]
    return None if len(parts) == len(eqn.inputs) else replaced(eqn, concatenate_p, *parts, axis=axis)


def _rev(eqn: Equation, rewriter: Rewriter) -> Any:
    x = eqn.inputs[0]
    axes = tuple([a for a in eqn.params["axes"] if x.aval.shape[a] != 1])
    if not axes:
        return x
    inner = rewriter.maker(x, rev_p)
    if inner is not None and set(inner.params["axes"]) == set(axes):
        return inner.inputs[0]
    return None if axes == eqn.params["axes"] else replaced(eqn, rev_p, x, axes=axes)


def _dot_general(eqn: Equation, rewriter: Rewriter) -> Any:
    """A product of permuted operands names the axes of the operands instead, where the result's axes stay in order."""
    inputs, contract, batch = list(eqn.inputs), list(eqn.params["contract"]), list(eqn.params["batch"])
    for i, x in enumerate(inputs):
        inner = rewriter.maker(x, permute_dims_p)
        if inner is None:
            continue
        axes = inner.params["axes"]
        taken = {*contract[i], *batch[i]}
        free = [axes[a] for a in range(len(axes)) if a not in taken]
        if free == sorted(free):
            inputs[i] = inner.inputs[0]
            contract[i], batch[i] = (tuple([axes[a] for a in named]) for named in (contract[i], batch[i]))
    if inputs == list(eqn.inputs):
        return None
    return replaced(eqn, dot_general_p, *inputs, contract=tuple(contract), batch=tuple(batch))


# --- convert ----------------------------------------------------------------------------------------------------------
_MANTISSA = {"e": 11, "f": 24, "d": 53}


def _convert(eqn: Equation, rewriter: Rewriter) -> Any:
    x, dtype = eqn.inputs[0], eqn.params["dtype"]
    if x.aval.dtype == dtype or is_stack(x):
        return x
    inner = rewriter.maker(x, convert_p)
    if inner is None:
        return None
    source = inner.inputs[0]
    first, middle = source.aval.dtype, x.aval.dtype
    if is_stack(source) or not is_exact(first, middle) or not _same_from_either(first, middle, dtype):
        return None
    return replaced(eqn, convert_p, source, dtype=dtype)


def is_exact(source: np.dtype, target: np.dtype) -> bool:
    """Whether every value of `source` is one of `target`: int16 in float32, not int64 in float64."""
    if source == target:
        return True
    a, b = dtypes.dtype_kind(source), dtypes.dtype_kind(target)
    if a == "b":
        return b in "biufc"
    if source.kind == "V" or target.kind == "V":  # bfloat16 and float8
        return source == dtypes.bfloat16 and target.char in "fdFD"
    if a in "iu" and b in "fc":
        bits = _MANTISSA.get(dtypes.real_dtype(target).char, 0)
        return source.itemsize * 8 - (a == "i") <= bits
    return a in "iufc" and b in "iufc" and np.can_cast(source, target, "safe")


def _same_from_either(first, middle, last):
    """Whether conversion to `last` gives the same from an equal value of `first` or `middle`.

    To a float: both round the same value once. Between integers: both take it modulo a power of two. To bool: both tell
    zero from the rest. A float out of an integer's range converts to anything, differently for each float type.
    """
    a, b, c = (dtypes.dtype_kind(d) for d in (first, middle, last))
    if dtypes.is_complex(first) and not dtypes.is_complex(last):
        return False
    return c in "bfc" or a == "b" or (a in "iu" and b in "iu")


# --- element-wise -----------------------------------------------------------------------------------------------------


def _elementwise(eqn: Equation, rewriter: Rewriter) -> Any:
    """Operands that are the same everywhere become scalar literals, if another operand keeps the shape."""
    inputs, found = eqn.inputs, None
    made = rewriter.made
    for i, x in enumerate(inputs):
        if type(x) is Literal:
            new = _scalar_literal(x)
        else:
            maker = made.get(x)
            if maker is None or maker.prim is not broadcast_in_dim_p or maker.params["dims"]:
                continue
            new = _scalar_literal(maker.inputs[0]) if type(maker.inputs[0]) is Literal else x
        if new is not x:
            found = found or list(inputs)
            found[i] = new
    if found is None or not _keeps_shape(found, eqn):
        return None
    return Equation(eqn.prim, tuple(found), eqn.outputs, eqn.params, eqn.source)


def _keeps_shape(inputs, eqn):
    shape = eqn.outputs[0].aval.shape
    return any(x.aval.shape == shape and (type(x) is not Literal or not shape) for x in inputs)


def _scalar_literal(x: Literal) -> Literal:
    """The rank-0 literal of the one value that all elements have, bit for bit; `x` itself if they differ."""
    value = x.value
    if not x.aval.shape:
        return x if isinstance(value, np.generic) else literal(value, x.aval.dtype)
    if not isinstance(value, np.ndarray) or not value.size or x.aval.dtype == dtypes.float0:
        return x
    flat = value.tobytes()
    one = flat[: value.itemsize]
    return literal(value.reshape(-1)[0], x.aval.dtype) if one * value.size == flat else x


def _first_is_later(eqn: Equation, rewriter: Rewriter) -> bool:
    """Whether the two operands are to change places."""
    x, y = eqn.inputs
    if isinstance(y, Literal):
        return False
    return isinstance(x, Literal) or rewriter.position(x) > rewriter.position(y)


def _commutative(allowed: str) -> Rule:
    """Order the operands, for dtypes whose kind is in `allowed`."""

    def rule(eqn, rewriter):
        x, y = eqn.inputs
        if _first_is_later(eqn, rewriter) and dtypes.dtype_kind(x.aval.dtype) in allowed:
            eqn = Equation(eqn.prim, (y, x), eqn.outputs, eqn.params, eqn.source)
            return _elementwise(eqn, rewriter) or eqn
        return _elementwise(eqn, rewriter)

    return rule


def _comparison(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    if type(x) is Literal and type(y) is not Literal:
        return replaced(eqn, _FLIPPED[eqn.prim], y, x)
    return _elementwise(eqn, rewriter)


def _add_any(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    plain = not is_stack(x) and dtypes.dtype_kind(x.aval.dtype) in "biufc"
    return replaced(eqn, add_p, x, y) if plain else None


def _unary(eqn: Equation, rewriter: Rewriter) -> Any:
    """A scalar literal as a NumPy scalar."""
    x = eqn.inputs[0]
    value = scalar(x)
    if value is None or isinstance(value, np.generic):
        return None
    return replaced(eqn, eqn.prim, literal(value, x.aval.dtype), **eqn.params)


class _Rules(dict[Primitive, Rule]):
    """The rules by primitive; one that is not listed has that of its kind."""

    def get(self, prim: Primitive, default: Any = None) -> Any:
        if prim not in self:
            self[prim] = _by_kind(prim)
        return self[prim]


def _by_kind(prim: Primitive) -> Any:
    if prim.kind is not Kind.ELEMENTWISE:
        return None
    return lambda eqn, rewriter: (_elementwise if len(eqn.inputs) > 1 else _unary)(eqn, rewriter)


RULES = _Rules(
    {
        stop_gradient_p: _identity,
        name_p: _identity,
        convert_p: _convert,
        broadcast_in_dim_p: _broadcast,
        reshape_p: _reshape,
        permute_dims_p: permuted,
        slice_p: _slice,
        pad_p: _unless(lambda eqn, aval: any(c != (0, 0, 0) for c in eqn.params["config"])),
        concatenate_p: _concatenate,
        rev_p: _rev,
        dot_general_p: _dot_general,
        dynamic_slice_p: _unless(lambda eqn, aval: False),
        add_any_p: _add_any,
        add_p: _commutative("biufc"),
        mul_p: _commutative("biuf"),
        scale_p: _commutative("biuf"),
        **dict.fromkeys((max_p, min_p), _commutative("biu")),
        **dict.fromkeys((and_p, or_p, xor_p, eq_p, ne_p), _commutative("biufc")),
        **dict.fromkeys(_FLIPPED, _comparison),
    }
)

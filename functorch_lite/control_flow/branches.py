# SPDX-License-Identifier: MIT
"""cond and switch: one branch runs. Under `vmap` with a mapped predicate each row runs its own branch only.

Both branches are always staged, so that a mismatch is found whichever is taken.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.control_flow.common import (
    flatten_values,
    has_stacks,
    merge_captured,
    recomputing,
    stage_function,
)
from functorch_lite.control_flow.scanning import _some
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, aval_of
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.linear import is_linear, zeros_of
from functorch_lite.core.program import Program, memoized
from functorch_lite.core.rules import batch_rules, jvp_rules, linearize_rules, transpose_rules
from functorch_lite.core.staging import stage_closed
from functorch_lite.core.tracer import bind
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError, TreeError
from functorch_lite.primitives.broadcast import broadcast_in_dim, reduce_sum
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import eq, select
from functorch_lite.primitives.elementwise import clamp
from functorch_lite.primitives.loops import batched_cond_p, cond_p
from functorch_lite.primitives.movement import reshape
from functorch_lite.transforms.arguments import check_callable, name_of, on_its_device, quiet, weakened
from functorch_lite.transforms.batching import materialize, program_batch_rules
from functorch_lite.transforms.jit_rules import spread
from functorch_lite.transforms.programs import batch_program, jvp_program, linearize_program, transpose_program


@on_its_device
def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """`true_fun(*operands)` if `pred` holds, else `false_fun(*operands)`; only one of them runs.

    pred: a boolean or number (true when not zero). Both functions must return the same structure and types.

    >>> float(cond(True, lambda x: x + 1, lambda x: x - 1, 3.0))
    4.0
    """
    check_callable("cond", true_fun)
    check_callable("cond", false_fun)
    aval = _scalar("cond", "pred", pred)
    index = convert(convert(pred, np.bool_) if aval.dtype != np.dtype(bool) else pred, np.int32)
    return _choose("cond", index, (false_fun, true_fun), operands, ("false_fun", "true_fun"))


@on_its_device
def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`branches[index](*operands)`, the index limited to the branches there are.

    >>> float(switch(1, [lambda x: x, lambda x: -x], 3.0))
    -3.0
    """
    if not branches:
        raise ArgumentError("switch: give at least one branch.")
    for branch in branches:
        check_callable("switch", branch)
    aval = _scalar("switch", "index", index)
    if dtypes.dtype_kind(aval.dtype) not in "iu":
        raise DTypeError(f"switch: `index` must be an integer, got dtype {aval.dtype}. Convert it with .astype(int).")
    index = convert(clamp(np.int64(0), convert(index, np.int64), np.int64(len(branches) - 1)), np.int32)
    return _choose("switch", index, tuple(branches), operands, [f"branch {i}" for i in range(len(branches))])


def _scalar(what, name, value) -> Aval:
    if not (hasattr(value, "dtype") or isinstance(value, bool | int | float)):
        raise ArgumentTypeError(f"{what}: `{name}` must be a scalar, got {value!r}. Pass a boolean or a number.")
    aval = aval_of(value)
    if aval.shape:
        raise ShapeError(
            f"{what}: `{name}` must be a scalar, got shape {aval.shape}. "
            "Use where() for element-wise choice, or vmap."
        )
    return aval


def _choose(what, index, functions, operands, roles):
    with quiet():
        values, weak, treedef = flatten_values(what, functions[0], operands, "operands")
        avals = [aval_of(v) for v in values]

        def rebuild(flat):
            return tree.unflatten(treedef, flat)

        staged = [stage_function(what, f, avals, rebuild, weak) for f in functions]
        programs = [s[0] for s in staged]
        names = [f"{role} ({name_of(f)})" for role, f in zip(roles, functions, strict=True)]
        programs = _same_outputs(what, names, programs, [s[2] for s in staged], [s[3] for s in staged])
        branches, captured = merge_captured(programs, [s[1] for s in staged])
        outs = bind(cond_p, index, *captured, *values, branches=tuple(branches))
        out_weak = [all(flags) for flags in zip(*(s[3] for s in staged), strict=True)]
        return tree.unflatten(staged[0][2], weakened(outs, out_weak))


def _same_outputs(what, names, programs, trees, weak):
    """Refuse branches that differ in structure or types; Python scalars take the other branch's dtype."""
    first = tree.unflatten(trees[0], programs[0].out_avals)
    for name, program, out_tree in zip(names[1:], programs[1:], trees[1:], strict=True):
        if out_tree != trees[0]:
            other = tree.unflatten(out_tree, program.out_avals)
            message = tree.first_difference(first, other, is_leaf=lambda x: isinstance(x, Aval))
            raise TreeError(f"{what}: {names[0]} and {name} must return the same structure: {message}")
    if len({tuple(p.out_avals) for p in programs}) > 1:
        programs = [_with_dtypes(p, w, _common(programs, weak)) for p, w in zip(programs, weak, strict=True)]
    paths = tree.paths(first, is_leaf=lambda x: isinstance(x, Aval))
    for name, program in zip(names[1:], programs[1:], strict=True):
        for path, a, b in zip(paths, programs[0].out_avals, program.out_avals, strict=True):
            if a != b:
                kind = ShapeError if a.shape != b.shape else DTypeError
                raise kind(f"{what}: {names[0]} returns {a} at `output{path}`, {name} returns {b}. "
                           "Make them equal with .astype or reshape.")
    return programs


def _common(programs, weak):
    """The dtype that each output takes where some branches give a Python scalar; None where there is none in common."""
    found: list[Any] = []
    for k in range(len(programs[0].outputs)):
        given = [p.out_avals[k].dtype for p in programs]
        strong = {d for d, w in zip(given, weak, strict=True) if not w[k]}
        target = strong.pop() if len(strong) == 1 else None if strong else max(given, key=_rank)
        found.append(target if target is not None and _rank(target) >= max(map(_rank, given)) else None)
    return found


def _rank(dtype):
    return "biufc".index(dtypes.dtype_kind(dtype))


def _with_dtypes(program, weak, targets):
    if not any(w and t is not None and a.dtype != t for w, t, a in zip(weak, targets, program.out_avals, strict=True)):
        return program

    def fun(*args):
        outs = interpret(program, args)
        return [convert(o, t) if w and t is not None else o for o, w, t in zip(outs, weak, targets, strict=True)]

    return stage_closed(fun, program.in_avals, name=program.name)


# --- forward mode -----------------------------------------------------------------------------------------------------


def _jvp(prim, primals, tangents, branches, rows=None, **facts):
    nonzero = tuple(t is not None for t in tangents[1:])
    union = _union([jvp_program(b, nonzero)[1] for b in branches])
    derived = tuple(jvp_program(b, nonzero, union)[0] for b in branches)
    n = len(branches[0].outputs)
    dots = _some(tangents[1:])
    if rows is not None:
        facts["batched"] = (*rows, *(True for _ in dots))
        dots = [_all_rows(t, r, primals[0]) for t, r in zip(dots, _pick_rows(rows, nonzero), strict=True)]
    outs = bind(prim, *primals, *dots, branches=derived, **facts)
    return outs[:n], spread(outs[n:], union)


def _pick_rows(rows, nonzero):
    return [r for r, f in zip(rows, nonzero, strict=True) if f]


def _all_rows(value, is_batched, index):
    return value if is_batched else materialize(value, index.shape[0])


def _union(flags):
    return tuple(any(column) for column in zip(*flags, strict=True))


jvp_rules.add(cond_p, lambda primals, tangents, *, branches: _jvp(cond_p, primals, tangents, branches))
jvp_rules.add(
    batched_cond_p,
    lambda primals, tangents, *, branches, batched, batch: _jvp(
        batched_cond_p, primals, tangents, branches, rows=batched, batch=batch
    ),
)

# --- the linear part --------------------------------------------------------------------------------------------------


def _linearized_branches(branches, nonzero):
    n = len(branches[0].outputs)
    if any(has_stacks(linearize_program(b, nonzero), n) for b in branches):
        branches = tuple(recomputing(b) for b in branches)
    union = _union([linearize_program(b, nonzero).out_nonzero for b in branches])
    parts = [linearize_program(b, nonzero, union) for b in branches]
    slots, places = _assign_slots([p.forward.out_avals[n:] for p in parts])
    inputs = tuple(sorted({i for p in parts for i in p.from_inputs}))
    forward = tuple(_fill_slots(p.forward, n, slots, place) for p, place in zip(parts, places, strict=True))
    linear = tuple(_read_slots(p, inputs, branches[0].in_avals, slots, place, nonzero) for p, place in
                   zip(parts, places, strict=True))
    return forward, linear, inputs, union


def _assign_slots(avals_of):
    """One list of residual types that every branch fits in, and each branch's places in it."""
    slots: list[Any] = []
    places = []
    for avals in avals_of:
        free = list(range(len(slots)))
        place = []
        for aval in avals:
            k = next((i for i in free if slots[i] == aval), None)
            if k is None:
                k = len(slots)
                slots.append(aval)
            else:
                free.remove(k)
            place.append(k)
        places.append(place)
    return slots, places


def _fill_slots(forward, n, slots, place):
    def fun(*args):
        outs = interpret(forward, args)
        own = dict(zip(place, outs[n:], strict=True))
        return [*outs[:n], *(own[k] if k in own else zeros_of(a) for k, a in enumerate(slots))]

    return stage_closed(fun, forward.in_avals, name=forward.name)


def _read_slots(parts, inputs, in_avals, slots, place, nonzero):
    """inputs that any branch needs, slots, tangents  ->  out tangents."""
    def fun(*args):
        known = dict(zip(inputs, args, strict=False))
        stored, dots = args[len(inputs) : len(inputs) + len(slots)], args[len(inputs) + len(slots) :]
        return interpret(parts.linear, [*(known[i] for i in parts.from_inputs), *(stored[k] for k in place), *dots])

    dots = [a for a, f in zip(in_avals, nonzero, strict=True) if f]
    return stage_closed(fun, [*(in_avals[i] for i in inputs), *slots, *dots], name=parts.linear.name)


def _linearize(prim, primals, tangents, branches, rows=None, **facts):
    nonzero = tuple(t is not None for t in tangents[1:])
    key = ("linearized branches", nonzero, branches[1:])
    forward, linear, inputs, union = memoized(branches[0], key, lambda: _linearized_branches(branches, nonzero))
    n = len(branches[0].outputs)
    own = {} if rows is None else {"batched": rows}
    outs = bind(prim, *primals, branches=forward, **own, **facts)
    if not any(union):
        return outs[:n], [None] * n
    dots = _some(tangents[1:])
    if rows is not None:
        dots = [_all_rows(t, r, primals[0]) for t, r in zip(dots, _pick_rows(rows, nonzero), strict=True)]
        own = {"batched": (*(rows[i] for i in inputs), *[True] * (len(outs) - n + len(dots)))}
    known = [primals[1 + i] for i in inputs]
    found = bind(prim, primals[0], *known, *outs[n:], *dots, branches=linear, **own, **facts)
    return outs[:n], spread(found, union)


linearize_rules.add(
    cond_p, lambda tape, primals, tangents, *, branches: _linearize(cond_p, primals, tangents, branches)
)
linearize_rules.add(
    batched_cond_p,
    lambda tape, primals, tangents, *, branches, batched, batch: _linearize(
        batched_cond_p, primals, tangents, branches, rows=batched, batch=batch
    ),
)

# --- transposition ----------------------------------------------------------------------------------------------------


def _transpose(prim, cts, index, args, branches, rows=None, **facts):
    known = [i for i, a in enumerate(args) if not is_linear(a)]
    unknown = [i for i, a in enumerate(args) if is_linear(a)]
    ct_flags = tuple(c is not None for c in cts)

    def derive():
        ordered = [Program(tuple(b.inputs[i] for i in (*known, *unknown)), b.equations, b.outputs, b.name)
                   for b in branches]
        return tuple(transpose_program(o, len(known), ct_flags, instantiate=True)[0] for o in ordered)

    key = ("transposed branches", tuple(unknown), ct_flags, branches[1:])
    derived = memoized(branches[0], key, derive)
    values = [*(args[i] for i in known), *_some(cts)]
    if rows is not None:
        facts["batched"] = (*(rows[i] for i in known), *[True] * len(_some(cts)))
    found = bind(prim, index, *values, branches=derived, **facts)
    result: list[Any] = [None] * (len(args) + 1)
    for i, ct in zip(unknown, found, strict=True):
        result[1 + i] = ct if rows is None or rows[i] else reduce_sum(ct, (0,))
    return tuple(result)


transpose_rules.add(cond_p, lambda cts, index, *args, branches: _transpose(cond_p, cts, index, args, branches))
transpose_rules.add(
    batched_cond_p,
    lambda cts, index, *args, branches, batched, batch: _transpose(
        batched_cond_p, cts, index, args, branches, rows=batched, batch=batch
    ),
)

# --- batching ---------------------------------------------------------------------------------------------------------
for _prim in (cond_p, batched_cond_p):
    batch_rules.absent(_prim, "its branches are batched as programs")


def batch_branch(program: Program, size: int, batched: tuple[bool, ...]) -> Program:
    """A branch over `size` rows, with every output per row: what batched_cond evaluates."""
    return batch_program(program, size, tuple(batched), None, True)[0]


@program_batch_rules.register(cond_p)
def _(trace, args, batched, *, branches):
    flags = tuple(batched[1:])
    if batched[0] and not any(trace.axis_name in b.axis_names for b in branches):
        outs = bind(batched_cond_p, *args, branches=branches, batched=flags, batch=batch_branch)
        return outs, [True] * len(outs)
    union = _union([batch_program(b, trace.size, flags, trace.axis_name)[1] for b in branches])
    if batched[0]:
        union = (True,) * len(union)
    derived = tuple(batch_program(b, trace.size, flags, trace.axis_name, union)[0] for b in branches)
    if not batched[0]:
        return bind(cond_p, *args, branches=derived), list(union)
    outs = [interpret(b, args[1:]) for b in derived]  # a collective inside needs every row in every branch
    chosen = outs[-1]
    for k in range(len(branches) - 2, -1, -1):
        chosen = [_choose_rows(eq(args[0], np.int32(k)), a, b) for a, b in zip(outs[k], chosen, strict=True)]
    return chosen, list(union)


def _choose_rows(flag, new, old):
    shape = new.shape
    return select(broadcast_in_dim(flag, shape, (0,)) if len(shape) > 1 else flag, new, old)


@program_batch_rules.register(batched_cond_p)
def _(trace, args, has_outer, *, branches, batched, batch):
    """Two mapped axes become one: [outer, rows, ...] as [outer * rows, ...]."""
    size, n = trace.size, args[0].shape[-1]
    index = args[0] if has_outer[0] else materialize(args[0], size)
    values, flags = [], []
    for value, outer, rows in zip(args[1:], has_outer[1:], batched, strict=True):
        if outer or rows:
            value = _both_axes(value, outer, rows, size, n)
            value = reshape(value, (size * n, *value.shape[2:]))
        values.append(value)
        flags.append(outer or rows)
    outs = bind(
        batched_cond_p, reshape(index, (size * n,)), *values, branches=branches, batched=tuple(flags), batch=batch
    )
    return [reshape(o, (size, n, *o.shape[1:])) for o in outs], [True] * len(outs)


def _both_axes(value, outer, rows, size, n):
    if outer and rows:
        return value
    if rows:
        return materialize(value, size)
    return broadcast_in_dim(value, (size, n, *value.shape[1:]), (0, *range(2, len(value.shape) + 1)))

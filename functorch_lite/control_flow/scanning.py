# SPDX-License-Identifier: MIT
"""scan: a loop with a carry over the leading axis of arrays.

Rules transform the body program: the jvp of a scan is a scan of the body's jvp; its linear part is a scan of the body's
linear program over stacked residuals; the transpose of that is a scan in the other direction.
"""

from collections.abc import Callable
from typing import Any

from functorch_lite import tree
from functorch_lite.control_flow.common import (
    check_carry,
    flatten_values,
    has_stacks,
    recomputing,
    settle_weak,
    stage_function,
)
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, StackAval, aval_of
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.linear import add_tangents, is_linear, zeros_of
from functorch_lite.core.program import Program, memoized
from functorch_lite.core.rules import batch_rules, jvp_rules, linearize_rules, transpose_rules
from functorch_lite.core.staging import stage_closed
from functorch_lite.core.tracer import bind
from functorch_lite.errors import ArgumentError, ArgumentTypeError, NotLinearError, ShapeError
from functorch_lite.primitives.loops import scan_p
from functorch_lite.primitives.movement import moveaxis
from functorch_lite.transforms.arguments import check_callable, name_of, on_its_device, quiet, type_text, weakened
from functorch_lite.transforms.batching import materialize, program_batch_rules
from functorch_lite.transforms.jit_rules import spread
from functorch_lite.transforms.programs import (
    Linearized,
    batch_program,
    jvp_program,
    linearize_program,
    transpose_program,
)


@on_its_device
def scan(
    f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, length: int | None = None,
    reverse: bool = False, unroll: int = 1,
) -> tuple[Any, Any]:
    """Fold `carry, y = f(carry, x)` over the leading axis of the arrays `xs`; returns the last carry and stacked ys.

    xs: a pytree of arrays [length, ...], or None with `length` given. reverse: from the last element to the first (ys
    keep their places). unroll: a hint for compiled loops; results do not depend on it.

    >>> scan(lambda c, x: (c + x, c), 0.0, np.arange(3.0))
    (np.float64(3.0), array([0., 0., 1.]))

    Raises: TreeError, ShapeError or DTypeError naming the carry leaf whose type changes.
    """
    check_callable("scan", f)
    with quiet():
        carry, weak, carry_tree = flatten_values("scan", f, init, "init")
        rows, _, xs_tree = flatten_values("scan", f, xs, "xs")
        count = _length(xs, rows, length)
        row_avals = [Aval(aval_of(x).shape[1:], aval_of(x).dtype) for x in rows]
        n = len(carry)

        def rebuild(flat):
            return tree.unflatten(carry_tree, flat[:n]), tree.unflatten(xs_tree, flat[n:])

        def staged(values, flags):
            avals = [aval_of(c) for c in values]
            return stage_function("scan", f, [*avals, *row_avals], rebuild, [*flags, *[False] * len(rows)])

        carry, weak, (body, captured, out_tree, _) = settle_weak(staged, carry, weak, carry_tree, _carry_tree)
        pair = tree.unflatten(out_tree, body.out_avals)
        if not isinstance(pair, tuple) or isinstance(pair, Aval) or len(pair) != 2:
            raise ArgumentTypeError(
                f"scan: {name_of(f)} must return a pair (carry, y), it returned {type_text(pair)}. y may be None."
            )
        new_tree, ys_tree = out_tree.children()
        k = new_tree.num_leaves
        check_carry("scan", f, carry_tree, new_tree, [aval_of(c) for c in carry], body.out_avals[:k], init)
        outs = bind(
            scan_p, *captured, *carry, *rows, body=body, n_consts=len(captured), n_carry=n, length=count,
            reverse=reverse, unroll=unroll,
        )
        return tree.unflatten(carry_tree, weakened(outs[:n], weak)), tree.unflatten(ys_tree, outs[n:])


def _carry_tree(out_tree):
    parts = out_tree.children()
    return parts[0] if parts else out_tree


def _length(xs, rows, length) -> int:
    paths = tree.paths(xs)
    sizes = []
    for path, x in zip(paths, rows, strict=True):
        if not aval_of(x).shape:
            raise ShapeError(f"scan: `xs{path}` is a scalar; every leaf of xs needs a leading axis to scan over.")
        sizes.append(aval_of(x).shape[0])
    if length is None and not sizes:
        raise ArgumentError("scan: there is nothing that tells the number of steps: give xs, or length=n.")
    count = sizes[0] if length is None else int(length)
    for path, n in zip(paths, sizes, strict=True):
        if n != count:
            other = f"length={count}" if length is not None else f"`xs{paths[0]}` has {count}"
            raise ShapeError(f"scan: leading axes differ: `xs{path}` has {n}, {other}. They are the steps of the loop.")
    return count


# --- forward mode -----------------------------------------------------------------------------------------------------


def _parts(values, n_consts, n_carry):
    values = list(values)
    return values[:n_consts], values[n_consts : n_consts + n_carry], values[n_consts + n_carry :]


def _carry_fixpoint(body: Program, nonzero: tuple[bool, ...], n_consts: int, n_carry: int, outs_of: Callable) -> tuple:
    """The carry flags once no more of them turn true by going through the body."""
    consts, carry, xs = _parts(nonzero, n_consts, n_carry)
    while True:
        out = outs_of((*consts, *carry, *xs))[:n_carry]
        new = [a or b for a, b in zip(carry, out, strict=True)]
        if new == carry:
            return tuple(consts), tuple(carry), tuple(xs)
        carry = new


def _instantiated(values, tangents, flags):
    """Tangents with zeros where a flag says that there is one."""
    return [zeros_of(aval_of(v)) if f and t is None else t for v, t, f in zip(values, tangents, flags, strict=True)]


def _some(values):
    return [v for v in values if v is not None]


@jvp_rules.register(scan_p)
def _(primals, tangents, *, body, n_consts, n_carry, length, reverse, unroll):
    nonzero = tuple(t is not None for t in tangents)
    consts, carry, xs = _carry_fixpoint(body, nonzero, n_consts, n_carry, lambda flags: jvp_program(body, flags)[1])
    force = (*carry, *[False] * (len(body.outputs) - n_carry))
    derived, out_nonzero = jvp_program(body, (*consts, *carry, *xs), force)
    derived = memoized(
        derived, ("scan order", n_consts, n_carry), lambda: _interleave(derived, body, (consts, carry, xs), out_nonzero)
    )
    p, t = _parts(primals, n_consts, n_carry), _parts(tangents, n_consts, n_carry)
    dots = _some(t[0]), _some(_instantiated(p[1], t[1], carry)), _some(t[2])
    outs = bind(
        scan_p, *p[0], *dots[0], *p[1], *dots[1], *p[2], *dots[2], body=derived, n_consts=n_consts + len(dots[0]),
        n_carry=n_carry + len(dots[1]), length=length, reverse=reverse, unroll=unroll,
    )
    k = n_carry + len(dots[1])
    n_ys = len(body.outputs) - n_carry
    values = [*outs[:n_carry], *outs[k : k + n_ys]]
    return values, [*spread(outs[n_carry:k], carry), *spread(outs[k + n_ys :], out_nonzero[n_carry:])]


def _interleave(derived, body, flags, out_nonzero) -> Program:
    """jvp_program's order (primals, tangents) as scan's: consts, their tangents, carries, theirs, xs, theirs."""
    n = [len(f) for f in flags]
    primals, dots = list(derived.inputs[: sum(n)]), list(derived.inputs[sum(n) :])
    inputs = []
    for size, f in zip(n, flags, strict=True):
        inputs += primals[:size] + dots[: sum(f)]
        primals, dots = primals[size:], dots[sum(f) :]
    n_carry, n_out = n[1], len(body.outputs)
    outs, out_dots = list(derived.outputs[:n_out]), list(derived.outputs[n_out:])
    k = sum(out_nonzero[:n_carry])
    outputs = [*outs[:n_carry], *out_dots[:k], *outs[n_carry:], *out_dots[k:]]
    return Program(tuple(inputs), derived.equations, tuple(outputs), derived.name)


# --- the linear part --------------------------------------------------------------------------------------------------


@linearize_rules.register(scan_p)
def _(tape, primals, tangents, *, body, n_consts, n_carry, length, reverse, unroll):
    nonzero = tuple(t is not None for t in tangents)
    consts, carry, xs = _carry_fixpoint(
        body, nonzero, n_consts, n_carry, lambda flags: linearize_program(body, flags).out_nonzero
    )
    force = (*carry, *[False] * (len(body.outputs) - n_carry))
    parts = linearize_program(body, (*consts, *carry, *xs), force)
    if has_stacks(parts, len(body.outputs)):
        parts = linearize_program(recomputing(body), (*consts, *carry, *xs), force)
    forward, plan = memoized(
        parts.forward, ("scan residuals", n_consts, n_carry, parts.from_inputs),
        lambda: _with_varying_residuals(parts, n_consts, n_carry),
    )
    n_out = len(body.outputs)
    facts = {"length": length, "reverse": reverse, "unroll": unroll}
    outs = bind(scan_p, *primals, body=forward, n_consts=n_consts, n_carry=n_carry, **facts)
    if not any(parts.out_nonzero):
        return outs[:n_out], [None] * n_out
    linear = _linear_scan_body(parts, plan, sum(consts), sum(carry))
    known_consts = [primals[i] for i in plan.const_inputs]
    known_rows = [*(primals[i] for i in plan.row_inputs), *outs[n_out:]]
    p, t = _parts(primals, n_consts, n_carry), _parts(tangents, n_consts, n_carry)
    dots = _some(t[0]), _some(_instantiated(p[1], t[1], carry)), _some(t[2])
    found = bind(
        scan_p, *known_consts, *dots[0], *dots[1], *known_rows, *dots[2], body=linear,
        n_consts=len(known_consts) + len(dots[0]), n_carry=len(dots[1]), **facts,
    )
    k = sum(carry)
    return outs[:n_out], [*spread(found[:k], carry), *spread(found[k:], parts.out_nonzero[n_carry:])]


class _Plan(tuple):
    """Where residuals come from: body inputs that are consts, that are rows of xs, and values stacked on the way."""

    __slots__ = ()
    const_inputs = property(lambda self: self[0])
    row_inputs = property(lambda self: self[1])
    order = property(lambda self: self[2])


def _with_varying_residuals(parts: Linearized, n_consts: int, n_carry: int) -> tuple[Program, _Plan]:
    """The forward body that also stacks every residual which differs from step to step and is no row of xs.

    `order` permutes (consts, rows, stacked) back to the linear program's residuals.
    """
    forward = parts.forward
    consts = [(k, i) for k, i in enumerate(parts.from_inputs) if i < n_consts]
    carries = [(k, i) for k, i in enumerate(parts.from_inputs) if n_consts <= i < n_consts + n_carry]
    rows = [(k, i) for k, i in enumerate(parts.from_inputs) if i >= n_consts + n_carry]
    outputs = (*forward.outputs, *(forward.inputs[i] for _, i in carries))
    n_in = len(parts.from_inputs)
    positions = [k for k, _ in consts] + [k for k, _ in rows] + list(range(n_in, n_in + parts.n_computed))
    positions += [k for k, _ in carries]
    program = Program(forward.inputs, forward.equations, outputs, forward.name)
    return program, _Plan(([i for _, i in consts], [i for _, i in rows], positions))


def _linear_scan_body(parts: Linearized, plan: _Plan, n_const_dots: int, n_carry_dots: int) -> Program:
    """The linear program with its inputs in scan's order: consts, carry, rows."""
    linear = parts.linear
    n_res = parts.n_residuals
    ordered = [linear.inputs[k] for k in plan.order]
    n_const = len(plan.const_inputs)
    dots = linear.inputs[n_res:]
    k = n_const_dots + n_carry_dots
    inputs = (*ordered[:n_const], *dots[:n_const_dots], *dots[n_const_dots:k], *ordered[n_const:], *dots[k:])
    key = ("scan body", inputs)
    return memoized(linear, key, lambda: Program(inputs, linear.equations, linear.outputs, linear.name))


# --- transposition ----------------------------------------------------------------------------------------------------


@transpose_rules.register(scan_p)
def _(cts, *args, body, n_consts, n_carry, length, reverse, unroll):
    """ct_consts accumulate in the carry; the transposed body runs in the other direction."""
    consts, carry, rows = _parts(args, n_consts, n_carry)
    if any(not dtypes.is_inexact(c.dtype) for c in carry):
        raise NotLinearError("scan: it is transposed in its whole carry, which holds an integer. Pass counters in xs.")
    # a carry that starts from a known value starts from the zero tangent: linear like the others, nobody wants its ct
    lin = [is_linear(a) for a in consts], [True] * n_carry, [is_linear(a) for a in rows]
    flags = (*lin[0], *lin[1], *lin[2])
    out_avals = body.out_avals
    ct_carry = [zeros_of(a) if c is None else c for c, a in zip(cts[:n_carry], out_avals, strict=False)]
    ct_ys = cts[n_carry:]
    ys_nonzero = tuple(c is not None for c in ct_ys)
    derived = memoized(
        body, ("scan transpose", flags, ys_nonzero, n_consts, n_carry),
        lambda: _transposed_body(body, lin, n_carry, ys_nonzero),
    )
    known = [a for a, f in zip(consts, lin[0], strict=True) if not f]
    known_rows = [a for a, f in zip(rows, lin[2], strict=True) if not f]
    ct_consts = [zeros_of(a.aval) for a, f in zip(consts, lin[0], strict=True) if f]
    n_acc = len(ct_consts) + n_carry
    found = bind(
        scan_p, *known, *ct_consts, *ct_carry, *known_rows, *_some(ct_ys), body=derived, n_consts=len(known),
        n_carry=n_acc, length=length, reverse=not reverse, unroll=unroll,
    )
    const_out, carry_out, row_out = found[: len(ct_consts)], found[len(ct_consts) : n_acc], found[n_acc:]
    wanted = [ct if is_linear(c) else None for ct, c in zip(carry_out, carry, strict=True)]
    return (*spread(const_out, lin[0]), *wanted, *spread(row_out, lin[2]))


def _transposed_body(body, lin, n_carry, ys_nonzero) -> Program:
    """known consts; ct consts so far, ct carry; known rows, ct ys  ->  ct consts, ct carry; ct rows."""
    n_consts = len(lin[0])
    flags = (*lin[0], *lin[1], *lin[2])
    known_at = [i for i, f in enumerate(flags) if not f]
    linear_at = [i for i, f in enumerate(flags) if f]
    ordered = Program(
        tuple(body.inputs[i] for i in (*known_at, *linear_at)), body.equations, body.outputs, body.name
    )
    ct_flags = (*[True] * n_carry, *ys_nonzero)
    transposed, _ = transpose_program(ordered, len(known_at), ct_flags, instantiate=True)
    n_known_consts = n_consts - sum(lin[0])
    n_lin_consts = sum(lin[0])
    n_known_rows = len(known_at) - n_known_consts
    avals = [v.aval for v in ordered.inputs]
    known_avals, lin_avals = avals[: len(known_at)], avals[len(known_at) :]
    ct_avals = [a for a, f in zip(body.out_avals, ct_flags, strict=True) if f]

    def fun(*args):
        split = (n_known_consts, n_lin_consts, n_carry, n_known_rows)
        parts, start = [], 0
        for k in split:
            parts.append(list(args[start : start + k]))
            start += k
        known_consts, so_far, ct_carry, known_rows = parts
        found = interpret(transposed, [*known_consts, *known_rows, *ct_carry, *args[start:]])
        sums = [add_tangents(a, b) for a, b in zip(so_far, found[:n_lin_consts], strict=True)]
        return [*sums, *found[n_lin_consts:]]

    in_avals = [
        *known_avals[:n_known_consts], *lin_avals[:n_lin_consts], *lin_avals[n_lin_consts : n_lin_consts + n_carry],
        *known_avals[n_known_consts:], *ct_avals[n_carry:],
    ]
    return stage_closed(fun, in_avals, name=f"{body.name}_transpose")


# --- batching ---------------------------------------------------------------------------------------------------------

batch_rules.absent(scan_p, "its body is batched as a program")


def _row_first(x: Any) -> Any:
    """[batch, length, ...] as [length, batch, ...]; the elements of a stack have the batch in front already."""
    return x if isinstance(aval_of(x), StackAval) else moveaxis(x, 0, 1)


@program_batch_rules.register(scan_p)
def _(trace, args, batched, *, body, n_consts, n_carry, length, reverse, unroll):
    size = trace.size

    def outs_of(flags):
        return batch_program(body, size, flags, trace.axis_name)[1]

    consts, carry, xs = _carry_fixpoint(body, tuple(batched), n_consts, n_carry, outs_of)
    force = (*carry, *[False] * (len(body.outputs) - n_carry))
    derived, out_batched = batch_program(body, size, (*consts, *carry, *xs), trace.axis_name, force)
    a, b = _parts(args, n_consts, n_carry), _parts(batched, n_consts, n_carry)
    init = [materialize(c, size) if want and not has else c for c, has, want in zip(a[1], b[1], carry, strict=True)]
    rows = [_row_first(x) if f else x for x, f in zip(a[2], xs, strict=True)]
    outs = bind(
        scan_p, *a[0], *init, *rows, body=derived, n_consts=n_consts, n_carry=n_carry, length=length, reverse=reverse,
        unroll=unroll,
    )
    flags = [*carry, *out_batched[n_carry:]]
    ys = [_row_first(y) if f else y for y, f in zip(outs[n_carry:], flags[n_carry:], strict=True)]
    return [*outs[:n_carry], *ys], flags



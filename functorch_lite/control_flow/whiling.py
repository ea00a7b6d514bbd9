# SPDX-License-Identifier: MIT
"""while_loop and fori_loop, differentiable in both modes.

For reverse mode the loop leaves its residuals on run-time stacks, one element an iteration; the linear part is a scan
over the stacks, and its transpose a scan in the other direction. Each stacked step carries a flag that tells whether
the row was still running, so that a batched loop leaves finished rows alone in the derivative too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.backends.registry import constant
from functorch_lite.control_flow.common import (
    check_carry,
    flatten_values,
    has_stacks,
    recomputing,
    settle_weak,
    stage_function,
)
from functorch_lite.control_flow.scanning import _carry_fixpoint, _instantiated, _some, scan
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, aval_of
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.linear import zeros_of
from functorch_lite.core.program import Literal, Program, Var, memoized
from functorch_lite.core.rules import batch_rules, jvp_rules, linearize_rules, transpose_rules
from functorch_lite.core.staging import stage_closed
from functorch_lite.core.tracer import Tracer, bind
from functorch_lite.errors import ArgumentTypeError
from functorch_lite.primitives.broadcast import broadcast_in_dim
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import select
from functorch_lite.primitives.key_use import without_key_uses
from functorch_lite.primitives.loops import scan_p, while_p
from functorch_lite.primitives.reduction import reduce_or
from functorch_lite.transforms.arguments import check_callable, is_weak, name_of, on_its_device, quiet, weakened
from functorch_lite.transforms.batching import materialize, program_batch_rules
from functorch_lite.transforms.jit_rules import spread
from functorch_lite.transforms.programs import batch_program, jvp_program, linearize_program


@on_its_device
def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any) -> Any:
    """`val = body_fun(val)` while `cond_fun(val)` holds, starting from `init_val` (a pytree).

    Reverse mode works: residuals are kept on a stack that grows with the number of iterations.

    >>> int(while_loop(lambda x: x < 100, lambda x: x * 2, 1))
    128

    Raises: TreeError, ShapeError or DTypeError naming the leaf whose type the body changes.
    """
    check_callable("while_loop", cond_fun)
    check_callable("while_loop", body_fun)
    with quiet():
        carry, weak, carry_tree = flatten_values("while_loop", body_fun, init_val, "init_val")

        def rebuild(flat):
            return (tree.unflatten(carry_tree, flat),)

        def staged(values, flags):
            return stage_function("while_loop", body_fun, [aval_of(c) for c in values], rebuild, flags)

        carry, weak, (body, body_captured, out_tree, _) = settle_weak(staged, carry, weak, carry_tree)
        avals = [aval_of(c) for c in carry]
        check_carry("while_loop", body_fun, carry_tree, out_tree, avals, body.out_avals, init_val)
        cond, cond_captured, _, _ = stage_function("while_loop", cond_fun, avals, rebuild, weak)
        _check_condition(cond_fun, cond)
        outs = bind(
            while_p, *cond_captured, *body_captured, *carry, cond=cond, body=body, n_cond_consts=len(cond_captured),
            n_body_consts=len(body_captured), n_carry=len(carry),
        )
        return tree.unflatten(carry_tree, weakened(outs[: len(carry)], weak))


def _check_condition(fun, cond):
    outs = cond.out_avals
    if len(outs) != 1 or outs[0].shape or outs[0].dtype != np.dtype(bool):
        got = ", ".join(map(str, outs)) or "nothing"
        raise ArgumentTypeError(
            f"while_loop: {name_of(fun)} must return one boolean scalar, it returned {got}. "
            "Compare, and reduce with .any() or .all()."
        )


@on_its_device
def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """`val = body_fun(i, val)` for i from `lower` up to, not including, `upper`.

    Known bounds make a scan, traced bounds a while loop; both are differentiable in both modes. i is int64; it takes
    the dtype of what it meets, as Python's integers do, if `lower` is one.

    >>> int(fori_loop(0, 5, lambda i, x: x + i, 0))
    10
    """
    check_callable("fori_loop", body_fun)
    for name, bound in (("lower", lower), ("upper", upper)):
        aval = aval_of(bound) if hasattr(bound, "dtype") or isinstance(bound, int) else None
        if aval is None or aval.shape or dtypes.dtype_kind(aval.dtype) not in "iu":
            raise ArgumentTypeError(f"fori_loop: `{name}` must be an integer scalar, got {bound!r}. Use int(...).")

    def index(i):
        return weakened([i], [is_weak(lower)])[0]

    start, stop = _known_int(lower), _known_int(upper)
    if start is not None and stop is not None:
        indices = constant(np.arange(start, max(start, stop)))
        return scan(lambda carry, i: (body_fun(index(i), carry), None), init_val, indices)[0]
    return while_loop(
        lambda state: state[0] < state[1],
        lambda state: (state[0] + 1, state[1], body_fun(index(state[0]), state[2])),
        (*_same_integers(lower, upper), init_val),
    )[2]


def _known_int(bound):
    return None if isinstance(bound, Tracer) else int(bound)


def _same_integers(lower, upper):
    return [convert(b, np.int64) for b in (lower, upper)]


# --- forward mode -----------------------------------------------------------------------------------------------------


def _flags(tangents, facts):
    """Whether the body's consts and carries have tangents (the condition's consts do not matter)."""
    nonzero = tuple(t is not None for t in tangents)
    return nonzero[facts["n_cond_consts"] :]


def _widened(cond: Program, n_cond_consts: int, extra: list[Any]) -> Program:
    """The condition with more carry inputs, which it does not look at."""
    key = ("while widened", tuple(extra))
    return memoized(
        cond, key,
        lambda: Program((*cond.inputs, *(Var(a) for a in extra)), cond.equations, cond.outputs, cond.name),
    )


def _thirds(values, facts):
    a = facts["n_cond_consts"]
    b = a + facts["n_body_consts"]
    return list(values[:a]), list(values[a:b]), list(values[b:])


@jvp_rules.register(while_p)
def _(primals, tangents, **facts):
    cond, body, n_carry = facts["cond"], facts["body"], facts["n_carry"]
    n_consts = facts["n_body_consts"]
    flags = _flags(tangents, facts)
    consts, carry, _ = _carry_fixpoint(body, flags, n_consts, n_carry, lambda f: jvp_program(body, f)[1])
    force = (*carry, *[False] * (len(body.outputs) - n_carry))
    derived, out_nonzero = jvp_program(body, (*consts, *carry), force)
    derived = memoized(derived, ("while order", n_consts, n_carry),
                       lambda: _while_order(derived, body, consts, carry, n_carry))
    p, t = _thirds(primals, facts), _thirds(tangents, facts)
    const_dots, carry_dots = _some(t[1]), _some(_instantiated(p[2], t[2], carry))
    cond = _widened(cond, facts["n_cond_consts"], [a for a, f in zip(body.out_avals, carry, strict=False) if f])
    outs = bind(
        while_p, *p[0], *p[1], *const_dots, *p[2], *carry_dots, cond=cond, body=derived,
        n_cond_consts=facts["n_cond_consts"], n_body_consts=n_consts + len(const_dots),
        n_carry=n_carry + len(carry_dots),
    )
    k = n_carry + len(carry_dots)
    n_ys = len(body.outputs) - n_carry
    values = [*outs[:n_carry], *outs[k : k + n_ys]]
    return values, [*spread(outs[n_carry:k], carry), *spread(outs[k + n_ys :], out_nonzero[n_carry:])]


def _while_order(derived, body, consts, carry, n_carry):
    n, m = len(consts), len(carry)
    dots = derived.inputs[n + m :]
    inputs = (*derived.inputs[:n], *dots[: sum(consts)], *derived.inputs[n : n + m], *dots[sum(consts) :])
    n_out = len(body.outputs)
    outs, out_dots = derived.outputs[:n_out], derived.outputs[n_out:]
    k = sum(carry)
    outputs = (*outs[:n_carry], *out_dots[:k], *outs[n_carry:], *out_dots[k:])
    return Program(inputs, derived.equations, outputs, derived.name)


# --- the linear part --------------------------------------------------------------------------------------------------


@linearize_rules.register(while_p)
def _(tape, primals, tangents, **facts):
    body, n_carry, n_consts = facts["body"], facts["n_carry"], facts["n_body_consts"]
    flags = _flags(tangents, facts)
    consts, carry, _ = _carry_fixpoint(
        body, flags, n_consts, n_carry, lambda f: linearize_program(body, f).out_nonzero
    )
    force = (*carry, *[False] * (len(body.outputs) - n_carry))
    parts = linearize_program(body, (*consts, *carry), force)
    if has_stacks(parts, len(body.outputs)):
        parts = linearize_program(recomputing(body), (*consts, *carry), force)
    n_out = len(body.outputs)
    carried = [i for i in parts.from_inputs if i >= n_consts]
    from_consts = [i for i in parts.from_inputs if i < n_consts]
    forward = memoized(parts.forward, ("while residuals", n_consts, parts.from_inputs),
                       lambda: _with_stacks(parts.forward, carried))
    outs = bind(while_p, *primals, **{**facts, "body": forward})
    if not any(parts.out_nonzero):
        return outs[:n_out], [None] * n_out
    linear = memoized(parts.linear, ("while linear", n_consts, carry, consts, parts.from_inputs),
                      lambda: _masked_linear_body(parts, n_consts, sum(consts), sum(carry)))
    p, t = _thirds(primals, facts), _thirds(tangents, facts)
    known = [p[1][i] for i in from_consts]
    const_dots, carry_dots = _some(t[1]), _some(_instantiated(p[2], t[2], carry))
    found = bind(
        scan_p, *known, *const_dots, *carry_dots, *outs[n_out:], body=linear, n_consts=len(known) + len(const_dots),
        n_carry=len(carry_dots), length=None, reverse=False, unroll=1,
    )
    k = len(carry_dots)
    return outs[:n_out], [*spread(found[:k], carry), *spread(found[k:], parts.out_nonzero[n_carry:])]


def _with_stacks(forward: Program, carried: list[int]) -> Program:
    """The forward body that also stacks: computed residuals, carries that are residuals, and a flag "running"."""
    running = Literal(np.bool_(True), Aval((), np.dtype(bool)))
    outputs = (*forward.outputs, *(forward.inputs[i] for i in carried), running)
    return Program(forward.inputs, forward.equations, outputs, forward.name)


def _masked_linear_body(parts, n_consts: int, n_const_dots: int, n_carry_dots: int) -> Program:
    """known consts, const tangents; carry tangents; stacked residuals, flag  ->  carry tangents, stacked tangents.

    Where the flag is false the carry tangent passes unchanged.
    """
    linear = parts.linear
    n_in = len(parts.from_inputs)
    const_at = [k for k, i in enumerate(parts.from_inputs) if i < n_consts]
    row_at = [*range(n_in, parts.n_residuals), *(k for k, i in enumerate(parts.from_inputs) if i >= n_consts)]
    avals = linear.in_avals
    dots = avals[parts.n_residuals :]
    n_dots = n_const_dots + n_carry_dots

    def fun(*args):
        known, rest = args[: len(const_at)], args[len(const_at) :]
        tangents, rows, running = rest[:n_dots], rest[n_dots:-1], rest[-1]
        residuals: list[Any] = [None] * parts.n_residuals
        for k, v in [*zip(const_at, known, strict=True), *zip(row_at, rows, strict=True)]:
            residuals[k] = v
        outs = interpret(linear, [*residuals, *tangents])
        old = [*tangents[n_const_dots:], *(zeros_of(aval_of(o)) for o in outs[n_carry_dots:])]
        return [_choose(running, new, before) for new, before in zip(outs, old, strict=True)]

    in_avals = [*(avals[k] for k in const_at), *dots, *(avals[k] for k in row_at), Aval((), np.dtype(bool))]
    return stage_closed(fun, in_avals, name=linear.name)


def _choose(flag, new, old):
    """`select` by a scalar flag."""
    shape = aval_of(new).shape
    return select(broadcast_in_dim(flag, shape, ()) if shape else flag, new, old)


transpose_rules.absent(while_p, "its linear part is a scan over stacks")

# --- batching ---------------------------------------------------------------------------------------------------------
batch_rules.absent(while_p, "its body is batched as a program")


@program_batch_rules.register(while_p)
def _(trace, args, batched, **facts):
    cond, body, n_carry, n_consts = facts["cond"], facts["body"], facts["n_carry"], facts["n_body_consts"]
    size, name = trace.size, trace.axis_name
    cc, bc, carry = _thirds(batched, facts)
    _, carry, _ = _carry_fixpoint(
        body, (*bc, *carry), n_consts, n_carry, lambda f: batch_program(body, size, f, name)[1]
    )
    per_row = batch_program(cond, size, (*cc, *carry), name)[1][0]
    if per_row:
        carry = (True,) * n_carry
    force = (*carry, *[per_row] * (len(body.outputs) - n_carry))
    step, out_batched = batch_program(body, size, (*bc, *carry), name, force)
    test, _ = batch_program(cond, size, (*cc, *carry), name)
    a, b = _thirds(args, facts), _thirds(batched, facts)
    init = [materialize(c, size) if want and not has else c for c, has, want in zip(a[2], b[2], carry, strict=True)]
    consts, n_front = a[1], facts["n_body_consts"]
    if per_row:
        key = ("while per row", size, tuple(cc), tuple(bc), name)
        test, step = memoized(
            step, key, lambda: (_any_row(test), _freezing(test, step, facts["n_cond_consts"], n_consts, n_carry))
        )
        consts, n_front = [*a[0], *a[1]], facts["n_cond_consts"] + n_consts
    outs = bind(
        while_p, *a[0], *consts, *init, cond=test, body=step, n_cond_consts=facts["n_cond_consts"],
        n_body_consts=n_front, n_carry=n_carry,
    )
    return outs, list(out_batched)


def _any_row(test: Program) -> Program:
    return stage_closed(lambda *args: [reduce_or(interpret(test, args)[0], (0,))], test.in_avals, name=test.name)


def _freezing(test: Program, step: Program, n_cond: int, n_consts: int, n_carry: int) -> Program:
    """cond consts, body consts, carry  ->  carry, stacks: rows whose condition is false stay as they are.

    What they stack is zero, but a carry is stacked as it is: a loop in the body, run again from it, ends as it did.
    """
    cond_avals = test.in_avals[:n_cond]
    is_carry = [o in step.inputs for o in step.outputs[n_carry:]]

    def fun(*args):
        cond_consts, consts, carry = args[:n_cond], args[n_cond : n_cond + n_consts], args[n_cond + n_consts :]
        running = interpret(test, [*cond_consts, *carry])[0]
        outs = interpret(without_key_uses(step), [*consts, *carry])  # a row that has ended uses its key again
        stacked = zip(outs[n_carry:], is_carry, strict=True)
        old = [*carry, *(o if keep else zeros_of(aval_of(o)) for o, keep in stacked)]
        return [_choose_rows(running, new, before) for new, before in zip(outs, old, strict=True)]

    return stage_closed(fun, [*cond_avals, *step.in_avals], name=step.name)


def _choose_rows(running, new, old):
    shape = aval_of(new).shape
    return select(broadcast_in_dim(running, shape, (0,)) if len(shape) > 1 else running, new, old)

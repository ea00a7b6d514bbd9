# SPDX-License-Identifier: MIT
"""Loop and branch primitives: scan, while, cond and its batched form. Declared here (shape, eval).

Derivative and batch rules are in `control_flow`, which transforms the programs inside.

    scan:  consts, carry, xs -> carry, ys      body: consts, carry, x -> carry, y     `length` times
    while: consts, carry -> carry, stacks      body: consts, carry -> carry, y        while cond(consts, carry) holds
    cond:  index, operands -> outs             branches[index](operands)

`length=None` scans over run-time stacks (`StackAval`), which a while loop leaves for its reverse pass.
"""

import numpy as np

from functorch_lite.core.aval import Aval, Stack, StackAval
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.primitives.key_use import has_effects_by_row

scan_p = Primitive("scan", Kind.HIGHER_ORDER, multiple=True)
while_p = Primitive("while", Kind.HIGHER_ORDER, multiple=True)
cond_p = Primitive("cond", Kind.HIGHER_ORDER, multiple=True)
batched_cond_p = Primitive("batched_cond", Kind.HIGHER_ORDER, multiple=True)


# --- scan -------------------------------------------------------------------------------------------------------------
@shape_rules.register(scan_p)
def _(*avals, body, n_consts, n_carry, length, reverse, unroll):
    carry, ys = body.out_avals[:n_carry], body.out_avals[n_carry:]
    if length is None:
        return [*carry, *(StackAval(a) for a in ys)]
    return [*carry, *(Aval((length, *a.shape), a.dtype) for a in ys)]


@eval_rules.register(scan_p)
def _(xp, *args, body, n_consts, n_carry, length, reverse, unroll):
    step = evaluator(body)
    consts, carry, xs = args[:n_consts], list(args[n_consts : n_consts + n_carry]), args[n_consts + n_carry :]
    count = length if length is not None else (len(xs[0]) if xs else 0)
    ys = _empty_ys(xp, body.out_avals[n_carry:], length, count)
    for i in range(count - 1, -1, -1) if reverse else range(count):
        out = step(*consts, *carry, *[x[i] for x in xs])
        carry = out[:n_carry]
        for y, value in zip(ys, out[n_carry:], strict=True):
            y[i] = value
    return [*carry, *ys]


def _empty_ys(xp, avals, length, count):
    if length is None:
        return [Stack(a, [None] * count) for a in avals]
    return [xp.empty((length, *a.shape), a.dtype) for a in avals]


# --- while ------------------------------------------------------------------------------------------------------------
@shape_rules.register(while_p)
def _(*avals, cond, body, n_cond_consts, n_body_consts, n_carry):
    return [*body.out_avals[:n_carry], *(StackAval(a) for a in body.out_avals[n_carry:])]


@eval_rules.register(while_p)
def _(xp, *args, cond, body, n_cond_consts, n_body_consts, n_carry):
    n_consts = n_cond_consts + n_body_consts
    cond_consts, body_consts, carry = args[:n_cond_consts], args[n_cond_consts:n_consts], list(args[n_consts:])
    test, step = evaluator(cond), evaluator(body)
    stacks = [Stack(a) for a in body.out_avals[n_carry:]]
    while bool(test(*cond_consts, *carry)[0]):
        out = step(*body_consts, *carry)
        carry = out[:n_carry]
        for stack, value in zip(stacks, out[n_carry:], strict=True):
            stack.append(value)
    return [*carry, *stacks]


# --- cond: one branch -------------------------------------------------------------------------------------------------
shape_rules.add(cond_p, lambda index, *avals, branches: branches[0].out_avals)


@eval_rules.register(cond_p)
def _(xp, index, *args, branches):
    return evaluator(branches[_clamped(int(index), len(branches))])(*args)


def _clamped(index, n):
    return min(max(index, 0), n - 1)


# --- batched_cond: each row its own branch ----------------------------------------------------------------------------
@shape_rules.register(batched_cond_p)
def _(index, *avals, branches, batched, batch):
    n = index.shape[0]
    return [_with_rows(a, n) for a in branches[0].out_avals]


def _with_rows(aval, n):
    if isinstance(aval, StackAval):
        return StackAval(Aval((n, *aval.element.shape), aval.dtype))
    return Aval((n, *aval.shape), aval.dtype)


@eval_rules.register(batched_cond_p)
def _(xp, index, *args, branches, batched, batch):
    """Runs each branch on its own rows only, padded to a power of two so that few sizes are ever prepared."""
    rows_of = np.clip(np.asarray(index if xp is np else index.get()), 0, len(branches) - 1)
    outs = [xp.zeros((len(rows_of), *a.shape), a.dtype) for a in branches[0].out_avals]
    for k, branch in enumerate(branches):
        rows = np.flatnonzero(rows_of == k)
        if not rows.size:
            continue
        if has_effects_by_row(branch):  # one row at a time, so that an effect happens for its own row only
            run = evaluator(branch)
            found = [run(*[a[r] if b else a for a, b in zip(args, batched, strict=True)]) for r in rows.tolist()]
            found = [xp.stack([xp.asarray(f[i]) for f in found]) for i in range(len(outs))]
        else:
            padded = xp.asarray(np.concatenate([rows, np.repeat(rows[:1], _next_power(rows.size) - rows.size)]))
            values = [a[padded] if b else a for a, b in zip(args, batched, strict=True)]
            found = [f[: rows.size] for f in evaluator(batch(branch, len(padded), batched))(*values)]
        for out, part in zip(outs, found, strict=True):
            out[xp.asarray(rows)] = part
    return outs


def _next_power(n):
    return 1 << (n - 1).bit_length()

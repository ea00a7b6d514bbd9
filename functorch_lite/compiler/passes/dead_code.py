# SPDX-License-Identifier: MIT
"""Dead code elimination: drop what nobody uses and what has no effect.

Equations whose outputs nobody uses go. Loops and branches that stay are made smaller: outputs that nobody uses go
from `scan`, `while` and `cond`, with the carries, constants, operands and equations that only they need. A carry is
needed if its final value is used, or if the next value of a needed one, a used output or the loop's condition depends
on it. Right because values do not depend on equations that do not reach them; an effect, and what it reads, always
stays.
"""

from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Equation, Program, memoized, subprograms
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.loops import batched_cond_p, cond_p, scan_p, while_p

Flags = tuple[bool, ...]


def eliminate_dead_code(program: Program) -> Program:
    """The same function without what reaches no output; the program's inputs stay as they are."""
    live = set(program.outputs)
    kept = []
    changed = False
    for eqn in reversed(program.equations):
        used = [v in live for v in eqn.outputs]
        if not any(used) and not eqn.prim.effect and not any(p.has_effects for p in subprograms(eqn.params)):
            changed = True
            continue
        shrink = _SHRINK.get(eqn.prim)
        if shrink is not None:
            new = shrink(eqn, tuple(used))
            changed |= new is not eqn
            eqn = new
        kept.append(eqn)
        live.update(eqn.inputs)
    return _with(program, tuple(reversed(kept)), program.outputs) if changed else program


def _with(program, equations, outputs):
    return Program(program.inputs, equations, outputs, program.name)


# --- bodies -----------------------------------------------------------------------------------------------------------


def _pick(values: Sequence[Any], flags: Sequence[bool]) -> tuple[Any, ...]:
    return tuple([v for v, f in zip(values, flags, strict=True) if f])


def _reaching(program: Program, outputs: Flags) -> tuple[Program, Flags]:
    """The program of some of the outputs only, and which inputs it uses."""
    return memoized(program, ("reaching", outputs), lambda: _make_reaching(program, outputs))


def _make_reaching(program, outputs):
    some = program if all(outputs) else _with(program, program.equations, _pick(program.outputs, outputs))
    some = eliminate_dead_code(some)
    used = {a for e in some.equations for a in e.inputs} | set(some.outputs)
    return some, tuple([v in used for v in program.inputs])


def _narrowed(program: Program, inputs: Flags, outputs: Flags) -> Program:
    """The program of some outputs, as a function of some inputs; the program itself where nothing goes."""
    return memoized(program, ("narrowed", inputs, outputs), lambda: _make_narrowed(program, inputs, outputs))


def _make_narrowed(program, inputs, outputs):
    some, _ = _reaching(program, outputs)
    return some if all(inputs) else Program(_pick(some.inputs, inputs), some.equations, some.outputs, some.name)


def _needed_carries(n_carry: int, needed: Flags, used_by: Callable[[Flags], Flags]) -> Flags:
    """The least set of carries that holds `needed` and all that `used_by` it."""
    while True:
        found = tuple([a or b for a, b in zip(needed, used_by(needed)[:n_carry], strict=True)])
        if found == needed:
            return needed
        needed = found


def _equation(eqn: Equation, inputs: Sequence[Any], outputs: Sequence[Any], **changes: Any) -> Equation:
    """The equation with other parts; itself where they are the same."""
    params = {**eqn.params, **changes}
    same = len(inputs) == len(eqn.inputs) and len(outputs) == len(eqn.outputs)
    if same and all(_is_same(params[k], v) for k, v in eqn.params.items()):
        return eqn
    return Equation(eqn.prim, tuple(inputs), tuple(outputs), params, eqn.source)


def _is_same(new, old):
    if type(new) is tuple and type(old) is tuple and len(new) == len(old):
        return all(map(_is_same, new, old))
    return new is old or (not isinstance(new, Program) and new == old)


# --- scan, while, cond, jit -------------------------------------------------------------------------------------------


def _shrink_scan(eqn: Equation, used: Flags) -> Equation:
    p = eqn.params
    body, n_consts, n_carry = p["body"], p["n_consts"], p["n_carry"]
    live_ys = used[n_carry:]

    def carries_used(carries):
        return _reaching(body, (*carries, *live_ys))[1][n_consts:]

    carries = _needed_carries(n_carry, used[:n_carry], lambda c: carries_used(c)[:n_carry])
    outputs = (*carries, *live_ys)
    reads = _reaching(body, outputs)[1]
    consts, xs = reads[:n_consts], list(reads[n_consts + n_carry :])
    if p["length"] is None and xs and not any(xs):
        xs[0] = True  # the number of steps is that of its elements
    inputs = (*consts, *carries, *xs)
    small = _narrowed(body, inputs, outputs)
    return _equation(
        eqn, _pick(eqn.inputs, inputs), _pick(eqn.outputs, outputs), body=small, n_consts=sum(consts),
        n_carry=sum(carries),
    )


def _shrink_while(eqn: Equation, used: Flags) -> Equation:
    p = eqn.params
    cond, body, n_carry = p["cond"], p["body"], p["n_carry"]
    n_cond, n_body = p["n_cond_consts"], p["n_body_consts"]
    live_stacks = used[n_carry:]
    test_reads = _reaching(cond, (True,))[1]

    def carries_used(carries):
        return _reaching(body, (*carries, *live_stacks))[1][n_body:]

    start = tuple([a or b for a, b in zip(used[:n_carry], test_reads[n_cond:], strict=True)])
    carries = _needed_carries(n_carry, start, carries_used)
    outputs = (*carries, *live_stacks)
    body_consts, cond_consts = _reaching(body, outputs)[1][:n_body], test_reads[:n_cond]
    return _equation(
        eqn, _pick(eqn.inputs, (*cond_consts, *body_consts, *carries)), _pick(eqn.outputs, outputs),
        cond=_narrowed(cond, (*cond_consts, *carries), (True,)),
        body=_narrowed(body, (*body_consts, *carries), outputs),
        n_cond_consts=sum(cond_consts), n_body_consts=sum(body_consts), n_carry=sum(carries),
    )


def _branches(eqn: Equation, used: Flags) -> tuple[tuple[Program, ...], Flags]:
    """The branches of the used outputs, and the operands that one of them reads."""
    branches = eqn.params["branches"]
    reads = [_reaching(b, used)[1] for b in branches]
    some = tuple([any(column) for column in zip(*reads, strict=True)])
    return tuple([_narrowed(b, some, used) for b in branches]), some


def _shrink_cond(eqn: Equation, used: Flags) -> Equation:
    branches, some = _branches(eqn, used)
    return _equation(eqn, _pick(eqn.inputs, (True, *some)), _pick(eqn.outputs, used), branches=branches)


def _shrink_batched_cond(eqn: Equation, used: Flags) -> Equation:
    branches, some = _branches(eqn, used)
    batched = _pick(eqn.params["batched"], some)
    inputs = _pick(eqn.inputs, (True, *some))
    return _equation(eqn, inputs, _pick(eqn.outputs, used), branches=branches, batched=batched)


def _shrink_call(eqn: Equation, used: Flags) -> Equation:
    """A call keeps its results, so that calls of one program go on sharing it."""
    program = eqn.params["program"]
    return _equation(eqn, eqn.inputs, eqn.outputs, program=_reaching(program, (True,) * len(program.outputs))[0])


_SHRINK: dict[Primitive, Callable[[Equation, Flags], Equation]] = {
    scan_p: _shrink_scan,
    while_p: _shrink_while,
    cond_p: _shrink_cond,
    batched_cond_p: _shrink_batched_cond,
    jit_p: _shrink_call,
}

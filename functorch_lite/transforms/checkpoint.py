# SPDX-License-Identifier: MIT
"""checkpoint: keep little of a function for its reverse pass, and compute the rest again there.

A policy says which intermediate values to keep: it is called with the primitive of each equation, as in JAX. The
function is staged, so that the recomputation is a program and captured values get their gradients too.

Source: Griewank and Walther, "Evaluating Derivatives", 2nd ed., ch. 12; JAX's `jax.checkpoint` for the interface.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite import tree
from functorch_lite.compiler import compile as compile_program
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.compiler.passes.inline import Callee, inline_rules
from functorch_lite.core.aval import Aval, StackAval
from functorch_lite.core.linear import is_linear
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Program, memoized
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, linearize_rules, transpose_rules
from functorch_lite.core.staging import stage
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.barrier import barrier
from functorch_lite.primitives.casts import name_p
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.higher_order import checkpoint_linear_p, checkpoint_p, jit_p
from functorch_lite.primitives.key_use import without_key_uses
from functorch_lite.transforms.arguments import (
    FlatFunction,
    canonical_leaves,
    check_callable,
    is_weak,
    leaf_paths,
    name_of,
    weakened,
)
from functorch_lite.transforms.batching import program_batch_rules
from functorch_lite.transforms.jit_rules import spread
from functorch_lite.transforms.programs import (
    Linearized,
    batch_program,
    jvp_program,
    linearize_program,
    transpose_program,
)

Policy = Callable[..., bool]


def checkpoint(
    fun: Callable[..., Any], *, policy: Policy | None = None, static_argnums: int | Sequence[int] = ()
) -> Callable[..., Any]:
    """`fun`, whose reverse pass computes its intermediate values again instead of keeping them.

    policy: which values to keep all the same (see `checkpoint_policies`); default: none but the arguments.
        What `fun` prints it prints again where it is computed again.
    static_argnums: arguments that are no arrays.
    """
    check_callable("checkpoint", fun)
    static = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)

    @functools.wraps(fun)
    def checkpointed(*args, **kwargs):
        dynamic = [None if i in static else a for i, a in enumerate(args)]
        leaves, treedef = tree.flatten((dynamic, kwargs))
        values, weak = canonical_leaves(
            "checkpoint", fun, leaves, functools.partial(leaf_paths, fun, dynamic, kwargs)
        )

        def rebuild(flat):
            positional, named = tree.unflatten(treedef, flat)
            return [args[i] if i in static else a for i, a in enumerate(positional)], named

        flat_fun = FlatFunction(fun, rebuild)
        out_weak: list[bool] = []

        def run(*tracers):
            outs = flat_fun(*tracers)
            out_weak[:] = [is_weak(o) for o in outs]
            return outs

        avals = [Aval(v.shape, v.dtype) for v in values]
        program, captured = stage(run, avals, name=name_of(fun), transform="checkpoint", weak=weak)
        outs = bind(checkpoint_p, *captured, *values, program=program, policy=policy)
        return tree.unflatten(flat_fun.out_tree, weakened(outs, out_weak))

    return checkpointed


# --- names that a policy can refer to ---------------------------------------------------------------------------------
def checkpoint_name(x: Any, name: str) -> Any:
    """`x` (a pytree), named for a policy such as `save_only_these_names(name)`."""
    return tree.map(lambda leaf: bind(name_p, leaf, name=name), x)


class checkpoint_policies:
    """The policies of `checkpoint`. Each is `(prim, *avals, **params) -> bool`: keep this equation's outputs?"""

    @staticmethod
    def everything_saveable(prim: Primitive, *avals: Aval, **params: Any) -> bool:
        """Keep everything: as without checkpoint."""
        return True

    @staticmethod
    def nothing_saveable(prim: Primitive, *avals: Aval, **params: Any) -> bool:
        """Keep nothing but the arguments."""
        return False

    @staticmethod
    def dots_saveable(prim: Primitive, *avals: Aval, **params: Any) -> bool:
        """Keep the results of matrix products."""
        return prim is dot_general_p

    @staticmethod
    def dots_with_no_batch_dims_saveable(prim: Primitive, *avals: Aval, **params: Any) -> bool:
        """Keep the results of matrix products that have no batch dimensions."""
        return prim is dot_general_p and not params["batch"][0]

    checkpoint_dots = dots_saveable
    checkpoint_dots_with_no_batch_dims = dots_with_no_batch_dims_saveable

    @staticmethod
    def save_only_these_names(*names: str) -> Policy:
        """Keep the values that `checkpoint_name` gave one of these names."""
        return lambda prim, *avals, **params: prim is name_p and params["name"] in names

    @staticmethod
    def save_anything_except_these_names(*names: str) -> Policy:
        """Keep everything but the values with these names."""
        return lambda prim, *avals, **params: not (prim is name_p and params["name"] in names)

    @staticmethod
    def save_any_names_but_these(*names: str) -> Policy:
        """Keep the named values but those with these names."""
        return lambda prim, *avals, **params: prim is name_p and params["name"] not in names

    @staticmethod
    def save_from_both_policies(one: Policy, other: Policy) -> Policy:
        """Keep what either policy keeps."""
        return lambda prim, *avals, **params: one(prim, *avals, **params) or other(prim, *avals, **params)


# --- rules ------------------------------------------------------------------------------------------------------------


@eval_rules.register(checkpoint_p)
def _(xp, *args, program, policy):
    return compile_program(program)(*args)


@jvp_rules.register(checkpoint_p)
def _(primals, tangents, *, program, policy):
    derived, out_nonzero = jvp_program(program, tuple(t is not None for t in tangents))
    some = [t for t in tangents if t is not None]
    outs = bind(checkpoint_p, *primals, *some, program=derived, policy=policy)
    n = len(program.outputs)
    return outs[:n], spread(outs[n:], out_nonzero)


batch_rules.absent(checkpoint_p, "it is batched with its program, which may name the mapped axis")
transpose_rules.absent(checkpoint_p, "its linear part is checkpoint_linear")


@program_batch_rules.register(checkpoint_p)
def _(trace, args, batched, *, program, policy):
    derived, out_batched = batch_program(program, trace.size, tuple(batched), trace.axis_name)
    return bind(checkpoint_p, *args, program=derived, policy=policy), out_batched


def _split_by_policy(parts: Linearized, n_outs: int, policy: Policy | None) -> tuple[Program, Program, int]:
    """The forward program with the values to keep as outputs, and the program that computes residuals from them."""
    forward = parts.forward
    kept = [
        v for e in forward.equations
        if policy is not None and policy(e.prim, *[a.aval for a in e.inputs], **e.params) for v in e.outputs
    ]
    again = Program((*forward.inputs, *kept), _without(forward.equations, kept), forward.outputs[n_outs:], forward.name)
    again = eliminate_dead_code(without_key_uses(again))
    if all(e.prim.effect for e in again.equations):  # nothing is computed again, so nothing happens again
        again = Program(again.inputs, (), again.outputs, again.name)
    used = {a for e in again.equations for a in e.inputs} | set(again.outputs)
    kept = [v for v in kept if v in used]
    again = Program((*forward.inputs, *kept), again.equations, again.outputs, forward.name)
    first = eliminate_dead_code(
        Program(forward.inputs, forward.equations, (*forward.outputs[:n_outs], *kept), forward.name)
    )
    return first, again, len(kept)


def _without(equations, kept):
    """The equations whose outputs are not all known already (a known variable must not be defined twice); effects."""
    known = set(kept)
    return tuple(e for e in equations if not e.outputs or not all(v in known for v in e.outputs))


@linearize_rules.register(checkpoint_p)
def _(tape, primals, tangents, *, program, policy):
    nonzero = tuple(t is not None for t in tangents)
    parts = linearize_program(program, nonzero)
    n = len(program.outputs)
    key = ("checkpoint", nonzero, policy)
    first, again, n_kept = memoized(program, key, lambda: _split_by_policy(parts, n, policy))
    outs = bind(jit_p, *primals, program=first)
    if not any(parts.out_nonzero):
        return outs[:n], [None] * n
    facts = {"program": program, "again": again, "nonzero": nonzero, "n_known": len(primals) + n_kept,
             "out_avals": tuple(v.aval for v, f in zip(program.outputs, parts.out_nonzero, strict=True) if f)}
    dots = bind(checkpoint_linear_p, *primals, *outs[n:], *(t for t in tangents if t is not None), **facts)
    return outs[:n], spread(dots, parts.out_nonzero)


def _recompute(known, program, again, nonzero):
    """Residuals from the arguments and the kept values, behind a barrier: they are to be computed again."""
    parts = linearize_program(program, nonzero)
    known = barrier(known)
    residuals = bind(jit_p, *known, program=again)
    return parts, [*(known[i] for i in parts.from_inputs), *residuals]


@transpose_rules.register(checkpoint_linear_p)
def _(cts, *values, program, again, nonzero, n_known, out_avals):
    assert not any(is_linear(v) for v in values[:n_known])
    parts, residuals = _recompute(values[:n_known], program, again, nonzero)
    derived, in_nonzero = transpose_program(parts.linear, len(residuals), tuple(c is not None for c in cts))
    found = bind(jit_p, *residuals, *(c for c in cts if c is not None), program=derived)
    return (*[None] * n_known, *spread(found, in_nonzero))


def _forwards(*values, program, again, nonzero, n_known, out_avals):
    parts, residuals = _recompute(values[:n_known], program, again, nonzero)
    return bind(jit_p, *residuals, *values[n_known:], program=parts.linear)


eval_rules.add(checkpoint_linear_p, lambda xp, *values, **facts: _forwards(*values, **facts))
inline_rules.add(
    checkpoint_linear_p, lambda eqn: Callee(_as_program([a.aval for a in eqn.inputs], eqn.params), eqn.inputs)
)


def _as_program(values, facts) -> Program:
    """The linear part with its recomputation, as one program: what jvp, linearize and batch rules act on."""
    key = ("checkpoint forwards", facts["again"].fingerprint, facts["nonzero"])
    avals = [v if isinstance(v, StackAval) else Aval(v.shape, v.dtype) for v in values]
    return memoized(facts["program"], key, lambda: stage(lambda *vs: _forwards(*vs, **facts), avals).program)


@jvp_rules.register(checkpoint_linear_p)
def _(primals, tangents, **facts):
    program = _as_program(primals, facts)
    return jvp_rules[checkpoint_p](primals, tangents, program=program, policy=None)


@linearize_rules.register(checkpoint_linear_p)
def _(tape, primals, tangents, **facts):
    program = _as_program(primals, facts)
    return linearize_rules[checkpoint_p](tape, primals, tangents, program=program, policy=None)


batch_rules.absent(checkpoint_linear_p, "it is batched as the program of its recomputation")


@program_batch_rules.register(checkpoint_linear_p)
def _(trace, args, batched, **facts):
    values = [_Row(a, b) for a, b in zip(args, batched, strict=True)]
    program = _as_program(values, facts)
    return program_batch_rules[checkpoint_p](trace, args, batched, program=program, policy=None)


class _Row:
    """Shape and dtype of one example of a value."""

    __slots__ = ("shape", "dtype")

    def __init__(self, value: Any, batched: bool):
        self.shape = value.shape[1:] if batched else value.shape
        self.dtype = value.dtype

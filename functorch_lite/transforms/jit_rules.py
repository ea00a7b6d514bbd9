# SPDX-License-Identifier: MIT
"""The rules of the `jit` primitive: each transform of a call is a call of the transformed program."""

from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite.compiler import compile as compile_program
from functorch_lite.core.linear import is_linear
from functorch_lite.core.program import Program
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, linearize_rules, transpose_rules
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.transforms.batching import program_batch_rules
from functorch_lite.transforms.programs import (
    batch_program,
    jvp_program,
    linearize_program,
    transpose_program,
)


@eval_rules.register(jit_p)
def _(xp, *args, program):
    return compile_program(program)(*args)


def _present(tangents):
    return tuple(t is not None for t in tangents)


def spread(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """One value for each true flag, None elsewhere."""
    it = iter(values)
    return [next(it) if f else None for f in flags]


@jvp_rules.register(jit_p)
def _(primals, tangents, *, program):
    nonzero = _present(tangents)
    derived, out_nonzero = jvp_program(program, nonzero)
    outs = bind(jit_p, *primals, *(t for t in tangents if t is not None), program=derived)
    n = len(program.outputs)
    return outs[:n], spread(outs[n:], out_nonzero)


@linearize_rules.register(jit_p)
def _(tape, primals, tangents, *, program):
    parts = linearize_program(program, _present(tangents))
    n = len(program.outputs)
    outs = bind(jit_p, *primals, program=parts.forward)
    if not any(parts.out_nonzero):
        return outs[:n], [None] * n
    known = [*(primals[i] for i in parts.from_inputs), *outs[n:]]
    dots = bind(jit_p, *known, *(t for t in tangents if t is not None), program=parts.linear)
    return outs[:n], spread(dots, parts.out_nonzero)


@transpose_rules.register(jit_p)
def _(cts, *args, program):
    return transpose_call(cts, args, program, lambda values, derived: bind(jit_p, *values, program=derived))


def transpose_call(cts: Sequence[Any], args: Sequence[Any], program: Program, call: Callable[..., list[Any]]):
    """The transpose of a call of a program linear in some of its arguments, which may stand anywhere."""
    linear = list(map(is_linear, args))
    from_known = [i for i, f in enumerate(linear) if not f]
    unknown = [i for i, f in enumerate(linear) if f]
    order = [*from_known, *unknown]
    if order != list(range(len(args))):
        program = Program(tuple(program.inputs[i] for i in order), program.equations, program.outputs, program.name)
    derived, nonzero = transpose_program(program, len(from_known), _present(cts))
    found = call([*(args[i] for i in from_known), *(c for c in cts if c is not None)], derived)
    result: list[Any] = [None] * len(args)
    for i, ct in zip(unknown, spread(found, nonzero), strict=True):
        result[i] = ct
    return tuple(result)


batch_rules.absent(jit_p, "it is batched with its program, which may name the mapped axis")


@program_batch_rules.register(jit_p)
def _(trace, args, batched, *, program):
    derived, out_batched = batch_program(program, trace.size, tuple(batched), trace.axis_name)
    return bind(jit_p, *args, program=derived), out_batched

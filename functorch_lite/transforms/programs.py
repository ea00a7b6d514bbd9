# SPDX-License-Identifier: MIT
"""Transforms of programs: the jvp, the linear part, the transpose and the batched version of a `Program`.

Each runs the program under a trace while staging what happens, so programs are transformed by the same rules as
functions. Results are kept on the program (`memo`), so a jitted function or a loop body is transformed once.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.core.aval import Aval, StackAval, aval_of
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.linear import Linear, Tape, TapeTrace, TapeTracer, zeros_of
from functorch_lite.core.program import Program, memoized
from functorch_lite.core.staging import stage_closed
from functorch_lite.core.tracer import Tracer, current_trace, tracing
from functorch_lite.transforms.batching import batch_flat, materialize
from functorch_lite.transforms.jvp import jvp_flat
from functorch_lite.transforms.linearize import linearize_flat
from functorch_lite.transforms.residuals import without_views

Flags = tuple[bool, ...]


def _body(program: Program) -> Callable[..., list[Any]]:
    return lambda *args: interpret(program, args)


def _pick(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [v for v, f in zip(values, flags, strict=True) if f]


def _spread(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    it = iter(values)
    return [next(it) if f else None for f in flags]


def _forced(program: Program, instantiate: bool | Flags) -> Flags:
    return instantiate if isinstance(instantiate, tuple) else (instantiate,) * len(program.outputs)


def _instantiate(dots: Sequence[Any], outs: Sequence[Any], force: Flags) -> list[Any]:
    return [
        zeros_of(aval_of(o)) if t is None and f else t for t, o, f in zip(dots, outs, force, strict=True)
    ]


def jvp_program(program: Program, nonzero: Flags, instantiate: bool | Flags = False) -> tuple[Program, Flags]:
    """From primals and the nonzero tangents to outputs and their nonzero tangents; and which outputs have one."""
    force = _forced(program, instantiate)
    return memoized(program, ("jvp", nonzero, force), lambda: _make_jvp(program, nonzero, force))


def _make_jvp(program, nonzero, force):
    n = len(program.inputs)
    found: list[Flags] = []

    def fun(*args):
        outs, dots = jvp_flat(_body(program), args[:n], _spread(args[n:], nonzero), program.name)
        dots = _instantiate(dots, outs, force)
        found.append(tuple(t is not None for t in dots))
        return [*outs, *_pick(dots, found[-1])]

    avals = [*program.in_avals, *_pick(program.in_avals, nonzero)]
    derived = stage_closed(fun, avals, name=program.name)
    return eliminate_dead_code(derived), found[-1]


class Linearized(NamedTuple):
    """A program split in two.

    forward: inputs -> outputs and computed residuals
    linear: residuals that are inputs (`from_inputs` says which), computed residuals, nonzero tangents -> out tangents
    """

    forward: Program
    linear: Program
    from_inputs: tuple[int, ...]
    n_computed: int
    out_nonzero: Flags

    @property
    def n_residuals(self) -> int:
        return len(self.from_inputs) + self.n_computed


def linearize_program(program: Program, nonzero: Flags, instantiate: bool | Flags = False) -> Linearized:
    """The program's outputs with what its derivative needs, and its derivative as a linear program."""
    force = _forced(program, instantiate)
    return memoized(program, ("linearize", nonzero, force), lambda: _make_linearized(program, nonzero, force))


def _make_linearized(program, nonzero, force):
    kept: dict[str, Any] = {}

    def fun(*args):
        outs, tape = linearize_flat(_body(program), args, nonzero, name=program.name)
        kept["tape"] = tape
        kept["inputs"] = {id(a): i for i, a in enumerate(args)}
        residuals: dict[int, Any] = {}
        for entry in tape.entries:
            for a in entry.args:
                if isinstance(a, Tracer):
                    residuals.setdefault(id(a), a)
        kept["input residuals"] = [r for r in residuals.values() if id(r) in kept["inputs"]]
        kept["computed"] = [r for r in residuals.values() if id(r) not in kept["inputs"]]
        return [*outs, *kept["computed"]]

    forward = stage_closed(fun, program.in_avals, name=program.name)
    residuals = [*kept["input residuals"], *kept["computed"]]
    tape: Tape = kept["tape"]
    out_nonzero = tuple(o is not None or f for o, f in zip(tape.outputs, force, strict=True))

    def linear_fun(*args):
        values = dict(zip(map(id, residuals), args, strict=False))
        dots = substitute(tape, values).replay(args[len(residuals):])
        return _pick(_instantiate(dots, [v.aval for v in program.outputs], force), out_nonzero)

    avals = [*(r.aval for r in residuals), *_pick(program.in_avals, nonzero)]
    linear = stage_closed(linear_fun, avals, name=f"{program.name}_linear")
    from_inputs = tuple(kept["inputs"][id(r)] for r in kept["input residuals"])
    return _prune(forward, linear, from_inputs, len(kept["computed"]), len(program.outputs), out_nonzero)


def _prune(forward, linear, from_inputs, n_computed, n_outs, out_nonzero):
    """Drop dead code, and residuals that the linear program does not use or can make from others."""
    linear = eliminate_dead_code(linear)
    used = {a for e in linear.equations for a in e.inputs} | set(linear.outputs)
    n_in = len(from_inputs)
    keep = [v in used for v in linear.inputs[: n_in + n_computed]]
    linear = Program(
        (*_pick(linear.inputs[: n_in + n_computed], keep), *linear.inputs[n_in + n_computed :]),
        linear.equations, linear.outputs, linear.name,
    )
    kept_inputs, computed = _pick(from_inputs, keep[:n_in]), _pick(forward.outputs[n_outs:], keep[n_in:])
    linear, places, computed = without_views(forward, linear, kept_inputs, computed)
    outputs = (*forward.outputs[:n_outs], *computed)
    forward = eliminate_dead_code(Program(forward.inputs, forward.equations, outputs, forward.name))
    return Linearized(forward, linear, places, len(computed), out_nonzero)


def substitute(tape: Tape, values: dict[int, Any]) -> Tape:
    """The tape with the known values of its entries replaced, by identity."""
    new = object.__new__(Tape)
    new.inputs, new.outputs, new.count, new.home = tape.inputs, tape.outputs, tape.count, tape.home
    new.entries = []
    for entry in tape.entries:
        args = tuple(values.get(id(a), a) if not isinstance(a, Linear) else a for a in entry.args)
        copy = Linear(entry.index, entry.prim, args, entry.params)
        copy.outs = entry.outs
        copy.source = getattr(entry, "source", None)
        new.entries.append(copy)
    return new


def transpose_program(
    program: Program, n_known: int, ct_nonzero: Flags, instantiate: bool = False
) -> tuple[Program, Flags]:
    """Of a program linear in its inputs from `n_known` on: from the known inputs and the nonzero output cotangents
    to the cotangents of the linear inputs; and which of these are nonzero."""
    key = ("transpose", n_known, ct_nonzero, instantiate)
    return memoized(program, key, lambda: _make_transpose(program, n_known, ct_nonzero, instantiate))


def _make_transpose(program, n_known, ct_nonzero, instantiate):
    found: list[Flags] = []
    linear_avals = program.in_avals[n_known:]

    def fun(*args):
        cts = backward_pass(program, args[:n_known], _spread(args[n_known:], ct_nonzero))
        if instantiate:
            cts = [zeros_of(a) if c is None else c for c, a in zip(cts, linear_avals, strict=True)]
        found.append(tuple(c is not None for c in cts))
        return _pick(cts, found[-1])

    avals = [*program.in_avals[:n_known], *_pick(program.out_avals, ct_nonzero)]
    derived = stage_closed(fun, avals, name=f"{program.name}_transpose")
    return eliminate_dead_code(derived), found[-1]


def backward_pass(program: Program, known: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
    """Cotangents of the linear inputs of `program`, which come after the `known` ones, in the current trace."""
    trace = TapeTrace(current_trace())
    inputs = [trace.input(a) for a in program.in_avals[len(known) :]]
    with tracing(trace):
        outs = interpret(program, [*known, *inputs])
    outs = [o if isinstance(o, TapeTracer) and o.tag is trace.tag else None for o in outs]
    return Tape(trace, inputs, outs).backward(cts, consume=True)


def batch_program(
    program: Program, size: int, batched: Flags, axis_name: Any = None, instantiate: bool | Flags = False
) -> tuple[Program, Flags]:
    """The program over a mapped axis 0 of the `batched` inputs; and which outputs have that axis."""
    force = _forced(program, instantiate)
    key = ("batch", size, batched, axis_name, force)
    return memoized(program, key, lambda: _make_batched(program, size, batched, axis_name, force))


def batched_aval(aval: Aval | StackAval, size: int) -> Aval | StackAval:
    """The type with a mapped axis in front."""
    if isinstance(aval, StackAval):
        return StackAval(Aval((size, *aval.element.shape), aval.dtype))
    return Aval((size, *aval.shape), aval.dtype)


def _make_batched(program, size, batched, axis_name, force):
    found: list[Flags] = []

    def fun(*args):
        outs, flags = batch_flat(_body(program), args, batched, size=size, axis_name=axis_name, name=program.name)
        outs = [materialize(o, size) if want and not f else o for o, f, want in zip(outs, flags, force, strict=True)]
        found.append(tuple(f or want for f, want in zip(flags, force, strict=True)))
        return outs

    avals = [batched_aval(a, size) if b else a for a, b in zip(program.in_avals, batched, strict=True)]
    return eliminate_dead_code(stage_closed(fun, avals, name=program.name)), found[-1]

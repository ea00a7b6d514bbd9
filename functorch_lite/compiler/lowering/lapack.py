# SPDX-License-Identifier: MIT
"""What the lowerings of matrix functions share: library calls, kernels on single matrices, batches and failures.

Matrices are the last two axes; a loop over the leading ones hands one matrix after the other to LAPACK. LAPACK is
column-major: what it is given as a matrix of ours is that matrix transposed.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Index, KernelCall, LibraryCall, Value
from functorch_lite.compiler.lowering.program import Place, ProgramLowering
from functorch_lite.compiler.lowering.rules import Operand, layout, step_rules, words
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.compiler.runtime import libraries
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Equation, Program
from functorch_lite.core.staging import stage_closed
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.casts import convert

INT32 = np.dtype(np.int32)
_DOUBLE = np.dtype(np.float64)
_NARROW = {_DOUBLE: np.dtype(np.float32), np.dtype(np.complex128): np.dtype(np.complex64)}


def call(low: ProgramLowering, dtype: np.dtype, routine: str, *args: Place | int | str) -> None:
    """Call a routine for matrices of this dtype: arrays at places, integers, and characters."""
    symbol = libraries.symbol(dtype, routine)
    given = [a.operand if isinstance(a, Place) else ("u8", ord(a)) if isinstance(a, str) else ("i32", a) for a in args]
    n_cubed = int(max(a.aval.size for a in args if isinstance(a, Place)) ** 1.5)
    low.b.add(LibraryCall(symbol, given, interpret=functools.partial(libraries.call, symbol), flops=n_cubed))


def workspace(dtype: np.dtype, routine: str, *args: int | str | None) -> tuple[int, ...]:
    """The sizes of working space that a routine asks for: see `libraries.workspace`."""
    given = [ord(a) if isinstance(a, str) and a != "work" else a for a in args]
    return libraries.workspace(libraries.symbol(dtype, routine), *given)


def temps(low: ProgramLowering, dtype: Any, *shapes: int | tuple[int, ...]) -> list[Place]:
    """Working space."""
    return [low.temp(Aval(s if isinstance(s, tuple) else (s,), np.dtype(dtype))) for s in shapes]


def kernel(
    low: ProgramLowering, equation: Equation, name: Hashable,
    build: Callable[[Builder, list[Operand], list[Operand]], None], reads: Sequence[Place], writes: Sequence[Place],
) -> None:
    """Run a kernel that reads and writes arrays at these places. name: equal for equal kernels on arrays alike."""
    key = name, tuple(p.aval for p in reads), tuple(p.aval for p in writes)
    found = low.kernels.get(key)
    if found is None:
        b = Builder(f"{equation.prim.name}_{len(low.kernels)}")
        ins = [Operand(b.input(f"x{k}", *layout(p.aval)), p.aval) for k, p in enumerate(reads)]
        outs = [Operand(b.output(f"out{k}", *layout(p.aval)), p.aval) for k, p in enumerate(writes)]
        build(b, ins, outs)
        found = low.kernels[key] = b.finish()
    low.sources.setdefault(found.name, []).append(equation)
    scratch = [low.scratch(s) for s in found.scratch]
    low.b.add(KernelCall(found, [*(p.operand for p in (*reads, *writes)), *scratch]))


def lead_of(place: Place, ndim: int) -> int:
    """How many arrays of `ndim` axes the one at this place is made of."""
    shape = place.aval.shape
    return int(np.prod(shape[: len(shape) - ndim]))


def at(place: Place, i: Index, ndim: int) -> Place:
    """The i-th array of `ndim` axes at this place."""
    aval = Aval(place.aval.shape[len(place.aval.shape) - ndim :], place.aval.dtype)
    return Place(place.buffer, place.start + i * words(aval), aval)


def each(low: ProgramLowering, equation: Equation, count: int, body: Callable[[Index], Place | None]) -> None:
    """Run the body for each of `count` matrices. It returns where an i32 is that says, not being 0, that it failed.

    If one did, the whole equation runs in Python: its eval rule raises the proper error, or succeeds after all.
    """
    b = low.b

    def step(i: Index, bad: Value) -> list[Value]:
        info = body(i)
        return [bad if info is None else b.op("or", bad, b.load(info.buffer, info.start))]

    none = b.constant(0, "i32")
    bad = b.reduce(count, [none], step)[0]
    if bad is not none:
        in_python_if(low, equation, bad)


def in_python_if(low: ProgramLowering, equation: Equation, bad: Value) -> None:
    """Run an equation in Python if a number (i32) is not 0."""
    in_python = low.host_call(equation)
    in_python.rare = True

    def run() -> None:
        low.b.add(in_python)

    low.b.branch(low.b.op("ne", bad, low.b.constant(0, "i32")), run)


def outputs(low: ProgramLowering, equation: Equation) -> list[Place]:
    """Where the results go."""
    return [low.out_place(v) for v in equation.outputs]


# --- kernels on single matrices ---------------------------------------------------------------------------------------


def transpose_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """out [n, m] = x [m, n] transposed, or as much of it as `out` holds."""
    n, m = outs[0].shape
    with b.loop(n) as j, b.loop(m) as i:
        outs[0].store(b, [j, i], ins[0].load(b, [i, j]))


def transposed(low: ProgramLowering, equation: Equation, x: Place, target: Place | None = None) -> Place:
    """A matrix transposed: column-major, as LAPACK has it, or back."""
    m, n = x.aval.shape
    if target is None:
        target = low.temp(Aval((n, m), x.aval.dtype))
    kernel(low, equation, "transpose", transpose_kernel, [x], [target])
    return target


def copied(low: ProgramLowering, x: Place, target: Place) -> Place:
    """A copy of an array."""
    low.b.copy(target.buffer, x.buffer, words(x.aval), at=target.start, start=x.start)
    return target


def finite_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """out = 1 (int32) if an element is infinite or NaN, else 0."""
    x = ins[0].buffer
    start = [b.constant(0.0, x.kind)]

    def step(i: Index, total: Value) -> list[Value]:
        value = b.load(x, i)
        return [b.op("add", total, b.op("sub", value, value))]  # infinities and NaNs give NaN, others 0

    total = b.reduce(x.size, start, step, combine=["add"], vector=True)[0]
    one, none = b.constant(1, "i32"), b.constant(0, "i32")
    b.store(outs[0].buffer, 0, b.op("select", b.op("is_nan", total), one, none))


def real_dtype(dtype: Any) -> np.dtype:
    """The dtype of the parts."""
    return dtypes.real_dtype(dtype)


# --- rules ------------------------------------------------------------------------------------------------------------
Rule = Callable[[ProgramLowering, Equation], None]


def lowering(
    prim: Primitive, in_double: bool = False, small: Callable[[ProgramLowering, Equation], bool] | None = None
) -> Callable[[Rule], Rule]:
    """Declare how a primitive of matrices lowers, where none is empty.

    in_double: single precision is computed in double precision and rounded at the end, as NumPy does.
    small: lowers equations of small matrices, and returns whether they were.
    """

    def _register(rule: Rule) -> Rule:
        def whole(low: ProgramLowering, equation: Equation) -> Any:
            if any(0 in a.aval.shape for a in (*equation.inputs, *equation.outputs)):
                return NotImplemented
            if small is not None and small(low, equation):
                return None
            if in_double and equation.inputs[0].aval.dtype.char in "fF":
                run_composed(low, equation, _in_double, {"prim": prim, "params": tuple(equation.params.items())})
            else:
                rule(low, equation)
            return None

        step_rules.add(prim, whole)
        return rule

    return _register


def _in_double(*args: Any, prim: Primitive, params: tuple[tuple[str, Any], ...]) -> list[Any]:
    wide = [convert(a, dtypes.complex_dtype(_DOUBLE) if dtypes.is_complex(a.dtype) else _DOUBLE) for a in args]
    found = bind(prim, *wide, **dict(params))
    return [convert(x, _NARROW[x.dtype]) for x in (found if prim.multiple else [found])]


def composed(prim: Primitive, fun: Callable[..., Any]) -> None:
    """Lower a primitive as the program of a function made of other primitives."""
    lowering(prim)(lambda low, equation: run_composed(low, equation, fun, equation.params))


def run_composed(low: ProgramLowering, equation: Equation, fun: Callable[..., Any], params: dict[str, Any]) -> None:
    """Lower an equation as the program of a function of its operands."""
    places = [low.place(a) for a in equation.inputs]
    program = staged(fun, tuple(p.aval for p in places), tuple(params.items()))
    low.call(program, places, outputs(low, equation))


@functools.lru_cache(256)
def staged(fun: Callable[..., Any], avals: tuple[Aval, ...], params: tuple[tuple[str, Any], ...] = ()) -> Program:
    """The program of a function of arrays of these types, made of primitives."""

    def run(*args):
        out = fun(*args, **dict(params))
        return out if isinstance(out, list) else [out]

    return eliminate_dead_code(stage_closed(run, avals, name=fun.__name__.strip("_")))

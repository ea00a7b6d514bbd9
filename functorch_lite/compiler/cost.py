# SPDX-License-Identifier: MIT
"""What a lowered program will cost, counted from its loop IR: operations, and bytes read and written by its kernels.

A loop counts its body as often as it runs; a `while` counts once, since nobody knows how often that is. An element that
a kernel's inner loops read again from cache is not counted again: bytes are those of the arrays a kernel is given.
"""

import math
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Function, Value, blocks
from functorch_lite.compiler.lowering.program import Lowered
from functorch_lite.core.program import Equation, Program, memoized, subprograms
from functorch_lite.primitives.attention import attention_cotangents_p, attention_p
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.convolution import conv_general_dilated_p
from functorch_lite.primitives.loops import scan_p, while_p

_FREE = frozenset({"constant", "load", "index", "variable", "carried", "result", "parameter", "convert", "bitcast",
                   "select"})
_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "rem", "neg", "abs", "max", "min", "sqrt", "floor", "ceil",
                         "round", "trunc", "copysign"})
TRANSCENDENTAL = 8
"""What such an operation counts among others."""
_PRODUCTS = (dot_general_p, conv_general_dilated_p)
_IN_TILES = (*_PRODUCTS, attention_p, attention_cotangents_p)
_FLOATS = frozenset({"f16", "bf16", "f32", "f64"})


class Cost(NamedTuple):
    """flops: floating-point operations (a fused multiply-add is two). transcendentals: exp, log, sin and their kind.

    bytes: read and written by kernels. kernels: how many kernels run. python_steps: how many steps run in Python.
    """

    flops: int
    transcendentals: int
    bytes: int
    kernels: int
    python_steps: int


NOTHING = Cost(0, 0, 0, 0, 0)


def cost_of(lowered: Lowered) -> Cost:
    """The cost of one call of a program."""
    return _cost_of(lowered.function.body, {})


def cost_of_kernel(kernel: Function) -> Cost:
    """The cost of one call of a kernel."""
    return _kernel(kernel, {})


def has_products(program: Program) -> bool:
    """Whether there are products, convolutions or attention, in programs inside too."""
    return memoized(program, "has products", lambda: (any(map(_has_products, program.equations)),))[0]


def _has_products(equation: Equation) -> bool:
    return equation.prim in _IN_TILES or any(map(has_products, subprograms(equation.params)))


def multiplications(program: Program) -> float:
    """Multiplications of the products and convolutions of one call; infinite where a loop has no known length."""
    return memoized(program, "multiplications", lambda: (sum(map(_multiplications, program.equations)),))[0]


def _multiplications(equation: Equation) -> float:
    params = equation.params
    if equation.prim in _PRODUCTS:
        x, w = (a.aval.shape for a in equation.inputs)
        terms = [x[a] for a in params["contract"][0]] if equation.prim is dot_general_p else w[1:]
        return math.prod((*equation.outputs[0].aval.shape, *terms))
    inside = sum(map(multiplications, subprograms(params)))
    if equation.prim is while_p or (equation.prim is scan_p and params["length"] is None):
        return math.inf
    return inside * params["length"] if equation.prim is scan_p else inside


def operations(statements: Iterable[Any], without: Container[int] = ()) -> tuple[int, int, int]:
    """Operations of statements that run once, stores among them, and transcendental ones as several; those of sums of
    products; and how many statements these are. A call counts as none, so do loops in `without` (identities).
    """
    total = [0, 0, 0]
    _operations(statements, 1, without, total)
    return total[0], total[1], total[2]


def _operations(statements: Iterable[Any], times: int, without: Container[int], total: list[int]) -> None:
    for s in statements:
        total[2] += 1
        kind = type(s)
        if kind is Value:
            if s.op == "fma":
                total[1] += 2 * times
            elif s.op in _ARITHMETIC or (s.op not in _FREE and s.kind not in _FLOATS):
                total[0] += times
            elif s.op not in _FREE:
                total[0] += TRANSCENDENTAL * times
        elif kind is nodes.Loop:
            if id(s) not in without:
                many = times * s.extent if isinstance(s.extent, int) else times
                _operations(s.body, many, without, total)
        elif kind is nodes.Store:
            total[0] += times
        else:
            for block in blocks(s):
                _operations(block, times, without, total)


def _cost_of(statements: list[Any], known: dict[str, Cost]) -> Cost:
    total = [0] * len(NOTHING)
    _block(statements, 1, total, known)
    return Cost(*total)


def _block(statements: list[Any], times: int, total: list[int], known: dict[str, Cost]) -> None:
    """Add what statements cost that run so many times."""
    for s in statements:
        kind = type(s)
        if kind is Value:
            if s.op in _FREE or s.kind not in _FLOATS:
                continue
            if s.op in _ARITHMETIC:
                total[0] += times
            elif s.op == "fma":
                total[0] += 2 * times
            else:
                total[1] += times
        elif kind is nodes.Loop:
            _block(s.body, times * s.extent if isinstance(s.extent, int) else times, total, known)
        elif kind is not nodes.Store:
            _other(s, times, total, known)


def _other(s: Any, times: int, total: list[int], known: dict[str, Cost]) -> None:
    if isinstance(s, nodes.KernelCall):
        for k, number in enumerate(_kernel(s.kernel, known)):
            total[k] += times * number
    elif isinstance(s, nodes.HostCall):
        total[4] += 0 if s.rare else times
    elif isinstance(s, nodes.LibraryCall):
        total[0] += times * s.flops
        total[3] += times
    elif isinstance(s, nodes.Copy):
        total[2] += times * 2 * s.count * ITEM_BYTES[s.target.kind]
    elif isinstance(s, nodes.Transpose):
        total[2] += times * 2 * s.rows * s.columns * ITEM_BYTES[s.target.kind]
    else:
        for block in blocks(s):
            _block(block, times, total, known)


def _kernel(kernel: Function, known: dict[str, Cost]) -> Cost:
    found = known.get(kernel.name)
    if found is None:
        work = _cost_of(kernel.body, known)
        if kernel.arena is not None:
            known[kernel.name] = work
            return work
        moved = sum(b.nbytes * (2 if b.role == "inout" else 1) for b in kernel.params)
        found = known[kernel.name] = Cost(work.flops, work.transcendentals, moved, 1, 0)
    return found

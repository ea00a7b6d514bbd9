# SPDX-License-Identifier: MIT
"""Mathematical functions of single numbers as LLVM functions, where a function uses one often.

A sine is about fifty instructions. A loop over sixty coupled numbers, or a loop that the user's Python has unrolled,
would have it written out a hundred times; called, it is compiled once. In vectors it is always written out, since a
call would move every register to memory. The instructions, so the results, are the same.
"""

from typing import Any

from functorch_lite.compiler.codegen.llvm.emitter import Emitter, Value
from functorch_lite.compiler.codegen.llvm.maths import MATHS
from functorch_lite.compiler.codegen.llvm.scalar_ops import emit_op
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import blocks

OFTEN = 8
_SHORT = frozenset({"sqrt", "rsqrt", "floor", "ceil", "trunc", "round", "nextafter", "fused_multiply_add"})
_LONG = frozenset(MATHS) - _SHORT


def used_often(statements: list[Any], e: Emitter) -> frozenset[str]:
    """The mathematical functions that statements have at least OFTEN times.

    Where there is none at all, the emitter is told to take roots by steps: beside others, which keep the units of
    multiply-adds busy, the instruction is quicker, as it has a unit of its own.
    """
    counts: dict[str, int] = {}
    _count(statements, counts)
    e.roots_by_steps = not counts
    return frozenset([name for name, count in counts.items() if count >= OFTEN])


def _count(statements: list[Any], counts: dict[str, int]) -> None:
    for s in statements:
        kind = type(s)
        if kind is nodes.Value:
            if s.op in _LONG:
                counts[s.op] = counts.get(s.op, 0) + 1
        elif kind is not nodes.Store:
            for block in blocks(s):
                _count(block, counts)


def call_outlined(e: Emitter, op: str, kind: str, args: list[Value]) -> Value:
    """The operation on single numbers as a call of a function, which is written when first called."""
    name = f"maths_{op}_{kind}"
    if name not in e.outlined:
        inner = Emitter(e.has_fma, e.lanes_bytes)
        inner.lines.append("entry:")
        given = [Value(f"%x{k}", a.kind) for k, a in enumerate(args)]
        result = emit_op(inner, op, kind, *given)
        inner.line(f"ret {result.type} {result.text}")
        params = ", ".join(f"{x.type} {x.text}" for x in given)
        e.declarations |= inner.declarations
        e.tables |= inner.tables
        e.declarations[name] = f"define internal {result.type} @{name}({params}) #0 {{\n{inner.text}\n}}"
        e.outlined[name] = result.kind
    given = ", ".join(f"{a.type} {a.text}" for a in args)
    result = Value("", e.outlined[name])
    return e.new(f"call {result.type} @{name}({given})", result.kind)

# SPDX-License-Identifier: MIT
"""What a lowered program will cost, counted from its loop IR: operations, and bytes read and written by its kernels.

A loop counts its body as often as it runs; a `while` counts once, since nobody knows how often that is. An element that
a kernel's inner loops read again from cache is not counted again: bytes are those of the arrays a kernel is given.
"""

from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Function, Value, blocks
from functorch_lite.compiler.lowering.program import Lowered

_FREE = frozenset({"constant", "load", "index", "variable", "carried", "result", "parameter", "convert", "bitcast",
                   "select"})
_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "rem", "neg", "abs", "max", "min", "sqrt", "floor", "ceil",
                         "round", "trunc", "copysign"})


class Cost(NamedTuple):
    """flops: floating-point operations (a fused multiply-add is two). transcendentals: exp, log, sin and their kind.

    bytes: read and written by kernels. kernels: how many kernels run. python_steps: how many steps run in Python.
    """

    flops: int
    transcendentals: int
    bytes: int
    kernels: int
    python_steps: int

    def __add__(self, other: Any) -> "Cost":
        a, b, c, d, e = self
        v, w, x, y, z = other
        return Cost(a + v, b + w, c + x, d + y, e + z)

    def times(self, n: int) -> "Cost":
        """The cost of running n times."""
        return Cost(*(a * n for a in self))


NOTHING = Cost(0, 0, 0, 0, 0)


def cost_of(lowered: Lowered) -> Cost:
    """The cost of one call of a program."""
    known: dict[str, Cost] = {}
    return _block(lowered.function.body, known)


def cost_of_kernel(kernel: Function) -> Cost:
    """The cost of one call of a kernel."""
    return _kernel(kernel, {})


def _block(statements, known) -> Cost:
    total = NOTHING
    for statement in statements:
        total += _statement(statement, known)
    return total


def _statement(s: Any, known) -> Cost:
    if isinstance(s, Value):
        return _value(s)
    if isinstance(s, nodes.KernelCall):
        return _kernel(s.kernel, known)
    if isinstance(s, nodes.HostCall):
        return NOTHING if s.rare else Cost(0, 0, 0, 0, 1)
    if isinstance(s, nodes.LibraryCall):
        return Cost(s.flops, 0, 0, 1, 0)
    if isinstance(s, nodes.Copy):
        return Cost(0, 0, 2 * s.count * ITEM_BYTES[s.target.kind], 0, 0)
    if isinstance(s, nodes.Transpose):
        return Cost(0, 0, 2 * s.rows * s.columns * ITEM_BYTES[s.target.kind], 0, 0)
    inside = NOTHING
    for block in blocks(s):
        inside += _block(block, known)
    if isinstance(s, nodes.Loop) and isinstance(s.extent, int):
        return inside.times(s.extent)
    return inside


def _value(v: Value) -> Cost:
    if v.op in _FREE or v.kind not in ("f16", "bf16", "f32", "f64"):
        return NOTHING
    if v.op == "fma":
        return Cost(2, 0, 0, 0, 0)
    return Cost(1, 0, 0, 0, 0) if v.op in _ARITHMETIC else Cost(0, 1, 0, 0, 0)


def _kernel(kernel: Function, known) -> Cost:
    found = known.get(kernel.name)
    if found is None:
        work = _block(kernel.body, known)
        if kernel.arena is not None:
            known[kernel.name] = work
            return work
        moved = sum(b.nbytes * (2 if b.role == "inout" else 1) for b in kernel.params)
        found = known[kernel.name] = Cost(work.flops, work.transcendentals, moved, 1, 0)
    return found

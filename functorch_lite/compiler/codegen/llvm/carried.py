# SPDX-License-Identifier: MIT
"""What vector loops carry: what the lanes start with, what follows in them, and how they are combined after the loop.

Where code is made quickly (runtime/tiers.py), lanes go through memory, and constants to start or to compute with come
from there: LLVM's fast instruction selection knows loads and stores of vectors, and no shuffles of them or constants.
It gives up a block for one instruction that it does not know, and what selects it then takes several times as long.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from functorch_lite.compiler.codegen.llvm.emitter import BYTES, LANES_BYTES, QUICK_KINDS, Emitter, Value
from functorch_lite.compiler.codegen.llvm.scalar_ops import REGISTER
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.builder import identity

if TYPE_CHECKING:
    from functorch_lite.compiler.codegen.llvm.function import FunctionWriter

FEW_LANES = 4


def lane_start(w: "FunctionWriter", c: nodes.Carried, lanes: int) -> Value:
    """What each lane of a combined value starts with."""
    assert c.combine is not None, "a vector loop carries only what combines"
    number = identity(c.combine, c.value.kind)
    number = -0.0 if c.combine == "add" and c.value.kind in ("f16", "bf16", "f32", "f64") else number
    return w.e.splat(w.constant(nodes.Value("constant", c.value.kind, (), number)), lanes)


def loaded_before(w: "FunctionWriter", value: Value) -> Value:
    """A constant vector that a loop whose phis are being written starts with, in a form that is quickly selected."""
    e, before = w.e, w.e.scopes[-1].before
    if not e.is_slow(value) or before is None:
        return value
    loaded = e.fresh()
    before.append(f"  {loaded} = {e.load_of_constant(value)}")
    return Value(loaded, value.kind, value.lanes)


def following(w: "FunctionWriter", c: nodes.Carried, bits: Mapping[nodes.Value, nodes.Value], lanes: int) -> Value:
    """What follows a carried value of a vector loop. bits: the conditions noted as bits, by what follows them."""
    e = w.e
    if c.next not in bits:
        return kept(w, c, e.splat(w.get(c.next), lanes))
    condition, register = e.splat(w.get(bits[c.next]), lanes), REGISTER[c.value.kind]
    if w.mask is not None:
        condition = e.binary("and", condition, w.mask)
    word = e.fresh()
    e.line(f"{word} = bitcast <{lanes} x i1> {condition.text} to i{lanes}")
    found = e.new(f"zext i{lanes} {word} to {register}", register)
    assert w.variable is not None
    first = w.get(w.variable)
    if first.text == "0":
        return found
    found = e.binary("shl", found, first if register == "i64" else e.convert("trunc", first, register))
    return e.binary("or", w.get(c.value), found)


def go_on(
    w: "FunctionWriter", variable: Value, step: int, end: int, labels: tuple[str, str], phis: list[int],
    carried: list[Value],
) -> None:
    """End the body of a vector loop: back to its header if there are more vectors, else on after it."""
    e, (header, after) = w.e, labels
    there = e.new(f"add i64 {variable.text}, {step}", "i64")
    latch = e.block
    e.line(f"br i1 {e.compare('slt', there, e.constant(end, 'i64')).text}, label %{header}, label %{after}")
    w.close_loop(variable, there, latch, phis, carried)
    e.start(after)


def kept(w: "FunctionWriter", c: nodes.Carried, value: Value) -> Value:
    """The next value, the same as before in the lanes beyond the end."""
    return value if w.mask is None else w.e.select(w.mask, value, w.values[c.value])


def across(w: "FunctionWriter", c: nodes.Carried, value: Value) -> Value:
    """The lanes combined: halves are combined until one lane is left, or truths by one instruction."""
    if value.kind == "i1" and c.combine in ("and", "or") and value.lanes > 1:
        return w.e.call(f"llvm.vector.reduce.{c.combine}.v{value.lanes}i1", "i1", 1, value)
    by_memory = w.e.quick and value.kind in QUICK_KINDS and value.lanes * BYTES[value.kind] <= LANES_BYTES
    while value.lanes > FEW_LANES and by_memory:
        value = w.combined(c, *w.e.parts(value, value.lanes // 2))
    if value.lanes == FEW_LANES and by_memory:
        first, second, third, fourth = w.e.parts(value, 1)
        return w.combined(c, w.combined(c, first, third), w.combined(c, second, fourth))
    while value.lanes > 1:
        half = value.lanes // 2
        low, high = (lanes_from(w.e, value, k, half) for k in (0, half))
        value = w.combined(c, low, high)
    return value


def lanes_from(e: Emitter, value: Value, start: int, count: int) -> Value:
    """Some lanes of a vector."""
    if count == 1:
        return e.new(f"extractelement {value.type} {value.text}, i64 {start}", value.kind)
    return e.shuffled(value, Value("poison", value.kind, value.lanes), range(start, start + count))


def starts_neutral(c: nodes.Carried) -> bool:
    """Whether combining with what a carried value starts with gives back the other operand, bit by bit."""
    start = c.initial
    return c.combine in ("max", "min", "and", "or") and start.op == "constant" and (
        start.attr == identity(c.combine, start.kind))

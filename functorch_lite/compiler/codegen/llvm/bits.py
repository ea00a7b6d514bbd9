# SPDX-License-Identifier: MIT
"""Conditions noted as bits: the loops whose carried value is a number with a bit for each iteration.

    carry a = 0 by or
    ...
    p = shl 1 i
    q = select condition p 0
    r = or a q
    next a = r

A vector of conditions is such a number already, so the number is not made lane by lane.
"""

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import Index


def conditions_as_bits(loop: nodes.Loop) -> dict[nodes.Value, tuple[nodes.Value, tuple[nodes.Value, ...]]]:
    """The carried values that note conditions as bits: `or` of what is carried and `select condition (shl 1 i) 0`.

    By what follows the carried value: the condition, and the values that nothing else needs.
    """
    found = {}
    for c in loop.carried:
        if c.combine != "or" or c.value.kind not in ("i32", "u32", "i64", "u64"):
            continue
        bit = next((a for a in c.next.args if a is not c.value), c.value)
        if bit.op != "select" or not _is_number(bit.args[2], 0) or bit.args[1].op != "shl":
            continue
        one, place = bit.args[1].args
        hidden = (c.next, bit, bit.args[1])
        if _is_number(one, 1) and place.op == "index" and place.attr.key == Index.of(loop.variable).key and all(
                v in loop.body and _uses(loop, v) == 1 for v in hidden):
            found[c.next] = bit.args[0], hidden
    return found


def _is_number(v: nodes.Value, number: int) -> bool:
    return v.op == "constant" and v.attr == number


def _uses(loop: nodes.Loop, v: nodes.Value) -> int:
    """How often a loop's statements, those inside them aside, use a value, and what it carries."""
    count = sum([c.next is v for c in loop.carried])
    for s in loop.body:
        if type(s) is nodes.Value:
            if v in s.args:
                count += s.args.count(v)
        elif type(s) is nodes.Store:
            count += s.value is v
    return count

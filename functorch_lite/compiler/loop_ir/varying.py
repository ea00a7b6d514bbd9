# SPDX-License-Identifier: MIT
"""Which values differ between the iterations of a loop: in a vector loop these have lanes, the others are scalars."""

from typing import Any

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import Index, Value


def varying_values(loop: nodes.Loop) -> set[Value]:
    """The values defined in the loop that depend on its variable or on what it carries."""
    found = {loop.variable, *(c.value for c in loop.carried)}
    _block(loop.body, found)
    return found


def index_varies(index: Index, varying: set[Value]) -> bool:
    """Whether a position depends on a varying value."""
    return any(v in varying for v, _ in index.terms)


def _block(statements: list[Any], found: set[Value]) -> None:
    for s in statements:
        kind = type(s)
        if kind is Value:
            if _value_varies(s, found):
                found.add(s)
        elif kind is nodes.Loop:
            _loop(s, [s.body], isinstance(s.extent, Value) and s.extent in found, found)
        elif kind is nodes.While:
            _loop(s, [s.test, s.body], False, found)
        elif kind is nodes.If:
            _block(s.then, found)
            _block(s.otherwise, found)
            found.update(r for r, *values in s.results if not found.isdisjoint([s.condition, *values]))


def _value_varies(v, found):
    if v.op == "load":
        return index_varies(v.attr[1], found)
    if v.op == "index":
        return index_varies(v.attr, found)
    return any(a in found for a in v.args)


def _loop(s, bodies, all_of_it, found):
    """A carried value varies when its start does or what follows it does, which may depend on other carried ones."""
    while True:
        found.update(c.value for c in s.carried if all_of_it or c.initial in found or c.next in found)
        before = len(found)
        for body in bodies:
            _block(body, found)
        if not any(c.next in found and c.value not in found for c in s.carried) and len(found) == before:
            break
    found.update(c.result for c in s.carried if c.value in found)

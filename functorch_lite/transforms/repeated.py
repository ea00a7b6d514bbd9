# SPDX-License-Identifier: MIT
"""Functions that are traced once where a staged function calls them again and again: the equal blocks of a network.

Inside a staged function (`jit`), `call_repeated` traces `fun` for its first call with a signature and writes a call of
the program that it found; a later call with this signature writes another call of the same program. Derivatives and
batched versions of a program are made once, too, so none of these take longer for many blocks than for few.

For pure functions of their arguments only: the library's own layers. What else a function may depend on is part of the
signature: the settings, named axes, context variables, and the user's line that errors are to name.
"""

from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from operator import attrgetter
from typing import Any, NamedTuple

from functorch_lite import tree
from functorch_lite.backends.registry import home
from functorch_lite.config import config, settings_variable
from functorch_lite.core.aval import aval_of
from functorch_lite.core.program import Program
from functorch_lite.core.staging import StagingTrace, StagingTracer, stage
from functorch_lite.core.tracer import Tracer, bind, current_trace, root, surroundings, trace_variable
from functorch_lite.errors import user_source
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.transforms.arguments import is_weak, weakened

_TYPE = attrgetter("variable.aval", "weak")  # of a StagingTracer
_OWN = (trace_variable, settings_variable, home, surroundings)


class Traced(NamedTuple):
    """What a function was found to compute: its program, its result's structure, and what `notes` it made."""

    program: Program
    captured: list[Any]
    out_tree: Any
    out_weak: list[bool]
    note: Any
    context: Context  # keeps the objects alive whose identities are in the signature


def call_repeated(
    trace: StagingTrace, fun: Callable[..., tuple[Any, Any]], key: Any, leaves: Sequence[Any], *, name: str = "block",
    apart: Sequence[Any] = (), closes_over: bool = False,
) -> tuple[Any, Any]:
    """`fun(*leaves)`, a pair of a pytree of arrays and a note that is kept with the program, in a staged function.

    key: tells `fun` from others, hashable. leaves: arrays and tracers. apart: context variables that change nothing.
    closes_over: functions of this key have the same traced values in their closures.
    """
    context = copy_context()
    skipped = (*_OWN, *apart)
    around = frozenset([(var, id(value)) for var, value in context.items() if var not in skipped])
    if {*map(type, leaves)} == {StagingTracer}:
        types = tuple(map(_TYPE, leaves))
    else:
        types = tuple([(aval_of(x), is_weak(x)) for x in leaves])
    signature = (key, types, config.settings, axis_sizes(), home.get(), user_source(), around)
    traced = trace.blocks.get(signature)
    if traced is None:
        traced = _trace(fun, types, name, context)
        if closes_over or not any(isinstance(c, Tracer) for c in traced.captured):
            trace.blocks[signature] = traced
    outs = bind(jit_p, *traced.captured, *leaves, program=traced.program)
    return tree.unflatten(traced.out_tree, weakened(outs, traced.out_weak)), traced.note


def _trace(fun, types, name: str, context: Context) -> Traced:
    found: dict[str, Any] = {}

    def flat(*tracers):
        out, found["note"] = fun(*tracers)
        outs, found["tree"] = tree.flatten(out)
        found["weak"] = [is_weak(o) for o in outs]
        return outs

    staged = stage(flat, [a for a, _ in types], name=name, weak=[w for _, w in types])
    return Traced(staged.program, staged.captured, found["tree"], found["weak"], found["note"], context)


def axis_sizes() -> tuple[Any, ...]:
    """The named axes that vmaps around bind here, with their sizes: a program with collectives depends on them."""
    trace, found = current_trace(), []
    while trace is not root:
        axis = getattr(trace, "axis_name", None)
        if axis is not None:
            found.append((axis, trace.size))  # type: ignore[attr-defined]
        trace = trace.parent
    return tuple(found)

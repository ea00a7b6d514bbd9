# SPDX-License-Identifier: MIT
"""How attention's tangent and cotangents are differentiated again: as what they are composed of."""

from collections.abc import Callable
from typing import Any

from functorch_lite.core.primitive import Primitive
from functorch_lite.core.rules import jvp_rules
from functorch_lite.core.tracer import bind
from functorch_lite.primitives import attention
from functorch_lite.transforms.jvp import jvp_flat


def _register(prim: Primitive, linear: int, composed: Callable[..., Any]) -> None:
    """The jvp rule of a primitive that is linear in its first arguments."""

    def rule(primals, tangents, **params):
        outs = bind(prim, *primals, **params)
        if all(t is None for t in tangents):
            return (outs, [None] * len(outs)) if prim.multiple else (outs, None)
        if all(t is None for t in tangents[linear:]):
            pushed = attention.filled(tangents[:linear], primals[:linear])
            return outs, bind(prim, *pushed, *primals[linear:], **params)

        def flat(*args):
            found = composed(*args, **params)
            return found if prim.multiple else [found]

        _, dots = jvp_flat(flat, primals, tangents, prim.name)
        return outs, dots if prim.multiple else dots[0]

    jvp_rules.add(prim, rule)


_register(attention.attention_tangent_p, 3, attention.composed_tangent)
_register(attention.attention_cotangents_p, 1, attention.composed_cotangents)

# SPDX-License-Identifier: MIT
"""barrier: the identity on several values, which no optimization looks through.

    barrier(x, y)         the values x, y; equations behind it are never taken for the same as equations before it

What a checkpointed function computes again begins at a barrier: without it the compiler would find that the values are
there already, and keep them in memory, which the user asked it not to do. Tangents and cotangents pass unchanged.
"""

from collections.abc import Sequence
from typing import Any

from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind

barrier_p = Primitive("barrier", Kind.OPAQUE, multiple=True)


def barrier(values: Sequence[Any]) -> list[Any]:
    """The same values, in the same order and of the same types."""
    return bind(barrier_p, *values)


shape_rules.add(barrier_p, lambda *avals: list(avals))
eval_rules.add(barrier_p, lambda xp, *values: list(values))
jvp_rules.add(barrier_p, lambda primals, tangents: (barrier(primals), list(tangents)))
batch_rules.add(barrier_p, lambda size, args, batched: (barrier(args), list(batched)))
transpose_rules.absent(barrier_p, "tangents do not pass through it: they pass beside it, unchanged")

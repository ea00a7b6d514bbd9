# SPDX-License-Identifier: MIT
"""stop_gradient: the identity, whose derivative is zero."""

from typing import Any

from functorch_lite import tree
from functorch_lite.core.tracer import Tracer
from functorch_lite.primitives.casts import stop_gradient_of


def stop_gradient(x: Any) -> Any:
    """`x` (a pytree), held constant in every derivative; leaves that are not traced stay as they are."""
    if isinstance(x, Tracer):
        return stop_gradient_of(x)
    return tree.map(lambda leaf: stop_gradient_of(leaf) if isinstance(leaf, Tracer) else leaf, x)

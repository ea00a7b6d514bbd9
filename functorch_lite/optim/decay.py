# SPDX-License-Identifier: MIT
"""Weight decay."""

from functorch_lite.nn.select import Where, mask, trainable_mask
from functorch_lite.optim.base import GradientTransformation, check_at_least, need_params, stateless_leafwise
from functorch_lite.optim.leafwise import Leafwise


def add_decayed_weights(weight_decay: float, where: Where = None) -> GradientTransformation:
    """g + weight_decay * p, on the leaves that `where` selects.

    where: a pattern for paths, a predicate (path, leaf) -> bool, or a tree of booleans like the parameters. By default
    all leaves but the buffers of modules (BatchNorm's running statistics), which must not decay.

    Raises ArgumentError when it is not given the parameters, and for a `weight_decay` below 0.
    """
    check_at_least("add_decayed_weights", "weight_decay", weight_decay, 0.0)

    def begin(params):
        need_params("add_decayed_weights", params)
        selected = trainable_mask(params) if where is None else mask(params, where)
        return Leafwise(lambda g, p, keep: (g + weight_decay * p if keep else g,), others=(selected,))

    return stateless_leafwise(begin)

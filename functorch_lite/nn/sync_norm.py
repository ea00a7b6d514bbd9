# SPDX-License-Identifier: MIT
"""Batch normalisation over a batch that is spread along a `vmap` axis.

    norm = nn.SyncBatchNorm(16, axis_name="shards")
    out, norm = vmap(lambda x: nn.apply(norm, x, training=True), axis_name="shards", out_axes=(0, None))(shards)

Mean and variance are taken over the examples of all shards (`lax.pmean` along the axis), and so are their gradients.
"""

from typing import Any

from functorch_lite.nn.norm import _BatchNorm
from functorch_lite.nn.wrapper import LayerWhere, map_layers


class SyncBatchNorm(_BatchNorm):
    """Normalises each channel of x [n, channels, *spatial] over the rest and over the vmap axis `axis_name`.

    Up to 3 spatial axes; otherwise as `BatchNorm2d`. In inference no axis needs to be bound.
    """

    channel_axes = (-1, -1, -2, -3, -4)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        *,
        axis_name: str = "batch",
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = None,
    ):
        super().__init__(
            num_features,
            eps,
            momentum,
            axis_name=axis_name,
            affine=affine,
            track_running_stats=track_running_stats,
            dtype=dtype,
        )


def convert_sync_batch_norm(model: Any, axis_name: str = "batch", *, where: LayerWhere | None = None) -> Any:
    """`model` with the statistics of its BatchNorm layers taken over the vmap axis `axis_name` too.

    where: which of them, as in `map_layers`; None is all. Raises ArgumentError when there is none.
    """
    return map_layers(lambda layer: layer.replace(axis_name=axis_name), model, _BatchNorm, where=where)

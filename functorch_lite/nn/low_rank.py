# SPDX-License-Identifier: MIT
"""Low-rank adapters: a frozen weight W plus a trained update of rank r, W + scaling * B A.

    model = nn.lora(model, 8, alpha=16, where=("*.q_proj", "*.v_proj"), key=key)  # B A = 0: the model is unchanged
    adapters, frozen = nn.partition(model, nn.LORA)
    grads = grad(lambda adapters: loss(nn.combine(adapters, frozen), x, y))(adapters)
    ...
    model = nn.merge_lora(nn.combine(adapters, frozen))                   # W + scaling * B A, the adapters gone

The product B A is never made while training: the input goes through A [rank, in], then through B [out, rank]. Over a
quantized layer (`nn.quantize`) this is the fine-tuning of QLoRA.

Sources: E. Hu and others, arXiv:2106.09685; D. Kalajdzievski, arXiv:2312.03732 (the scaling alpha / sqrt(rank)); T.
Dettmers and others, arXiv:2305.14314. Scaling and initial values are those of Hugging Face's PEFT.
"""

import math
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.conv import Conv1d, Conv2d, Conv3d
from functorch_lite.nn.dropout import Dropout
from functorch_lite.nn.embedding import Embedding
from functorch_lite.nn.initializers import torch_default
from functorch_lite.nn.linear import Linear
from functorch_lite.nn.module import Array, Module
from functorch_lite.nn.quantization import Quantized
from functorch_lite.nn.state_dict import state_names
from functorch_lite.nn.wrapper import LayerWhere, Wrapper, map_layers, own_weight

LORA = "*.lora_?"
"""The pattern that selects the adapters' leaves in `nn.partition`, `nn.mask` and `optim.masked`."""


class LoRA(Wrapper):
    """Base of the adapted layers: `layer` plus scaling * B A. Made by `lora`, ended by `merge_lora`."""

    layer: Module
    lora_a: Array
    lora_b: Array
    dropout: Dropout
    scaling: float

    def __call__(self, x: Array) -> Array:
        out = self.layer(x)
        return out + (self.scaling * self._update(x)).astype(out.dtype)

    @property
    def weight(self) -> Array:
        """The weight of the adapted layer as a whole: W + scaling * B A."""
        weight = _plain(self.layer, with_weight=True).weight
        return weight + (self.scaling * self._product()).astype(weight.dtype)

    def merged(self) -> Any:
        """The layer without adapter, its weight W + scaling * B A; a quantized one in floating point again."""
        return _plain(self.layer).replace(weight=self.weight)

    def _update(self, x: Array) -> Array:
        """What B A makes of the input."""
        raise NotImplementedError

    def _product(self) -> Array:
        """B A, in the shape of the weight."""
        raise NotImplementedError


class LoRALinear(LoRA):
    """A `Linear` with an adapter: lora_a [rank, in_features], lora_b [out_features, rank]."""

    def _update(self, x: Array) -> Array:
        return fnp.matmul(fnp.matmul(self.dropout(x), self.lora_a.T), self.lora_b.T)

    def _product(self) -> Array:
        return fnp.matmul(self.lora_b, self.lora_a)


class LoRAEmbedding(LoRA):
    """An `Embedding` with an adapter: lora_a [rank, num_embeddings], lora_b [embedding_dim, rank]."""

    def _update(self, x: Array) -> Array:
        table = _plain(self.layer).replace(weight=self.lora_a.T)
        return fnp.matmul(table(x), self.lora_b.T)

    def _product(self) -> Array:
        return fnp.matmul(self.lora_b, self.lora_a).T

    def attend(self, x: Array) -> Array:
        """x [..., embedding_dim] -> x @ weight.T [..., num_embeddings]: the logits of tied weights."""
        update = fnp.matmul(fnp.matmul(x, self.lora_b), self.lora_a)
        out = self.layer.attend(x)  # type: ignore[attr-defined]
        return out + (self.scaling * update).astype(out.dtype)


class LoRAConv(LoRA):
    """A `Conv` with an adapter: a convolution to `rank` channels a group, then one of kernel size 1.

    lora_a [groups * rank, in_channels / groups, *kernel], lora_b [out_channels, rank, 1, ...].
    """

    def _update(self, x: Array) -> Array:
        conv = _plain(self.layer)
        n, low = conv.n_spatial, self.lora_a.shape[0]
        down = conv.replace(weight=self.lora_a, bias=None, out_channels=low)
        up = conv.replace(
            weight=self.lora_b,
            bias=None,
            in_channels=low,
            kernel_size=(1,) * n,
            stride=(1,) * n,
            dilation=(1,) * n,
            padding=((0, 0),) * n,
        )
        return up(down(self.dropout(x)))

    def _product(self) -> Array:
        conv = _plain(self.layer)
        a = fnp.reshape(self.lora_a, (conv.groups, self.lora_b.shape[1], -1))
        b = fnp.reshape(self.lora_b, (conv.groups, -1, self.lora_b.shape[1]))
        return fnp.reshape(fnp.matmul(b, a), (conv.out_channels, -1, *conv.kernel_size))


# The names of PEFT's files; `lora_A.weight` and the like are all there is in the state of the adapters alone.


@state_names.register
def _(module: LoRA) -> dict[str, Any]:
    if isinstance(module, LoRAEmbedding):
        return {"base_layer": "layer", "lora_embedding_A": "lora_a", "lora_embedding_B": "lora_b"}
    return {"base_layer": "layer", "lora_A.weight": "lora_a", "lora_B.weight": "lora_b"}


_ADAPTED = (Linear, Embedding, Conv1d, Conv2d, Conv3d)


def lora(
    model: Any,
    rank: int,
    alpha: float | None = None,
    *,
    where: LayerWhere | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    dtype: Any = None,
    key: Array,
) -> Any:
    """`model` with low-rank adapters on the Linear, Embedding and Conv layers that `where` selects.

    An adapted layer computes W x + scaling * B A x, where A [rank, in] starts as PyTorch's weights do and B [out, rank]
    at zero (for an Embedding A at zero and B normal), so that the model computes what it did. The weights it had stay
    leaves of the model; `nn.partition(model, nn.LORA)` tells the adapters' from them.

    alpha: scaling is alpha / rank, or alpha / sqrt(rank) with `rank_stabilized`; None is 1 times.
    where: patterns for the paths of layers, such as "*.q_proj", or a predicate (path, layer); None is all Linear.
    dropout: on the input of A, in `nn.apply(..., key=key, training=True)`. dtype: of A and B; None is the weight's.

    Raises ArgumentError for a rank below 1, when no layer is selected, and when one has an adapter already.

    >>> from functorch_lite import nn, tree
    >>> model = lora(nn.MLP((784, 128, 10), key=random.key(0)), 4, where="*[0]", key=random.key(1))
    >>> adapters, frozen = nn.partition(model, nn.LORA)
    >>> [leaf.shape for leaf in tree.leaves(adapters)]
    [(4, 784), (128, 4)]
    """
    if not isinstance(rank, int) or rank < 1:
        raise ArgumentError(f"lora: `rank` should be an int of 1 or more, but is {rank!r}.")
    scaling = 1.0 if alpha is None else alpha / (math.sqrt(rank) if rank_stabilized else rank)
    n_made = 0

    def adapted(layer: Any) -> LoRA:
        nonlocal n_made
        n_made += 1
        return _adapted(layer, rank, scaling, dropout, dtype, random.fold_in(key, n_made - 1))

    return map_layers(adapted, model, (LoRA, Quantized, *_ADAPTED), where=_is_linear if where is None else where)


def merge_lora(model: Any) -> Any:
    """`model` with each adapter added into the weight of its layer, W + scaling * B A, and the adapters gone.

    A quantized layer under an adapter comes out in floating point. Raises ArgumentError for a model without adapters.
    """
    return map_layers(lambda layer: layer.merged(), model, LoRA)


def _is_linear(path: str, layer: Any) -> bool:
    return isinstance(_plain(layer), Linear)


def _plain(layer: Any, with_weight: bool = False) -> Any:
    """The layer that gives the settings: that inside of a quantized one, whose weight is None unless asked for."""
    if isinstance(layer, Quantized):
        return layer.dequantized() if with_weight else layer.layer
    return layer.layer if isinstance(layer, LoRA) else layer


def _adapted(layer: Any, rank: int, scaling: float, dropout: float, dtype: Any, key: Array) -> LoRA:
    if isinstance(layer, LoRA):
        raise ArgumentError("lora: a selected layer has an adapter already; `merge_lora` the model first.")
    plain, weight = _plain(layer), layer.values if isinstance(layer, Quantized) else own_weight("lora", layer)
    dtype = dtype or (layer.scale.dtype if isinstance(layer, Quantized) else weight.dtype)
    if isinstance(plain, Embedding):
        kind = LoRAEmbedding
        a = fnp.zeros((rank, plain.num_embeddings), dtype)
        b = random.normal(key, (plain.embedding_dim, rank), dtype)
    else:
        kind, groups = (LoRALinear, 1) if isinstance(plain, Linear) else (LoRAConv, plain.groups)
        start = torch_default(math.prod(weight.shape[1:]))
        a = start(key, (groups * rank, *weight.shape[1:]), dtype)
        b = fnp.zeros((weight.shape[0], rank, *(1,) * (weight.ndim - 2)), dtype)
    a, b = constant(a, weight), constant(b, weight)
    return kind(layer=layer, lora_a=a, lora_b=b, dropout=Dropout(dropout), scaling=float(scaling))

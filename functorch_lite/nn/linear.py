# SPDX-License-Identifier: MIT
"""Affine layers."""

import math
from collections.abc import Sequence
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.initializers import Initializer, torch_default
from functorch_lite.nn.module import Array, Module


class Linear(Module):
    """x [..., in_features] -> x @ weight.T + bias [..., out_features].

    weight [out_features, in_features] and bias [out_features] start uniform in +-1 / sqrt(in_features), as in PyTorch;
    `init` replaces the initializer of the weight.

    >>> import numpy as np
    >>> Linear(3, 2, key=random.key(0))(np.ones((5, 3), np.float32)).shape
    (5, 2)
    """

    weight: Array
    bias: Array | None
    in_features: int
    out_features: int

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        init: Initializer | None = None,
        dtype: Any = None,
        key: Array,
    ):
        weight_key, bias_key = random.split(key)
        default = torch_default(in_features)
        self.weight = (init or default)(weight_key, (out_features, in_features), dtype)
        self.bias = default(bias_key, (out_features,), dtype) if bias else None
        self.in_features = in_features
        self.out_features = out_features

    def __call__(self, x: Array) -> Array:
        if x.shape[-1:] != (self.in_features,):
            raise ShapeError(f"Linear: expected [..., {self.in_features}], got {x.shape}.")
        out = fnp.matmul(x, self.weight.T)
        return out if self.bias is None else out + self.bias


class Bilinear(Module):
    """x [..., m], y [..., n] -> x' W y + bias [..., out_features], with weight [out_features, m, n]."""

    weight: Array
    bias: Array | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: Any = None,
        key: Array,
    ):
        weight_key, bias_key = random.split(key)
        init = torch_default(in1_features)
        self.weight = init(weight_key, (out_features, in1_features, in2_features), dtype)
        self.bias = init(bias_key, (out_features,), dtype) if bias else None

    def __call__(self, x: Array, y: Array) -> Array:
        out = fnp.einsum("...m,omn,...n->...o", x, self.weight, y)
        return out if self.bias is None else out + self.bias


class Einsum(Module):
    """einsum(equation, x, weight) + bias, for any linear map of several axes.

    `Einsum("...nd,dhe->...nhe", (8, 2, 4), key=key)` projects 8 features to 2 heads of 4. shape: that of the weight,
    which starts uniform in +-1 / sqrt(n), n being the product of the axes that are summed. bias_shape: adds a bias of
    this shape, that broadcasts to the output. Raises ArgumentError unless the equation has two operands and an arrow.

    >>> import numpy as np
    >>> Einsum("...nd,dhe->...nhe", (8, 2, 4), key=random.key(0))(np.ones((3, 5, 8), np.float32)).shape
    (3, 5, 2, 4)
    """

    weight: Array
    bias: Array | None
    equation: str

    def __init__(
        self,
        equation: str,
        shape: Sequence[int],
        *,
        bias_shape: Sequence[int] | None = None,
        dtype: Any = None,
        key: Array,
    ):
        operands, _, out = equation.replace(" ", "").partition("->")
        if operands.count(",") != 1 or not out:
            raise ArgumentError(f"Einsum: `equation` should be like 'ab,bc->ac', but is {equation!r}.")
        letters = operands.split(",")[1]
        if len(letters) != len(shape) or "." in letters:
            raise ArgumentError(f"Einsum: `shape` {tuple(shape)} does not fit the weight's axes {letters!r}.")
        fan_in = math.prod(n for n, letter in zip(shape, letters, strict=True) if letter not in out)
        weight_key, bias_key = random.split(key)
        init = torch_default(fan_in)
        self.weight = init(weight_key, tuple(shape), dtype)
        self.bias = None if bias_shape is None else init(bias_key, tuple(bias_shape), dtype)
        self.equation = equation

    def __call__(self, x: Array) -> Array:
        out = fnp.einsum(self.equation, x, self.weight)
        return out if self.bias is None else out + self.bias

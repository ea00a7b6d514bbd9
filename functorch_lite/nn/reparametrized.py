# SPDX-License-Identifier: MIT
"""Layers whose weight is computed from other parameters: weight and spectral normalisation.

The wrapped layer holds None in place of its weight and gets the computed one at each call. `wrapped.weight` is it, and
`wrapped.plain()` the layer with it, for inference. Numerics are those of torch.nn.utils.parametrizations.
"""

from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import lax, random
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.context import get_state, is_training, set_state
from functorch_lite.nn.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from functorch_lite.nn.module import Array, Module, buffer
from functorch_lite.nn.state_dict import Joined, state_names
from functorch_lite.nn.wrapper import Wrapper

_TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)


class Reparametrized(Wrapper):
    """Base of layers around one whose parameter `name` is the computed `weight`."""

    layer: Module
    name: str

    @property
    def weight(self) -> Array:
        """The computed weight."""
        raise NotImplementedError

    def plain(self) -> Any:
        """The wrapped layer with the computed weight as its own."""
        return self.layer.replace(**{self.name: self.weight})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.plain()(*args, **kwargs)


class WeightNorm(Reparametrized):
    """`layer` with weight = g v / |v|: direction and length are trained apart.

    axis: |v| is over all other axes, so that g has one number for each index of this axis (0, the output channels of
    Linear and Conv); None takes the norm of v as a whole. name: the field of `layer` that is normalised.

    Raises ArgumentError when `layer` has no such parameter or axis. Source: T. Salimans, D. Kingma, arXiv:1602.07868.

    >>> import numpy as np
    >>> from functorch_lite.nn import Linear
    >>> layer = WeightNorm(Linear(3, 2, key=random.key(0)))
    >>> layer.g.shape, layer.v.shape, layer(np.ones(3, np.float32)).shape
    ((2, 1), (2, 3), (2,))
    """

    g: Array
    v: Array
    axis: int | None

    def __init__(self, layer: Module, *, name: str = "weight", axis: int | None = 0):
        self.v = own_parameter("WeightNorm", layer, name)
        self.axis = None if axis is None else _known_axis("WeightNorm", axis, self.v)
        self.g = self._norm()
        self.layer, self.name = layer.replace(**{name: None}), name

    @property
    def weight(self) -> Array:
        """g v / |v|."""
        return self.v * (self.g / self._norm())

    def _norm(self) -> Array:
        """|v|: of the shape of v with size 1 on the axes that are summed, rank 0 for the norm as a whole."""
        others = None if self.axis is None else tuple(i for i in range(self.v.ndim) if i != self.axis)
        return fnp.sqrt(fnp.sum(self.v * self.v, axis=others, keepdims=self.axis is not None))


class SpectralNorm(Reparametrized):
    """`layer` with its weight divided by sigma, an estimate of its largest singular value: Lipschitz constant 1.

    sigma = u' W v, where W [n, m] is the weight with `axis` first and the others flattened, and u, v are estimates of
    its first singular vectors: buffers, that n_power_iterations steps u = W v / |W v|, v = W' u / |W' u| improve in
    each `nn.apply(..., training=True)`. The gradient takes u and v as constants. A weight of one axis is divided by its
    norm. axis: that of the output channels; None is 1 for ConvTranspose and else 0. key: for the first u and v.

    Raises ArgumentError when `layer` has no parameter `name` or axis `axis`, and for n_power_iterations below 1.
    Source: T. Miyato and others, arXiv:1802.05957.
    """

    original: Array
    u: Array | None = buffer()
    v: Array | None = buffer()
    axis: int
    n_power_iterations: int
    eps: float

    def __init__(
        self,
        layer: Module,
        *,
        name: str = "weight",
        n_power_iterations: int = 1,
        eps: float = 1e-12,
        axis: int | None = None,
        key: Array,
    ):
        if n_power_iterations < 1:
            raise ArgumentError(f"SpectralNorm: `n_power_iterations` should be 1 or more, but is {n_power_iterations}.")
        weight = own_parameter("SpectralNorm", layer, name)
        axis = int(isinstance(layer, _TRANSPOSED)) if axis is None else axis
        self.axis = _known_axis("SpectralNorm", axis, weight)
        self.original, self.n_power_iterations, self.eps = weight, n_power_iterations, eps
        self.layer, self.name = layer.replace(**{name: None}), name
        self.u = self.v = None
        if weight.ndim > 1:
            key_u, key_v = random.split(key)
            matrix = self._matrix()
            u = constant(random.normal(key_u, matrix.shape[:1], matrix.dtype), weight)
            v = constant(random.normal(key_v, matrix.shape[1:], matrix.dtype), weight)
            self.u, self.v = self._improved(matrix, self._normalized(u), self._normalized(v), 15)

    @property
    def weight(self) -> Array:
        """The weight / sigma, with the u and v that there are."""
        return self._divided(get_state(self, "u"), get_state(self, "v"))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if is_training() and self.u is not None:
            matrix = lax.stop_gradient(self._matrix())
            u, v = (lax.stop_gradient(get_state(self, name)) for name in ("u", "v"))
            u, v = self._improved(matrix, u, v, self.n_power_iterations)
            set_state(self, u=u, v=v)
        return super().__call__(*args, **kwargs)

    def _matrix(self) -> Array:
        weight = self.original
        return fnp.reshape(fnp.moveaxis(weight, self.axis, 0), (weight.shape[self.axis], -1))

    def _improved(self, matrix: Array, u: Array, v: Array, steps: int) -> tuple[Array, Array]:
        for _ in range(steps):
            u = self._normalized(fnp.matmul(matrix, v))
            v = self._normalized(fnp.matmul(matrix.T, u))
        return u, v

    def _normalized(self, x: Array) -> Array:
        return x / fnp.maximum(fnp.sqrt(fnp.sum(x * x)), self.eps)

    def _divided(self, u: Array | None, v: Array | None) -> Array:
        if u is None:
            return self._normalized(self.original)
        u, v = lax.stop_gradient(u), lax.stop_gradient(v)
        return self.original / fnp.sum(u * fnp.matmul(self._matrix(), v))


# PyTorch's names: `parametrizations.weight.original0` for g, and so on.


def _with_prefix(where: Any) -> Any:
    """A field of the wrapped layer as one of the wrapper."""
    if isinstance(where, Joined):
        return Joined(tuple(f"layer.{field}" for field in where.fields))
    return f"layer.{where}" if isinstance(where, str) else where


def wrapped_names(module: Reparametrized, own: dict[str, str]) -> dict[str, Any]:
    """The names of PyTorch's state of a wrapper whose own fields are `own`."""
    inner = {name: _with_prefix(where) for name, where in state_names(module.layer).items() if where != module.name}
    return inner | {f"parametrizations.{module.name}.{name}": where for name, where in own.items()}


@state_names.register
def _(module: WeightNorm) -> dict[str, Any]:
    return wrapped_names(module, {"original0": "g", "original1": "v"})


@state_names.register
def _(module: SpectralNorm) -> dict[str, Any]:
    return wrapped_names(module, {"original": "original", "0._u": "u", "0._v": "v"})


def own_parameter(what: str, layer: Module, name: str) -> Array:
    """The array in the field `name` of `layer`; ArgumentError in the name of `what` when there is none."""
    value = getattr(layer, name, None)
    if not hasattr(value, "dtype") or name not in layer._child_names:
        raise ArgumentError(f"{what}: `layer` {type(layer).__name__} has no parameter {name!r}; give `name`.")
    return value


def _known_axis(what: str, axis: int, weight: Array) -> int:
    if not -weight.ndim <= axis < weight.ndim:
        raise ArgumentError(f"{what}: `axis` {axis} is not one of the weight's, whose shape is {weight.shape}.")
    return axis % weight.ndim

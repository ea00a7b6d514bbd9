# SPDX-License-Identifier: MIT
"""A layer whose weight stays orthogonal while it is trained: base [n, n] times a map of a free X [n, k], n >= k.

    matrix_exp   exp(A - A'), A the lower triangle of X
    cayley       (I + S / 2) (I - S / 2)^-1, S = A - A'
    householder  the product of reflections I - tau_i v_i v_i', v_i = e_i + the column i of X below its diagonal

For the first two X is extended by zeros to [n, n], and of every product the first k columns are taken. base starts as
the orthogonal factor of the weight (QR) and each map as the identity, so that an orthogonal weight is kept. Numerics
are those of torch.nn.utils.parametrizations.orthogonal.

Sources: M. Lezcano-Casado, "Trivializations for gradient-based optimization on manifolds", arXiv:1909.09501; for the
product of reflections as one matrix, C. Bischof, C. Van Loan, "The WY representation for products of Householder
matrices" (1987).
"""

from typing import Any, Literal

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.module import Array, Module, buffer
from functorch_lite.nn.reparametrized import Reparametrized, own_parameter, wrapped_names
from functorch_lite.nn.state_dict import state_names
from functorch_lite.primitives.matrix_functions import expm
from functorch_lite.transforms.arguments import on_its_device

Method = Literal["matrix_exp", "cayley", "householder"]


class Orthogonal(Reparametrized):
    """`layer` with a weight [out, in] of orthonormal rows or columns, the fewer of the two.

    method: how the weight is made, see the file's head; None is "matrix_exp" for a square weight, else "householder".
    name: the field of `layer` that is orthogonal.

    Raises ArgumentError when `layer` has no parameter `name` or it has not 2 axes, and for another method.

    >>> import numpy as np
    >>> from functorch_lite import nn, random
    >>> weight = Orthogonal(nn.Linear(4, 3, key=random.key(0))).weight
    >>> np.allclose(weight @ weight.T, np.eye(3), atol=1e-6)
    True
    """

    original: Array
    base: Array = buffer()
    method: Method

    def __init__(self, layer: Module, *, name: str = "weight", method: Method | None = None):
        weight = own_parameter("Orthogonal", layer, name)
        if weight.ndim != 2:
            raise ArgumentError(f"Orthogonal: the weight should have 2 axes, but its shape is {weight.shape}.")
        rows, columns = weight.shape
        method = method or ("matrix_exp" if rows == columns else "householder")
        if method not in _MAPS:
            raise ArgumentError(f"Orthogonal: `method` should be one of {', '.join(_MAPS)}, but is {method!r}.")
        self.layer, self.name, self.method = layer.replace(**{name: None}), name, method
        self.base = _orthogonal_factor(weight if rows >= columns else weight.T)
        self.original = _minus_identity(weight)

    @property
    def weight(self) -> Array:
        """base times the map of X: orthogonal."""
        wide = self.original.shape[0] < self.original.shape[1]
        x = self.original.T if wide else self.original
        q = fnp.matmul(lax.stop_gradient(self.base), _MAPS[self.method](x))
        return q.T if wide else q


@state_names.register
def _(module: Orthogonal) -> dict[str, Any]:
    return wrapped_names(module, {"original": "original", "0.base": "base"})


@on_its_device
def _minus_identity(weight: Array) -> Array:
    """Minus one on the diagonal, as PyTorch starts; no map looks at it."""
    return -fnp.eye(*weight.shape, dtype=weight.dtype)


@on_its_device
def _orthogonal_factor(weight: Array) -> Array:
    """Q [n, n] of weight [n, k] = Q R with a positive diagonal of R, which makes it unique for n = k."""
    q, r = fnp.linalg.qr(weight, mode="complete")
    k = weight.shape[1]
    signs = fnp.where(fnp.diagonal(r) < 0, -1, 1).astype(weight.dtype)
    return fnp.concatenate([q[:, :k] * signs, q[:, k:]], axis=1)


def _skew(x: Array) -> Array:
    """A - A' [n, n] of the lower triangle A of x [n, k], extended by zeros."""
    n, k = x.shape
    lower = fnp.pad(fnp.tril(x), ((0, 0), (0, n - k)))
    return lower - lower.T


def _matrix_exp(x: Array) -> Array:
    return expm(_skew(x))[:, : x.shape[1]]


@on_its_device
def _cayley(x: Array) -> Array:
    half, identity = 0.5 * _skew(x), fnp.eye(x.shape[0], dtype=x.dtype)
    return fnp.linalg.solve(identity - half, identity + half)[:, : x.shape[1]]


@on_its_device
def _householder(x: Array) -> Array:
    # H_1 ... H_k = I - V T V' with T^-1 = diag(1 / tau) + the part of V'V above its diagonal (the WY representation).
    k = x.shape[1]
    v = fnp.tril(x, -1) + fnp.eye(*x.shape, dtype=x.dtype)
    gram = fnp.matmul(v.T, v)
    inverse = fnp.triu(gram, 1) + fnp.eye(k, dtype=x.dtype) * fnp.diagonal(gram) / 2
    # Each reflection of X = 0 turns its axis round: minus brings it back.
    return fnp.matmul(v, fnp.linalg.solve(inverse, v[:k].T)) - fnp.eye(*x.shape, dtype=x.dtype)


_MAPS = {"matrix_exp": _matrix_exp, "cayley": _cayley, "householder": _householder}

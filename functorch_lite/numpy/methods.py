# SPDX-License-Identifier: MIT
"""The attributes and methods of `numpy.ndarray` on tracers: x.T, x.ndim, x.sum(), x.reshape(...), x.at[...].

Importing the module installs them. A method that changes its array (sort, fill, ...) raises and shows the replacement.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ConcretizationError, ImmutableError
from functorch_lite.numpy import contractions, functions, indexing, ops, reductions, shaping, sorting, ufuncs, updates
from functorch_lite.numpy.axes import size_of
from functorch_lite.numpy.operators import refuse_number
from functorch_lite.numpy.selection import nonzero


def _item(self, *args):
    x = self if not args else shaping.ravel(self)[args[0]] if len(args) == 1 else self[args]
    value = x.concrete() if isinstance(x, Tracer) else x
    if value is None:
        raise refuse_number(self, "x.item()")
    return np.asarray(value).item()


def _to_list(self):
    value = self.concrete()
    if value is None:
        raise refuse_number(self, "x.tolist()")
    return np.asarray(value).tolist()


def _reshape(self, *shape, order="C", copy=None):
    shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return shaping.reshape(self, shape, order=order)


def _transpose(self, *axes):
    axes = axes[0] if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))) else axes
    return shaping.transpose(self, axes or None)


def _astype(self, dtype, order="K", casting="unsafe", subok=True, copy=True):
    dtype = np.dtype(dtype)
    return ops.convert(self, dtype) if dtype != self.dtype or self.weak else self


def _view(self, dtype=None, *args):
    return self if dtype is None else ops.bitcast(self, np.dtype(dtype))


def _round(self, decimals=0, out=None):
    return functions.round(self, decimals)


def _dunder_round(self, ndigits=None):
    rounded = functions.round(self, ndigits or 0)
    return int(rounded) if ndigits is None and self.concrete() is not None else rounded


def _clip(self, min=None, max=None, out=None, **options):
    return reductions.clip(self, min, max)


def _to_device(self, device, /, *, stream=None):
    raise ConcretizationError("a traced array has the device of the arrays it is computed from; move those.")


def _in_place(name: str, instead: str) -> Callable[..., Any]:
    def method(self, *args, **kwargs):
        raise ImmutableError(
            f"x.{name}(...) changes its array, and a traced array cannot change. Write `x = {instead}`."
        )

    return method


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


def _kept_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self, axis=None, out=None, *, keepdims=False):
        return function(self, axis=axis, keepdims=keepdims)

    return method


_methods: dict[str, Callable[..., Any]] = {
    "sum": _same(reductions.sum),
    "prod": _same(reductions.prod),
    "mean": _same(reductions.mean),
    "var": _same(reductions.var),
    "std": _same(reductions.std),
    "min": _same(reductions.min),
    "max": _same(reductions.max),
    "any": _same(reductions.any),
    "all": _same(reductions.all),
    "argmax": _kept_argument(reductions.argmax),
    "argmin": _kept_argument(reductions.argmin),
    "cumsum": _same(reductions.cumsum),
    "cumprod": _same(reductions.cumprod),
    "ptp": _same(reductions.ptp),
    "dot": _same(contractions.dot),
    "trace": _same(shaping.trace),
    "diagonal": _same(shaping.diagonal),
    "reshape": _reshape,
    "ravel": _same(shaping.ravel),
    "flatten": _same(shaping.ravel),
    "transpose": _transpose,
    "swapaxes": _same(shaping.swapaxes),
    "squeeze": _same(shaping.squeeze),
    "repeat": _same(shaping.repeat),
    "take": _same(indexing.take),
    "choose": _same(indexing.choose),
    "searchsorted": _same(indexing.searchsorted),
    "nonzero": _same(nonzero),
    "argsort": _same(sorting.argsort),
    "argpartition": _same(sorting.argpartition),
    "compress": lambda self, condition, axis=None, out=None: np.compress(condition, self, axis=axis),
    "astype": _astype,
    "view": _view,
    "clip": _clip,
    "round": _round,
    "conj": _same(ufuncs.conjugate),
    "conjugate": _same(ufuncs.conjugate),
    "copy": lambda self, order="C": self,
    "__copy__": lambda self: self,
    "__deepcopy__": lambda self, memo: self,
    "__round__": _dunder_round,
    "item": _item,
    "tolist": _to_list,
    "to_device": _to_device,
    "sort": _in_place("sort", "numpy.sort(x)"),
    "partition": _in_place("partition", "numpy.partition(x, k)"),
    "fill": _in_place("fill", "numpy.full_like(x, value)"),
    "put": _in_place("put", "x.at[i].set(v)"),
    "resize": _in_place("resize", "numpy.resize(x, shape)"),
    "setflags": _in_place("setflags", "x"),
}
_attributes: dict[str, Callable[[Any], Any]] = {
    "ndim": lambda self: len(self.shape),
    "size": lambda self: size_of(self.shape),
    "itemsize": lambda self: self.dtype.itemsize,
    "nbytes": lambda self: size_of(self.shape) * self.dtype.itemsize,
    "T": shaping.transpose,
    "mT": shaping.matrix_transpose,
    "real": functions.real,
    "imag": functions.imag,
    "at": updates.Updates,
    "flat": shaping.ravel,
}


def _install() -> None:
    for name, method in _methods.items():
        method.__name__ = name
        setattr(Tracer, name, method)
    for name, getter in _attributes.items():
        setattr(Tracer, name, property(lambda self, getter=getter: getter(self)))


_install()

# SPDX-License-Identifier: MIT
"""A stand-in for CuPy without a GPU: an array library over NumPy that mixes with NumPy arrays as little as CuPy does.

Its arrays are no `np.ndarray`s. Like CuPy's they refuse to become one unasked (`.get()` does it) and refuse NumPy
arrays as operands, even of rank 0; results of rank 0 are arrays, never NumPy scalars. What CuPy lacks is missing here.

    device = strict.library()        # a module: device.asarray(x), device.add(x, y), device.linalg.svd(x), ...
"""

import functools
import operator
import sys
import types

import numpy as np
import scipy.linalg
import scipy.special

from functorch_lite.backends.registry import register_array_type

LACKS = {"asmatrix", "vecdot", "bitwise_count", "errstate", "ndindex", "nditer", "memmap", "frompyfunc", "from_dlpack"}
SPECIAL = {
    "beta", "betainc", "betaincinv", "betaln", "digamma", "erf", "erfc", "erfcinv", "erfcx", "erfinv", "exp1", "expi",
    "expit", "expn", "gamma", "gammainc", "gammaincc", "gammaincinv", "gammaln", "i0", "i0e", "i1", "i1e", "j0", "j1",
    "k0", "k1", "log_ndtr", "loggamma", "logit", "logsumexp", "ndtr", "ndtri", "poch", "polygamma", "psi", "xlog1py",
    "xlogy", "y0", "y1", "yn", "zeta",
}
CREATES = {"array", "asarray", "ascontiguousarray", "asanyarray", "asfortranarray"}


class ndarray:  # noqa: N801 (CuPy's name)
    """An array on the imagined device."""

    __slots__ = ("_host", "__weakref__")
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, host):
        self._host = host

    def get(self):
        """The array as NumPy's."""
        return self._host.copy()

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if any(hasattr(x, "__array_ufunc__") and not isinstance(x, (ndarray, np.generic)) for x in inputs):
            return NotImplemented
        function = getattr(_library, ufunc.__name__)
        return (function if method == "__call__" else getattr(function, method))(*inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        if any(not issubclass(t, ndarray) for t in types):
            return NotImplemented
        where = functools.reduce(getattr, function.__module__.split(".")[1:], _library)
        return getattr(where, function.__name__)(*args, **kwargs)

    def __getitem__(self, index):
        return on_device(self._host[on_host(index)])

    def __setitem__(self, index, value):
        self._host[on_host(index)] = on_host(value)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self):
        return bool(self._host)

    def __int__(self):
        return int(self._host)

    def __float__(self):
        return float(self._host)

    def __complex__(self):
        return complex(self._host)

    def __index__(self):
        return operator.index(self._host)

    def __repr__(self):
        return repr(self._host)


def on_host(value):
    """What NumPy shall compute with; a NumPy array is refused."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if type(value) in (tuple, list):
        return type(value)(on_host(v) for v in value)
    return value


def on_device(value):
    """NumPy's result as arrays on the device."""
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(on_device(v) for v in value)
    return [on_device(v) for v in value] if type(value) is list else value


def _lifted(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return on_device(function(*map(on_host, args), **{k: on_host(v) for k, v in kwargs.items()}))

    return call


class _Ufunc:
    def __init__(self, ufunc):
        self.__name__ = ufunc.__name__
        self._call = _lifted(ufunc)
        self.reduce, self.accumulate, self.at = _lifted(ufunc.reduce), _lifted(ufunc.accumulate), _lifted(ufunc.at)

    def __call__(self, *args, **kwargs):
        return self._call(*args, **kwargs)


def _create(function):
    def call(value, *args, **kwargs):
        value = value._host if isinstance(value, ndarray) else value
        if type(value) in (list, tuple):
            value = on_host(value)
        made = function(value, *args, **kwargs)
        return ndarray(made if isinstance(value, np.ndarray) and made is value else np.array(made))

    return call


class _Library(types.ModuleType):
    """A module whose names are NumPy's (or SciPy's), lifted to the device when first asked for."""

    def __init__(self, name, source, allowed=None):
        super().__init__(name)
        self._source, self._allowed = source, allowed

    def __getattr__(self, name):
        if name in LACKS or (self._allowed is not None and name not in self._allowed):
            raise AttributeError(f"{self.__name__} has no {name}")
        found = getattr(self._source, name)
        if name in CREATES:
            found = _create(found)
        elif isinstance(found, types.ModuleType):
            found = _Library(f"{self.__name__}.{name}", found)
        elif isinstance(found, np.ufunc):
            found = _Ufunc(found)
        elif callable(found) and not isinstance(found, type):
            found = _lifted(found)
        setattr(self, name, found)
        return found


def _binary(name, reflected):
    function = getattr(operator, name)

    def method(self, other):
        if not isinstance(other, ndarray) and getattr(other, "__array_priority__", 0) > ndarray.__array_priority__:
            return NotImplemented
        other = on_host(other)
        return on_device(function(other, self._host) if reflected else function(self._host, other))

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift",
              "rshift"):
    setattr(ndarray, f"__{_name.strip('_')}__", _binary(_name, False))
    setattr(ndarray, f"__r{_name.strip('_')}__", _binary(_name, True))
def _unary(name):
    function = getattr(operator, name)
    return lambda self: on_device(function(self._host))


def _in_place(name):
    function = getattr(operator, name)

    def method(self, other):
        self._host = function(self._host, on_host(other))
        return self

    return method


for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "iand", "ior", "ixor", "ilshift", "irshift"):
    setattr(ndarray, f"__{_name}__", _in_place(_name))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _binary(_name, False))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _unary(_name))
for _name in (
    "all any argmax argmin argsort astype choose clip compress conj conjugate copy cumprod cumsum diagonal dot fill "
    "flatten max mean min nonzero partition prod put ravel repeat reshape round searchsorted sort squeeze std sum "
    "swapaxes take trace transpose var view item tolist tobytes"
).split():
    def _method(self, *args, _name=_name, **kwargs):
        found = _lifted(getattr(self._host, _name))(*args, **kwargs)
        return self if found is not None and _name == "astype" and on_host(found) is self._host else found

    setattr(ndarray, _name, _method)
for _name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides", "flags", "T", "mT", "real", "imag"):
    setattr(ndarray, _name, property(
        lambda self, _name=_name: on_device(getattr(self._host, _name))
        if _name in ("T", "mT", "real", "imag") else getattr(self._host, _name),
        lambda self, value, _name=_name: setattr(self._host, _name, on_host(value)),
    ))

_library = _Library("strict", np)
_library.ndarray = ndarray
_library.asnumpy = lambda x: x.get() if isinstance(x, ndarray) else np.asarray(x)


def library():
    """The stand-in's module, known to the registry from now on."""
    register_array_type(ndarray, _library)
    sys.modules.setdefault("strictx.scipy.special", _Library("strictx.scipy.special", scipy.special, SPECIAL))
    sys.modules.setdefault(
        "strictx.scipy.linalg",
        _Library("strictx.scipy.linalg", scipy.linalg, {"lu_factor", "lu_solve", "solve_triangular", "expm"}),
    )
    return _library

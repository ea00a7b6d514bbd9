# SPDX-License-Identifier: MIT
"""Creation: zeros ones full array arange linspace eye tri meshgrid ... in the default float, on the device asked for.

Eagerly these are NumPy's functions (CuPy's for `device="gpu"`) with `config.default_float` where no dtype is given.
While a program is being staged they are part of it.
"""

import sys
from typing import Any, Literal

import numpy as np

from functorch_lite.backends.registry import constant, home
from functorch_lite.core import dtypes
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, DeviceError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.dispatch import implement, is_staging, needs_tracing
from functorch_lite.numpy.promotion import asarray as _as_array
from functorch_lite.numpy.promotion import broadcast_to, cast, common_dtype, has_tracer
from functorch_lite.numpy.shaping import reshape, sizes_of

_i64 = np.dtype(np.int64)


def array_module(device: Any) -> Any:
    """numpy for "cpu", cupy for "gpu" and "cuda" (with an optional number, "gpu:1") and CuPy's devices.

    None: numpy, or cupy within a transform of CuPy arrays.
    """
    if device is None:
        return home.get()
    if device == "cpu":
        return np
    cupy = sys.modules.get("cupy") or _import_cupy(device)
    number = device if isinstance(device, int) else getattr(device, "id", None)
    if isinstance(device, str):
        kind, _, index = device.partition(":")
        if kind not in ("gpu", "cuda"):
            raise DeviceError(f"unknown device {device!r}: expected 'cpu', 'gpu' or 'gpu:N'.")
        number = int(index or 0)
    if number:
        cupy.cuda.Device(number).use()
    return cupy


def _import_cupy(device):
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f"device {device!r} needs CuPy: pip install functorch_lite[cuda12].") from error
    return cupy


def default_dtype(dtype: Any) -> np.dtype:
    """The dtype asked for, or the default float."""
    return dtypes.default_float() if dtype is None else np.dtype(dtype)


def _inferred(dtype: np.dtype) -> np.dtype:
    """The dtype of an array made from Python numbers: floats become the default float."""
    if dtype == np.float64:
        return dtypes.default_float()
    return dtypes.complex_dtype(dtypes.default_float()) if dtype == np.complex128 else dtype


# --- constant arrays ----------------------------------------------------------------------------------------------


def full(shape: Any, fill_value: Any, dtype: Any = None, *, device: Any = None) -> Any:
    """An array of `shape` filled with `fill_value`; a Python float is of the default float."""
    shape = sizes_of(shape)
    if dtype is None:
        kind = type(fill_value)
        dtype = (
            _inferred(dtypes.python_dtype(kind)) if kind in (bool, int, float, complex) else _as_array(fill_value).dtype
        )
    dtype = np.dtype(dtype)
    if isinstance(fill_value, Tracer) or is_staging():
        return broadcast_to(cast(fill_value if shape_of_any(fill_value) else _scalar(fill_value), dtype), shape)
    return array_module(device).full(shape, fill_value, dtype)


def shape_of_any(value: Any) -> Any:
    """The shape of an array, a tracer or a scalar."""
    return getattr(value, "shape", ())


def _scalar(value):
    return value[()] if isinstance(value, np.ndarray) else value


def zeros(shape: Any, dtype: Any = None, order: str = "C", *, device: Any = None) -> Any:
    """An array of zeros; float32 (the default float) unless `dtype` is given."""
    return _constant("zeros", 0, shape, dtype, device)


def ones(shape: Any, dtype: Any = None, order: str = "C", *, device: Any = None) -> Any:
    """An array of ones; float32 (the default float) unless `dtype` is given."""
    return _constant("ones", 1, shape, dtype, device)


def empty(shape: Any, dtype: Any = None, order: str = "C", *, device: Any = None) -> Any:
    """An array of zeros: nothing here is left undefined."""
    return _constant("zeros", 0, shape, dtype, device)


def _constant(name, value, shape, dtype, device):
    dtype = default_dtype(dtype)
    shape = sizes_of(shape)
    if is_staging():
        return e.full(shape, value, dtype)
    return getattr(array_module(device), name)(shape, dtype)


def _like(numpy_function: Any, value: int) -> Any:
    def body(
        a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
    ) -> Any:
        x = _as_array(a)
        shape = x.shape if shape is None else sizes_of(shape)
        dtype = x.dtype if dtype is None else np.dtype(dtype)
        if not isinstance(x, Tracer) and not is_staging():
            module = array_module(device)
            return numpy_function(x, dtype=dtype, shape=shape) if module is np else getattr(module, name)(shape, dtype)
        return e.full(tuple(shape), value, dtype)

    name = "zeros" if value == 0 else "ones"
    body.__doc__ = f"An array of {name} with the shape and dtype of x."
    body.__name__ = numpy_function.__name__
    return body


zeros_like = implement(np.zeros_like)(_like(np.zeros_like, 0))
ones_like = implement(np.ones_like)(_like(np.ones_like, 1))
empty_like = implement(np.empty_like)(_like(np.zeros_like, 0))


def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    """An array with the shape and dtype of x, filled with `fill_value`."""
    x = _as_array(a)
    shape = tuple(x.shape if shape is None else sizes_of(shape))
    dtype = x.dtype if dtype is None else np.dtype(dtype)
    if not needs_tracing((x, fill_value)) and not is_staging():
        return np.full_like(x, fill_value, dtype=dtype, shape=shape)
    return broadcast_to(cast(fill_value, dtype), shape)


implement(np.full_like)(full_like)

# --- from data ----------------------------------------------------------------------------------------------------


def array(
    object: Any, dtype: Any = None, copy: Any = True, order: str = "K", ndmin: int = 0, *, device: Any = None
) -> Any:
    """An array of these values (lists may hold traced arrays). Python floats alone give the default float;
    beside arrays they are weak."""
    x = _converted(object, dtype, copy)
    if dtype is not None:
        x = cast(x, np.dtype(dtype))
    if device is not None and not isinstance(x, Tracer):
        x = array_module(device).asarray(x if not hasattr(x, "get") or device != "cpu" else x.get())
    if len(x.shape) < ndmin:
        x = reshape(x, (1,) * (ndmin - len(x.shape)) + tuple(x.shape))
    return x


def _converted(value, dtype, copy) -> Any:
    if isinstance(value, (list, tuple)):
        if has_tracer(value):
            return _stack(value, _list_dtype(value) if dtype is None else np.dtype(dtype))
        found = np.array(value, dtype)
        weak = dtype is None and not _has_dtype(value)
        return constant(found.astype(_inferred(found.dtype), copy=False) if weak else found)
    if isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic):
        return np.array(value, _inferred(dtypes.python_dtype(type(value))) if dtype is None else np.dtype(dtype))
    x = _as_array(value)
    if isinstance(x, np.generic):
        return np.asarray(x)
    return x.copy() if copy and not isinstance(x, Tracer) else x


def _leaves(value):
    if isinstance(value, (list, tuple)):
        for v in value:
            yield from _leaves(v)
    else:
        yield value


def _has_dtype(value):
    return any(hasattr(v, "dtype") for v in _leaves(value))


def _list_dtype(value):
    leaves = list(_leaves(value))
    if all(not hasattr(v, "dtype") or (isinstance(v, Tracer) and v.weak) for v in leaves):
        return _inferred(common_dtype(*leaves))
    return common_dtype(*leaves)


def _stack(value, dtype):
    if not isinstance(value, (list, tuple)):
        return cast(value if hasattr(value, "dtype") else _as_array(value), dtype)
    parts = [_stack(v, dtype) for v in value]
    return e.concatenate([e.reshape(p, (1, *p.shape)) for p in parts], 0) if parts else np.zeros(0, dtype)


def asarray(a: Any, dtype: Any = None, order: str | None = None, *, device: Any = None, copy: Any = None) -> Any:
    """`a` as an array: itself where it is one, of that dtype, on that device."""
    if dtype is None and device is None and not copy and isinstance(a, (np.ndarray, Tracer)):
        return a
    return array(a, dtype, copy=bool(copy), device=device)


# --- ranges -------------------------------------------------------------------------------------------------------


def _python_number(value: Any, name: str) -> Any:
    if isinstance(value, Tracer):
        return sizes_of(value)[0] if value.concrete() is None else value.concrete().item()
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, *, device: Any = None) -> Any:
    """start, start + step, ... up to, not including, stop. The bounds must be known while tracing."""
    bounds = [0, start, step] if stop is None else [start, stop, step]
    given = [v.dtype for v in bounds if hasattr(v, "dtype")]
    if dtype is None and not given and any(isinstance(v, float) for v in bounds):
        dtype = dtypes.default_float()
    elif dtype is None and given:
        dtype = common_dtype(*bounds)
    numbers = [_python_number(v, "arange") for v in bounds]
    if not is_staging():
        return array_module(device).arange(*numbers, dtype=dtype)
    found = np.arange(*numbers, dtype=dtype)
    if found.dtype.kind in "iu" and found.size:
        base = e.iota(found.dtype, found.shape)
        if numbers[2] != 1:
            base = e.mul(base, found.dtype.type(numbers[2]))
        return e.add(base, found.dtype.type(numbers[0])) if numbers[0] else base
    return broadcast_to(found, found.shape) if not found.size else e.add(found, found.dtype.type(0))


def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
    *,
    device: Any = None,
) -> Any:
    """`num` evenly spaced numbers from start to stop; differentiable in both."""
    if not needs_tracing((start, stop)) and not is_staging():
        wanted = _range_dtype(dtype, start, stop)
        out, step = np.linspace(start, stop, num, endpoint, retstep=True, dtype=wanted, axis=axis)
        out = constant(out)
        if device is not None:
            out, step = array(out, device=device), array(step, device=device)
    else:
        out, step = _spaced(start, stop, num, endpoint, axis, _range_dtype(dtype, start, stop))
    return (out, step) if retstep else out


def _range_dtype(dtype, *bounds):
    if dtype is not None:
        return np.dtype(dtype)
    given = [v for v in bounds if hasattr(v, "dtype") and not (isinstance(v, Tracer) and v.weak)]
    inexact = [v for v in given if dtypes.is_inexact(v.dtype)]
    if inexact:
        return common_dtype(*given)
    weak = np.result_type(dtypes.default_float(), *(type(v)(0) for v in bounds if isinstance(v, complex)))
    return dtypes.default_float() if not given else weak


def _spaced(start, stop, num, endpoint, axis, dtype):
    wide = dtype if dtypes.is_inexact(dtype) else np.dtype(np.float64)
    a, b = cast(_operand(start), wide), cast(_operand(stop), wide)
    shape = np.broadcast_shapes(a.shape, b.shape)
    a, b = broadcast_to(a, shape), broadcast_to(b, shape)
    gaps = num - 1 if endpoint else num
    step = e.div(e.sub(b, a), wide.type(max(gaps, 1))) if gaps > 0 else e.mul(e.sub(b, a), wide.type(np.nan))
    full_shape = (num, *shape)
    dims = tuple(range(1, len(full_shape)))
    weight = (np.arange(num) / max(gaps, 1)).astype(wide)
    weight = broadcast_to(constant(weight, a).reshape((num, *[1] * len(shape))), full_shape)
    start_part = e.mul(e.broadcast_in_dim(a, full_shape, dims), e.sub(broadcast_to(wide.type(1), full_shape), weight))
    out = e.add(start_part, e.mul(e.broadcast_in_dim(b, full_shape, dims), weight))
    out = e.moveaxis(out, 0, normal_axis(axis, len(full_shape)))
    if not dtypes.is_inexact(dtype):
        out = e.floor(out)
    return cast(out, dtype), step


def _operand(value):
    return value if type(value) in (bool, int, float, complex) else _as_array(value)


implement(np.linspace)(linspace)


def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None, axis: int = 0
) -> Any:
    """`num` numbers from base**start to base**stop, evenly spaced on a logarithmic scale."""
    wanted = _range_dtype(dtype, start, stop)
    if not needs_tracing((start, stop, base)) and not is_staging():
        return constant(np.logspace(start, stop, num, endpoint, base, wanted, axis))
    exponents = linspace(start, stop, num, endpoint, dtype=wanted, axis=axis)
    return cast(np.power(base, exponents), wanted)


implement(np.logspace)(logspace)


def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> Any:
    """`num` numbers from start to stop in geometric progression."""
    wanted = _range_dtype(dtype, start, stop)
    if not needs_tracing((start, stop)) and not is_staging():
        return constant(np.geomspace(start, stop, num, endpoint, wanted, axis))
    start, stop = cast(_operand(start), wanted), cast(_operand(stop), wanted)
    sign = np.sign(start)
    logs = linspace(np.log(start * sign), np.log(stop * sign), num, endpoint, dtype=wanted, axis=axis)
    return np.exp(logs) * sign


implement(np.geomspace)(geomspace)

# --- matrices -----------------------------------------------------------------------------------------------------


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None, *, device: Any = None) -> Any:
    """The matrix with ones on the k-th diagonal."""
    rows, cols = sizes_of((N, N if M is None else M))
    dtype = default_dtype(dtype)
    if not is_staging():
        return array_module(device).eye(rows, cols, k, dtype=dtype)
    offset = e.sub(e.iota(_i64, (rows, cols), 1), e.iota(_i64, (rows, cols), 0))
    return e.convert(e.eq(offset, np.int64(k)), dtype)


def identity(n: int, dtype: Any = None, *, device: Any = None) -> Any:
    """The n x n identity matrix."""
    return eye(n, dtype=dtype, device=device)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = None, *, device: Any = None) -> Any:
    """The matrix with ones on and below the k-th diagonal."""
    rows, cols = sizes_of((N, N if M is None else M))
    dtype = default_dtype(dtype)
    if not is_staging():
        return array_module(device).tri(rows, cols, k, dtype=dtype)
    offset = e.sub(e.iota(_i64, (rows, cols), 1), e.iota(_i64, (rows, cols), 0))
    return e.convert(e.le(offset, np.int64(k)), dtype)


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """The matrix whose columns are powers of the vector x."""
    if not needs_tracing((x,)) and not is_staging():
        return np.vander(x, N, increasing)
    x = _as_array(x)
    n = x.shape[0] if N is None else N
    x = cast(x, _i64) if x.dtype.kind in "bi" else x
    powers = [e.reshape(e.integer_pow(x, i), (x.shape[0], 1)) for i in range(n)]
    return e.concatenate(powers if increasing else powers[::-1], 1)


implement(np.vander)(vander)


def meshgrid(
    *xi: Any, copy: bool = True, sparse: bool = False, indexing: Literal["xy", "ij"] = "xy"
) -> tuple[Any, ...]:
    """Coordinate arrays of the grid spanned by vectors."""
    if not needs_tracing(xi) and not is_staging():
        return np.meshgrid(*xi, copy=copy, sparse=sparse, indexing=indexing)
    if indexing not in ("xy", "ij"):
        raise ArgumentError("Valid values for `indexing` are 'xy' and 'ij'.")
    vectors = [_as_array(x) for x in xi]
    vectors = [e.reshape(v, (int(np.prod(v.shape)),)) for v in vectors]
    n = len(vectors)
    places = list(range(n))
    if indexing == "xy" and n > 1:
        places[:2] = [1, 0]
    shape = [1] * n
    for v, p in zip(vectors, places, strict=True):
        shape[p] = v.shape[0]
    if sparse:
        return tuple(
            e.reshape(v, tuple(v.shape[0] if i == p else 1 for i in range(n)))
            for v, p in zip(vectors, places, strict=True)
        )
    return tuple(e.broadcast_in_dim(v, tuple(shape), (p,)) for v, p in zip(vectors, places, strict=True))


implement(np.meshgrid)(meshgrid)


def indices(dimensions: Any, dtype: Any = int, sparse: bool = False) -> Any:
    """The index of each position of a grid, one array for each axis."""
    shape = sizes_of(dimensions)
    if not is_staging():
        return np.indices(shape, np.dtype(dtype), sparse)
    grids = [e.iota(np.dtype(dtype), shape, axis) for axis in range(len(shape))]
    if sparse:
        return tuple(
            e.iota(np.dtype(dtype), tuple(n if i == a else 1 for i in range(len(shape))), a)
            for a, n in enumerate(shape)
        )
    return e.concatenate([e.reshape(g, (1, *shape)) for g in grids], 0)


def fromfunction(function: Any, shape: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    """`function` of the index arrays of a grid of `shape`."""
    grids = indices(shape, dtype=default_dtype(dtype))
    return function(*[grids[i] for i in range(len(sizes_of(shape)))], **kwargs)


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """x with its elements converted to `dtype`."""
    x = _as_array(x)
    return e.convert(x, np.dtype(dtype))


implement(np.astype)(astype)

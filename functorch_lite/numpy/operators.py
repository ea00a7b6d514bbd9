# SPDX-License-Identifier: MIT
"""What a tracer does under Python's syntax: operators, indexing, conversion to a Python value, NumPy's protocols.

Importing the module installs these on `core.tracer.Tracer` (the one late binding of the library). `methods` adds the
attributes and methods of `numpy.ndarray`. An operator on operands that all stand for Python scalars gives a result
that does so too.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from functorch_lite.backends.registry import is_array
from functorch_lite.core.tracer import Tracer, argument_path, current_trace, raise_leak
from functorch_lite.errors import ArgumentTypeError, ConcretizationError, ImmutableError
from functorch_lite.numpy import contractions, indexing, ufuncs
from functorch_lite.numpy.dispatch import array_function
from functorch_lite.numpy.promotion import PYTHON_SCALARS
from functorch_lite.numpy.ufunc_methods import call_method
from functorch_lite.transforms.composites import ARRAYS, of_one, of_setting, of_two

_operands = (Tracer, np.ndarray, np.generic, bool, int, float, complex, list, tuple)

# --- arithmetic ---------------------------------------------------------------------------------------------------


def _is_weak(value: Any) -> bool:
    return type(value) in PYTHON_SCALARS or (isinstance(value, Tracer) and value.weak)


def _weakened(out: Any) -> Any:
    if isinstance(out, tuple):
        return tuple(_weakened(o) for o in out)
    if isinstance(out, Tracer):
        out.weak = True
        return out
    return out.item() if isinstance(out, (np.ndarray, np.generic)) else out


def _accepts(other: Any) -> bool:
    return isinstance(other, _operands) or is_array(other)


def _forward(body: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def operator(self, other):
        trace = current_trace()
        if trace.composites is not None:
            out = (of_two if type(other) in ARRAYS else of_setting)(trace, body, self, other)
            if out is not None:
                return out
        if not _accepts(other):
            return NotImplemented
        out = body(self, other)
        return _weakened(out) if self.weak and _is_weak(other) else out

    return operator


def _reflected(body: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def swapped(self, other):
        return body(other, self)

    def operator(self, other):
        trace = current_trace()
        if trace.composites is not None:
            if type(other) in ARRAYS:
                out = of_two(trace, body, other, self)
            else:
                out = of_setting(trace, swapped, self, other)
            if out is not None:
                return out
        if not _accepts(other):
            return NotImplemented
        out = body(other, self)
        return _weakened(out) if self.weak and _is_weak(other) else out

    return operator


def _unary(body: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def operator(self):
        trace = current_trace()
        if trace.composites is not None:
            out = of_one(trace, body, self)
            if out is not None:
                return out
        out = body(self)
        return _weakened(out) if self.weak else out

    return operator


def _power(x: Any, y: Any) -> Any:
    if type(y) is int and y < 0 and isinstance(x, Tracer) and x.weak and x.dtype.kind == "i":
        y = float(y)  # as Python's 2 ** -1
    return ufuncs.bodies[np.power](x, y)


def _pow(self, other, modulus=None):
    if modulus is not None:
        return NotImplemented
    return _forward(_power)(self, other)


_binary_operators = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "divmod": np.divmod,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}
_comparisons = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_unary_operators = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}

# --- Python values ------------------------------------------------------------------------------------------------


def _what(x: Tracer) -> str:
    run, path = repr(x.tag), argument_path(x)
    text = f"`{path}`, a traced {x.aval} inside {run}," if path else f"a traced {x.aval} inside {run}"
    if x.tag.transform == "vmap":
        return f"{text} has one value for each example, so it"
    return f"{text} gets its value only when the compiled program runs, so it"


_IF = (
    "cannot decide an `if`, `while`, `and`, `not` or `assert`. Use fl.lax.cond(pred, f, g, x) to choose a computation, "
    "fl.numpy.where(pred, a, b) to choose values"
)
_COUNT = (
    "cannot be a Python integer: a shape, a range() or the index of a plain NumPy array. "
    "A size must be known while tracing: "
    "take it from x.shape or {known}; "
    "for a loop use fl.lax.fori_loop, for an index fl.numpy.take(x, i, axis=0)"
)
_NUMBER = (
    "cannot become a Python value with {name}, nor be written into a NumPy array with a[i] = x. "
    "Leave it an array (0-d arrays work wherever numbers do; write fl.numpy.at(a)[i].set(x)), "
    "return it from the function, or {known}"
)
_STATIC = "mark the argument with jit(..., static_argnums=...)"
_UNMAPPED = "give the argument in_axes=None, so that it is the same for all examples"
_NUMPY = (
    "cannot become a NumPy array with np.array(x) or np.asarray(x). NumPy functions take traced arrays as they are "
    "(np.sin(x), np.stack([x, y])); in place of np.array([x, y]) write fl.numpy.array([x, y])"
)
_INDEX = ", in place of table[i] for a NumPy array write fl.numpy.take(table, i, axis=0)"


def _refuse(x: Tracer, why: str) -> ConcretizationError:
    if not x.tag.alive:
        raise_leak(x)
    known = _UNMAPPED if x.tag.transform == "vmap" else _STATIC
    return ConcretizationError(f"{_what(x)} {why.replace('{known}', known)}.")


def refuse_number(x: Tracer, name: str) -> ConcretizationError:
    """The error for a conversion of x to a Python value by `name`."""
    return _refuse(x, _NUMBER.replace("{name}", name))


def _to_bool(self):
    value = self.concrete()
    if value is None:
        raise _refuse(self, _IF)
    return bool(value)


def _to_index(self):
    value = self.concrete()
    if value is None:
        raise _refuse(self, _COUNT)
    return value.__index__()


def _to_int(self):
    value = self.concrete()
    if value is None:
        raise _refuse(self, _COUNT if self.dtype.kind in "iu" else _NUMBER.replace("{name}", "int(x)"))
    return int(value)


def _to_number(kind: type) -> Callable[[Any], Any]:
    def convert(self):
        value = self.concrete()
        if value is None:
            raise _refuse(self, _NUMBER.replace("{name}", f"{kind.__name__}(x)"))
        return kind(value)

    return convert


def _to_array(self, dtype=None, copy=None):
    value = self.concrete()
    if value is None:
        raise _refuse(self, _NUMPY + _INDEX if self.dtype.kind in "iu" else _NUMPY)
    raise ConcretizationError(
        f"a traced {self.aval} inside {self.tag!r} {_NUMPY}. The copy would have derivative zero: "
        "to read the value (to print or plot it) write np.asarray(fl.stop_gradient(x))."
    )


def _length(self):
    if not self.shape:
        raise ArgumentTypeError("len() of a traced array of rank 0: it has no axis to count.")
    return self.shape[0]


def _iterate(self) -> Iterator[Any]:
    if not self.shape:
        raise ArgumentTypeError("iteration over a traced array of rank 0: it has no axis. Use it as it is.")
    return iter([self[i] for i in range(self.shape[0])])


def _contains(self, value):
    return bool((self == value).any())


def _repr(self):
    value = self.concrete()
    head = f"Traced {self.aval} of {self.tag!r}"
    return head if value is None else f"{head}: {value}"


def _format(self, spec):
    value = self.concrete()
    return format(value, spec) if value is not None and spec else repr(self)


# --- assignment ---------------------------------------------------------------------------------------------------


def _set_item(self, index, value):
    raise ImmutableError(
        "a traced array cannot be assigned to in place: `x[i] = v`. Write `x = x.at[i].set(v)`; "
        "for `x[i] += v` write `x = x.at[i].add(v)`."
    )


def _del_item(self, index):
    raise ImmutableError("elements of an array cannot be deleted. Use numpy.delete(x, i).")


# --- installation -------------------------------------------------------------------------------------------------


def _install() -> None:
    for name, ufunc in _binary_operators.items():
        setattr(Tracer, f"__{name}__", _forward(ufuncs.bodies[ufunc]))
        setattr(Tracer, f"__r{name}__", _reflected(ufuncs.bodies[ufunc]))
    for name, ufunc in _comparisons.items():
        setattr(Tracer, f"__{name}__", _forward(ufuncs.bodies[ufunc]))
    for name, ufunc in _unary_operators.items():
        setattr(Tracer, f"__{name}__", _unary(ufuncs.bodies[ufunc]))
    members = {
        "__pow__": _pow,
        "__rpow__": _reflected(_power),
        "__matmul__": _forward(contractions.matmul_body),
        "__rmatmul__": _reflected(contractions.matmul_body),
        "__hash__": object.__hash__,
        "__getitem__": indexing.getitem,
        "__setitem__": _set_item,
        "__delitem__": _del_item,
        "__iter__": _iterate,
        "__len__": _length,
        "__contains__": _contains,
        "__bool__": _to_bool,
        "__index__": _to_index,
        "__int__": _to_int,
        "__float__": _to_number(float),
        "__complex__": _to_number(complex),
        "__array__": _to_array,
        "__repr__": _repr,
        "__format__": _format,
        "__array_ufunc__": call_method,
        "__array_function__": array_function,
        "__array_priority__": 1000,
    }
    for name, member in members.items():
        setattr(Tracer, name, member)


_install()

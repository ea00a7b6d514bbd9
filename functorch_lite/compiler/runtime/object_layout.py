# SPDX-License-Identifier: MIT
"""Whether objects of this Python and NumPy lie in memory as the native call path reads them (call_path_ir.py).

The tests read known objects and write nothing. NumPy's table of C functions is found here too.
"""

import ctypes
import math
import struct
import sys
import sysconfig
from typing import Any

import numpy as np
import numpy._core._multiarray_umath as _multiarray_umath

from functorch_lite.compiler.runtime import call_path_ir as ir
from functorch_lite.core import dtypes

API_ARRAY_TYPE, API_SCALAR, API_NEW_FROM_DESCR = 2, 60, 94  # places in NumPy's table of C functions, a stable ABI
_LOWEST_POINTER = 1 << 16  # smaller numbers are lengths and flags

_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def array_api() -> ctypes.Array[ctypes.c_size_t]:
    """NumPy's table of C functions and types, as addresses."""
    capsule: Any = _multiarray_umath._ARRAY_API
    return (ctypes.c_size_t * (API_NEW_FROM_DESCR + 1)).from_address(_capsule_pointer(capsule, None))


def layout_is_known() -> bool:
    """Whether objects of this Python and NumPy lie in memory as native code expects; nothing is written."""
    plain = (
        sys.implementation.name == "cpython"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and struct.calcsize("P") == 8
        and sys.byteorder == "little"
    )
    return plain and _containers_are_known() and _arrays_are_known() and array_api()[API_ARRAY_TYPE] == id(np.ndarray)


def donation_layout_is_known() -> bool:
    """Whether reference counts, bases and owners of memory lie where a call that takes over memory changes them."""
    whole = np.zeros(7)
    view = whole[1:]
    handler = _read(id(whole) + ir.ARRAY_HANDLER, "P")
    return (
        _read(id(whole) + ir.REFERENCES, "i") == sys.getrefcount(whole) - 1
        and _read(id(whole) + ir.ARRAY_BASE, "P") == 0
        and _read(id(view) + ir.ARRAY_BASE, "P") == id(whole)
        and [bool(_read(id(a) + ir.ARRAY_FLAGS, "i") & ir.OWNED) for a in (whole, view)] == [True, False]
        and _read(id(view) + ir.ARRAY_HANDLER, "P") == 0
        and handler > _LOWEST_POINTER
        and _read(handler + ir.TYPE, "P") == id(type(_multiarray_umath._ARRAY_API))
    )


def _read(address: int, code: str) -> Any:
    return struct.unpack(code, ctypes.string_at(address, struct.calcsize(code)))[0]


def _read_array(address: int, count: int) -> list[int] | None:
    """The words that the pointer at `address` points to; None where what lies there can be no pointer."""
    target = _read(address, "P")
    if target < _LOWEST_POINTER or target % 8:
        return None
    return [_read(target + 8 * i, "q") for i in range(count)]


def _containers_are_known() -> bool:
    items = [object(), object(), object()]
    pair, table = tuple(items), dict.fromkeys(items)
    return (
        all(_read(id(x) + ir.TYPE, "P") == id(type(x)) for x in (pair, items, table, 1.5, np.float32(1)))
        and all(_read(id(x) + ir.SIZE, "q") == len(x) for x in (pair, items, table, (), [], {}))
        and [_read(id(pair) + ir.TUPLE_ITEMS + 8 * i, "P") for i in range(3)] == [id(x) for x in items]
        and _read_array(id(items) + ir.LIST_ITEMS, 3) == [id(x) for x in items]
        and _read(id(math.pi) + ir.VALUE, "d") == math.pi
        and complex(*(_read(id(z) + ir.VALUE + i, "d") for z in [2 + 3j] for i in (0, 8))) == 2 + 3j
    )


def _arrays_are_known() -> bool:
    array = np.zeros((2, 3, 5), np.float32)
    unaligned = np.zeros(25, np.uint8)[1:].view(np.float64)
    read_only = np.zeros(3)
    read_only.flags.writeable = False
    known = (array, array.T, array[:, ::2], unaligned, read_only, np.zeros(()), np.zeros((0, 2), np.int8))
    swapped = np.dtype(np.float32).newbyteorder()
    kinds = (*(a.dtype for a in known), swapped, np.dtype(np.complex128), dtypes.bfloat16)
    return all(_array_is_known(a) for a in known) and all(
        _read(id(d) + ir.DTYPE_NUMBER, "i") == d.num and _read(id(d) + ir.DTYPE_ORDER, "c") == d.byteorder.encode()
        for d in kinds
    )


def _array_is_known(a: np.ndarray) -> bool:
    wanted = (a.flags.c_contiguous * 0x001) | (a.flags.aligned * 0x100)
    rank = _read(id(a) + ir.ARRAY_RANK, "i")
    return (
        _read(id(a) + ir.ARRAY_DATA, "P") == a.ctypes.data
        and rank == a.ndim
        and (rank == 0 or _read_array(id(a) + ir.ARRAY_LENGTHS, rank) == list(a.shape))
        and _read(id(a) + ir.ARRAY_DTYPE, "P") == id(a.dtype)
        and _read(id(a) + ir.ARRAY_FLAGS, "i") & ir.CONTIGUOUS_ALIGNED == wanted
    )

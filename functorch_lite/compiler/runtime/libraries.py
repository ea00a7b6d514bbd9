# SPDX-License-Identifier: MIT
"""BLAS and LAPACK for compiled programs: the functions behind SciPy's `cython_blas` and `cython_lapack`.

They are Fortran's: every argument goes by pointer, integers have 32 bits, matrices are column-major. `scipy_dpotrf` is
the name of LAPACK's dpotrf in a module. SciPy is imported when a program first needs one of them.
"""

import ctypes
import functools
import importlib
import re
from typing import Any

import numpy as np

PREFIXES = {"f": "s", "d": "d", "F": "c", "D": "z"}
"""The letter that a routine's name starts with, by the dtype's."""
_BLAS = {"trsm": "cccciittiti"}
_LAPACK = {
    "potrf": "citii", "getrf": "iitiii", "gesv": "iitiitii", "gelqf": "iitittii", "orglq": "iiitittii",
    "unglq": "iiitittii", "syevd": "ccitirtiiii", "heevd": "ccitirtiriiii", "sgeev": "ccititttititii",
    "dgeev": "ccititttititii", "cgeev": "ccitittititiri", "zgeev": "ccitittititiri", "sgesdd": "ciitirtititiii",
    "dgesdd": "ciitirtititiii", "cgesdd": "ciitirtititirii", "zgesdd": "ciitirtititirii",
}
_DECLARED = re.compile(r"^declare [^@\n]*@(scipy_\w+)\(", re.MULTILINE)
_ELEMENT = {"s": "s", "d": "d", "c": "float_complex", "z": "double_complex"}
_REAL = {"s": "s", "d": "d", "c": "s", "z": "d"}
_TYPES: dict[str, Any] = {
    "char": ctypes.c_uint8, "int": ctypes.c_int32, "s": ctypes.c_float, "d": ctypes.c_double
}


def symbol(dtype: np.dtype, routine: str) -> str:
    """The name in a module of a routine for matrices of this dtype: "potrf" for float64 is "scipy_dpotrf"."""
    return f"scipy_{PREFIXES[dtype.char]}{routine}"


def symbols(module: str) -> dict[str, int]:
    """The addresses of the library functions that an LLVM module declares."""
    if "@scipy_" not in module:  # most have none, and are long
        return {}
    return {name: address(name) for name in _DECLARED.findall(module)}


def _letters(name: str) -> str:
    table = _BLAS if name[1:] in _BLAS else _LAPACK
    found = table.get(name) or table.get(name[1:])
    if found is None:
        raise KeyError(f"no library function {name!r}")
    return found


@functools.cache
def _argument_types(name: str) -> list[str]:
    """The C types that a routine's arguments point to."""
    of = {"c": "char", "i": "int", "t": _ELEMENT[name[0]], "r": _REAL[name[0]]}
    return [of[letter] for letter in _letters(name)]


@functools.cache
def address(symbol: str) -> int:
    """The address of a library function. Raises RuntimeError where SciPy's has other arguments than we give it."""
    name = symbol.removeprefix("scipy_")
    expected = _argument_types(name)
    library = importlib.import_module("scipy.linalg.cython_" + ("blas" if name[1:] in _BLAS else "lapack"))
    capsule = library.__pyx_capi__[name]
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = get_name(capsule)
    found = [_plain_type(t) for t in re.findall(r"(\w+) \*", signature.decode())]
    if found != expected:
        raise RuntimeError(f"SciPy's {name} is {signature.decode()!r}; expected arguments of types {expected}.")
    return get_pointer(capsule, signature)


def _plain_type(text: str) -> str:
    text = text.removeprefix("__pyx_t_")
    return text[-1] if re.fullmatch(r"\w+cython_(blas|lapack)_[sd]", text) else text


def call(symbol: str, *args: Any) -> None:
    """Call a library function from Python: arrays as they are, numbers by pointer."""
    types = _argument_types(symbol.removeprefix("scipy_"))
    numbers = [None if isinstance(a, np.ndarray) else _TYPES[t](a) for a, t in zip(args, types, strict=True)]
    pointers = [a.ctypes.data if n is None else ctypes.addressof(n) for a, n in zip(args, numbers, strict=True)]
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers))(address(symbol))(*pointers)


@functools.cache
def workspace(symbol: str, *args: Any) -> tuple[int, ...]:
    """The sizes of working space a routine asks for, in the order of its arguments.

    args: its numbers, and None for each array, "work" for a work array, whose size, the next argument, is -1.
    """
    real = np.dtype("f4" if symbol[6] in "sc" else "f8")
    types = _argument_types(symbol.removeprefix("scipy_"))
    given: list[Any] = []
    works = []
    for arg, kind in zip(args, types, strict=True):
        if arg is None or arg == "work":
            array = np.zeros(2, np.int32 if kind == "int" else real)
            given.append(array)
            if arg == "work":
                works.append(array)
        else:
            given.append(arg)
    call(symbol, *given)
    return tuple(max(int(np.ceil(w[0])), 1) for w in works)

# SPDX-License-Identifier: MIT
"""Every error a user can meet, and the line of theirs that it names.

A message says what was expected, what came (argument name or pytree path, shape, dtype), and what to do; the class
adds the user's own source line. Nothing here knows about traces or arrays.
"""

import contextlib
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optree

_LIBRARIES = tuple(f"{Path(file).parent}/" for file in (__file__, np.__file__, str(optree.__file__)))
_PASSED_OVER = (*_LIBRARIES, contextlib.__file__, "<")


class Source(NamedTuple):
    """A line of user code: cheap to keep (a code object and a number), formatted only when it is shown."""

    filename: str
    lineno: int
    function: str

    def __str__(self):
        text = linecache.getline(self.filename, self.lineno).strip()
        where = f"{Path(self.filename).name}:{self.lineno} ({self.function})"
        return f"{where}: {text}" if text else where


_replays: dict[int, str] = {}  # by the identity of a code object: its hash would be computed anew each time
_passed: dict[int, Any] = {}  # code that is never the user's, by identity; kept, so that its number stays its own
GENERATED = "<program>"
"""The file name of code generated for a program; its globals hold SOURCES, the user's line for each of its lines."""


def replays(variable: str) -> Callable[[Any], Any]:
    """Decorator of a function that runs equations again: `variable`, its local, holds the one that stands for it."""

    def file(fun):
        _replays[id(fun.__code__)] = variable
        return fun

    return file


def user_source() -> Source | None:
    """The innermost line on the stack that is outside this package and the libraries it calls, or None.

    Where equations are run again, it is the line that the equation was written for.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if id(code) in _passed:
            frame = frame.f_back
            continue
        name = code.co_filename
        if not name.startswith(_PASSED_OVER):
            return Source(name, frame.f_lineno, code.co_name)
        if id(code) not in _replays and name.startswith(_LIBRARIES):
            _passed[id(code)] = code
        if id(code) in _replays:
            source = getattr(frame.f_locals.get(_replays[id(code)]), "source", None)
        else:
            source = frame.f_globals["SOURCES"][frame.f_lineno] if name == GENERATED else None
        if source is not None:
            return source
        frame = frame.f_back
    return None


class FunctorchLiteError(Exception):
    """Base of the library's errors: the message, and below it the user's line it is about."""

    def __init__(self, message: str, *, source: Source | None = None):
        self.message = message
        self.source = source if source is not None else user_source()
        line = f"\n  at {self.source}" if self.source is not None else ""
        super().__init__(message + line)


def add_place(error: BaseException, primitive: str, source: Source | None) -> None:
    """Note below an exception that is not ours which primitive raised it and for which line; the first note stays."""
    if source is not None and not any(n.startswith("  in `") for n in getattr(error, "__notes__", ())):
        error.add_note(f"  in `{primitive}` at {source}")


class ShapeError(FunctorchLiteError, ValueError):
    """Operand shapes do not fit the operation."""


class DTypeError(FunctorchLiteError, TypeError):
    """Operand dtypes do not fit the operation."""


class ArgumentError(FunctorchLiteError, ValueError):
    """An argument has the right type but a value that cannot be used."""


class ArgumentTypeError(FunctorchLiteError, TypeError):
    """An argument has a type that cannot be used."""


class TreeError(FunctorchLiteError, ValueError):
    """Two pytrees that must have the same structure differ."""


class ConcretizationError(FunctorchLiteError, TypeError):
    """Python asked for the value of an array that has none yet, because it is being staged or batched."""


class LeakedTracerError(FunctorchLiteError, RuntimeError):
    """A traced value was used after the transform that made it had ended."""


class ImmutableError(FunctorchLiteError, TypeError):
    """A traced array was assigned to in place."""


class NotLinearError(FunctorchLiteError, ValueError):
    """A function that must be linear in an argument is not."""


class MissingRuleError(FunctorchLiteError, NotImplementedError):
    """A primitive has no rule for what was asked of it."""


class AxisNameError(FunctorchLiteError, NameError):
    """A collective names an axis that no enclosing `vmap` binds."""


class DeviceError(FunctorchLiteError, ValueError):
    """Operands live on different devices, or the device asked for is not there."""


class DonationError(FunctorchLiteError, RuntimeError):
    """A buffer that was donated to a compiled call is used again, or twice in one call."""


class BoundsError(FunctorchLiteError, IndexError):
    """An index lies outside its axis."""


class KeyReuseError(FunctorchLiteError, ValueError):
    """A random key was used twice, while `config.check_key_reuse` is on."""


class MissingPackageError(FunctorchLiteError, ImportError):
    """An optional package is needed and not installed."""


class MiscompilationError(FunctorchLiteError, RuntimeError):
    """A compiled program gave something else than the evaluator: a bug of this library, found by verification."""


class PurityWarning(UserWarning):
    """A traced function behaved differently when it was traced twice."""


class RetraceWarning(UserWarning):
    """One function is wrapped by `jit` again and again, so that each call traces it anew."""


class PromotionWarning(UserWarning):
    """Operands none of which is float64 were promoted to float64."""

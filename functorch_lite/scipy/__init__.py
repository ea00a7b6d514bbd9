# SPDX-License-Identifier: MIT
"""SciPy's functions that have derivatives, on plain, CuPy's and traced arrays, in modules of SciPy's names."""

import importlib
from typing import TYPE_CHECKING

from functorch_lite.scipy import linalg as linalg
from functorch_lite.scipy import special as special
from functorch_lite.scipy import stats as stats

# Loaded when first used, as SciPy's own modules are by them.
_LAZY = frozenset(("fft", "integrate", "interpolate", "ndimage", "optimize", "signal"))

if TYPE_CHECKING:
    from functorch_lite.scipy import fft as fft
    from functorch_lite.scipy import integrate as integrate
    from functorch_lite.scipy import interpolate as interpolate
    from functorch_lite.scipy import ndimage as ndimage
    from functorch_lite.scipy import optimize as optimize
    from functorch_lite.scipy import signal as signal


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"functorch_lite.scipy.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LAZY})

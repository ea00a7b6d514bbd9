# SPDX-License-Identifier: MIT
"""What all file formats share: the error that names a file, and arrays as they are written."""

from typing import Any

import numpy as np

from functorch_lite.backends.registry import on_device
from functorch_lite.errors import FunctorchLiteError


class FileFormatError(FunctorchLiteError, ValueError):
    """A file is torn, or is no file of the format that was asked for; the message begins with its path."""


def on_host(value: Any) -> np.ndarray:
    """`value` as a NumPy array in host memory, a copy only where it lives on a device."""
    return value.get() if on_device(value) else np.asarray(value)

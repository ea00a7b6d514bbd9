# SPDX-License-Identifier: MIT
"""A stand-in for a GPU array library: enough of CuPy's shape for the registry to take its arrays for a GPU's."""

import sys
import types
from contextlib import contextmanager
from unittest import mock

import numpy as np

from functorch_lite.backends import registry


class ndarray:
    """An array on a device that only says what it is."""

    __array_priority__ = 100

    def __init__(self, value):
        self._value = np.asarray(value)
        self.shape, self.dtype, self.ndim, self.size = (
            self._value.shape, self._value.dtype, self._value.ndim, self._value.size
        )
        self.__cuda_array_interface__ = {}


@contextmanager
def on_gpu(value):
    """`value` as such an array, while a module named cupy stands in for CuPy."""
    module = types.ModuleType("cupy")
    module.ndarray = ndarray
    with (
        mock.patch.dict(sys.modules, {"cupy": module}),
        mock.patch.dict(registry._modules),
        mock.patch.object(registry, "_devices", []),
    ):
        yield ndarray(value)

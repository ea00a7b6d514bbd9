# SPDX-License-Identifier: MIT
"""Our own CUDA kernels on CuPy arrays: reads `kernels/cuda`, compiles a file once per device, launches.

CuPy is imported when the first CuPy array arrives, never before. Every launch goes to CuPy's current stream and returns
without waiting for the device.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functorch_lite.backends import nvrtc
from functorch_lite.errors import ArgumentError

KERNELS = Path(__file__).parents[2] / "kernels"

_THREADS = 256
# Blocks a multiprocessor: eight of 256 threads fill its 2048.
_BLOCKS_PER_PROCESSOR = 8

_UINT = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def kernel_source(name: str) -> str:
    """The text of `kernels/cuda/<name>`.

    *Raises* ArgumentError when the folder or the file is not there.
    """
    path = KERNELS / "cuda" / name
    if not path.is_file():
        raise ArgumentError(f"no kernel file {name!r} in {KERNELS / 'cuda'}. The folder `kernels` must lie beside the "
                            "package `functorch_lite`: install from a checkout with pip install -e.")
    return path.read_text(encoding="utf-8")


def compile_kernels(name: str, *, arch: str, major: int | None = None) -> nvrtc.Cubin:
    """`kernels/cuda/<name>` compiled for `arch` ("sm_90"), with CUDA `major`'s compiler or the newest there is."""
    headers = {"prelude.cuh": kernel_source("prelude.cuh")}
    return nvrtc.compile_cuda(kernel_source(name), arch=arch, name=name, headers=headers, major=major)


def threefry_bits_cupy(key: Any, shape: Sequence[int], bit_width: int) -> Any:
    """Random bits on the device of `key [..., 2]` (uint32): `[..., *shape]`, unsigned, of 8, 16, 32 or 64 bits.

    Equal bit for bit to `threefry.random_bits` on NumPy.
    """
    if bit_width not in _UINT:
        raise ArgumentError(f"threefry_bits_cupy: expected bit_width 8, 16, 32 or 64, got {bit_width}.")
    out_shape = tuple(key.shape[:-1]) + tuple(shape)
    return _threefry(f"fl_threefry_bits{bit_width}", key, math.prod(shape), out_shape, _UINT[bit_width])


def threefry_words_cupy(key: Any, shape: Sequence[int]) -> Any:
    """Both words of each hash on the device of `key [..., 2]`: new keys `[..., *shape, 2]`, uint32."""
    out_shape = tuple(key.shape[:-1]) + tuple(shape) + (2,)
    return _threefry("fl_threefry_words", key, math.prod(shape), out_shape, np.uint32)


def _threefry(kernel, key, size, out_shape, dtype):
    import cupy

    with key.device:
        keys = cupy.ascontiguousarray(key.reshape(-1, 2))
        out = cupy.empty(out_shape, dtype)
        n_keys = keys.shape[0]
        if n_keys * size:
            function = _functions(key.device.id, "threefry.cu", kernel)
            arguments = (keys, out, np.uint64(n_keys), np.uint64(size))
            function(_grid(key.device, n_keys * size), (_THREADS,), arguments)
        return out


def _grid(device, n):
    """Enough blocks to fill the device; the kernels' grid-stride loops do the rest."""
    most = device.attributes["MultiProcessorCount"] * _BLOCKS_PER_PROCESSOR
    return (min(-(-n // _THREADS), most),)


@functools.cache
def _functions(device_id: int, name: str, kernel: str) -> Any:
    return _module(device_id, name).get_function(kernel)


@functools.cache
def _module(device_id: int, name: str) -> Any:
    """The compiled file, loaded in the context of the device, which must be current."""
    import cupy

    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    arch = f"sm_{cupy.cuda.Device(device_id).compute_capability}"
    module = cupy.cuda.function.Module()
    module.load(compile_kernels(name, arch=arch, major=major).code)
    return module

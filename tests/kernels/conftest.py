# SPDX-License-Identifier: MIT
"""Compiles CUDA sources with g++ and kernels/cpu_shim, and launches their kernels on the CPU."""

import ctypes
import mmap
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
FLAGS = ("-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread")


class CpuKernels:
    """The exported kernels of one source; calling one launches it and raises what the shim reports."""

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))
        self._library.fl_last_error.restype = ctypes.c_char_p

    def launch(self, name, grid, block, *arguments, shared_bytes=0, order=0, seed=0, workers=1):
        """Run kernel `name`; `order` is that of the threads: 0 ascending, 1 descending, 2 shuffled."""
        values = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.pointer(v), ctypes.c_void_p) for v in values))
        dims = [(ctypes.c_uint * 3)(*(*d, 1, 1, 1)[:3]) for d in (grid, block)]
        failed = getattr(self._library, f"fl_launch_{name}")(
            pointers, *dims, ctypes.c_size_t(shared_bytes), order, seed, workers)
        if failed:
            raise RuntimeError(self._library.fl_last_error().decode())


def guarded(array):
    """A copy that ends (up to 16-byte alignment) at a protected page: a kernel that writes past it faults."""
    n_bytes = (array.nbytes + 15) // 16 * 16
    n_pages = -(-n_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, n_pages + mmap.PAGESIZE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + n_pages), mmap.PAGESIZE, 0) == 0
    copy = np.frombuffer(memory, np.uint8, array.nbytes, n_pages - n_bytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.fixture(scope="session")
def compile_on_cpu(tmp_path_factory):
    """A function from a CUDA source (a path, or the text of one) to its `CpuKernels`."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++: kernels cannot run on the CPU")

    def compile_source(source):
        folder = tmp_path_factory.mktemp("kernels")
        if not isinstance(source, Path):
            source, text = folder / "kernel.cu", source
            source.write_text(text)
        library = folder / "kernel.so"
        includes = (f"-I{KERNELS / 'cuda'}", f"-I{KERNELS / 'cpu_shim'}")
        subprocess.run([compiler, *FLAGS, *includes, "-x", "c++", source, "-o", library], check=True)
        return CpuKernels(library)

    return compile_source


@pytest.fixture(name="guarded")
def guarded_fixture():
    """The function `guarded`: arrays that fault when a kernel runs past their end."""
    return guarded

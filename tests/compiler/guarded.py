# SPDX-License-Identifier: MIT
"""Arrays next to memory that must not be touched: a page that faults on one side, watched bytes on the other."""

import ctypes
import mmap

import numpy as np

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0
_FILLER = 0xA5
_libc = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """An array at the very end (or the very start) of pages between two pages that no code may read or write."""

    def __init__(self, size: int, dtype: np.dtype, at_end: bool):
        nbytes = size * dtype.itemsize
        inner = max(_PAGE, -(-nbytes // _PAGE) * _PAGE)
        self._map = mmap.mmap(-1, inner + 2 * _PAGE)
        self._whole = np.frombuffer(self._map, np.uint8)
        self._inner = self._whole[_PAGE : _PAGE + inner]
        self._inner[:] = _FILLER
        start = inner - nbytes if at_end else 0
        self.array = self._inner[start : start + nbytes].view(dtype)
        self._others = self._inner[:start] if at_end else self._inner[nbytes:]
        for page in (self._whole.ctypes.data, self._whole.ctypes.data + _PAGE + inner):
            failed = _libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), _PROT_NONE)
            assert not failed, f"mprotect: error {ctypes.get_errno()}"

    def untouched(self) -> bool:
        """Whether the bytes beside the array are what they were."""
        return bool(np.all(self._others == _FILLER))

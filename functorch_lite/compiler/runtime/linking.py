# SPDX-License-Identifier: MIT
"""A small linker: puts object files of ELF for x86-64 into memory without LLVM, as far as it knows what is in them.

Linking is all that a program found on disk needs of a compiler, and to import LLVM takes longer than the rest of its
first call. The compiler's objects have few kinds of sections and of relocations. Where there is another, `link` returns
None, and LLVM's linker, which knows all, has to do it (engine.py).

An image is the sections that are only read, then a stub for each symbol from outside, then, on pages of its own, what
is written. A stub is a jump through the word behind it: calls go to the jump, and who wants the address reads the word.
Of a module that was made in pieces each has such pages, one after the other, and is outside of the others.

Source: Tool Interface Standard, ELF specification 1.2; System V ABI, AMD64 supplement, section 4.4 (relocation types).
"""

import ctypes
import functools
import itertools
import mmap
import platform
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from functorch_lite.compiler.codegen.x86.assembler import MAGIC, entries
from functorch_lite.compiler.runtime.pieces import parts_of

_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_X86_64 = 62
_PROGBITS, _SYMTAB, _RELA, _NOBITS, _UNWIND = 1, 2, 4, 8, 0x70000001  # types of sections
_WRITE, _ALLOC, _THREAD_LOCAL = 1, 2, 0x400  # their flags
_ADDRESS, _RELATIVE, _CALL, _SLOTS = 1, 2, 4, (9, 41, 42)  # relocation types: 64, PC32, PLT32, GOTPCREL and relaxed
_STUB = b"\xff\x25\x02\x00\x00\x00\x66\x90"  # jmp [rip + 2]; then the address
_STUB_BYTES = 16


class _Unknown(Exception):
    """Something in an object file that this linker does not know."""


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class _Symbol(NamedTuple):
    name: bytes
    section: int
    value: int
    is_local: bool


class Image:
    """Native code in memory, for as long as this object lives."""

    __slots__ = ("_size", "_start", "addresses")

    def __init__(self, start: int, size: int, addresses: dict[str, int]):
        self._start, self._size = start, size
        self.addresses = addresses

    def __del__(self, ends=sys.is_finalizing):
        if not ends():  # else threads may still be in it
            _memory().free(self._start, self._size)


def link(data: bytes, names: Sequence[str], symbols: Mapping[str, int]) -> Image | None:
    """The functions `names` of an object file in memory; None where this linker does not know how.

    symbols: addresses of what the object has from outside and the process does not.
    """
    if not is_for_this_platform():
        return None
    if data.startswith(MAGIC):
        return _plain_image(data, names)
    try:
        return _image([_Linking(part) for part in parts_of(data)], names, symbols)
    except _Unknown:
        return None


@functools.cache
def is_for_this_platform() -> bool:
    """Whether objects made on this machine are such as this linker may know."""
    return sys.platform.startswith("linux") and platform.machine() == "x86_64" and struct.calcsize("P") == 8


class _Memory(NamedTuple):
    take: Callable[..., int | None]
    free: Callable[[int, int], int]
    protect: Callable[[int, int, int], int]


@functools.cache
def _memory() -> _Memory:
    """The functions mmap, munmap and mprotect of the C library."""
    process = ctypes.CDLL(None)
    take = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                            ctypes.c_int, ctypes.c_long)(("mmap", process))  # fmt: skip
    free = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)(("munmap", process))
    protect = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)(("mprotect", process))
    return _Memory(take, free, protect)


@functools.cache
def _address_in_process(name: str) -> int:
    try:
        return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0
    except AttributeError:
        raise _Unknown from None


def _plain_image(data: bytes, names: Sequence[str]) -> Image:
    """Code that needs nothing from outside, as the assembler makes it."""
    offsets, code = entries(data)
    memory, size = _memory(), _aligned(len(code), mmap.PAGESIZE)
    start = _taken(size)
    ctypes.memmove(start, code, len(code))
    if memory.protect(start, size, mmap.PROT_READ | mmap.PROT_EXEC):
        memory.free(start, size)
        raise MemoryError("memory for compiled code cannot be made executable.")
    return Image(start, size, {name: start + offsets[name] for name in names})


def _taken(size: int) -> int:
    """The address of so many new bytes, whole pages."""
    start = _memory().take(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if start is None or start == ctypes.c_void_p(-1).value:
        raise MemoryError("there is no memory for compiled code.")
    return start


def _image(pieces: Sequence["_Linking"], names: Sequence[str], symbols: Mapping[str, int]) -> Image:
    """Put the pieces of a module into memory, one behind the other."""
    memory = _memory()
    size = sum(piece.size for piece in pieces)
    start = _taken(size)
    try:
        starts = list(itertools.accumulate((piece.size for piece in pieces), initial=start))
        known: dict[str, int] = {}
        for piece, at in zip(pieces, starts, strict=False):
            known |= piece.functions(at)
        for piece, at in zip(pieces, starts, strict=False):
            piece.put(at, {**symbols, **known} if len(pieces) > 1 else symbols)
        return Image(start, size, {name: known[name] for name in names})
    except BaseException:
        memory.free(start, size)
        raise


class _Linking:
    """One object file on its way into memory. size: of its image, whole pages."""

    def __init__(self, data: bytes):
        self._data = data
        self._given: Mapping[str, int] = {}
        magic, width, order, kind, machine, *_, start, _, _, _, _, size, count, _ = _HEADER.unpack_from(data)
        if (magic, width, order, kind, machine, size) != (b"\x7fELF", 2, 1, 1, _X86_64, _SECTION.size):
            raise _Unknown
        self._sections = [_Section(*_SECTION.unpack_from(data, start + i * size)) for i in range(count)]
        self._symbols = self._read_symbols()
        self._relocations = self._read_relocations()
        self._places, self._stubs, self._read_bytes, self.size = self._layout()

    def _read_symbols(self) -> list[_Symbol]:
        tables = [s for s in self._sections if s.type == _SYMTAB]
        if len(tables) != 1:
            raise _Unknown
        table, names = tables[0], self._sections[tables[0].link]
        entries = _SYMBOL.iter_unpack(self._data[table.offset : table.offset + table.size])
        text = self._data[names.offset : names.offset + names.size]
        return [_Symbol(text[name : text.index(b"\0", name)], section, value, not info >> 4)
                for name, info, _, section, value, _ in entries]  # fmt: skip

    def _read_relocations(self) -> list[tuple[int, int, int, int, int]]:
        """Section, place in it, type, number of the symbol and addend."""
        found = []
        for s in self._sections:
            if s.type == _RELA and self._is_placed(self._sections[s.info]):
                for place, info, addend in _RELOCATION.iter_unpack(self._data[s.offset : s.offset + s.size]):
                    found.append((s.info, place, info & 0xFFFFFFFF, info >> 32, addend))
        return found

    def _is_placed(self, section: _Section) -> bool:
        if not section.flags & _ALLOC or section.type == _UNWIND or not section.size:
            return False
        if section.type not in (_PROGBITS, _NOBITS) or section.flags & _THREAD_LOCAL:
            raise _Unknown
        return True

    def functions(self, start: int) -> dict[str, int]:
        """What others may call of an image that begins at `start`."""
        return {s.name.decode(): start + self._places[s.section] + s.value
                for s in self._symbols if s.name and s.section in self._places and not s.is_local}  # fmt: skip

    def put(self, start: int, given: Mapping[str, int]) -> None:
        """Write the image to `start`. given: addresses of symbols from outside."""
        self._given = given
        content = self._content(start, self._places, self._stubs, self.size)
        ctypes.memmove(start, bytes(content), self.size)
        if _memory().protect(start, self._read_bytes, mmap.PROT_READ | mmap.PROT_EXEC):
            raise _Unknown

    def _layout(self) -> tuple[dict[int, int], dict[int, int], int, int]:
        """Where sections begin, where stubs of symbols do, the bytes that are only read, and all bytes."""
        places: dict[int, int] = {}
        numbers = [i for i, s in enumerate(self._sections) if self._is_placed(s)]
        end = self._place([i for i in numbers if not self._sections[i].flags & _WRITE], 0, places)
        wanted = dict.fromkeys(number for _, _, kind, number, _ in self._relocations
                               if kind in _SLOTS or (kind == _CALL and not self._symbols[number].section))  # fmt: skip
        end = _aligned(end, _STUB_BYTES)
        stubs = {number: end + k * _STUB_BYTES for k, number in enumerate(wanted)}
        read = _aligned(end + len(stubs) * _STUB_BYTES, mmap.PAGESIZE)
        end = self._place([i for i in numbers if self._sections[i].flags & _WRITE], read, places)
        return places, stubs, read, _aligned(end, mmap.PAGESIZE)

    def _place(self, numbers: list[int], end: int, places: dict[int, int]) -> int:
        for i in numbers:
            places[i] = _aligned(end, max(self._sections[i].alignment, 1))
            end = places[i] + self._sections[i].size
        return end

    def _content(self, start: int, places: dict[int, int], stubs: dict[int, int], size: int) -> bytearray:
        content = bytearray(size)
        for i, place in places.items():
            s = self._sections[i]
            if s.type == _PROGBITS:
                content[place : place + s.size] = self._data[s.offset : s.offset + s.size]
        for number, place in stubs.items():
            content[place : place + _STUB_BYTES] = _STUB + self._address(number, start, places).to_bytes(8, "little")
        for section, place, kind, number, addend in self._relocations:
            at = places[section] + place
            if kind == _ADDRESS:
                struct.pack_into("<Q", content, at, self._address(number, start, places) + addend)
                continue
            if kind in (_RELATIVE, _CALL) and self._symbols[number].section:
                target = self._address(number, start, places)
            elif kind in _SLOTS:
                target = start + stubs[number] + len(_STUB)
            elif kind == _CALL:
                target = start + stubs[number]
            else:
                raise _Unknown
            struct.pack_into("<i", content, at, target + addend - start - at)
        return content

    def _address(self, number: int, start: int, places: dict[int, int]) -> int:
        symbol = self._symbols[number]
        if symbol.section in places:
            return start + places[symbol.section] + symbol.value
        if symbol.section:
            raise _Unknown
        name = symbol.name.decode()
        return self._given[name] if name in self._given else _address_in_process(name)


def _aligned(number: int, to: int) -> int:
    return -(-number // to) * to

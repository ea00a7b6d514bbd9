# SPDX-License-Identifier: MIT
"""The types of LLVM text that the assembler knows, and constants of them as bytes."""

import itertools
import re
import struct
from typing import NamedTuple

from functorch_lite.compiler.codegen.x86.reading import SIZES, Unknown

_SPLAT = re.compile(r"splat \(\w+ ([-\w]+)\)")
_ALIKE = re.compile(r"<(\d+) x (\w+)> splat \(\w+ ([-\w]+)\)")
_LISTED = re.compile(r"[<\[](\d+) x (\w+)[>\]] [<\[](.*)[>\]]")
_WHOLE = re.compile(r"-?\d+")
_FLOATS = ("float", "double")


class Kind(NamedTuple):
    """A type. where: the registers of its values, "g" of integers, "v" of vectors, "k" of masks.

    element, lanes, bytes: of its numbers. length: 0, 1, 2 for vectors of up to 16, 32, 64 bytes. prefix, w: what
    instructions on its numbers have in their encoding.
    """

    where: str
    element: str
    lanes: int
    bytes: int
    length: int
    prefix: int
    w: int
    is_float: bool


def _kinds() -> dict[str, Kind]:
    found = {n: Kind("g", n, 1, SIZES[n], 0, 0, SIZES[n] == 8, False) for n in ("ptr", "i64", "i32", "i16")}
    for name, prefix, w in (("float", 2, 0), ("double", 3, 1)):
        found[name] = Kind("v", name, 1, SIZES[name], 0, prefix, w, True)
    for lanes, name in itertools.product((2, 4, 8, 16), (*_FLOATS, "i32", "i64")):
        size, w, floats = lanes * SIZES[name], int(SIZES[name] == 8), name in _FLOATS
        if 8 <= size <= 64:
            length = {64: 2, 32: 1}.get(size, 0)
            found[f"<{lanes} x {name}>"] = Kind("v", name, lanes, size, length, w if floats else 1, w, floats)
    return found


KINDS = _kinds()


def kind_of(name: str) -> Kind:
    """The type of this name. Raises Unknown."""
    found = KINDS.get(name)
    if found is None:
        raise Unknown
    return found


def operands(text: str) -> tuple[Kind, str, str]:
    """The type and the two operands of `<type> <a>, <b>`."""
    of, _, rest = text.partition("> ") if text[0] == "<" else text.partition(" ")
    if rest[0] == "<":
        a, _, b = rest.partition(">, ")
        a += ">"
    else:
        a, _, b = rest.partition(", ")
    return kind_of(f"{of}>" if text[0] == "<" else of), a, b


def typed(text: str) -> tuple[str, str]:
    """The type and the operand of `<type> <operand>`."""
    if text[0] != "<":
        of, _, value = text.partition(" ")
        return of, value
    end = text.index(">") + 1
    return text[:end], text[end + 1 :]


def lane(text: str, kind: Kind) -> bytes:
    """One lane of a constant, all of whose lanes are alike."""
    if text == "zeroinitializer":
        return bytes(SIZES[kind.element])
    found = _SPLAT.fullmatch(text)
    if (found is None) != (kind.lanes == 1):
        raise Unknown
    return number(kind.element, found[1] if found else text)


def content(text: str) -> bytes:
    """The bytes of a constant in memory: `<type> splat (...)`, `<type> <list>` or `<type> [list]`."""
    alike = _ALIKE.fullmatch(text)
    if alike:
        return number(alike[2], alike[3]) * int(alike[1])
    listed = _LISTED.fullmatch(text)
    parts = [part.split(" ") for part in listed[3].split(", ")] if listed else []
    if listed is None or len(parts) != int(listed[1]) or any(len(p) != 2 or p[0] != listed[2] for p in parts):
        raise Unknown
    return b"".join([number(*part) for part in parts])


def number(kind: str, text: str) -> bytes:
    """The bytes of a number as LLVM writes it: floating-point ones as the bits of a double."""
    if kind not in _FLOATS:
        if kind not in SIZES or not _WHOLE.fullmatch(text):
            raise Unknown
        return (int(text) & (1 << 8 * SIZES[kind]) - 1).to_bytes(SIZES[kind], "little")
    if not (text.startswith("0x") and len(text) == 18):
        raise Unknown
    bits = int(text, 16).to_bytes(8, "little")
    if kind == "double":
        return bits
    (value,) = struct.unpack("<d", bits)
    if value != value:  # struct may change the bits of a NaN
        raise Unknown
    return struct.pack("<f", value)

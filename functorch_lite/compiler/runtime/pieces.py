# SPDX-License-Identifier: MIT
"""A long LLVM module in pieces, which several processors make code of at the same time, at levels of their own.

Code generation is most of a first call, and functions need nothing of one another for it. They are dealt out by their
lengths; one that another piece calls is no longer internal, and is declared there. A short function that calls none,
such as a sine that many kernels share, is in each piece that calls it. The object files of all pieces, one after the
other, are what is kept and linked.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LEAST = 400
"""Lines of a piece: to make code of them takes some milliseconds, and to begin another piece less than one."""
SHARED = 100
"""Lines of a function that may be in several pieces."""
HOT = "#1"
"""The attributes of functions that are made well in a module whose others are not (codegen/llvm/levels.py)."""
FORMAT = 1
"""Of joined object files: those of another format are not read."""
_MAGIC = b"functorch_lite pieces %d\n" % FORMAT
_HEAD = re.compile(r'define (internal )?([^@\n]*)@("[^"\n]+"|[-\w.$]+)(\([^\n]*?\)) *(#\d+ )?\{')
_NAMES = re.compile(r'@("[^"\n]+"|[-\w.$]+)')
_SPLIT = re.compile(r"^@[^\n]* = (?!private unnamed_addr constant |external )", re.MULTILINE)


class _Function(NamedTuple):
    text: str
    head: str  # as it is declared
    uses: frozenset[str]
    lines: int
    internal: bool
    hot: bool


class Piece(NamedTuple):
    """A module. hot: whether it is made well; None as all of what it is a piece of."""

    text: str
    hot: bool | None


def cut(ir_text: str, number: int) -> list[Piece]:
    """The module as at most so many modules of one level, of nearly equal lengths; as it is where that is no gain."""
    mixed = f"\nattributes {HOT} =" in ir_text
    most = min(number, ir_text.count("\n") // LEAST)
    if most < 2 and not mixed:
        return [Piece(ir_text, None)]
    functions, rest = _functions_of(ir_text)
    if functions is None or _SPLIT.search(rest):
        return [Piece(ir_text, None)]
    return _Cut(functions, rest).modules(number, mixed)


def _functions_of(ir_text: str) -> tuple[dict[str, _Function] | None, str]:
    """The functions by name, None if one is written otherwise than ours are; and what is around them."""
    found: dict[str, _Function] = {}
    *chunks, last = ir_text.split("\n}\n")
    rest = []
    for chunk in chunks:
        before, define, after = f"\n{chunk}".partition("\ndefine ")
        text = f"define {after}\n}}\n"
        head = _HEAD.match(text)
        if not define or head is None:
            return None, ""
        internal, result, name, given, attributes = head.groups()
        uses, hot = frozenset(_NAMES.findall(text)) - {name}, attributes == f"{HOT} "
        found[name] = _Function(text, f"{result}@{name}{given}", uses, text.count("\n"), internal is not None, hot)
        rest.append(before)
    return found, "\n".join([*rest, last])


class _Cut:
    """The functions of a module and the lines around them, on the way into pieces."""

    def __init__(self, functions: Mapping[str, _Function], rest: str):
        self._functions = functions
        self._everywhere: list[str] = []
        self._named: dict[str, str] = {}  # declarations and constants
        for line in rest.splitlines():
            name = _NAMES.search(line) if line.startswith(("declare", "@")) else None
            if name is not None:
                self._named[name[1]] = line
            elif line:
                self._everywhere.append(line)

    def modules(self, number: int, mixed: bool) -> list[Piece]:
        """The pieces, at most so many of each level."""
        users = Counter(name for f in self._functions.values() for name in f.uses)
        copied = {name for name, f in self._functions.items() if users[name] > 1 and self._may_be_copied(f)}
        left = [name for name in self._functions if name not in copied]
        levels = [[name for name in left if self._functions[name].hot == hot] for hot in (True, False)]
        dealt = [(names, hot if mixed else None) for hot, level in zip((True, False), levels, strict=True)
                 for names in self._dealt(level, number)]  # fmt: skip
        needs = [self._needs(names) for names, _ in dealt]
        called = {name for (names, _), all_ in zip(dealt, needs, strict=True) for name in all_ - {*names} - copied}
        return [Piece(self._module(names, all_, copied, called), hot)
                for (names, hot), all_ in zip(dealt, needs, strict=True)]  # fmt: skip

    def _may_be_copied(self, f: _Function) -> bool:
        return f.internal and f.lines <= SHARED and not f.uses & self._functions.keys()

    def _dealt(self, names: Sequence[str], number: int) -> list[list[str]]:
        """The names of each piece: the longest function first, each to the piece that is shortest so far."""
        lines = {name: self._functions[name].lines for name in names}
        most = max(min(number, sum(lines.values()) // LEAST), 1)
        pieces: list[list[str]] = [[] for _ in range(most)]
        sizes = [0] * most
        for name in sorted(names, key=lines.__getitem__, reverse=True):
            k = sizes.index(min(sizes))
            pieces[k].append(name)
            sizes[k] += lines[name]
        return [piece for piece in pieces if piece]

    def _needs(self, names: Sequence[str]) -> set[str]:
        """All that the functions of a piece name, and what that names in turn."""
        found: set[str] = set(names)
        left = list(names)
        while left:
            name = left.pop()
            if name in self._functions:
                uses = self._functions[name].uses if name in names or self._may_be_copied(self._functions[name]) else ()
            else:
                uses = _NAMES.findall(self._named.get(name, ""))
            new = set(uses) - found
            found |= new
            left += new
        return found

    def _module(self, names: Sequence[str], needs: set[str], copied: set[str], called: set[str]) -> str:
        own = [n for n in self._functions if n in needs and (n in copied or n in names)]
        declared = [f"declare {self._functions[n].head}" for n in self._functions if n in needs and n not in own]
        texts = [self._open(n) if n in called else self._functions[n].text for n in own]
        return "\n".join([*(line for n, line in self._named.items() if n in needs), *declared, *texts,
                          *self._everywhere, ""])  # fmt: skip

    def _open(self, name: str) -> str:
        """The text of a function that other pieces call."""
        return self._functions[name].text.replace("define internal ", "define ", 1)


def joined(objects: Sequence[bytes]) -> bytes:
    """Object files as one: a single one as it is."""
    if len(objects) == 1:
        return objects[0]
    return _MAGIC + b"".join(len(data).to_bytes(8, "little") + data for data in objects)


def parts_of(data: bytes) -> list[bytes]:
    """The object files that `joined` joined."""
    if not data.startswith(_MAGIC):
        return [data]
    found, at = [], len(_MAGIC)
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        found.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return found

# SPDX-License-Identifier: MIT
"""Functions of LLVM text, as far as the assembler knows what is in them: statements, and how long values live.

A value lives from its definition to its last use in the order of the text, and through each loop that it is used in
and not defined in. A phi lives from the first jump to it. Addresses a constant away from another, comparisons of
integers and bits seen as another type are no instructions: who uses them uses what they are of.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_NAME = re.compile(r"%[-\w.]+")
_LABEL = re.compile(r"label (%[-\w.]+)")
_PHI = re.compile(r"\[([^,\]]+), (%[-\w.]+)\]")
_FIXED = re.compile(r"(?:\[(\d+) x (\w+)\]|(\w+)), ptr (%[-\w.]+), i64 (-?\d+)")
_OTHER = {
    "insertelement": re.compile(r"<\d+ x (?:float|double|i32|i64)> poison, \w+ (%[-\w.]+), i64 0"),
    "bitcast": re.compile(r"<\d+ x (?:float|double|i32|i64)> (%[-\w.]+) to <\d+ x (?:float|double|i32|i64)>"),
    "trunc": re.compile(r"i64 (%[-\w.]+) to i32"),
}
_HEAD = re.compile(r"define (internal )?(?:i32|void) @([-\w.]+)\(((?:(?:ptr|i64) %[-\w.]+(?:, )?)*)\)(?: #\d+)? \{")
SIZES = {"float": 4, "double": 8, "i32": 4, "i64": 8, "ptr": 8, "i8": 1, "i16": 2}


class Unknown(Exception):
    """Something in a module that the assembler does not know."""


class Edge(NamedTuple):
    """A value that a phi of a block takes when a jump goes there."""

    phi: str
    type: str
    value: str
    block: str


class Reading:
    """One function. statements: (result, "" if there is none; operation; what follows it).

    first: the number of the statement that defines a value. ends: the values whose last use is in a statement. read:
    the last number at which a phi is read. same: what a name stands for, a value and bytes to add. comparisons: of
    integers. labels: by number. edges: by the number of the jump.
    """

    def __init__(self, name: str, parameters: Sequence[str], internal: bool, lines: Sequence[str]):
        self.name, self.parameters, self.internal = name, parameters, internal
        self.statements: list[tuple[str, str, str]] = []
        self.labels: dict[int, list[str]] = {}
        self.same: dict[str, tuple[str, int]] = {}
        self.comparisons: dict[str, str] = {}
        self.first: dict[str, int] = dict.fromkeys(parameters, -1)
        self.last: dict[str, int] = {}
        self.read: dict[str, int] = {}
        self.edges: dict[int, list[Edge]] = {}
        self.ends: dict[int, list[str]] = {}
        self._roots: dict[str, Sequence[str]] = {}
        self._at: dict[str, int] = {}
        self._jumps: dict[str, int] = {}  # at the ends of blocks
        self._loops: list[tuple[int, int]] = []
        self._phis: list[tuple[Edge, str]] = []
        block = ""
        for line in lines:
            if line.startswith("  "):
                self._statement(line, block)
            elif line.endswith(":"):
                block = f"%{line[:-1]}"
                self._at[block] = number = len(self.statements)
                self.labels.setdefault(number, []).append(block)
            elif line:
                raise Unknown
        self._live()

    def _statement(self, line: str, block: str) -> None:
        number = len(self.statements)
        before, equals, after = line.partition(" = ")
        result, text = (before[2:], after) if equals else ("", before[2:])
        operation, _, rest = text.partition(" ")
        used: Sequence[str] = ()
        if operation == "phi":
            kind = rest[: rest.index(" [")]
            self._phis += [(Edge(result, kind, value, block), at) for value, at in _PHI.findall(rest)]
        elif operation == "br":
            self._jump(number, block, rest)
            used = self._used(rest.partition("label")[0])
        else:
            used = self._used(rest)
        if result:
            self.first[result] = number
            if operation in _SILENT and self._stands_for(result, operation, rest, used):
                return
        last = self.last
        for name in used:
            last[name] = number
        self.statements.append((result, operation, rest))

    def _jump(self, number: int, block: str, rest: str) -> None:
        self._jumps[block] = number
        self._loops += [(self._at[t], number) for t in _LABEL.findall(rest) if t in self._at]

    def _used(self, text: str) -> Sequence[str]:
        """The values that the names in a text stand for."""
        names, roots = _NAME.findall(text), self._roots
        if roots.keys().isdisjoint(names):
            return names
        return [root for name in names for root in roots.get(name, (name,))]

    def _stands_for(self, result: str, operation: str, rest: str, used: Sequence[str]) -> bool:
        """Note what a name stands for, if it is made by no instruction."""
        if operation == "getelementptr":
            found = _FIXED.fullmatch(rest)
            if found is None:
                return False
            many, of, plain, base, index = found.groups()
            value, offset = self.same.get(base, (base, 0))
            self.same[result] = value, offset + int(many or 1) * SIZES[of or plain] * int(index)
        elif operation == "icmp":
            if "<" in rest:
                return False
            self.comparisons[result] = rest
        else:
            found = _OTHER[operation].fullmatch(rest)
            if found is None:
                return False
            self.same[result] = self.same.get(found[1], (found[1], 0))
        self._roots[result] = used
        return True

    def _live(self) -> None:
        """Find where values end, once it is known what phis take."""
        last, jumps = self.last, self._jumps
        for edge, block in self._phis:
            for name in self._used(edge.value):
                last[name] = max(last.get(name, 0), jumps[block])
        self.read = {edge.phi: self._through(edge.phi, last.get(edge.phi, 0)) for edge, _ in self._phis}
        for edge, block in self._phis:
            phi, at = edge.phi, jumps[block]
            self.edges.setdefault(at, []).append(edge)
            self.first[phi] = min(self.first[phi], at)
            last[phi] = max(last.get(phi, 0), at)
        ends = self.ends
        for name, number in last.items():
            ends.setdefault(number, []).append(name)
        for start, end in self._loops:
            for number in [n for n in ends if start <= n < end]:
                self._carry(number, start, end)

    def _through(self, name: str, number: int) -> int:
        """The last use of a value, with those in the next rounds of loops. Inner loops end first."""
        for start, end in self._loops:
            if self.first[name] < start <= number < end:
                number = end
        return number

    def _carry(self, number: int, start: int, end: int) -> None:
        """Have the values that end here and are from before the loop live to its end."""
        first, names = self.first, self.ends[number]
        carried = [name for name in names if first[name] < start]
        if carried:
            self.ends[number] = [name for name in names if first[name] >= start]
            self.ends.setdefault(end, []).extend(carried)


_SILENT = ("getelementptr", "icmp", *_OTHER)


def functions_of(text: str) -> tuple[list[Reading], list[str]]:
    """The functions of a module, and the lines around them. Raises Unknown."""
    found, around = [], []
    *chunks, rest = text.split("\n}\n")
    for chunk in chunks:
        before, define, after = f"\n{chunk}".partition("\ndefine ")
        head, *lines = f"define {after}".split("\n")
        match = _HEAD.fullmatch(head)
        if not define or match is None:
            raise Unknown
        found.append(Reading(match[2], _NAME.findall(match[3]), match[1] is not None, lines))
        around += before.split("\n")
    return found, [*around, *rest.split("\n")]

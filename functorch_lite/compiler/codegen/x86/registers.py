# SPDX-License-Identifier: MIT
"""Which registers values are in: each keeps one from its first to its last use, and none is spilled.

What a phi takes at the end of a loop is put into the register of the phi where nobody reads the phi any more, so that
the loop has no moves. rax and the last registers of vectors and masks hold no values: they are for constants.
"""

from collections.abc import Sequence

from functorch_lite.compiler.codegen.x86.reading import Reading, Unknown

RAX, RBX, RBP = 0, 3, 5
SPARE, SPARE_MASK = 31, 7
SAVED = (RBX, RBP, 12, 13, 14, 15)
"""What a function leaves as it was."""
ARGUMENTS = (7, 6, 2, 1, 8, 9)
"""rdi, rsi, rdx, rcx, r8, r9"""
_REGISTERS = {"g": (RBP, 15, 14, 13, 12, RBX, 11, 10, 9, 8, 1, 2, 6, 7), "v": range(30, -1, -1), "k": range(6, 0, -1)}


class Registers:
    """The registers of a function, statement after statement. number: of the one that is being written."""

    def __init__(self, reading: Reading):
        self.of, self.number = reading, 0
        self.places: dict[str, int] = {}  # by value
        self.kinds: dict[str, str] = {}
        self.used: set[int] = set()
        self._free = {where: list(numbers) for where, numbers in _REGISTERS.items()}
        self._holders: dict[tuple[str, int], int] = {}  # how many values a register holds: a phi and what follows in it
        first = reading.first
        self._follows = {e.value: e.phi for edges in reading.edges.values() for e in edges
                         if first[e.phi] < first.get(e.value, 0)}  # fmt: skip
        if len(reading.parameters) > len(ARGUMENTS):
            raise Unknown
        for name, register in zip(reading.parameters, ARGUMENTS, strict=False):
            if name in reading.last:
                self._hold(name, "g", register)

    def _hold(self, name: str, where: str, register: int) -> int:
        """Let a register hold a value to its last use."""
        holders = self._holders.get((where, register), 0)
        if not holders:
            self._free[where].remove(register)
        self._holders[where, register] = holders + 1
        self.places[name], self.kinds[name] = register, where
        if name not in self.of.last:
            self.of.ends.setdefault(self.number, []).append(name)
        if where == "g":
            self.used.add(register)
        return register

    def expire(self) -> None:
        """Free the registers of values whose last use is this statement."""
        for name in self.of.ends.pop(self.number, ()):
            register = self.places.pop(name, None)
            if register is not None:  # else it is no value of a register
                place = self.kinds[name], register
                self._holders[place] -= 1
                if not self._holders[place]:
                    self._free[place[0]].append(register)

    def _inherited(self, name: str, where: str) -> int | None:
        """The register of the phi that takes this value, if nobody reads the phi from here on."""
        phi = self._follows.get(name)
        if phi is None or self.kinds.get(phi) != where or self.of.read[phi] > self.number:
            return None
        register = self.places.get(phi)
        return register if register is not None and self._holders[where, register] == 1 else None

    def new(self, name: str, where: str, without: Sequence[int] = ()) -> int:
        """A register for a value. without: none of these."""
        register = self._inherited(name, where)
        if register is not None and register not in without:
            return self._hold(name, where, register)
        for register in reversed(self._free[where]):
            if register not in without:
                return self._hold(name, where, register)
        raise Unknown

    def result(self, name: str, where: str) -> int:
        """A register for the result of an instruction that reads its operands first; they may have it."""
        self.expire()
        return self.new(name, where)

    def over(self, name: str, operand: int | None, where: str, others: Sequence[int]) -> int:
        """A register for a result that is computed in the place of an operand, where the others stay as they are.

        operand: the register of that operand, None of a constant; it is still to be copied if it is another.
        """
        inherited = self._inherited(name, where)
        if inherited is not None and (inherited == operand or inherited not in others):
            return self._hold(name, where, inherited)
        if operand is not None and self._ends_here(where, operand):
            return self._hold(name, where, operand)
        return self.new(name, where, others)

    def _ends_here(self, where: str, register: int) -> bool:
        """Whether no value of a register is used after this statement."""
        ends = [n for n in self.of.ends.get(self.number, ()) if self.places.get(n) == register]
        return sum(self.kinds[n] == where for n in ends) == self._holders.get((where, register))

# SPDX-License-Identifier: MIT
"""A group of element-wise equations that is computed where the walks of a product are: its epilogue, or a prologue.

A product walks an array (what it makes, or an operand) along axes with strides in it, several of the array's own axes
at a time where they go together. A `WalkedGroup` turns positions in that array into positions in the group's domain.
"""

from collections.abc import Sequence

from functorch_lite.compiler.loop_ir.nodes import Index
from functorch_lite.compiler.lowering.group import GroupLowering
from functorch_lite.compiler.lowering.rules import linear, strides_of


class WalkedGroup(GroupLowering):
    """The lowering of a group whose domain is the array that a product walks, in C order."""

    runs: Sequence[tuple[int, int, int]] = ()  # (stride of an axis of the array, position, steps of it)

    def follows(self, strides: Sequence[int], size: int) -> bool:
        """Whether the group can be computed along axes with these strides in an array of this size, all it has.

        Each axis must be whole axes of the domain, which all that the group reads and writes walks as one; the last
        must be in order.
        """
        domain = self.group.domain or ()
        own, walks = strides_of(domain), self._walks()
        runs, last = [], size
        for stride in sorted(strides, reverse=True):
            at = next(k for k, s in enumerate(own) if s <= stride)
            if stride % own[at]:
                return False
            for p in range(at, 0, -1):
                if own[p - 1] < last and (walks is None or any(w[p - 1] != w[p] * domain[p] for w in walks)):
                    return False
                if own[p - 1] >= last:
                    break
            runs.append((stride, at, stride // own[at]))
            last = stride
        self.runs = runs
        return last == 1

    def go_to(self, at: Index) -> None:
        """Have the position be that of an element of the array."""
        left = at.constant
        for stride, _, _ in self.runs:
            self.move(Index(left // stride), stride)
            left %= stride
        for value, step in at.terms:
            stride = next(s for s, _, _ in self.runs if s <= step)
            self.move(Index.of(value) * (step // stride), stride)

    def move(self, by: Index, along: int) -> None:
        """Move the position by so many elements along the axis of a stride."""
        position, steps = next((p, n) for s, p, n in self.runs if s == along)
        self.position[position] = self.position[position] + by * steps

    def here(self) -> Index:
        """Where in the array the present position is."""
        return linear(self.position, self.group.domain or ())

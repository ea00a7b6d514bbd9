# SPDX-License-Identifier: MIT
"""Plain numbers of the lowering of products and convolutions that change no bit of a result.

Each output is one sum, whose terms are added in the same order however work is dealt out to jobs, whichever of rows and
columns are in the lanes of a tile, and whether an operand is copied first. What would change the order of a sum is no
number of these: blocks of k, and sums that jobs have apart.
"""

from typing import NamedTuple


class Cutting(NamedTuple):
    """What lowering does otherwise than usual.

    jobs: times as many jobs are wanted. direct: times as large a right operand of a product is read where it is.
    lanes: whether a convolution has filters in the lanes where outputs are estimated to cost less, and the reverse.
    short: whether tiles of products have few sums: less code, which runs longer.
    looped: whether short loops over k, and over the elements of a convolution's kernel, stay loops; the same.
    """

    jobs: float = 1.0
    direct: int = 1
    lanes: bool = False
    short: bool = False
    looped: bool = False

    def __str__(self) -> str:
        jobs = "" if self.jobs == 1 else f"{self.jobs:g} times as many jobs"
        direct = "" if self.direct == 1 else f"operands {self.direct} times as large not copied"
        return ", ".join(filter(None, [jobs, direct, "other lanes of convolutions" if self.lanes else ""]))

    @property
    def unrolled(self) -> int:
        """Products of a tile: a loop of no more is written out."""
        return 8 if self.looped else 64

    def written_out(self, usual: int) -> int:
        """Products of a tile: elements of a convolution's kernel are written out where there are no more."""
        return min(usual, 32) if self.looped else usual

    @property
    def vectors(self) -> tuple[int, ...]:
        """How many vectors of columns a tile may have."""
        return (1, 2) if self.short else (1, 2, 3, 4, 6, 8)

    def wanted(self, jobs: int) -> int:
        """How many jobs are wanted where usually it is so many."""
        return max(int(jobs * self.jobs), 1)


AS_USUAL = Cutting()
SHORT = Cutting(short=True, looped=True)
LOOPED = Cutting(looped=True)
OF_CONVOLUTIONS = (Cutting(lanes=True), Cutting(jobs=2.0))
OF_PRODUCTS = (Cutting(jobs=2.0), Cutting(direct=4), Cutting(jobs=0.5))

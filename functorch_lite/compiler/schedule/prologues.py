# SPDX-License-Identifier: MIT
"""Which groups become prologues of a product: `with_prologues(schedule, groups)`.

What is computed element by element to be an operand of a matrix product (a cast, a scale, a mask, numbers of rows or
columns) is computed while the product copies the operand into its panels, and is never in memory as a whole
(`lowering/prologue.py`). A group becomes a prologue if

- it is element-wise and has no reductions, and of its results only one is wanted, as an operand of products;
- each of these products copies that operand once: the right one, or the left one where all columns are one job and
  are few (NARROW), so that they do not hide what a store and loads of the operand cost;
- it reads at most as many bytes as it would write (READS of them), so that little is kept alive for the product;
- one product reads it; or few do, and doing it again for each is less than to store it and load it: it reads half as
  many bytes as it writes, at most, and its operations are cheap (the weights of a network in half precision);
- the operand is LARGE: of a small one, the store and the loads are of the caches, and cost next to nothing.

The product of a vector, or of few rows, and a matrix gains most: it does little else than read the matrix.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.lowering.rules import is_complex
from functorch_lite.compiler.schedule.epilogues import is_one_job, readers_of, roots_of
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Literal, Var
from functorch_lite.primitives.contraction import dot_general_p

if TYPE_CHECKING:
    from functorch_lite.compiler.schedule.fusion import Group, Schedule

LARGE = 1 << 16  # elements of an operand
NARROW = 512  # bytes of a row of a product
READS = 2.0  # bytes that a prologue may read for each byte of its operand
MOST_PRODUCTS = 3  # that do it again
CHEAP = frozenset({
    "add", "sub", "mul", "neg", "max", "min", "abs", "select", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor",
    "not", "convert", "add_any", "scale", "stop_gradient", "name",
})


def with_prologues(schedule: "Schedule", groups: "list[Group]") -> "list[Group]":
    """The groups in the order they run, with prologues taken into their products."""
    candidates = [g for g in groups if _is_large(g)]
    if not candidates or all(_product_of(g) is None for g in groups):
        return groups
    finder = _Finder(schedule, groups)
    order = list(groups)
    for group in candidates:
        readers = finder.products_of(group)
        for product in readers:
            place = order.index(finder.now.get(product, product))
            order[place] = finder.unite(order[place], group)
            finder.now[product] = order[place]
        if readers:
            order.remove(group)
    return order


def _is_large(group: "Group") -> bool:
    """Whether a group is element-wise, over so many elements that it may be worth to be a prologue."""
    return group.is_elementwise() and bool(group.domain) and math.prod(group.domain or ()) >= LARGE


def _product_of(group: "Group") -> Equation | None:
    """The matrix product that a group is, or has an epilogue or prologues of, if there is one."""
    found = group.equations[0] if group.product is None and group.domain is None else group.product
    return found if found is not None and found.prim is dot_general_p else None


# --- choosing ---------------------------------------------------------------------------------------------------------


@dataclass
class _Finder:
    schedule: "Schedule"
    groups: "Sequence[Group]"

    def __post_init__(self):
        self.now: dict[Group, Group] = {}
        self.readers = readers_of(self.schedule, self.groups)

    def products_of(self, group: "Group") -> "list[Group]":
        """The products that a group becomes a prologue of: all that read it, or none."""
        value = self._wanted(group)
        if value is None or not self._is_worth(group, value):
            return []
        readers = self.readers[value]
        if all(g is not None and self._takes(g, value) for g in readers):
            return [g for g in readers if g is not None]
        return []

    def _wanted(self, group: "Group") -> Var | None:
        """The one value of a group that others read."""
        wanted = [v for v in group.axes if any(g is not group for g in self.readers.get(v, ()))]
        return wanted[0] if len(wanted) == 1 else None

    def _is_worth(self, group: "Group", value: Var) -> bool:
        """Whether an operand is large, and what is read for it is not, in all the products that do it."""
        aval: Any = value.aval
        if math.prod(group.domain or ()) != aval.size or is_complex(aval.dtype):
            return False
        own = set(group.axes)
        read = sum(_bytes(a) for a in roots_of(self.schedule, [a for e in group.equations for a in e.inputs])
                   if a not in own and type(a) is not Literal)
        again = len([g for g in self.readers[value] if g is not group])
        if again == 1:
            return read <= READS * _bytes(value)
        return again <= MOST_PRODUCTS and 2 * read <= _bytes(value) and all(
            e.prim.name in CHEAP for e in group.equations)

    def _takes(self, group: "Group", value: Var) -> bool:
        """Whether a node is a product that can compute an operand as it copies it, and reads the value as that."""
        product = _product_of(group)
        if product is None:
            return False
        others = [e for e in group.equations if e is not product]
        if value in roots_of(self.schedule, [a for e in others for a in e.inputs]):
            return False
        return all(self._copies(product, k, value) for k, atom in enumerate(product.inputs)
                   if value in roots_of(self.schedule, [atom]))

    def _copies(self, product: Equation, k: int, value: Var) -> bool:
        """Whether a product copies an operand once, which is a value, all of it, its axes in any order."""
        base, found = self.schedule.base(product.inputs[k])
        if base is not value or found is None or not found.whole or -1 in found.axes or not _held(product):
            return False
        aval: Any = product.outputs[0].aval
        row = aval.shape[-1] if aval.shape else 1
        return k == 1 or (row * aval.dtype.itemsize <= NARROW and is_one_job(product))

    # --- uniting ------------------------------------------------------------------------------------------------------

    def unite(self, product: "Group", group: "Group") -> "Group":
        """A product with one more prologue."""
        value, equation = self._wanted(group), _product_of(product)
        assert value is not None and equation is not None
        chain = product.chain or self._nothing(product, equation)
        both = replace(chain, equations=[*group.equations, *product.equations], product=equation, chain=chain,
                       prologues={**product.prologues, value: group})
        for var in (*equation.outputs, *chain.axes, *group.axes):
            self.schedule.home[var] = both
        return both

    def _nothing(self, product: "Group", equation: Equation) -> "Group":
        """The epilogue of a product that has none."""
        shape = equation.outputs[0].aval.shape
        return replace(product, equations=[], domain=tuple(n for n in shape if n != 1))


def _held(product: Equation) -> bool:
    avals = [a.aval for a in (*product.inputs, *product.outputs)]
    return all(isinstance(a, Aval) and a.size and not is_complex(a.dtype) for a in avals)


def _bytes(atom: Any) -> int:
    return atom.aval.size * atom.aval.dtype.itemsize

# SPDX-License-Identifier: MIT
"""Which groups become the epilogue of a product: `with_epilogues(schedule, groups)`.

A group joins the product it reads if

- it reads it at its own position alone, element by element: bias, activation, residual, cast, select, an update;
- it has no reductions; or only such as end with the kernel and leave the last axis (the gradient of a bias); or such
  of the last axis alone (a softmax, a norm), or of all axes (a loss), if the product is LARGE, so that it saves memory,
  one job of it has whole rows, and their numbers are complete after one block of k;
- no other group must run between the two;
- the product is no sum over all of its blocks, as a kernel's gradient is;
- the product is not made in blocks of columns of long rows, or the blocks fit a cache and the group reads and writes
  little besides: of an array that goes by in short pieces far apart, a processor foresees nothing, and pays more than
  the fusion saves;
- it costs no kernel more: equal products share one kernel, so all of them must have an equal epilogue, or it is large.

A product has one epilogue, the first group that can be it; others read what it stores. Of two products that a group
reads, the later one takes it.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.lowering.rules import is_complex, reduction_rules
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Literal, Var
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.convolution import conv_general_dilated_p

if TYPE_CHECKING:
    from functorch_lite.compiler.schedule.fusion import Group, Schedule

PRODUCTS = frozenset({dot_general_p, conv_general_dilated_p})
LEAST = 65  # elements of a product: fewer may stay in registers
LARGE = 1 << 18
LARGE_REDUCED = 1 << 18  # a smaller product stays in a cache: its reductions gain nothing (within 3 % either way)
LONG_ROW = 2048  # bytes
# A product (lowering/product_tiles.py) is not made in blocks of columns if it has
MANY_ROWS = 512  # rows, and
PACKED_BYTES = 256 << 10  # has room for the panels of a block of k: part of a second-level cache
DEPTH = 384  # of that block
ONE_JOB = 1024  # bytes of a row of a product: shorter ones are one job where the product is large
LEAST_ITEM = 4  # half precision is widened
LITTLE = 0.3  # of a product's bytes


def with_epilogues(schedule: "Schedule", groups: "list[Group]") -> "list[Group]":
    """The groups in the order they run, with products and their epilogues made one."""
    products = {g.equations[0].outputs[0]: g for g in groups if _is_product(g)}
    if not products:
        return groups
    chosen = _worth(products, _Finder(schedule, products, groups).chosen())
    order = list(groups)
    for product, chain in chosen.items():
        _unite(schedule, order, products[product], chain)
    return order


def _is_product(group: "Group") -> bool:
    equation = group.equations[0]
    if group.domain is not None or equation.prim not in PRODUCTS:
        return False
    aval: Any = equation.outputs[0].aval
    return aval.size >= LEAST and aval.dtype.kind != "c" and all(_size(a) for a in equation.inputs)


# --- choosing ---------------------------------------------------------------------------------------------------------


class _Finder:
    def __init__(self, schedule: "Schedule", products: "dict[Var, Group]", groups: "Sequence[Group]"):
        self.schedule = schedule
        self.products = products
        self.groups = groups
        self.reads = {g: roots_of(schedule, [a for e in g.equations for a in e.inputs]) for g in groups}
        self.readers = Counter(itertools.chain(*self.reads.values(), roots_of(schedule, schedule.program.outputs)))

    def chosen(self) -> "dict[Var, Group]":
        """The epilogue of each product that has one."""
        found: dict[Var, Group] = {}
        for group in self.groups:
            if not group.domain or not (group.reduced is None or self.schedule.can_end(group)
                                        or _has_rows(self.schedule, group)):
                continue
            read = self._read(group, found)
            if read and at_own_position(self.schedule, read[-1], group) and self._suits(read[-1], group):
                found[read[-1]] = group
        return found

    def _suits(self, product: Var, group: "Group") -> bool:
        """Whether a group can go over a product's values while they are in the cache, at no loss."""
        equation = self.products[product].equations[0]
        if equation.prim is conv_general_dilated_p:
            return group.reduced is None and is_in_blocks(equation)
        rows, depth = _rows_and_depth(equation)
        if group.reduced is not None and not self.schedule.can_end(group):
            whole = product.aval.shape[-1] == (group.domain or (0,))[-1] > 1
            return whole and depth <= DEPTH and _size(product) >= LARGE_REDUCED and is_one_job(equation)
        row = product.aval.shape[-1] * product.aval.dtype.itemsize
        if row < LONG_ROW or (rows >= MANY_ROWS and row * min(depth, DEPTH) <= PACKED_BYTES):
            return True  # whole rows at once, or short ones
        small = rows < MANY_ROWS or depth <= DEPTH
        return small and self._moves(product, group) <= LITTLE * _bytes(product)

    def _read(self, group: "Group", found: "dict[Var, Group]") -> list[Var]:
        """The products without an epilogue that a group reads, in the order they run."""
        read = {p for p in self.reads[group] if p in self.products and p not in found}
        return [p for p in self.products if p in read] if len(read) > 1 else list(read)

    def _moves(self, product: Var, group: "Group") -> int:
        """The bytes of arrays as large as a product that its epilogue reads and writes besides one."""
        own = self.reads[group]
        moved = [a for a in own if a is not product and a not in group.axes]
        moved += [v for v in group.axes if self.readers[v] > (v in own)]
        return sum(_bytes(a) for a in moved if _size(a) == _size(product)) - _bytes(product)


def _rows_and_depth(equation: Equation) -> tuple[int, int]:
    """The rows of a matrix product, and the products that each of its elements sums."""
    (contracted, _), (batch, _) = equation.params["contract"], equation.params["batch"]
    shape = equation.inputs[0].aval.shape
    rows = math.prod(n for a, n in enumerate(shape) if a not in (*contracted, *batch))
    return rows, math.prod(shape[a] for a in contracted)


def roots_of(schedule: "Schedule", atoms: Sequence[Any]) -> set[Any]:
    """The variables in memory that reading some atoms reads."""
    if schedule.is_in_memory(atoms):
        return {a for a in atoms if type(a) is Var or a.aval.size != 1} if Literal in map(type, atoms) else set(atoms)
    found: set[Any] = set()
    for atom in atoms:
        for source in schedule.sources(atom) if type(atom.aval) is Aval else (atom,):
            root = schedule.root(source)
            found |= roots_of(schedule, [root]) if root in schedule.movement else {root}
    return found


def readers_of(schedule: "Schedule", groups: "Sequence[Group]") -> "dict[Any, list[Group | None]]":
    """The nodes that read each variable in memory; None stands for the end of the program."""
    found: dict[Any, list[Group | None]] = {}
    for group in groups:
        for root in roots_of(schedule, [a for e in group.equations for a in e.inputs]):
            found.setdefault(root, []).append(group)
    for root in roots_of(schedule, schedule.program.outputs):
        found.setdefault(root, []).append(None)
    return found


def at_own_position(schedule: "Schedule", product: Var, group: "Group") -> bool:
    """Whether each equation that reads a product reads all of it, in order, over the whole domain."""
    if _size(product) != math.prod(group.domain or ()):
        return False
    for equation in group.equations:
        for atom in equation.inputs:
            if product not in roots_of(schedule, [atom]):
                continue
            base, found = schedule.base(atom)
            if found is None or schedule.root(base) is not product or not found.whole:
                return False
            axes = [a for a, n in zip(found.axes, base.aval.shape, strict=True) if n != 1]
            if tuple(n for n in base.aval.shape if n != 1) != group.domain or axes != sorted(axes):
                return False
    return True


def _bytes(atom: Any) -> int:
    return _size(atom) * atom.aval.dtype.itemsize


def _size(atom: Any) -> int:
    return atom.aval.size


def _worth(products: "dict[Var, Group]", chosen: "dict[Var, Group]") -> "dict[Var, Group]":
    """The epilogues that cost no kernel more, or are large."""
    alike: dict[Any, set[Any]] = {}
    for product, group in products.items():
        alike.setdefault(sort_of(group.equations[0]), set()).add(sorts_of(chosen.get(product)))

    def is_worth(product: Var) -> bool:
        equation = products[product].equations[0]
        large = _size(product) >= LARGE and equation.prim is dot_general_p  # a convolution is a lot of code
        return large or len(alike[sort_of(equation)]) == 1

    return {p: g for p, g in chosen.items() if is_worth(p)}


def _has_rows(schedule: "Schedule", group: "Group") -> bool:
    """Whether a group reduces the last axis alone, or all axes with nothing but numbers computed of the results."""
    last = len(group.domain or ()) - 1
    if group.ends or group.reduced is None or any(is_complex(v.aval.dtype) for v in group.axes):
        return False
    if group.reduced == (last,):
        return True
    if len(group.reduced) <= last:
        return False
    results = {e.outputs[0] for e in group.equations if e.prim in reduction_rules}
    for equation in group.equations:
        read = {s for a in equation.inputs for s in schedule.sources(a)}
        if equation.prim in reduction_rules or results & read:
            results.add(equation.outputs[0])
    return all(_size(v) == 1 for v in results)


def is_one_job(product: Equation) -> bool:
    """Whether all columns of a large matrix product are one job, which goes through its rows once (product_tiles)."""
    (_, contracted), (_, batch) = product.params["contract"], product.params["batch"]
    y: Any = product.inputs[1].aval
    columns = math.prod(n for a, n in enumerate(y.shape) if a not in (*contracted, *batch))
    rows, depth = _rows_and_depth(product)
    item = max(y.dtype.itemsize, LEAST_ITEM)
    if columns == 1 or rows == 1:
        return False
    return (columns * item < ONE_JOB or rows >= MANY_ROWS) and columns * min(depth, DEPTH) * item <= PACKED_BYTES


def is_in_blocks(equation: Equation) -> bool:
    """Whether blocks of a convolution are complete one after another, and not sums over all, as a kernel's gradient."""
    kernel, out = equation.inputs[1].aval.shape, equation.outputs[0].aval.shape
    order = equation.params.get("order") or range(len(out))
    return math.prod(kernel[2:]) <= math.prod(n for a, n in zip(order, out, strict=True) if a > 1)


def sort_of(equation: Equation) -> Any:
    return equation.prim, *sorted(equation.params.items()), *(a.aval for a in equation.inputs)


def sorts_of(group: "Group | None") -> Any:
    return None if group is None else tuple((e.prim, e.outputs[0].aval) for e in group.equations)


# --- uniting ----------------------------------------------------------------------------------------------------------


def _unite(schedule: "Schedule", order: "list[Group]", product: "Group", chain: "Group") -> None:
    """Make a product and its epilogue one group, if no other group must run between them."""
    start, end = order.index(product), order.index(chain)
    window = order[start + 1 : end]
    later = set(_dependent(schedule, product, window))
    if schedule.needs(chain) & later:
        return
    if chain.reduced is not None and schedule.can_end(chain):
        schedule.end(chain)
    both = replace(chain, equations=[*product.equations, *chain.equations], product=product.equations[0],
                   chain=chain)
    for var in (*product.equations[0].outputs, *chain.axes):
        schedule.home[var] = both
    order[start : end + 1] = [*(g for g in window if g not in later), both, *(g for g in window if g in later)]


def _dependent(schedule: "Schedule", first: "Group", others: "Sequence[Group]") -> "Iterator[Group]":
    """The groups that need the first, or one another that does."""
    depend = {first}
    for group in others:
        if schedule.needs(group) & depend:
            depend.add(group)
            yield group

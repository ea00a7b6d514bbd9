# SPDX-License-Identifier: MIT
"""Which convolutions end with the pooling of their output: `with_pools(schedule, groups)`.

A sum, maximum or minimum over sliding windows joins the convolution whose output it reads, or its epilogue. Each job of
the convolution then leaves its block of values in working space, computes the epilogue on them and pools them, while
they are in a cache: what was pooled is never in memory as a whole (`lowering/pooled.py`). That is done where

- the pooling alone reads what it pools, and nothing else of the epilogue is wanted: what a derivative keeps for its
  backward part (the argument of a maximum or of an activation) is in memory anyway, and pooled from there;
- the windows slide over spatial axes of the convolution only, by steps of at least half of their reach, so that blocks,
  which begin where a window does, compute little twice where windows overlap (3 by 3 in steps of 2, say);
- the windows go over an edge only where the epilogue reads nothing that has a place there: borders of the pooling are
  computed with the block, and masked;
- the convolution has a kernel of more than one element along an axis with several outputs (else it is a matrix
  product), no dilated input, no kernel larger than its output, and no parts of one filter each (depthwise);
- equal convolutions are all pooled alike: a convolution is a lot of code, so what shares a kernel goes on sharing it.

Everything else is pooled by a kernel of its own (`lowering/windows.py`). In either case, equations that go element by
element over what is pooled (the division of a mean) are computed with it, if one group of them reads it and nothing
else does, and one of its values is wanted: its tail.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.lowering.rules import is_complex
from functorch_lite.compiler.schedule.epilogues import at_own_position, is_in_blocks, readers_of, sort_of, sorts_of
from functorch_lite.core.program import Equation, Literal, Var
from functorch_lite.primitives.convolution import conv_general_dilated_p
from functorch_lite.primitives.windows import reduce_window_max_p, reduce_window_min_p, reduce_window_sum_p

if TYPE_CHECKING:
    from functorch_lite.compiler.schedule.fusion import Group, Schedule

POOLS = frozenset({reduce_window_max_p, reduce_window_min_p, reduce_window_sum_p})
LEAST = 65  # elements of a convolution's output


def with_pools(schedule: "Schedule", groups: "list[Group]") -> "list[Group]":
    """The groups in the order they run, with convolutions and the pooling of their outputs made one."""
    pools = [g for g in groups if g.domain is None and g.equations[0].prim in POOLS]
    if not pools:
        return groups
    makers = {v: g for g in groups if _convolution_of(g) for v in g.results()}
    finder = _Finder(schedule, groups)
    found = {makers[v]: g for g in pools for v in [schedule.root(g.equations[0].inputs[0])]
             if v in makers and finder.suits(makers[v], g.equations[0], v)}
    tails = {g: finder.tail(g.equations[0]) for g in pools}
    of = {found[maker]: maker for maker in _alike(list(makers.values()), found, tails)}
    order = list(groups)
    for pool in pools:
        maker, tail = of.get(pool), tails[pool]
        parts = [g for g in (maker, pool, tail) if g is not None]
        if len(parts) > 1:
            place = tail if tail is not None else parts[0]
            order[order.index(place)] = _united(schedule, maker, pool, tail)
            order = [g for g in order if g not in parts]
    return order


def _convolution_of(group: "Group") -> Equation | None:
    """The convolution that a group is, or has an epilogue of."""
    equation = group.equations[0] if group.product is None and group.domain is None else group.product
    return equation if equation is not None and equation.prim is conv_general_dilated_p else None


class _Finder:
    def __init__(self, schedule: "Schedule", groups: "list[Group]"):
        self.schedule = schedule
        self.readers = readers_of(schedule, groups)

    def suits(self, maker: "Group", pool: Any, value: Var) -> bool:
        """Whether a convolution, with its epilogue, can pool the value that it makes, and nothing else needs that."""
        convolution: Any = _convolution_of(maker)
        made, aval, result = (a.aval for a in (convolution.outputs[0], pool.inputs[0], pool.outputs[0]))
        if aval.shape != made.shape or made.size < LEAST or not result.size:
            return False
        if maker.reduced is not None or maker.ends or is_complex(made.dtype) or is_complex(aval.dtype):
            return False
        if not self._is_read_alone(maker, value) or not _is_in_tiles(convolution):
            return False
        windows = _windows_of(convolution, pool)
        return windows is not None and not any(self._has_place(maker, a) for a in windows if _is_padded(pool, a))

    def tail(self, pool: Equation) -> "Group | None":
        """The group of equations that alone reads what is pooled, element by element, and makes one value."""
        made: Any = pool.outputs[0]
        readers = self.readers.get(made, [])
        group = readers[0] if len(readers) == 1 else None
        if group is None or not group.domain or group.reduced is not None or group.ends or group.product is not None:
            return None
        wanted = [v for v in group.axes if any(g is not group for g in self.readers.get(v, ()))]
        plain = len(wanted) == 1 and not any(is_complex(v.aval.dtype) for v in (made, *wanted))
        return group if plain and at_own_position(self.schedule, made, group) else None

    def _is_read_alone(self, maker: "Group", value: Var) -> bool:
        for var in maker.results():
            others = [g for g in self.readers.get(var, ()) if g is not maker]
            if len(others) != (var is value) or None in others:
                return False
        return True

    def _has_place(self, maker: "Group", axis: int) -> bool:
        """Whether an epilogue reads something that is different along an axis of the convolution's output."""
        equations = maker.chain.equations if maker.chain is not None else []
        own = {e.outputs[0] for e in maker.equations}
        for atom in (a for e in equations for a in e.inputs):
            if type(atom) is Literal or atom in own or not self.schedule.sources(atom):
                continue
            base, found = self.schedule.base(atom)
            if self.schedule.root(base) in own:
                continue
            if found is None or atom.aval.shape != maker.equations[0].outputs[0].aval.shape:
                return True
            if any(a == axis and n > 1 for a, n in zip(found.axes, base.aval.shape, strict=True)):
                return True
        return False


def _windows_of(convolution: Equation, pool: Equation) -> list[int] | None:
    """The axes that windows slide over; None where they are not spatial axes, or windows overlap too much."""
    made = convolution.outputs[0].aval
    order = convolution.params.get("order") or range(len(made.shape))
    spatial = [k for k, axis in enumerate(order) if axis >= 2]
    rows = zip(*(pool.params[k] for k in ("window", "strides", "padding", "dilation")), strict=True)
    found = []
    for axis, (window, stride, padding, dilation) in enumerate(rows):
        if (window, stride, tuple(padding)) == (1, 1, (0, 0)):
            continue
        if axis not in spatial or (window - 1) * dilation + 1 > 2 * stride:
            return None
        found.append(axis)
    return found


def _is_padded(pool: Equation, axis: int) -> bool:
    return any(n > 0 for n in pool.params["padding"][axis])


def _is_in_tiles(convolution: Any) -> bool:
    """Whether it is made of blocks that are complete one after another, and no matrix product or depthwise."""
    params, (x, w) = convolution.params, (a.aval for a in convolution.inputs)
    out = convolution.outputs[0].aval
    order = params.get("order") or range(len(out.shape))
    sizes = [out.shape[list(order).index(a)] for a in range(2, len(out.shape))]
    parts = params["groups"] * params["batch_groups"]
    walks = any(k > 1 and n > 1 for k, n in zip(w.shape[2:], sizes, strict=True))
    several = parts == 1 or w.shape[0] > parts
    return walks and several and all(d == 1 for d in params["lhs_dilation"]) and is_in_blocks(convolution) and bool(
        x.size and w.size)


def _alike(
    makers: "list[Group]", found: "dict[Group, Group]", tails: "dict[Group, Group | None]"
) -> "list[Group]":
    """The convolutions of which all equal ones are pooled, and alike."""
    sorts: dict[Any, set[Any]] = {}
    for maker in dict.fromkeys(makers):
        pool, sort = found.get(maker), None
        if pool is not None:
            equation = pool.equations[0]
            sort = equation.prim, *sorted(equation.params.items()), sorts_of(tails[pool])
        sorts.setdefault(_sort(maker), set()).add(sort)
    return [maker for maker in found if len(sorts[_sort(maker)]) == 1]


def _sort(maker: "Group") -> Any:
    convolution = _convolution_of(maker)
    assert convolution is not None
    return sort_of(convolution), sorts_of(maker.chain)


def _united(schedule: "Schedule", maker: "Group | None", pool: "Group", tail: "Group | None") -> "Group":
    """A pooling with the convolution and the epilogue before it, or with its tail, as one group."""
    equation: Any = pool.equations[0]
    convolution: Any = _convolution_of(maker) if maker is not None else None
    chain = maker.chain if maker is not None else None
    over = convolution.outputs[0] if convolution is not None else equation.outputs[0]
    if chain is None:
        chain = replace(pool, equations=[], domain=tuple(n for n in over.aval.shape if n != 1))
    parts = [g for g in (maker, pool, tail) if g is not None]
    both = replace(chain, equations=[e for g in parts for e in g.equations], product=convolution,
                   chain=chain if maker is not None else None, pool=equation, tail=tail)
    for made in (e.outputs[0] for e in both.equations):
        schedule.home[made] = both
    return both

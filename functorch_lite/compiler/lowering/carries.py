# SPDX-License-Identifier: MIT
"""Outputs of a program that are wanted where an input is: a carry's next value in the place of the present one.

An output may be computed in the input's place if nothing reads the input after the statement that begins to write
there, and this statement itself reads it only where it writes, or changes part of it (`dynamic_update_slice`, scatter,
an inner loop's carry). What must read the input is scheduled before. Else the output is copied there at the end.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.loop_ir.nodes import BUFFER
from functorch_lite.compiler.lowering.epilogue import reads_given
from functorch_lite.compiler.lowering.group import GroupLowering
from functorch_lite.compiler.lowering.indexing import scatter_into, update_block
from functorch_lite.compiler.lowering.places import Place
from functorch_lite.compiler.lowering.rules import words
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.compiler.schedule.maps import AxisMap
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Literal, Program, Var
from functorch_lite.primitives.blocks import dynamic_update_slice_p
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.indexing import scatter_p, scatter_reduce_p
from functorch_lite.primitives.loops import cond_p, scan_p, while_p

if TYPE_CHECKING:
    from functorch_lite.compiler.lowering.program import ProgramLowering


def _update(b, whole, others):
    update, *starts = others
    update_block(b, whole, update, starts)


def _scatter(b, whole, others, *, combine, mode):
    updates, *indices = others
    scatter_into(b, whole, updates, indices, combine=combine, mode=mode)


IN_PLACE: dict[Any, Callable[..., None]] = {
    dynamic_update_slice_p: _update, scatter_p: _scatter, scatter_reduce_p: _scatter,
}
"""Kernels that change part of their first operand: (b, whole, other operands, **params)."""


def is_exact(equation: Equation) -> bool:
    """Whether a change in place gives the bits that one elsewhere does: there, 16-bit sums are kept in float32."""
    dtype = equation.outputs[0].aval.dtype
    return equation.params.get("combine") not in ("add", "multiply") or dtypes.accumulator(dtype) == dtype


@dataclass(slots=True)
class Overlap:
    """early, late: outputs to be copied to their targets at the beginning (inputs that go out), and at the end.

    wanted: where values on the way to the other outputs are to be computed.
    """

    early: set[int]
    late: list[int] = field(default_factory=list)
    wanted: dict[Var, Place] = field(default_factory=dict)


def find_overlaps(low: "ProgramLowering", program: Program, inputs: Sequence[Any], targets: Sequence[Any]) -> Overlap:
    """What to do about the targets that are places of inputs."""
    schedule = low.schedule(program)
    if _are_apart(inputs, targets):
        return Overlap({k for k, a in enumerate(program.outputs) if a not in schedule.home
                        and _memory(schedule, a) in schedule.given})
    places = [p if type(p) is Place else getattr(p, "place", None) for p in inputs]
    used: dict[Any, list[int]] = {}
    for i, place in enumerate(places):
        if place is not None:
            used.setdefault(place.buffer, []).append(i)
    apart = [k for k, t in enumerate(targets) if type(t) is Place and t.buffer not in used]
    found = Overlap({k for k in apart if _memory(schedule, program.outputs[k]) in schedule.given})
    for k, target in enumerate(targets):
        if type(target) is not Place or target.buffer not in used:
            continue
        at = used[target.buffer]
        place = places[at[0]]
        chain = None
        if len(at) == 1 and place is not None and place.key == target.key and place.aval.size == target.aval.size:
            chain = in_place_chain(low, program, program.inputs[at[0]], program.outputs[k], found.early)
        if chain is None or any(v in found.wanted for v in chain):
            found.late.append(k)
        else:
            found.wanted.update((v, Place(target.buffer, target.start, v.aval)) for v in chain)
    return found


def _are_apart(inputs: Sequence[Any], targets: Sequence[Any]) -> bool:
    """Whether all inputs and targets are places, and no two of them in the same buffer."""
    only_places = {*map(type, inputs), *map(type, targets)} <= {Place}
    return only_places and {*map(BUFFER, inputs)}.isdisjoint(map(BUFFER, targets))


def in_place_chain(
    low: "ProgramLowering", program: Program, source: Var, atom: Any, early: Collection[int] = ()
) -> list[Var] | None:
    """The values, last first, that are computed in an input's place so that an output is; None if it cannot be."""
    schedule = low.schedule(program)
    value = _memory(schedule, atom)
    if value is None:
        return None
    if value is source:
        return []
    readers = _readers(schedule, early)
    chain: list[Var] = []
    while value in schedule.home:
        chain.append(value)
        maker = schedule.home[value]
        before = _taken_over(low, schedule, maker, value, source)
        if before is None:
            return chain if _can_begin(schedule, maker, value, source, readers, False) else None
        if before is source:
            return chain if _can_begin(schedule, maker, value, source, readers, True) else None
        if before not in schedule.home or not _can_be_last(schedule, readers.get(before, ()), maker):
            return chain if _can_begin(schedule, maker, value, source, readers, False) else None
        value = before
    return None


def _memory(schedule: Schedule, atom: Any) -> Any:
    return None if type(atom) is Literal or type(atom.aval) is not Aval else same_memory(schedule, atom)


def same_memory(schedule: Schedule, atom: Any) -> Any:
    """The variable whose memory, in the same order, an atom is."""
    while atom not in schedule.home:
        if atom in schedule.alias:
            atom = schedule.alias[atom]
            continue
        if atom not in schedule.maps:
            return atom
        base, found = schedule.maps[atom]
        if base.aval.size != atom.aval.size or not _in_order(base.aval.shape, found):
            return atom
        atom = base
    return atom


def _in_order(shape: Sequence[int], found: AxisMap) -> bool:
    axes = [a for a, n in zip(found.axes, shape, strict=True) if n != 1]
    return found.whole and axes == sorted(axes)


def roots(schedule: Schedule, atom: Any) -> Iterator[Any]:
    """The variables in memory that reading an atom reads."""
    for source in schedule.sources(atom):
        root = schedule.root(source)
        if root in schedule.movement:
            yield from roots(schedule, root)
        else:
            yield root


def _readers(schedule: Schedule, early: Collection[int]) -> dict[Any, list[Group | None]]:
    """The nodes that read each variable; None stands for the end of the program."""
    found: dict[Any, list[Group | None]] = {}
    for group in schedule.groups:
        for equation in group.equations:
            for atom in equation.inputs:
                for root in roots(schedule, atom):
                    if found.setdefault(root, [])[-1:] != [group]:
                        found[root].append(group)
    for k, atom in enumerate(schedule.program.outputs):
        for root in () if k in early or type(atom.aval) is not Aval else roots(schedule, atom):
            found.setdefault(root, []).append(None)
    return found


def _can_be_last(schedule: Schedule, readers: Sequence[Group | None], maker: Group) -> bool:
    """Whether a node can be the last that reads a value; other readers are moved before it."""
    others = [r for r in readers if r is not maker]
    if not all(r is not None and _move_before(schedule, r, maker) for r in others):
        return False
    schedule.read_first.setdefault(maker, set()).update(r for r in others if r is not None)
    return True


def _taken_over(low, schedule: Schedule, maker: Group, value: Var, source: Var) -> Any:
    """The variable whose memory a step goes on with to compute a value, if it is read there only as that."""
    if maker.domain is not None:
        return None
    equation = maker.equations[0]
    for i in _candidates(low, equation, equation.outputs.index(value)):
        atom = equation.inputs[i]
        if type(atom) is Literal:
            continue
        root = same_memory(schedule, atom)
        if [r for a in equation.inputs for r in roots(schedule, a)].count(root) == 1:
            return root
    return None


def _candidates(low, equation: Equation, k: int) -> list[int]:
    """The operands that output k of a step may take the memory of."""
    prim, params = equation.prim, equation.params
    if prim in IN_PLACE:
        x = equation.inputs[0].aval.dtype
        exact = params.get("combine", "set") not in ("add", "multiply") or dtypes.accumulator(x) == x
        return [0] if exact else []
    if prim is scan_p and params["length"] is not None:
        return [params["n_consts"] + k] if k < params["n_carry"] else []
    if prim is while_p:
        return [params["n_cond_consts"] + params["n_body_consts"] + k] if k < params["n_carry"] else []
    if prim is jit_p or prim is cond_p:
        return _through_calls(low, equation, k)
    return []


def _through_calls(low, equation: Equation, k: int) -> list[int]:
    is_call = equation.prim is jit_p
    programs = [equation.params["program"]] if is_call else equation.params["branches"]
    first = 0 if is_call else 1
    aval = equation.outputs[k].aval
    found = []
    for i, atom in enumerate(equation.inputs[first:]):
        if atom.aval == aval and all(in_place_chain(low, p, p.inputs[i], p.outputs[k]) is not None for p in programs):
            found.append(first + i)
    return found


def _can_begin(schedule: Schedule, maker: Group, value: Var, source: Var, readers, takes_over: bool) -> bool:
    """Whether a node may begin to write in an input's place; readers that can run before it are moved there."""
    found = readers.get(source, ())
    if maker in found and not takes_over and not _reads_where_it_writes(schedule, maker, value, source):
        return False
    return _can_be_last(schedule, found, maker)


def _reads_where_it_writes(schedule: Schedule, group: Group, value: Var, source: Var) -> bool:
    if group.domain is None or group.reduced or group.ends or group.pool is not None:
        return False
    if group.chain is not None:
        if group.product is None or value is group.product.outputs[0] or reads_given(schedule, group, source):
            return False
        group = group.chain
    probe = GroupLowering("probe", group, schedule, [])
    probe.find_inputs()
    same = all(ok for s, ok in probe.identical.items() if source in roots(schedule, s))
    return same and words(source.aval) == words(value.aval) and source.aval.dtype == value.aval.dtype


def _move_before(schedule: Schedule, reader: Group, maker: Group) -> bool:
    """Have a node run before another; False if it needs the other."""
    order = schedule.groups
    start, end = order.index(maker), order.index(reader)
    if end < start:
        return True
    depend = {maker}
    for node in order[start + 1 : end + 1]:
        if schedule.needs(node) & depend:
            depend.add(node)
    if reader in depend:
        return False
    window = order[start : end + 1]
    order[start : end + 1] = [n for n in window if n not in depend] + [n for n in window if n in depend]
    return True

# SPDX-License-Identifier: MIT
"""A program as loop IR: its schedule's kernels and steps, in order, over places in memory.

The result is one `Function` whose parameters are the program's inputs and outputs, whose locals are its temporaries
(the memory plan gives them offsets), and which calls kernels. The bodies of loops and branches are lowered in place.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import (
    BUFFER,
    START,
    ZERO,
    Buffer,
    Function,
    HostCall,
    Index,
    KernelCall,
    Role,
)
from functorch_lite.compiler.loop_ir.polls import mark_polls
from functorch_lite.compiler.loop_ir.printer import function_key
from functorch_lite.compiler.lowering.carries import IN_PLACE, Overlap, find_overlaps, is_exact, same_memory
from functorch_lite.compiler.lowering.cutting import AS_USUAL, Cutting
from functorch_lite.compiler.lowering.epilogue import Epilogue
from functorch_lite.compiler.lowering.group import GroupLowering, literal_element
from functorch_lite.compiler.lowering.group_key import group_key
from functorch_lite.compiler.lowering.inline import (
    InlineGroup,
    can_inline,
    is_stack_of_numbers,
    read_one,
    write_numbers,
)
from functorch_lite.compiler.lowering.places import HELD, Held, Place, is_one, of_parts, parts
from functorch_lite.compiler.lowering.pooled import Pooled
from functorch_lite.compiler.lowering.prologue import Prologue
from functorch_lite.compiler.lowering.rules import (
    Element,
    Operand,
    is_complex,
    kernel_rules,
    kind_of,
    layout,
    step_rules,
    strides_of,
    words,
)
from functorch_lite.compiler.lowering.scope import needed, scope_of
from functorch_lite.compiler.lowering.stacks import stacks_are_native
from functorch_lite.compiler.lowering.tail import call_pool
from functorch_lite.compiler.memory.plan import Part, Plan, Takeovers, by_input, plan_memory
from functorch_lite.compiler.schedule.columns import in_columns, several_rows
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.compiler.schedule.partial import in_parts
from functorch_lite.compiler.schedule.sections import in_sections
from functorch_lite.compiler.schedule.turned import in_tiles
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Literal, Program, Var, memoized
from functorch_lite.primitives.casts import stop_gradient_p
from functorch_lite.primitives.higher_order import jit_p

INLINE = "inline"
"""In `Lowered.sources`, the name of all code that is no kernel of its own."""


class Strided(NamedTuple):
    """An array with element strides of its own, in memory or computed by a prologue: read without a copy."""

    place: Place | Prologue
    strides: tuple[int, ...]


class HostStep(NamedTuple):
    """An equation that runs in Python. Operands in memory are at the call's places; the others pass by variable."""

    equation: Equation
    inputs: list[Any]  # None: the next place; else a variable, or a Literal
    outputs: list[Any]


@dataclass(slots=True)
class Lowered:
    """A program as loop IR, and what goes with it.

    constants: arrays that `function` reads, one for each parameter after the inputs and outputs.
    steps: what HostCalls run. in_place: see `memory.plan`. sources: the equations of each kernel, and of INLINE. made:
    the type of what a temporary holds, and the user's line that made it. parts: what is lowered once and called.
    """

    function: Function
    inputs: list[Buffer]
    outputs: list[Buffer]
    constants: list[np.ndarray]
    constant_buffers: list[Buffer]
    steps: list[HostStep]
    in_place: dict[Buffer, list[Buffer]]
    kernels: list[Function]
    sources: dict[str, list[Equation]]
    made: dict[Buffer, tuple[Any, Any]]
    parts: list[Part]

    def plan(self) -> Plan:
        """Where its temporaries live."""
        return plan_memory(self.function, self.in_place)


def can_lower(program: Program) -> bool:
    """Whether every input and output of a program is an array that loop IR can hold."""
    def held():
        avals = {id(a.aval): a.aval for a in (*program.inputs, *program.outputs)}.values()
        return (all(type(a) is Aval and kind_of(a.dtype) is not None for a in avals),)

    return memoized(program, "can lower", held)[0]


def lower_program(program: Program, cutting: Cutting = AS_USUAL, donated: Sequence[int] = ()) -> Lowered:
    """The program as loop IR. cutting: how products and convolutions are cut. donated: inputs that outputs may replace.
    """
    lowering = ProgramLowering(cutting)
    b = lowering.b
    places, targets = _places("in", program.in_avals), _places("out", program.out_avals)
    inputs, outputs = list(map(BUFFER, places)), list(map(BUFFER, targets))
    b.function.params += inputs + outputs
    lowering.kept = {*inputs}.difference([inputs[k] for k in donated])
    lowering.body(program, places, targets)
    function = in_sections(b.finish(), lowering.in_place, program)
    mark_polls(function)
    return Lowered(
        function, inputs, outputs, lowering.constants, lowering.constant_buffers, lowering.steps, lowering.in_place,
        list(lowering.kernels.values()), lowering.sources, lowering.made, list(lowering.parts.values()),
    )


def _places(role: Role, avals: Sequence[Any]) -> list[Place]:
    """New buffers for a program's inputs or outputs, many of which have the same type."""
    layouts = {id(a): layout(a) for a in {id(a): a for a in avals}.values()}
    buffers = [Buffer(f"{role}{k}", *layouts[id(a)], role) for k, a in enumerate(avals)]
    return list(map(Place._make, zip(buffers, itertools.repeat(ZERO), avals, strict=False)))


class ProgramLowering:
    """The lowering of one program; `body` lowers it, and the programs of loops and branches inside it."""

    def __init__(self, cutting: Cutting = AS_USUAL):
        self.cutting = cutting
        self.b = Builder("program")
        self.constants: list[np.ndarray] = []
        self.constant_buffers: list[Buffer] = []
        self._constant_places: dict[bytes, Buffer] = {}
        self.steps: list[HostStep] = []
        self.in_place: dict[Buffer, list[Buffer]] = {}
        self.kept: set[Buffer] = set()  # inputs whose memory no output takes over
        self.kernels: dict[Any, Function] = {}
        self._roughly: dict[Any, dict[str | None, Function]] = {}  # kernels by sizes, then by keys if there are several
        self.sources: dict[str, list[Equation]] = {}
        self._built: dict[Any, tuple[Function, list[Any], list[Var], Takeovers]] = {}
        self._alike: dict[Any, tuple[Function, Takeovers]] = {}  # kernels of groups, by their keys
        self._schedules: dict[int, Schedule] = {}  # by the program's identity: a schedule keeps it alive
        self._called: dict[Program, Program] = {}
        self.parts: dict[Program, Part] = {}
        self.scope: Any = None  # the Scope of the program that is being lowered
        self.made: dict[Buffer, tuple[Any, Any]] = {}
        self._line: Any = None
        self.fused: Epilogue | None = None  # of the product that is being lowered

    # --- a program --------------------------------------------------------------------------------------------------

    def schedule(self, program: Program) -> Schedule:
        """The schedule of a program, made once."""
        found = self._schedules.get(id(program))
        if found is None:
            found = self._schedules[id(program)] = Schedule(program)
        return found

    def body(self, program: Program, inputs: Sequence[Any], targets: Sequence[Any]) -> list[Any]:
        """Lower the program here. Its outputs go to the targets where given; returns where they are.

        inputs: each a Place, a Held or a Stacked. targets: each a Place, HELD or None. A target may be the place of an
        input: the output is computed there where nothing reads the input any more, else it is copied there at the end.
        """
        overlap = find_overlaps(self, program, inputs, targets)
        found = self.schedule(program)
        around, self.scope = self.scope, scope_of(found, program, inputs)
        early = {k: self._deliver(program.outputs[k], targets[k]) for k in overlap.early}
        late = [None if k in overlap.late else t for k, t in enumerate(targets)] if overlap.late else targets
        self._aim(program, inputs, [None if k in early else t for k, t in enumerate(late)] if early else late)
        self.scope.wanted.update(overlap.wanted)
        self.scope.needed = needed(found)
        for group in found.groups:
            self._line = group.equations[-1].source
            if group.domain is None:
                self._step(group.equations[0])
            else:
                self._group(group)
        outs = list(map(self.scope.places.get, program.outputs))
        if outs != targets:  # not all are where they are wanted
            outs = [early.get(k) or self._deliver(atom, late[k]) for k, atom in enumerate(program.outputs)]
            self._deliver_late(overlap, outs, targets)
        self.scope = around
        return outs

    def _deliver_late(self, overlap: Overlap, outs: list[Any], targets) -> None:
        """Copy outputs to places of inputs that were read to the end; what is in another such place is saved first."""
        over = {targets[k].buffer for k in overlap.late}
        for k in overlap.late:
            if outs[k].buffer in over and outs[k].key != targets[k].key:
                outs[k] = self._copied(outs[k], self.temp(outs[k].aval))
        for k in overlap.late:
            outs[k] = self._copied(outs[k], targets[k])

    def _aim(self, program: Program, inputs, targets) -> None:
        """Have outputs computed where they are wanted, what is only moved too, if no input is there."""
        schedule, wanted = self.scope.schedule, self.scope.wanted
        outputs = {*program.outputs}
        if {*map(type, targets)} == {Place} and outputs <= schedule.home.keys() and len(outputs) == len(targets):
            wanted.update(zip(program.outputs, targets, strict=True))
            return
        given = {p.buffer for p in inputs if type(p) is Place}
        for atom, target in zip(program.outputs, targets, strict=True):
            if type(target) is not Place or type(atom) is Literal:
                continue
            root = same_memory(schedule, atom)
            if root in wanted:
                continue
            if root in schedule.home or (root in schedule.movement and target.buffer not in given):
                wanted[root] = target if root is atom else Place(target.buffer, target.start, root.aval)

    def _same_memory(self, atom: Any) -> Any:
        return same_memory(self.scope.schedule, atom)

    def _deliver(self, atom: Any, target: Any) -> Any:
        made = self.scope.places.get(atom)
        if made is not None and made == target:
            return made
        if type(atom.aval) is not Aval:
            return self.scope.stacks[atom]
        if target is HELD:
            return Held(self.element(atom), atom.aval)
        if target is not None and is_one(atom) and self._is_value(atom):
            self.store(target, self.element(atom))
            return target
        place = self.place(atom)
        return place if target is None else self._copied(place, target)

    def _copied(self, place: Place, target: Place) -> Place:
        if place.key != target.key:
            self.b.copy(target.buffer, place.buffer, words(place.aval), at=target.start, start=place.start)
        return target

    def called(self, program: Program) -> Program:
        """What stands for a called program: the first one that is equal."""
        return self._called.setdefault(program, program)

    def call(self, program: Program, inputs: Sequence[Any], targets: Sequence[Any]) -> list[Any]:
        """Lower a called program here: an equal one that was called before shares its schedule and kernels."""
        return self.body(self.called(program), inputs, targets)

    # --- values -----------------------------------------------------------------------------------------------------

    def given(self, atom: Any) -> Any:
        """An array as the input of a program inside: one element as a value."""
        if type(atom.aval) is not Aval:
            return self.scope.stacks[atom]
        if atom.aval.size != 1:
            return self.place(atom)
        return Held(self.element(atom), atom.aval, None if type(atom) is Literal else self.scope.places.get(atom))

    def target_of(self, var: Var) -> Any:
        """The target of the output of a program inside that is this variable."""
        return HELD if is_one(var) and self.b.depth else self.out_place(var)

    def define(self, var: Var, result: Any) -> None:
        """Note what a program inside returned for a variable."""
        if type(result) is Held:
            self.scope.held[var] = result.element
        elif type(result) is not Place:
            self.scope.stacks[var] = result

    def _is_value(self, atom: Any) -> bool:
        """Whether an array of one element needs no memory: it is a value already, or a number."""
        return type(atom) is Literal or self._same_memory(atom) in self.scope.held

    def element(self, atom: Any) -> Element:
        """An array of one element as a value."""
        if type(atom) is Literal:
            return literal_element(self.b, atom)
        root = self._same_memory(atom)
        found = self.scope.held.get(root)
        if found is None:
            if root in self.scope.schedule.movement and root not in self.scope.places and self.b.depth:
                found = read_one(self, root)
            else:
                found = self.load(self.place(root))
            self.scope.held[root] = found
        return found

    def load(self, place: Place, at: Index = ZERO) -> Element:
        """The element at a position of an array."""
        n = 2 if is_complex(place.aval.dtype) else 1
        return of_parts([self.b.load(place.buffer, place.start + at * n + k) for k in range(n)])

    def store(self, place: Place, element: Element, at: Index = ZERO) -> None:
        """Write the element at a position of an array."""
        values = parts(element)
        for k, value in enumerate(values):
            self.b.store(place.buffer, place.start + at * len(values) + k, value)

    # --- places -----------------------------------------------------------------------------------------------------

    def temp(self, aval: Any) -> Place:
        """Memory for an array."""
        buffer = self.b.local(f"t{len(self.b.function.locals)}", *layout(aval))
        self.made[buffer] = (aval, self._line)
        return Place(buffer, ZERO, aval)

    def growing(self, aval: Any) -> Buffer:
        """Memory for any number of arrays, none at first."""
        buffer = Buffer(f"stack{len(self.b.function.growing)}", layout(aval)[0], 0, "growing")
        self.b.function.growing.append(buffer)
        return buffer

    def place(self, atom: Any) -> Place:
        """Where an array is; what is only an index map so far is written out."""
        if type(atom) is Literal:
            return self._constant(atom)
        found = self.scope.places.get(atom)
        if found is None:
            found = self.scope.places[atom] = self._find_place(atom)
        return found

    def places(self, atoms: Sequence[Any]) -> list[Place]:
        """Where arrays are."""
        found = list(map(self.scope.places.get, atoms))
        return list(map(self.place, atoms)) if None in found else found

    def out_places(self, variables: Sequence[Var]) -> list[Place]:
        """Memory for results: where they are wanted, or new."""
        wanted = self.scope.wanted
        found = [wanted.get(v) or self.temp(v.aval) for v in variables]
        self.scope.places.update(zip(variables, found, strict=True))
        return found

    def _find_place(self, atom: Any) -> Place:
        schedule = self.scope.schedule
        root = self._same_memory(atom)
        if root is not atom:
            place = self.place(root)
            return Place(place.buffer, place.start, atom.aval)
        if atom in self.scope.held:
            place = self.scope.wanted.get(atom) or self.temp(atom.aval)
            self.store(place, self.scope.held[atom])
            return place
        assert atom in schedule.movement, "an array is read before it is computed"
        out = Var(atom.aval)
        copied = Equation(stop_gradient_p, (atom,), (out,), {}, schedule.movement[atom].source)
        group = Group([copied], tuple(n for n in atom.aval.shape if n != 1), 0, 0, 0)
        group.axes[out] = tuple(range(len(group.domain or ())))
        target = self.scope.wanted.get(atom) or self.temp(atom.aval)
        self._run(group, [out], [target])
        return target

    def strided(self, atom: Any) -> Strided:
        """An array as it lies in memory: a permutation, slice or broadcast of one that is there needs no copy."""
        schedule = self.scope.schedule
        if type(atom) is not Literal and atom not in self.scope.places:
            base, found = schedule.base(atom)
            computed = self.fused.prologue(base) if self.fused is not None else None
            if found is not None and (computed or (atom in schedule.maps and base not in schedule.movement
                                                   and found.whole)):
                strides = [0] * len(atom.aval.shape)
                for axis, step, stride in zip(found.axes, found.steps, strides_of(base.aval.shape), strict=True):
                    if axis >= 0:
                        strides[axis] = step * stride
                return Strided(computed or self.place(base), tuple(strides))
        return Strided(self.place(atom), strides_of(atom.aval.shape))

    def _constant(self, literal: Literal) -> Place:
        value = np.ascontiguousarray(np.asarray(literal.value, literal.aval.dtype))
        key = (value.dtype.str + str(value.dtype)).encode() + value.tobytes()
        buffer = self._constant_places.get(key)
        if buffer is None:
            buffer = Buffer(f"c{len(self.constants)}", *layout(literal.aval), "in")
            self._constant_places[key] = buffer
            self.constants.append(value)
            self.constant_buffers.append(buffer)
        return Place(buffer, ZERO, literal.aval)

    def out_place(self, var: Var) -> Place:
        """Memory for a result: where it is wanted, or new."""
        return self.out_places((var,))[0]

    # --- groups and steps -------------------------------------------------------------------------------------------

    def _group(self, group: Group) -> None:
        stored = [v for v in group.results() if v in self.scope.needed]
        if group.chain is not None and (stored or group.pool is None):
            self._fused(group, stored)
            return
        if group.pool is not None and stored:
            call_pool(self, group, stored)
            return
        if stored and self.b.depth and can_inline(group):
            InlineGroup(self, group, stored).write()
            self.sources.setdefault(INLINE, []).extend(group.equations)
        elif stored:
            self._run(group, stored, [self.out_place(v) for v in stored])

    def _fused(self, group: Group, stored: list[Var]) -> None:
        """A product with the equations that compute its operands, and the chain that goes over its values."""
        product = group.product
        assert product is not None
        if group.pool is not None:
            self.fused = Pooled(group, self.scope.schedule, stored)
        elif group.prologues or any(v is not product.outputs[0] for v in stored):
            self.fused = Epilogue(group, self.scope.schedule, stored)
        step_rules[product.prim](self, product)
        self.fused = None

    def _run(self, group: Group, stored: list[Var], targets: list[Place]) -> None:
        known = self._built.get(group)
        if known is None:
            key, inputs = group_key(group, self.scope.schedule, stored)
            found = self._alike.get(key) if key is not None else None
            if found is None:
                lowering = GroupLowering(f"k{len(self._built)}", group, self.scope.schedule, stored)
                kernel = self.kernel(several_rows(in_parts(in_columns(in_tiles(lowering.build())))), group.equations)
                inputs = list(lowering.inputs)
                found = self._alike[key] = (kernel, _shareable(group, lowering, stored))
            else:
                self.sources[found[0].name] += group.equations
            known = self._built[group] = (found[0], inputs, stored, found[1])
        kernel, inputs, _, shared = known
        sources = self.places(inputs)
        self.b.add(KernelCall(kernel, [*sources, *targets, *map(self.scratch, kernel.scratch)]))
        self.share(sources, targets, shared)

    def share(self, sources: Sequence[Any], targets: Sequence[Any], pairs: Takeovers) -> None:
        """Note which outputs of a call may take over the memory of an input."""
        read, written = list(map(BUFFER, sources)), list(map(BUFFER, targets))
        free = {*read}.difference(self.kept, written)
        if not free or not pairs:
            return
        temporary = {k for k, b in enumerate(written) if b.role == "local"}
        for source in itertools.compress(itertools.count(), map(free.__contains__, read)):
            old = read[source]
            if read.count(old) == 1 and not START(sources[source]).terms:
                of = temporary.intersection if old.role == "local" else {*range(len(written))}.intersection
                for target in sorted(of(pairs.get(source, ()))):
                    if not targets[target][1].terms:
                        self.in_place.setdefault(written[target], []).append(old)

    def kernel(self, function: Function, equations: list[Equation]) -> Function:
        """The kernel, or an equal one that there is already; keys are made where two might be equal."""
        rough = tuple([(b.kind, b.size) for b in (*function.params, *function.locals)]), len(function.body)
        alike = self._roughly.setdefault(rough, {})
        if None in alike:
            first = alike.pop(None)
            alike[function_key(first)] = first
        found = alike.setdefault(function_key(function) if alike else None, function)
        self.kernels[id(found)] = found
        self.sources.setdefault(found.name, []).extend(equations)
        return found

    def _step(self, equation: Equation) -> None:
        held = _holds(equation)
        if equation.prim in step_rules and (held or self._takes_stacks(equation)):
            if step_rules[equation.prim](self, equation) is not NotImplemented:
                return
        if self.b.depth and is_stack_of_numbers(equation):
            write_numbers(self, equation)
        elif equation.prim in kernel_rules and held and not any(map(_is_empty, (*equation.inputs, *equation.outputs))):
            self._kernel_step(equation)
        else:
            self.host_step(equation)

    def _takes_stacks(self, equation: Equation) -> bool:
        """Whether an equation is a loop over arrays and run-time stacks that are kept in native memory."""
        avals = [a.aval for a in (*equation.inputs, *equation.outputs)]
        plain = all(type(a) is not Aval or kind_of(a.dtype) for a in avals)
        return plain and any(type(a) is not Aval for a in avals) and stacks_are_native(self.scope.schedule.program)

    def _kernel_step(self, equation: Equation) -> None:
        if equation.prim in IN_PLACE:
            if self._begins_as_number(equation):
                self._update_number(equation)
                return
            if self._is_in_place(equation):
                self._update_in_place(equation)
                return
        b = Builder(f"k{len(self._built)}_{equation.prim.name}")
        b.brief = self.cutting.short
        known = self._built.get(equation)
        if known is None:
            ins = [Operand(b.input(f"x{k}", *layout(a.aval)), a.aval) for k, a in enumerate(equation.inputs)]
            outs = [Operand(b.output(f"out{k}", *layout(v.aval)), v.aval) for k, v in enumerate(equation.outputs)]
            kernel_rules[equation.prim](b, ins, outs, **equation.params)
            known = self._built[equation] = (self.kernel(in_parts(b.finish()), [equation]), [], [], {})
        kernel = known[0]
        sources = [self.place(a) for a in equation.inputs]
        targets = [self.out_place(v) for v in equation.outputs]
        scratch = [self.scratch(buffer) for buffer in getattr(kernel, "scratch", ())]
        failure = self.host_call(equation) if kernel.can_fail else None
        self.b.add(KernelCall(kernel, [p.operand for p in (*sources, *targets)] + scratch, failure))
        if equation.prim in IN_PLACE:  # what it copies first is there already
            self.share([p.operand for p in sources], [p.operand for p in targets], {0: (0,)})

    def _begins_as_number(self, equation: Equation) -> bool:
        """Whether an equation changes part of a broadcast number that is not in memory, as in a gradient of rows."""
        first = equation.inputs[0]
        made = self.scope.schedule.movement.get(first)
        if made is None or type(made.inputs[0]) is not Literal or made.inputs[0].aval.size != 1:
            return False
        return not (first in self.scope.places or first in self.scope.wanted) and is_exact(equation)

    def _update_number(self, equation: Equation) -> None:
        """Write the number where the result goes, and change part of it there."""
        first, out = equation.inputs[0], equation.outputs[0]
        self.scope.wanted[first] = self.scope.wanted[out] = self.out_place(out)
        self.place(first)
        self._update_in_place(equation)
        del self.scope.wanted[first], self.scope.places[first]

    def _is_in_place(self, equation: Equation) -> bool:
        target = self.scope.wanted.get(equation.outputs[0])
        return target is not None and target.key == self.place(equation.inputs[0]).key

    def _update_in_place(self, equation: Equation) -> None:
        """A kernel that changes part of an array where it is."""
        target, others = self.out_place(equation.outputs[0]), equation.inputs[1:]
        sources = [self.place(a) for a in others]
        known = self._built.get((equation, "in place"))
        if known is None:
            b = Builder(f"k{len(self._built)}_{equation.prim.name}_in_place")
            ins = [Operand(b.input(f"x{k}", *layout(a.aval)), a.aval) for k, a in enumerate(others)]
            whole = Operand(b.inout("out", *layout(target.aval)), target.aval)
            IN_PLACE[equation.prim](b, whole, ins, **equation.params)
            known = self._built[equation, "in place"] = (self.kernel(in_parts(b.finish()), [equation]), [], [], {})
        kernel = known[0]
        scratch = [self.scratch(buffer) for buffer in kernel.scratch]
        failure = self.host_call(equation) if kernel.can_fail else None
        self.b.add(KernelCall(kernel, [p.operand for p in (*sources, target)] + scratch, failure))

    def scratch(self, buffer: Buffer) -> tuple[Buffer, Index]:
        """Memory for a parameter of a kernel that is working space."""
        local = self.b.local(f"t{len(self.b.function.locals)}", buffer.kind, buffer.size)
        return local, ZERO

    def host_step(self, equation: Equation) -> None:
        """Run an equation in Python."""
        for var in equation.outputs:
            if _is_held(var):
                self.out_place(var)
        self.b.add(self.host_call(equation))

    def host_call(self, equation: Equation) -> HostCall:
        """The statement that runs an equation in Python; its results must have places."""
        reads = [a for a in equation.inputs if type(a) is not Literal and _is_held(a)]
        writes = [v for v in equation.outputs if _is_held(v)]
        inputs = [None if type(a) is not Literal and _is_held(a) else a for a in equation.inputs]
        outputs = [None if _is_held(v) else v for v in equation.outputs]
        self.steps.append(HostStep(equation, inputs, outputs))
        places = [self.place(a).operand for a in reads] + [self.scope.places[v].operand for v in writes]
        return HostCall(len(self.steps) - 1, places, len(reads))


def _is_empty(atom) -> bool:
    return atom.aval.size == 0


def _holds(equation: Equation) -> bool:
    """Whether all that an equation reads and writes are arrays that loop IR can hold."""
    if equation.prim is jit_p:
        return can_lower(equation.params["program"])
    return all(map(_is_held, (*equation.inputs, *equation.outputs)))


def _is_held(atom) -> bool:
    return type(atom.aval) is Aval and kind_of(atom.aval.dtype) is not None


def _shareable(group: Group, lowering: GroupLowering, stored: list[Var]) -> Takeovers:
    """Where an output of a kernel of one pass may take an input's memory."""
    if group.reduced or group.ends:
        return {}
    return by_input([
        (i, k) for k, var in enumerate(stored) for i, (source, same) in enumerate(lowering.identical.items())
        if same and words(source.aval) == words(var.aval) and source.aval.dtype == var.aval.dtype
    ])

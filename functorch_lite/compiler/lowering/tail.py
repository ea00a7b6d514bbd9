# SPDX-License-Identifier: MIT
"""What goes element by element over pooled values, where they are computed: a tail.

The schedule decides what is fused (`schedule/pools.py`). A pooling hands each value over before it is stored, so a tail
costs its own operations, and what was pooled is not in memory. It may follow a convolution that pools (`pooled`), or
the pooling of an array in memory: `call_pool`.
"""

from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Function, Index, KernelCall, Value
from functorch_lite.compiler.lowering.group_key import group_key
from functorch_lite.compiler.lowering.rules import Element, Operand, layout
from functorch_lite.compiler.lowering.walked_group import WalkedGroup
from functorch_lite.compiler.lowering.windows import write_pool
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.core.program import Var

if TYPE_CHECKING:
    from functorch_lite.compiler.lowering.program import ProgramLowering


class Tail(WalkedGroup):
    """Writes a group that reads pooled values into the kernel of the pooling."""

    def __init__(self, group: Group, schedule: Schedule, pooled: Var, result: Var):
        super().__init__("tail", group, schedule, [])
        self.pooled = pooled
        self.result = result
        self.prefix = "z"
        self._value: Element | None = None

    def key(self) -> tuple[Any, list[Any]]:
        """What equal tails have in common (None: nothing is equal), and the arrays read besides pooled values."""
        key, inputs = group_key(self.group, self.schedule, [self.result])
        given = tuple(k for k, a in enumerate(inputs) if self.is_given(a))
        return None if key is None else (key, given), [a for a in inputs if not self.is_given(a)]

    def begin(self, b: Builder) -> None:
        """Declare what is read besides pooled values."""
        self.b, self.inputs = b, {}
        self.find_inputs()
        self._find_levels()

    def is_given(self, source: Any) -> bool:
        return self.schedule.root(source) is self.pooled

    def load(self, atom: Any, at: Index) -> Element:
        if self.is_given(atom):
            assert self._value is not None
            return self._value
        return super().load(atom, at)

    def after(self, at: Index, value: Value) -> Value:
        """The result at a position of what is pooled, of the value there."""
        self.go_to(at)
        self._value, self.stage, self.rows, self.pass_values = value, 0, {}, {}
        self._compute([self.result], [])
        found = self.value(self.result)
        assert isinstance(found, Value)
        self.position = [ZERO] * len(self.position)
        return found


def tail_of(group: Group, schedule: Schedule, stored: list[Var]) -> Tail | None:
    """The tail of a pooling, if it has one; stored: what others read."""
    if group.tail is None or group.pool is None:
        return None
    return Tail(group.tail, schedule, group.pool.outputs[0], stored[0])


def call_pool(program: "ProgramLowering", group: Group, stored: list[Var]) -> None:
    """Call the kernel of a pooling with its tail; equal ones share one kernel."""
    tail, equation = tail_of(group, program.scope.schedule, stored), group.pool
    assert tail is not None and equation is not None
    known, others = tail.key()
    operand: Any = equation.inputs[0]
    key = None if known is None else (equation.prim, *sorted(equation.params.items()), operand.aval, known)
    kernel = program.kernels.get(key)
    if kernel is None:
        kernel = _kernel(f"{equation.prim.name}_{len(program.kernels)}", group, tail)
        program.kernels[key if key is not None else kernel.name] = kernel
    program.sources.setdefault(kernel.name, []).extend(group.equations)
    places = [*map(program.place, (operand, *others)), program.out_place(tail.result)]
    program.b.add(KernelCall(kernel, [*(p.operand for p in places), *map(program.scratch, kernel.scratch)]))


def _kernel(name: str, group: Group, tail: Tail) -> Function:
    """The kernel (x, what the tail reads, the result, *scratch)."""
    b, equation = Builder(name), group.pool
    assert equation is not None
    x: Any = equation.inputs[0].aval
    source = b.input("x", *layout(x))
    tail.begin(b)
    result: Any = tail.result.aval
    target = b.output("out", *layout(result))
    write_pool(b, equation.prim, Operand(source, x), equation.outputs[0].aval.shape, target, tail, **equation.params)
    return b.finish()

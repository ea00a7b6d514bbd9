# SPDX-License-Identifier: MIT
"""What statements do to what is around them: the buffers they read and write, the values they use and define."""

from collections.abc import Sequence
from typing import Any

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value, blocks


class Effects:
    """The effects of some statements, those in their blocks included.

    touches: what they read or write, in the order it is met. needs: values defined elsewhere, constants aside.
    can_fail: they may leave the program. calls_python: they have steps in Python, other than to raise an error.
    grows: they touch buffers that grow.
    """

    def __init__(self, statements: Sequence[Any]):
        self.reads: dict[Buffer, None] = {}
        self.writes: dict[Buffer, None] = {}
        self.touches: dict[Buffer, None] = {}
        self.uses: dict[Value, None] = {}
        self.defines: dict[Value, None] = {}
        self.can_fail = False
        self.calls_python = False
        self.grows = False
        self._block(statements)

    @property
    def needs(self) -> list[Value]:
        return [v for v in self.uses if v.op != "constant" and v not in self.defines]

    def _block(self, statements: Sequence[Any]) -> None:
        for s in statements:
            if type(s) is Value:
                self._value(s)
            elif type(s) is nodes.KernelCall:
                self._kernel_call(s)
            else:
                self._rarer(s)
                for block in blocks(s):
                    self._block(block)

    def _value(self, v: Value) -> None:
        self.defines[v] = None
        self._use(*v.args)
        if v.op == "load":
            self._place(self.reads, *v.attr)
        elif v.op == "index":
            self._use(*(t for t, _ in v.attr.terms))

    def _kernel_call(self, s: nodes.KernelCall) -> None:
        reads, writes, touches = self.reads, self.writes, self.touches
        for buffer, param in zip(s.buffers, s.kernel.params, strict=True):
            (reads if param.role == "in" else writes)[buffer] = touches[buffer] = None
            if buffer.role == "growing":
                self._place(touches, buffer, ZERO)
        for buffer, at in s.places if s.starts is not None else ():
            if at.terms:
                self._place(touches, buffer, at)
        self.can_fail |= s.kernel.can_fail
        if s.failure is not None:
            for buffer, at in s.failure.places:
                self._place(self.reads, buffer, at)
        self.calls_python |= s.kernel.has_steps

    def _rarer(self, s: Any) -> None:
        if isinstance(s, nodes.Store):
            self._use(s.value)
            self._place(self.writes, s.buffer, s.index)
        elif isinstance(s, nodes.Copy | nodes.Transpose):
            self._place(self.writes, s.target, s.at)
            self._place(self.reads, s.source, s.start)
        elif isinstance(s, nodes.Fill):
            self._place(self.writes, s.target, s.at)
        elif isinstance(s, nodes.Prefetch):
            self._place(self.reads, s.buffer, s.index)
        elif isinstance(s, nodes.Loop | nodes.While):
            self._loop(s)
        elif isinstance(s, nodes.If):
            self._use(s.condition, *(v for _, *values in s.results for v in values))
            self.defines.update((result, None) for result, _, _ in s.results)
        else:
            self._leaving(s)

    def _loop(self, s: nodes.Loop | nodes.While) -> None:
        for c in s.carried:
            self._use(c.initial, c.next)
            self.defines |= {c.value: None, c.result: None}
        if isinstance(s, nodes.While):
            self._use(s.condition)
            return
        self.defines[s.variable] = None
        if isinstance(s.extent, Value):
            self._use(s.extent)

    def _leaving(self, s: Any) -> None:
        """Calls of Python and libraries, exits, and memory that grows."""
        if isinstance(s, nodes.HostCall):
            self.can_fail = self.calls_python = True
            for k, (buffer, at) in enumerate(s.places):
                self._place(self.reads if k < s.reads else self.writes, buffer, at)
        elif isinstance(s, nodes.LibraryCall):
            self._library_call(s)
        elif isinstance(s, nodes.Exit):
            self.can_fail = True
            self._use(s.status)
        elif isinstance(s, nodes.Grow):
            self.can_fail = True
            self._use(s.rows)
            self._grow([buffer for buffer, _ in s.buffers])
        elif isinstance(s, nodes.Release):
            self._grow(s.buffers)

    def _grow(self, buffers: Sequence[Buffer]) -> None:
        self.grows = True
        for found in (self.writes, self.touches):
            found.update(dict.fromkeys(buffers))

    def _library_call(self, s: nodes.LibraryCall) -> None:
        for arg in s.args:
            if isinstance(arg, Value):
                self._use(arg)
            elif isinstance(arg[0], Buffer):  # what a library writes is not known
                self._place(self.reads if arg[0].role == "in" else self.writes, *arg)
        if s.result is not None:
            self.defines[s.result] = None

    def _use(self, *values: Value) -> None:
        self.uses.update(dict.fromkeys(values))

    def _place(self, buffers: dict[Buffer, None], buffer: Buffer, index: Index) -> None:
        buffers[buffer] = self.touches[buffer] = None
        if buffer.role == "growing":
            self.grows = True
        if index.terms:
            self._use(*(v for v, _ in index.terms))

# SPDX-License-Identifier: MIT
"""Running loop IR in NumPy: the oracle of every target.

A value is a NumPy scalar, or in a vector loop an array of all iterations at once: what a vector loop means is that its
iterations do not depend on one another. Other loops run one iteration at a time. What a function must not do (reach
outside a buffer, read what a local never held) raises or gives conspicuous numbers here, where compiled code could go
unnoticed. Works for functions that `verify` accepts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.builder import identity
from functorch_lite.compiler.loop_ir.nodes import Buffer, Function, Index, Value
from functorch_lite.compiler.loop_ir.numpy_ops import DTYPES, OPS, bitcast, convert
from functorch_lite.compiler.loop_ir.printer import statement_text

Host = Callable[[int, list[np.ndarray], int], int | None]


class _Left(Exception):
    """An `Exit`: the program ends with this status."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


def interpret(
    function: Function, arrays: Sequence[np.ndarray], integers: Sequence[int] = (), host: Host | None = None
) -> int:
    """Run the function on arrays, one for each parameter (C-ordered, of its kind and size); returns its status.

    host: what `HostCall`s call, as `host(number, places, reads)`: flat views from each place to its buffer's end. A
    status other than 0 (or None) leaves the program.

    Raises IndexError, which prints the statement, when a position is outside its buffer.
    """
    runner = _Runner(host)
    for buffer, array in zip(function.params, arrays, strict=True):
        runner.bind(buffer, array)
    for buffer in function.locals:
        runner.arrays[buffer] = _unset(buffer)
    for buffer in function.growing:
        runner.arrays[buffer] = np.empty(0, DTYPES[buffer.kind])
    for value, number in zip(function.integers, integers, strict=True):
        runner.values[value] = np.int64(number)
    try:
        with np.errstate(all="ignore"):
            runner.block(function.body)
    except _Left as left:
        return left.status
    return 0


def apply(op: str, kind: str, args: Sequence[Any], kinds: Sequence[str]) -> Any:
    """A scalar operation on operands of these kinds, as a value of `kind`: half precision goes through float32."""
    if op == "convert":
        return convert(args[0], kinds[0], kind)
    if op == "bitcast":
        return bitcast(args[0], kind)
    half = kinds[-1] in ("f16", "bf16")
    if not half or op == "select":
        return _of_kind(OPS[op](*args), kind)
    wide = OPS[op](*[convert(a, k, "f32") if k == kinds[-1] else a for a, k in zip(args, kinds, strict=True)])
    return wide if kind == "bool" else convert(_of_kind(wide, "f32"), "f32", kind)


def _of_kind(value, kind):
    assert value.dtype == DTYPES[kind], f"{value.dtype} is no {kind}"
    return value


def _unset(buffer: Buffer) -> np.ndarray:
    """What a local holds before it is written: numbers that show when they are used."""
    dtype = DTYPES[buffer.kind]
    if dtype.kind in "iu":
        return np.full(buffer.size, np.iinfo(dtype).max // 3, dtype)
    return np.full(buffer.size, True if buffer.kind == "bool" else np.nan, dtype)


class _Runner:
    def __init__(self, host: Host | None):
        self.host = host
        self.arrays: dict[Buffer, np.ndarray] = {}
        self.values: dict[Value, Any] = {}
        self.lanes = 0  # iterations of the vector loop that is running

    def bind(self, buffer: Buffer, array: np.ndarray) -> None:
        right = array.dtype == DTYPES[buffer.kind] and array.size == buffer.size and array.flags.c_contiguous
        assert right, f"an array of {array.size} {array.dtype} for {buffer}"
        self.arrays[buffer] = array.reshape(-1)

    def block(self, statements: list[Any]) -> None:
        for s in statements:
            if isinstance(s, Value):
                self.values[s] = self.value(s)
            else:
                _RULES[type(s)](self, s)

    # --- values -------------------------------------------------------------------------------------------------------

    def value(self, v: Value) -> Any:
        if v.op == "load":
            buffer, index = v.attr
            return self.arrays[buffer][self.position(buffer, index, 1, v)]
        if v.op == "index":
            return self.index(v.attr).astype(DTYPES[v.kind])
        return apply(v.op, v.kind, [self.get(a) for a in v.args], [a.kind for a in v.args])

    def get(self, v: Value) -> Any:
        found = self.values.get(v)
        return np.asarray(v.attr).astype(DTYPES[v.kind])[()] if found is None else found

    def index(self, index: Index) -> Any:
        total = np.int64(index.constant)
        for v, coefficient in index.terms:
            total = total + self.get(v).astype(np.int64) * np.int64(coefficient)
        return total

    def position(self, buffer: Buffer, index: Index, count: int, s: Any) -> Any:
        """The number of an index, once `count` elements there are in the buffer."""
        at = self.index(index)
        low, high = np.min(at), np.max(at) + count
        if low < 0 or high > self.arrays[buffer].size:
            raise IndexError(f"positions {low} to {high - 1} of {buffer}, in:\n{statement_text(s)}")
        return at

    def store(self, s: nodes.Store) -> None:
        """Of several values for one place the last iteration's counts."""
        at, value = self.position(s.buffer, s.index, 1, s), self.get(s.value)
        self.arrays[s.buffer][at] = value[-1] if np.ndim(value) > np.ndim(at) else value

    # --- loops and branches -------------------------------------------------------------------------------------------

    def loop(self, s: nodes.Loop) -> None:
        if s.vector and not self.lanes and isinstance(s.extent, int):
            self.vector_loop(s)
            return
        extent = s.extent if isinstance(s.extent, int) else int(self.get(s.extent))
        now = [self.get(c.initial) for c in s.carried]
        for k in reversed(range(extent)) if s.apart else range(extent):  # the last first, to see that it is the same
            self.values[s.variable] = np.int64(k)
            now = self.iteration(s, now)
        self.results(s, now)

    def iteration(self, s: nodes.Loop | nodes.While, now: list[Any]) -> list[Any]:
        self.values.update(zip((c.value for c in s.carried), now, strict=True))
        self.block(s.body)
        return [self.get(c.next) for c in s.carried]

    def results(self, s: nodes.Loop | nodes.While, now: list[Any]) -> None:
        self.values.update(zip((c.result for c in s.carried), now, strict=True))

    def vector_loop(self, s: nodes.Loop) -> None:
        """Each lane starts with the operation's identity; the lanes are combined, and the initial value with them."""
        assert isinstance(s.extent, int)
        self.lanes = s.extent
        self.values[s.variable] = np.arange(s.extent)
        last = self.iteration(s, [self.lane_start(c) for c in s.carried])
        self.lanes = 0
        self.results(s, [self.across(c, lanes, s.extent) for c, lanes in zip(s.carried, last, strict=True)])

    def lane_start(self, c: nodes.Carried) -> Any:
        assert c.combine is not None
        is_sum = c.combine == "add" and DTYPES[c.value.kind].kind not in "biu"
        return np.asarray(-0.0 if is_sum else identity(c.combine, c.value.kind)).astype(DTYPES[c.value.kind])[()]

    def across(self, c: nodes.Carried, lanes: Any, extent: int) -> Any:
        """The lanes combined in pairs, again and again."""
        lanes = np.broadcast_to(lanes, extent)
        kind, combine = c.value.kind, c.combine or ""
        while len(lanes) > 1:
            half = len(lanes) // 2
            pairs = apply(combine, kind, [lanes[:half], lanes[half : 2 * half]], [kind, kind])
            lanes = np.concatenate([pairs, lanes[2 * half :]])
        return apply(combine, kind, [self.get(c.initial), lanes[0]], [kind, kind])[()]

    def loop_while(self, s: nodes.While) -> None:
        now = [self.get(c.initial) for c in s.carried]
        while True:
            self.values.update(zip((c.value for c in s.carried), now, strict=True))
            self.block(s.test)
            if not self.get(s.condition):
                break
            now = self.iteration(s, now)
        self.results(s, now)

    def branch(self, s: nodes.If) -> None:
        holds = bool(self.get(s.condition))
        self.block(s.then if holds else s.otherwise)
        self.values.update({result: self.get(a if holds else b) for result, a, b in s.results})

    def sections(self, s: nodes.Sections) -> None:
        """The blocks one after another: any order must do."""
        for block in s.blocks:
            self.block(block)

    # --- other statements ---------------------------------------------------------------------------------------------

    def copy(self, s: nodes.Copy) -> None:
        at = self.position(s.target, s.at, s.count, s)
        start = self.position(s.source, s.start, s.count, s)
        overlap = s.target is s.source and abs(int(at) - int(start)) < s.count
        assert not overlap, f"the ranges overlap, in:\n{statement_text(s)}"
        self.arrays[s.target][at : at + s.count] = self.arrays[s.source][start : start + s.count]

    def transpose(self, s: nodes.Transpose) -> None:
        at = self.position(s.target, s.at, s.writes, s)
        start = self.position(s.source, s.start, s.reads, s)
        columns, rows = np.arange(s.columns)[:, None], np.arange(s.rows)
        places = start + columns + rows * s.stride
        self.arrays[s.target][at + columns * s.step + rows] = self.arrays[s.source][places]

    def fill(self, s: nodes.Fill) -> None:
        at = self.position(s.target, s.at, s.count, s)
        self.arrays[s.target][at : at + s.count] = 0

    def prefetch(self, s: nodes.Prefetch) -> None:
        """Nothing that could be seen."""

    def place(self, buffer: Buffer, index: Index, s: Any) -> np.ndarray:
        """The buffer's elements from this place on."""
        return self.arrays[buffer][int(self.position(buffer, index, 0, s)) :]

    def grow(self, s: nodes.Grow) -> None:
        for buffer, words in s.buffers:
            old, size = self.arrays[buffer], int(self.get(s.rows)) * words
            self.arrays[buffer] = np.concatenate([old, np.zeros(max(size - old.size, 0), old.dtype)])

    def release(self, s: nodes.Release) -> None:
        for buffer in s.buffers:
            self.arrays[buffer] = self.arrays[buffer][:0]

    def exit(self, s: nodes.Exit) -> None:
        raise _Left(int(self.get(s.status)))

    def kernel_call(self, s: nodes.KernelCall) -> None:
        places = [
            self.place(buffer, index, s)[: param.size]
            for (buffer, index), param in zip(s.places, s.kernel.params, strict=True)
        ]
        status = interpret(s.kernel, places, (), self.host)
        if status and s.failure is not None:
            self.host_call(s.failure)
        self.leave_unless_zero(status)

    def library_call(self, s: nodes.LibraryCall) -> None:
        result = s.interpret(*[self.argument(a, s) for a in s.args])
        if s.result is not None:
            self.values[s.result] = np.int32(result)

    def argument(self, a: Any, s: nodes.LibraryCall) -> Any:
        """A number, or the buffer's elements from a place on."""
        if isinstance(a, Value):
            return int(self.get(a))
        return self.place(a[0], a[1], s) if isinstance(a[0], Buffer) else a[1]

    def host_call(self, s: nodes.HostCall) -> None:
        assert self.host is not None, "a host call needs `host`"
        self.leave_unless_zero(self.host(s.number, [self.place(*p, s) for p in s.places], s.reads))

    def leave_unless_zero(self, status: int | None) -> None:
        if status:
            raise _Left(status)


_RULES: dict[type, Callable[[_Runner, Any], None]] = {
    nodes.Store: _Runner.store,
    nodes.Loop: _Runner.loop,
    nodes.While: _Runner.loop_while,
    nodes.If: _Runner.branch,
    nodes.Sections: _Runner.sections,
    nodes.Copy: _Runner.copy,
    nodes.Transpose: _Runner.transpose,
    nodes.Fill: _Runner.fill,
    nodes.Prefetch: _Runner.prefetch,
    nodes.Exit: _Runner.exit,
    nodes.KernelCall: _Runner.kernel_call,
    nodes.LibraryCall: _Runner.library_call,
    nodes.HostCall: _Runner.host_call,
    nodes.Grow: _Runner.grow,
    nodes.Release: _Runner.release,
}

__all__ = ["OPS", "apply", "interpret"]

# SPDX-License-Identifier: MIT
"""Native calls of small programs written in IR, for the tests of the call path."""

import gc
import sys
import tracemalloc
from typing import Any, NamedTuple

import numpy as np

from functorch_lite import nn, tree
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.runtime.call_path import CallSpec, native_call

F32, F64, I64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)
MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)
_ADD = {
    "float32": ("float", "fadd", "1.0"), "float64": ("double", "fadd", "1.0"),
    "int64": ("i64", "add", "1"), "int32": ("i32", "add", "1"), "int8": ("i8", "add", "1"), "bool": ("i8", "xor", "1"),
    "complex128": ("double", "fadd", "1.0"), "complex64": ("float", "fadd", "1.0"),
    "bfloat16": ("i16", "add", "32"),  # from 5 to 6, in bits
}  # fmt: skip


class Pair(NamedTuple):
    left: Any
    right: Any


class Layer(nn.Module):
    weight: nn.Array
    rate: float
    inner: Any

    def __call__(self, x):
        return x


def types_of(leaves):
    """(shape, dtype, weak) of each leaf."""
    return [(np.shape(x), np.asarray(x).dtype, type(x) in (float, int, bool, complex)) for x in leaves]


def add_one(types, returns=0):
    """IR of a program with an output for each input: the input plus one (a complex number: in its real part)."""
    lines = ["define i32 @run(ptr %ins, ptr %outs, ptr %arena, ptr %context) {"]
    for k, (shape, dtype, _) in enumerate(types):
        kind, op, one = _ADD[dtype.name]
        lines += [f" %ip{k} = getelementptr ptr, ptr %ins, i64 {k}", f" %i{k} = load ptr, ptr %ip{k}"]
        lines += [f" %op{k} = getelementptr ptr, ptr %outs, i64 {k}", f" %o{k} = load ptr, ptr %op{k}"]
        parts = 2 if dtype.kind == "c" else 1
        for e in range(parts * int(np.prod(shape))):
            v = f"{k}.{e}"
            addend = one if e % parts == 0 else "0.0"
            lines += [f" %a{v} = getelementptr {kind}, ptr %i{k}, i64 {e}", f" %x{v} = load {kind}, ptr %a{v}"]
            lines += [f" %y{v} = {op} {kind} %x{v}, {addend}", f" %b{v} = getelementptr {kind}, ptr %o{k}, i64 {e}"]
            lines += [f" store {kind} %y{v}, ptr %b{v}"]
    return "\n".join([*lines, f" ret i32 {returns}", "}"])


class Slow:
    """The callable of calls that do not fit: it counts them, and returns itself."""

    def __init__(self):
        self.calls = []

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return self


class StatusError(Exception):
    pass


def fail(status):
    raise StatusError(status)


class Native(NamedTuple):
    call: Any
    slow: Slow

    def fits(self, *args, **kwargs):
        """Whether a call with these arguments runs the program."""
        return self.call(*args, **kwargs) is not self.slow


def native(args, kwargs=None, *, text=None, symbols=None, out=None, out_types=None, in_tree=None, returns=0, **options):
    """A native call for arguments like these, by default of the program that adds one to each leaf."""
    leaves, treedef = tree.flatten(in_tree or (args, kwargs or {}))
    types = types_of(leaves)
    loaded = engine.load(text or add_one(types, returns), symbols or {}, cache=False)
    entry = np.array([loaded.address("run")], np.uintp)
    slow = Slow()
    call = native_call(CallSpec(
        treedef, types, options.pop("captured", ()), tree.structure(out if out is not None else args),
        types if out_types is None else out_types, entry.ctypes.data, slow, fail, keep=(loaded, entry),
        **options,
    ))  # fmt: skip
    return Native(call, slow)


def assert_keeps_nothing(run, *objects, times=400, size=10_000):
    """Many runs leave no memory allocated (but `size` bytes) and no references to the objects (but a few of others)."""
    for _ in range(5):
        run()
    gc.collect()
    tracemalloc.start()
    try:
        run()
        counts, held = [sys.getrefcount(x) for x in objects], tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            run()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - held < size
    finally:
        tracemalloc.stop()
    for x, count in zip(objects, counts, strict=True):
        assert abs(sys.getrefcount(x) - count) < times // 2, x

# SPDX-License-Identifier: MIT
"""Running one kernel, or one primitive's lowering, on arrays: what the tests of the lowerings share."""

import ctypes
import subprocess
import sys
import textwrap
import threading

import numpy as np

from functorch_lite.compiler.codegen.llvm.emitter import Emitter
from functorch_lite.compiler.codegen.llvm.function import write_kernel
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Function
from functorch_lite.compiler.lowering.rules import (
    Operand,
    Point,
    elementwise_rules,
    kernel_rules,
    kind_of,
    movement_rules,
    words,
)
from functorch_lite.compiler.runtime import engine
from functorch_lite.core.aval import Aval
from functorch_lite.core.rules import shape_rules


def kernel_module(function: Function, lanes_bytes: int = 64, has_fma: bool = True, quick: bool = False) -> str:
    """The LLVM module with the kernel and an exported `entry(ptr places) -> i32` around it. quick: see Emitter."""
    emitter = Emitter(has_fma=has_fma, lanes_bytes=lanes_bytes, quick=quick)
    text = write_kernel(function, emitter)
    lines = ["define i32 @entry(ptr %places) {"]
    for k in range(len(function.params)):
        lines.append(f"  %a{k} = getelementptr ptr, ptr %places, i64 {k}")
        lines.append(f"  %p{k} = load ptr, ptr %a{k}")
    given = ", ".join(f"ptr %p{k}" for k in range(len(function.params)))
    if function.can_fail:
        lines += [f"  %status = call i32 @{function.name}({given})", "  ret i32 %status", "}"]
    else:
        lines += [f"  call void @{function.name}({given})", "  ret i32 0", "}"]
    attributes = 'attributes #0 = { nounwind "prefer-vector-width"="512" }'
    return "\n".join([*emitter.declarations.values(), *emitter.tables.values(), text, *lines, attributes])


def run_kernel(function: Function, arrays, lanes_bytes: int = 64, has_fma: bool = True, quick: bool = False) -> int:
    """Run the kernel on C-ordered arrays, one for each parameter (working space is made here); returns its status.

    quick: as it is made for a first call.
    """
    arrays = [*arrays, *[np.empty(b.nbytes, np.uint8) for b in function.scratch]]
    module, level = kernel_module(function, lanes_bytes, has_fma, quick), engine.QUICK if quick else engine.USUAL
    loaded = engine.load(module, cache=False, level=level)
    places = (ctypes.c_void_p * max(len(arrays), 1))(*[a.ctypes.data for a in arrays])
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(loaded.address("entry"))(ctypes.addressof(places))


def run_rule(prim, *arrays, lanes_bytes: int = 64, has_fma: bool = True, **params):
    """A primitive's output(s) on arrays by its element-wise, movement or kernel lowering, compiled."""
    arrays = [np.asarray(a, order="C") for a in arrays]
    avals = [Aval(a.shape, a.dtype) for a in arrays]
    found = shape_rules[prim](*avals, **params)
    out_avals = found if prim.multiple else [found]
    outs = [np.empty(a.shape, a.dtype) for a in out_avals]
    function = rule_kernel(prim, avals, out_avals, params)
    status = run_kernel(function, [*arrays, *outs], lanes_bytes, has_fma)
    assert status == 0, f"{prim.name} left with status {status}"
    return outs if prim.multiple else outs[0]


def rule_kernel(prim, avals, out_avals, params) -> Function:
    """The kernel that a primitive alone lowers to."""
    b = Builder("kernel")
    ins = [b.input(f"x{k}", kind_of(a.dtype), words(a)) for k, a in enumerate(avals)]
    outs = [b.output(f"out{k}", kind_of(a.dtype), words(a)) for k, a in enumerate(out_avals)]
    if prim in kernel_rules:
        kernel_rules[prim](b, [Operand(*x) for x in zip(ins, avals, strict=True)],
                           [Operand(*x) for x in zip(outs, out_avals, strict=True)], **params)
        return b.finish()
    point = Point(b, avals, out_avals[0])
    reads = [_reader(b, buffer, aval) for buffer, aval in zip(ins, avals, strict=True)]

    def nest(index):
        shape = out_avals[0].shape
        if len(index) < len(shape):
            with b.loop(shape[len(index)], vector=len(index) == len(shape) - 1) as i:
                nest([*index, i])
            return
        if prim in movement_rules:
            element = movement_rules[prim](point, reads, index, **params)
        else:
            element = elementwise_rules[prim](point, *[r(index) for r in reads], **params)
        Operand(outs[0], out_avals[0]).store(b, index, element)

    if out_avals[0].size:
        nest([])
    return b.finish()


def _reader(b, buffer, aval):
    def read(index):
        return Operand(buffer, aval).load(b, index if aval.shape else [])

    return read


__all__ = ["kernel_module", "rule_kernel", "run_kernel", "run_rule"]


def in_threads(number: int, work) -> None:
    """`work(k)` for each k below `number`, in a thread each; returns when all have ended."""
    started = [threading.Thread(target=work, args=(k,)) for k in range(number)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


FORKS_BESIDE = """
expected, stop, wrong = run(), [], []
def work():
    while not stop:
        if run() != expected:
            wrong.append(1)
thread = threading.Thread(target=work)
thread.start()
for _ in range(10):
    time.sleep(0.005)
    child = os.fork()
    if not child:
        os._exit(0 if run() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.append(1)
thread.join()
print(len(wrong))
"""
"""A program that forks ten times while a thread calls `run()`, which gives bytes; prints how often they were others."""


def in_a_new_process(code: str) -> str:
    """What a program prints; it must end by itself, with nothing on stderr."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True,
                          timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout

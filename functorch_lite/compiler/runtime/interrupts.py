# SPDX-License-Identifier: MIT
"""Ctrl-C in compiled code. Where a signal's handler raises, the exception is put aside and the program leaves with
status INTERRUPTED; `reraise` raises it.

    i32 poll_signals(ptr last)

is what loops call every millisecond or so. On the main thread it has Python run the handlers of signals that came, at
most every 20 ms, since that may have to wait for the GIL. `last` is where the time of the last look is kept, 0 at
first; with a null pointer it looks in any case.

    i32 run_step(ptr function, i64 number, ptr places)

calls a Python function for a step in Python. The function puts aside what the step raises; what comes through all the
same is of a handler that ran before its `try` began or after it ended. (A ctypes callback would print and drop it.)
"""

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Iterable
from typing import NoReturn

import numpy as np

from functorch_lite.compiler.loop_ir.nodes import INTERRUPTED, NO_MEMORY
from functorch_lite.compiler.loop_ir.polls import POLL
from functorch_lite.compiler.runtime import engine

RUN_STEP = "run_step"
_PAUSE = 20_000_000  # nanoseconds
_MONOTONIC = 6 if sys.platform == "darwin" else 1
_PYTHON = (
    "PyThread_get_thread_ident", "PyGILState_Ensure", "PyGILState_Release", "PyErr_CheckSignals", "PyErr_Fetch",
    "PyErr_Clear", "PyLong_FromVoidPtr", "PyLong_AsLong", "PyObject_Vectorcall", "Py_DecRef",
)  # fmt: skip
_words = np.zeros(4, np.uintp)  # the type, value and traceback of an exception put aside; the main thread

_TEXT = f"""
declare i64 @PyThread_get_thread_ident()
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyErr_CheckSignals()
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_Clear()
declare ptr @PyLong_FromVoidPtr(ptr)
declare i64 @PyLong_AsLong(ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare void @Py_DecRef(ptr)
@words = external global [4 x i64]

define i32 @{POLL}(ptr %last) {{
entry:
  %is.main = call i1 @on_main_thread()
  br i1 %is.main, label %time, label %fine
time:
  %at.once = icmp eq ptr %last, null
  br i1 %at.once, label %look, label %clock
clock:
%CLOCK%
  %before = load i64, ptr %last
  %first = icmp eq i64 %before, 0
  br i1 %first, label %begin, label %since
begin:
  store i64 %now, ptr %last
  ret i32 0
since:
  %passed = sub i64 %now, %before
  %long = icmp ugt i64 %passed, {_PAUSE}
  br i1 %long, label %again, label %fine
again:
  store i64 %now, ptr %last
  br label %look
look:
  %gil = call i32 @PyGILState_Ensure()
  %found = call i32 @PyErr_CheckSignals()
  %raised = icmp slt i32 %found, 0
  br i1 %raised, label %aside, label %none
aside:
  call void @put_aside()
  call void @PyGILState_Release(i32 %gil)
  ret i32 {INTERRUPTED}
none:
  call void @PyGILState_Release(i32 %gil)
  ret i32 0
fine:
  ret i32 0
}}

define internal i1 @on_main_thread() {{
  %main.at = getelementptr i64, ptr @words, i64 3
  %main = load i64, ptr %main.at
  %here = call i64 @PyThread_get_thread_ident()
  %is.main = icmp eq i64 %here, %main
  ret i1 %is.main
}}

define internal void @put_aside() {{
  %value.at = getelementptr i64, ptr @words, i64 1
  %trace.at = getelementptr i64, ptr @words, i64 2
  call void @PyErr_Fetch(ptr @words, ptr %value.at, ptr %trace.at)
  ret void
}}

define i32 @{RUN_STEP}(ptr %function, i64 %number, ptr %places) {{
entry:
  %args = alloca [2 x ptr]
  %gil = call i32 @PyGILState_Ensure()
  %number.at = inttoptr i64 %number to ptr
  %first = call ptr @PyLong_FromVoidPtr(ptr %number.at)
  %second = call ptr @PyLong_FromVoidPtr(ptr %places)
  %second.at = getelementptr ptr, ptr %args, i64 1
  store ptr %first, ptr %args
  store ptr %second, ptr %second.at
  %found = call ptr @PyObject_Vectorcall(ptr %function, ptr %args, i64 2, ptr null)
  call void @Py_DecRef(ptr %first)
  call void @Py_DecRef(ptr %second)
  %raised = icmp eq ptr %found, null
  br i1 %raised, label %failed, label %returned
returned:
  %status = call i64 @PyLong_AsLong(ptr %found)
  call void @Py_DecRef(ptr %found)
  call void @PyGILState_Release(i32 %gil)
  %short = trunc i64 %status to i32
  ret i32 %short
failed:
  %is.main = call i1 @on_main_thread()
  br i1 %is.main, label %aside, label %dropped
aside:
  call void @put_aside()
  br label %leave
dropped:
  call void @PyErr_Clear()
  br label %leave
leave:
  call void @PyGILState_Release(i32 %gil)
  ret i32 {INTERRUPTED}
}}
"""
_CLOCK = f"""  %spec = alloca [2 x i64]
  %ignored = call i32 @clock_gettime(i32 {_MONOTONIC}, ptr %spec)
  %seconds = load i64, ptr %spec
  %rest.at = getelementptr i64, ptr %spec, i64 1
  %rest = load i64, ptr %rest.at
  %scaled = mul i64 %seconds, 1000000000
  %now = add i64 %scaled, %rest"""
_NO_CLOCK = f"""  %old = load i64, ptr %last
  %now = add i64 %old, {_PAUSE + 1}"""


def symbols(ir: str) -> dict[str, int]:
    """The addresses of those of the two functions that a module calls."""
    return addresses([name for name in (POLL, RUN_STEP) if f"@{name}(" in ir])


def addresses(names: Iterable[str]) -> dict[str, int]:
    """The addresses of these of the two functions."""
    return {name: _load().address(name) for name in names}


@functools.cache
def _load() -> engine.Loaded:
    _note_main_thread()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_note_main_thread)
    given = {name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0 for name in _PYTHON}
    has_clock = sys.platform != "win32"
    text = _TEXT.replace("%CLOCK%", _CLOCK if has_clock else _NO_CLOCK)
    text += "declare i32 @clock_gettime(i32, ptr)\n" if has_clock else ""
    return engine.load(text, {**given, "words": _words.ctypes.data}, level=engine.QUICK).keep()


def _note_main_thread() -> None:
    _words[3] = threading.main_thread().ident or 0


def raise_for(status: int) -> None:
    """Raise what a status of compiled code says, unless it is the failure of a step in Python."""
    if status == INTERRUPTED:
        reraise()
    if status == NO_MEMORY:
        raise MemoryError("there is no memory for what the iterations of a loop leave for its reverse pass.")


_restore = ctypes.PYFUNCTYPE(None, *[ctypes.c_void_p] * 3)(("PyErr_Restore", ctypes.pythonapi))


def reraise() -> NoReturn:
    """Raise the exception of a signal handler that ended a program."""
    kind, value, trace = (int(w) or None for w in _words[:3])
    _words[:3] = 0
    _restore(kind, value, trace)
    raise KeyboardInterrupt  # when nothing was put aside


__all__ = ["POLL", "RUN_STEP", "addresses", "raise_for", "symbols"]

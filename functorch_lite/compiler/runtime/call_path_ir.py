# SPDX-License-Identifier: MIT
"""The native side of call_path.py, as LLVM IR: one module for all programs, steered by tables of 64-bit words.

A builtin's `self` is an array of int64, the *state*, with the fields of `State`. Three tables hang off it:

    walk plan    one entry for each node of the arguments, depth first
                 ARRAY descr, scalar type or 0, rank, lengths ...   NUMBER type   TRUTH   INTEGER   NONE   SAME value
                 TUPLE type, n, children ...   LIST type, n, children ...
                 DICT type, n, (key, child) ...   OBJECT type, n, (attribute name, child) ...
    outputs      one entry for each output of the program
                 ARRAY descr, rank, leaf in whose memory it is made or -1, lengths ...
                 SCALAR descr    FLOAT 0    INTEGER 0    TRUTH 0    COMPLEX 0
    build plan   one entry for each node of the result, depth first
                 LEAF   CONSTANT value   TUPLE n, 0, children ...   LIST n, 0, children ...
                 CALL n, callable, children ...   DICT n, template, (key, child) ...
                 OBJECT n, type, (attribute name, child) ...

Donated leaves have two tables more: `donated` (leaf, references it may have), `takes` (output, leaf); see
call_path_ir_donation.py.

A call lays out its frame, on the stack where it is small: cells of 16 bytes (values of int arguments, outputs of rank
0), the program's inputs, the argument leaves it owns, the program's output pointers, the output objects.

References: `walk` takes the one it is given; leaves are owned until the call ends, so that other threads may drop
theirs while the GIL is released. A failed guard leaves no error set; a failed allocation undoes what was made.

In the text, `%x = word ptr %base, i` loads the i-th 64-bit word at %base (i: a number, register or field name),
`%x = field i32 %base, n` loads what lies n bytes after %base, and `put ptr %x, %base, i` stores a word.
"""

import itertools
import re
from enum import IntEnum

from functorch_lite.compiler.runtime.call_path_ir_arguments import ARGUMENTS, WALK
from functorch_lite.compiler.runtime.call_path_ir_donation import DONATION
from functorch_lite.compiler.runtime.call_path_ir_results import RESULTS

State = IntEnum(
    "State",
    "allowed allowed_value n_contexts contexts n_args n_keywords keywords walk n_leaves n_captured captured "
    "n_outputs outputs build entry context arena_bytes arena release_gil slow failure frame_bytes n_cells calls "
    "n_donated donated n_takes takes mark",
    start=0,
)
Walk = IntEnum("Walk", "array number truth integer none same tuple list dict object", start=0)
Output = IntEnum("Output", "array scalar float integer truth complex", start=0)
Build = IntEnum("Build", "leaf constant tuple list dict object call", start=0)

# Bytes from the start of an object; call_path.py tests them on known objects before it uses this module.
TYPE, SIZE, VALUE = 8, 16, 16
TUPLE_ITEMS, LIST_ITEMS = 24, 24
ARRAY_DATA, ARRAY_RANK, ARRAY_LENGTHS, ARRAY_DTYPE, ARRAY_FLAGS = 16, 24, 32, 56, 64
REFERENCES, ARRAY_BASE, ARRAY_HANDLER = 0, 48, 88
DTYPE_ORDER, DTYPE_NUMBER = 26, 28
CONTIGUOUS_ALIGNED = 0x101
OWNED, WRITEABLE, OWNED_WRITEABLE, PLAIN_ARRAY, NOT_OWNED, NOT_ALIGNED = 0x4, 0x400, 0x404, 0x501, ~0x4, ~0x100
STACK_BYTES = 16384

DATA = (
    "PyArray_Type", "PyLong_Type", "PyBool_Type", "_Py_NoneStruct", "_Py_TrueStruct", "object_new",
)  # fmt: skip
FUNCTIONS = {
    "Py_IncRef": "void (ptr)", "Py_DecRef": "void (ptr)",
    "PyErr_Clear": "void ()", "PyErr_Occurred": "ptr ()", "PyErr_NoMemory": "ptr ()",
    "PyMem_RawMalloc": "ptr (i64)", "PyMem_RawFree": "void (ptr)",
    "PyEval_SaveThread": "ptr ()", "PyEval_RestoreThread": "void (ptr)",
    "PyContextVar_Get": "i32 (ptr, ptr, ptr)",
    "PyObject_Vectorcall": "ptr (ptr, ptr, i64, ptr)", "PyObject_CallObject": "ptr (ptr, ptr)",
    "PyObject_CallFunctionObjArgs": "ptr (ptr, ...)",
    "PyObject_GetAttr": "ptr (ptr, ptr)", "PyObject_GenericSetAttr": "i32 (ptr, ptr, ptr)",
    "PyObject_RichCompareBool": "i32 (ptr, ptr, i32)",
    "PyTuple_New": "ptr (i64)", "PyList_New": "ptr (i64)", "PyDict_Copy": "ptr (ptr)",
    "PyDict_GetItemWithError": "ptr (ptr, ptr)", "PyDict_SetItem": "i32 (ptr, ptr, ptr)",
    "PyLong_AsLongLongAndOverflow": "i64 (ptr, ptr)", "PyLong_FromLongLong": "ptr (i64)",
    "PyFloat_FromDouble": "ptr (double)", "PyBool_FromLong": "ptr (i64)",
    "PyComplex_FromDoubles": "ptr (double, double)",
    "PyArray_NewFromDescr": "ptr (ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)", "PyArray_Scalar": "ptr (ptr, ptr, ptr)",
}  # fmt: skip

_CALL = """
; Run the program, with its arena and with the GIL released if so asked; its status.
define internal i32 @run(ptr %state, ptr %inputs, ptr %pointers) {
entry:
  %program.at = word ptr %state, entry
  %program = load ptr, ptr %program.at
  %context = word ptr %state, context
  %bytes = word i64 %state, arena_bytes
  %slot = place %state, arena
  %needs.none = icmp eq i64 %bytes, 0
  br i1 %needs.none, label %ready, label %take
take:
  %left = atomicrmw xchg ptr %slot, ptr null acq_rel
  %taken = icmp eq ptr %left, null
  br i1 %taken, label %fresh, label %align
fresh:
  %bytes.spare = add i64 %bytes, 63
  %new = call ptr @PyMem_RawMalloc(i64 %bytes.spare)
  %no.memory = icmp eq ptr %new, null
  br i1 %no.memory, label %fail, label %align
fail:
  %ignored = call ptr @PyErr_NoMemory()
  ret i32 -1
align:
  %block = phi ptr [%left, %take], [%new, %fresh]
  %past = getelementptr i8, ptr %block, i64 63
  %aligned = call ptr @llvm.ptrmask.p0.i64(ptr %past, i64 -64)
  br label %ready
ready:
  %raw = phi ptr [null, %entry], [%block, %align]
  %arena = phi ptr [null, %entry], [%aligned, %align]
  %release = word i64 %state, release_gil
  %releases = icmp ne i64 %release, 0
  br i1 %releases, label %free.run, label %held.run
free.run:
  %thread = call ptr @PyEval_SaveThread()
  %free.status = call i32 %program(ptr %inputs, ptr %pointers, ptr %arena, ptr %context)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %ran
held.run:
  %held.status = call i32 %program(ptr %inputs, ptr %pointers, ptr %arena, ptr %context)
  br label %ran
ran:
  %status = phi i32 [%free.status, %free.run], [%held.status, %held.run]
  %used.none = icmp eq ptr %raw, null
  br i1 %used.none, label %end, label %give.back
give.back:
  %other = atomicrmw xchg ptr %slot, ptr %raw acq_rel
  %none.there = icmp eq ptr %other, null
  br i1 %none.there, label %end, label %free
free:
  call void @PyMem_RawFree(ptr %other)
  br label %end
end:
  ret i32 %status
}

; What a call whose program reported %status returns: that of the failure callable, unless an error is set already.
define internal ptr @fail(ptr %state, i32 %status) {
entry:
  %set = call ptr @PyErr_Occurred()
  %is.set = icmp ne ptr %set, null
  br i1 %is.set, label %none, label %tell
tell:
  %wide = sext i32 %status to i64
  %number = call ptr @PyLong_FromLongLong(i64 %wide)
  %failed = icmp eq ptr %number, null
  br i1 %failed, label %none, label %call
call:
  %failure = word ptr %state, failure
  %result = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %failure, ptr %number, ptr null)
  call void @Py_DecRef(ptr %number)
  ret ptr %result
none:
  ret ptr null
}

; The result of the call on checked inputs; null with an error set.
define internal ptr @compute(ptr %state, ptr %inputs, ptr %pointers, ptr %objects, ptr %cells, ptr %owned) {
entry:
  %cursor = alloca [2 x ptr]
  %n = word i64 %state, n_outputs
  %plan = word ptr %state, outputs
  %allocated = call i1 @allocate(ptr %plan, i64 %n, ptr %pointers, ptr %objects, ptr %cells, ptr %owned)
  br i1 %allocated, label %enter, label %none
enter:
  %status = call i32 @run(ptr %state, ptr %inputs, ptr %pointers)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %boxing, label %failed
failed:
  call void @drop(ptr %objects, i64 %n)
  %instead = call ptr @fail(ptr %state, i32 %status)
  ret ptr %instead
boxing:
  %boxed = call i1 @box(ptr %plan, i64 %n, ptr %pointers, ptr %objects)
  br i1 %boxed, label %giving, label %unboxed
giving:
  %given = call i1 @give(ptr %state, ptr %owned, ptr %objects)
  br i1 %given, label %building, label %unboxed
unboxed:
  call void @drop(ptr %objects, i64 %n)
  br label %none
building:
  %build.plan = word ptr %state, build
  put ptr %build.plan, %cursor, 0
  put ptr %objects, %cursor, 1
  %result = call ptr @build(ptr %cursor)
  %unbuilt = icmp eq ptr %result, null
  br i1 %unbuilt, label %undo, label %built
undo:  ; what containers had taken went with them
  %next = word ptr %cursor, 1
  %next.address = ptrtoint ptr %next to i64
  %objects.address = ptrtoint ptr %objects to i64
  %used.bytes = sub i64 %next.address, %objects.address
  %used = lshr i64 %used.bytes, 3
  %unused = sub i64 %n, %used
  call void @drop(ptr %next, i64 %unused)
  br label %none
built:
  ret ptr %result
none:
  ret ptr null
}

; The result of the call, null with an error set, or @declined.
define internal ptr @framed(ptr %state, ptr %args, i64 %n.args, ptr %names, ptr %frame) noinline "no-builtins" {
entry:
  %cursor = alloca [3 x ptr]
  %n.cells = word i64 %state, n_cells
  %n.captured = word i64 %state, n_captured
  %n.leaves = word i64 %state, n_leaves
  %n.outputs = word i64 %state, n_outputs
  %captured = word ptr %state, captured
  %n.cell.words = shl i64 %n.cells, 1
  %inputs = getelementptr ptr, ptr %frame, i64 %n.cell.words
  %inputs.leaves = getelementptr ptr, ptr %inputs, i64 %n.captured
  %owned = getelementptr ptr, ptr %inputs.leaves, i64 %n.leaves
  %pointers = getelementptr ptr, ptr %owned, i64 %n.leaves
  %objects = getelementptr ptr, ptr %pointers, i64 %n.outputs
  put ptr %inputs.leaves, %cursor, 0
  put ptr %owned, %cursor, 1
  put ptr %frame, %cursor, 2
  br label %constants
constants:
  %i = phi i64 [0, %entry], [%i.next, %constant]
  %more = icmp ult i64 %i, %n.captured
  br i1 %more, label %constant, label %walking
constant:
  %pointer = word ptr %captured, %i
  put ptr %pointer, %inputs, %i
  %i.next = add i64 %i, 1
  br label %constants
walking:
  %fit = call i1 @arguments(ptr %state, ptr %args, i64 %n.args, ptr %names, ptr %cursor)
  %cells = word ptr %cursor, 2
  br i1 %fit, label %donating, label %end
donating:
  %n.donated = word i64 %state, n_donated
  %donated = word ptr %state, donated
  %may = call i1 @may_give(ptr %donated, i64 %n.donated, ptr %owned)
  br i1 %may, label %computing, label %end
computing:
  %calls = word i64 %state, calls
  %calls.now = add i64 %calls, 1
  %calls.at = place %state, calls
  store i64 %calls.now, ptr %calls.at
  %result = call ptr @compute(ptr %state, ptr %inputs, ptr %pointers, ptr %objects, ptr %cells,
    ptr %owned)
  br label %end
end:
  %outcome = phi ptr [@declined, %walking], [@declined, %donating], [%result, %computing]
  %owned.end = word ptr %cursor, 1
  %owned.address = ptrtoint ptr %owned to i64
  %owned.end.address = ptrtoint ptr %owned.end to i64
  %owned.bytes = sub i64 %owned.end.address, %owned.address
  %n.owned = lshr i64 %owned.bytes, 3
  call void @drop(ptr %owned, i64 %n.owned)
  ret ptr %outcome
}

define internal ptr @attempt(ptr %state, ptr %args, i64 %n.args, ptr %names) noinline {
entry:
  %bytes = word i64 %state, frame_bytes
  %large = icmp ugt i64 %bytes, STACK_BYTES
  br i1 %large, label %heap, label %stack
stack:
  %local = alloca i8, i64 %bytes, align 16
  %quick = call ptr @framed(ptr %state, ptr %args, i64 %n.args, ptr %names, ptr %local)
  ret ptr %quick
heap:
  %block = call ptr @PyMem_RawMalloc(i64 %bytes)
  %no.memory = icmp eq ptr %block, null
  br i1 %no.memory, label %fail, label %use
fail:
  %null = call ptr @PyErr_NoMemory()
  ret ptr %null
use:
  %result = call ptr @framed(ptr %state, ptr %args, i64 %n.args, ptr %names, ptr %block)
  call void @PyMem_RawFree(ptr %block)
  ret ptr %result
}

; METH_FASTCALL | METH_KEYWORDS
define ptr @call(ptr %self, ptr %args, i64 %n.args, ptr %names) {
entry:
  %state = field ptr %self, ARRAY_DATA
  %may = call i1 @may_try(ptr %state, i64 %n.args, ptr %names)
  br i1 %may, label %try, label %slow
try:
  %result = call ptr @attempt(ptr %state, ptr %args, i64 %n.args, ptr %names)
  %is.declined = icmp eq ptr %result, @declined
  br i1 %is.declined, label %slow, label %done
done:
  ret ptr %result
slow:
  %callable = word ptr %state, slow
  %instead = call ptr @PyObject_Vectorcall(ptr %callable, ptr %args, i64 %n.args, ptr %names)
  ret ptr %instead
}
"""


def _expanded(text: str) -> str:
    """The IR with its shorthands written out."""
    counter = itertools.count()

    def place(base, index):
        number = State[index].value if index in State.__members__ else index
        return f"getelementptr i64, ptr {base}, i64 {number}"

    def load(match):
        name, kind, base, index = match.groups()
        at = f"%at.{next(counter)}"
        return f"  {at} = {place(base, index)}\n  {name} = load {kind}, ptr {at}"

    def field(match):
        name, kind, base, offset = match.groups()
        at = f"%at.{next(counter)}"
        return f"  {at} = getelementptr i8, ptr {base}, i64 {offset}\n  {name} = load {kind}, ptr {at}"

    def put(match):
        value, base, index = match.groups()
        at = f"%at.{next(counter)}"
        return f"  {at} = {place(base, index)}\n  store ptr {value}, ptr {at}"

    text = re.sub(r"^  (%[\w.]+) = word (ptr|i64) (%[\w.]+), (%?[\w.]+)", load, text, flags=re.MULTILINE)
    text = re.sub(r"^  (%[\w.]+) = field (ptr|i\d+) (%[\w.]+), (\w+)", field, text, flags=re.MULTILINE)
    text = re.sub(r"^  put ptr (%[\w.]+), (%[\w.]+), (%?[\w.]+)", put, text, flags=re.MULTILINE)
    return re.sub(r"= place (%[\w.]+), (\w+)", lambda m: f"= {place(*m.groups())}", text)


def _cases(ops: type[IntEnum]) -> str:
    return " ".join(f"i64 {op:d}, label %on.{op.name}" for op in ops)


def module_text() -> str:
    """The whole module: it defines `call`, for a builtin with METH_FASTCALL | METH_KEYWORDS."""
    names = {
        **{name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)},
        "DICT": Walk.dict, "LIST": Walk.list, "OBJECT": Walk.object,
        "B_DICT": Build.dict, "B_LIST": Build.list, "B_OBJECT": Build.object, "B_CALL": Build.call,
        "WALK_CASES": _cases(Walk), "OUTPUT_CASES": _cases(Output), "BUILD_CASES": _cases(Build),
    }  # fmt: skip
    body = _expanded(WALK + ARGUMENTS + DONATION + RESULTS + _CALL)
    body = re.sub(r"\b[A-Z]\w+\b", lambda m: f"{names[m[0]]}" if m[0] in names else m[0], body)
    declared = [f"@{name} = external global i8" for name in DATA]
    for name, kind in FUNCTIONS.items():
        result, parameters = kind.split(" ", 1)
        declared.append(f"declare {result} @{name}{parameters}")
    declared.append("declare ptr @llvm.ptrmask.p0.i64(ptr, i64)")
    own = ["@true_byte = internal constant i8 1", "@false_byte = internal constant i8 0"]
    own.append("@declined = internal global i8 0")
    return "\n".join(declared + own) + body

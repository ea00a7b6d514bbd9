# SPDX-License-Identifier: MIT
import ctypes
import gc
import sys
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.compiler.native_calls import F32, I64, MATRIX, Layer, Pair, StatusError, assert_keeps_nothing, native
from tests.compiler.support import in_threads


def test_a_status_is_given_to_the_failure_callable():
    f = native((MATRIX, 1), out=(MATRIX, 1), returns=7)
    with pytest.raises(StatusError, match="7"):
        f.call(MATRIX, 1)

    def failing():
        with pytest.raises(StatusError):
            f.call(MATRIX, 1)

    assert_keeps_nothing(failing, MATRIX, F32)


def test_an_error_that_the_program_left_is_raised():
    text = """
@error = external global i8
declare void @PyErr_SetNone(ptr)
define i32 @run(ptr %ins, ptr %outs, ptr %arena, ptr %context) {
  call void @PyErr_SetNone(ptr @error)
  ret i32 1
}"""
    set_none = ctypes.cast(ctypes.pythonapi.PyErr_SetNone, ctypes.c_void_p).value
    f = native((MATRIX,), out=MATRIX, text=text, symbols={"error": id(ZeroDivisionError), "PyErr_SetNone": set_none})
    with pytest.raises(ZeroDivisionError):
        f.call(MATRIX)


@pytest.mark.parametrize("options", [
    {"out_types": [((4,), F32, False), ((1 << 45,), F32, False)]},
    {"arena_bytes": 1 << 60},
], ids=["an output", "the arena"])  # fmt: skip
def test_no_memory_undoes_what_was_made(options):
    x = np.zeros(4, np.float32)
    f = native((x, x), out=(x, x), **options)

    def failing():
        with pytest.raises(MemoryError):
            f.call(x, x)

    assert_keeps_nothing(failing, x, F32)


class Refusing(NamedTuple("Refusing", [("x", Any)])):  # noqa: SLOT002
    armed = False

    def __new__(cls, x):
        if cls.armed:
            raise ZeroDivisionError
        return super().__new__(cls, x)


def test_a_result_that_cannot_be_built_is_undone():
    out = {"a": MATRIX, "b": [MATRIX, Refusing(MATRIX)], "c": (MATRIX,)}
    f = native((MATRIX,) * 4, out=out)
    assert type(f.call(*(MATRIX,) * 4)["b"][1]) is Refusing

    def failing():
        with pytest.raises(ZeroDivisionError):
            f.call(*(MATRIX,) * 4)

    Refusing.armed = True
    try:
        assert_keeps_nothing(failing, MATRIX, F32, Refusing)
    finally:
        Refusing.armed = False


def test_calls_keep_nothing():
    model = Layer(np.zeros(1000, np.float32), 0.5, None)
    t = ({"k": [model, 1.5, 7, True, 1j]}, Pair(np.float32(1), None))
    watched = [model, model.weight, t[0]["k"], *t, None, F32, t[1].left, Layer, Pair, True, "weight", "k"]
    f = native(t, out=t)
    assert_keeps_nothing(lambda: f.call(*t), *watched)
    odd = (t[0], Pair(np.float64(1), None))

    def declined():
        assert not f.fits(*odd)
        f.slow.calls.clear()

    assert_keeps_nothing(declined, *watched, odd[1], odd[1].left)


@pytest.mark.parametrize("n", [500, 3000])
def test_many_leaves(n):
    """The frame of 3000 leaves is too large for the stack."""
    text = f"""
define i32 @run(ptr %ins, ptr %outs, ptr %arena, ptr %context) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %ip = getelementptr ptr, ptr %ins, i64 %i
  %op = getelementptr ptr, ptr %outs, i64 %i
  %in = load ptr, ptr %ip
  %out = load ptr, ptr %op
  %x = load float, ptr %in
  %y = fadd float %x, 1.0
  store float %y, ptr %out
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, {n}
  br i1 %more, label %loop, label %end
end:
  ret i32 0
}}"""
    t = [np.full(1, i, np.float32) for i in range(n)]
    f = native((t,), out=t, text=text)
    result = f.call(t)
    assert [r[0] for r in result] == list(range(1, n + 1))
    assert not f.fits([*t[:-1], None])
    f.slow.calls.clear()
    assert {sys.getrefcount(x) for x in t} == {2 + 1}


def arena_program(work=0):
    """Writes the input to the arena and reads it back, after some `work`; the second output is the arena's address."""
    return f"""
define i32 @run(ptr %ins, ptr %outs, ptr %arena, ptr %context) {{
entry:
  %xp = load ptr, ptr %ins
  %op = load ptr, ptr %outs
  %pp = getelementptr ptr, ptr %outs, i64 1
  %p = load ptr, ptr %pp
  %x = load i64, ptr %xp
  %last = getelementptr i64, ptr %arena, i64 127
  store volatile i64 %x, ptr %arena
  store volatile i64 %x, ptr %last
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%n, %loop]
  %w = load volatile i64, ptr %xp
  %n = add i64 %i, 1
  %m = icmp ult i64 %i, {work}
  br i1 %m, label %loop, label %end
end:
  %a = load volatile i64, ptr %arena
  %b = load volatile i64, ptr %last
  %y = add i64 %a, %b
  store i64 %y, ptr %op
  %address = ptrtoint ptr %arena to i64
  store i64 %address, ptr %p
  ret i32 0
}}"""


def test_the_arena_is_aligned_and_kept_between_calls():
    f = native((1,), out=(0, 0), out_types=[((), I64, True)] * 2, text=arena_program(), arena_bytes=1024)
    first, second = f.call(3), f.call(4)
    assert first[0] == 6 and second[0] == 8
    assert first[1] % 64 == 0 and first[1] == second[1]


def test_threads_share_a_program_with_the_gil_released():
    f = native((1,), out=(0, 0), out_types=[((), I64, True)] * 2, text=arena_program(20_000), arena_bytes=1024,
               release_gil=True)  # fmt: skip
    wrong = []

    def work(k):
        for i in range(100):
            value = f.call(1000 * k + i)[0]
            if value != 2 * (1000 * k + i):
                wrong.append((k, i, value))

    in_threads(4, work)
    assert not wrong


def test_arguments_may_be_dropped_while_the_program_runs():
    """A program that calls Python, which empties the list of arguments and calls the same builtin again."""
    text = """
declare void @back()
define i32 @run(ptr %ins, ptr %outs, ptr %arena, ptr %context) {
  call void @back()
  %xp = load ptr, ptr %ins
  %op = load ptr, ptr %outs
  %x = load float, ptr %xp
  store float %x, ptr %op
  ret i32 0
}"""
    argument = [np.full(100_000, 5, np.float32)]
    seen = []

    @ctypes.PYFUNCTYPE(None)
    def back():
        if argument:
            argument.clear()
            seen.append(f.call([np.full(100_000, 9, np.float32)])[0])

    f = native((argument,), out=0, out_types=[((1,), F32, False)], text=text,
               symbols={"back": ctypes.cast(back, ctypes.c_void_p).value})  # fmt: skip
    assert f.call(argument)[0] == 5 and seen == [9]


def test_the_context_is_handed_on():
    text = """
define i32 @run(ptr %ins, ptr %outs, ptr %arena, ptr %context) {
  %op = load ptr, ptr %outs
  %address = ptrtoint ptr %context to i64
  store i64 %address, ptr %op
  ret i32 0
}"""
    f = native((), out=0, text=text, out_types=[((), I64, True)], context=0x1234)
    assert f.call() == 0x1234


def test_a_builtin_can_be_the_call_of_a_class():
    f = native((MATRIX,), out=MATRIX)
    instance = type("Jitted", (), {"__call__": f.call})()
    np.testing.assert_array_equal(instance(MATRIX), MATRIX + 1)


def test_a_builtin_and_what_it_holds_are_collected():
    f = native((MATRIX,), out=MATRIX, arena_bytes=1 << 20)
    f.call(MATRIX)
    f.slow.builtin = f.call  # a cycle, as from a function that holds its programs
    gone = weakref.ref(f.slow)
    del f
    gc.collect()
    assert gone() is None

    def made_and_dropped():
        native((MATRIX,), out=MATRIX, arena_bytes=1 << 20).call(MATRIX)

    assert_keeps_nothing(made_and_dropped, times=20, size=1 << 20)

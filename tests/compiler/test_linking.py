# SPDX-License-Identifier: MIT
"""Our own linker: every kind of section and relocation that it knows, what it leaves to LLVM, and what it frees."""

import ctypes

import pytest

from functorch_lite.compiler.runtime import engine, linking

pytestmark = pytest.mark.skipif(not linking.is_for_this_platform(), reason="LLVM links the objects of this platform")

I64 = ctypes.c_int64

IR = """
@outside = external global i64
@count = internal global i64 5
@zeros = internal global [3 x i64] zeroinitializer
@table = internal constant [3 x i64] [i64 10, i64 20, i64 30]
@functions = internal constant [2 x ptr] [ptr @one, ptr @labs]
@halves = internal constant [4 x double] [double 0.5, double 1.5, double 2.5, double 3.5]
declare i64 @labs(i64)
declare i64 @given(i64)
define internal i64 @one(i64 %x) {
  ret i64 1
}
define i64 @called(i64 %k, i64 %x) {
  %at = getelementptr ptr, ptr @functions, i64 %k
  %f = load ptr, ptr %at
  %r = call i64 %f(i64 %x)
  ret i64 %r
}
define i64 @counted() {
  %old = load i64, ptr @count
  %new = add i64 %old, 1
  store i64 %new, ptr @count
  %zero.at = getelementptr [3 x i64], ptr @zeros, i64 0, i64 2
  %zero = load i64, ptr %zero.at
  %less = add i64 %zero, 100
  store i64 %less, ptr %zero.at
  %r = add i64 %new, %less
  ret i64 %r
}
define i64 @looked_up(i64 %k) {
  %at = getelementptr i64, ptr @table, i64 %k
  %mine = load i64, ptr %at
  %theirs = load i64, ptr @outside
  %r = add i64 %mine, %theirs
  ret i64 %r
}
define i64 @asked(i64 %x) {
  %r = call i64 @given(i64 %x)
  ret i64 %r
}
define double @half(i64 %k) {
  %at = getelementptr double, ptr @halves, i64 %k
  %x = load double, ptr %at
  %r = fadd double %x, 0.125
  ret double %r
}
define ptr @place() {
  ret ptr @outside
}
"""
NAMES = ["called", "counted", "looked_up", "asked", "half", "place"]


@pytest.fixture(params=[engine.QUICK, engine.USUAL])
def image(request):
    outside = I64(7)
    given = ctypes.CFUNCTYPE(I64, I64)(lambda x: 3 * x)
    address = ctypes.cast(given, ctypes.c_void_p).value or 0
    data = engine.compile_object(IR, engine.target(), 0, request.param)
    found = linking.link(data, NAMES, {"outside": ctypes.addressof(outside), "given": address})
    assert found is not None
    return found, outside, given


def call(image, name, restype, *args):
    return ctypes.CFUNCTYPE(restype, *[I64] * len(args))(image.addresses[name])(*args)


def test_code_data_and_what_comes_from_outside(image):
    found, outside, _ = image
    assert [call(found, "called", I64, k, -9) for k in range(2)] == [1, 9]
    assert [call(found, "counted", I64) for _ in range(3)] == [106, 207, 308]
    assert [call(found, "looked_up", I64, k) for k in range(3)] == [17, 27, 37]
    outside.value = -7
    assert call(found, "looked_up", I64, 0) == 3
    assert call(found, "asked", I64, 14) == 42
    assert [call(found, "half", ctypes.c_double, k) for k in (0, 3)] == [0.625, 3.625]
    assert call(found, "place", ctypes.c_void_p) == ctypes.addressof(outside)


def test_code_cannot_be_written(image):
    found, _, _ = image
    start = found.addresses["called"]
    with open("/proc/self/maps", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    spans = [(int(low, 16), int(high, 16), rights) for (low, high), rights in
             ((line[0].split("-"), line[1]) for line in lines)]  # fmt: skip
    assert [rights for low, high, rights in spans if low <= start < high] == ["r-xp"]


@pytest.mark.parametrize(
    "ir",
    [
        "@x = internal thread_local global i64 1\ndefine i64 @f() {\n  %r = load i64, ptr @x\n  ret i64 %r\n}\n",
        "declare void @nowhere_at_all()\ndefine void @f() {\n  call void @nowhere_at_all()\n  ret void\n}\n",
        '@x = global i64 1, section ".init_array"\ndefine void @f() {\n  ret void\n}\n',
    ],
)  # fmt: skip
def test_what_it_does_not_know_is_left_to_llvm(ir):
    assert linking.link(engine.compile_object(ir, engine.target()), ["f"], {}) is None


def test_what_is_no_such_object_is_left_to_llvm():
    data = engine.compile_object("define void @f() {\n  ret void\n}\n", engine.target())
    assert linking.link(data, ["f"], {}) is not None
    for number, byte in ((0, 1), (4, 1), (5, 2), (16, 2), (18, 3)):  # magic, width, byte order, kind, machine
        assert linking.link(data[:number] + bytes([byte]) + data[number + 1 :], ["f"], {}) is None


def test_memory_is_given_back(monkeypatch):
    freed = []
    memory = linking._memory()
    data = engine.compile_object("define void @f() {\n  ret void\n}\n", engine.target())
    monkeypatch.setattr(linking, "_memory", lambda: memory._replace(free=lambda *a: freed.append(a) or memory.free(*a)))
    image = linking.link(data, ["f"], {})
    assert image is not None and not freed
    del image
    assert len(freed) == 1
    with pytest.raises(KeyError):
        linking.link(data, ["g"], {})
    assert len(freed) == 2


def test_pages_that_may_not_run_are_left_to_llvm(monkeypatch):
    memory = linking._memory()
    data = engine.compile_object("define void @f() {\n  ret void\n}\n", engine.target())
    monkeypatch.setattr(linking, "_memory", lambda: memory._replace(protect=lambda *args: -1))
    assert linking.link(data, ["f"], {}) is None


def test_nothing_is_given_back_while_the_interpreter_ends(monkeypatch):
    memory, freed = linking._memory(), []
    monkeypatch.setattr(linking, "_memory", lambda: memory._replace(free=lambda *a: freed.append(a)))
    image = linking.Image(1 << 12, 1, {})
    image.__del__(ends=lambda: True)
    assert not freed
    image.__del__(ends=lambda: False)
    assert freed == [(1 << 12, 1)]

# SPDX-License-Identifier: MIT
"""IR to native code: what runs, what is kept for the next load and process, what is freed, what bad IR is told."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from functorch_lite import config
from functorch_lite.compiler import runtime
from functorch_lite.compiler.runtime import linking, llvm_code
from functorch_lite.compiler.runtime.object_cache import ObjectCache

I64 = ctypes.c_int64


def constant(number, name="f"):
    return f"define i64 @{name}() {{\n  ret i64 {number}\n}}\n"


def call(loaded, name="f", restype: Any = I64, *args):
    types = [kind for kind, _ in args]
    return ctypes.CFUNCTYPE(restype, *types)(loaded.address(name))(*(value for _, value in args))


@pytest.fixture(params=["our linker", "LLVM's linker"])
def engine(request, monkeypatch):
    if request.param != "our linker":
        monkeypatch.setattr(linking, "link", lambda *args: None)
    return runtime.engine


@pytest.fixture
def count_compiles(engine, monkeypatch, tmp_path):
    """A list that grows by one for each compilation; the object cache is empty, in a folder of its own."""
    made = []
    compile_object = engine.compile_object

    def counted(*args):
        made.append(args)
        return compile_object(*args)

    monkeypatch.setattr(engine, "compile_object", counted)
    monkeypatch.setattr(engine, "objects", ObjectCache(lambda: tmp_path))
    return made


def test_importing_the_package_does_not_import_llvm():
    code = (
        "import sys, functorch_lite.compiler.runtime as r; r.engine; print('llvmlite.binding' in sys.modules); "
        "r.engine.compile_object('', r.engine.target()); print('llvmlite.binding' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "True"]
    name = "motor"
    with pytest.raises(AttributeError, match="no attribute 'motor'"):
        getattr(runtime, name)


def test_a_function_runs(engine):
    loaded = engine.load(
        "define i64 @f(i64 %x, i64 %y) {\n  %r = sub i64 %x, %y\n  ret i64 %r\n}\n"
        'define double @"two words"() {\n  ret double 2.5\n}\n'
        "define internal i64 @hidden() {\n  ret i64 1\n}\n"
    )
    assert call(loaded, "f", I64, (I64, 7), (I64, 9)) == -2
    assert call(loaded, "two words", ctypes.c_double) == 2.5
    for name in ("hidden", "absent"):
        with pytest.raises(KeyError, match=name):
            loaded.address(name)


def test_functions_and_data_from_outside(engine):
    """libc's and libm's functions by themselves, the others by `symbols`; all may be far away from the code."""
    ir = """
@cell = external global i64
declare i64 @strlen(ptr)
declare double @tgamma(double)
declare i64 @given(i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define i64 @f(ptr %text) {
  %length = call i64 @strlen(ptr %text)
  %held = load i64, ptr @cell
  %sum = add i64 %length, %held
  %r = call i64 @given(i64 %sum)
  ret i64 %r
}
define double @g(double %x) {
  %r = call double @tgamma(double %x)
  ret double %r
}
define void @fill(ptr %p, i64 %n) {
  call void @llvm.memset.p0.i64(ptr %p, i8 7, i64 %n, i1 false)
  ret void
}
"""
    cell = I64(100)
    given = ctypes.CFUNCTYPE(I64, I64)(lambda x: 2 * x)
    address = ctypes.cast(given, ctypes.c_void_p).value
    assert address
    loaded = engine.load(ir, {"cell": ctypes.addressof(cell), "given": address})
    assert call(loaded, "f", I64, (ctypes.c_char_p, b"abcd")) == 208
    assert call(loaded, "g", ctypes.c_double, (ctypes.c_double, 5.0)) == 24.0
    buffer = ctypes.create_string_buffer(1001)
    call(loaded, "fill", None, (ctypes.c_void_p, ctypes.addressof(buffer)), (I64, 1000))
    assert buffer.raw == b"\7" * 1000 + b"\0"


def test_each_load_has_globals_and_names_of_its_own(engine):
    ir = """
@count = internal global i64 0
define i64 @f() {
  %old = load i64, ptr @count
  %new = add i64 %old, 1
  store i64 %new, ptr @count
  ret i64 %new
}
"""
    first, second = engine.load(ir), engine.load(ir)
    assert [call(first), call(first), call(second)] == [1, 2, 1]
    assert call(engine.load(constant(5))) == 5
    assert call(first) == 3


def test_one_compilation_for_memory_and_disk(engine, count_compiles):
    ir = constant(41)
    for _ in range(3):
        assert call(engine.load(ir)) == 41
    assert len(count_compiles) == 1
    engine.objects.forget()
    assert call(engine.load(ir)) == 41
    assert len(count_compiles) == 1
    engine.objects.clear()
    assert call(engine.load(ir)) == 41
    assert len(count_compiles) == 2


def test_what_changes_the_code_changes_the_key(engine, count_compiles):
    ir = constant(42)
    engine.load(ir)
    engine.load(ir + "\n")
    engine.load(ir, passes=1)
    engine.load(ir, target=engine.NEHALEM)
    assert len(count_compiles) == 4
    engine.load(ir, target=engine.target())
    engine.load(ir, {"unused": 1})
    assert len(count_compiles) == 4


def test_without_the_cache_nothing_is_looked_for_or_kept(engine, count_compiles, tmp_path):
    for _ in range(2):
        assert call(engine.load(constant(43), cache=False)) == 43
    assert len(count_compiles) == 2
    assert list(tmp_path.iterdir()) == []


def test_threads_that_want_the_same_code_compile_it_once(engine, count_compiles):
    results = []
    threads = [threading.Thread(target=lambda: results.append(call(engine.load(constant(44))))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [44] * 6
    assert len(count_compiles) == 1


def in_a_process(code, cache_dir):
    env = {**os.environ, "FUNCTORCH_LITE_CACHE_DIR": cache_dir}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


CHILD = """
import ctypes
from functorch_lite.compiler import runtime
def refuse(*args):
    raise AssertionError("compiled again")
runtime.engine.compile_object = refuse
loaded = runtime.engine.load({ir!r})
print(ctypes.CFUNCTYPE(ctypes.c_int64)(loaded.address("f"))())
"""


def test_the_next_process_finds_the_object(engine, tmp_path):
    engine.objects.forget()
    with config(cache_dir=str(tmp_path)):
        engine.load(constant(45))
    run = in_a_process(CHILD.format(ir=constant(45)), cache_dir=str(tmp_path))
    assert (run.stdout, run.returncode) == ("45\n", 0), run.stderr


LIVES = """
import ctypes, gc
from functorch_lite.compiler import runtime
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
engine = runtime.engine
big = "@table = constant [50000 x i64] zeroinitializer\\n" + {ir!r}
for _ in range(130):
    engine.load(big)
before = resident()
for _ in range(300):
    engine.load(big)
print((resident() - before) // 300)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the memory in use from Linux's /proc")
def test_code_is_freed_with_its_object(engine):
    run = in_a_process(LIVES.format(ir=constant(46)), cache_dir="")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 2000  # bytes for each load of 400 kB


def test_code_outlives_the_linkers_of_later_loads(engine):
    first = engine.load(constant(47))
    for number in range(2 * llvm_code.LIBRARIES_PER_LINKER):
        assert call(engine.load(constant(48 + number % 3))) == 48 + number % 3
    gc.collect()
    assert call(first) == 47


def test_kept_code_stays(engine):
    address = engine.load(constant(51)).keep().address("f")
    gc.collect()
    assert ctypes.CFUNCTYPE(I64)(address)() == 51


ENDLESS_IR = """
@running = external global i64
define void @f() {
  br label %again
again:
  store atomic i64 1, ptr @running seq_cst, align 8
  br label %again
}
"""
ENDLESS = """
import ctypes, threading, time
from functorch_lite.compiler import runtime
running = ctypes.c_int64(0)
loaded = runtime.engine.load({ir!r}, {{"running": ctypes.addressof(running)}}).keep()
threading.Thread(target=ctypes.CFUNCTYPE(None)(loaded.address("f")), daemon=True).start()
while not running.value:
    time.sleep(0.001)
"""


def test_a_process_ends_well_while_a_thread_is_in_kept_code():
    run = in_a_process(ENDLESS.format(ir=ENDLESS_IR), cache_dir="")
    assert (run.returncode, run.stderr) == (0, "")


FORK = """
import ctypes, os
from functorch_lite.compiler import runtime
def call(ir):
    loaded = runtime.engine.load(ir)
    return loaded, ctypes.CFUNCTYPE(ctypes.c_int64)(loaded.address("f"))
first, f = call({first!r})
child = os.fork()
second, g = call({second!r})
if not child:
    os._exit(f() + g())
print(f(), g(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_process_keeps_its_code_and_loads_more():
    run = in_a_process(FORK.format(first=constant(53), second=constant(54)), cache_dir="")
    assert (run.returncode, run.stdout) == (0, "53 54 107\n"), run.stderr


@pytest.mark.parametrize("passes", [0, 2])
def test_code_for_lesser_processors_runs_here(engine, passes):
    if not engine.target().lanes_bytes >= engine.HASWELL.lanes_bytes:
        pytest.skip("this processor lacks AVX2")
    ir = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define void @f(ptr %x) {
  %v = load <16 x float>, ptr %x, align 4
  %r = call <16 x float> @llvm.fma.v16f32(<16 x float> %v, <16 x float> %v, <16 x float> %v)
  store <16 x float> %r, ptr %x, align 4
  ret void
}
"""
    for target in (None, engine.HASWELL, engine.NEHALEM):
        x = (ctypes.c_float * 16)(*range(16))
        call(engine.load(ir, target=target, passes=passes), "f", None, (ctypes.c_void_p, ctypes.addressof(x)))
        assert list(x) == [i * i + i for i in range(16)]


def test_the_target_is_this_machine(engine):
    target = engine.target()
    assert target is engine.target()
    assert target.lanes_bytes in (16, 32, 64)
    assert target.cpu
    assert target.has_fma or target.lanes_bytes == 16


@pytest.mark.parametrize(
    ("ir", "message"),
    [
        ("define i64 @f() { ret i32 0 }", "doesn't match function result type"),
        ("define i64 @f() {\n  %a = add i64 %b, 1\n  %b = add i64 %a, 1\n  ret i64 %b\n}", "does not dominate"),
        ("declare i64 @nowhere()\n" + constant(0) + "define i64 @g() {\n  %r = call i64 @nowhere()\n  ret i64 %r\n}",
         "not found: nowhere$"),
        ("@no_cell = external global i64\ndefine ptr @f() {\n  ret ptr @no_cell\n}", "not found: no_cell$"),
    ],
)  # fmt: skip
def test_bad_ir_is_an_error_not_a_crash(engine, ir, message, capfd):
    with pytest.raises(RuntimeError, match=message):
        engine.load(ir)
    assert capfd.readouterr().err == ""
    assert call(engine.load(constant(52))) == 52

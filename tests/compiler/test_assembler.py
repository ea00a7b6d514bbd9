# SPDX-License-Identifier: MIT
"""Machine code made without LLVM: that of short modules, of the same bits as LLVM's; what is not known is LLVM's."""

import ctypes
import subprocess
import sys

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.codegen.x86 import assembler
from functorch_lite.compiler.codegen.x86.assembler import assembled, entries
from functorch_lite.compiler.runtime import engine, linking
from functorch_lite.compiler.runtime.object_cache import objects
from tests.compiler.random_modules import PLACES, module

pytestmark = pytest.mark.skipif(
    not linking.is_for_this_platform() or engine.target().lanes_bytes < 64, reason="the processor has no AVX-512"
)


def run(data: bytes, seed: int) -> np.ndarray:
    """Two arrays of numbers of several types after `void f(ptr, ptr)`, one behind the other; int64 [2, 2 PLACES]."""
    rng = np.random.default_rng(seed)
    memory = np.zeros((2, 2 * PLACES), np.int64)
    memory[0, :PLACES] = rng.standard_normal(2 * PLACES).astype("f4").view("i8")
    memory[0, :PLACES:3] = rng.integers(-5, 5, len(memory[0, :PLACES:3]))
    memory[1, :PLACES] = rng.standard_normal(PLACES).view("i8")
    code = engine.link(data, ["f"])
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code.address("f"))
    function(memory[0].ctypes.data, memory[1].ctypes.data)
    return memory


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the bit, but that all NaN are the same, whether of four bytes or of eight."""
    equal = a.view("i4") == b.view("i4")
    equal |= np.isnan(a.view("f4")) & np.isnan(b.view("f4"))
    return bool(np.all(equal | np.repeat(np.isnan(a.view("f8")) & np.isnan(b.view("f8")), 2, axis=-1)))


@pytest.mark.parametrize("start", range(0, 60, 10))
def test_random_modules_have_the_bits_of_llvm(start, monkeypatch):
    monkeypatch.setattr(assembler, "LONGEST", 1000)
    monkeypatch.setattr(assembler, "_STRANGE", ())
    known = 0
    for seed in range(start, start + 10):
        text = module(seed, 25)
        data = assembled(text)
        if data is not None:  # else there are too few registers, or phis swap their values
            known += 1
            assert same(run(data, seed), run(engine.compile_object(text, engine.target(), 0, engine.QUICK), seed))
    assert known >= 6


RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 16, 40)).astype("f4")
PROGRAMS = {
    "sum": lambda x, y: x.sum(1),
    "sum all": lambda x, y: np.sum(x),
    "maximum": lambda x, y: np.max(x, axis=0),
    "maximum of rows": lambda x, y: np.max(x, axis=1),
    "chain": lambda x, y: x * 2 + y * x - 1,
    "quotient": lambda x, y: np.maximum(x, 0) / y,
    "square root of a number": lambda x, y: np.sqrt(np.sum(x * x)),
    "product": lambda x, y: x @ y.reshape(40, 16),
    "variance": lambda x, y: np.var(x, axis=1),
    "softmax": lambda x, y: fl.nn.softmax(x),
    "running sum": lambda x, y: np.cumsum(x, axis=1),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "f4") for name in PROGRAMS), ("sum", "f8"), ("chain", "f8"), ("product", "f8")]
)
def test_first_calls_of_small_programs_have_the_bits_of_llvm(name, dtype, monkeypatch):
    made, arrays = [], (X.astype(dtype), Y.astype(dtype))

    def noted(text):
        made.append(assembled(text))
        return made[-1]

    monkeypatch.setattr(assembler, "assembled", noted)
    with fl.config(cache_dir=""):
        objects.forget()
        found = fl.jit(lambda *args: PROGRAMS[name](*args))(*arrays)
        monkeypatch.setattr(assembler, "assembled", lambda text: None)
        objects.forget()
        expected = fl.jit(lambda *args: PROGRAMS[name](*args))(*arrays)
    assert made[0] is not None, "LLVM made the code"
    assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()


def test_better_code_is_llvms_and_of_the_same_bits():
    x = X + 0
    f = fl.jit(lambda x: np.max(x * 3 + 1, axis=1))
    first = f(x)
    np.testing.assert_array_equal(fl.jit(lambda x: np.max(x * 3 + 1, axis=1)).lower(x).compile()(x), first)


def test_a_small_first_call_does_not_load_llvm():
    program = (
        "import sys, numpy as np, functorch_lite as fl; fl.config.update(cache_dir=''); "
        "f = fl.jit(lambda x: np.sum(x * 2, axis=1)); f(np.ones((8, 32), np.float32)); "
        "print('llvmlite.binding' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


# --- single statements --------------------------------------------------------------------------------------------


def body(*lines: str, declared: str = "") -> str:
    text = "\n".join(f"  {line}" if not line.endswith(":") else line for line in lines)
    return f"{declared}define void @f(ptr %x, ptr %y) #0 {{\nentry:\n{text}\n  ret void\n}}\n"


def test_more_values_than_arguments_leave_the_callers_registers_alone():
    loads = [f"%v{k} = load i64, ptr %a{k}, align 8" for k in range(12)]
    places = [f"%a{k} = getelementptr i64, ptr %x, i64 {k}" for k in range(12)]
    sums = ["%s0 = add i64 %v0, %v1", *[f"%s{k} = add i64 %s{k - 1}, %v{k + 1}" for k in range(1, 11)]]
    data = assembled(body(*places, *loads, *sums, "store i64 %s10, ptr %y, align 8"))
    assert data is not None
    found = run(data, 0)
    assert found[1, 0] == found[0, :12].sum()


def test_functions_of_a_module_call_one_another_and_keep_what_lives():
    text = (
        "define internal void @g(ptr %from, i64 %n) #0 {\nentry:\n  %v1 = load i64, ptr %from, align 8\n"
        "  %v2 = mul i64 %v1, %n\n  store i64 %v2, ptr %from, align 8\n  ret void\n}\n"
    ) + body("%v1 = load i64, ptr %y, align 8", "call void @g(ptr %x, i64 3)", "%at = getelementptr i64, ptr %x, i64 3",
             "call void @g(ptr %at, i64 -5)", "store i64 %v1, ptr %x, align 8")  # fmt: skip
    data = assembled(text)
    assert data is not None and list(entries(data)[0]) == ["f"]
    found, before = run(data, 1), run(assembled(body()) or b"", 1)
    assert found[0, 0] == before[1, 0] and found[0, 3] == -5 * before[0, 3] != 0


def test_a_phi_that_is_read_after_its_loop_keeps_its_value():
    text = body("br label %loop", "loop:", "%k = phi i64 [0, %entry], [%next, %loop]", "%next = add i64 %k, 1",
                "%more = icmp slt i64 %next, 5", "br i1 %more, label %loop, label %after", "after:",
                "store i64 %k, ptr %x, align 8", "%at = getelementptr i64, ptr %x, i64 1",
                "store i64 %next, ptr %at, align 8")  # fmt: skip
    found = run(assembled(text) or b"", 0)
    assert found[0, 0] == 4 and found[0, 1] == 5


UNKNOWN = {
    "an operation": body("%v1 = load i64, ptr %x, align 8", "%v2 = udiv i64 %v1, 3"),
    "an intrinsic": body("%v1 = load float, ptr %x, align 4", "%v2 = call float @llvm.sin.f32(float %v1)",
                         declared="declare float @llvm.sin.f32(float)\n"),
    "a function from outside": body("call void @elsewhere()", declared="declare void @elsewhere()\n"),
    "a type": body("%v1 = load half, ptr %x, align 2"),
    "a flag": body("%v1 = load i64, ptr %x, align 8", "%v2 = add nsw i64 %v1, 3", "store i64 %v2, ptr %x, align 8"),
    "values swapped": body(
        "br label %loop", "loop:", "%a = phi i64 [0, %entry], [%b, %loop]", "%b = phi i64 [1, %entry], [%a, %loop]",
        "%more = icmp slt i64 %a, 1", "br i1 %more, label %loop, label %after", "after:"),
    "more values than registers": body(
        *[f"%a{k} = getelementptr i64, ptr %x, i64 {k}" for k in range(20)],
        *[f"%v{k} = load i64, ptr %a{k}, align 8" for k in range(20)],
        *[f"store i64 %v{k}, ptr %y, align 8" for k in range(20)]),
    "many lines": body(*["store i64 0, ptr %x, align 8"] * assembler.LONGEST),
    "no module": "what is this",
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_left_to_llvm(name):
    assert assembled(UNKNOWN[name]) is None

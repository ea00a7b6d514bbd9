# SPDX-License-Identifier: MIT
"""Modules that are made in pieces, beside one another and at two levels: what is linked is the same program."""

import ctypes
import re
import threading

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.codegen.llvm.levels import Levels
from functorch_lite.compiler.runtime import engine, linking, llvm_code, pieces
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.compiler.runtime.tiers import improver

IR = """declare double @cos(double)
@numbers = private unnamed_addr constant [2 x i64] [i64 40, i64 2], align 64
@both = private unnamed_addr constant [2 x ptr] [ptr @first, ptr @second], align 64
define internal i64 @twice(i64 %x) #0 {
  %y = add i64 %x, %x
  ret i64 %y
}

define internal i64 @first(i64 %x) #0 {
  %y = call i64 @twice(i64 %x)
  %at = getelementptr i64, ptr @numbers, i64 0
  %n = load i64, ptr %at
  %z = add i64 %y, %n
  ret i64 %z
}

define internal i64 @second(i64 %x) #1 {
  %y = call i64 @twice(i64 %x)
  %c = call double @cos(double 0.0)
  %one = fptosi double %c to i64
  %at = getelementptr i64, ptr @numbers, i64 %one
  %n = load i64, ptr %at
  %z = mul i64 %y, %n
  ret i64 %z
}

define i64 @run(i64 %which, i64 %x) #0 {
  %at = getelementptr ptr, ptr @both, i64 %which
  %f = load ptr, ptr %at
  %y = call i64 %f(i64 %x)
  %z = call i64 @second(i64 %y)
  ret i64 %z
}

attributes #0 = { nounwind }
"""
MIXED = f"{IR}attributes #1 = {{ nounwind }}\n"


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "LEAST", 5)
    before = fl.config.cache_dir
    fl.config.update(cache_dir="")
    objects.forget()
    yield
    improver.finish()
    fl.config.update(cache_dir=before)
    objects.forget()


def call(loaded, which, x):
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(loaded.address("run"))(which, x)


def functions(piece):
    return set(re.findall(r"^define [^@]*@(\w+)", piece.text, re.MULTILINE))


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_every_function_is_made_once_but_for_short_ones_that_are_shared(number):
    found = pieces.cut(IR.replace("#1", "#0"), number)
    names = [name for piece in found for name in functions(piece)]
    assert len(found) == min(number, 3)
    assert sorted({*names}) == ["first", "run", "second", "twice"]
    assert sorted(n for n in names if n != "twice") == ["first", "run", "second"]
    assert all(piece.hot is None for piece in found)


def test_what_is_short_is_not_cut(monkeypatch):
    monkeypatch.setattr(pieces, "LEAST", 600)
    assert [p.text for p in pieces.cut(IR, 4)] == [IR]


@pytest.mark.parametrize("text", [
    IR + "@kept = internal global i64 0\n", IR.replace("define i64 @run(i64 %which, i64 %x)", "define i64 @run(...)\n"),
])
def test_what_cannot_be_cut_stays_whole(text):
    assert [p.text for p in pieces.cut(text, 4)] == [text]


def test_marked_functions_are_apart():
    hot, cold = pieces.cut(MIXED, 1)
    assert hot.hot and not cold.hot
    assert "second" in functions(hot) and "second" not in functions(cold)
    assert "define internal" not in re.sub("define internal i64 @twice", "", cold.text + hot.text).replace(
        "define internal i64 @first", "")


@pytest.mark.parametrize("text", [IR.replace("#1", "#0"), MIXED], ids=("alike", "mixed"))
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("ours", [True, False])
def test_pieces_are_linked(monkeypatch, text, number, ours):
    if not ours:
        monkeypatch.setattr(linking, "link", lambda *_: None)
    loaded = engine.load(text, cache=False, pieces=number)
    assert [call(loaded, which, 5) for which in (0, 1)] == [(5 * 2 + 40) * 4, 5 * 4 * 4]


def test_levels_and_threads_of_pieces(monkeypatch):
    made, usual = [], llvm_code._object

    def noted(text, wanted, passes, level, number):
        made.append((level, number, threading.get_ident()))
        return usual(text, wanted, passes, level, number)

    monkeypatch.setattr(llvm_code, "_object", noted)
    engine.load(MIXED, cache=False, pieces=2)
    assert {level for level, *_ in made} == {engine.USUAL, engine.QUICK}
    assert len({number for _, number, _ in made}) == len(made)
    made.clear()
    engine.load(MIXED, cache=False, level=engine.QUICK)
    assert {level for level, *_ in made} == {engine.QUICK} and len({who for *_, who in made}) == 1
    made.clear()
    engine.load("define i64 @run() {\n  ret i64 0\n}\n", cache=False, pieces=2)
    assert made == [(engine.USUAL, 0, threading.get_ident())]


def test_an_error_in_a_piece_is_raised():
    wrong = IR.replace("#1", "#0").replace("%z = mul i64 %y, %n", "%z = mul i64 %y, %unknown")
    with pytest.raises(RuntimeError, match="unknown"):
        engine.load(wrong, cache=False, pieces=3)


def test_object_files_are_one():
    data = [b"one", b"", b"\x7fELF"]
    assert pieces.parts_of(pieces.joined(data)) == data
    assert pieces.joined([b"one"]) == b"one" and pieces.parts_of(b"one") == [b"one"]


def test_pieces_are_kept_and_found(monkeypatch, tmp_path):
    fl.config.update(cache_dir=str(tmp_path))
    first = engine.load(MIXED, pieces=2)
    objects.forget()
    monkeypatch.setattr(engine, "compile_object", None)
    again = engine.load(MIXED, pieces=2)
    assert call(again, 0, 3) == call(first, 0, 3)


# --- programs ---------------------------------------------------------------------------------------------------------


def executable_of(f):
    return next(reversed(f._cache.values())).executable


def several(x, w):
    """Kernels of several sorts, and a product."""
    y = np.tanh(x @ w) + np.cumsum(x, axis=1)
    return np.sort(y, axis=0), np.sum(np.exp(y), axis=1), np.argmax(y, axis=1), np.sin(y.T)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_programs_in_pieces_give_the_same_bits(threads):
    x, w = (np.random.default_rng(k).standard_normal((96, 96)).astype("f4") for k in (0, 1))
    before = fl.config.num_threads
    fl.config.update(num_threads=threads)
    try:
        f = fl.jit(several)
        first = f(x, w)
        executable = executable_of(f)
        assert len(pieces.cut(executable.ir, threads)) == threads
        usual = f.lower(x, w).compile()(x, w)
    finally:
        fl.config.update(num_threads=before)
    for a, b in zip(first, usual, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_functions_that_run_long_are_made_well_and_others_quickly():
    x = np.random.default_rng(0).standard_normal((900, 900)).astype("f4")

    def long(x):
        return np.tanh((x @ x) @ x) * np.sum(x), np.sort(x[:7], axis=1), np.cumsum(x[:5], axis=0)

    f = fl.jit(long)
    first = f(x)
    executable = executable_of(f)
    assert executable.is_quick and executable.level == engine.USUAL
    hot = [p for p in pieces.cut(executable.ir, 1) if p.hot]
    assert len(hot) == 1 and 0 < len(functions(hot[0])) < len(re.findall("^define", executable.ir, re.MULTILINE))
    assert "llvm.fma" in hot[0].text
    executable.improve()
    assert executable.ir == f.lower(x).as_text("llvm") and pieces.HOT not in executable.ir
    for a, b in zip(f(x), first, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_short_programs_have_no_marks():
    f = fl.jit(lambda x: np.max(x, axis=1))
    f(np.ones((64, 1000), np.float32))
    assert executable_of(f).level == engine.QUICK and pieces.HOT not in executable_of(f).ir


def test_work_is_counted_by_calls():
    x = np.ones((300, 300), np.float32)

    def steps(n):
        return fl.jit(lambda x: fl.lax.scan(lambda c, _: (np.tanh(c @ x), None), x, None, length=n)[0]).lower(x)

    few, many = (steps(n)._traced.program for n in (2, 500))
    found = []
    for program in (few, many):
        executable = fl.compiler.native.compile_native(program, fl.compiler.pipeline.optimize(program), quick=True)
        levels = Levels(executable.lowered.function, executable.short, 10**9)
        kernel = next(k for k in executable.lowered.kernels if "dot_general" in k.name)
        found.append(levels.is_hot(kernel.name, kernel.body))
    assert found == [False, True]

# SPDX-License-Identifier: MIT
"""Profiles: times add up, calls are counted, lines are the user's, and the table keeps its form."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.native import compile_native
from functorch_lite.compiler.pipeline import optimize
from functorch_lite.compiler.runtime.executable import Executable
from functorch_lite.compiler.runtime.profile import (
    MOST_KERNELS,
    MOST_LINES,
    Profile,
    Row,
    profile,
    profiled_executable,
)

GOLDEN = Path(__file__).parent / "golden" / "profile.txt"
STEPS = 17


def _random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _model(x, w):
    h = np.tanh(x @ w)
    e = np.exp(h - np.max(h, axis=1, keepdims=True))
    return np.sort(e / np.sum(e, axis=1, keepdims=True), axis=1)


def _loop(x):
    return fl.lax.scan(lambda c, row: (np.cumsum(np.sort(c + row)), c[0]), x[0], x)


def _executable(function, *args) -> Executable:
    program = fl.make_program(function)(*args)
    return compile_native(program, optimize(program))


@pytest.fixture(scope="module")
def model():
    args = _random(64, 256), _random(256, 128)
    return profile(_executable(_model, *args), *args, seconds=0.05)


def test_times_of_kernels_and_lines_lie_within_the_whole(model):
    kernels, lines = (sum(r.seconds for r in rows) for rows in (model.kernels, model.lines))
    assert 0 < kernels <= model.seconds * 1.0001
    assert lines == pytest.approx(kernels)


def test_the_whole_lies_within_the_wall_time():
    args = _random(64, 256), _random(256, 128)
    profiled = profiled_executable(_executable(_model, *args))
    profiled(*args)
    profiled.reset()
    start = time.perf_counter()
    for _ in range(20):
        profiled(*args)
    wall = time.perf_counter() - start
    found = profiled.profile()
    assert found.calls == 20
    assert 0.05 * wall < found.calls * found.seconds < 1.02 * wall  # 1.02: the clock's rate is measured


def test_operations_and_bytes_are_those_of_the_kernels(model):
    (product,) = (r for r in model.kernels if "dot_general" in r.name)
    assert product.flops >= 2 * 64 * 256 * 128 * 0.99
    assert product.bytes >= 4 * (64 * 256 + 256 * 128 + 64 * 128)
    assert product.gflops == pytest.approx(product.flops / product.seconds / 1e9)
    assert product.gbytes == pytest.approx(product.bytes / product.seconds / 1e9)


def test_rows_are_sorted_by_time(model):
    for rows in (model.kernels, model.lines):
        times = [r.seconds for r in rows]
        assert times == sorted(times, reverse=True)


def test_lines_are_the_users(model):
    texts = {r.name.split(": ", 1)[-1] for r in model.lines}
    assert {"h = np.tanh(x @ w)", "e = np.exp(h - np.max(h, axis=1, keepdims=True))",
            "return np.sort(e / np.sum(e, axis=1, keepdims=True), axis=1)"} <= texts
    assert all(r.name.startswith(("test_profile.py:", "(the compiler)")) for r in model.lines)


def test_calls_in_loops_are_counted():
    x = _random(STEPS, 9)
    found = profile(_executable(_loop, x), x, seconds=0.01)
    calls = {r.name.split("_", 1)[-1]: r.calls for r in found.kernels}
    assert calls["sort (sort)"] == calls["cumsum (cumsum)"] == STEPS


def test_a_loop_that_ends_by_its_values_counts_what_it_ran():
    def halve(x):
        return fl.lax.while_loop(lambda c: np.sum(c) > 1, lambda c: np.sort(c / 2), x)

    x = np.full(8, 4.0, np.float32)
    found = profile(_executable(halve, x), x, seconds=0.01)
    (sort,) = (r for r in found.kernels if "sort" in r.name)
    assert sort.calls == 5  # 32, 16, 8, 4, 2, 1


def test_equal_kernels_of_two_lines_are_of_both():
    def twice(x, y):
        a = np.sort(x)
        b = np.sort(y)
        return a, b

    x = _random(300)
    found = profile(_executable(twice, x, x), x, x, seconds=0.01)
    lines = {r.name.split(": ", 1)[-1] for r in found.lines}
    assert {"a = np.sort(x)", "b = np.sort(y)"} <= lines


def test_steps_in_python_are_timed():
    def function(x):
        out = fl.ShapeDtype((3,), np.float32)
        return fl.pure_callback(_slow, out, np.sin(x))

    x = _random(3)
    found = profile(_executable(function, x), x, seconds=0.0)
    assert found.kernels[0].name == "in Python: pure_callback"
    assert found.kernels[0].seconds > 0.001
    assert found.lines[0].name.endswith("return fl.pure_callback(_slow, out, np.sin(x))")


def _slow(x):
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:
        pass
    return x


def test_results_are_those_of_the_executable():
    args = _random(16, 8), _random(8, 4)
    executable = _executable(_model, *args)
    profiled = profiled_executable(executable)
    assert np.array_equal(profiled(*args)[0], executable(*args)[0])
    assert profiled_executable(executable) is profiled_executable(profiled) is profiled


def test_a_normal_build_reads_no_clock():
    executable = _executable(_model, _random(16, 8), _random(8, 4))
    assert "cycle" not in executable.ir and "counters" not in executable.ir
    assert "define i64 @cycles()" in profiled_executable(executable).ir


def test_nothing_is_counted_after_a_reset():
    x = _random(9)
    profiled = profiled_executable(_executable(np.sort, x))
    profiled(x)
    profiled.reset()
    found = profiled.profile()
    assert found.kernels == () and found.seconds == 0
    assert str(found).startswith("sort: 0 ns a call")


def test_a_long_table_is_cut():
    rows = tuple(Row(f"k{n} ({'x' * 100})", 1e-3 / (n + 1), 1, 1e3, 1e3) for n in range(40))
    text = str(Profile("f", 3, 0.01, rows, rows))
    lines = text.splitlines()
    assert len(lines) == 5 + MOST_KERNELS + MOST_LINES <= 25
    assert "30 more" in text and "31 more" in text
    assert max(map(len, lines)) <= 110


def test_the_table_keeps_its_form(check_golden):
    x = _random(STEPS, 9)
    text = str(profile(_executable(_loop, x), x, seconds=0.0))
    names = sorted(line for line in map(_without_times, text.splitlines()) if line)
    check_golden(GOLDEN, "\n".join([*names, ""]))


def _without_times(line):
    """The line with its times, shares, rates and number replaced."""
    line = re.sub(r"test_profile\.py:\d+", "test_profile.py:LINE", line)
    line = re.sub(r"[\d.e+]+ (s|ms|us|ns)\b", "TIME", line)
    line = re.sub(r"[\d.]+%", "SHARE", line)
    line = re.sub(r"(SHARE +[\d.]+) .*", r"\1 RATES", line)
    return re.sub(r" +", " ", line)

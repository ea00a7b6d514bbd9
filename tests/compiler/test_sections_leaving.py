# SPDX-License-Identifier: MIT
"""Sections that are left: the errors of the program in its order, Ctrl-C in time, forks, many callers at once."""

import os
import sys
from typing import Any

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import numpy as fnp
from functorch_lite.core.evaluate import Evaluator
from tests.compiler.side_by_side import (
    BLOCKS,
    ORDER,
    PROGRAMS,
    THREADS,
    compiled,
    floats,
    looked_up,
    positive,
    sections_of,
)
from tests.compiler.support import FORKS_BESIDE, in_a_new_process, in_threads

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pools are for Linux")


# --- errors -----------------------------------------------------------------------------------------------------------


def _failing(args, first: int, second: int):
    """Call the program of two lookups with an index of each out of range, or not; returns the error."""
    table, w, v, x, order = args

    def fun(t, w, v, x, i, j):
        a = looked_up(t, w, x, i)
        b = looked_up(t + 1, v, x, j)
        return a, b

    i, j = order.copy(), order.copy()
    i[150], j[20] = first, second
    errors = []
    for number in THREADS:
        executable = compiled(fun, table, w, v, x, i, j, number=number)
        assert sections_of(executable.lowered.function)
        for _ in range(3):
            with pytest.raises(IndexError) as found:
                executable(table, w, v, x, i, j)
            errors.append(str(found.value))
    assert len(set(errors)) == 1
    good = compiled(fun, table, w, v, x, order, order)
    assert np.isfinite(good(table, w, v, x, order, order)[0]).all()
    return errors[0]


def test_an_error_in_a_section_names_its_line():
    args = PROGRAMS["indices"][1]
    for first, second, bad in [(77, 3, "77"), (3, 88, "88"), (77, 88, "77")]:
        text = _failing(args, first, second)
        assert f"index {bad} " in text
        assert "side_by_side.py" in text and "table[place]" in text


def test_an_error_in_a_part_that_a_section_calls():
    def lookups(table, ws, x, places):
        for w in ws:
            for _ in range(6):
                x = fnp.tanh(x) * np.float32(0.5) + fnp.sin(x)
            x = x @ w + table[places + (x[0, 0] > 100)]
        return x

    def fun(t, a, b, x, i, j):
        return lookups(t, a, x, i), lookups(t, b, x + 1, j)

    args = [floats(50, 48), *BLOCKS, floats(64, 48), ORDER[:64], ORDER[64:128]]
    executable = compiled(fun, *args)
    (s,) = sections_of(executable.lowered.function)
    assert all(any(x.kernel.arena is not None and x.kernel.can_fail for x in block) for block in s.blocks)
    expected = [o.tobytes() for o in compiled(fun, *args, number=1)(*fl.tree.leaves(args))]
    for first, second, bad in [(3, 91, "91"), (92, 3, "92"), (93, 94, "93")]:
        args[-2], args[-1] = args[-2].copy(), args[-1].copy()
        args[-2][5], args[-1][5] = first, second
        with pytest.raises(IndexError, match=bad) as found:
            executable(*fl.tree.leaves(args))
        assert "test_sections_leaving.py" in str(found.value) and "table[places + " in str(found.value)
    args[-2:] = [ORDER[:64], ORDER[64:128]]
    assert [o.tobytes() for o in executable(*fl.tree.leaves(args))] == expected


def test_errors_come_in_the_order_of_the_program():
    def fun(x, y, i, j):
        a = fnp.cumsum(x)
        b = fnp.cumsum(y)
        first = a[i]
        second = b[j]
        return first, second, fnp.cumsum(first), fnp.cumsum(second)

    x, y, i = floats(50_000), floats(50_001), np.arange(30_000)
    bad = i.copy()
    bad[7] = 10**6
    worse = i.copy()
    worse[7] = 10**7
    for number in THREADS:
        executable = compiled(fun, x, y, i, i, number=number)
        assert sections_of(executable.lowered.function)
        for given_, expected in [((bad, worse), "1000000"), ((i, worse), "10000000"), ((bad, i), "1000000")]:
            with pytest.raises(IndexError) as found:
                executable(x, y, *given_)
            assert f" {expected} " in str(found.value).replace(",", " ")


def test_a_matrix_without_a_factor_raises_as_it_does_alone():
    fun = lambda x, y: (fnp.linalg.cholesky(x), fnp.linalg.cholesky(y))  # noqa: E731
    x, bad = positive(200), -positive(200)
    executable = compiled(fun, x, x)
    assert sections_of(executable.lowered.function)
    outcomes = []
    for given_ in ((x, bad), (bad, x), (bad, bad)):
        try:
            outcomes.append([o.tobytes() for o in executable(*given_)])
        except Exception as error:
            outcomes.append(type(error))
        program = fl.make_program(fun)(x, x)
        try:
            expected: Any = [np.isnan(o).any() for o in Evaluator(program)(*given_)]
        except Exception as error:
            expected = type(error)
        assert isinstance(outcomes[-1], type) == isinstance(expected, type)


# --- signals, threads, forks ------------------------------------------------------------------------------------------


_START = """
import os, signal, sys, threading, time
import numpy as np
import functorch_lite as fl, functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.compiler.loop_ir.nodes import Sections
fl.config.update(num_threads={number})
x = np.linspace(0, 1, 300)
def long(k, length):
    return lambda x: lax.scan(lambda c, i: (fnp.sin(c) * (1 + 1e-9 * k), None), x, None, length=length)[0]
def compiled(fun, *args):
    from functorch_lite.compiler import native, pipeline
    program = fl.make_program(fun)(*args)
    made = native.compile_native(program, pipeline.optimize(program))
    assert any(type(s) is Sections for s in made.lowered.function.body)
    return made
"""


@pytest.mark.skipif(os.name == "nt", reason="a process cannot be sent SIGINT alone")
@pytest.mark.parametrize("number", THREADS)
@pytest.mark.parametrize("lengths", [(10**10, 10**10), (10**10, 3000), (3000, 10**10)])
def test_interrupting_long_sections(number, lengths):
    code = _START.format(number=number) + f"""
run = compiled(lambda x: long(1, {lengths[0]})(x) + long(2, {lengths[1]})(x), x)
signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in range(3):
    sent = []
    def send():
        time.sleep(0.3)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=send).start()
    try:
        run(x)
    except KeyboardInterrupt:
        late = time.perf_counter() - sent[-1]
        print("interrupted", "in time" if late < 0.5 else f"after {{late}} s")
"""
    assert in_a_new_process(code).splitlines() == ["interrupted in time"] * 3


@on_linux
def test_a_handler_that_raises_nothing_lets_sections_go_on():
    code = _START.format(number=2) + """
run = compiled(lambda x: long(1, 30_000)(x) + long(2, 30_000)(x), x)
expected, heard = run(x)[0].tobytes(), []
signal.signal(signal.SIGALRM, lambda *_: heard.append(run(x)[0].tobytes() == expected))
signal.setitimer(signal.ITIMER_REAL, 0.02)
for _ in range(50):
    assert run(x)[0].tobytes() == expected
    if heard:
        break
print(heard)
"""
    assert in_a_new_process(code) == "[True]\n"


@on_linux
def test_a_fork_while_another_thread_runs_sections():
    code = _START.format(number=3) + """
program = compiled(lambda x: long(1, 3000)(x) + long(2, 3000)(x), x)
def run():
    return program(x)[0].tobytes()
""" + FORKS_BESIDE
    assert in_a_new_process(code) == "0\n"


@on_linux
def test_a_handler_may_fork_in_the_middle_of_sections():
    code = _START.format(number=3) + """
run = compiled(lambda x: long(1, 30_000)(x) + long(2, 30_000)(x), x)
expected, children = run(x)[0].tobytes(), []
signal.signal(signal.SIGALRM, lambda *_: children.append(os.fork()))
signal.setitimer(signal.ITIMER_REAL, 0.02)
fine = True
while not children:
    try:
        fine = run(x)[0].tobytes() == expected
    except KeyboardInterrupt:  # in the child, without what the other threads had in hand
        fine = children == [0]
fine = fine and all(run(x)[0].tobytes() == expected for _ in range(3))
if not children[0]:
    os._exit(not fine)
print(fine, os.waitpid(children[0], 0)[1])
"""
    for _ in range(3):
        assert in_a_new_process(code) == "True 0\n"


def test_many_callers_at_once():
    fun, args = PROGRAMS["bidirectional"]
    executable = compiled(fun, *args, number=3)
    inputs = [[*args[:4], args[4] + np.float32(k)] for k in range(6)]
    expected = [executable(*i)[0].tobytes() for i in inputs]
    wrong = []

    def work(k):
        wrong.extend(k for _ in range(20) if executable(*inputs[k])[0].tobytes() != expected[k])

    in_threads(6, work)
    assert not wrong

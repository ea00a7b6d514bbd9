# SPDX-License-Identifier: MIT
"""Sections: what runs at the same time, and what does not; the same bits and memory as one after another."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite import numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Copy, Index, KernelCall, Sections
from functorch_lite.compiler.loop_ir.verify import LoopIRError, verify
from functorch_lite.compiler.lowering.program import Lowered
from functorch_lite.compiler.schedule import sections
from tests.compiler.interpreting import run_interpreted, with_constants
from tests.compiler.random_programs import STEPS, Recipe, function_of, inputs_of
from tests.compiler.side_by_side import (
    PROGRAMS,
    RECURRENT,
    THREADS,
    bidirectional,
    compiled,
    count,
    ensemble,
    floats,
    positive,
    recurrent,
    sections_of,
)
from tests.compiler.test_programs_three_ways import bounded


@pytest.fixture
def eager(monkeypatch):
    """Sections of whatever is independent, however short."""
    monkeypatch.setattr(sections, "WORTH_NS", -1.0)
    monkeypatch.setattr(sections, "SEED_NS", 0.0)


def interpreted(lowered: Lowered, args, avals, plan, turned: bool):
    """The outputs by the interpreter; turned: sections run from the last to the first."""
    function = lowered.function
    body = [s if not isinstance(s, Sections) or not turned else Sections(s.blocks[::-1], s.numbers, s.results[::-1])
            for s in function.body]
    other = dataclasses.replace(lowered)
    other.function = dataclasses.replace(function, body=body)
    return run_interpreted(other, args, avals, plan)


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_number_of_threads_gives_the_same_bits(name, monkeypatch):
    fun, args = PROGRAMS[name]
    leaves = fl.tree.leaves(args)
    made = [compiled(fun, *args, number=number) for number in THREADS]
    assert sections_of(made[0].lowered.function)
    monkeypatch.setattr(sections, "SEED_NS", np.inf)
    in_order = compiled(fun, *args)
    assert not sections_of(in_order.lowered.function)
    expected = [np.asarray(o).tobytes() for o in in_order(*leaves)]
    for executable in made:
        for _ in range(5):
            assert [np.asarray(o).tobytes() for o in executable(*leaves)] == expected


SHORT: dict[str, tuple[Any, list[Any]]] = {
    "bidirectional": (bidirectional, [floats(3, 5), floats(5, 5), floats(3, 5), floats(5, 5), floats(4, 2, 3)]),
    "gradient of an ensemble": (fl.grad(lambda m, x: sum(ensemble(m, x))),
                                [[(floats(3, 5), floats(5, 5) + k) for k in range(3)], floats(4, 2, 3)]),
    "gradient of two networks": (PROGRAMS["gradient of two networks"][0],
                                 [[floats(5, 5)] * 3, [floats(5, 5)] * 3, floats(4, 5)]),
    "blocks": (PROGRAMS["blocks"][0], [[floats(5, 5)] * 9, [floats(5, 5)] * 9, floats(4, 5)]),
    "factors": (PROGRAMS["factors"][0], [positive(12), positive(12) * 2]),
    "eigenvalues": (PROGRAMS["eigenvalues"][0], [positive(9), positive(8)]),
    "numbers": (PROGRAMS["numbers"][0], [np.linspace(0, 1, 9)]),
}


@pytest.mark.parametrize("name", SHORT)
def test_the_order_of_sections_changes_nothing_in_one_arena(name, eager):
    fun, args = SHORT[name]
    executable = compiled(fun, *args)
    lowered, leaves, avals = executable.lowered, fl.tree.leaves(args), executable.program.out_avals
    assert sections_of(lowered.function)
    verify(with_constants(lowered))
    outs = [interpreted(lowered, leaves, avals, plan, turned)
            for plan in (None, executable.plan) for turned in (False, True)]
    for other in outs[1:]:
        for a, b in zip(outs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_text_of_a_program_shows_its_sections():
    fun, args = PROGRAMS["bidirectional"]
    text = fl.jit(fun).lower(*args).as_text("loop_ir")
    assert text.count("  at the same time\n") == 1
    assert text.count("    section\n") == 2


# --- where there are some ---------------------------------------------------------------------------------------------


def test_how_many():
    expected = {"bidirectional": 2, "ensemble": 4, "two networks": 2, "running sums": 2}
    for name, number in expected.items():
        fun, args = PROGRAMS[name]
        assert count(fun, *args) == [number]
    many = [floats(5000 + k) for k in range(40)]
    assert count(lambda xs: [fnp.cumsum(x) for x in xs], many) == [sections.MOST]


@pytest.mark.parametrize("network", [fl.nn.GRU, fl.nn.LSTM])
def test_both_directions_of_a_recurrent_network(network):
    model, x = network(16, 32, bidirectional=True, key=fl.random.key(0)), floats(50, 8, 16)

    def run(model, x):
        return fl.tree.leaves(model(x))[0]

    assert count(run, model, x) == [2]
    assert count(fl.grad(lambda model, x: fnp.sum(run(model, x) ** 2)), model, x) == [2, 2]


def test_parts_that_are_called_run_in_sections():
    fun, args = PROGRAMS["blocks"]
    executable = compiled(fun, *args)
    (s,) = sections_of(executable.lowered.function)
    assert all(any(isinstance(x, KernelCall) and x.kernel.arena is not None for x in block) for block in s.blocks)


def test_a_part_has_sections_itself():
    def fun(layers, x):
        for w, u, v, z in layers:
            y = bidirectional(w, u, v, z, x)
            for _ in range(6):
                y = fnp.tanh(y) * np.float32(0.5) + fnp.sin(y)
            x = x + y
        return x

    layers = [[floats(32, 16 + k)[:, :16] + np.float32(k) for k in (0, 16, 0, 16)] for _ in range(12)]
    for p in layers:
        p[1], p[3] = p[1][:16], p[3][:16]
    args = [layers, floats(150, 8, 32)]
    executable = compiled(fun, *args)
    assert any(sections_of(part.function) for part in executable.lowered.parts)
    leaves = fl.tree.leaves(args)
    first = compiled(fun, *args, number=1)(*leaves)[0].tobytes()
    assert all(executable(*leaves)[0].tobytes() == first for _ in range(5))


def test_what_needs_something_comes_after_it():
    w, u, *_, x = RECURRENT
    assert count(lambda w, u, x: recurrent(u, u, recurrent(w, u, x)), w, u, x) == []
    assert count(lambda x: fnp.cumsum(fnp.cumsum(x)), floats(100_000)) == []


def test_short_statements_stay_in_order():
    assert count(lambda x, y: (fnp.cumsum(x), fnp.cumsum(y)), floats(1000), floats(1001)) == []
    assert count(lambda x, y, z: (x @ y, y @ z), floats(8, 8), floats(8, 8), floats(8, 8)) == []


def test_what_threads_share_already_stays_as_it_is():
    x, y = floats(400, 400), floats(400, 401)[:, :400]
    assert count(lambda x, y: (x @ y, y @ x), x, y) == []
    assert count(lambda x, y: (fnp.exp(x), fnp.sin(y)), floats(1000, 500), floats(1000, 501)) == []


def test_steps_in_python_are_never_in_sections_and_stay_in_order():
    told = []

    def tell(k):
        def step(x):
            told.append(k)
            return x
        return step

    def fun(x, y):
        shape = fl.ShapeDtype((), np.float32)
        a = fnp.cumsum(x)
        b = fl.pure_callback(tell(0), shape, a[-1])
        c = fnp.cumsum(y)
        d = fl.pure_callback(tell(1), shape, c[-1])
        return b + d

    executable = compiled(fun, floats(100_000), floats(100_001))
    assert [len(s.blocks) for s in sections_of(executable.lowered.function)] == [2]
    executable(floats(100_000), floats(100_001))
    assert told == [0, 1]

    def inside(x):
        def step(c, v):
            return fl.pure_callback(lambda a: a, fl.ShapeDtype((), np.float64), c + v), None
        return lax.scan(step, 0.0, x)[0]

    assert count(lambda x: inside(x) - inside(-x), np.ones(1000)) == []


def test_sections_of_a_loop_or_of_what_meets_in_memory_are_refused():
    b = Builder("program")
    x, out = b.input("x", "f32", 8), b.output("out", "f32", 8)
    blocks = [[Copy(out, ZERO, x, ZERO, 4)], [Copy(out, Index(4), x, Index(4), 4)]]
    b.add(Sections(blocks, [[0], [1]], [[], []]))
    with pytest.raises(LoopIRError, match="what another one writes"):
        verify(b.finish())
    b = Builder("program")
    x, out = b.input("x", "f32", 8), b.output("out", "f32", 8)
    with b.loop(3):
        b.add(Sections([[Copy(out, ZERO, x, ZERO, 4)]], [[0]], [[]]))
    with pytest.raises(LoopIRError, match="in a loop"):
        verify(b.finish())


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_forecast_is_what_a_call_needs(name):
    fun, args = PROGRAMS[name]
    executable = compiled(fun, *args)
    lowered = executable.lowered
    assert lowered.plan().size == executable.arena_bytes
    assert fl.jit(fun).memory(*args).temporaries == executable.arena_bytes


def test_sections_that_need_much_more_memory_run_in_order(monkeypatch):
    fun, args = PROGRAMS["factors"]
    with_sections = compiled(fun, *args).arena_bytes
    monkeypatch.setattr(sections, "MORE_BYTES", 0)
    monkeypatch.setattr(sections, "MORE", 0.0)
    assert compiled(fun, *args).arena_bytes < with_sections


def test_donated_memory_is_taken_over_in_sections(eager):
    def step(p, q):
        for _ in range(4):
            p, q = p * np.float32(0.9) + fnp.sin(p), q * np.float32(0.8) - fnp.cos(q)
        return fnp.tanh(p), fnp.tanh(q)

    p, q = floats(300, 21), floats(300, 20)
    program = fl.make_program(step)(p, q)
    executable = native.compile_native(program, pipeline.optimize(program), donated=(0, 1))
    assert sections_of(executable.lowered.function)
    assert executable.donations == {0: 0, 1: 1}
    expected = [o.tobytes() for o in executable(p, q)]
    p, q = p.copy(), q.copy()
    found = executable.donating((p, q), (0, 1))
    assert [o.tobytes() for o in found] == expected
    assert found[0].ctypes.data == p.ctypes.data


# --- the ways of running ----------------------------------------------------------------------------------------------


def test_a_profile_runs_sections_one_after_another():
    fun, args = PROGRAMS["factors"]
    run = fl.jit(fun, profile=True)
    expected = fl.jit(fun)(*args)
    assert np.asarray(run(*args)).tobytes() == np.asarray(expected).tobytes()
    assert "cholesky" in str(run.profile())


def test_verified_calls():
    fun, args = PROGRAMS["bidirectional"]
    found = fl.jit(fun, verify=True)(*args)
    np.testing.assert_array_equal(found, fl.jit(fun)(*args))


def test_the_first_call_and_later_ones_agree():
    fun, args = PROGRAMS["indices"]
    run = fl.jit(fun)
    first = [np.asarray(o).tobytes() for o in run(*args)]
    for _ in range(10):
        assert [np.asarray(o).tobytes() for o in run(*args)] == first


def test_one_library_thread_gives_the_same_bits():
    fun, args = PROGRAMS["eigenvalues"]
    with fl.config(deterministic=True):
        found = [[o.tobytes() for o in compiled(fun, *args, number=n)(*args)] for n in THREADS]
    assert found[0] == found[1] == found[2]


# --- random programs --------------------------------------------------------------------------------------------------


_small = st.integers(0, 11)
_recipes = st.builds(
    Recipe, st.lists(st.tuples(st.integers(0, 17), st.integers(0, 13)), min_size=1, max_size=2),
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 5), _small, _small), min_size=1, max_size=8),
    st.lists(st.integers(0, 7), min_size=1, max_size=2), st.integers(0, 1000), st.just(False),
)


@bounded(60)
@given(st.lists(_recipes, min_size=2, max_size=4))
def test_random_branches(branches):
    """Random programs side by side, in sections or not, on any number of threads, in any order: the same bits."""
    made = [(function_of(r)[0], inputs_of(r)) for r in branches]

    def fun(*args):
        left, outs = list(args), []
        for branch, inputs in made:
            outs.append(branch(*left[: len(inputs)]))
            del left[: len(inputs)]
        return outs

    args = [x for _, inputs in made for x in inputs]
    program = fl.make_program(fun)(*args)
    if len(program.inputs) > len(args):
        args = [*fl.closure_convert(fun, *args)[1], *args]
    optimized = pipeline.optimize(program)
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "SEED_NS", np.inf)
        plain = native.compile_native(program, optimized)
        expected = [np.asarray(o).tobytes() for o in plain(*args)]
        patch.setattr(sections, "WORTH_NS", -1.0)
        patch.setattr(sections, "SEED_NS", 0.0)
        for number in (1, 3):
            with fl.config(num_threads=number):
                executable = native.compile_native(program, optimized)
            for _ in range(2):
                assert [np.asarray(o).tobytes() for o in executable(*args)] == expected
        verify(with_constants(executable.lowered))
        if sections_of(executable.lowered.function):
            first, second = ([np.asarray(o).tobytes() for o in interpreted(
                executable.lowered, args, program.out_avals, executable.plan, turned)] for turned in (False, True))
            assert first == second

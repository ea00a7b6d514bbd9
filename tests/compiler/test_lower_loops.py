# SPDX-License-Identifier: MIT
"""Loops and branches as native code: values and gradients against the evaluator and the interpreter of loop IR."""

import gc
import os
import resource
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as jnp
from functorch_lite import lax
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.verify import verify
from functorch_lite.compiler.lowering import loops
from functorch_lite.compiler.runtime.executable import Executable
from functorch_lite.core.evaluate import Evaluator
from tests.compiler.interpreting import run_interpreted, with_constants

X = np.array([0.5, -1.0, 2.0])
MANY = np.linspace(-1.0, 1.0, 200)


def checked(fun, *args):
    """The executable of `fun`, verified, after its outputs were found to be the evaluator's and the interpreter's."""
    program = fl.make_program(fun)(*args)
    optimized = pipeline.optimize(program)
    assert native.can_lower(optimized)
    executable = native.compile_native(program, optimized)
    verify(with_constants(executable.lowered))
    leaves = fl.tree.leaves(args)
    expected = Evaluator(program)(*leaves)
    interpreted = run_interpreted(executable.lowered, leaves, program.out_avals)
    planned = run_interpreted(executable.lowered, leaves, program.out_avals, executable.plan)
    for found in (executable(*leaves), executable(*leaves), interpreted, planned):
        for f, e in zip(found, expected, strict=True):
            f, e = np.asarray(f), np.asarray(e)
            assert (f.dtype, f.shape) == (e.dtype, e.shape)
            np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-12)
    return executable


def statements(body, kind):
    """Every statement of a kind, those inside loops too."""
    for s in body:
        if isinstance(s, kind):
            yield s
        for block in nodes.blocks(s):
            yield from statements(block, kind)


def runs_natively(executable):
    return not list(statements(executable.lowered.function.body, nodes.HostCall))


def checked_with_gradient(fun, *args):
    """`checked` of a function and of its gradient in the first argument."""
    def total(*given):
        return sum(jnp.sum(leaf) for leaf in fl.tree.leaves(fun(*given)))

    return checked(fun, *args), checked(fl.grad(total), *args)


# --- scans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 2, 7])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("start", [np.float64(0.5), X, MANY])
def test_scan_of_any_length(length, reverse, start):
    def run(c, xs):
        return lax.scan(lambda c, x: (jnp.sin(c) * x + c, c * x), c, xs, reverse=reverse)

    for executable in checked_with_gradient(run, start, np.linspace(0.1, 1.0, length)):
        assert length == 0 or runs_natively(executable)


@pytest.mark.parametrize("start", [(np.float64(1.0), np.float64(2.0)), (X, X + 1), (MANY, MANY + 1)])
def test_carries_that_swap(start):
    def run(pair):
        return lax.scan(lambda c, _: ((c[1], c[0] * 0.5), None), pair, None, length=5)[0]

    for executable in checked_with_gradient(run, start):
        assert runs_natively(executable)


def test_carries_that_turn_round():
    start = (MANY, MANY + 1, MANY + 2)
    checked(lambda c: lax.scan(lambda c, _: ((c[1], c[2], c[0]), c[1]), c, None, length=4), start)


@pytest.mark.parametrize("start", [np.float64(1.0), MANY])
def test_a_carry_that_passes_through(start):
    def run(a, b):
        return lax.scan(lambda c, _: ((c[0], c[1] * c[0] + c[0]), c[0]), (a, b), None, length=3)

    checked_with_gradient(run, start, start + 1)


@pytest.mark.parametrize("start", [np.float64(1.0), MANY])
def test_one_value_as_carry_and_output(start):
    def run(c):
        def step(c, _):
            new = jnp.cos(c)
            return (new, new), new

        return lax.scan(lambda c, x: step(c[0] + c[1], x), (c, c), None, length=3)

    checked_with_gradient(run, start)


@pytest.mark.parametrize("start", [np.float64(1.0), MANY])
def test_an_output_that_is_the_old_carry(start):
    checked_with_gradient(lambda c: lax.scan(lambda c, _: (c * 0.5 + 1, (c, -c)), c, None, length=3), start)


def test_a_new_carry_from_the_old_one_read_elsewhere():
    """Turned round, summed, or shifted: not in place, or not before the sum was taken."""
    def step(c, _):
        return c[::-1] * 0.5 + jnp.mean(c) + jnp.roll(c, 1), jnp.max(c)

    checked_with_gradient(lambda c: lax.scan(step, c, None, length=4), MANY)


@pytest.mark.parametrize("length", [1, 3, 4, 7])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_large_carry_goes_from_one_place_to_another_and_back(length, reverse):
    """One that is read elsewhere, beside one that is changed in place, two that swap, and a number."""
    def step(carry, x):
        c, d, e, f, n = carry
        return (c[::-1] * x + n, d * 0.5 + x, f, e, n + jnp.max(c)), (c[:3], n)

    start = np.linspace(-1, 1, loops.LARGE)
    carry = (start, start + 1, start + 2, start + 3, np.float64(0.5))
    xs = np.linspace(0.1, 1.0, length)
    executable, _ = checked_with_gradient(lambda c, xs: lax.scan(step, c, xs, reverse=reverse), carry, xs)
    (loop,) = statements(executable.lowered.function.body, nodes.Loop) if length > 1 else (None,)
    if length > loops.LEAST:
        assert loop.extent == length // 2
        copied = [s for s in statements(loop.body, nodes.Copy) if s.count >= loops.LARGE]
        assert len(copied) == 2 * 2  # of those that swap


def test_a_new_carry_from_a_product():
    w = np.random.default_rng(0).standard_normal((30, 30)) / 6

    def run(h, w):
        return lax.scan(lambda h, _: (jnp.tanh(w @ h + h), h[:2]), h, None, length=6)

    checked_with_gradient(run, MANY[:30], w)


@pytest.mark.parametrize("start", [np.bool_(True), np.int32(5), np.complex128(1 + 2j), np.float32(0.3)])
@pytest.mark.parametrize("shape", [(), (3,), (100,)])
def test_kinds_of_carries(start, shape):
    start = np.broadcast_to(start, shape).copy()[()]

    def step(c, x):
        return (~c if c.dtype == bool else c * c - c, x), c

    checked(lambda c: lax.scan(lambda c, x: ((step(c[0], x)[0][0], x), c[0]), (c, np.int64(0)), np.arange(4)), start)


def test_nested_scans_and_whiles():
    def inner(c, x):
        limit = jnp.abs(x) + 2.0
        return lax.while_loop(lambda s: jnp.sum(s) < limit, lambda s: s * 1.5 + 0.25, c * 0.1), jnp.sum(c)

    def outer(c, x):
        return lax.scan(inner, c + x, np.arange(3.0))

    for executable in checked_with_gradient(lambda c: lax.scan(outer, c, np.arange(2.0)), np.abs(X)):
        assert runs_natively(executable)


def test_sixty_numbers_stay_values():
    def run(c):
        def step(c, _):
            return [0.9 * a + 0.1 * b for a, b in zip(c, [*c[1:], c[0]], strict=True)], None

        return sum(lax.scan(step, list(c), None, length=10)[0])

    executable = checked(run, tuple(np.arange(60.0)))
    (loop,) = list(statements(executable.lowered.function.body, nodes.Loop))
    assert len(loop.carried) == 60
    assert not list(statements(loop.body, (nodes.KernelCall, nodes.Copy, nodes.Store)))


# --- in place ---------------------------------------------------------------------------------------------------------


def _moved_in_loops(executable):
    """Elements that the copies inside loops move in an iteration, those of the kernels they call too."""
    moved = 0
    for loop in statements(executable.lowered.function.body, (nodes.Loop, nodes.While)):
        bodies = [loop.body, *(c.kernel.body for c in statements(loop.body, nodes.KernelCall))]
        moved += sum(c.count for body in bodies for c in statements(body, nodes.Copy))
    return moved


def test_element_wise_steps_are_in_place():
    executable = checked(lambda c: lax.scan(lambda c, x: (c * 0.5 + x, None), c, np.arange(4.0))[0], MANY)
    assert _moved_in_loops(executable) == 0


def test_rows_of_a_large_carry_are_written_in_place():
    def run(table, x):
        def step(c, i):
            table, v = c
            v = v * 0.5 + 1
            return (lax.dynamic_update_slice(table, v[None], (i, 0)), v), jnp.sum(table[i])

        return lax.scan(step, (table, x), np.arange(20))

    forward, backward = checked_with_gradient(run, np.ones((20, 30)), MANY[:30])
    assert _moved_in_loops(forward) <= 60
    assert runs_natively(forward)
    assert runs_natively(backward)


@pytest.mark.parametrize("combine", ["set", "add", "multiply", "max"])
def test_scatters_into_a_carry_are_in_place(combine):
    def run(c):
        def step(c, i):
            at = jnp.at(c)[jnp.stack([i, i + 3])]
            return getattr(at, combine)(np.array([2.0, 3.0])), c[i]

        return lax.scan(step, c, np.arange(6))

    executable = checked(run, MANY)
    assert _moved_in_loops(executable) < MANY.size


def test_updates_in_a_row_and_through_inner_loops_and_branches():
    def run(c):
        def write(c, i):
            c = lax.dynamic_update_slice(c, c[i][None] + 1, (i + 1,))
            return lax.dynamic_update_slice(c, jnp.sum(c[:2])[None], (i,))

        def step(c, i):
            c = lax.fori_loop(0, 3, lambda j, c: write(c, i + j), c)
            return lax.cond(i % 2 == 0, lambda c: write(c, i), lambda c: c, c), c[i]

        return lax.scan(step, c, np.arange(5))

    forward, _ = checked_with_gradient(run, MANY)
    assert _moved_in_loops(forward) < MANY.size


def test_an_update_by_the_carry_itself_is_not_in_place():
    checked(lambda c: lax.scan(lambda c, i: (lax.dynamic_update_slice(c, c[10:20], (i,)), None), c, np.arange(5))[0],
             MANY)
    checked(lambda c: lax.scan(lambda c, i: (lax.dynamic_update_slice(c, c[::-1][:50], (i,)), c[3]), c,
                                np.arange(5)), MANY)


def test_an_index_out_of_range_in_place():
    def run(c, i):
        return lax.scan(lambda c, i: (jnp.at(c)[i].set(1.0, mode="raise"), None), c, i)[0]

    f = fl.jit(run)
    np.testing.assert_array_equal(f(np.zeros(5), np.arange(4)), [1, 1, 1, 1, 0])
    with pytest.raises(IndexError):
        f(np.zeros(5), np.array([1, 7]))


# --- while loops and stacks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5, 100])
@pytest.mark.parametrize("start", [np.float64(0.5), X, MANY])
def test_gradients_of_loops_of_unknown_length(n, start):
    def run(c, n):
        return lax.fori_loop(0, n, lambda i, c: jnp.sin(c) * 0.9 + c * c * 0.01, c)

    for executable in checked_with_gradient(run, start, np.int64(n)):
        assert runs_natively(executable)


def test_second_derivatives_of_a_while():
    def run(x):
        return lax.while_loop(lambda s: s[0] < 4, lambda s: (s[0] + 1, s[1] * s[1] * x), (0, x))[1]

    checked(fl.grad(fl.grad(run)), np.float64(0.9))
    checked(lambda x, t: fl.jvp(fl.grad(run), (x,), (t,)), np.float64(0.9), np.float64(1.0))


def test_stacks_inside_scans_are_used_again():
    def run(c):
        def step(c, n):
            return lax.fori_loop(0, n, lambda i, c: jnp.sin(c) + 0.1, c), jnp.sum(c)

        return lax.scan(step, c, np.array([3, 0, 40, 7]))

    forward, backward = checked_with_gradient(run, X)
    assert runs_natively(forward)
    assert runs_natively(backward)


def test_whiles_of_rows_in_a_batch():
    def run(x):
        return lax.while_loop(lambda c: c < 10.0, lambda c: c * 1.7 + 0.3, x)

    for executable in checked_with_gradient(fl.vmap(run), np.array([0.5, 20.0, 3.0, 9.0])):
        assert runs_natively(executable)


def test_conditions_in_whiles():
    def step(s):
        i, c = s
        c = lax.cond(i % 3 == 0, lambda c: jnp.sin(c), lambda c: c * 0.5 + 1, c)
        return i + 1, lax.switch(i % 4, [lambda c: c, lambda c: -c, lambda c: c * c], c)

    for start in (np.float64(0.3), X, MANY):
        for executable in checked_with_gradient(lambda c: lax.while_loop(lambda s: s[0] < 7, step, (0, c))[1], start):
            assert runs_natively(executable)


def test_memory_of_stacks_is_given_back_when_read():
    executable = checked(fl.grad(lambda x, n: lax.fori_loop(0, n, lambda i, c: jnp.sin(c), x)), np.float64(1.0),
                          np.int64(9))
    body = executable.lowered.function.body
    assert len(list(statements(body, nodes.Release))) == 1
    assert list(statements(body, nodes.Grow))


def test_memory_does_not_grow():
    @fl.jit
    def run(x, n):
        def body(i, c):
            return fl.pure_callback(_refuse, np.zeros(()), jnp.sum(c)) * 0 + jnp.sin(c)

        return fl.grad(lambda x: jnp.sum(lax.fori_loop(0, n, lambda i, c: jnp.sin(c) * 1.01, x)))(x), \
            lax.fori_loop(0, n - 1000, body, x)

    x = np.ones(1000)
    run(x, 1000)
    with pytest.raises(ValueError, match="refused"):
        run(x, 1001)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(60):
        run(x, 1000)  # 8 MB of stacks each
        with pytest.raises(ValueError, match="refused"):
            run(x, 1001)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 60_000, f"{after - before} kB more than before"


def _refuse(_):
    raise ValueError("refused")


def test_a_thousand_calls_of_small_stacks():
    f = fl.jit(fl.grad(lambda x, n: lax.fori_loop(0, n, lambda i, c: jnp.sin(c), x)))
    first = f(1.0, 20)
    for _ in range(1000):
        assert f(1.0, 20) == first


def test_an_exception_inside_a_loop_leaves_it():
    def body(s):
        return s[0] + 1, fl.pure_callback(_at_most_three, np.zeros((), np.int64), s[0])

    f = fl.jit(lambda n: lax.while_loop(lambda s: s[0] < n, body, (np.int64(0), np.int64(0)))[1])
    assert f(np.int64(3)) == 2
    with pytest.raises(ValueError, match="too many"):
        f(np.int64(10))
    assert f(np.int64(2)) == 1


def _at_most_three(i):
    if i > 3:
        raise ValueError("too many")
    return i


# --- branches by row --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (40,)])
def test_each_row_its_own_branch(shape):
    x = np.random.default_rng(0).standard_normal((9, *shape))
    index = np.array([0, 1, 2, 3, -5, 9, 1, 1, 0])
    scale = np.float64(2.0)

    def run(x, i, s):
        branches = [lambda x: (x * s, jnp.sum(x)), lambda x: (jnp.sin(x), s), lambda x: (x[...] + 1, jnp.max(x))]
        return lax.switch(i, branches, x)

    for executable in checked_with_gradient(fl.vmap(run, in_axes=(0, 0, None)), x, index, scale):
        assert runs_natively(executable)


def test_only_the_branch_of_a_row_runs():
    def run(x):
        return lax.cond(x > 0, lambda x: lax.while_loop(lambda c: c > 1, lambda c: c / 2, x), lambda x: -x, x)

    checked(fl.vmap(run), np.array([5.0, -1.0, 8.0, -3.0]))
    seen = []

    def note(x):
        seen.append(float(x))
        return x

    noted = fl.jit(fl.vmap(lambda x: lax.cond(x > 0, lambda x: fl.pure_callback(note, np.zeros(()), x), jnp.sin, x)))
    noted(np.array([1.0, -2.0, 3.0]))
    assert seen == [1.0, 3.0]


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

_LOOPS = {
    "while": "lax.while_loop(lambda c: c >= 0.0, lambda c: c * 0.999 + 1e-3, x)",
    "nested": "lax.while_loop(lambda c: c >= 0.0, lambda c: lax.while_loop(lambda d: d[0] < 3, lambda d: "
              "(d[0] + 1, d[1] * 0.9 + 0.1), (0, c))[1], x)",
    "scan": "lax.scan(lambda c, i: (jnp.sin(c) + c * 1e-3, None), x, None, length=10**10)[0]",
    "callback": "lax.while_loop(lambda c: c >= 0.0, lambda c: fl.pure_callback(np.asarray, np.zeros(()), c), x)",
}


@pytest.mark.skipif(os.name == "nt", reason="a process cannot be sent SIGINT alone")
@pytest.mark.parametrize("name", list(_LOOPS))
def test_interrupting_a_long_loop(name):
    program = f"""
        import os, signal, threading, time
        import numpy as np
        import functorch_lite as fl, functorch_lite.numpy as jnp
        from functorch_lite import lax
        run = fl.jit(lambda x: {_LOOPS[name]})
        sent = []
        def send():
            time.sleep(0.3)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(3):
            threading.Thread(target=send).start()
            try:
                run(1.0)
            except KeyboardInterrupt:
                late = time.perf_counter() - sent[-1]
                print("interrupted", "in time" if late < LATEST else f"after {{late}} s")
    """.replace("LATEST", "0.5")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.splitlines() == ["interrupted in time"] * 3
    assert done.stderr == ""


def test_an_interrupt_that_comes_before_a_step_catches_errors(monkeypatch):
    def interrupted(executable, number, places):
        raise KeyboardInterrupt("early")

    run = fl.jit(lambda x: lax.while_loop(lambda c: c >= 0.0, lambda c: fl.pure_callback(np.abs, np.zeros(()), c), x))
    assert run(-1.0) == -1.0
    monkeypatch.setattr(Executable, "_in_python", interrupted)
    fresh = fl.jit(lambda x: lax.while_loop(lambda c: c >= 0.0, lambda c: fl.pure_callback(np.abs, np.zeros(()), c), x))
    with pytest.raises(KeyboardInterrupt, match="early"):
        fresh(1.0)
    assert fresh(-1.0) == -1.0

# SPDX-License-Identifier: MIT
"""Dead code: unused equations go, and unused outputs, carries, constants and operands of loops and branches."""

import numpy as np

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.core.program import Program
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.key_use import use_key_p
from tests.compiler.passes.support import check_golden_pass, check_pass, program_of

X = np.linspace(0.0, 1.0, 3)
XS = np.linspace(-1.0, 1.0, 12).reshape(4, 3)
KEY = np.array([0, 7], np.uint32)


def only(program, *kept):
    """The program of some of its outputs."""
    return Program(program.inputs, program.equations, tuple(program.outputs[i] for i in kept), program.name)


def scanned(a, b, x, xs):
    def body(carry, x):
        used, unused, feeds = carry
        return (used * a + feeds, unused + fnp.sin(b), fnp.cos(feeds)), (used + x, fnp.exp(x))

    (used, unused, feeds), (y, z) = lax.scan(body, (x, x, x), xs)
    return [used, unused, feeds, y, z]


def looped(a, x, y):
    def step(state):
        i, x, y, z = state
        return i + 1, x * a, y + z, fnp.sin(z)

    return list(lax.while_loop(lambda s: s[0] < 3, step, (0, x, y, x)))


def branched(i, x, y):
    return list(lax.cond(i > 0, lambda x, y: (fnp.sin(x), y), lambda x, y: (x, fnp.cos(y)), x, y))


def test_unused_equations_go_and_inputs_stay():
    program = program_of(lambda x, y: [fnp.sin(x), fnp.cos(y)], X, X)
    result = check_pass(eliminate_dead_code, only(program, 0), [X, X])
    assert len(result.equations) == 1 and len(result.inputs) == 2


def test_a_program_without_dead_code_is_left_alone():
    program = eliminate_dead_code(program_of(scanned, X, X, X, XS))
    assert eliminate_dead_code(program) is program


def test_scan_loses_unused_results_and_the_carries_constants_and_equations_behind_them(check_golden):
    args = [X, X, X, XS]
    program = program_of(scanned, *args)
    check_golden_pass(check_golden, eliminate_dead_code, "dead_code_scan", only(program, 0), args)
    for kept in ([1], [2], [3], [4], [0, 4], [1, 3]):
        check_pass(eliminate_dead_code, only(program, *kept), args)


def test_while_loses_unused_carries_but_not_those_of_its_condition(check_golden):
    args = [X, X, X]
    program = program_of(looped, *args)
    check_golden_pass(check_golden, eliminate_dead_code, "dead_code_while", only(program, 1), args)
    for kept in ([0], [2], [3], [1, 3]):
        check_pass(eliminate_dead_code, only(program, *kept), args)


def test_cond_loses_unused_results_and_operands(check_golden):
    args = [np.int64(1), X, X]
    program = program_of(branched, *args)
    check_golden_pass(check_golden, eliminate_dead_code, "dead_code_cond", only(program, 0), args)
    check_pass(eliminate_dead_code, only(program, 1), [np.int64(0), X, X])


def test_a_batched_cond_loses_unused_results_and_operands():
    rows = np.array([0, 1, 1, 0]), XS, XS
    program = fl.make_program(fl.vmap(branched))(*rows)
    for kept in ([0], [1], [0, 1]):
        result = check_pass(eliminate_dead_code, only(program, *kept), rows)
        assert [len(e.outputs) for e in result.equations if e.prim.name == "batched_cond"] == [len(kept)]


def test_a_called_program_loses_dead_code_and_keeps_its_results():
    called = program_of(lambda x: [fnp.sin(x), fnp.cos(x)], X)
    body = Program(called.inputs, called.equations, (called.outputs[0], called.inputs[0]))
    program = only(program_of(lambda x: bind(jit_p, x, program=body), X), 1)
    (call,) = check_pass(eliminate_dead_code, program, [X]).equations
    assert len(call.outputs) == 2 and len(call.params["program"].equations) == 1


def test_what_an_effect_in_a_loop_reads_stays():
    def fun(xs):
        def body(carry, x):
            key, unused = carry
            bind(use_key_p, key, by="clone")
            return (key + np.uint32(1), unused * x), x

        return list(lax.scan(body, (KEY, X), xs)[0])

    result = check_pass(eliminate_dead_code, Program(*_without_outputs(program_of(fun, XS))), [XS])
    (loop,) = [e for e in result.equations if e.prim.name == "scan"]
    assert loop.params["n_carry"] == 1 and loop.params["body"].has_effects


def _without_outputs(program):
    return program.inputs, program.equations, (), program.name


def test_the_gradient_of_a_while_loop_keeps_the_number_of_its_steps():
    def fun(x):
        return fl.grad(lambda x: lax.fori_loop(0, 3, lambda i, s: (s[0] * 1.5, fnp.sin(s[1])), (x, x))[0].sum())(x)

    program = fl.make_program(fun)(X)
    check_pass(eliminate_dead_code, program, [X])
    steps = fl.make_program(fl.grad(lambda x: _until(x).sum()))(X)
    check_pass(eliminate_dead_code, steps, [X])


def _until(x):
    return lax.while_loop(lambda s: s[0].sum() < 5, lambda s: (s[0] * 1.5 + 1, fnp.sin(s[1])), (x, x))[0]

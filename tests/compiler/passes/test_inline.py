# SPDX-License-Identifier: MIT
"""Inlining: calls become equations; many calls of one large program stay; recomputation stays behind its barrier."""

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite.compiler.passes.common import eliminate_common
from functorch_lite.compiler.passes.inline import MIN_CALLS, MIN_EQUATIONS, inline_calls, inline_rules
from functorch_lite.core.program import Literal, subprograms
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.barrier import barrier_p
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.transcendental import sin_p
from tests.compiler.passes.support import check_golden_pass, check_pass, program_of

X = np.array([0.5, -1.0, 2.0])
MATRIX = np.array([[3.0, 1.0], [1.0, 2.0]])


@fl.custom_jvp
def cube(x):
    return x * x * x


@cube.defjvp
def cube_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return cube(x), 3.0 * x * x * t


@fl.custom_vjp
def halved(x):
    return x * 0.5


halved.defvjp(lambda x: (x * 0.5, x), lambda x, ct: (ct * 0.25 + 0.0 * x,))


def solved(b):
    return fl.lax.custom_linear_solve(lambda x: MATRIX @ x, b, lambda f, y: fnp.linalg.solve(MATRIX, y), symmetric=True)


def chain(n):
    def fun(x):
        for _ in range(n):
            x = fnp.sin(x) * 2.0
        return x

    return fun


def nested(x):
    inner = fl.jit(lambda x: fnp.sin(x) + 1.0)
    return fl.jit(lambda x: inner(x) * inner(2.0 * x))(x)


FUNCTIONS = {
    "nested": (nested, X),
    "custom_jvp": (cube, X),
    "custom_vjp": (halved, X),
    "checkpoint": (fl.checkpoint(nested), X),
    "linear_solve": (solved, np.array([1.0, 2.0])),
    "grad_of_checkpoint": (fl.grad(lambda x: fl.checkpoint(lambda x: fnp.sin(fnp.sin(x)))(x).sum()), X),
    "jvp_of_checkpoint": (lambda x: fl.jvp(fl.checkpoint(nested), (x,), (x,))[1], X),
    "linearize_of_custom_vjp": (lambda x: fl.linearize(halved, x)[1](x), X),
    "linearize_of_checkpoint": (lambda x: fl.linearize(fl.checkpoint(nested), x)[1](x), X),
    "hessian": (fl.hessian(lambda x: fl.checkpoint(nested)(x).sum()), X),
    "vmap": (fl.vmap(fl.grad(lambda x: cube(halved(x)))), X),
    "in_a_loop": (lambda x: fl.lax.fori_loop(0, 3, lambda i, x: nested(cube(x)), x), X),
    "in_a_branch": (lambda x: fl.lax.cond(x.sum() > 0, nested, cube, x), X),
}


def calls(program):
    """Equations at any depth that are calls."""
    for eqn in program.equations:
        if eqn.prim in inline_rules:
            yield eqn
        for sub in subprograms(eqn.params):
            yield from calls(sub)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_call_is_left_and_values_are_the_same(name):
    fun, x = FUNCTIONS[name]
    program = fl.make_program(fun)(x)
    assert not list(calls(check_pass(inline_calls, program, [x])))


@pytest.mark.parametrize("name", ["nested", "grad_of_checkpoint", "in_a_loop"])
def test_text(name, check_golden):
    fun, x = FUNCTIONS[name]
    check_golden_pass(check_golden, inline_calls, f"inline_{name}", fl.make_program(fun)(x), [x])


def test_a_program_without_calls_is_left_alone():
    program = fl.make_program(chain(3))(X)
    assert inline_calls(program) is program


@pytest.mark.parametrize("count", [MIN_CALLS - 1, MIN_CALLS, 24])
def test_many_calls_of_a_large_program_stay_calls_of_one_program(count):
    block = fl.jit(chain(MIN_EQUATIONS))

    def fun(x):
        for _ in range(count):
            x = block(x)
        return x

    result = check_pass(inline_calls, fl.make_program(fun)(X), [X])
    bodies = [e.params["program"] for e in result.equations if e.prim is jit_p]
    assert len(bodies) == (count if count >= MIN_CALLS else 0)
    assert len({id(b) for b in bodies}) <= 1


def test_equal_programs_count_as_one_and_calls_inside_calls_count():
    def fun(x):
        for _ in range(MIN_CALLS):
            x = fl.jit(lambda x: fl.jit(chain(MIN_EQUATIONS))(x))(x)
        return x

    result = check_pass(inline_calls, fl.make_program(fun)(X), [X])
    bodies = {id(e.params["program"]) for e in result.equations if e.prim is jit_p}
    assert len(bodies) == 1 and len(result.equations) == MIN_CALLS
    assert not list(calls(result.equations[0].params["program"]))


def test_calls_nested_many_levels_deep_are_counted_not_listed():
    program = program_of(lambda x: [chain(MIN_EQUATIONS)(x)], X)
    for _ in range(40):
        program = program_of(lambda x, p=program: bind(jit_p, bind(jit_p, x, program=p)[0], program=p), X)
    assert len(inline_calls(program).equations) < 10


def test_small_programs_are_inlined_however_often_they_are_called():
    def fun(x):
        block = fl.jit(chain(2))
        for _ in range(24):
            x = block(x)
        return x

    assert not list(calls(inline_calls(fl.make_program(fun)(X))))


def test_equations_keep_the_users_line():
    program = fl.make_program(nested)(X)
    inner = program.equations[0].params["program"].equations[0].params["program"]
    wanted = {e.source for e in inner.equations if e.prim is sin_p}
    assert {e.source for e in inline_calls(program).equations if e.prim is sin_p} == wanted


def test_what_a_checkpointed_function_computes_again_is_not_shared_with_the_forward_pass():
    def loss(x):
        return fnp.exp(fl.checkpoint(lambda x: fnp.sin(fnp.sin(x)))(x)).sum()

    program = eliminate_common(inline_calls(fl.make_program(fl.value_and_grad(loss))(X)))
    barriers = [e for e in program.equations if e.prim is barrier_p]
    assert len(barriers) == 1
    first = [e for e in program.equations if e.prim is sin_p]
    behind = {v for v in barriers[0].outputs}
    again = [e for e in first if e.inputs[0] in behind]
    assert len(first) > 2 and len(again) == 1


def test_a_literal_argument_becomes_an_operand():
    program = fl.make_program(lambda x: fl.jit(lambda x, y: x * y)(x, 3.0))(X)
    result = check_pass(inline_calls, program, [X])
    assert any(type(a) is Literal and a.value == 3.0 for e in result.equations for a in e.inputs)

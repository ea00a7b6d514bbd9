# SPDX-License-Identifier: MIT
"""Programs: printed, compared, verified, evaluated; and the errors of the verifier."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.core.aval import Aval
from functorch_lite.core.check import check_program
from functorch_lite.core.evaluate import Evaluator, interpret
from functorch_lite.core.program import Equation, Program, Var
from functorch_lite.primitives.elementwise import add_p, neg_p
from functorch_lite.primitives.transcendental import sin_p

F3 = Aval((3,), np.dtype(np.float64))


def _chain():
    a, b, c = Var(F3), Var(F3), Var(F3)
    equations = (Equation(sin_p, (a,), (b,), {}), Equation(add_p, (a, b), (c,), {}))
    return Program((a,), equations, (c,), "chain")


def test_a_program_prints_as_it_is_written():
    assert str(_chain()) == (
        "{ lambda a:f64[3] ; let\n    b:f64[3] = sin a\n    c:f64[3] = add a b\n  in (c) }"
    )


def test_equal_programs_are_equal_and_hash_alike():
    one, two = _chain(), _chain()
    assert one == two
    assert hash(one) == hash(two)
    assert fl.make_program(np.sin)(1.0) != fl.make_program(np.cos)(1.0)
    assert fl.make_program(lambda x: x + 1.0)(1.0) != fl.make_program(lambda x: x + 2.0)(1.0)


def test_interpret_and_evaluator_agree():
    x = np.array([0.0, 1.0, 2.0])
    np.testing.assert_array_equal(interpret(_chain(), [x])[0], x + np.sin(x))
    np.testing.assert_array_equal(Evaluator(_chain())(x)[0], x + np.sin(x))


def test_an_evaluator_refuses_another_number_of_inputs():
    with pytest.raises(TypeError, match="1 inputs was called with 2"):
        Evaluator(_chain())(np.ones(3), np.ones(3))


def test_the_verifier_accepts_what_staging_writes():
    check_program(fl.make_program(fl.grad(lambda x: np.sum(np.tanh(x) ** 2)))(np.ones((2, 3))))
    check_program(fl.make_program(lambda x: fl.lax.scan(lambda c, y: (c * y, c), x, np.ones(3)))(1.0))


def _broken(equations, outputs, inputs=()):
    return Program(tuple(inputs), tuple(equations), tuple(outputs), "broken")


@pytest.mark.parametrize(("make", "message"), [
    (lambda a, b: _broken([Equation(sin_p, (b,), (a,), {})], [a]), "used before it is defined"),
    (lambda a, b: _broken([Equation(sin_p, (a,), (a,), {})], [a], [a]), "assigned twice"),
    (lambda a, b: _broken([], [b], [a]), "never defined"),
    (lambda a, b: _broken([], [a], [a, a]), "an input appears twice"),
    (lambda a, b: _broken([Equation(neg_p, (a,), (Var(Aval((2,), F3.dtype)),), {})], [a], [a]), r"has type f64\[2\]"),
])
def test_the_verifier_names_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        check_program(make(Var(F3), Var(F3)))


def test_dead_equations_go_and_effects_stay():
    def f(x):
        np.cos(x)
        fl.debug.print("x = {}", x)
        return np.sin(x)

    names = [e.prim.name for e in eliminate_dead_code(fl.make_program(f)(1.0)).equations]
    assert names == ["debug_callback", "sin"]


def test_values_are_dropped_after_their_last_use():
    alive = []

    def f(x):
        y = x + 1.0
        z = y * 2.0
        fl.debug.callback(lambda v: alive.append(v), z)
        return z - 1.0

    source = Evaluator(fl.make_program(f)(np.ones(4)))
    source(np.ones(4))
    assert len(alive) == 1
    assert "del" in "".join(_code_of(source))


def _code_of(evaluator):
    return evaluator.text.splitlines()

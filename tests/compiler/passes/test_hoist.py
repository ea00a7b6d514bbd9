# SPDX-License-Identifier: MIT
"""Loop-invariant code motion: what moves before a loop, and what stays inside."""

import numpy as np

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.compiler.passes.canonical import canonicalize
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.compiler.passes.hoist import hoist_invariants
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.indexing import gather
from functorch_lite.primitives.key_use import use_key_p
from tests.compiler.passes.support import check_golden_pass, check_pass, program_of

X = np.linspace(0.0, 1.0, 3)
XS = np.linspace(-1.0, 1.0, 12).reshape(4, 3)
KEY = np.array([0, 7], np.uint32)


def names(program):
    return [e.prim.name for e in program.equations]


def scanned(body):
    def fun(a, x, xs):
        carry, ys = lax.scan(lambda c, x: body(a, c, x), x, xs)
        return [carry, ys]

    return fun


def test_text(check_golden):
    def body(a, carry, x):
        return carry * fnp.sin(a * 2.0) + fnp.exp(x), fnp.sin(a * 2.0)

    check_golden_pass(check_golden, hoist_invariants, "hoist_scan", program_of(scanned(body), X, X, XS), [X, X, XS])


def test_both_programs_of_a_while_lose_their_invariants(check_golden):
    def fun(a, x):
        return list(
            lax.while_loop(lambda s: s[0] < fnp.sum(fnp.exp(a)), lambda s: (s[0] + 1, s[1] * fnp.cos(a)), (0, x))
        )

    check_golden_pass(check_golden, hoist_invariants, "hoist_while", program_of(fun, X, X), [X, X])


def test_invariants_of_an_inner_loop_leave_the_outer_one_too():
    def fun(a, x):
        def inner(i, x):
            return x * fnp.sin(a)

        return [lax.fori_loop(0, 2, lambda i, x: lax.fori_loop(0, 2, inner, x), x)]

    result = eliminate_dead_code(check_pass(hoist_invariants, program_of(fun, X, X), [X, X]))
    assert "sin" in names(result)
    assert str(result).count("sin") == 1


def test_a_broadcast_stays_but_moves_along_with_what_reads_it():
    def body(a, carry, x):
        wide = fnp.broadcast_to(a, (2, 3))
        return carry + wide.sum(0), fnp.sin(wide) * x

    result = check_pass(hoist_invariants, program_of(scanned(body), X, X, XS), [X, X, XS])
    assert names(result) == ["broadcast_in_dim", "reduce_sum", "sin", "scan"]
    only_moves = program_of(scanned(lambda a, c, x: (c + x, x * fnp.broadcast_to(a, (2, 3)))), X, X, XS)
    assert hoist_invariants(only_moves) is only_moves


def test_what_may_raise_or_has_an_effect_stays():
    def body(a, carry, x):
        bind(use_key_p, KEY, by="clone")
        picked = gather(a, np.array([7]), mode="raise")
        power = (a > 0).astype(np.int64) ** a.astype(np.int64)
        return carry + picked + power + fnp.linalg.cholesky(fnp.outer(a, a) + fnp.eye(3)).sum(), x

    result = hoist_invariants(program_of(scanned(body), X, X, XS[:0]))
    assert not {"use_key", "gather", "pow", "cholesky"}.intersection(names(result))
    check_pass(hoist_invariants, result, [X, X, XS[:0]])


def test_loops_that_share_a_body_go_on_sharing_one():
    def fun(a, x):
        step = fl.jit(lambda a, x: lax.fori_loop(0, 2, lambda i, x: x * fnp.sin(a), x))
        return [step(a, step(a, x))]

    program = check_pass(hoist_invariants, program_of(fun, X, X), [X, X])
    assert len({id(e.params["program"]) for e in program.equations if e.prim.name == "jit"}) == 1


# --- calls ------------------------------------------------------------------------------------------------------------


def test_what_all_calls_have_in_common_is_computed_once():
    block = fl.jit(lambda x, s: x * fnp.sin(s) + fnp.cos(np.float64(2.0) * s))

    def fun(x, s):
        for _ in range(3):
            x = block(x, s)
        return x

    program = fl.make_program(fun)(X, X[0])
    result = check_pass(hoist_invariants, program)
    assert [e.prim.name for e in result.equations].count("sin") == 1
    assert sum(e.prim.name == "jit" for e in result.equations) == 3
    names = {e.prim.name for c in result.equations if c.prim.name == "jit" for e in c.params["program"].equations}
    assert not names & {"sin", "cos"}
    np.testing.assert_allclose(Evaluator(result)(X, X[0])[0], fun(X, X[0]), rtol=1e-12)


def test_calls_with_arguments_of_their_own_are_left_alone():
    block = fl.jit(lambda x, s: x * fnp.sin(s))
    program = fl.make_program(lambda x: block(block(x, x + 1.0), x + 2.0))(X)
    assert hoist_invariants(program) is program


def test_a_matrix_that_is_read_across_is_transposed_before_the_loop():
    w, x, xs = np.linspace(-1, 1, 12).reshape(4, 3), np.ones((9, 3)), np.ones((2, 9, 4))

    def fun(w, x, xs):
        carry, _ = lax.scan(lambda c, x: ((c @ w.T + x)[:, :3], None), x, xs)
        return [carry]

    program = program_of(fun, w, x, xs)
    result = hoist_invariants(canonicalize(program))
    assert "permute_dims" in names(result)
    (scan,) = [e for e in result.equations if e.prim.name == "scan"]
    (product,) = [e for e in scan.params["body"].equations if e.prim.name == "dot_general"]
    assert product.params["contract"] == ((1,), (0,))
    assert hoist_invariants(result) is result
    np.testing.assert_allclose(Evaluator(result)(w, x, xs)[0], Evaluator(program)(w, x, xs)[0], 1e-12)
    few = canonicalize(program_of(fun, w, x[:3], xs[:, :3]))
    assert hoist_invariants(few) is few

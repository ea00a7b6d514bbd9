# SPDX-License-Identifier: MIT
"""SEMANTICS F: loops and branches under the transforms."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.control_flow import associative_scan, cond, fori_loop, scan, switch, while_loop
from functorch_lite.core.program import subprograms
from functorch_lite.errors import DTypeError, ShapeError, TreeError


def double_times(n, x):
    return while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] * 2), (0, x))[1]


def test_F1_a_batched_while_loop_runs_each_row_to_its_own_end():
    n = np.array([0, 1, 3])
    np.testing.assert_array_equal(fl.vmap(double_times)(n, np.ones(3)), [1, 2, 8])
    np.testing.assert_array_equal(fl.vmap(double_times, (0, None))(n, 1.0), [1, 2, 8])
    nested = fl.vmap(fl.vmap(double_times, (0, None)), (None, 0))
    np.testing.assert_array_equal(nested(n, np.array([1.0, 10.0])), [[1, 2, 8], [10, 20, 80]])


def test_F2_finished_rows_are_frozen():
    def f(x):
        return while_loop(lambda x: x > 1, np.log, x)

    x = np.array([0.5, 100.0, 1e30])
    for g in (fl.vmap(f), fl.jit(fl.vmap(f))):
        np.testing.assert_allclose(g(x), [0.5, 0.42342265, 0.36702749], rtol=1e-7)
    assert np.isfinite(fl.vmap(fl.grad(f))(x)).all()


def test_F3_reverse_mode_goes_through_a_while_loop():
    def f(c):
        return while_loop(lambda c: c < 10, lambda c: c * 2, c)

    assert fl.grad(f)(1.0) == 16.0
    assert fl.jvp(f, (1.0,), (1.0,)) == (16.0, 16.0)
    assert fl.jit(fl.grad(f))(1.0) == fl.grad(fl.jit(f))(1.0) == 16.0


def test_F4_reverse_mode_goes_through_a_loop_with_a_traced_bound():
    f = fl.jit(lambda n, x: fl.grad(lambda x: fori_loop(0, n, lambda i, c: c * 2, x))(x))
    assert [f(n, 1.0) for n in (3, 0, 5)] == [8.0, 1.0, 32.0]
    assert f.cache_info().misses == 1


def test_F5_loops_of_no_steps():
    assert fori_loop(5, 2, lambda i, c: c * 2, 1.0) == 1.0
    carry, ys = scan(lambda c, x: (c + x, c * x), 0.0, np.zeros((0,)))
    assert carry == 0.0
    assert ys.shape == (0,)


def test_F6_a_scan_from_the_end():
    carry, ys = scan(lambda c, x: (c + x, c), 0.0, np.array([1.0, 2.0, 3.0]), reverse=True)
    assert carry == 6.0
    np.testing.assert_array_equal(ys, [5.0, 3.0, 0.0])


def test_F7_a_scan_over_nothing_and_over_unequal_lengths():
    carry, ys = scan(lambda c, _: (c * 2, c), 1, None, length=3)
    assert carry == 8
    np.testing.assert_array_equal(ys, [1, 2, 4])
    with pytest.raises(ShapeError, match=r"leading axes differ: `xs\['b'\]` has 3, `xs\['a'\]` has 2"):
        scan(lambda c, x: (c, None), 0.0, {"a": np.ones(2), "b": np.ones(3)})


def test_F8_a_carry_that_changes_its_type_is_named():
    init = {"count": np.int32(0), "rows": np.ones(3)}
    with pytest.raises(ShapeError, match=r"`carry\['rows'\]` comes in as f64\[3\] and goes out as f64\[2\]"):
        scan(lambda c, _: ({**c, "rows": c["rows"][:2]}, None), init, None, length=2)
    with pytest.raises(DTypeError, match=r"`carry\['count'\]` comes in as i32\[\] and goes out as f64\[\]"):
        scan(lambda c, _: ({**c, "count": c["count"] * 1.5}, None), init, None, length=2)
    with pytest.raises(TreeError, match=r"structure of the one it gets: at the top: dict with 2 children.*1 child"):
        while_loop(lambda c: c["count"] < 3, lambda c: {"count": c["count"] + 1}, init)


def test_F9_the_index_of_a_switch_is_clamped():
    branches = [lambda x: x, lambda x: x * 10]
    assert [switch(i, branches, 1) for i in (-1, 0, 1, 7)] == [1, 1, 10, 10]
    np.testing.assert_array_equal(fl.vmap(lambda i: switch(i, branches, 1))(np.array([-1, 0, 1, 7])), [1, 1, 10, 10])


def test_F10_branches_of_different_structure_are_refused():
    with pytest.raises(TreeError, match=r"same structure: at `\['a'\]`: a leaf against tuple with 2 children"):
        cond(True, lambda x: {"a": (x, x), "b": x}, lambda x: {"a": x, "b": x}, 1.0)


@pytest.mark.parametrize("wrap", [lambda f: f, fl.checkpoint], ids=["plain", "checkpoint"])
def test_F11_the_hessian_of_a_scan_does_not_depend_on_checkpoint(wrap):
    def f(x):
        return scan(lambda c, _: (wrap(lambda c: np.sin(c) * x)(c), None), x, None, length=5)[0]

    assert fl.hessian(f)(0.7) == pytest.approx(4.827739312385886, rel=1e-12)
    assert fl.jit(fl.jacrev(fl.jacrev(f)))(0.7) == pytest.approx(4.827739312385886, rel=1e-12)


def count_equations(program, name):
    own = sum(e.prim.name == name for e in program.equations)
    return own + sum(count_equations(p, name) for e in program.equations for p in subprograms(e.params))


def test_F12_checkpoint_computes_its_body_once_more_in_the_backward_pass():
    def f(x):
        y = np.exp(np.sin(x))
        return y * y

    plain = fl.make_program(lambda x: fl.vjp(f, x)[1](1.0))(0.3)
    again = fl.make_program(lambda x: fl.vjp(fl.checkpoint(f), x)[1](1.0))(0.3)
    assert count_equations(plain, "sin") == 1
    assert count_equations(again, "sin") == 2  # forward once, backward exactly one recomputation
    assert count_equations(again, "exp") == 2


def counting(f):
    """f, and the list to which each run of its body adds its argument."""
    runs = []

    def counted(x):
        fl.debug.callback(lambda x: runs.append(float(x)), x)
        return f(x)

    return counted, runs


@pytest.mark.parametrize("wrap", [lambda f: f, fl.jit], ids=["eager", "jit"])
def test_F12_the_body_runs_once_forwards_and_once_more_backwards(wrap):
    body, runs = counting(lambda x: np.exp(np.sin(x)))
    f = wrap(fl.checkpoint(body))
    f(0.3)
    assert runs == [0.3]  # a value alone: once
    runs.clear()
    _, pullback = fl.vjp(f, 0.3)
    assert runs == [0.3]
    pullback(1.0)
    assert runs == [0.3, 0.3]
    runs.clear()
    fl.jvp(f, (0.3,), (1.0,))
    assert runs == [0.3]  # forward mode keeps nothing, so it computes nothing again
    plain, runs = counting(np.sin)
    fl.vjp(wrap(plain), 0.3)[1](1.0)
    assert runs == [0.3]


@pytest.mark.parametrize("wrap", [lambda f: f, fl.jit], ids=["eager", "jit"])
def test_F12_each_step_of_a_loop_runs_once_forwards_and_once_more_backwards(wrap):
    body, runs = counting(lambda c: c * 0.5 + np.sin(c))
    wrap(fl.grad(lambda x: scan(lambda c, _: (fl.checkpoint(body)(c), None), x, None, length=3)[0]))(1.0)
    steps = [1.0]
    for _ in range(2):
        steps.append(steps[-1] * 0.5 + np.sin(steps[-1]))
    np.testing.assert_allclose(runs, steps + steps[::-1], rtol=1e-14)


def test_F12_a_whole_loop_under_checkpoint_runs_twice():
    body, runs = counting(lambda c: c * 0.5 + np.sin(c))
    fl.grad(fl.checkpoint(lambda x: scan(lambda c, _: (body(c), None), x, None, length=3)[0]))(1.0)
    assert len(runs) == 6 and runs[:3] == runs[3:]


def test_F12_nested_checkpoints_run_once_more_for_each_level():
    inner, runs_inner = counting(np.sin)
    outer, runs_outer = counting(lambda x: np.exp(fl.checkpoint(inner)(np.cos(x))))
    fl.grad(fl.checkpoint(outer))(0.3)
    assert len(runs_outer) == 2
    assert len(runs_inner) == 3  # forwards, in the recomputation of the outer body, and in its own


@pytest.mark.parametrize("policy, again", [("nothing_saveable", 1), ("everything_saveable", 0)])
def test_F12_a_policy_decides_whether_the_body_runs_again(policy, again):
    body, runs = counting(lambda x: np.exp(np.sin(x)))
    fl.grad(fl.checkpoint(body, policy=getattr(fl.checkpoint_policies, policy)))(0.3)
    assert runs == [0.3] * (1 + again)


@pytest.mark.parametrize("wrap", [fl.vmap, lambda f: fl.jit(fl.vmap(f))], ids=["vmap", "jit of vmap"])
def test_F13_an_effect_happens_only_for_rows_that_take_the_branch(wrap):
    seen = []

    def f(x):
        def positive(x):
            fl.debug.callback(lambda x: seen.append(float(x)), x)
            return x * 2

        return cond(x > 0, positive, lambda x: x, x)

    np.testing.assert_array_equal(wrap(f)(np.array([1.0, -1.0, 3.0, -4.0])), [2.0, -1.0, 6.0, -4.0])
    assert seen == [1.0, 3.0]


def test_F14_two_loops_under_a_batched_cond_end():
    """A loop in each branch of a batched cond: with both branches run for every row, one would never stop."""

    def up(x):
        return while_loop(lambda x: x < 10, lambda x: x + 3, x)

    def down(x):
        return while_loop(lambda x: x > 0, lambda x: x - 2, x)

    f = fl.vmap(lambda p, x: cond(p, up, down, x))
    pred, x = np.array([True, False, True]), np.array([1, 5, 20])
    np.testing.assert_array_equal(f(pred, x), [10, -1, 20])
    np.testing.assert_array_equal(fl.jit(f)(pred, x), [10, -1, 20])


def test_F15_associative_scan():
    np.testing.assert_array_equal(associative_scan(np.add, np.arange(5), reverse=True), [10, 10, 9, 7, 4])
    matrices = np.random.default_rng(0).normal(size=(6, 2, 2))
    found = associative_scan(np.matmul, matrices)
    product = np.eye(2)
    for m, one in zip(matrices, found, strict=True):
        product = product @ m
        np.testing.assert_allclose(one, product, rtol=1e-12)

    def by_scan(ms):
        return scan(lambda c, m: (c @ m, c @ m), np.eye(2), ms)[1]

    weights = np.random.default_rng(1).normal(size=(6, 2, 2))
    one = fl.grad(lambda ms: np.sum(weights * associative_scan(np.matmul, ms)))(matrices)
    two = fl.grad(lambda ms: np.sum(weights * by_scan(ms)))(matrices)
    np.testing.assert_allclose(one, two, rtol=1e-11)


@pytest.mark.parametrize("pred, expected", [(True, 6.0), (False, 1.0)])
def test_F16_the_gradient_of_a_cond_flows_to_what_its_branches_close_over(pred, expected):
    def f(y):
        return cond(pred, lambda x: x * y * y, lambda x: x + y, 1.0)

    assert fl.grad(f)(3.0) == fl.grad(fl.jit(f))(3.0) == fl.jit(fl.grad(f))(3.0) == expected
    assert fl.vmap(fl.grad(f))(np.array([3.0, 3.0])).tolist() == [expected, expected]


def test_F17_the_gradient_of_a_scan_with_many_scalar_carries():
    """The structure that makes it fast when compiled: two loops, whose bodies have no array operation to build."""

    def f(x):
        def step(c, _):
            return tuple(0.5 * (a + np.sin(b)) for a, b in zip(c, (*c[1:], c[0]), strict=True)), None

        return sum(scan(step, (x,) * 60, None, length=614)[0])

    program = fl.make_program(fl.grad(f))(0.3)
    assert [e.prim.name for e in program.equations].count("scan") == 2
    shapes = {
        v.aval.shape for e in program.equations for p in subprograms(e.params) for q in p.equations for v in q.outputs
    }
    assert shapes == {()}


def test_F18_a_scan_over_trees_with_None_and_integers():
    def f(w):
        def step(c, x):
            new = {"n": c["n"] + 1, "none": None, "h": np.tanh(c["h"] * w + x["v"])}
            return new, (None, c["h"], c["n"])

        init = {"n": 0, "none": None, "h": 0.1}
        carry, (none, hs, ns) = scan(step, init, {"v": np.arange(3.0), "skip": None})
        assert none is None and carry["none"] is None
        return carry["h"] + np.sum(hs) + carry["n"], ns

    def unrolled(w):
        h, total = 0.1, 0.0
        for v in range(3):
            total = total + h
            h = np.tanh(h * w + v)
        return h + total + 3

    gradient, ns = fl.grad(f, has_aux=True)(0.5)
    assert gradient == pytest.approx(fl.grad(unrolled)(0.5), rel=1e-14)
    np.testing.assert_array_equal(ns, [0, 1, 2])
    assert ns.dtype == np.int64

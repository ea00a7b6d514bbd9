# SPDX-License-Identifier: MIT
"""Merging calls: stages that are called layer by layer become one program a layer; what nobody reads goes."""

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite.compiler import pipeline
from functorch_lite.compiler.passes.inline import inline_calls
from functorch_lite.compiler.passes.merge import MIN_CALLS, is_light, merge_calls
from functorch_lite.core.check import check_program
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.primitives.higher_order import jit_p
from tests.compiler.passes.test_roll import _random, bodies, calls, evaluated

XS = [_random(3, 4) for _ in range(8)]


def check_merge(fun, *args):
    """Well formed, of the same types and bits, and left alone when it comes again."""
    program = fl.make_program(fun)(*args)
    result = merge_calls(program)
    check_program(result)
    assert merge_calls(result) is result
    assert result.in_avals == program.in_avals and result.out_avals == program.out_avals
    leaves = fl.tree.leaves(args)
    for want, got in zip(evaluated(program, leaves), evaluated(result, leaves), strict=True):
        np.testing.assert_array_equal(want, got)
    return result


def staged(*stages):
    """The function of a list that runs one stage for all elements, then the next."""
    jitted = [fl.jit(s) for s in stages]

    def fun(xs):
        for stage in jitted:
            xs = [stage(x) for x in xs]
        return xs

    return fun


def test_stages_become_one_call():
    result = check_merge(staged(fnp.sin, lambda x: x * 2.0, fnp.cos), XS)
    assert len(result.equations) == len(XS) and len(bodies(result)) == 1
    (call, *_) = calls(result)
    assert len(call.outputs) == 1  # the values between stages are nobody's


def test_the_text_has_the_program_once():
    text = str(merge_calls(fl.make_program(staged(fnp.sin, fnp.cos))(XS)))
    assert text.count("= sin") == 1 and text.count("program=#1") == len(XS)


def test_what_is_read_elsewhere_stays_an_output():
    first, second = fl.jit(lambda x: (x + 1.0, x - 1.0)), fl.jit(lambda a, x: a * x)

    def fun(xs):
        pairs = [first(x) for x in xs]
        return [second(a, x) for (a, _), x in zip(pairs, xs, strict=True)], [b for _, b in pairs]

    result = check_merge(fun, XS)
    assert len(bodies(result)) == 1
    assert {len(c.outputs) for c in calls(result)} == {2} and {len(c.inputs) for c in calls(result)} == {1}


@pytest.mark.parametrize("count", [MIN_CALLS - 1, MIN_CALLS])
def test_few_calls_are_left_alone(count):
    result = check_merge(staged(fnp.sin, fnp.cos), XS[:count])
    assert len(bodies(result)) == (1 if count >= MIN_CALLS else 2)


def test_a_reader_before_keeps_calls_apart():
    one, two = fl.jit(fnp.sin), fl.jit(fnp.cos)

    def fun(xs):
        ys = [one(x) for x in xs]
        total = fnp.stack(ys).sum()
        return [two(y) for y in ys], total

    assert len(bodies(check_merge(fun, XS))) == 2


def test_calls_crossed_over_stay_apart():
    one, two = fl.jit(fnp.sin), fl.jit(fnp.cos)
    assert len(bodies(check_merge(lambda xs: [two(y) for y in [one(x) for x in xs][::-1]], XS))) == 2


def test_products_are_left_alone():
    def product(x):
        return x @ fnp.ones((4, 4), np.float32)

    assert not is_light(fl.make_program(product)(XS[0]))
    assert len(bodies(check_merge(staged(product, fnp.cos), XS))) == 2


def test_effects_keep_their_order():
    def said(x):
        fl.debug.print("{}", x[0, 0])
        return x + 1.0

    assert len(bodies(check_merge(staged(said, fnp.cos), XS))) == 2


@pytest.mark.parametrize("make", [
    lambda: fl.optim.adam(1e-2, eps=1e-2), lambda: fl.optim.adamw(1e-2, eps=1e-2), lambda: fl.optim.sgd(0.1, 0.9),
    lambda: fl.optim.chain(fl.optim.clip_by_global_norm(1.0), fl.optim.adam(1e-2, eps=1e-2)),
], ids=["adam", "adamw", "momentum", "clipped"])
def test_an_optimizer_is_one_program_a_block(make):
    opt = make()
    params = [{"w": _random(4, 6), "b": _random(6), "c": _random(2, 2), "d": _random(5)} for _ in range(12)]
    state = opt.init(params)

    def step(params, grads, state):
        updates, state = opt.update(grads, state, params)
        return fl.optim.apply_updates(params, updates), state

    program = fl.make_program(step)(params, params, state)
    assert len({id(e.params["program"]) for e in calls(program)}) >= 2
    merged = inline_calls(merge_calls(program))
    assert len(bodies(merged)) <= 2
    leaves = fl.tree.leaves((params, params, state))
    for want, got in zip(Evaluator(inline_calls(program))(*leaves), pipeline.compile(program)(*leaves), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert sum(e.prim is jit_p for e in pipeline.optimize(program).equations) >= 6

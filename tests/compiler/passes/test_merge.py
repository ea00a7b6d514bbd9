# SPDX-License-Identifier: MIT
"""Merging calls: stages that are called layer by layer become one program a layer; what nobody reads goes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import nn, random
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


def product(x):
    return x @ fnp.full((4, 4), 0.5, np.float32)


def test_products_are_not_put_together():
    assert not is_light(fl.make_program(product)(XS[0]))
    assert len(bodies(check_merge(staged(product, lambda x: product(x) + 1.0), XS))) == 2


def test_what_fuses_joins_the_product_before_it():
    result = check_merge(staged(product, fnp.cos), XS)
    assert len(result.equations) == len(XS) and len(bodies(result)) == 1


def layers_and_steps(xs, ws, count, step, order=lambda x: x):
    """A chain of layers, each after the other, and then a step for what each of them found."""
    layer = fl.jit(lambda x, w: (product(x), x * w))
    found = []
    for w in ws:
        x, g = layer(xs, w)
        xs = x
        found.append(g)
    rate = 0.5 / (count + 1.0)
    return xs, order([step(w, g, rate) for w, g in order(list(zip(ws, found, strict=True)))])


STEP = fl.jit(lambda w, g, rate: w - g * rate)
COUNT = np.float32(3)


@pytest.mark.parametrize("order", [lambda x: x, lambda x: x[::-1]], ids=["the same way", "the other way"])
def test_a_step_moves_up_to_the_layer_that_feeds_it(order):
    result = check_merge(lambda ws, count: layers_and_steps(XS[0], ws, count, STEP, order), XS, COUNT)
    assert len(bodies(result)) == 1 and len(calls(result)) == len(XS)
    assert {len(c.outputs) for c in calls(result)} == {2}  # what the step was given is nobody's


def test_a_step_that_waits_for_all_layers_stays():
    def fun(ws, count):
        x, new = layers_and_steps(XS[0], ws, count, lambda w, g, rate: (w, g, rate))
        total = sum(g.sum() for _, g, _ in new)
        return x, [STEP(w, g, rate * total) for w, g, rate in new]

    assert len(bodies(check_merge(fun, XS, COUNT))) == 2


def test_a_step_that_frees_nothing_stays():
    def fun(ws, count):
        x, new = layers_and_steps(XS[0], ws, count, lambda w, g, rate: (g, STEP(w, g, rate)))
        return x, new

    assert len(bodies(check_merge(fun, XS, COUNT))) == 2


def test_a_step_that_keeps_more_than_it_frees_stays():
    spread = fl.jit(lambda g: (g * 2.0, g + 1.0))

    def fun(ws, count):
        x, new = layers_and_steps(XS[0], ws, count, lambda w, g, rate: spread(g))
        return x, [a @ b.T for a, b in new]

    assert len(bodies(check_merge(fun, XS, COUNT))) == 2


def test_a_step_moves_up_to_a_backward_pass_that_reads_stacks():
    layer = fl.jit(lambda x: fl.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, fnp.sin(c[1])), (0, x))[1])

    def fun(xs):
        value, pull = fl.vjp(lambda xs: [layer(x) for x in xs], xs)
        return [STEP(x, g, np.float32(0.5)) for x, g in zip(value, pull(value)[0], strict=True)]

    program = fl.make_program(fun)(XS[:4])
    merged = merge_calls(program)
    assert len(bodies(program)) == 3 and len(bodies(merged)) == 2
    for want, got in zip(evaluated(program, XS[:4]), evaluated(merged, XS[:4]), strict=True):
        np.testing.assert_array_equal(want, got)


def test_an_optimizer_steps_with_the_layers_it_is_for():
    model = nn.Sequential(*[nn.TransformerEncoderLayer(32, 2, 64, 0.0, key=k) for k in random.split(random.key(0), 8)])
    opt = fl.optim.adam(1e-3)

    def step(m, state, x):
        loss, grads = fl.value_and_grad(lambda m: (m(x) ** 2).mean())(m)
        return loss, *opt.step(m, grads, state)

    args = model, opt.init(model), _random(1, 2, 32)
    merged = merge_calls(fl.make_program(step)(*args))
    assert len(calls(merged)) <= 2 * 8 + 1  # forward, and backward with its step, but where the chain begins
    needed = fl.jit(step).memory(*args).temporaries
    assert needed < sum(p.nbytes for p in fl.tree.leaves(model)) / 2  # never all gradients
    leaves = fl.tree.leaves(args)
    program = fl.make_program(step)(*args)
    for want, got in zip(Evaluator(inline_calls(program))(*leaves), pipeline.compile(program)(*leaves), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


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


POOL = {name: [fl.jit(lambda x, y, fun=fun: fun(x, y)) for _ in range(5)] for name, fun in {
    "light": lambda x, y: x * 0.5 - y, "two": lambda x, y: (fnp.sin(x) + y, x - y),
    "heavy": lambda x, y: product(x) + y, "both": lambda x, y: (product(x), x * y),
}.items()}  # each stage calls a program of its own


@settings(max_examples=100)
@given(st.data())
def test_calls_of_any_order_compute_the_same(data):
    """Stages for several rows, each fed by its own row or by another one, in any order that is possible."""
    rows = data.draw(st.integers(MIN_CALLS, MIN_CALLS + 2))
    stages = data.draw(st.lists(st.sampled_from(sorted(POOL)), min_size=2, max_size=5))

    def several(choices):
        return data.draw(st.lists(st.sampled_from(choices), min_size=len(stages), max_size=len(stages)))

    shifts, turned = several([0, 0, 0, 0, 1, -1]), several([False, True])
    kept, scaled = several([False, False, False, True]), several([False, False, True])

    def fun(xs, count):
        last, out = [(x, x) for x in xs], []
        for k, (stage, shift, is_turned) in enumerate(zip(stages, shifts, turned, strict=True)):
            scale = 1.0 / (count + k) if scaled[k] else None  # computed between the calls, and needed by the later ones
            made = {}
            for i in range(rows)[::-1] if is_turned else range(rows):
                y = last[(i + shift) % rows][-1] if scale is None else fnp.full((4, 4), scale)
                found = POOL[stage][k](last[i][0], y)
                made[i] = found if isinstance(found, tuple) else (found, found)
            last = [made[i] for i in range(rows)]
            out += [v[-1] for v in last] if kept[k] else []
        return [v[0] for v in last], out

    check_merge(fun, [_random(4, 4) for _ in range(rows)], COUNT)

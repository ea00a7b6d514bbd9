# SPDX-License-Identifier: MIT
"""Rolling: equal blocks become calls of one body, whatever is around them, and nothing that anyone can see changes."""

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.compiler.passes.inline import inline_calls
from functorch_lite.compiler.passes.roll import MANY, MIN_BLOCKS, equation_keys, roll_blocks
from functorch_lite.core.check import check_program
from functorch_lite.core.program import Literal
from functorch_lite.core.rules import eval_rules
from functorch_lite.primitives.higher_order import jit_p
from tests.compiler.passes.support import check_golden_pass, effects

RNG = np.random.default_rng(0)
D = 8


def layer():
    return {"w": _random(D, 3 * D), "b": _random(3 * D), "out": _random(D, D), "scale": _random(D)}


def _random(*shape):
    return (0.3 * RNG.standard_normal(shape)).astype(np.float32)


LAYERS = [layer() for _ in range(24)]
X = _random(5, D)


def block(p, x):
    """A pre-norm block of attention: 40 equations."""
    h = x - fnp.mean(x, axis=-1, keepdims=True)
    h = h / fnp.sqrt(fnp.mean(h * h, axis=-1, keepdims=True) + 1e-5) * p["scale"]
    q, k, v = fnp.split(h @ p["w"] + p["b"], 3, axis=-1)
    scores = q @ k.T / 3.0
    e = fnp.exp(scores - fnp.max(scores, axis=-1, keepdims=True))
    return x + (e / fnp.sum(e, axis=-1, keepdims=True)) @ v @ p["out"]


def model(layers, x):
    for p in layers:
        x = block(p, x)
    return x


def loss(layers, x):
    return fnp.sum(model(layers, x) ** 2)


def evaluated(program, args):
    """The program run by NumPy, called programs included."""
    env = dict(zip(program.inputs, args, strict=True))
    for e in program.equations:
        given = [a.value if type(a) is Literal else env[a] for a in e.inputs]
        out = evaluated(e.params["program"], given) if e.prim is jit_p else eval_rules[e.prim](np, *given, **e.params)
        env.update(zip(e.outputs, out if e.prim.multiple else [out], strict=True))
    return [a.value if type(a) is Literal else env[a] for a in program.outputs]


def flat(fun, *args):
    return eliminate_dead_code(inline_calls(fl.make_program(fun)(*args)))


def check_roll(program, leaves):
    """What always holds: it is well formed, gives the same types and bits, is left alone when it comes again."""
    result = roll_blocks(program)
    check_program(result)
    for call in calls(result):
        check_program(call.params["program"])
    assert result.in_avals == program.in_avals and result.out_avals == program.out_avals
    assert roll_blocks(result) is result
    assert effects(result) == effects(program)
    with np.errstate(all="ignore"):
        for want, got in zip(evaluated(program, leaves), evaluated(result, leaves), strict=True):
            np.testing.assert_array_equal(want, got)
            assert np.asarray(want).dtype == np.asarray(got).dtype
    return result


def rolled(fun, *args):
    return check_roll(flat(fun, *args), fl.tree.leaves(args))


def calls(program):
    return [e for e in program.equations if e.prim is jit_p]


def bodies(program):
    return {id(e.params["program"]) for e in calls(program)}


def check_compiled(fun, *args):
    """The compiled function gives what NumPy gives."""
    program = fl.make_program(fun)(*args)
    leaves = fl.tree.leaves(args)
    for want, got in zip(evaluated(inline_calls(program), leaves), pipeline.compile(program)(*leaves), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


# --- what is rolled ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [MIN_BLOCKS - 1, MIN_BLOCKS, 24])
def test_equal_blocks_become_one_body(count):
    result = rolled(model, LAYERS[:count], X)
    assert len(calls(result)) == (count if count >= MIN_BLOCKS else 0)
    assert len(bodies(result)) <= 1
    if count == 24:
        assert len(result.equations) == 24  # nothing is left between the blocks


def test_the_blocks_hand_on_one_array():
    result = rolled(model, LAYERS, X)
    first, second = calls(result)[:2]
    assert len(first.outputs) == 1 and set(first.outputs) & set(second.inputs) == set(first.outputs)
    assert len(first.inputs) == len(LAYERS[0]) + 1


def test_text(check_golden):
    def chain(ws, x):
        for w in ws:
            for _ in range(10):
                x = fnp.tanh(x @ w) + 1.0
        return x

    program = flat(chain, [np.eye(2, dtype=np.float32)] * 4, np.ones((3, 2), np.float32))
    check_golden_pass(check_golden, roll_blocks, "roll", program)


def test_the_dump_has_the_body_once():
    text = fl.jit(model).lower(LAYERS, X).as_text("roll_blocks")
    assert text.count("= exp") == 1 and text.count("program=#1") == 24


def test_derivatives_are_rolled_too():
    result = rolled(fl.value_and_grad(loss), LAYERS, X)
    assert len(bodies(result)) == 2 and len(calls(result)) >= 2 * 24 - 4
    check_compiled(fl.value_and_grad(loss), LAYERS[:6], X)


def test_no_view_is_handed_over():
    """What a block leaves for its derivative is no transposed or broadcast copy of what there is already."""
    result = rolled(fl.grad(loss), LAYERS, X)
    body = calls(result)[0].params["program"]
    views = {v for e in body.equations if e.prim.name in ("broadcast_in_dim", "reshape") for v in e.outputs}
    assert not views & set(body.outputs)


@pytest.mark.parametrize("transform", [
    lambda f: fl.vmap(f, in_axes=(None, 0)), lambda f: lambda p, x: fl.jvp(f, (p, x[0]), (p, x[0])),
    lambda f: fl.vmap(fl.grad(lambda p, x: f(p, x).sum()), in_axes=(None, 0)),
    lambda f: lambda p, x: fl.hvp(lambda x: f(p, x).sum(), (x[0],), (x[1],)),
], ids=["vmap", "jvp", "vmap of grad", "hvp"])
def test_transformed_blocks(transform):
    x = _random(2, 5, D)
    assert calls(rolled(transform(model), LAYERS[:8], x))
    check_compiled(transform(model), LAYERS[:5], x)


def test_bodies_of_loops():
    def fun(layers, x):
        return fl.lax.scan(lambda x, _: (model(layers, x) * 0.5, x.sum()), x, None, length=3)

    result = rolled_with_loops(fun, LAYERS[:6], X)
    (scan,) = [e for e in result.equations if e.prim.name == "scan"]
    assert len(calls(scan.params["body"])) == 6
    check_compiled(fun, LAYERS[:6], X)
    check_compiled(fl.grad(lambda layers, x: fun(layers, x)[0].sum()), LAYERS[:5], X)


def rolled_with_loops(fun, *args):
    return roll_blocks(flat(fun, *args))


def test_checkpointed_blocks_keep_their_memory():
    def blocks(layers, x, call):
        for p in layers:
            x = call(p, x)
        return fnp.sum(x**2)

    x = _random(64, D)
    plain, saved = (fl.jit(fl.grad(lambda p, x, c=call: blocks(p, x, c))).memory(LAYERS, x).temporaries
                    for call in (block, fl.checkpoint(block)))
    assert saved < plain / 3
    check_compiled(fl.grad(lambda p, x: blocks(p, x, fl.checkpoint(block))), LAYERS[:6], X)


# --- what is not ------------------------------------------------------------------------------------------------------


def test_a_different_layer_between_ends_a_run():
    def fun(layers, x):
        x = model(layers[:12], x)
        x = fnp.sin(x) @ layers[0]["out"]
        return model(layers[12:], x)

    result = rolled(fun, LAYERS, X)
    assert len(calls(result)) == 24 and len(bodies(result)) <= 2


def test_blocks_with_other_constants_differ():
    def fun(layers, x):
        for k, p in enumerate(layers):
            x = block(p, x * (1.0 + k // 8))
        return x

    result = rolled(fun, LAYERS, X)
    assert len(bodies(result)) == 3


@pytest.mark.parametrize("shared", [range(24), (3, 4, 5), (7, 20)], ids=["all", "some", "two"])
def test_tied_weights(shared):
    layers = list(LAYERS)
    for k in shared:
        layers[k] = LAYERS[shared[0]]
    result = rolled(lambda x: model(layers, x), X)
    assert len(calls(result)) >= 20
    distinct = {id(p): p for p in layers}

    def fun(some, x):
        by_id = dict(zip(distinct, some, strict=True))
        return loss([by_id[id(p)] for p in layers], x)

    rolled(fl.grad(fun), list(distinct.values()), X)


def test_effects_stay_outside_and_in_order():
    def fun(layers, x):
        for p in layers:
            x = block(p, x)
            fl.debug.print("{}", x[0, 0])
        return x

    program = flat(fun, LAYERS[:6], X)
    assert effects(roll_blocks(program)) == effects(program) and len(effects(program)) == 6


def test_what_could_be_one_kernel_is_not_cut():
    def fun(x):
        for _ in range(20):
            x = fnp.sin(x) * 2.0 + fnp.cos(x) / 3.0 - fnp.tanh(x)
        return x

    assert not calls(rolled(fun, X))


def test_very_many_elementwise_equations_are_rolled():
    def fun(x):
        for _ in range(MANY // 2):
            x = fnp.sin(x) * 2.0 + fnp.cos(x)
        return x

    assert calls(rolled(fun, X))


# --- places and lines -------------------------------------------------------------------------------------------------


def picked(layers, at, x):
    for p in layers:
        x = block(p, x) + p["table"][at]  # the line of the error
        at = at + 1
    return x


def test_an_error_in_a_later_block_names_the_line():
    layers = [{**p, "table": _random(9, D)} for p in LAYERS[:8]]
    fun = fl.jit(picked)
    first = np.int64(0)
    np.testing.assert_allclose(fun(layers, first, X), picked(layers, first, X), rtol=1e-4, atol=1e-4)
    assert "jit[" in fun.lower(layers, first, X).as_text("roll_blocks")
    with pytest.raises(IndexError, match="9") as error:
        fun(layers, np.int64(5), X)
    line = picked.__code__.co_firstlineno + 2
    assert f"test_roll.py:{line}" in str(error.value) + "".join(getattr(error.value, "__notes__", []))


def test_equations_of_different_lines_are_not_equal():
    program = flat(lambda x: fnp.sin(x) + fnp.sin(
        x + 1.0), X)
    sines = [k for k, e in zip(equation_keys(program.equations), program.equations, strict=True)
             if e.prim.name == "sin"]
    assert len(sines) == 2


# --- compiled ---------------------------------------------------------------------------------------------------------


def test_a_body_is_compiled_once():
    def executable(count):
        program = fl.make_program(model)(LAYERS[:count], X)
        return native.compile_native(program, pipeline.optimize(program))

    few, many = executable(6), executable(24)
    assert len(few.lowered.kernels) == len(many.lowered.kernels) and len(many.lowered.parts) == 1
    assert len(many.ir) < 1.2 * len(few.ir)


def test_memory_is_that_of_one_block():
    few, many = (fl.jit(model).memory(LAYERS[:n], X).temporaries for n in (6, 24))
    assert many <= 1.1 * few

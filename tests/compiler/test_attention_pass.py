# SPDX-License-Identifier: MIT
"""Attention written by hand: which forms become the primitive, which do not, and that the values are the same."""

import functools

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import lax, nn
from functorch_lite.compiler import pipeline
from functorch_lite.compiler.passes.attention import fuse_attention
from functorch_lite.core.aval import aval_of
from functorch_lite.core.check import check_program
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.core.staging import stage

N, E = 96, 5
FACTOR = E**-0.5
BEFORE = pipeline.PASSES[: pipeline.PASSES.index(fuse_attention)]
CAUSAL = np.tril(np.ones((N, N), bool))
LENGTHS = np.stack([np.arange(N) < 70, np.arange(N) < 90])
FIELDS = ("before", "after", "groups", "strict")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def heads(*shape):
    """Queries, keys, values."""
    return tuple(normal(*shape, seed=i) for i in range(3))


def canonical(fun, *args):
    """The program as the pass gets it, and the values of its inputs."""
    leaves, treedef = fl.tree.flatten(args)
    program, captured = stage(lambda *flat: fl.tree.leaves(fun(*fl.tree.unflatten(treedef, flat))),
                              [aval_of(a) for a in leaves])
    for transform in BEFORE:
        program = transform(program)
    return program, [*captured, *leaves]


def fused(fun, *args):
    """The program after the pass; its values must be those of before, and a second time changes nothing."""
    program, leaves = canonical(fun, *args)
    result = fuse_attention(program)
    check_program(result)
    assert fuse_attention(result) is result
    with np.errstate(all="ignore"):
        expected, found = Evaluator(program)(*leaves), Evaluator(result)(*leaves)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    return result


def params(program, *fields):
    (found,) = [e.params for e in program.equations if e.prim.name == "attention"]
    return tuple(found[f] for f in fields or FIELDS)


def is_fused(program, backward=0, forward=1):
    """Whether all is in the primitive."""
    names = [e.prim.name for e in program.equations]
    counts = names.count("attention"), names.count("attention_cotangents")
    return counts == (forward, backward) and "exp" not in names and "dot_general" not in names


def loss(attend):
    """A number and its gradient in all arguments."""
    return fl.value_and_grad(lambda args: (attend(*args) * normal(*attend(*args).shape, seed=9)).sum())


# --- the forms --------------------------------------------------------------------------------------------------------


def stopped(s):
    e = np.exp(s - lax.stop_gradient(np.max(s, axis=-1, keepdims=True)))
    return e / np.sum(e, axis=-1, keepdims=True)


def plain(s):
    e = np.exp(s - np.max(s, axis=-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_logsumexp(s):
    return np.exp(s - fl.scipy.special.logsumexp(s, axis=-1, keepdims=True))


def by_log_softmax(s):
    s = s - lax.stop_gradient(np.max(s, axis=-1, keepdims=True))
    return np.exp(s - np.log(np.sum(np.exp(s), axis=-1, keepdims=True)))


def guarded(s):
    top = lax.stop_gradient(np.max(s, axis=-1, keepdims=True))
    e = np.exp(s - fnp.where(top == -np.inf, 0, top))
    total = np.sum(e, axis=-1, keepdims=True)
    return e / fnp.where(total == 0, 1, total)


SOFTMAXES = [stopped, plain, by_logsumexp, by_log_softmax, guarded, nn.softmax]


def scored(q, k, v):
    return q @ np.swapaxes(k, -1, -2) * FACTOR


def causal(s):
    i = fnp.arange(s.shape[-1])
    return fnp.where(i[:, None] >= i, s, -np.inf)


@pytest.mark.parametrize("softmax", SOFTMAXES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("masked", [lambda s: s, causal], ids=["all", "causal"])
def test_every_way_to_write_a_softmax(softmax, masked):
    def attend(q, k, v):
        return softmax(masked(scored(q, k, v))) @ v

    args = heads(2, N, E)
    after = 0 if masked is causal else None
    forward, backward = fused(attend, *args), fused(loss(attend), args)
    assert is_fused(forward) and is_fused(backward, 1)
    assert params(forward) == params(backward) == (None, after, 1, softmax is not guarded)


@pytest.mark.parametrize("shape", [(N, E), (2, N, E), (2, 3, N, E)], ids=str)
def test_any_number_of_leading_axes(shape):
    def attend(q, k, v):
        return plain(scored(q, k, v)) @ v

    args = heads(*shape)
    assert is_fused(fused(attend, *args))
    assert is_fused(fused(fl.grad(lambda args: (attend(*args) ** 2).sum()), args), 1)


def test_the_quotient_may_come_after_the_product():
    def attend(q, k, v):
        e = np.exp(scored(q, k, v) - lax.stop_gradient(scored(q, k, v).max(-1, keepdims=True)))
        return (e @ v) / e.sum(-1, keepdims=True)

    args = heads(2, N, E)
    assert is_fused(fused(attend, *args))
    assert is_fused(fused(loss(attend), args), 1)


FACTORS = {
    "after": lambda q, k: q @ np.swapaxes(k, -1, -2) * FACTOR,
    "quotient": lambda q, k: q @ np.swapaxes(k, -1, -2) / np.sqrt(E),
    "before": lambda q, k: (q * FACTOR) @ np.swapaxes(k, -1, -2),
    "both": lambda q, k: (q * 0.5) @ np.swapaxes(k, -1, -2) * 3.0 / 7.0,
    "keys first": lambda q, k: np.swapaxes(k @ np.swapaxes(q, -1, -2), -1, -2),
}


@pytest.mark.parametrize("name", FACTORS)
def test_scores_times_a_number(name):
    def attend(q, k, v):
        return stopped(causal(FACTORS[name](q, k))) @ v

    args = heads(2, N, E)
    for program in (fused(attend, *args), fused(loss(attend), args)):
        assert "attention" in str(program) and f"{N},{N}]" not in str(program)


EINSUMS = {
    "bqhd,bkhd->bhqk,bqhd": ((2, N, 3, E), (2, N, 3, E)),
    "qbhd,kbhd->bhqk,qhbd": ((N, 2, 3, E), (N, 2, 3, E)),
    "bhqd,bhdk->hbqk,bhdq": ((2, 3, N, E), (2, 3, E, N)),
    "bhqd,bkd->bhqk,bhqd": ((2, 3, N, E), (2, N, E)),  # one key for all heads
    "bghqd,bgkd->bghqk,bqghd": ((2, 2, 3, N, E), (2, 2, N, E)),  # grouped queries
    "hqd,kd->hqk,hqd": ((2, N, E), (N, E)),
}


@pytest.mark.parametrize("text", EINSUMS)
def test_operands_may_have_any_order_of_axes(text):
    (left, right, weights, out), (q_shape, k_shape) = text.replace("->", ",").split(","), EINSUMS[text]
    values = right.replace("d", "f")

    def attend(q, k, v):
        w = stopped(causal(np.einsum(f"{left},{right}->{weights}", q, k) * FACTOR))
        return np.einsum(f"{weights},{values}->{out.replace('d', 'f')}", w, v)

    args = normal(*q_shape), normal(*k_shape, seed=1), normal(*[4 if n == E else n for n in k_shape], seed=2)
    forward, backward = fused(attend, *args), fused(loss(attend), args)
    assert is_fused(forward) and is_fused(backward, 1)
    assert params(backward, "after") == (0,)


def test_repeated_keys():
    def attend(q, k, v):
        k, v = (np.repeat(x, 2, axis=0) for x in (k, v))
        return stopped(scored(q, k, v)) @ v

    args = normal(4, N, E), normal(2, N, E, seed=1), normal(2, N, E, seed=2)
    assert is_fused(fused(loss(attend), args), 1)


def test_mapped():
    def attend(q, k, v):
        return stopped(causal(scored(q, k, v))) @ v

    args = heads(2, 3, N, E)
    assert is_fused(fused(fl.vmap(attend), *args))
    assert is_fused(fused(fl.vmap(fl.grad(lambda args: (attend(*args) ** 2).sum())), args), 1)
    assert is_fused(fused(fl.grad(lambda args: (fl.vmap(attend)(*args) ** 2).sum()), args), 1)
    shared = (normal(2, 3, N, E), *heads(3, N, E)[1:])
    assert is_fused(fused(fl.vmap(attend, in_axes=(0, None, None)), *shared))


def test_recomputed_weights():
    def attend(q, k, v):
        return stopped(causal(scored(q, k, v))) @ v

    args = heads(2, N, E)
    program = fused(fl.grad(lambda args: (fl.checkpoint(attend)(*args) ** 2).sum()), args)
    assert is_fused(program, 1, forward=2)


# --- masks ------------------------------------------------------------------------------------------------------------

MASKS = {
    "causal": (lambda s, m: fnp.where(m, s, -np.inf), CAUSAL),
    "opposite": (lambda s, m: fnp.where(m, -np.inf, s), ~CAUSAL),
    "keys": (lambda s, m: fnp.where(m[:, None, None, :], s, -np.inf), LENGTHS),
    "each head": (lambda s, m: fnp.where(m[:, None], s, -np.inf), normal(3, N, N) > -1),
    "each batch": (lambda s, m: fnp.where(m[:, None], s, -np.inf), normal(2, N, N) > -1),
    "all": (lambda s, m: fnp.where(m, s, -np.inf), normal(2, 3, N, N) > -1),
    "added": (lambda s, m: s + m, np.where(CAUSAL, normal(N, N), -np.inf)),
    "added, each head": (lambda s, m: s + m, normal(3, N, N)),
    "added, keys": (lambda s, m: s + m[:, None, None], np.where(LENGTHS, 0, -np.inf)),
    "added, queries": (lambda s, m: s + m[:, None], normal(N)),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_that_are_arrays(name):
    masked, mask = MASKS[name]
    mask = mask[:2] if name == "each head" else mask

    def attend(mask, q, k, v):
        return stopped(masked(scored(q, k, v), mask)) @ v

    args = heads(2, 3, N, E)
    assert is_fused(fused(attend, mask, *args))
    gradient = fused(lambda mask, *args: loss(functools.partial(attend, mask))(args), mask, *args)
    assert is_fused(gradient, 1)


BOUNDS = {
    "window": (lambda d: (d <= 0) & (d > -7), (6, 0)),
    "both sides": (lambda d: np.abs(d) < 4, (3, 3)),
    "later": (lambda d: ~(d <= 0), (-1, None)),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_masks_that_can_be_computed_are_bounds(name):
    rule, bounds = BOUNDS[name]

    def attend(q, k, v):
        i = fnp.arange(N)
        return guarded(fnp.where(rule(i - i[:, None]), scored(q, k, v), -np.inf)) @ v

    program = fused(attend, *heads(2, N, E))
    assert is_fused(program) and params(program, "before", "after") == bounds


def test_other_masks_that_can_be_computed_stay_arrays():
    def attend(q, k, v):
        i = fnp.arange(N)
        return stopped(fnp.where((i - i[:, None]) % 3 != 1, scored(q, k, v), -np.inf)) @ v

    program = fused(attend, *heads(2, N, E))
    assert params(program, "before", "after") == (None, None) and "rem" in str(program)


# --- what is left alone -----------------------------------------------------------------------------------------------

OTHERS = {
    "weights are returned": lambda q, k, v: (stopped(scored(q, k, v)), stopped(scored(q, k, v)) @ v),
    "some weights are dropped": lambda q, k, v: fnp.where(CAUSAL, stopped(scored(q, k, v)), 0) @ v,
    "no maximum": lambda q, k, v: (np.exp(scored(q, k, v)) / np.exp(scored(q, k, v)).sum(-1, keepdims=True)) @ v,
    "another maximum": lambda q, k, v: np.exp(scored(q, k, v) - scored(q, q, v).max(-1, keepdims=True)) @ v,
    "a sum of other things": lambda q, k, v: (
        np.exp(scored(q, k, v) - scored(q, k, v).max(-1, keepdims=True)) / scored(q, k, v).sum(-1, keepdims=True)) @ v,
    "a large number for a mask": lambda q, k, v: stopped(fnp.where(CAUSAL, scored(q, k, v), -1e9)) @ v,
    "few keys": lambda q, k, v: stopped(scored(q, k[:, :20], v)) @ v[:, :20],
    "keys are weighted": lambda q, k, v: np.swapaxes(stopped(scored(q, k, v)), -1, -2) @ v,
    "not a product": lambda q, k, v: stopped(-np.abs(q[:, :, None] - k[:, None]).sum(-1)) @ v,
    "tangents": lambda q, k, v: fl.jvp(lambda q: stopped(scored(q, k, v)) @ v, (q,), (k,)),
    "two derivatives": lambda q, k, v: fl.grad(
        lambda q: (fl.grad(lambda q: ((stopped(scored(q, k, v)) @ v) ** 2).sum())(q) ** 2).sum())(q),
    "a mask's gradient": lambda q, k, v: fl.grad(
        lambda m: ((stopped(scored(q, k, v) + m) @ v) ** 2).sum())(CAUSAL * 1.0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_attention_alone_stays(name):
    program, _ = canonical(OTHERS[name], *heads(2, N, E))
    assert fuse_attention(program) is program


def test_half_precision_stays():
    args = [x.astype(np.float16) for x in heads(2, N, E)]
    program, _ = canonical(lambda q, k, v: stopped(scored(q, k, v).astype(np.float16)) @ v, *args)
    assert fuse_attention(program) is program


def test_gradients_that_are_almost_those_of_attention_are_right():
    def twice(q, k, v, ct):
        w = stopped(scored(q, k, v))
        d = ct @ np.swapaxes(v, -1, -2)
        moved = w * (d - (w * d).sum(-1, keepdims=True))
        return w @ v, 2 * moved @ k, np.swapaxes(moved, -1, -2) @ q, np.swapaxes(w, -1, -2) @ ct

    args = (*heads(2, N, E), normal(2, N, E, seed=3))
    names = [e.prim.name for e in fused(twice, *args).equations]
    assert names.count("attention_cotangents") == 1 and "exp" not in names

    def other_keys(q, k, v, ct):
        w = stopped(scored(q, k, v))
        d = ct @ np.swapaxes(v, -1, -2)
        return w @ v, (w * (d - (w * d).sum(-1, keepdims=True))) @ q, (w * (d + (w * d).sum(-1, keepdims=True))) @ k

    program, _ = canonical(other_keys, *args)
    assert fuse_attention(program) is program


# --- compiled ---------------------------------------------------------------------------------------------------------


UNSEEN = CAUSAL.copy()
UNSEEN[5], UNSEEN[:, 60:] = False, False  # query 5 sees nothing, keys from 60 on are seen by none
ADDED = np.where(UNSEEN, 0, -np.inf)
SPECIAL = [(0, (0, 7, 1), np.inf), (1, (1, 80, 2), np.nan), (1, (0, 3, 2), np.inf), (2, (1, 85, 0), np.inf),
           (2, (0, 70, 0), np.nan)]


def masked_attention(mask, q, k, v):
    s = scored(q, k, v)
    return stopped(fnp.where(mask, s, -np.inf) if mask.dtype == bool else s + mask) @ v


def check_compiled(fun, *args):
    step = fl.jit(fun)
    assert "attention" in step.lower(*args).as_text("optimized")
    with np.errstate(all="ignore"):
        expected = fun(*args)
    for a, b in zip(fl.tree.leaves(step(*args)), fl.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mask", [CAUSAL, UNSEEN, ADDED], ids=["causal", "unseen", "added"])
def test_infinities_and_nan_act_as_written(mask):
    """Also those that no query sees: zero times NaN."""
    for i, place, number in SPECIAL:
        args = [x.copy() for x in heads(2, N, E)]
        args[i][place] = number
        check_compiled(masked_attention, mask, *args)


@pytest.mark.parametrize("mask", [UNSEEN, ADDED], ids=["unseen", "added"])
def test_the_gradient_of_rows_that_see_nothing_is_as_written(mask):
    args = [x.copy() for x in heads(2, N, E)]
    if mask.dtype == bool:
        args[1][1, 80, 2] = np.nan  # nobody's key

    def gradient(mask, *args):
        return loss(functools.partial(masked_attention, mask))(args)

    check_compiled(gradient, mask, *args)
    assert np.isnan(fl.jit(gradient)(mask, *args)[1][2]).all()


def test_layers_of_a_transformer_keep_no_weights():
    width, layers = 16, 4
    params = [{k: normal(width, w * width, seed=i) * 0.2 for k, w in (("qkv", 3), ("out", 1), ("up", 1))}
              for i in range(layers)]

    def layer(p, x):
        parts = (x @ p["qkv"]).reshape(2, 128, 3, 4, width // 4)
        q, k, v = (np.moveaxis(parts[:, :, i], 1, 2) for i in range(3))
        s = np.where(np.tril(np.ones((128, 128), bool)), q @ np.swapaxes(k, -1, -2) * 0.5, -np.inf)
        x = x + np.moveaxis(plain(s) @ v, 1, 2).reshape(x.shape) @ p["out"]
        return x + np.tanh(x @ p["up"])

    def value(params, x):
        for p in params:
            x = layer(p, x)
        return (x**2).mean()

    x = normal(2, 128, width)
    step = fl.jit(fl.value_and_grad(value))
    text = step.lower(params, x).as_text("optimized")
    assert "attention_cotangents" in text and "2,4,128,128" not in text.replace(" ", "")
    for a, b in zip(fl.tree.leaves(step(params, x)), fl.tree.leaves(fl.value_and_grad(value)(params, x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_a_written_attention_needs_no_memory_for_weights():
    length = 1024
    q = normal(2, length, 16).astype(np.float32)

    def attend(q):
        s = causal(q @ np.swapaxes(q, -1, -2) * np.float32(0.25))
        return ((plain(s) @ q) ** 2).sum()

    assert fl.jit(fl.grad(attend)).memory(q).peak < 2 * length * length * 4 / 4

# SPDX-License-Identifier: MIT
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import train
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ShapeError


def loss_fn(params, x, y):
    logits = np.tanh(x @ params["w"])
    return ((logits - y) ** 2).mean(), {"seen": train.Mean.of(y), "top": logits.mean()}


def example():
    rng = np.random.default_rng(0)
    return {"w": rng.normal(size=(3, 2))}, rng.normal(size=(12, 3)), rng.normal(size=(12, 2))


@pytest.mark.parametrize("n", [1, 3, 12])
@pytest.mark.parametrize("wrap", [lambda f: f, fl.jit], ids=["eager", "jit"])
def test_parts_give_what_the_whole_batch_gives(n, wrap):
    whole = fl.value_and_grad(loss_fn, has_aux=True)
    expected, found = whole(*example()), wrap(train.microbatched(whole, n))(*example())
    assert fl.tree.structure(found) == fl.tree.structure(expected)
    for a, b in zip(fl.tree.leaves(found), fl.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_half_precision_is_summed_in_single():
    def mean(w, x):
        return x.mean()

    x = np.full(4096, 1.001, np.float16)
    assert train.microbatched(mean, 4096)(0.0, x) == x[0] and train.microbatched(mean, 2)(0.0, x).dtype == np.float16


def test_it_needs_less_memory():
    def loss(w, x):
        for _ in range(4):
            x = np.tanh(x @ w)
        return (x**2).mean()

    w, x = np.zeros((64, 64), np.float32), np.zeros((4096, 64), np.float32)
    whole = fl.jit(fl.grad(loss)).memory(w, x).peak
    parts = fl.jit(train.microbatched(fl.grad(loss), 16)).memory(w, x).peak
    assert parts < whole / 2


def test_what_does_not_fit_is_told():
    params, x, y = example()
    with pytest.raises(ArgumentError, match="`n` should be at least 1, but is 0"):
        train.microbatched(loss_fn, 0)
    with pytest.raises(ShapeError, match=r"axis 0 of `batch\[0\]` should be divisible by 5, .* is \(12, 3\)"):
        train.microbatched(loss_fn, 5)(params, x, y)
    with pytest.raises(ArgumentTypeError, match=r"the result\['n'\] is int64, which has no mean"):
        train.microbatched(lambda p, x: {"n": (x > 0).sum()}, 2)(params, x)

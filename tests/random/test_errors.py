# SPDX-License-Identifier: MIT
"""Messages of the samplers: they name the function, the argument, what came, and what to do."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import random
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError

KEY = random.key(0)
WRONG = [
    (lambda: random.normal(0), ArgumentTypeError,
     r"normal: `key` must be a key \(uint32\[2\]\), got 0.*random.key\(seed\)"),
    (lambda: random.normal(np.zeros(2)), DTypeError,
     r"normal: `key` must be a key.*float64|f64\[2\].*random.key\(seed\)"),
    (lambda: random.uniform(np.zeros(3, np.uint32)), ShapeError, r"uniform: `key`.*u32\[3\].*random.key\(seed\)"),
    (lambda: random.gamma(random.split(KEY), 1.0), ShapeError, r"gamma: `key` must be one key.*several keys.*vmap"),
    (lambda: random.split(np.zeros((3, 2), np.uint32)), ShapeError, r"split: `key` must be one key"),
    (lambda: random.normal(KEY, (-1,)), ShapeError, r"normal: `shape` must have no negative sizes, got \(-1,\)"),
    (lambda: random.normal(KEY, "ab"), ArgumentTypeError, r"normal: `shape` must be a tuple of integers"),
    (lambda: random.split(KEY, -2), ShapeError, r"split: `shape` must have no negative"),
    (lambda: random.normal(KEY, (2,), np.int32), DTypeError,
     r"normal: `dtype` must be a floating point dtype, got int32"),
    (lambda: random.uniform(KEY, (2,), np.complex64), DTypeError, r"uniform: `dtype` must be a floating point dtype"),
    (lambda: random.bits(KEY, (2,), np.int32), DTypeError, r"bits: `dtype` must be an unsigned integer dtype"),
    (lambda: random.randint(KEY, (2,), 0, 5, np.float32), DTypeError, r"randint: `dtype` must be an integer dtype"),
    (lambda: random.randint(KEY, (2,), 0, 5.5), ArgumentTypeError, r"randint: `maxval` must be an integer"),
    (lambda: random.bernoulli(KEY, np.full(3, 0.5), (4,)), ShapeError,
     r"bernoulli: `p` of shape \(3,\) does not broadcast to shape=\(4,\)"),
    (lambda: random.beta(KEY, np.ones(2), np.ones(3)), ShapeError,
     r"beta: the parameters do not broadcast together: `a` \(2,\), `b` \(3,\)"),
    (lambda: random.bernoulli(KEY, 0.5, mode="best"), ArgumentError, r"bernoulli: `mode` must be one of 'low', 'high'"),
    (lambda: random.gumbel(KEY, mode="best"), ArgumentError, r"gumbel: `mode` must be one of"),
    (lambda: random.fold_in(KEY, 1.5), ArgumentTypeError, r"fold_in: `data` must be an integer, got 1.5"),
    (lambda: random.fold_in(KEY, np.arange(2)), ShapeError, r"fold_in: `data` must be a scalar.*vmap"),
    (lambda: random.key(1.5), ArgumentTypeError, r"key: expected an integer scalar"),
    (lambda: fl.jit(random.key)(np.arange(2)), ArgumentTypeError, r"key: `seed` must be an integer scalar"),
    (lambda: random.choice(KEY, 3, (4,), replace=False), ArgumentError, r"choice: 4 draws without replacement from 3"),
    (lambda: random.choice(KEY, 0, (4,)), ArgumentError, r"choice: `a` is empty"),
    (lambda: random.choice(KEY, 3, (4,), p=np.ones(2)), ShapeError, r"choice: `p` must have shape \(3,\)"),
    (lambda: random.choice(KEY, np.ones((2, 2)), axis=2), ShapeError, r"choice: `axis` 2 is out of range"),
    (lambda: random.permutation(KEY, 1.5), ArgumentTypeError, r"permutation: `x` must be an array or an integer"),
    (lambda: random.permutation(KEY, -1), ArgumentError, r"permutation: `x` must not be negative"),
    (lambda: random.categorical(KEY, 1.0), ShapeError, r"categorical: `logits` must be real with at least one axis"),
    (lambda: random.categorical(KEY, np.ones((2, 3)), shape=(3,)), ShapeError,
     r"categorical: shape=\(3,\) must end with"),
    (lambda: random.categorical(KEY, np.ones(2), shape=(3,), replace=False), ArgumentError, r"categorical: 3 draws"),
    (lambda: random.dirichlet(KEY, 1.0), ShapeError, r"dirichlet: `alpha` must have at least one axis"),
    (lambda: random.multinomial(KEY, 3, 1.0), ShapeError, r"multinomial: `p` must have at least one axis"),
    (lambda: random.ball(KEY, 0), ArgumentError, r"ball: `d` must be at least 1"),
    (lambda: random.orthogonal(KEY, -1), ArgumentError, r"orthogonal: `n` and `m` must not be negative"),
    (lambda: random.multivariate_normal(KEY, np.zeros(2), np.eye(3)), ShapeError,
     r"`cov` must have shape \[..., 2, 2\]"),
    (lambda: random.multivariate_normal(KEY, np.zeros(2), np.eye(2), method="lu"), ArgumentError,
     r"`method` must be one of"),
    (lambda: random.wrap_key_data(KEY, impl="rbg"), ArgumentTypeError, r"wrap_key_data: the only `impl`"),
    (lambda: random.key_data(np.zeros(2)), DTypeError, r"key_data: expected keys"),
    (lambda: random.rademacher(KEY, (2,), np.uint8), DTypeError, r"rademacher: `dtype` must hold -1"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_call_says_what_is_wrong(number):
    call, error, text = WRONG[number]
    with pytest.raises(error, match=text):
        call()

# SPDX-License-Identifier: MIT
"""barrier: the identity, under every transform."""

import numpy as np

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite.primitives.barrier import barrier

X = np.array([0.5, -1.0, 2.0])


def through(x):
    a, b = barrier([fnp.sin(x), x])
    return a * b


def direct(x):
    return fnp.sin(x) * x


def test_values_pass_unchanged():
    values = barrier([X, np.float32(2)])
    assert values[0] is X and values[1] == 2


def test_derivatives_and_mapped_values_are_those_of_the_identity():
    for transform in (
        fl.jit, fl.vmap, fl.jacfwd, fl.jacrev, lambda f: fl.grad(lambda x: f(x).sum()),
        lambda f: fl.hessian(lambda x: f(x).sum()), lambda f: fl.jit(fl.vmap(fl.grad(f))),
        lambda f: lambda x: fl.jvp(f, (x,), (x,))[1],
    ):
        np.testing.assert_allclose(transform(through)(X), transform(direct)(X), rtol=1e-12)


def test_only_mapped_operands_are_mapped():
    out = fl.vmap(lambda x: barrier([x, X])[1] + x)(X)
    np.testing.assert_array_equal(out, X[None] + X[:, None])


def test_a_checkpointed_function_is_computed_again_behind_a_barrier():
    fun = fl.checkpoint(lambda x: fnp.sin(fnp.sin(x)))
    text = str(fl.make_program(fl.grad(lambda x: fun(x).sum()))(X))
    assert text.count("barrier") == 1

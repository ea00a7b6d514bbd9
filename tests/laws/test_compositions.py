# SPDX-License-Identifier: MIT
"""Law: second and third derivatives, in all orders of forward and reverse mode, and vmap of each.

The derivative of a first-order derivative along v is compared with its central difference; where the outer transform
is reverse mode, through the pairing <ct, J v> = <J^T ct, v>.
"""

import numpy as np
import pytest

from functorch_lite.transforms.batching import batch_flat
from tests.laws.support import Active, assert_close, cases, central, inner, jvp, smooth, vjp


def first_order(fun, mode, seed=1):
    """x -> J(x) u, or x -> J(x)^T ct, for fixed random u and ct."""
    u, cts = fun.directions(seed), fun.cotangents(seed)
    if mode == "jvp":
        return lambda *x: jvp(fun, x, u)
    return lambda *x: vjp(fun, x, cts)


def second(record, sample):
    return smooth(record, sample, 2)


@pytest.mark.parametrize("mode", ["jvp", "vjp"])
@cases(second)
def test_forward_over_first_order(record, number, mode):
    fun = Active(record, record.draw()[number])
    inside, v = first_order(fun, mode), fun.directions(2)
    assert_close(jvp(inside, fun.point, v), central(inside, fun.point, v), record, 10)


@pytest.mark.parametrize("mode", ["jvp", "vjp"])
@cases(second)
def test_reverse_over_first_order(record, number, mode):
    fun = Active(record, record.draw()[number])
    inside, v = first_order(fun, mode), fun.directions(2)
    dots = jvp(inside, fun.point, v)
    rng = np.random.default_rng(7)
    cts = [rng.standard_normal(np.shape(d)).astype(d.dtype) for d in dots]
    back = vjp(inside, fun.point, cts)
    scale = inner([np.abs(c) for c in cts], [np.abs(d) for d in dots])
    np.testing.assert_allclose(inner(back, v), inner(cts, dots), rtol=1e-9, atol=1e-9 * scale + 1e-12)


@pytest.mark.parametrize("mode", ["jvp", "vjp"])
@cases(second)
def test_vmap_of_first_and_second_order(record, number, mode):
    fun = Active(record, record.draw()[number])
    inside, v = first_order(fun, mode), fun.directions(2)
    lanes = [Active(record, record.draw(lane)[number]).point for lane in range(2)]
    args = [np.stack([np.asarray(lane[i]) for lane in lanes]) for i in range(len(fun.point))]

    def both(*x):
        return [*inside(*x), *jvp(inside, x, v)]

    outs, flags = batch_flat(both, args, [True] * len(args), size=2)
    for lane in range(2):
        found = [np.asarray(o)[lane] if f else o for o, f in zip(outs, flags, strict=True)]
        assert_close(found, both(*lanes[lane]), record, 1e-4)


@pytest.mark.parametrize("modes", [("jvp", "jvp"), ("vjp", "jvp"), ("jvp", "vjp"), ("vjp", "vjp")], ids="-".join)
@cases(lambda record, sample: smooth(record, sample, 3))
def test_third_order(record, number, modes):
    fun = Active(record, record.draw()[number])
    inside = first_order(fun, modes[0])
    v, w = fun.directions(2), fun.directions(3)
    if modes[1] == "jvp":
        outer = lambda *x: jvp(inside, x, v)  # noqa: E731
    else:
        rng = np.random.default_rng(9)
        cts = [rng.standard_normal(np.shape(o)).astype(o.dtype) for o in inside(*fun.point)]
        outer = lambda *x: vjp(inside, x, cts)  # noqa: E731
    assert_close(jvp(outer, fun.point, w), central(outer, fun.point, w), record, 100)

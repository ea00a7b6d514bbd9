# SPDX-License-Identifier: MIT
"""Concatenations and padded arrays read in place: against the evaluator and the interpreter, next to guard pages."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite import numpy as fnp
from functorch_lite.compiler import pipeline
from functorch_lite.compiler.schedule import joined
from functorch_lite.compiler.schedule.fusion import Schedule
from functorch_lite.compiler.schedule.printer import schedule_text
from tests.compiler.products import check_stays_inside, check_threads
from tests.compiler.test_programs_three_ways import check

F32 = np.float32


def floats(*shape: int, dtype: Any = F32) -> np.ndarray:
    return (np.random.default_rng(shape).standard_normal(shape) * 4).astype(dtype)


def is_read_in_place(fun, *args) -> bool:
    text = schedule_text(Schedule(pipeline.optimize(fl.make_program(fun)(*args))))
    return "concatenate" not in text and "pad" not in text


def neighbours(x):
    return fnp.roll(x, 1, 0) + fnp.roll(x, -1, 0) + fnp.roll(x, 1, 1) - fnp.roll(x, -2, 1) * x


def rotated(x):
    half = x.shape[-1] // 2
    return x * fnp.cos(x) + fnp.concatenate([-x[..., half:], x[..., :half]], -1) * fnp.sin(x)


READ = {
    "neighbours": (neighbours, (64, 65)),
    "corners": (lambda x: fnp.roll(x, (1, -1), (0, 1)) + fnp.roll(x, (-1, -2), (0, 1)), (70, 67)),
    "three axes": (lambda x: fnp.roll(x, 1, 0) + fnp.roll(x, -3, 1) + fnp.roll(x, 2, 2), (9, 24, 23)),
    "rotated halves": (rotated, (5, 13, 68)),
    "joined rows": (lambda x: fnp.tanh(fnp.concatenate([x, x[:7] * 2, fnp.ones((1, x.shape[1]), x.dtype)])), (60, 70)),
    "a slice of one": (lambda x: fnp.concatenate([x, x + 1, x], 1)[3:, 50:150] * x[3:, :100], (66, 101)),
    "steps": (lambda x: fnp.exp(fnp.concatenate([x, -x], 0)[::3]), (130, 64)),
    "turned": (lambda x: fnp.concatenate([x[:5], x * 2], 0)[::-1] + fnp.concatenate([x, x[:5]], 0), (64, 66)),
    "turned rows": (lambda x: fnp.concatenate([x[:, :9], x * 2], 1)[:, ::-1] * F32(3), (64, 66)),
    "spread rows": (lambda x: fnp.concatenate([x[0], x[1, :30]]) * fnp.ones((50, 1), F32) + 1, (2, 66)),
    "of one axis": (lambda x: fnp.roll(x, 5) - x, (5003,)),
    "padded": (lambda x: fnp.pad(x, ((1, 0), (2, 3)), constant_values=7) * F32(2), (64, 65)),
    "padded in a padded one": (lambda x: fnp.pad(fnp.pad(x, 1), ((0, 2), (1, 0)), constant_values=3) + 1, (64, 65)),
    "shifted": (lambda x: fnp.pad(x, ((1, 0), (0, 0)))[:-1] - fnp.pad(x, ((0, 0), (0, 2)))[:, 2:], (64, 65)),
    "gradient of differences": (fl.grad(lambda x: sum((fnp.diff(x, axis=a) ** 2).sum() for a in (0, 1))), (64, 65)),
    "kept too": (lambda x: (fnp.roll(x, 5, 1) - x, fnp.roll(x, 5, 1) * x), (64, 66)),
}
COPIED = {
    "read twice": lambda x: (y := fnp.roll(x, 1, 0), y * 2)[1] @ y,
    "returned": lambda x: (y := fnp.roll(x, 1, 0), y + x),
    "under another name": lambda x: fnp.roll(x, 1, 0).reshape(-1, 2) * fnp.ones((1, 2), F32),
    "summed": lambda x: (fnp.roll(x, 1, 0) * x).sum(1),
    "turned to columns": lambda x: fnp.concatenate([x.T, x.T], 1)[:, :90] * F32(2),
    "many pieces": lambda x: sum(fnp.roll(x, k, a) for k in range(1, 6) for a in (0, 1)),
    "short rows": lambda x: fnp.roll(x.reshape(-1, 10), 1, 0) + 1,
    "padded inside": lambda x: lax.pad(x, F32(0), ((1, 0, 1), (0, 0, 0))) * F32(2),
    "cut off": lambda x: lax.pad(x, F32(0), ((-1, 3, 0), (0, 0, 0))) * F32(2),
    "small": lambda x: fnp.roll(x[:9], 1, 0) + x[:9],
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read_in_place(name):
    fun, shape = READ[name]
    x = floats(*shape)
    assert is_read_in_place(fun, x)
    check(fun, [x])


@pytest.mark.parametrize("name", COPIED)
def test_what_is_copied(name):
    x = floats(90, 90)
    assert not is_read_in_place(COPIED[name], x)
    check(COPIED[name], [x], interpreted=False)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.bool_, np.complex64], ids=lambda d: d.__name__)
def test_other_types(dtype):
    x = floats(64, 66).astype(dtype)

    def fun(x):
        return fnp.where(fnp.roll(x, 1, 0) == fnp.roll(x, 1, 1), fnp.roll(x, -1, 1), x)

    assert is_read_in_place(fun, x)
    check(fun, [x])


@pytest.mark.parametrize("name", READ)
def test_derivatives_and_batches(name):
    fun, shape = READ[name]
    x = floats(*shape, dtype=np.float64)

    def total(x):
        return sum((y * y).sum() for y in fl.tree.leaves(fun(x)))

    np.testing.assert_allclose(fl.jit(fl.grad(total))(x), fl.grad(total)(x), rtol=1e-12, atol=1e-12)
    rows = np.stack([x, x + 1])
    for ours, alone in zip(*map(fl.tree.leaves, (fl.jit(fl.vmap(fun))(rows), fun(rows[1]))), strict=True):
        np.testing.assert_allclose(ours[1], alone, rtol=1e-6)


def test_a_grid_in_a_scan_is_one_kernel():
    """The next grid cannot take the place of the one that is read at other places."""

    def steps(x):
        return lax.scan(lambda x, _: (neighbours(x) * F32(0.1), None), x, None, length=5)[0]

    text = fl.jit(steps).lower(floats(64, 65)).as_text("loop_ir")
    assert set(re.findall(r"call (\w+)", text)) == {"k0"}
    check(steps, [floats(64, 65)])


def test_a_donated_argument_is_not_written_over_while_it_is_read():
    x = floats(300, 400)
    expected = neighbours(x)
    np.testing.assert_array_equal(fl.jit(neighbours, donate_argnums=0)(x), expected)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", ["neighbours", "corners", "three axes", "of one axis", "kept too"])
def test_kernels_stay_inside_their_arrays(name, at_end):
    fun, shape = READ[name]
    check_stays_inside(fun, [floats(*shape)], at_end, name="k")


def test_threads_share_the_pieces():
    check_threads(neighbours, [floats(900, 1100)])


def moved(x, moves):
    """An array of the shape of x, of which parts are moved about."""
    for kind, axis, k in moves:
        axis, n = axis % len(x.shape), x.shape[axis % len(x.shape)]
        k = k % n
        head, tail = lax.slice_in_dim(x, 0, k, axis=axis), lax.slice_in_dim(x, k, n, axis=axis)
        if kind == "roll":
            x = fnp.roll(x, k, axis)
        elif kind == "flip":
            x = fnp.flip(x, axis)
        elif kind == "join":
            x = fnp.concatenate([head * F32(2), tail], axis)
        elif kind == "shift":
            x = fnp.concatenate([fnp.zeros_like(tail), head], axis)
        else:
            x = lax.pad(x, F32(5), [(k, 0, 0) if d == axis else (0, 0, 0) for d in range(len(x.shape))])
            x = lax.slice_in_dim(x, 0, n, axis=axis)
    return x


KINDS = st.sampled_from(["roll", "flip", "join", "shift", "pad"])
MOVES = st.lists(st.tuples(KINDS, st.integers(0, 2), st.integers(1, 40)), max_size=3)


@given(MOVES, MOVES, st.sampled_from([(7,), (19,), (5, 6), (3, 33), (4, 3, 5), (2, 3, 18)]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_parts_moved_at_random(one, other, shape):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joined, "LEAST", 1)
        patch.setattr(joined, "ROW", 1)
        check(lambda x, y: moved(x, one) * moved(y, other) + x, [floats(*shape), floats(*shape[::-1]).reshape(shape)])

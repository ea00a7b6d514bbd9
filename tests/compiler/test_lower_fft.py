# SPDX-License-Identifier: MIT
"""Fourier transforms inside compiled programs, against transforms in double precision."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.lowering import fft_passes as passes
from functorch_lite.compiler.lowering.fft import Line, blocks_of
from functorch_lite.core.rules import eval_rules
from functorch_lite.primitives.fft import fft, fft_p
from tests.compiler.test_lower_linalg import compiled, no_python
from tests.records import fft as records

RNG = np.random.default_rng(8)
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 26, 30, 31, 32, 64, 77, 97, 100, 128, 243, 256, 360, 1000, 1024,
           1009, 2048, 4096)
AXES = ((1, 1), (4, 1), (1, 5), (2, 3, 4), (16, 16), (17, 6), (8, 31), (128, 130), (512, 37), (512, 72))
__all__ = ["no_python"]


def sample(kind, dtype, lead, lengths):
    """Random input of a transform."""
    shape = (*lead, *lengths[:-1], lengths[-1] // 2 + 1 if kind == "irfft" else lengths[-1])
    x = RNG.standard_normal(shape)
    if kind != "rfft":
        x = x + 1j * RNG.standard_normal(shape)
    return x.astype({"rfft": dtype}.get(kind, {"float32": "complex64", "float64": "complex128"}[dtype]))


def check(kind, dtype, lead, lengths):
    """The error, relative to the root of the mean square, is a few units in the last place."""
    x = sample(kind, dtype, lead, lengths)
    found = compiled(lambda x: fft(x, kind, lengths), x)(x)[0]
    eager = eval_rules[fft_p](np, x, kind=kind, lengths=lengths)
    wide = x.astype("float64" if kind == "rfft" else "complex128")
    expected = eval_rules[fft_p](np, wide, kind=kind, lengths=lengths)
    assert found.dtype == eager.dtype and found.shape == eager.shape
    size = np.sqrt(np.mean(np.abs(expected) ** 2)) + 1e-30
    steps = 2 + np.log2(np.prod(lengths))
    units = 2 if all(map(passes.is_smooth, lengths)) else 4  # of the largest error, of ours and the reference's
    assert np.abs(found - expected).max() / size < units * steps * np.finfo(dtype).eps


@pytest.mark.parametrize("record", records.RECORDS, ids=lambda r: r.name)
def test_records_run_natively(record, no_python):
    for x in record.draw():
        for found, expected in zip(compiled(record.fun, *x.args)(*x.args), record.flat(*x.args), strict=True):
            np.testing.assert_allclose(found, expected, 1e-13, 1e-13)


@pytest.mark.parametrize("kind", ("fft", "ifft", "rfft", "irfft"))
@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("n", LENGTHS)
def test_every_length(n, dtype, kind, no_python):
    check(kind, dtype, (), (n,))
    if n <= 256:
        check(kind, dtype, (3,), (n,))
        check(kind, dtype, (2, 32), (n,))
        check(kind, dtype, (12,), (n,))
        check(kind, dtype, (21,), (n,))


@pytest.mark.parametrize("kind", ("fft", "ifft", "rfft", "irfft"))
@pytest.mark.parametrize("lengths", AXES, ids=str)
def test_several_axes(lengths, kind, no_python):
    for dtype in ("float32", "float64"):
        for lead in ((), (2,)):
            check(kind, dtype, lead, lengths)


def test_lines_beside_each_other_are_dealt_out_to_blocks_that_fill_vectors():
    even, rest = blocks_of(Line("fft", 1, 512, 257), 4)
    assert (even.lines, even.starts[-1], rest.lines, rest.first) == (32, (8, 32, 32), 1, (256, 256))
    assert [block.lines for block in blocks_of(Line("fft", 1, 512, 240), 4)] == [30]
    assert [block.lines for block in blocks_of(Line("fft", 5, 100, 3), 4)] == [3]


def test_short_lines_are_transformed_a_vector_of_them_at_a_time():
    assert [block.lines for block in blocks_of(Line("fft", 64, 32, 1), 4)] == [16]
    assert [block.lines for block in blocks_of(Line("fft", 64, 32, 1), 8)] == [8]
    assert [block.lines for block in blocks_of(Line("fft", 64, 64, 1), 4)] == [16]
    assert [block.lines for block in blocks_of(Line("fft", 64, 128, 1), 4)] == [1]
    assert [block.lines for block in blocks_of(Line("fft", 8, 32, 1), 4)] == [1]


def test_short_lines_that_fill_no_block_are_one_of_their_own():
    even, rest = blocks_of(Line("rfft", 1000, 32, 1), 4)
    assert (even.lines, even.starts, rest.lines) == (16, ((62, 16 * 32, 16 * 17),), 8)
    assert rest.first == (62 * 16 * 32, 62 * 16 * 17)


@pytest.mark.parametrize("n", range(1, 300))
def test_the_passes_of_a_length_multiply_to_it(n):
    found = passes.radices(n)
    assert np.prod(found, dtype=int) == n
    assert n % 8 or found[0] == 8  # the first one leaves eight places side by side


def test_gradients_and_batches(no_python):
    x = RNG.standard_normal((4, 12))

    def power(x):
        return fl.numpy.sum(fl.numpy.abs(fft(x, "rfft", (12,))) ** 2 * np.arange(7.0))

    np.testing.assert_allclose(fl.jit(fl.vmap(fl.grad(power)))(x), fl.vmap(fl.grad(power))(x), 1e-12)

# SPDX-License-Identifier: MIT
"""Convolution and windows: the plans of the evaluation rule agree, ties, counts and refusals."""

import numpy as np
import pytest

from functorch_lite.backends import special
from functorch_lite.core.aval import Aval
from functorch_lite.core.staging import stage_closed
from functorch_lite.errors import DTypeError, ShapeError
from functorch_lite.primitives import convolution, windows
from functorch_lite.transforms.linearize import linearize_flat

rng = np.random.default_rng(11)


def test_b23_a_pooling_window_with_ties_takes_its_first_maximum():
    x = np.array([1.0, 1.0, 2.0, 0.0])
    _, tape = linearize_flat(lambda y: [windows.reduce_window_max(y, (2,), (2,))], [x], [True])
    np.testing.assert_array_equal(tape.backward([np.ones(2)])[0], [1, 0, 1, 0])


def test_an_infinite_cotangent_of_a_window_reaches_its_maximum_only():
    x = np.array([1.0, 2.0])
    _, tape = linearize_flat(lambda y: [windows.reduce_window_max(y, (2,), (2,))], [x], [True])
    np.testing.assert_array_equal(tape.backward([np.array([np.inf])])[0], [0, np.inf])


def test_window_count_leaves_out_the_padding():
    found = windows.window_count((3, 3), (2, 2), (2, 2), ((1, 0), (1, 0)))
    np.testing.assert_array_equal(found, [[1, 2], [2, 4]])


@pytest.mark.parametrize("size", [1, 1 << 10, 1 << 30])
@pytest.mark.parametrize(("x", "w"), [((5, 3, 6, 6), (4, 3, 3, 3)), ((5, 3, 6, 6), (4, 3, 5, 5))])
def test_the_size_of_the_patch_buffer_does_not_change_the_result(monkeypatch, size, x, w):
    x, w = rng.standard_normal(x), rng.standard_normal(w)
    expected = convolution.conv_general_dilated(x, w, (1, 1), ((0, 0), (0, 0)))
    monkeypatch.setattr(convolution, "PATCH_BYTES", size)
    found = convolution.conv_general_dilated(x, w, (1, 1), ((0, 0), (0, 0)))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "w", "options", "match"),
    [
        ((2, 3, 5), (4, 2, 3), {}, "3 channels"),
        ((2, 3, 5, 5), (4, 3, 3), {}, "spatial axes"),
        ((2, 4, 5), (3, 2, 3), {"groups": 2}, "cannot be split"),
        ((2, 4, 5), (4, 2, 3), {"groups": 2, "batch_groups": 2}, "cannot both"),
        ((2, 3, 5), (4, 3, 3), {"rhs_dilation": (0,)}, "at least 1"),
    ],
)
def test_a_convolution_of_shapes_that_do_not_fit_is_refused(x, w, options, match):
    avals = [Aval(x, np.dtype(np.float32)), Aval(w, np.dtype(np.float32))]
    with pytest.raises(ShapeError, match=match):
        stage_closed(lambda a, b: [convolution.conv_general_dilated(a, b, (1,), ((0, 0),), **options)], avals)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="one entry for each of the 2 axes"):
        stage_closed(lambda x: [windows.reduce_window_max(x, (2,))], [Aval((3, 3), np.dtype(np.float32))])
    with pytest.raises(DTypeError, match="does not take dtype complex64"):
        stage_closed(lambda x: [windows.reduce_window_max(x, (2,))], [Aval((3,), np.dtype(np.complex64))])


@pytest.mark.parametrize("kind", ["j", "i", "ie"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_bessel_functions_by_recurrence_equal_scipys(kind, order):
    x = np.array([-20.0, -3.0, 0.0, 0.01, 1.0, 7.9, 8.1, 15.0, 40.0])
    found = special.bessel_by_recurrence(np, kind, order, x)
    np.testing.assert_allclose(found, special.bessel(np, kind, order, x), rtol=1e-9, atol=1e-11)

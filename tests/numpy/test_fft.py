# SPDX-License-Identifier: MIT
"""numpy.fft on traced arrays: NumPy's values, dtypes and shapes for every norm and axis option."""

import numpy as np
import pytest

import functorch_lite.numpy.operators  # noqa: F401 (installs the operators)
from functorch_lite.errors import ArgumentError
from functorch_lite.numpy import fft
from functorch_lite.transforms.jvp import jvp_flat

rng = np.random.default_rng(5)
REAL = rng.standard_normal((2, 3, 4))
COMPLEX = REAL + 1j * rng.standard_normal((2, 3, 4))

CALLS = [
    ("fft", COMPLEX, {}),
    ("fft", REAL, {"n": 7, "norm": "ortho"}),
    ("ifft", COMPLEX, {"axis": 0, "n": 1}),
    ("rfft", REAL, {"norm": "forward"}),
    ("irfft", COMPLEX, {}),
    ("irfft", COMPLEX, {"n": 5, "norm": "ortho"}),
    ("fft2", REAL, {}),
    ("ifft2", COMPLEX, {"s": (4, 3), "axes": (1, 0)}),
    ("rfft2", REAL, {}),
    ("irfft2", COMPLEX, {}),
    ("fftn", COMPLEX, {}),
    ("ifftn", COMPLEX, {"axes": (0, 2), "norm": "forward"}),
    ("rfftn", REAL, {"axes": (2, 0)}),
    ("irfftn", COMPLEX, {}),
    ("hfft", COMPLEX, {}),
    ("ihfft", REAL, {}),
    ("fftshift", REAL, {}),
    ("ifftshift", REAL, {"axes": 1}),
    ("fftshift", np.arange(5.0), {}),
    ("ifftshift", np.arange(5.0), {}),
]


@pytest.mark.parametrize(("name", "x", "options"), CALLS)
@pytest.mark.parametrize("single", [False, True])
def test_traced_transform_equals_numpys_and_is_linear(name, x, options, single):
    x = x.astype(np.result_type(np.float32) if x.dtype.kind == "f" else np.complex64) if single else x
    call = getattr(np.fft, name)
    (out,), (dot,) = jvp_flat(lambda y: [call(y, **options)], [x], [2 * x])
    expected = call(x, **options)
    assert out.dtype == dot.dtype == expected.dtype and out.shape == expected.shape
    tolerance = 1e-5 if single else 1e-12
    np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(dot, 2 * expected, rtol=tolerance, atol=2 * tolerance)


def test_every_function_of_numpys_fft_is_there():
    assert not [name for name in np.fft.__all__ if not hasattr(fft, name)]


def test_an_unknown_norm_is_refused():
    with pytest.raises(ArgumentError, match="Invalid norm value"):
        jvp_flat(lambda y: [np.fft.fft(y, norm="none")], [REAL], [REAL])

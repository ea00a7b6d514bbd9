# SPDX-License-Identifier: MIT
"""Convolution, correlation and spectra: SciPy's values, derivatives by differences, errors that say what to do."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import scipy.fft
import scipy.signal

import functorch_lite as fl
from functorch_lite import errors
from functorch_lite.scipy import convolution, dispatch, signal

from .agreement import check_agrees, check_derivatives

RNG = np.random.default_rng(5)
MODES = ("full", "same", "valid")


def array(shape, dtype="f8"):
    x = 3 * RNG.standard_normal(shape)
    return (x + 1j * RNG.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def both(name, **options):
    """The function of this library and SciPy's, with options."""
    return (functools.partial(getattr(module, name), **options) for module in (signal, scipy.signal))


SHAPES = [((7,), (3,)), ((6,), (4,)), ((4,), (6,)), ((5, 6), (2, 3)), ((2, 3), (5, 6)), ((4, 3, 3), (2, 2, 3))]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("first", "second"), SHAPES)
@pytest.mark.parametrize("name", ["convolve", "correlate", "fftconvolve"])
def test_convolution_of_any_rank_equals_scipys(name, first, second, mode):
    check_agrees(*both(name, mode=mode), array(first), array(second))


@pytest.mark.parametrize("dtype", ["f4", "c16", "i4", "i8"])
@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_both_methods_keep_dtypes(name, method, dtype):
    rtol = 1e-5 if dtype == "f4" else 1e-9
    check_agrees(*both(name, method=method), array((9,), dtype), array((4,), dtype), rtol=rtol)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("boundary", ["fill", "wrap", "symm"])
@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
def test_convolution_of_matrices_equals_scipys(name, boundary, mode):
    check_agrees(*both(name, mode=mode, boundary=boundary, fillvalue=2), array((5, 6)), array((2, 3)))
    check_agrees(*both(name, mode=mode, boundary=boundary), array((4, 4), "c16"), array((3, 2), "c16"))


def test_correlate2d_turns_the_result_where_the_second_matrix_is_larger():
    check_agrees(*both("correlate2d", mode="valid"), array((2, 3)), array((5, 6)))


def test_fftconvolve_over_some_axes_broadcasts_the_others():
    check_agrees(*both("fftconvolve", axes=1), array((3, 8)), array((1, 4)))


@pytest.mark.parametrize("name", ["convolve", "correlate", "fftconvolve", "convolve2d", "correlate2d"])
def test_gradients_of_convolutions(name):
    check_derivatives(functools.partial(getattr(signal, name), mode="same"), array((6, 5)), array((3, 2)))


def test_long_kernels_are_convolved_by_transforms():
    fun = functools.partial(signal.convolve, mode="same")
    long = str(fl.make_program(fun)(np.ones(4000), np.ones(3000)))
    short = str(fl.make_program(fun)(np.ones(4000), np.ones(9)))
    assert " fft[" in long and "conv_general" not in long
    assert "conv_general" in short and " fft[" not in short


def test_lengths_of_transforms_have_small_factors_only():
    for n in range(1, 700):
        assert convolution._fast_length(n) == scipy.fft.next_fast_len(n, True)


@pytest.mark.parametrize("options", [{}, {"axis": 0}, {"type": "constant"}, {"bp": [7, 20]}])
def test_detrend_equals_scipys(options):
    check_agrees(*both("detrend", **options), array((30, 31)))
    check_agrees(*both("detrend", **options), (10 * array((30, 31))).astype(int))
    check_derivatives(functools.partial(signal.detrend, **options), array((30, 31)))


CUTS = [
    {"nperseg": 16}, {"nperseg": 16, "noverlap": 12}, {"nperseg": 15, "noverlap": 14, "nfft": 20},
    {"nperseg": 17, "noverlap": 4}, {"nperseg": 20, "noverlap": 19, "window": ("kaiser", 3.0)},
]
STFT = [
    *CUTS, {"nperseg": None, "window": RNG.uniform(0.5, 1, 16)}, {"nperseg": 16, "scaling": "psd", "fs": 4.0},
    {"nperseg": 16, "padded": False, "boundary": None}, {"nperseg": 16, "return_onesided": False},
    {"nperseg": 16, "detrend": "linear"}, {"nperseg": 16, "boundary": "even"}, {"nperseg": 16, "boundary": "odd"},
    {"nperseg": 16, "boundary": "constant"}, {"nperseg": 16, "axis": 0},
]


@pytest.mark.parametrize("options", STFT, ids=str)
def test_stft_equals_scipys(options):
    shape = (50, 2) if options.get("axis") == 0 else (2, 50)
    check_agrees(*both("stft", **options), array(shape))
    check_agrees(*both("stft", **options), array(shape, "f4"), rtol=1e-5)


@pytest.mark.parametrize("options", CUTS, ids=str)
def test_istft_equals_scipys_and_gives_the_signal_back(options):
    x = array((2, 50))
    z = scipy.signal.stft(x, **options)[2]
    check_agrees(*both("istft", **options), z)
    check_agrees(*both("istft", time_axis=0, freq_axis=-1, **options), np.moveaxis(z, -1, 0).copy())
    back = fl.jit(lambda x: signal.istft(signal.stft(x, **options)[2], **options)[1])(x)
    np.testing.assert_allclose(back[..., :50], x, rtol=1e-9, atol=1e-9)


def test_istft_of_both_sides_is_complex():
    z = scipy.signal.stft(array((40,), "c16"), nperseg=8, return_onesided=False)[2]
    check_agrees(*both("istft", nperseg=8, input_onesided=False, scaling="psd", fs=2.0), z)


AVERAGED = [
    {"nperseg": 16}, {"nperseg": 17, "nfft": 20}, {"nperseg": 16, "scaling": "spectrum", "fs": 3.0},
    {"nperseg": 16, "average": "median"}, {"nperseg": 20, "average": "median"}, {"nperseg": 16, "detrend": "linear"},
    {"nperseg": 16, "detrend": False, "return_onesided": False}, {"window": RNG.uniform(0.5, 1, 16)},
]


@pytest.mark.parametrize("options", AVERAGED, ids=str)
def test_welch_and_csd_equal_scipys(options):
    check_agrees(*both("welch", **options), array((2, 60)))
    check_agrees(*both("welch", axis=0, **options), array((60, 2)))
    check_agrees(*both("csd", **options), array((2, 60)), array((2, 50)))


def test_complex_and_narrow_signals_keep_scipys_dtypes():
    check_agrees(*both("welch", nperseg=16), array((60,), "c16"))
    check_agrees(*both("welch", nperseg=16), array((60,), "f4"), rtol=1e-4)
    check_agrees(*both("csd", nperseg=16), array((60,), "c16"), array((60,), "c16"))


def test_gradients_of_spectra():
    x, window = array((40,)), RNG.uniform(0.5, 1, 8)
    check_derivatives(lambda x, w: signal.stft(x, window=w, nperseg=8)[2], x, window)
    check_derivatives(lambda x, w: signal.istft(signal.stft(x, nperseg=8)[2], window=w, nperseg=8)[1], x, window)
    check_derivatives(lambda x, w: signal.welch(x, window=w)[1], x, window)
    check_derivatives(lambda x, y: signal.csd(x, y, nperseg=8)[1], x, array((30,)))
    check_derivatives(lambda x: signal.stft(x, nperseg=20, noverlap=19, boundary="odd")[2], x)


def test_plain_arrays_go_to_scipy_itself(monkeypatch):
    monkeypatch.setattr(scipy.signal, "csd", lambda *args, **kwargs: "SciPy")
    dispatch.of_scipy.cache_clear()
    try:
        assert signal.csd(np.ones(4), np.ones(4)) == "SciPy"
    finally:
        dispatch.of_scipy.cache_clear()


@pytest.mark.parametrize(("message", "fun", "kind"), [
    ("with mode 'valid' one must fit", lambda x: signal.convolve(x[:2], x[:, :1], "valid"), errors.ShapeError),
    ("same number of axes", lambda x: signal.convolve(x, x[0]), errors.ShapeError),
    ("must not be empty", lambda x: signal.fftconvolve(x, x[:0]), errors.ShapeError),
    ("method must be", lambda x: signal.convolve(x, x, method="fast"), errors.ArgumentError),
    ("mode must be", lambda x: signal.correlate(x, x, mode="half"), errors.ArgumentError),
    ("expected two matrices", lambda x: signal.convolve2d(x[0], x[0]), errors.ShapeError),
    ("boundary must be", lambda x: signal.convolve2d(x, x, boundary="mirror"), errors.ArgumentError),
    ("type must be", lambda x: signal.detrend(x, type="square"), errors.ArgumentError),
    ("break points", lambda x: signal.detrend(x, bp=99), errors.ArgumentError),
    ("noverlap must be less", lambda x: signal.stft(x, nperseg=4, noverlap=4), errors.ArgumentError),
    ("nfft must be at least", lambda x: signal.welch(x, nperseg=4, nfft=3), errors.ArgumentError),
    ("expected a window", lambda x: signal.welch(x, window=np.ones(9)), errors.ShapeError),
    ("scaling must be", lambda x: signal.csd(x, x[:1], nperseg=4, scaling="power"), errors.ArgumentError),
    ("average must be", lambda x: signal.welch(x, nperseg=2, average="mode"), errors.ArgumentError),
    ("return_onesided=False", lambda x: signal.csd(x, x * 1j, nperseg=4), errors.ArgumentError),
    ("boundary must be", lambda x: signal.stft(x, nperseg=4, boundary="round"), errors.ArgumentError),
    ("a frequency and a time axis", lambda x: signal.istft(x[0]), errors.ShapeError),
    ("must be known while tracing", lambda x: signal.stft(x[0], nperseg=x[0, 0]), errors.ConcretizationError),
])
def test_a_mistake_is_named(message, fun, kind):
    with pytest.raises(kind, match=message):
        fl.jit(fun)(np.ones((4, 5)))


def test_what_scipy_warns_of_is_warned_of():
    x = array((40,))
    with pytest.warns(UserWarning, match="greater than the signal length"):
        fl.jit(lambda x: signal.welch(x)[1])(x)
    with pytest.warns(UserWarning, match="return_onesided=False"):
        fl.jit(lambda x: signal.stft(x * 1j, nperseg=8)[2])(x)
    z = scipy.signal.stft(x, nperseg=8, boundary=None)[2]
    with pytest.warns(UserWarning, match="NOLA"):
        fl.vmap(lambda z: signal.istft(z, nperseg=8, boundary=False)[1])(z[None])


def test_modules_load_when_first_used_and_scipys_when_called():
    code = (
        "import sys, functorch_lite as fl; fl.scipy; "
        "assert 'functorch_lite.scipy.signal' not in sys.modules; fl.scipy.signal; "
        "assert 'functorch_lite.scipy.signal' in sys.modules and 'scipy.signal' not in sys.modules; "
        "assert {'fft', 'signal'} <= set(dir(fl.scipy))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")

# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.signal`: convolution, correlation and spectra with SciPy's signatures.

Plain arrays go to SciPy itself. All take traced and CuPy's arrays and have derivatives to any order; what decides about
shapes (mode, nperseg, nfft, ...) must be known while tracing.
"""

from functorch_lite.scipy.convolution import convolve as convolve
from functorch_lite.scipy.convolution import convolve2d as convolve2d
from functorch_lite.scipy.convolution import correlate as correlate
from functorch_lite.scipy.convolution import correlate2d as correlate2d
from functorch_lite.scipy.convolution import fftconvolve as fftconvolve
from functorch_lite.scipy.spectral import csd as csd
from functorch_lite.scipy.spectral import detrend as detrend
from functorch_lite.scipy.spectral import istft as istft
from functorch_lite.scipy.spectral import stft as stft
from functorch_lite.scipy.spectral import welch as welch

# SPDX-License-Identifier: MIT
"""Records of the discrete Fourier transforms, against NumPy's."""

import numpy as np

from functorch_lite.primitives.fft import fft
from tests.records.op_record import OpRecord, calls, complex_normal, normal


def record(name, kind, lengths, make, reference, dtype):
    """A record of one transform."""
    return OpRecord(f"fft_{name}", lambda x: fft(x, kind, lengths), calls(make), reference, (dtype,))


RECORDS = [
    record("fft", "fft", (5,), lambda rng: (complex_normal(rng, 2, 5),), np.fft.fft, "complex64"),
    record("ifft", "ifft", (4,), lambda rng: (complex_normal(rng, 4),), np.fft.ifft, "complex64"),
    record("fft2", "fft", (3, 4), lambda rng: (complex_normal(rng, 2, 3, 4),), np.fft.fft2, "complex64"),
    record("rfft_even", "rfft", (6,), lambda rng: (normal(rng, 2, 6),), np.fft.rfft, "float32"),
    record("rfft_odd", "rfft", (5,), lambda rng: (normal(rng, 5),), np.fft.rfft, "float32"),
    record("rfft2", "rfft", (3, 4), lambda rng: (normal(rng, 3, 4),), np.fft.rfft2, "float32"),
    record("irfft_even", "irfft", (6,), lambda rng: (complex_normal(rng, 2, 4),),
           lambda x: np.fft.irfft(x, 6), "complex64"),
    record("irfft_odd", "irfft", (5,), lambda rng: (complex_normal(rng, 3),),
           lambda x: np.fft.irfft(x, 5), "complex64"),
    record("irfft2", "irfft", (3, 4), lambda rng: (complex_normal(rng, 3, 3),),
           lambda x: np.fft.irfft2(x, (3, 4)), "complex64"),
    record("fft_of_length_one", "irfft", (1,), lambda rng: (complex_normal(rng, 2, 1),),
           lambda x: np.fft.irfft(x, 1), "complex64"),
]

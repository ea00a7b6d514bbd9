# SPDX-License-Identifier: MIT
"""functorch_lite: grad, vmap and jit for the NumPy and CuPy arrays you already have."""

from functorch_lite.config import config as config

__version__ = "0.1.0"

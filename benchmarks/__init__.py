# SPDX-License-Identifier: MIT
"""Side-by-side measurements: the same work with functorch_lite, NumPy, JAX and PyTorch, in one run."""

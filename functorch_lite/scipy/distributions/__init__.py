# SPDX-License-Identifier: MIT
"""The distributions of `functorch_lite.scipy.stats`, by family."""

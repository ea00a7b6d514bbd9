# SPDX-License-Identifier: MIT
"""SciPy's `special`, `linalg` and `stats` functions that have derivatives, on plain, CuPy's and traced arrays."""

from functorch_lite.scipy import linalg as linalg
from functorch_lite.scipy import special as special
from functorch_lite.scipy import stats as stats

# SPDX-License-Identifier: MIT
"""Which equations become one kernel, and in which order kernels run."""

# SPDX-License-Identifier: MIT
"""Composable transforms of pure functions: jvp, linearize, grad, vmap, jit, checkpoint, custom rules."""

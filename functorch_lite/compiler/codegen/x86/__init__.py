# SPDX-License-Identifier: MIT
"""Machine code of x86-64 with AVX-512 for short modules, made without LLVM."""

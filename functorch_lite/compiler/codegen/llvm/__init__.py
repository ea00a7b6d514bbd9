# SPDX-License-Identifier: MIT
"""Loop IR to LLVM IR text."""

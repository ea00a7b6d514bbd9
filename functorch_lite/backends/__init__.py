# SPDX-License-Identifier: MIT
"""What an array is, per library: the array module for a value, found by its type."""

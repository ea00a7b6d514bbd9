# SPDX-License-Identifier: MIT
"""Where values live: lifetimes, and offsets in one arena."""

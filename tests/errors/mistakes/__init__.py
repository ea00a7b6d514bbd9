# SPDX-License-Identifier: MIT
"""Mistakes that users make, one a function; a name with an underscore is a helper."""

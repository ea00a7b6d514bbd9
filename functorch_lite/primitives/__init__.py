# SPDX-License-Identifier: MIT
"""The primitives, one family a file. Importing the package files every rule in the tables of `core.rules`."""

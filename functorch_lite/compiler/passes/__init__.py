# SPDX-License-Identifier: MIT
"""Passes: pure functions from Program to Program."""

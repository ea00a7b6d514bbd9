# SPDX-License-Identifier: MIT
"""Trust in compiled programs: comparing them with the evaluator, and files that show where they differ."""

# SPDX-License-Identifier: MIT
"""The tracing core, to be read in this order:

dtypes, aval, primitive, rules, tracer, linear, program, staging, evaluate, check.
"""

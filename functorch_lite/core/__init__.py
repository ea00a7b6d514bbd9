# SPDX-License-Identifier: MIT
"""The tracing core. Read in this order: dtypes, aval, primitive, rules, tracer, program, staging, evaluate, check, pretty."""

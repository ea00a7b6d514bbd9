# SPDX-License-Identifier: MIT
"""`python -m benchmarks [name ...]`: run all benchmarks, or those named."""

import sys

from benchmarks import eager, imports, random_numbers, tracing

ALL = {"imports": imports.main, "eager": eager.main, "tracing": tracing.main, "random": random_numbers.main}

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        print(f"\n== {name} ==")
        ALL[name]()

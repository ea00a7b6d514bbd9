# SPDX-License-Identifier: MIT
"""`python -m benchmarks [name ...] [options of compiled]`: run all benchmarks, or those named."""

import sys

from benchmarks import compiled, eager, imports, random_numbers, tracing

ALL = {"imports": imports.main, "eager": eager.main, "tracing": tracing.main, "random": random_numbers.main,
       "compiled": compiled.main}


def run(argv: list[str]) -> int:
    """Run those named before the first option; the options go to `compiled`. Returns the number of failures."""
    n_names = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    failures = 0
    for name in argv[:n_names] or ALL:
        print(f"\n== {name} ==")
        failures += (ALL[name](argv[n_names:]) if name == "compiled" else ALL[name]()) or 0
    return failures


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]) > 0)

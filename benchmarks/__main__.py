# SPDX-License-Identifier: MIT
"""`python -m benchmarks [name ...] [options of the first that takes some]`: run all benchmarks, or those named."""

import sys

from benchmarks import (
    compiled,
    depth,
    donation,
    eager,
    imports,
    loader,
    optimizers,
    random_numbers,
    roofline,
    tracing,
    trainers,
    training_loop,
)

ALL = {
    "imports": imports.main, "eager": eager.main, "tracing": tracing.main, "random": random_numbers.main,
    "compiled": compiled.main, "depth": depth.main, "donation": donation.main,
    "loader": loader.main, "optimizers": optimizers.main,
    "loop": training_loop.main, "roofline": roofline.main, "trainers": trainers.main,
}  # fmt: skip
# Options of a run of everything are those of the first.
WITH_OPTIONS = ("compiled", "depth", "optimizers", "roofline", "trainers")


def run(argv: list[str]) -> int:
    """Run those named before the first option; WITH_OPTIONS get the options. Returns the number of failures."""
    n_names = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    named, options = argv[:n_names], argv[n_names:]
    takers = WITH_OPTIONS if named else WITH_OPTIONS[:1]
    failures = 0
    for name in named or ALL:
        print(f"\n== {name} ==")
        failures += (ALL[name](options) if name in takers else ALL[name]()) or 0
    return failures


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]) > 0)

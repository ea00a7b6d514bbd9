# SPDX-License-Identifier: MIT
"""Import time in fresh processes, best of several: NumPy alone, functorch_lite, and the peers where installed."""

import importlib.util
import subprocess
import sys

_TIMER = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module: str, runs: int = 7) -> float:
    """Seconds of `import module` in a fresh process, the best of `runs`."""
    command = [sys.executable, "-c", _TIMER.format(module)]
    return min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(runs))


def main() -> None:
    """Print a line for each module."""
    for module in ("numpy", "functorch_lite", "jax", "torch"):
        if importlib.util.find_spec(module) is not None:
            print(f"  import {module:<16} {seconds(module):.3f} s")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""From a program to something that runs: `compile(program, device) -> Executable`."""

from functorch_lite.compiler.pipeline import Executable as Executable
from functorch_lite.compiler.pipeline import compile as compile

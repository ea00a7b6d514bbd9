# SPDX-License-Identifier: MIT
"""What compiled programs need at run time; `runtime.engine`, which imports LLVM, is loaded when first used."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from functorch_lite.compiler.runtime import engine as engine


def __getattr__(name: str):
    if name == "engine":
        return importlib.import_module(f"{__name__}.engine")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

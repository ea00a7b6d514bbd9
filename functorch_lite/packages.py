# SPDX-License-Identifier: MIT
"""Optional packages, loaded when something needs them."""

import importlib
from types import ModuleType

from functorch_lite.errors import MissingPackageError


def need(module: str, *, by: str, install: str) -> ModuleType:
    """The optional `module`, imported; `by` is what needs it, and `install` what pip calls its package.

    Raises MissingPackageError, with the line for pip, when it is not installed.

    >>> need("math", by="this example", install="math").sqrt(9)
    3.0
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is None or e.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingPackageError(f"{by} needs {e.name}, which is not installed: pip install {install}") from e

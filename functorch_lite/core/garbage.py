# SPDX-License-Identifier: MIT
"""Garbage collection while a program is traced and compiled: none, since what is made then stays."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """A block without automatic garbage collection: looking through all objects again and again takes a sixth of the
    time of compiling a large program. Objects without cycles go as always."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

# SPDX-License-Identifier: MIT
"""The native call of a jitted function: while nothing around it is special, no Python runs between call and program.

A builtin answers calls of one signature in the plain state of the library: no trace, default settings of this thread,
NumPy's device, no donated array alive. Every other call, and every miss, goes to Python.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite.backends.registry import home
from functorch_lite.config import config, native_guard, settings_variable
from functorch_lite.core.tracer import root, surroundings, trace_variable

RELEASE_ABOVE = 1 << 14  # elements moved or operations: about 2 us, when releasing the GIL is worth its cost


def native_call(
    executable: Any, captured: Sequence[Any], treedef: Any, types: Sequence[Any], static: Sequence[Any],
    out_tree: Any, out_types: Sequence[Any], slow: Callable[..., Any], donated: Sequence[int] = (),
    mark: Callable[..., Any] | None = None,
) -> Callable[..., Any] | None:
    """A builtin for one signature, or None where calls of it must go through Python.

    donated: the numbers of the leaves that a call gives away; mark: see `call_path.CallSpec`.
    """
    if not getattr(executable, "is_native", False) or settings_variable.get() is not None:
        return None
    if config.check_key_reuse or config.check_purity:
        return None
    call_path = _call_path()
    arrays = [i for i in donated if types[i][0]]
    n = len(captured)
    takes = {k: i - n for k, i in executable.donations.items() if i - n in arrays} if arrays else {}
    spec = call_path.CallSpec(
        in_tree=treedef, in_types=types, captured=captured, out_tree=out_tree, out_types=out_types,
        entry=executable.entry, slow=slow, failure=executable.fail, arena_bytes=executable.arena_bytes,
        context=executable.context, release_gil=executable.work > RELEASE_ABOVE, static=static,
        contexts=((trace_variable, root), (settings_variable, None), (surroundings, None), (home, home.get())),
        allowed=native_guard(), donated=arrays, takes=takes, mark=mark, keep=executable,
    )
    return call_path.native_call(spec)


def calls_of(builtin: Any) -> int:
    """How many calls a builtin has answered without Python."""
    return _call_path().calls_of(builtin)


def _call_path() -> Any:
    return importlib.import_module("functorch_lite.compiler.runtime.call_path")

# SPDX-License-Identifier: MIT
"""Settings: one object, `config`, read everywhere and changed for a block or for good.

    with config(strong_zero=False): ...     # for this block, in this thread or task
    config.update(default_float="float64")  # from now on

No other module reads an environment variable.
"""

import ctypes
import difflib
import operator
import os
import sys
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functorch_lite import blas_threads
from functorch_lite.errors import ArgumentTypeError


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def platform_cache_folder() -> Path:
    """Where this platform keeps what a program can make or fetch again, and in it the folder of this package.

    Raises RuntimeError when there is no home folder.
    """
    platform = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    return Path.home() / platform / "functorch_lite"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings and their defaults.

    default_float: dtype name of created arrays and random numbers when none is asked for.
    strong_zero: in derivatives, zero times infinity or NaN is zero (SEMANTICS decision 1).
    conjugate_grad: `grad` of a real function of complex arguments returns torch's conjugate convention.
    promotion: "numpy" or "strict" (an implicit promotion to float64 is an error).
    check_purity: `jit` traces twice and warns when the two programs differ.
    check_key_reuse: a random key used twice, compiled or not, is an error that names both lines; a `with` block
        begins with all keys unused.
    num_threads: threads a compiled program may use (default: the cores given to this process). Any number gives the
        same bits, but for what NumPy's and SciPy's library of linear algebra computes with threads of its own.
    deterministic: the same bits for any number of threads, everywhere: while it is set, that library, if it is
        OpenBLAS on Linux (as in the wheels), uses one thread, in the whole process. Elsewhere it is as it was; there
        `OMP_NUM_THREADS=1`, or what the library has for it, does the same. On one machine and one set of versions.
    autotune: the first call of a compiled program runs it by a few choices of code generation (which loops threads
        share, which outputs are written past the caches, how products and convolutions are cut), each some times, and
        keeps the fastest, also for later processes. The bits are the same. Without it, a program gets the same code
        each time. `jit(f, autotune=True)` asks for it for one function.
    data_dir: folder of downloaded data sets; None means the platform's cache folder.
    cache_dir: folder of compiled code; None means the platform's cache folder, "" none at all.

    used_keys is no setting: the keys used since `check_key_reuse` was set, and where.
    """

    default_float: str = "float32"
    strong_zero: bool = True
    conjugate_grad: bool = False
    promotion: str = "numpy"
    check_purity: bool = False
    check_key_reuse: bool = False
    num_threads: int = 1
    deterministic: bool = False
    autotune: bool = False
    data_dir: str | None = None
    cache_dir: str | None = None
    used_keys: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)


_base = Settings(
    num_threads=_cores(),
    data_dir=os.environ.get("FUNCTORCH_LITE_DATA") or None,
    cache_dir=os.environ.get("FUNCTORCH_LITE_CACHE_DIR"),
)
_current: ContextVar[Settings | None] = ContextVar("functorch_lite_settings", default=None)
settings_variable = _current  # None: the settings of the whole process are in force
_guard = ctypes.c_int64(0)
_version = 0
_names = frozenset(f.name for f in fields(Settings) if f.compare)


def _checked(changes: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(changes) - _names)
    if unknown:
        close = difflib.get_close_matches(unknown[0], _names, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ArgumentTypeError(
            f"config: unknown setting {unknown[0]!r}; the settings are {', '.join(sorted(_names))}.{hint}"
        )
    return changes


def _changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    fresh = {"used_keys": {}} if "check_key_reuse" in changes else {}
    return replace(settings, **_checked(changes), **fresh)


class Config:
    """The settings in force; attributes read them, a call changes them for a `with` block."""

    __slots__ = ("_base",)

    def __init__(self, base: Settings):
        self._base = base

    @property
    def settings(self) -> Settings:
        """The whole record in force (hashable, so it can be part of a cache key)."""
        return _current.get() or self._base

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @contextmanager
    def __call__(self, **changes: Any):
        token = _current.set(_changed(self.settings, changes))
        try:
            with blas_threads.one_thread() if changes.get("deterministic") else nullcontext():
                yield self
        finally:
            _current.reset(token)

    def update(self, **changes: Any) -> None:
        """Change settings for the whole process."""
        global _version
        was_deterministic = self._base.deterministic
        self._base = _changed(self._base, changes)
        if self._base.deterministic != was_deterministic:
            (blas_threads.release if was_deterministic else blas_threads.hold)()
        _version += 1
        _guard.value = _version

    def __repr__(self):
        return repr(self.settings).replace("Settings", "config", 1)


def _reader(name: str) -> property:
    read = operator.attrgetter(name)
    return property(lambda self: read(_current.get() or self._base))


for _name in _names:
    setattr(Config, _name, _reader(_name))

config = Config(_base)


def native_guard() -> tuple[int, int]:
    """The address of a word that native calls compare, and its present value: it differs when settings were updated."""
    return ctypes.addressof(_guard), _version


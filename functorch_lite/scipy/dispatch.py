# SPDX-License-Identifier: MIT
"""Between SciPy's functions and ours: plain arrays go to SciPy itself, traced ones and CuPy's to what is written here.

SciPy's modules are imported when a function of theirs is first called: scipy.signal alone takes most of a second.
"""

import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any

from functorch_lite.backends.registry import on_device
from functorch_lite.errors import ConcretizationError
from functorch_lite.numpy.dispatch import is_eager_call
from functorch_lite.numpy.promotion import has_tracer
from functorch_lite.transforms.arguments import on_its_device


@functools.cache
def of_scipy(path: str) -> Callable[..., Any]:
    """What stands at `path`, such as "scipy.signal.convolve"."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def is_of_scipy(args: Iterable[Any], kwargs: dict[str, Any]) -> bool:
    """Whether SciPy itself is to compute a function of these arguments."""
    return is_eager_call(args, kwargs) and not any(on_device(v) for v in (*args, *kwargs.values()))


def public(path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the function that calls SciPy's at `path` on plain arrays and the body on traced and CuPy's ones."""

    def decorate(body):
        composed = on_its_device(body)

        @functools.wraps(body)
        def function(*args: Any, **kwargs: Any) -> Any:
            if is_of_scipy(args, kwargs):
                return of_scipy(path)(*args, **kwargs)
            return composed(*args, **kwargs)

        return function

    return decorate


def check_known(function: str, **settings: Any) -> None:
    """Refuse a traced setting (or a list with one): the result's shape, or what is computed, depends on it."""
    for name, value in settings.items():
        if has_tracer(value):
            raise ConcretizationError(
                f"{function}: `{name}` must be known while tracing, for shapes and what is computed depend on it; got "
                f"a traced value. Give a Python value, under jit by static_argnames={name!r}."
            )

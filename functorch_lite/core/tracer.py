# SPDX-License-Identifier: MIT
"""Traces and tracers: the interpreter that is running, and the values it has boxed.

There is one current trace, in a context variable; each trace remembers its parent. A *tag* names one run of one
transform, and each tracer carries the tag of the run that made it: a trace unboxes its own tracers and hands every
other value to its parent, so perturbation confusion cannot happen. At the root, `EvalTrace` computes with NumPy or
CuPy.

    bind1(sin_p, x)  ->  current trace .process(sin_p, (x,), {})  ->  rule of that trace  ->  parent ...  ->  numpy.sin

Source: the stackless design of JAX's autodidax2 (D. Maclaurin, R. Frostig and others).
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy
from numpy import float32, float64, ndarray

from functorch_lite.backends.registry import home, is_scalar, module_of_arrays
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import eval_rules
from functorch_lite.errors import FunctorchLiteError, LeakedTracerError, add_place, user_source

Arguments = tuple[Sequence[Any], Callable[[], list[str]]]


class Tag:
    """One run of one transform: what errors need to know, and an identity to compare.

    arguments: while the function runs, the tracers of its arguments and a function that gives their paths.
    """

    __slots__ = ("transform", "name", "alive", "arguments")

    def __init__(self, transform: str, name: str = "", arguments: Arguments | None = None):
        self.transform = transform
        self.name = name
        self.alive = True
        self.arguments = arguments

    def end(self) -> None:
        """The function has returned."""
        self.alive = False
        self.arguments = None  # it holds the tracers, which hold the tag

    def __repr__(self):
        return f"{self.transform}({self.name})" if self.name else self.transform


class Tracer:
    """A traced array. Behaves as an immutable NumPy array (the numpy layer installs operators and methods).

    weak: it stands for a Python scalar, so it takes the dtype of what it meets.
    """

    __slots__ = ("tag", "weak", "__weakref__")
    __hash__ = object.__hash__

    tag: Tag
    weak: bool

    def __init_subclass__(cls) -> None:
        cls.__name__ = "traced array"  # in Python's own messages: 'traced array' object has no attribute 'cuda'

    @property
    def aval(self) -> Aval:
        """Its shape and dtype."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.aval.shape

    @property
    def dtype(self):
        """The dtype of the elements."""
        return self.aval.dtype

    def concrete(self) -> Any:
        """The value behind the tracer, where there is one; else None."""
        return None


class Trace:
    """A running interpreter. `process` gives a primitive's result in this interpretation.

    composites: in an eager gradient, the functions of arrays that are planned as a whole (`transforms.composites`).
    """

    __slots__ = ("tag", "parent")

    tag: Tag
    parent: "Trace"
    composites: Any = None

    def process(self, prim: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """The result of a primitive: a value, or a list of values where it has several."""
        raise NotImplementedError


class EvalTrace(Trace):
    """The root: computes on arrays, with the NumPy or CuPy rule of the primitive."""

    __slots__ = ()

    def __init__(self):
        self.tag = Tag("eval")
        self.parent = self

    def process(self, prim, args, params):
        """The primitive's result on arrays; an error gets the primitive and the user's line."""
        try:
            for a in args:
                if type(a) is not ndarray and type(a) is not float32 and type(a) is not float64:
                    return self._by_module(prim, args, params)
            if home.get() is not numpy:
                return self._by_module(prim, args, params)
            if prim.ufunc is not None:
                return prim.ufunc(*args)
            return eval_rules[prim](numpy, *args, **params)
        except FunctorchLiteError:
            raise
        except Exception as error:
            add_place(error, prim.name, user_source())
            raise

    def _by_module(self, prim, args, params):
        xp = module_of_arrays(args, raise_leak)
        rule = eval_rules[prim] if xp is numpy else rule_on_device(prim)
        return rule(xp, *args, **params)


@functools.cache
def rule_on_device(prim: Primitive) -> Callable[..., Any]:
    """The eval rule where a scalar operand is made an array first: methods of NumPy's scalars give NumPy arrays."""
    rule = eval_rules[prim]
    if prim.kind in (Kind.ELEMENTWISE, Kind.HIGHER_ORDER):
        return rule

    def on_arrays(xp, *args, **params):
        return rule(xp, *[xp.asarray(a) if is_scalar(a) else a for a in args], **params)

    return on_arrays


def argument_path(value: Any) -> str | None:
    """`params['w']` for a tracer that is an argument of the function being transformed, else None."""
    arguments = value.tag.arguments if isinstance(value, Tracer) else None
    if arguments is None:
        return None
    tracers, paths = arguments
    return next((paths()[i] for i, t in enumerate(tracers) if t is value), None)


def raise_leak(value: Any) -> None:
    """Refuse a tracer whose transform has ended."""
    if isinstance(value, Tracer):
        raise LeakedTracerError(
            f"a traced value {value.aval} of `{value.tag!r}` is used after that transform ended. "
            "It was kept outside the function (a global, a list, an attribute): return it from the function instead."
        )


root = EvalTrace()
_current: ContextVar[Trace] = ContextVar("functorch_lite_trace", default=root)
current_trace = _current.get
trace_variable = _current
surroundings: ContextVar[Any] = ContextVar("functorch_lite_surroundings", default=None)
"""What a function may depend on besides its arguments (a forward pass of `nn.apply`), or None. A program traced while
this is set is not kept for another call."""


def bind(prim: Primitive, *args: Any, **params: Any) -> Any:
    """Apply `prim` in the current trace: an array, or a list of arrays if the primitive has multiple results."""
    return _current.get().process(prim, args, params)


bind1 = bind
set_trace = _current.set
reset_trace = _current.reset


@contextmanager
def tracing(trace: Trace):
    """Make `trace` the current one for a block."""
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def is_eager() -> bool:
    """Whether operations on arrays run at once (no staging is going on)."""
    return _current.get() is root

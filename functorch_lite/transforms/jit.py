# SPDX-License-Identifier: MIT
"""jit: stage a function once for each signature, compile the program, run that from then on.

A signature is the structure of the arguments, the shape and dtype of each leaf, and the values of static arguments.
Compiled programs are kept in a bounded cache of each jitted function; `cache_info()` tells why each was made.
"""

import functools
import inspect
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import CellType
from typing import Any, NamedTuple

from functorch_lite import tree
from functorch_lite.backends.registry import enter_home, home, leave_home
from functorch_lite.compiler import compile as compile_program
from functorch_lite.config import config
from functorch_lite.core.aval import Aval
from functorch_lite.core.garbage import uncollected
from functorch_lite.core.program import Program, program_text
from functorch_lite.core.staging import stage, staging_trace
from functorch_lite.core.tracer import Tracer, bind, is_eager, surroundings
from functorch_lite.errors import (
    ArgumentError,
    ArgumentTypeError,
    PurityWarning,
    RetraceWarning,
    Source,
    user_source,
)
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.transforms import donation
from functorch_lite.transforms import jit_rules as jit_rules
from functorch_lite.transforms.arguments import (
    FlatFunction,
    ShapeDtype,
    argument_names,
    canonical_leaves,
    check_callable,
    check_outputs,
    is_weak,
    leaf_paths,
    leaf_types,
    name_of,
    quiet,
    weakened,
)
from functorch_lite.transforms.native_calls import calls_of, native_call
from functorch_lite.transforms.repeated import axis_sizes
from functorch_lite.transforms.stages import Lowered, Traced

CACHE_SIZE = 256
WRAPPED_ANEW = 20
NATIVE_CHAIN = 4  # signatures of one function that native code tries in turn
_FUNCTION_ID = re.compile(r"@[0-9a-f]+")


class CacheEntry(NamedTuple):
    """One compiled signature: its leaf types, why it was traced, and what `autotune` chose for it."""

    signature: str
    reason: str
    source: str
    choices: str = "as usual"


class CacheInfo(NamedTuple):
    """Counts of calls that found a program and that did not, and the programs kept, oldest first."""

    hits: int
    misses: int
    maxsize: int
    entries: list[CacheEntry]


class _Compiled(NamedTuple):
    program: Program
    captured: list[Any]
    donated: list[int]
    out_tree: Any
    out_weak: list[bool]
    executable: Callable[..., list[Any]] | None
    types: Sequence[Any]
    reason: str
    source: Source | None

    @property
    def entry(self) -> CacheEntry:
        choices = str(getattr(self.executable, "choices", "as usual"))
        return CacheEntry(f"({', '.join(map(_type_text, self.types))})", self.reason, str(self.source), choices)


class Jitted:
    """A function that `jit` made: call it like the function it wraps."""

    def __init__(self, fun: Callable[..., Any], static_argnums, static_argnames, donate_argnums, donate_argnames,
                 max_traces: int | None, donate: str = "may", mode: str = "plain", autotune: bool | None = None):
        functools.update_wrapper(self, fun)
        self._fun = fun
        self._static_argnums, self._static_argnames = _resolve(fun, static_argnums, static_argnames, "static")
        self._donate_argnums, self._donate_argnames = _resolve(fun, donate_argnums, donate_argnames, "donate")
        self._max_traces = max_traces
        self._donates = bool(self._donate_argnums or self._donate_argnames)
        self._mode = mode
        self._autotune = autotune
        self._must_donate = _checked_donate(donate) == "must"
        self.clear_cache()

    # --- calling ----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        held = donation.HELD if type(self) is Jitted else donation.HELD_BY_METHOD
        dynamic, static = self._split(args, kwargs)
        leaves, treedef = tree.flatten(dynamic)
        compiled, values = self._find(leaves, treedef, static, args, kwargs)
        given_up: list[int] = []
        paths = functools.partial(self._paths, args, kwargs)
        donation.check_unused(self._fun, leaves, paths)
        if self._donates:
            donation.check_apart(self._fun, leaves, compiled.donated, paths)
            given_up = donation.given_up(leaves, values, compiled.donated, args, held) if is_eager() else []
        if compiled.executable is not None and is_eager():
            with quiet():
                outs = self._run(compiled, values, given_up)
        else:
            outs = bind(jit_p, *compiled.captured, *values, program=compiled.program)
        if self._donates:
            donation.remember(self._fun, [leaves[i] for i in compiled.donated])
        return tree.unflatten(compiled.out_tree, weakened(outs, compiled.out_weak))

    def _run(self, compiled: _Compiled, values, given_up: list[int]) -> list[Any]:
        n = len(compiled.captured)
        if self._must_donate:
            donation.check_reuse(self._fun, compiled.executable, compiled.donated, given_up, n)
        run = getattr(compiled.executable, "donating", None) if given_up or self._must_donate else None
        if run is None or compiled.executable is None:
            assert compiled.executable is not None
            return compiled.executable(*compiled.captured, *values)
        return run((*compiled.captured, *values), [n + i for i in given_up])

    _call = __call__  # where `__call__` is a builtin, what it falls back on

    def __get__(self, instance, owner=None):
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self):
        return jit_again, (self._fun, self._static_argnums, self._static_argnames, self._donate_argnums,
                           self._donate_argnames, self._max_traces, "must" if self._must_donate else "may", self._mode,
                           self._autotune)

    # --- looking at it ----------------------------------------------------------------------------------------------

    def cache_info(self) -> CacheInfo:
        """Hits, misses, and for each program kept its signature and the reason of its trace."""
        hits = self._hits + sum(calls_of(b) for b in self._builtins)
        return CacheInfo(hits, self._misses, CACHE_SIZE, [c.entry for c in self._cache.values()])

    def clear_cache(self) -> None:
        """Forget every compiled program."""
        self._cache: OrderedDict[Any, _Compiled] = OrderedDict()
        self._builtins: list[Any] = []
        self._answered: dict[Any, int] = {}
        self._hits = self._misses = 0
        if type(self) is not Jitted:
            self.__class__ = Jitted

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The function traced for these arguments (arrays, or anything with shape and dtype), ready to be looked at
        and compiled. Nothing is kept in the cache of calls.

        >>> jit(lambda x: x + 1).lower(np.zeros(3)).cost_analysis().flops
        3
        """
        dynamic, static = self._split(args, kwargs)
        leaves, treedef = tree.flatten(dynamic)
        if not all([hasattr(x, "strides") for x in leaves]):  # a ShapeDtype, which is a tuple, was taken apart
            leaves, treedef = tree.flatten(dynamic, is_leaf=lambda x: isinstance(x, ShapeDtype))
        paths = functools.partial(self._paths, args, kwargs)
        types = leaf_types("lower", self._fun, leaves, paths)
        with uncollected():
            flat_fun, staged, out_weak = self._stage(types, treedef, static, args, paths)

        def flatten(given, named):
            flat, structure = tree.flatten(self._split(given, named)[0])
            return canonical_leaves("jit", self._fun, flat, functools.partial(self._paths, given, named))[0], structure

        return Lowered(Traced(staged.program, staged.captured, treedef, flat_fun.out_tree, flatten,
                              lambda outs: weakened(outs, out_weak), self._autotune))

    def memory(self, *args: Any, **kwargs: Any) -> Any:
        """The bytes that a call with these arguments will need at its peak, and what they are for; nothing is run.

        >>> jit(lambda x: x + 1).memory(np.zeros(100)).peak
        1600
        """
        return self.lower(*args, **kwargs).memory_analysis(jitted=True)

    def profile(self) -> Any:
        """Of the signature called last: seconds, operations and bytes by kernel and by line, the mean of its calls.

        Raises ArgumentError unless the function was made with profile=True and called.
        """
        found = next(reversed(self._cache.values())).executable if self._cache else None
        if self._mode != "profile" or not hasattr(found, "profile"):
            raise ArgumentError(
                f"profile: there is nothing counted for {name_of(self._fun)}. "
                "Make it with jit(f, profile=True) and call it on NumPy arrays first."
            )
        return found.profile()  # type: ignore[union-attr]

    # --- signatures -------------------------------------------------------------------------------------------------

    def _split(self, args, kwargs):
        """Dynamic arguments (static positions become None) and the static values."""
        if not self._static_argnums and not self._static_argnames:
            return (args, kwargs), ()
        dynamic = list(args)
        static = []
        for i in self._static_argnums:
            if i < len(args):
                static.append((i, _hashable(self._fun, argument_names(self._fun, len(args))[i], args[i])))
                dynamic[i] = None
        named = {k: v for k, v in kwargs.items() if k not in self._static_argnames}
        static += [(k, _hashable(self._fun, k, kwargs[k])) for k in self._static_argnames if k in kwargs]
        return (tuple(dynamic), named), tuple(static)

    def _find(self, leaves, treedef, static, args, kwargs):
        paths = functools.partial(self._paths, args, kwargs)
        values, weak = canonical_leaves("jit", self._fun, leaves, paths)
        token = enter_home(values)
        try:
            return self._found_or_made(values, weak, treedef, static, args, kwargs, paths), values
        finally:
            leave_home(token)

    def _found_or_made(self, values, weak, treedef, static, args, kwargs, paths) -> _Compiled:
        types = tuple([(v.shape, v.dtype, w) for v, w in zip(values, weak, strict=True)])
        key = (treedef, types, static, config.settings, axis_sizes(), home.get())
        found = self._cache.get(key) if surroundings.get() is None else None
        if found is not None:
            self._hits += 1
            self._cache.move_to_end(key)
            if self._mode == "plain" and is_eager():
                self._answer_natively(key, found)
            return found
        self._misses += 1
        if self._misses == 1:
            _warn_if_wrapped_anew(self._fun)
        with uncollected():
            compiled = self._trace(types, treedef, static, args, kwargs, self._reason(key, paths))
        if surroundings.get() is None and not any(isinstance(c, Tracer) for c in compiled.captured):
            self._cache[key] = compiled
            if len(self._cache) > CACHE_SIZE:
                self._answered.pop(self._cache.popitem(last=False)[0], None)
        return compiled

    def _answer_natively(self, key, compiled: _Compiled) -> None:
        """Let a builtin answer calls of this signature: it becomes `__call__` of a class for this function alone.

        A signature's second call is where this begins: many functions are called once.
        """
        times = self._answered.get(key, 0)
        if times == NATIVE_CHAIN:  # it keeps coming back: more signatures take turns than are answered natively
            return
        self._answered[key] = times + 1
        treedef, types, static, *_ = key
        outs = [(a.shape, a.dtype, w) for a, w in zip(compiled.program.out_avals, compiled.out_weak, strict=True)]
        if len(self._builtins) == NATIVE_CHAIN:
            self._hits += sum(calls_of(b) for b in self._builtins)
            self._builtins.clear()
        slow = self._builtins[-1] if self._builtins else self._call
        executable, captured, out_tree = compiled.executable, compiled.captured, compiled.out_tree
        mark = functools.partial(donation.Mark, self._fun) if compiled.donated else None
        found = native_call(executable, captured, treedef, types, static, out_tree, outs, slow, compiled.donated, mark)
        if found is None:
            return
        if type(self) is Jitted:
            self.__class__ = type("Jitted", (Jitted,), {})
        self._builtins.append(found)
        type(self).__call__ = found  # type: ignore[method-assign]

    def _paths(self, args, kwargs):
        (dynamic, named), _ = self._split(args, kwargs)
        return leaf_paths(self._fun, dynamic, named)

    def _reason(self, key, paths) -> str:
        if not self._cache:
            return "first call"
        treedef, types, static, settings, axes, _ = key
        last = next(reversed(self._cache))
        if last[0] != treedef:
            reason = "the structure of the arguments differs"
        elif last[2] != static:
            reason = f"a static argument differs: {dict(static)} after {dict(last[2])}"
        elif last[1] != types:
            changed = [i for i, (a, b) in enumerate(zip(types, last[1], strict=True)) if a != b]
            names, was = paths(), last[1]
            reason = ", ".join(f"`{names[i]}`: {_type_text(types[i])} after {_type_text(was[i])}" for i in changed[:3])
        elif last[3] != settings:
            reason = "the settings in `config` differ"
        elif last[4] != axes:
            reason = "the axis names around the call differ"
        else:
            reason = "the arguments live on another device"
        if self._max_traces is not None and self._misses > self._max_traces:
            raise ArgumentError(
                f"jit: {name_of(self._fun)} is traced {self._misses} times, max_traces is {self._max_traces}: "
                f"{reason}. Keep shapes and dtypes the same (pad), or pass a changing static argument as an array."
            )
        return reason

    def _trace(self, types, treedef, static, args, kwargs, reason) -> _Compiled:
        paths = functools.partial(self._paths, args, kwargs)
        flat_fun, staged, out_weak = self._stage(types, treedef, static, args, paths)
        if config.check_purity:
            self._check_purity(staged.program, self._stage(types, treedef, static, args)[1].program)
        closed = not any(isinstance(c, Tracer) for c in staged.captured)
        donated = donation.donated_leaves(treedef, self._donate_argnums, self._donate_argnames)
        closed = closed and not staged.program.axis_names
        inputs = [len(staged.captured) + i for i in donated]
        executable = None
        if closed:
            executable = compile_program(staged.program, inputs, self._mode, quick=True, autotune=self._autotune)
        return _Compiled(staged.program, staged.captured, donated, flat_fun.out_tree, out_weak, executable,
                         types, reason, user_source())

    def _stage(self, types, treedef, static, args, paths=None):
        def rebuild(flat):
            positional, named = given = tree.unflatten(treedef, flat)
            if (trace := staging_trace()) is not None:
                trace.trees.remember(given, flat, treedef)
            positional = list(positional)
            named = dict(named)
            for where, value in static:
                if isinstance(where, int):
                    positional[where] = value
                else:
                    named[where] = value
            return positional, named

        flat_fun = FlatFunction(self._fun, rebuild)
        out_weak: list[bool] = []

        def fun(*tracers):
            outs = flat_fun(*tracers)
            check_outputs("jit", self._fun, outs, flat_fun.out_tree)
            out_weak[:] = [is_weak(o) for o in outs]
            return outs

        one: dict[Any, Aval] = {}  # of each type, which takes less time to compare
        avals = [one.get(t) or one.setdefault(t, Aval(*t[:2])) for t in types]
        with quiet():
            staged = stage(fun, avals, name=name_of(self._fun), weak=[w for _, _, w in types], paths=paths)
        return flat_fun, staged, out_weak

    def _check_purity(self, first: Program, second: Program) -> None:
        one, two = (_FUNCTION_ID.sub("", program_text(p, exact=True)).splitlines() for p in (first, second))
        for a, b in zip(one, two, strict=False):
            if a != b:
                message = f"first `{a.strip()}`, then `{b.strip()}`"
                break
        else:
            if len(one) == len(two):
                return
            message = f"{len(one)} lines, then {len(two)}"
        warnings.warn(
            f"jit: {name_of(self._fun)} is not pure: two traces differ: {message}. "
            "Pass what changes (random numbers, time, globals) as an argument.",
            PurityWarning, stacklevel=7,
        )


def _checked_donate(donate: str) -> str:
    if donate not in ("may", "must"):
        raise ArgumentError(f"jit: donate is {donate!r}, expected 'may' or 'must'.")
    return donate


def _type_text(entry):
    shape, dtype, weak = entry
    return f"{Aval(shape, dtype)}{' (Python scalar)' if weak else ''}"


_first_traces: OrderedDict[Any, int] = OrderedDict()


def _warn_if_wrapped_anew(fun) -> None:
    """Warn once when one definition, closing over the same objects, is jitted and traced again and again."""
    if not inspect.isfunction(fun):
        return
    closed_over = [c.cell_contents for c in fun.__closure__ or () if c != CellType()]
    key = (fun.__code__, *map(id, (*closed_over, *(fun.__defaults__ or ()), *(fun.__kwdefaults__ or {}).values())))
    count = _first_traces[key] = _first_traces.pop(key, 0) + 1
    if len(_first_traces) > CACHE_SIZE:
        _first_traces.popitem(last=False)
    if count == WRAPPED_ANEW:
        warnings.warn(
            f"jit: {name_of(fun)} was wrapped anew and traced {count} times: each jit(...) starts with no compiled "
            f"program. Call jit once, outside the loop.\n  at {user_source()}",
            RetraceWarning, stacklevel=5,
        )


def _hashable(fun, name, value):
    if isinstance(value, Tracer):
        raise ArgumentTypeError(
            f"jit: the static argument `{name}` of {name_of(fun)} is a traced value of {value.tag!r}. "
            "Static arguments are known when the function is traced: pass a Python value."
        )
    try:
        hash(value)
    except TypeError as error:
        raise ArgumentTypeError(
            f"jit: the static argument `{name}` of {name_of(fun)} is a {type(value).__name__}, which cannot be hashed. "
            "Use a tuple or a frozen dataclass, or do not make it static."
        ) from error
    return value


def _resolve(fun, numbers, names, what) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Positions and names that mean the same arguments, so that a call may give them either way."""
    numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers or ())
    names = (names,) if isinstance(names, str) else tuple(names or ())
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        return numbers, names
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    known = [p.name for p in parameters]
    open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for n in numbers:
        if not open_ended and not -len(plain) <= n < len(plain):
            raise ArgumentError(
                f"jit: {what}_argnums names argument {n}, but {name_of(fun)} takes {len(plain)}: "
                f"{', '.join(plain) or 'nothing'}. The first is number 0."
            )
    for name in names:
        if name not in known and not takes_any:
            raise ArgumentError(
                f"jit: {what}_argnames names `{name}`, which {name_of(fun)} does not take. Its arguments are "
                f"{', '.join(known) or 'none'}."
            )
    numbers = tuple(n % len(plain) if n < 0 else n for n in numbers)
    both = dict.fromkeys(numbers) | dict.fromkeys(plain.index(n) for n in names if n in plain)
    return tuple(both), tuple(dict.fromkeys((*names, *(plain[n] for n in numbers if n < len(plain)))))


def jit(
    fun: Callable[..., Any] | None = None, *, static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (), donate_argnums: int | Sequence[int] = (),
    donate_argnames: str | Sequence[str] = (), donate: str = "may", max_traces: int | None = None,
    verify: bool = False, profile: bool = False, autotune: bool | None = None,
) -> Any:
    """`fun`, staged and compiled on the first call with each signature.

    static_argnums, static_argnames: arguments known while tracing (hashable); each value has its own program.
    donate_argnums, donate_argnames: arguments whose memory the call may reuse; using one again is an error.
    donate: "may" reuses the memory of a donated array where an output of its size and dtype is computed from it element
        by element, and nothing else holds the array; "must" raises DonationError where it cannot.
    max_traces: raise, with the reason, instead of tracing more often than this.
    verify: run every call by NumPy too, and raise MiscompilationError, with a script that shows it, if the two differ.
    profile: count time, operations and bytes by kernel and source line; `f.profile()` tells them.
    autotune: the first call of each signature runs the program by a few choices of code generation, each some times,
        and keeps the fastest, also on disk for later processes: which loops threads share, which outputs go past the
        caches, how products and convolutions are cut. The bits are the same. None: as `config.autotune` says.

    >>> jit(lambda x: x * 2)(3)
    6
    >>> tuned = jit(lambda x: x @ x, autotune=True)
    >>> float(tuned(np.ones((64, 64)))[0, 0])
    64.0
    >>> [type(entry.choices).__name__ for entry in tuned.cache_info().entries]  # such as "as usual"
    ['str']
    """
    if fun is None:
        return functools.partial(
            jit, static_argnums=static_argnums, static_argnames=static_argnames, donate_argnums=donate_argnums,
            donate_argnames=donate_argnames, donate=donate, max_traces=max_traces, verify=verify, profile=profile,
            autotune=autotune,
        )
    check_callable("jit", fun)
    if verify and profile:
        raise ArgumentError("jit: verify and profile cannot be asked for together. Profile first, then verify.")
    if autotune and (verify or profile):
        raise ArgumentError(
            "jit: autotune cannot be asked for together with verify or profile. Tune the plain function."
        )
    mode = "verify" if verify else "profile" if profile else "plain"
    return Jitted(fun, static_argnums, static_argnames, donate_argnums, donate_argnames, max_traces, donate, mode,
                  autotune)


def jit_again(*settings: Any) -> Jitted:
    """Rebuild a jitted function from its pickle."""
    return Jitted(*settings)

# SPDX-License-Identifier: MIT
"""jit: stage a function once for each signature, compile the program, run that from then on.

A signature is the structure of the arguments, the shape and dtype of each leaf, and the values of static arguments.
Compiled programs are kept in a bounded cache of each jitted function; `cache_info()` tells why each was made.
"""

import functools
import inspect
import re
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import CellType
from typing import Any, NamedTuple

from functorch_lite import tree
from functorch_lite.backends.registry import enter_home, home, leave_home
from functorch_lite.compiler import compile as compile_program
from functorch_lite.config import config
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.linear import is_linear
from functorch_lite.core.program import Program, program_text
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, linearize_rules, transpose_rules
from functorch_lite.core.staging import stage
from functorch_lite.core.tracer import Trace, Tracer, bind, current_trace, is_eager, root, surroundings
from functorch_lite.errors import (
    ArgumentError,
    ArgumentTypeError,
    DonationError,
    PurityWarning,
    RetraceWarning,
    user_source,
)
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.transforms.arguments import (
    FlatFunction,
    argument_names,
    canonical,
    canonical_leaves,
    check_callable,
    check_outputs,
    is_weak,
    leaf_paths,
    name_of,
    quiet,
    weakened,
)
from functorch_lite.transforms.batching import program_batch_rules
from functorch_lite.transforms.programs import (
    batch_program,
    jvp_program,
    linearize_program,
    transpose_program,
)

CACHE_SIZE = 256
WRAPPED_ANEW = 20
_FUNCTION_ID = re.compile(r"@[0-9a-f]+")


class CacheEntry(NamedTuple):
    """One compiled signature: its leaf types and why it was traced."""

    signature: str
    reason: str
    source: str


class CacheInfo(NamedTuple):
    """Counts of calls that found a program and that did not, and the programs kept, oldest first."""

    hits: int
    misses: int
    maxsize: int
    entries: list[CacheEntry]


class _Compiled(NamedTuple):
    program: Program
    captured: list[Any]
    out_tree: Any
    out_weak: list[bool]
    executable: Callable[..., list[Any]] | None
    entry: CacheEntry


class Jitted:
    """A function that `jit` made: call it like the function it wraps."""

    def __init__(self, fun: Callable[..., Any], static_argnums, static_argnames, donate_argnums, donate_argnames,
                 max_traces: int | None):
        functools.update_wrapper(self, fun)
        self._fun = fun
        self._static_argnums, self._static_argnames = _resolve(fun, static_argnums, static_argnames, "static")
        self._donate_argnums, self._donate_argnames = _resolve(fun, donate_argnums, donate_argnames, "donate")
        self._max_traces = max_traces
        self.clear_cache()

    # --- calling ----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        dynamic, static = self._split(args, kwargs)
        leaves, treedef = tree.flatten(dynamic)
        compiled, values = self._find(leaves, treedef, static, args, kwargs)
        if self._donate_argnums or self._donate_argnames or _donated:
            self._donate(leaves, args, kwargs)
        if compiled.executable is not None and is_eager():
            with quiet():
                outs = compiled.executable(*compiled.captured, *values)
        else:
            outs = bind(jit_p, *compiled.captured, *values, program=compiled.program)
        return tree.unflatten(compiled.out_tree, weakened(outs, compiled.out_weak))

    def __get__(self, instance, owner=None):
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self):
        return jit_again, (self._fun, self._static_argnums, self._static_argnames, self._donate_argnums,
                           self._donate_argnames, self._max_traces)

    # --- looking at it ----------------------------------------------------------------------------------------------

    def cache_info(self) -> CacheInfo:
        """Hits, misses, and for each program kept its signature and the reason of its trace."""
        return CacheInfo(self._hits, self._misses, CACHE_SIZE, [c.entry for c in self._cache.values()])

    def clear_cache(self) -> None:
        """Forget every compiled program."""
        self._cache: OrderedDict[Any, _Compiled] = OrderedDict()
        self._hits = self._misses = 0

    def program(self, *args: Any, **kwargs: Any) -> Program:
        """The program that a call with these arguments runs."""
        dynamic, static = self._split(args, kwargs)
        leaves, treedef = tree.flatten(dynamic)
        return self._find(leaves, treedef, static, args, kwargs)[0].program

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
        key = (treedef, types, static, config.settings, _axis_sizes(current_trace()), home.get())
        found = self._cache.get(key) if surroundings.get() is None else None
        if found is not None:
            self._hits += 1
            self._cache.move_to_end(key)
            return found
        self._misses += 1
        if self._misses == 1:
            _warn_if_wrapped_anew(self._fun)
        compiled = self._trace(types, treedef, static, args, kwargs, self._reason(key, paths))
        if surroundings.get() is None and not any(isinstance(c, Tracer) for c in compiled.captured):
            self._cache[key] = compiled
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return compiled

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
        executable = compile_program(staged.program) if closed and not staged.program.axis_names else None
        text = ", ".join(_type_text(t) for t in types)
        entry = CacheEntry(f"({text})", reason, str(user_source()))
        return _Compiled(staged.program, staged.captured, flat_fun.out_tree, out_weak, executable, entry)

    def _stage(self, types, treedef, static, args, paths=None):
        def rebuild(flat):
            positional, named = tree.unflatten(treedef, flat)
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

        avals = [Aval(shape, dtype) for shape, dtype, _ in types]
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

    # --- donation ---------------------------------------------------------------------------------------------------

    def _donate(self, leaves, args, kwargs) -> None:
        paths = None
        for i, leaf in enumerate(leaves):
            if id(leaf) in _donated:
                paths = paths or self._paths(args, kwargs)
                raise DonationError(
                    f"jit: `{paths[i]}` of {name_of(self._fun)} was donated to {_donated[id(leaf)]} "
                    "and must not be used again. Use the value that call returned, or do not donate it."
                )
        given = [id(x) for i in self._donate_argnums if i < len(args) for x in tree.leaves(args[i]) if _is_buffer(x)]
        given += [id(x) for k in self._donate_argnames for x in tree.leaves(kwargs.get(k)) if _is_buffer(x)]
        every = [id(x) for x in leaves if _is_buffer(x)]
        for i, leaf in enumerate(leaves):
            if id(leaf) in given and every.count(id(leaf)) > 1:
                raise DonationError(
                    f"jit: the buffer of `{self._paths(args, kwargs)[i]}` is donated and also passed as another "
                    f"argument of {name_of(self._fun)}. Pass a copy, or do not donate it."
                )
        for leaf in leaves:
            if id(leaf) in given:
                _remember(leaf, f"{name_of(self._fun)} at {user_source()}")


_donated: dict[int, str] = {}


def _is_buffer(leaf):
    return not isinstance(leaf, Tracer) and hasattr(leaf, "strides") and getattr(leaf, "ndim", 0) > 0


def _remember(leaf, where):
    key = id(leaf)
    _donated[key] = where
    weakref.finalize(leaf, _donated.pop, key, None)


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


def _axis_sizes(trace: Trace) -> tuple[Any, ...]:
    """The named axes that enclosing vmaps bind here: a program with collectives depends on them."""
    found = []
    while trace is not root:
        name = getattr(trace, "axis_name", None)
        if name is not None:
            found.append((name, trace.size))  # type: ignore[attr-defined]
        trace = trace.parent
    return tuple(found)


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
    donate_argnames: str | Sequence[str] = (), max_traces: int | None = None,
) -> Any:
    """`fun`, staged and compiled on the first call with each signature.

    static_argnums, static_argnames: arguments known while tracing (hashable); each value has its own program.
    donate_argnums, donate_argnames: arguments whose memory the call may reuse; using one again is an error.
    max_traces: raise, with the reason, instead of tracing more often than this.

    >>> jit(lambda x: x * 2)(3)
    6
    """
    if fun is None:
        return functools.partial(
            jit, static_argnums=static_argnums, static_argnames=static_argnames, donate_argnums=donate_argnums,
            donate_argnames=donate_argnames, max_traces=max_traces,
        )
    check_callable("jit", fun)
    return Jitted(fun, static_argnums, static_argnames, donate_argnums, donate_argnames, max_traces)


def jit_again(fun, static_argnums, static_argnames, donate_argnums, donate_argnames, max_traces) -> Jitted:
    """Rebuild a jitted function from its pickle."""
    return Jitted(fun, static_argnums, static_argnames, donate_argnums, donate_argnames, max_traces)


# --- the rules of the `jit` primitive: each transform of a call is a call of the transformed program ----------------


@eval_rules.register(jit_p)
def _(xp, *args, program):
    return compile_program(program)(*args)


def _present(tangents):
    return tuple(t is not None for t in tangents)


def spread(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """One value for each true flag, None elsewhere."""
    it = iter(values)
    return [next(it) if f else None for f in flags]


@jvp_rules.register(jit_p)
def _(primals, tangents, *, program):
    nonzero = _present(tangents)
    derived, out_nonzero = jvp_program(program, nonzero)
    outs = bind(jit_p, *primals, *(t for t in tangents if t is not None), program=derived)
    n = len(program.outputs)
    return outs[:n], spread(outs[n:], out_nonzero)


@linearize_rules.register(jit_p)
def _(tape, primals, tangents, *, program):
    parts = linearize_program(program, _present(tangents))
    n = len(program.outputs)
    outs = bind(jit_p, *primals, program=parts.forward)
    if not any(parts.out_nonzero):
        return outs[:n], [None] * n
    known = [*(primals[i] for i in parts.from_inputs), *outs[n:]]
    dots = bind(jit_p, *known, *(t for t in tangents if t is not None), program=parts.linear)
    return outs[:n], spread(dots, parts.out_nonzero)


@transpose_rules.register(jit_p)
def _(cts, *args, program):
    return transpose_call(cts, args, program, lambda values, derived: bind(jit_p, *values, program=derived))


def transpose_call(cts: Sequence[Any], args: Sequence[Any], program: Program, call: Callable[..., list[Any]]):
    """The transpose of a call of a program linear in some of its arguments, which may stand anywhere."""
    from_known = [i for i, a in enumerate(args) if not is_linear(a)]
    unknown = [i for i, a in enumerate(args) if is_linear(a)]
    order = [*from_known, *unknown]
    if order != list(range(len(args))):
        program = Program(tuple(program.inputs[i] for i in order), program.equations, program.outputs, program.name)
    derived, nonzero = transpose_program(program, len(from_known), _present(cts))
    found = call([*(args[i] for i in from_known), *(c for c in cts if c is not None)], derived)
    result: list[Any] = [None] * len(args)
    for i, ct in zip(unknown, spread(found, nonzero), strict=True):
        result[i] = ct
    return tuple(result)


batch_rules.absent(jit_p, "it is batched with its program, which may name the mapped axis")


@program_batch_rules.register(jit_p)
def _(trace, args, batched, *, program):
    derived, out_batched = batch_program(program, trace.size, tuple(batched), trace.axis_name)
    return bind(jit_p, *args, program=derived), out_batched


# --- seeing what a function does ------------------------------------------------------------------------------------


def make_program(fun: Callable[..., Any], static_argnums: int | Sequence[int] = ()) -> Callable[..., Program]:
    """The program that `fun` is for given arguments (arrays, or anything with shape and dtype): printable, checkable.

    Captured arrays above 4 KB come first among its inputs.
    """
    check_callable("make_program", fun)
    jitted = Jitted(fun, static_argnums, (), (), (), None)

    @functools.wraps(fun)
    def program_of(*args, **kwargs):
        dynamic, static = jitted._split(args, kwargs)
        leaves, treedef = tree.flatten(dynamic)
        types = _types_of("make_program", fun, leaves, functools.partial(jitted._paths, args, kwargs))
        return jitted._stage(types, treedef, static, args)[1].program

    return program_of


class ShapeDtype(NamedTuple):
    """A shape and dtype: what `eval_shape` returns for each output."""

    shape: tuple[int, ...]
    dtype: Any


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The structure, shapes and dtypes of `fun(*args, **kwargs)`, without computing it.

    Arguments are arrays or anything with shape and dtype.
    """
    check_callable("eval_shape", fun)
    jitted = Jitted(fun, (), (), (), (), None)
    leaves, treedef = tree.flatten((args, kwargs), is_leaf=lambda x: isinstance(x, ShapeDtype))
    types = _types_of("eval_shape", fun, leaves, functools.partial(jitted._paths, args, kwargs))
    flat_fun, staged, _ = jitted._stage(types, treedef, (), args)
    return tree.unflatten(flat_fun.out_tree, [ShapeDtype(a.shape, a.dtype) for a in staged.program.out_avals])


def _types_of(transform, fun, leaves, paths):
    types = []
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, ShapeDtype) or (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            types.append((tuple(leaf.shape), leaf.dtype, isinstance(leaf, Tracer) and leaf.weak))
        else:
            (value,), (weak,) = canonical_leaves(transform, fun, [leaf], lambda i=i: [paths()[i]])
            types.append((value.shape, value.dtype, weak))
    return tuple(types)


def closure_convert(fun: Callable[..., Any], *example_args: Any) -> tuple[Callable[..., Any], list[Any]]:
    """`fun` with the arrays it closes over made arguments: (converted, captured), where
    `converted(*args, *captured)` equals `fun(*args)`."""
    check_callable("closure_convert", fun)
    jitted = Jitted(fun, (), (), (), (), None)
    leaves, treedef = tree.flatten((example_args, {}))
    types = _types_of("closure_convert", fun, leaves, functools.partial(leaf_paths, fun, example_args))
    flat_fun, staged, _ = jitted._stage(types, treedef, (), example_args)
    n = len(staged.captured)

    def converted(*args):
        positional = args[: len(args) - n] if n else args
        flat = [canonical(v)[0] for v in tree.leaves((positional, {}))]
        outs = interpret(staged.program, [*args[len(args) - n :], *flat] if n else flat)
        return tree.unflatten(flat_fun.out_tree, outs)

    return converted, staged.captured

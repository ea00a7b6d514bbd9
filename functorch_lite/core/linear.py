# SPDX-License-Identifier: MIT
"""The linear part of a derivative: a tape of linear operations, and the trace that writes it.

`linearize` computes primal values and lets each jvp rule write what it does to tangents here. A `Linear` is one
entry: an input of the tape, or a linear primitive applied to earlier entries and to known values. `replay` runs the
tape forwards (jvp), `backward` runs it backwards through the transpose rules (vjp).

A tape that only runs backwards may have pullbacks planned in advance (`transforms.pullbacks`) among its entries: tuples
(plan, the numbers of its operands, values that it needs, the number of its result), of which it calls
`plan.pull(ct, values)`.

Source: Radul, Paszke, Frostig, Johnson, Maclaurin, "You only linearize once", POPL 2023.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from functorch_lite.backends.registry import enter_home, home, leave_home
from functorch_lite.core.aval import Aval, StackAval, aval_of
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.rules import shape_rules, transpose_rules
from functorch_lite.core.tracer import Tag, Trace, Tracer, bind, root
from functorch_lite.errors import NotLinearError, Source, replays, user_source


class Linear:
    """An entry of a tape: an unknown that the rest of the tape is linear in. Has a shape and dtype, and no value.

    The type is given with the entry, or found by the shape rule when it is first asked for.
    source: the user's line; kept where a program is written (an eager error has the line in its traceback).
    """

    __slots__ = ("index", "prim", "args", "params", "outs", "known_aval", "source")

    def __init__(
        self, index: int, prim: Primitive | None, args: Sequence[Any], params: dict[str, Any], aval: Any = None
    ):
        self.index = index
        self.prim: Any = prim  # None for an input of the tape
        self.args = args
        self.params = params
        self.outs: list[Linear] | None = None
        self.known_aval: Any = aval  # a type, a (shape, dtype) pair, or None
        self.source: Source | None = None

    @property
    def aval(self) -> Any:
        """Its type, found now if it was not given."""
        if type(self.known_aval) is tuple:
            self.known_aval = Aval(*self.known_aval)
        elif self.known_aval is None:
            self._find_type()
        return self.known_aval

    def _find_type(self) -> None:
        """By the shape rules, arguments first; with a list of what is to do, as a chain may be long."""
        todo = [self]
        while todo:
            entry = todo[-1]
            unknown = [a for a in entry.args if type(a) is Linear and a.known_aval is None]
            if unknown:
                todo += unknown
                continue
            todo.pop()
            entry.known_aval = shape_rules[entry.prim](*[aval_of(a) for a in entry.args], **entry.params)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.aval.shape

    @property
    def dtype(self) -> Any:
        """The dtype of the elements."""
        return self.aval.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)


def is_linear(value: Any) -> bool:
    """Whether a transpose rule is to give a cotangent for this argument."""
    return type(value) is Linear


class TapeTracer(Tracer):
    """The value of a tape entry, as user code and jvp rules see it."""

    __slots__ = ("linear",)

    def __init__(self, tag: Tag, linear: Linear):
        self.tag = tag
        self.weak = False
        self.linear = linear

    @property
    def index(self) -> int:
        """The number of the entry."""
        return self.linear.index

    @property
    def aval(self):
        return self.linear.aval

    @property
    def shape(self):
        return self.linear.shape

    @property
    def dtype(self):
        return self.linear.dtype


class TapeTrace(Trace):
    """Writes linear primitives on the tape; computes everything else in the parent.

    see_through: the tag whose tracers stand for their primal value here (the linearization this tape belongs to),
    so that a rule may close over a value that is being differentiated.
    """

    __slots__ = ("entries", "count", "see_through", "saw_hidden")

    def __init__(self, parent: Trace, see_through: Tag | None = None):
        self.tag = Tag("linearize")
        self.parent = parent
        self.entries: list[Any] = []
        self.count = 0
        self.see_through = see_through
        self.saw_hidden = False

    def unknown(self, aval: Any) -> Linear:
        """The entry of a new unknown: an input of the tape. aval: its type, or a pair (shape, dtype)."""
        linear = Linear(self.count, None, (), {}, aval)
        self.count += 1
        return linear

    def input(self, aval: Aval | StackAval) -> TapeTracer:
        """A new unknown."""
        return TapeTracer(self.tag, self.unknown(aval))

    def process(self, prim, args, params):
        """An entry where an argument is on this tape, else the parent's result."""
        tag, hidden = self.tag, self.see_through
        found = False
        values = []
        for a in args:
            if type(a) is TapeTracer and a.tag is tag:
                found = True
                values.append(a.linear)
            elif isinstance(a, Tracer) and a.tag is hidden:
                self.saw_hidden = True
                values.append(a.primal)  # type: ignore[attr-defined]
            else:
                values.append(a)
        if not found:
            return self.parent.process(prim, values, params)
        if prim not in transpose_rules:
            raise NotLinearError(
                f"the function is not linear in its argument: it applies `{prim.name}` to it. For the derivative at a "
                "point use vjp or jvp; the rule of a custom derivative must be linear in tangents and cotangents."
            )
        if not prim.multiple:
            return self.append(prim, tuple(values), params)
        entry = self._entry(prim, tuple(values), params)
        avals = shape_rules[prim](*[aval_of(v) for v in values], **params)
        entry.outs = [Linear(self.count + i, None, (), {}, aval) for i, aval in enumerate(avals)]
        self.count += len(avals)
        return [TapeTracer(tag, out) for out in entry.outs]

    def append(self, prim: Primitive, args: tuple, params: dict[str, Any]) -> TapeTracer:
        """Write the entry of a linear primitive with one result."""
        entry = self._entry(prim, args, params)
        self.count += 1
        return TapeTracer(self.tag, entry)

    def _entry(self, prim, args, params):
        entry = Linear(self.count, prim, args, params)
        self.entries.append(entry)
        if self.parent is not root:
            entry.source = user_source()
        return entry


class Tape:
    """A finished tape: entries from `inputs` to `outputs`, which are numbers of entries (an output None is zero).

    home: the array module that was at home when it was written; new arrays are made there, unless tangents say
    otherwise.
    """

    __slots__ = ("entries", "inputs", "outputs", "count", "home")

    def __init__(self, trace: TapeTrace, inputs: Sequence[Any], outputs: Sequence[Any]):
        self.entries = trace.entries
        self.inputs: list[int] = [t.index for t in inputs]
        self.outputs: list[int | None] = [t.index if t is not None else None for t in outputs]
        self.count = trace.count
        self.home = home.get()

    def replay(self, tangents: Sequence[Any]) -> list[Any]:
        """The output tangents for the input tangents (None: zero), computed in the current trace."""
        token = enter_home(tangents, self.home)
        try:
            return self._replay(tangents)
        finally:
            leave_home(token)

    @replays("entry")
    def _replay(self, tangents):
        env: list[Any] = [None] * self.count
        for index, t in zip(self.inputs, tangents, strict=True):
            env[index] = t
        for entry in self.entries:
            values = [env[a.index] if type(a) is Linear else a for a in entry.args]
            self._replay_entry(entry, values, env)
        return [env[o] if o is not None else None for o in self.outputs]

    def _replay_entry(self, entry, values, env):
        missing = [type(a) is Linear and v is None for a, v in zip(entry.args, values, strict=True)]
        if any(missing):
            if all(m for m, a in zip(missing, entry.args, strict=True) if type(a) is Linear):
                return
            values = [zeros_of(a.aval) if m else v for a, v, m in zip(entry.args, values, missing, strict=True)]
        out = bind(entry.prim, *values, **entry.params)
        if entry.outs is None:
            env[entry.index] = out
        else:
            for o, value in zip(entry.outs, out, strict=True):
                env[o.index] = value

    def backward(self, cts: Sequence[Any], consume: bool = False) -> list[Any]:
        """The input cotangents for the output cotangents (None: zero), computed in the current trace.

        consume: drop each entry once it is used, so that memory is freed on the way.
        """
        token = enter_home(cts, self.home)
        try:
            return self._backward(cts, consume)
        finally:
            leave_home(token)

    @replays("entry")
    def _backward(self, cts, consume):
        env: list[Any] = [None] * self.count
        for index, ct in zip(self.outputs, cts, strict=True):
            if index is not None:
                env[index] = add_tangents(env[index], ct)
        add = _helpers["add"]
        for entry in _last_first(self.entries, consume):
            found = _pulled_back(entry, env) if type(entry) is tuple else _transposed(entry, env)
            for index, c in found:
                if c is not None:
                    old = env[index]
                    env[index] = c if old is None else add(old, c)
            if consume and type(entry) is Linear:  # a tracer that was kept may hold it
                entry.args, entry.params = (), {}
        return [env[index] for index in self.inputs]


def _last_first(entries: list[Any], consume: bool) -> Iterator[Any]:
    """The entries from the last to the first; taken off the list if `consume`."""
    if not consume:
        yield from reversed(entries)
    while consume and entries:
        yield entries.pop()


def _pulled_back(entry, env):
    """Pairs (number of an operand, cotangent) of a planned pullback; its own cotangent goes."""
    plan, operands, values, index = entry
    ct, env[index] = env[index], None
    return () if ct is None else zip(operands, plan.pull(ct, values), strict=True)


def _transposed(entry, env):
    """Pairs (number of an operand, cotangent) of a linear primitive; its own cotangent goes."""
    if entry.outs is None:
        ct, env[entry.index] = env[entry.index], None
        if ct is None:
            return ()
    else:
        ct = [env[o.index] for o in entry.outs]
        if all(c is None for c in ct):
            return ()
    found = transpose_rules[entry.prim](ct, *entry.args, **entry.params)
    return [(a.index, c) for a, c in zip(entry.args, found, strict=True) if type(a) is Linear]


_helpers: dict[str, Callable[..., Any]] = {}
"""`add` and `zeros`, filed by the primitives that compute them (core declares the place, as with the rule tables)."""


def helper(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that files the function by which the core adds tangents (`add`) or makes zeros (`zeros`)."""

    def file(fun):
        _helpers[name] = fun
        return fun

    return file


def zeros_of(aval: Any) -> Any:
    """An array of zeros of this type."""
    return _helpers["zeros"](aval)


def add_tangents(a: Any, b: Any) -> Any:
    """The sum of two tangents or cotangents, where None is zero."""
    if a is None:
        return b
    return a if b is None else _helpers["add"](a, b)

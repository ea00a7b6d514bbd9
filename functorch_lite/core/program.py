# SPDX-License-Identifier: MIT
"""Programs: the intermediate representation (like a jaxpr). Typed, single assignment, printable, hashable.

    { lambda a:f32[3] ; let b:f32[3] = sin a ; in (b) }
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np

from functorch_lite.core.aval import Aval, StackAval
from functorch_lite.core.primitive import Primitive
from functorch_lite.errors import Source


class Var:
    """A value of a program. Identity is its name; the printer gives it a letter."""

    __slots__ = ("aval",)

    def __init__(self, aval: Aval | StackAval):
        self.aval = aval

    def __repr__(self):
        return f"Var({self.aval})"


class Literal:
    """A constant small enough to stand in the program (at most 4 KB)."""

    __slots__ = ("value", "aval")

    def __init__(self, value: Any, aval: Aval):
        self.value = value
        self.aval = aval

    def __repr__(self):
        return f"Literal({self.value})"


Atom = Var | Literal
AVAL = attrgetter("aval")
"""The type of an atom, for builtins that go through many."""


class Equation:
    """`outputs = prim[params](inputs)`, with the user's line that caused it."""

    __slots__ = ("prim", "inputs", "outputs", "params", "source")

    def __init__(self, prim: Primitive, inputs: tuple[Atom, ...], outputs: tuple[Var, ...], params: dict[str, Any],
                 source: Source | None = None):
        self.prim = prim
        self.inputs = inputs
        self.outputs = outputs
        self.params = params
        self.source = source


@dataclass(frozen=True, eq=False, slots=True)
class Program:
    """Equations in order, from `inputs` to `outputs`.

    memo: derived things (its transformed versions, its executable), kept as long as the program itself.
    """

    inputs: tuple[Var, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Atom, ...]
    name: str = "f"
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def in_avals(self) -> list[Aval | StackAval]:
        return list(map(AVAL, self.inputs))

    @property
    def out_avals(self) -> list[Aval | StackAval]:
        return list(map(AVAL, self.outputs))

    @property
    def has_effects(self) -> bool:
        """Whether running the program does more than return values."""
        return memoized(self, "has_effects", lambda: any(_has_effect(e) for e in self.equations))

    @property
    def axis_names(self) -> frozenset[Any]:
        """The axis names that collectives in the program refer to and that it does not bind itself."""
        return memoized(self, "axis_names", lambda: frozenset(_axis_names(self)))

    @property
    def fingerprint(self) -> str:
        """A digest of structure, types, parameters and constants: equal programs have equal fingerprints."""
        return memoized(self, "fingerprint", lambda: hashlib.sha256(_canonical(self).encode()).hexdigest())

    def __eq__(self, other):
        return isinstance(other, Program) and (self is other or self.fingerprint == other.fingerprint)

    def __hash__(self):
        return hash(self.fingerprint)

    def __str__(self):
        return program_text(self)


def memoized(program: Program, key: Any, make: Any) -> Any:
    """`make()`, computed once for this program and key."""
    found = program.memo.get(key)
    if found is None:
        found = program.memo[key] = make()
    return found


def subprograms(params: dict[str, Any]) -> Iterator[Program]:
    """The programs among an equation's parameters."""
    for value in params.values():
        if isinstance(value, Program):
            yield value
        elif isinstance(value, tuple):
            yield from (v for v in value if isinstance(v, Program))


def _has_effect(equation):
    return equation.prim.effect or any(p.has_effects for p in subprograms(equation.params))


def _axis_names(program):
    for equation in program.equations:
        if "axis_name" in equation.params:
            names = equation.params["axis_name"]
            yield from names if isinstance(names, tuple) else (names,)
        for sub in subprograms(equation.params):
            yield from sub.axis_names


# --- text: the canonical form behind the fingerprint, and the printed form ---------------------------------------


def variable_names() -> Iterator[str]:
    """a, b, ..., z, ba, bb, ... without end."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    n = 0
    while True:
        text, k = "", n
        while True:
            text = letters[k % 26] + text
            k //= 26
            if k == 0:
                break
        yield text
        n += 1


class _Namer(dict):
    def __init__(self):
        self._names = variable_names()

    def __missing__(self, var):
        self[var] = next(self._names)
        return self[var]


def _literal_text(literal: Literal, exact: bool) -> str:
    value = np.asarray(literal.value) if not hasattr(literal.value, "get") else literal.value.get()
    if value.ndim == 0:
        return f"{value.item()!r}:{literal.aval}" if exact else f"{value.item()!r}"
    return f"const<{hashlib.sha256(value.tobytes()).hexdigest()[:16]}>:{literal.aval}"


class _Printer:
    """Prints a program. One that comes again is printed once, and called by its number from then on.

    exact: adds what is needed to tell any two programs apart; equal ones then share a number.
    """

    def __init__(self, program: Program, exact: bool):
        self.exact = exact
        self.numbers: dict[Any, int] = {}
        self.again: set[int] = set() if exact else _come_again(program)

    def param(self, value: Any, indent: str) -> str:
        """A parameter of an equation."""
        if isinstance(value, Program):
            return self.inner(value, indent)
        if isinstance(value, tuple) and any(isinstance(v, Program) for v in value):
            return "(" + ", ".join(self.param(v, indent) for v in value) + ")"
        if isinstance(value, np.dtype):
            return str(value)
        if callable(value) and not isinstance(value, type):
            name = getattr(value, "__name__", type(value).__name__)
            return f"{name}@{id(value):x}" if self.exact else name
        return repr(value)

    def inner(self, program: Program, indent: str) -> str:
        """A program among the parameters."""
        key = program.fingerprint if self.exact else id(program)
        if not self.exact and key not in self.again:
            return self.text(program, indent + "  ")
        if key in self.numbers:
            return f"#{self.numbers[key]}"
        self.numbers[key] = len(self.numbers) + 1
        return ("" if self.exact else f"#{len(self.numbers)} ") + self.text(program, indent + "  ")

    def text(self, program: Program, indent: str = "") -> str:
        """A program, all lines but the first indented."""
        names, exact = _Namer(), self.exact

        def atom(a):
            return _literal_text(a, exact) if isinstance(a, Literal) else names[a]

        def typed(v):
            return f"{names[v]}:{v.aval}"

        head = " ".join(typed(v) for v in program.inputs)
        lines = []
        for eqn in program.equations:
            left = " ".join(typed(v) for v in eqn.outputs)
            inputs = " ".join(atom(a) for a in eqn.inputs)
            params = " ".join(f"{k}={self.param(v, indent + '    ')}" for k, v in sorted(eqn.params.items()))
            lines.append(f"{indent}    {left} = {eqn.prim.name}{f'[{params}]' if params else ''} {inputs}".rstrip())
        body = "\n" + "\n".join(lines) + f"\n{indent}  " if lines else " "
        outs = ", ".join(atom(a) for a in program.outputs)
        return f"{{ lambda {head} ; let{body}in ({outs}) }}"


def _come_again(program: Program) -> set[int]:
    """The identities of programs that stand in several places of a program."""
    met: set[int] = set()
    again: set[int] = set()

    def walk(p):
        for eqn in p.equations:
            for sub in subprograms(eqn.params):
                if id(sub) in met:
                    again.add(id(sub))
                else:
                    met.add(id(sub))
                    walk(sub)

    walk(program)
    return again


def program_text(program: Program, exact: bool = False) -> str:
    """The program as text; `exact` adds what is needed to tell any two programs apart.

    A program that is called in several places is printed in the first, as `#1 { ... }`, and is `#1` in the others.
    """
    return _Printer(program, exact).text(program)


def _canonical(program):
    return program_text(program, exact=True)

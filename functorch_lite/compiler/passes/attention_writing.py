# SPDX-License-Identifier: MIT
"""The equations of an attention, in the place of those it was found in."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from functorch_lite.compiler.passes.attention_algebra import OUT, SAME, Operand, Result, Role, Roles, Softmax
from functorch_lite.compiler.passes.canonical import canonicalize
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.compiler.passes.rewriting import literal, rebuilt
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.primitives.attention import attention_cotangents_p, attention_p
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.comparison import not_p
from functorch_lite.primitives.elementwise import mul_p
from functorch_lite.primitives.movement import permute_dims_p, reshape_p

MAX_MASK = 1 << 24  # elements of a mask that the compiler computes
MAX_DEPTH = 40  # equations between its constants and it


class Writer:
    """The program with each softmax in `found` replaced."""

    def __init__(self, program: Program, found: Iterable[Softmax]):
        self.program = program
        self.results: dict[int, tuple[Softmax, Result]] = {r.number: (m, r) for m in found for r in m.results}
        self.attentions: dict[Softmax, _Attention] = {}
        self.equations: list[Equation] = []
        self.env: dict[Atom, Atom] = {}

    def write(self) -> Program:
        """The program in canonical form, without what is not needed any more."""
        env = self.env
        for i, eqn in enumerate(self.program.equations):
            if i in self.results:
                env[eqn.outputs[0]] = self._result(*self.results[i])
            elif any(a in env for a in eqn.inputs):
                inputs = tuple([env.get(a, a) for a in eqn.inputs])
                self.equations.append(Equation(eqn.prim, inputs, eqn.outputs, eqn.params, eqn.source))
            else:
                self.equations.append(eqn)
        outputs = [env.get(a, a) for a in self.program.outputs]
        return canonicalize(eliminate_dead_code(rebuilt(self.program, self.equations, outputs)))

    def _result(self, m: Softmax, result: Result) -> Atom:
        """What stands for a result."""
        if m not in self.attentions:
            self.attentions[m] = _Attention(m, self.equations, self.env, result.equation.source)
        a = self.attentions[m]
        if result.symbol == OUT:
            value, ratio = a.out, 1.0
        else:
            letter, ct = result.symbol
            value = a.cotangents(ct)[letter]
            ratio = result.ratio / (1.0 if letter == "dv" else m.factor)
        return a.as_in(value, _axes_of(m, result.symbol), result, ratio)


def _axes_of(m: Softmax, symbol: Any) -> Roles:
    """The roles of the axes of a result of the primitive, its first axis taken apart."""
    if symbol == OUT:
        return (*m.lead, "q", "f")
    return {"dq": (*m.lead, "q", "e"), "dk": (*m.batch, "k", "e"), "dv": (*m.batch, "k", "f")}[symbol[0]]


@dataclass
class _Attention:
    """The equations of one attention, appended to `equations`."""

    m: Softmax
    equations: list[Equation]
    env: dict[Atom, Atom]
    source: Any
    pulled: dict[Atom, dict[str, Var]] = field(default_factory=dict)

    def __post_init__(self):
        m = self.m
        assert m.v is not None
        self.operands = [self.flat(x, lead, *last) for x, lead, last in (
            (m.q, m.lead, "qe"), (m.k, m.batch, "ke"), (m.v, m.batch, "kf"))]
        bounds, mask = self._mask()
        self.mask = [] if mask is None else [mask]
        groups = math.prod(m.sizes[r] for r in m.lead[m.n_batch :])
        strict = m.plain_top or m.plain_sum
        self.params = {"factor": float(m.factor), "before": bounds[0], "after": bounds[1], "groups": groups,
                       "strict": strict}
        self.out, self.lse = self.emit(attention_p, *self.operands, *self.mask, **self.params)

    def emit(self, prim: Primitive, *inputs: Atom, **params: Any) -> Any:
        """The result of a new equation, or its results."""
        inputs = tuple([self.env.get(a, a) for a in inputs])
        found = shape_rules[prim](*[a.aval for a in inputs], **params)
        outputs = tuple([Var(a) for a in found]) if prim.multiple else (Var(found),)
        self.equations.append(Equation(prim, inputs, outputs, params, self.source))
        return outputs if prim.multiple else outputs[0]

    def cotangents(self, ct: Atom) -> dict[str, Var]:
        """dq, dk and dv of a cotangent of out."""
        if ct not in self.pulled:
            m = self.m
            given = self.flat(Operand(ct, m.cotangents[ct]), m.lead, "q", "f")
            outs = self.emit(
                attention_cotangents_p, given, *self.operands, self.out, self.lse, *self.mask, **self.params
            )
            self.pulled[ct] = dict(zip(("dq", "dk", "dv"), outs, strict=True))
        return self.pulled[ct]

    def flat(self, x: Operand, lead: Roles, *last: Role) -> Atom:
        """An operand as the primitive takes it: all leading axes one."""
        axes = tuple([x.axes[r] for r in (*lead, *last)])
        atom = self.turned(x.atom, axes)
        shape = atom.aval.shape
        return self.shaped(atom, (math.prod(shape[: len(lead)]), *shape[len(lead) :]))

    def turned(self, atom: Atom, axes: tuple[int, ...]) -> Atom:
        """The array with its axes in this order."""
        return atom if axes == tuple(range(len(axes))) else self.emit(permute_dims_p, atom, axes=axes)

    def shaped(self, atom: Atom, shape: tuple[int, ...]) -> Atom:
        """The array in this shape."""
        return atom if atom.aval.shape == shape else self.emit(reshape_p, atom, shape=shape)

    def as_in(self, value: Var, roles: Roles, result: Result, ratio: float) -> Atom:
        """A result of the primitive, times a number, with axes as in the program."""
        target = result.equation.outputs[0]
        sizes = dict(zip(result.roles, target.aval.shape, strict=True))
        atom = self.shaped(value, tuple([sizes[r] for r in roles]))
        atom = self.turned(atom, tuple([roles.index(r) for r in result.roles]))
        return atom if abs(ratio - 1) < SAME else self.emit(mul_p, atom, literal(ratio, target.aval.dtype))

    # --- masks --------------------------------------------------------------------------------------------------------

    def _mask(self) -> tuple[tuple[int | None, int | None], Atom | None]:
        """Bounds and mask."""
        m = self.m
        if m.mask is None:
            return (None, None), None
        found = None if m.added else _bounds(m)
        if found is not None:
            return found, None
        atom, axes = _unspread(m.made, m.mask)
        by_role: dict[Role, int] = {r: a for r, a in zip(m.roles, axes, strict=True) if a is not None}
        mask = self._mask_of(atom, by_role)
        return (None, None), self.emit(not_p, mask) if m.inverted else mask

    def _mask_of(self, atom: Atom, axes: dict[Role, int]) -> Atom:
        """[c, n or 1, m] of a mask that has some of the axes."""
        m = self.m
        there = [r for r in (*m.lead, "q", "k") if r in axes]
        kept = tuple(sorted(axes[r] for r in there))
        atom = self.shaped(atom, tuple([atom.aval.shape[a] for a in kept]))
        atom = self.turned(atom, tuple([kept.index(axes[r]) for r in there]))
        count = max((i + 1 for i, r in enumerate(m.lead) if r in axes), default=0)
        wanted: list[Role] = [*m.lead[:count], *(["q"] if "q" in axes else []), "k"]
        shape = tuple([m.sizes[r] for r in wanted])
        if there != wanted:
            atom = self.emit(broadcast_in_dim_p, atom, shape=shape, dims=tuple([wanted.index(r) for r in there]))
        rows = m.sizes["q"] if "q" in axes else 1
        return self.shaped(atom, (math.prod(shape[:count]), rows, m.sizes["k"]))


def _unspread(made: Any, mask: Atom) -> tuple[Atom, list[int | None]]:
    """What was broadcast to the mask, and for each axis of the mask the axis that it has there."""
    maker = made.get(mask)
    rank = len(mask.aval.shape)
    if maker is None or maker.prim is not broadcast_in_dim_p:
        return mask, list(range(rank))
    source = maker.inputs[0]
    axes: list[int | None] = [None] * rank
    for i, axis in enumerate(maker.params["dims"]):
        if source.aval.shape[i] == mask.aval.shape[axis]:
            axes[axis] = i
    return source, axes


def _bounds(m: Softmax) -> tuple[int | None, int | None] | None:
    """before and after, where the compiler can compute the mask and it is nothing but them."""
    assert m.mask is not None
    atom, axes = _unspread(m.made, m.mask)
    where: dict[Role, int] = {r: a for r, a in zip(m.roles, axes, strict=True) if a is not None}
    if set(where) != {"q", "k"}:
        return None
    try:
        with np.errstate(all="ignore"):
            seen = _computed(m.made, atom, {})
    except _Unknown:
        return None
    seen = seen if where["q"] < where["k"] else seen.T
    return _band(seen.reshape(m.sizes["q"], m.sizes["k"]) != m.inverted)


def _band(seen: np.ndarray) -> tuple[int | None, int | None] | None:
    n, m = seen.shape
    distance = np.arange(m, dtype=np.int32) - np.arange(n, dtype=np.int32)[:, None]
    there = distance[seen]
    if not there.size:
        return None
    low, high = int(there.min()), int(there.max())
    if there.size != np.count_nonzero((distance >= low) & (distance <= high)):
        return None
    return None if low == 1 - n else -low, None if high == m - 1 else high


class _Unknown(Exception):
    """A value depends on what is not known yet."""


_CHEAP = frozenset((Kind.ELEMENTWISE, Kind.BROADCAST, Kind.MOVEMENT))


def _computed(made: Any, atom: Atom, known: dict[Atom, Any], depth: int = 0) -> Any:
    """The value of an array that depends on no input."""
    if type(atom) is Literal:
        return np.asarray(atom.value)
    if atom not in known:
        eqn = made.get(atom)
        if eqn is None or eqn.prim.kind not in _CHEAP or math.prod(atom.aval.shape) > MAX_MASK or depth > MAX_DEPTH:
            raise _Unknown
        args = [_computed(made, a, known, depth + 1) for a in eqn.inputs]
        known[atom] = eval_rules[eqn.prim](np, *args, **eqn.params)
    return known[atom]

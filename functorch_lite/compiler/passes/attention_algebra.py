# SPDX-License-Identifier: MIT
"""What is computed from the weights of an attention, by algebra: how it is written does not matter.

Around a row softmax of scores, the values of a program are sums of products of a few symbols,

    W   weights [.., q, k]      N   sum of a row's exponentials [.., q]      O   W v  [.., q, f]
    C   a cotangent of O        D   C v'  [.., q, k]                         T   sum over k of W D, or over f of O C

so a row's exponentials are W N, their sum is N, since rows of W sum to 1, and `div exponentials sum` is W. The gradient
of the scores comes out as W D - W T however softmax was written and differentiated: as a quotient, with or without
gradient through the maximum (whose term is W (T - T)), by a logarithm of a sum. Its products with keys and queries are

    dq   (W D - W T) k          dk   (W D - W T)' q          dv   W' C

Each value has a role for each axis: a number for those of heads and batch, then "q", "k", "e" of queries' and keys'
features, "f" of the values', "1" where a number for each row has an axis of size 1, or "?" where a broadcast put one
that whatever it meets will tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.passes.rewriting import scalar
from functorch_lite.core.program import Atom, Equation, Literal
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.elementwise import neg_p
from functorch_lite.primitives.movement import permute_dims_p

Role = int | str
Roles = tuple[Role, ...]
Symbol = tuple[Any, ...]  # a letter, and the cotangent it belongs to
Poly = dict[frozenset[tuple[Symbol, int]], float]
SAME = 1e-12  # numbers that differ by rounding only

W, N, OUT, L = ("W",), ("N",), ("O",), ("L",)  # L: the logarithm of N


class Value(NamedTuple):
    """A value of the program: the roles of its axes, and what it is."""

    roles: Roles
    poly: Poly


class Operand(NamedTuple):
    """An array that a product takes, and the axis that has each role."""

    atom: Atom
    axes: Mapping[Role, int]


class Result(NamedTuple):
    """An equation whose value is a number times O, or dq, dk or dv of a cotangent."""

    number: int
    equation: Equation
    symbol: Symbol
    ratio: float
    roles: Roles


# --- sums of products -------------------------------------------------------------------------------------------------


def of(symbol: Symbol, ratio: float = 1.0) -> Poly:
    """A symbol as a sum of products."""
    return {frozenset(((symbol, 1),)): ratio}


def number(value: float) -> Poly:
    """A number as one."""
    return {frozenset(): value} if value else {}


def plus(x: Poly, y: Poly, ratio: float = 1.0) -> Poly:
    """x + ratio y; what cancels up to rounding is gone."""
    total = dict(x)
    for term, c in y.items():
        before = total.pop(term, 0.0)
        after = before + ratio * c
        if abs(after) > SAME * max(abs(before), abs(c)):
            total[term] = after
    return total


def times(x: Poly, y: Poly) -> Poly:
    """x y."""
    total: Poly = {}
    for a, c in x.items():
        for b, d in y.items():
            powers = dict(a)
            for symbol, power in b:
                powers[symbol] = powers.get(symbol, 0) + power
            term = frozenset((s, p) for s, p in powers.items() if p)
            total = plus(total, {term: c * d})
    return total


def inverse(x: Poly) -> Poly | None:
    """1 / x, of one product of what is a number for each row."""
    if len(x) != 1:
        return None
    ((term, c),) = x.items()
    if any(s != N for s, _ in term):
        return None
    return {frozenset((s, -p) for s, p in term): 1 / c}


def single(x: Poly) -> tuple[Symbol, float] | None:
    """The symbol and number of which x is the product."""
    if len(x) != 1:
        return None
    ((term, c),) = x.items()
    return (next(iter(term))[0], c) if len(term) == 1 and next(iter(term))[1] == 1 else None


def unified(x: Roles, y: Roles) -> Roles | None:
    """The roles of the axes of two arrays that are combined element by element; None if they differ."""
    if len(x) != len(y) or any(a != b and "?" not in (a, b) for a, b in zip(x, y, strict=True)):
        return None
    return tuple([b if a == "?" else a for a, b in zip(x, y, strict=True)])


# --- one softmax, and what is computed from it ------------------------------------------------------------------------


@dataclass(eq=False)
class Softmax:
    """A softmax of scores q k' over one axis, and the values known by it.

    lead: the roles of heads and batch; the first `n_batch` of them are axes of keys, too, the others of queries alone.
    """

    made: Mapping[Atom, Equation]
    product: Equation
    scores: Atom
    roles: Roles
    sizes: dict[Role, int]
    q: Operand
    k: Operand
    lead: tuple[Role, ...]
    n_batch: int
    factor: float
    mask: Atom | None = None  # of the shape of the scores
    inverted: bool = False  # the mask is True where a query may not look
    added: bool = False  # the mask is added
    v: Operand | None = None
    known: dict[Atom, Value] = field(default_factory=dict)
    tops: set[Atom] = field(default_factory=set)
    logs: set[Atom] = field(default_factory=set)  # logarithms of the sum of exponentials of scores
    shifted: set[Atom] = field(default_factory=set)  # scores without their maximum
    guards: dict[Atom, int] = field(default_factory=dict)  # conditions on the sum, and the branch where it is not zero
    plain_top: bool = True
    plain_sum: bool = True
    cotangents: dict[Atom, Mapping[Role, int]] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    @property
    def batch(self) -> tuple[Role, ...]:
        """The roles that queries and keys both have."""
        return self.lead[: self.n_batch]

    # --- values that are not known yet --------------------------------------------------------------------------------

    def resolve(self, atom: Atom, roles: Roles) -> Poly | None:
        """What a value is that is combined with one of these roles."""
        value = self.known.get(atom)
        if value is not None:
            return value.poly if unified(value.roles, roles) is not None else None
        constant = scalar(atom)
        if constant is not None:
            return number(float(constant)) if np.isfinite(constant) else None
        maker = self.made.get(atom)
        if maker is not None and maker.prim is neg_p:
            inner = self.resolve(maker.inputs[0], roles)
            return None if inner is None else plus({}, inner, -1.0)
        if maker is not None and maker.prim is broadcast_in_dim_p and type(maker.inputs[0]) is Literal:
            return self.resolve(maker.inputs[0], ())
        if maker is not None and maker.prim is permute_dims_p and "?" not in roles:
            axes = maker.params["axes"]
            return self.resolve(maker.inputs[0], tuple([roles[axes.index(i)] for i in range(len(axes))]))
        if "k" in roles or "?" in roles:
            found = self._of_values(maker, roles)
            if found is not None or "k" in roles:
                return found
        return self._cotangent(atom, tuple(["f" if r == "?" else r for r in roles]))

    def _cotangent(self, atom: Atom, roles: Roles) -> Poly | None:
        if type(atom) is Literal or sorted(map(str, roles)) != sorted(map(str, (*self.lead, "q", "f"))):
            return None
        ct = operand(self.made, atom, {r: i for i, r in enumerate(roles)})
        return of(("C", ct.atom)) if self.cotangents.setdefault(ct.atom, ct.axes) == ct.axes else None

    def _of_values(self, maker: Equation | None, roles: Roles) -> Poly | None:
        """D, as the product of a cotangent with the values."""
        roles = tuple(["k" if r == "?" else r for r in roles])
        if maker is None or maker.prim is not dot_general_p or roles.count("k") != 1:
            return None
        product = Product(maker)
        if len(roles) != product.rank or len(product.contract[0]) != 1 or (
            maker.outputs[0].aval.shape[roles.index("k")] != self.sizes["k"]
        ):
            return None
        if set(roles[: product.n_batch]) != set(self.batch):
            return None
        side = product.side_of(roles.index("k"))
        if side is None or len(product.free[side]) != 1:
            return None
        axes = [product.roles_of(s, roles, ("f",)) for s in (0, 1)]
        v = operand(self.made, maker.inputs[side], axes[side])
        if self.v is not None and self.v != v:
            return None
        other = maker.inputs[1 - side]
        there = tuple(sorted(axes[1 - side], key=axes[1 - side].__getitem__))
        value = self.known.get(other)
        if value is not None and single(value.poly) != (OUT, 1.0):
            found = value.poly if unified(value.roles, there) is not None else None
        else:
            found = self._cotangent(other, there)
        if found is None or any(not has(term, "C") for term in found):
            return None
        self.v = v
        return {_renamed(term, "C", "D"): c for term, c in found.items()}

    # --- products -----------------------------------------------------------------------------------------------------

    def product_of(self, eqn: Equation) -> Value | None:
        """O, dq, dk or dv."""
        product = Product(eqn)
        for side in (0, 1):
            value = self.known.get(eqn.inputs[side])
            if value is None or not {"q", "k"} <= set(value.roles):
                continue
            batch = {value.roles[a] for a in product.batch[side]}
            summed = {value.roles[a] for a in product.contract[side]}
            if batch != set(self.batch) or len(product.free[1 - side]) != 1:
                return None
            pairs = [*zip(product.batch[side], product.batch[1 - side], strict=True),
                     *zip(product.contract[side], product.contract[1 - side], strict=True)]
            axes: dict[Role, int] = {value.roles[a]: b for a, b in pairs}
            of_keys = summed == {"k"}
            if not of_keys and summed != {*self.lead[self.n_batch :], "q"}:
                return None
            free = product.free[1 - side][0]
            found = self._product(value.poly, of_keys, eqn.inputs[1 - side], axes, free)
            if found is None:
                return None
            poly, last = found
            heads: list[Role] = [value.roles[a] for a in product.batch[side]]
            rest: list[Role] = [value.roles[a] for a in product.free[side]]
            return Value((*heads, *(rest if side == 0 else ()), last, *(rest if side == 1 else ())), poly)
        return None

    def _product(self, poly: Poly, of_keys: bool, atom: Atom, axes: dict[Role, int], free: int) -> Any:
        """The sums over keys, or over queries, of a known value times an operand; and the role of its free axis."""
        if not poly:
            return None
        if all(power_of(t, W) == 1 and not has(t, "D", "T") for t in poly):
            axes["f"] = free
            found = (self._values if of_keys else self._to_values)(poly, atom, axes)
            return None if found is None else (found, "f")
        ct = self.gradient_of_scores(poly)
        axes["e"] = free
        if ct is None or operand(self.made, atom, axes) != (self.k if of_keys else self.q):
            return None
        return of(("dq" if of_keys else "dk", ct[0]), ct[1]), "e"

    def _values(self, poly: Poly, atom: Atom, axes: Mapping[Role, int]) -> Poly | None:
        v = operand(self.made, atom, axes)
        if self.v is None:
            self.v = v
        return {_swapped(t, W, OUT): c for t, c in poly.items()} if self.v == v else None

    def _to_values(self, poly: Poly, atom: Atom, axes: Mapping[Role, int]) -> Poly | None:
        roles = tuple(sorted(axes, key=axes.__getitem__))
        value = self.known.get(atom)
        if value is None or single(value.poly) == (OUT, 1.0):
            found = self._cotangent(atom, roles)
        else:
            found = value.poly if unified(value.roles, roles) is not None else None
        if not found or len(found) != 1 or not all(has(t, "C") for t in found):
            return None
        whole = times({frozenset(p for p in t if p[0] != W): c for t, c in poly.items()}, found)
        return {_renamed(t, "C", "dv"): c for t, c in whole.items()}

    def gradient_of_scores(self, poly: Poly) -> tuple[Atom, float] | None:
        """The cotangent and number c of which this is c (W D - W T)."""
        if len(poly) != 2:
            return None
        cts = {s[1] for t in poly for s, _ in t if s[0] in ("D", "T")}
        if len(cts) != 1:
            return None
        (ct,) = cts
        ratio = poly.get(frozenset(((W, 1), (("D", ct), 1))), 0.0)
        other = poly.get(frozenset(((W, 1), (("T", ct), 1))), 0.0)
        return (ct, ratio) if ratio and abs(ratio + other) <= SAME * abs(ratio) else None


def operand(made: Mapping[Atom, Equation], atom: Atom, axes: Mapping[Role, int]) -> Operand:
    """An array and its axes, before it was transposed."""
    maker = made.get(atom)
    if maker is None or maker.prim is not permute_dims_p:
        return Operand(atom, axes)
    order = maker.params["axes"]
    return operand(made, maker.inputs[0], {r: order[a] for r, a in axes.items()})


class Product:
    """The axes of a dot_general: `contract`, `batch` and `free` are of the left and the right operand."""

    def __init__(self, eqn: Equation):
        self.contract, self.batch = eqn.params["contract"], eqn.params["batch"]
        self.free = [[a for a in range(len(x.aval.shape)) if a not in self.contract[s] and a not in self.batch[s]]
                     for s, x in enumerate(eqn.inputs)]
        self.n_batch = len(self.batch[0])
        self.rank = self.n_batch + len(self.free[0]) + len(self.free[1])

    def side_of(self, axis: int) -> int | None:
        """Which operand an axis of the result is a free axis of; None for a batch axis."""
        if axis < self.n_batch:
            return None
        return 0 if axis < self.n_batch + len(self.free[0]) else 1

    def roles_of(self, side: int, roles: Sequence[Role], contracted: Sequence[Role]) -> dict[Role, int]:
        """The axes of an operand by role, by the roles of the result's axes."""
        start = self.n_batch + (len(self.free[0]) if side else 0)
        found = dict(zip(roles, self.batch[side], strict=False))
        found.update(zip(roles[start:], self.free[side], strict=False))
        found.update(zip(contracted, self.contract[side], strict=True))
        return found


def power_of(term: Any, symbol: Symbol) -> int:
    """The power of a symbol in a product."""
    return next((p for s, p in term if s == symbol), 0)


def has(term: Any, *letters: str) -> bool:
    """Whether a product has a symbol of one of these letters."""
    return any(s[0] in letters for s, _ in term)


def _swapped(term: Any, old: Symbol, new: Symbol) -> Any:
    return frozenset((new if s == old else s, p) for s, p in term)


def _renamed(term: Any, old: str, new: str) -> Any:
    return frozenset(((new, *s[1:]) if s[0] == old else s, p) for s, p in term)

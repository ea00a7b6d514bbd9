# SPDX-License-Identifier: MIT
"""Random kernels for the tests of the compiler: a Hypothesis strategy of `Case`s, built with `Builder`.

Every operation in them is exact in IEEE arithmetic, so results must agree to the bit, but for sums and products that a
vector loop adds up in an order of its own: those go to outputs of their own, beside the sum of their magnitudes.
"""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Function, Index, Value
from functorch_lite.compiler.loop_ir.numpy_ops import DTYPES
from functorch_lite.compiler.loop_ir.printer import function_text

FLOATS = ("f16", "bf16", "f32", "f64")
KINDS = ("bool", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", *FLOATS)
SIZE = 40
EXTENTS = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33)
MOST_ITERATIONS = 600
_ARITHMETIC = ("add", "sub", "mul", "div", "max", "min")
_FLOAT_UNARY = ("neg", "abs", "sqrt", "floor", "trunc")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_COMBINE = {"float": ("max", "min"), "bool": ("and", "or", "xor"),
            "integer": ("add", "mul", "max", "min", "and", "or", "xor")}


class Case(NamedTuple):
    """A kernel, what to run it on, and the outputs that are sums: (output, sum of magnitudes, terms)."""

    function: Function
    arrays: list[np.ndarray]
    sums: list[tuple[int, int, int]]

    def __repr__(self):
        return function_text(self.function)


class Scope(NamedTuple):
    """A variable that an expression may use: its index, how many values it takes, and whether lanes differ in it."""

    index: Index
    extent: int
    varies: bool


def family(kind: str) -> str:
    """float, bool or integer."""
    return "float" if kind in FLOATS else kind if kind == "bool" else "integer"


class Maker:
    """Draws one kernel."""

    def __init__(self, draw: Any):
        self.draw = draw
        self.b = Builder("kernel")
        self.random = np.random.default_rng(draw(st.integers(0, 1 << 20)))
        self.arrays: dict[Buffer, np.ndarray] = {}
        self.inputs: dict[str, Buffer] = {}
        self.scope: list[Scope] = []
        self.carried: list[tuple[Value, bool]] = []
        self.vector = False  # whether a vector loop is open
        self.sums: list[tuple[Buffer, Buffer, int]] = []

    def pick(self, options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def kind(self) -> str:
        return self.pick(KINDS)

    # --- buffers ------------------------------------------------------------------------------------------------------

    def input(self, kind: str) -> Buffer:
        if kind not in self.inputs:
            self.inputs[kind] = buffer = self.b.input(f"x_{kind}", kind, SIZE)
            self.arrays[buffer] = some_numbers(self.random, kind, SIZE)
        return self.inputs[kind]

    def positions(self) -> Buffer:
        """An input whose elements are positions in other buffers."""
        kind = self.pick(("i64", "i32", "u8", "u64"))
        name = f"at_{kind}"
        if name not in self.inputs:
            self.inputs[name] = buffer = self.b.input(name, kind, SIZE)
            self.arrays[buffer] = self.random.integers(0, SIZE, SIZE).astype(DTYPES[kind])
        return self.inputs[name]

    def output(self, kind: str, size: int) -> Buffer:
        buffer = self.b.output(f"out{len(self.b.function.params)}", kind, size)
        self.arrays[buffer] = some_numbers(self.random, kind, size)
        return buffer

    # --- expressions --------------------------------------------------------------------------------------------------

    def affine(self, uniform: bool) -> Index:
        """A position in an input, linear in some of the variables."""
        total, low, high = ZERO, 0, 0
        for s in self.scope:
            c = self.pick((1, 0, 2, -1, 3))
            ends = (0, c * (s.extent - 1))
            if (s.varies and uniform) or high - low + abs(ends[1]) >= SIZE:
                continue
            total, low, high = total + s.index * c, low + min(ends), high + max(ends)
        return total + (-low + self.draw(st.integers(0, SIZE - 1 - (high - low))))

    def position(self, uniform: bool) -> Index:
        if self.pick((True, True, False)):
            return self.affine(uniform)
        return Index.of(self.b.load(self.positions(), self.affine(uniform)))

    def leaf(self, kind: str, uniform: bool) -> Value:
        known = [v for v, varies in self.carried if v.kind == kind and not (varies and uniform)]
        choice = self.pick(("load", "load", "load", "constant", "known", "index"))
        if choice == "known" and known:
            return self.pick(known)
        if choice == "constant":
            return self.constant(kind)
        if choice == "index" and kind in ("i64", "i32", "u8"):
            return self.b.value_of(self.affine(uniform), kind)
        return self.b.load(self.input(kind), self.position(uniform))

    def constant(self, kind: str) -> Value:
        if kind == "bool":
            return self.b.constant(self.draw(st.booleans()), kind)
        if kind in FLOATS:
            return self.b.constant(self.pick((0.0, -0.0, 1.0, -2.5, 0.1, 1e30, float("inf"), float("nan"))), kind)
        info = np.iinfo(DTYPES[kind])
        return self.b.constant(int(self.pick((0, 1, 3, info.min, info.max, info.max // 2 + 1))), kind)

    def value(self, kind: str, depth: int = 2, uniform: bool = False) -> Value:
        """A random expression of a kind."""
        if depth == 0:
            return self.leaf(kind, uniform)
        how = self.pick(("leaf", "operation", "operation", "select", "convert", "unary"))
        if how == "leaf":
            return self.leaf(kind, uniform)
        if how == "select":
            condition = self.value("bool", depth - 1, uniform)
            return self.b.op("select", condition, *[self.value(kind, depth - 1, uniform) for _ in range(2)])
        if how == "convert":
            return self.b.op("convert", self.value(self.kind(), depth - 1, uniform), kind=kind)
        if how == "unary":
            return self.unary(kind, depth - 1, uniform)
        return self.operation(kind, depth - 1, uniform)

    def unary(self, kind: str, depth: int, uniform: bool) -> Value:
        if kind in FLOATS:
            return self.b.op(self.pick(_FLOAT_UNARY), self.value(kind, depth, uniform))
        if kind == "bool":
            of = self.pick(FLOATS)
            return self.b.op(self.pick(("is_nan", "is_finite")), self.value(of, depth, uniform))
        if self.pick((True, False)):
            same_width = {"u32": "f32", "i32": "f32", "i64": "f64", "u64": "f64", "i16": "f16", "u16": "bf16"}
            source = same_width.get(kind, "i8" if kind == "u8" else "u8")
            return self.b.op("bitcast", self.b.load(self.input(source), self.affine(uniform)), kind=kind)
        return self.b.op(self.pick(("neg", "abs", "not")), self.value(kind, depth, uniform))

    def operation(self, kind: str, depth: int, uniform: bool) -> Value:
        if kind == "bool":
            if self.pick((True, False)):
                of = self.kind()
                return self.b.op(self.pick(_COMPARISONS), *[self.value(of, depth, uniform) for _ in range(2)])
            names = ("and", "or", "xor", "max", "min", "add", "mul")
        elif kind in FLOATS:
            names = (*_ARITHMETIC, "rem", "fma") if kind == "f32" else _ARITHMETIC
        else:
            names = (*_ARITHMETIC, "rem", "and", "or", "xor", "shl", "shr")
        name = self.pick(names)
        return self.b.op(name, *[self.value(kind, depth, uniform) for _ in range(3 if name == "fma" else 2)])

    # --- statements ---------------------------------------------------------------------------------------------------

    def iterations(self) -> int:
        return int(np.prod([s.extent for s in self.scope], initial=1))

    def store(self, value: Value) -> Buffer:
        """Store to a place of its own for each iteration of the loops around."""
        buffer = self.output(value.kind, self.iterations())
        index, step = ZERO, 1
        for s in reversed(self.scope):
            index, step = index + s.index * step, step * s.extent
        self.b.store(buffer, index, value)
        return buffer

    def statements(self, depth: int) -> None:
        for _ in range(self.draw(st.integers(1, 2))):
            kinds = ("store", "loop", "reduce", "fold", "branch", "while", "dynamic", "move", "exit")
            getattr(self, self.pick(kinds) + "_")(depth) if depth else self.store_(0)

    def store_(self, depth: int) -> None:
        self.store(self.value(self.kind()))

    def extent(self) -> int:
        fitting = [n for n in EXTENTS if n * self.iterations() <= MOST_ITERATIONS] or [1]
        return self.pick(fitting)

    def loop_(self, depth: int) -> None:
        extent, vector = self.extent(), self.draw(st.booleans())
        with self.b.loop(extent, vector=vector) as i, Inside(self, i, extent, vector):
            self.statements(depth - 1)

    def dynamic_(self, depth: int) -> None:
        """A loop of zero to four iterations, as many as data say."""
        count = self.b.op("rem", self.b.load(self.input("u8"), self.affine(True)), self.b.constant(5, "u8"))
        with self.b.loop(self.b.op("convert", count, kind="i64")) as i, Inside(self, i, 4, False):
            self.statements(depth - 1)

    def reduce_(self, depth: int) -> None:
        """A vector loop that combines an expression."""
        kind, extent = self.kind(), self.extent()
        if kind in FLOATS and self.pick((True, False)):
            self.sum_(kind, extent)
            return
        combine = self.pick(_COMBINE[family(kind)])

        def body(i, total):
            with Inside(self, i, extent, True):
                return [self.b.op(combine, *self.either_way(total, self.value(kind)))]

        initial = self.value(kind, 1)
        [total] = self.b.reduce(extent, [initial], body, combine=[combine], vector=True)
        self.store(total if kind not in FLOATS else self.b.op("add", total, self.b.constant(0.0, kind)))

    def sum_(self, kind: str, extent: int) -> None:
        """Sums of floats and of their magnitudes."""

        def body(i, total, magnitude):
            with Inside(self, i, extent, True):
                value = self.value(kind)
            return [self.b.op("add", *self.either_way(total, value)),
                    self.b.op("add", magnitude, self.b.op("abs", value))]

        zero = self.b.constant(0.0, kind)
        total, magnitude = self.b.reduce(extent, [zero, zero], body, combine=["add", "add"], vector=True)
        self.sums.append((self.store(total), self.store(magnitude), extent))

    def either_way(self, a: Value, b: Value) -> tuple[Value, Value]:
        return (a, b) if self.draw(st.booleans()) else (b, a)

    def fold_(self, depth: int) -> None:
        """A serial loop that carries two values of any kinds."""
        kinds, extent = [self.kind(), self.kind()], self.extent()

        def body(i, *values):
            with Inside(self, i, extent, False, values):
                if depth > 1:
                    self.statements(depth - 1)
                return [self.value(k) for k in kinds]

        for value in self.b.reduce(extent, [self.value(k, 1) for k in kinds], body):
            self.store(value)

    def branch_(self, depth: int) -> None:
        kind = self.kind()

        def block():
            self.statements(depth - 1)
            return [self.value(kind)]

        [value] = self.b.branch(self.value("bool", uniform=True), block, block)
        self.store(value)

    def while_(self, depth: int) -> None:
        """A loop that counts to at most four, or until a condition of data."""
        kind = self.kind()
        count = self.b.constant(0, "i64")

        def test(k, value):
            return self.b.op("and", self.b.op("lt", k, self.b.constant(4, "i64")), self.value("bool", uniform=True))

        def body(k, value):
            self.carried.append((value, self.vector))
            self.statements(depth - 1)
            following = self.value(kind)
            self.carried.pop()
            return [self.b.op("add", k, self.b.constant(1, "i64")), following]

        for value in self.b.loop_while([count, self.value(kind, 1)], test, body):
            self.store(value)

    def move_(self, depth: int) -> None:
        """A local filled, copied into and read back."""
        kind, count = self.kind(), self.pick((1, 2, 5, 8, 16, 33, SIZE))
        local = self.b.local(f"t{len(self.b.function.locals)}", kind, SIZE)
        self.b.fill(local, SIZE)
        start, at = (self.draw(st.integers(0, SIZE - count)) for _ in range(2))
        self.b.copy(local, self.input(kind), count, Index(at), Index(start))
        self.store(self.b.load(local, self.position(False)))

    def exit_(self, depth: int) -> None:
        """An exit that data may take; in a vector loop it would be open which iterations come before."""
        if not self.vector:
            self.b.branch(self.value("bool"), lambda: self.b.exit(self.draw(st.integers(1, 9))))
        self.store_(depth)

    def case(self) -> Case:
        self.statements(3)
        function = self.b.finish()
        where = {buffer: k for k, buffer in enumerate(function.params)}
        return Case(function, [self.arrays[p] for p in function.params],
                    [(where[a], where[b], n) for a, b, n in self.sums])


class Inside:
    """Within it the maker may use a loop's variable and what the loop carries."""

    def __init__(self, maker: Maker, index: Index, extent: int, vector: bool, carried: Any = ()):
        self.maker = maker
        self.before = maker.scope, maker.carried, maker.vector
        self.scope = [*maker.scope, Scope(index, extent, vector)]
        self.carried = [*maker.carried, *((v, maker.vector) for v in carried)]
        self.vector = vector or maker.vector

    def __enter__(self):
        self.maker.scope, self.maker.carried, self.maker.vector = self.scope, self.carried, self.vector

    def __exit__(self, *_):
        self.maker.scope, self.maker.carried, self.maker.vector = self.before


def some_numbers(random: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """Numbers of a kind: small ones, and some at the ends of its range."""
    dtype = DTYPES[kind]
    if kind == "bool":
        return random.integers(0, 2, size).astype(bool)
    if kind in FLOATS:
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 65504.0, 3e38, -1.5, 300.0, 2.0**31, -(2.0**63)])
        ordinary = np.round(random.normal(size=size) * 8, 2)
        with np.errstate(over="ignore"):
            return np.where(random.random(size) < 0.15, random.choice(special, size), ordinary).astype(dtype)
    info = np.iinfo(dtype)
    ordinary = random.integers(max(int(info.min), -9), 10, size).astype(dtype)
    ends = random.choice(np.array([info.min, info.max, info.max // 2 + 1, info.max - 1], dtype), size)
    return np.where(random.random(size) < 0.15, ends, ordinary)


@st.composite
def random_cases(draw: Any) -> Case:
    """Kernels with loops, vector loops, reductions, branches and gathers, of all kinds."""
    return Maker(draw).case()

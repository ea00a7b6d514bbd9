# SPDX-License-Identifier: MIT
"""Random programs over `fl.numpy`, from lists of small integers, so that a failing one shrinks.

A program is a list of steps: each step applies one function of `STEPS` to values made so far, or does nothing where it
does not fit. A value is exact where IEEE arithmetic determines it bit by bit; what jumps (comparisons, rounding, casts
to integers, orders) is applied to exact values only, so that every program is continuous in what may differ.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite import numpy as fnp

DTYPES = [
    np.dtype(t)
    for t in ("f8", "f4", "i8", "?", "i4", "c16", "f2", ml_dtypes.bfloat16, "u1", "i2", "u4", "c8", "u8", "i1")
]
SHAPES = [
    (3,), (2, 3), (), (7,), (1, 3), (3, 1), (2, 3, 7), (16,), (3, 17), (0,), (2, 0, 3), (33, 2), (3, 3), (7, 1, 2),
    (100,), (1, 1), (17, 3, 2), (2, 1, 3, 2),
]  # fmt: skip
LARGE_SHAPES = [
    (300, 257), (1, 257), (300, 1), (257,), (), (2, 150, 257), (70000,), (66000, 2), (2, 40000), (300,), (2,),
]  # fmt: skip
MOST = 4096  # elements of a value
MOST_LARGE = 200_000


class Entry(NamedTuple):
    """A value of the program being made, and whether it is exact."""

    value: Any
    exact: bool


Step = Callable[["Maker", int, int, int], Entry | None]


class Maker:
    """The values so far; `pick(k)` is the k-th latest."""

    def __init__(self, entries: Sequence[Entry], most: int):
        self.entries = list(entries)
        self.most = most

    def pick(self, k: int) -> Entry:
        return self.entries[-1 - k % len(self.entries)]

    def like(self, entry: Entry, k: int) -> Entry:
        """A value of the dtype of `entry` that broadcasts with it; itself if there is no other."""
        x = entry.value
        fits = [e for e in self.entries if e.value.dtype == x.dtype and _broadcasts(e.value, x, self.most)]
        return fits[-1 - k % len(fits)]


def _broadcasts(a, b, most):
    shapes = zip(reversed(a.shape), reversed(b.shape), strict=False)
    if any(m != n and 1 not in (m, n) for m, n in shapes):
        return False
    return int(np.prod(np.broadcast_shapes(a.shape, b.shape))) <= most


def kind(value: Any) -> str:
    """b, i, f or c, whatever the width."""
    dtype = np.dtype(value.dtype)
    return {"u": "i", "V": "f"}.get(dtype.kind, dtype.kind)


def real_bytes(value: Any) -> int:
    """The size of a real part."""
    return np.dtype(value.dtype).itemsize // (2 if kind(value) == "c" else 1)


def axis_of(value: Any, k: int) -> int:
    """An axis of a value that has some."""
    return k % value.ndim


def axes_of(value: Any, k: int) -> tuple[int, ...]:
    """A subset of the axes."""
    return tuple(d for d in range(value.ndim) if k >> d & 1)


STEPS: dict[str, Step] = {}


def step(name: str, kinds: str = "bifc", exact: bool = True, ndim: int = 0, filled: bool = False):
    """File a function (maker, value, its entry, b, c) -> value under a name, for values of these kinds.

    exact: whether its result is exact where its operand is. filled: whether it needs a value that is not empty.
    """

    def file(fun):
        def run(maker: Maker, a: int, b: int, c: int) -> Entry | None:
            entry = maker.pick(a)
            x = entry.value
            if kind(x) not in kinds or x.ndim < ndim or (filled and not x.size):
                return None
            found = fun(maker, entry, b, c)
            if found is None:
                return None
            return found if isinstance(found, Entry) else Entry(found, exact and entry.exact)

        STEPS[name] = run
        return fun

    return file


# --- element by element -----------------------------------------------------------------------------------------------


def smooth(fun):
    return lambda m, e, b, c: fun(e.value)


for _name, _fun in {
    "sin": np.sin, "tanh": np.tanh, "exp": lambda x: np.exp(np.tanh(x)), "log": lambda x: np.log(x * x + 1),
    "sqrt": lambda x: np.sqrt(x * x + 1), "logistic": lax.logistic, "rsqrt": lambda x: lax.rsqrt(x * x + 1),
    "softmax": lambda x: fl.nn.softmax(x, -1) if x.ndim and x.size else None,
    "power": lambda x: (np.tanh(x) + 2) ** np.tanh(x),
    "layer_norm": lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1)
    if x.ndim and x.size else None,
}.items():  # fmt: skip
    step(_name, "f", exact=False)(smooth(_fun))
step("complex_exp", "c", exact=False)(lambda m, e, b, c: np.exp(e.value / (np.abs(e.value) + 1)))
step("complex_parts", "c")(lambda m, e, b, c: (np.real, np.imag, np.conj)[b % 3](e.value))
step("modulus", "c", exact=False)(lambda m, e, b, c: np.abs(e.value))
step("negative", "ifc")(lambda m, e, b, c: np.negative(e.value))
step("absolute", "if")(lambda m, e, b, c: np.abs(e.value))
step("square", "f")(lambda m, e, b, c: np.square(np.clip(e.value, -2, 2)))
step("invert", "bi")(lambda m, e, b, c: np.invert(e.value))


@step("add", "ifc")
def _(m, e, b, c):
    other = m.like(e, b)
    fun = (np.add, np.subtract, np.multiply)[c % 3]
    x, y = e.value, other.value
    if kind(x) == "f" and c % 3 == 2:
        y = np.clip(y, -2, 2)
    exact = e.exact and other.exact and not (kind(x) == "c" and c % 3 == 2)
    return Entry(fun(x, y), exact)


@step("divide", "f")
def _(m, e, b, c):
    other = m.like(e, b)
    return Entry(e.value / (np.abs(other.value) + 1), e.exact and other.exact)


@step("integer_divide", "i")
def _(m, e, b, c):
    other = m.like(e, b)
    return (np.floor_divide, np.remainder)[c % 2](e.value, np.abs(other.value) % 5 + 1)


@step("larger", "if")
def _(m, e, b, c):
    other = m.like(e, b)
    return Entry((np.maximum, np.minimum)[c % 2](e.value, other.value), e.exact and other.exact)


@step("bits", "bi")
def _(m, e, b, c):
    return (np.bitwise_and, np.bitwise_or, np.bitwise_xor)[c % 3](e.value, m.like(e, b).value)


@step("compare", "bif")
def _(m, e, b, c):
    other = m.like(e, b)
    if not (e.exact and other.exact):
        return None
    return (np.less, np.greater_equal, np.equal, np.not_equal)[c % 4](e.value, other.value)


@step("where", "bifc")
def _(m, e, b, c):
    other = m.like(e, b)
    shape = np.broadcast_shapes(e.value.shape, other.value.shape)
    masks = [x for x in m.entries if x.value.dtype == bool and x.value.shape in (shape, (), (1,) * len(shape))]
    if not masks:
        return None
    return Entry(np.where(masks[c % len(masks)].value, e.value, other.value), e.exact and other.exact)


@step("round", "f")
def _(m, e, b, c):
    return (np.floor, np.ceil, np.sign, np.trunc)[c % 4](e.value) if e.exact else None


@step("cast", "bifc")
def _(m, e, b, c):
    dtype = DTYPES[b % len(DTYPES)]
    source, target = kind(e.value), kind(np.empty(0, dtype))
    if source == "c" and target != "c":
        return None
    if not e.exact and target in "fc" and real_bytes(np.empty(0, dtype)) >= real_bytes(e.value):
        return None  # no more digits come with a wider type
    if target in "bi" and source == "f":
        return np.clip(e.value, 0, 100).astype(dtype) if e.exact else None
    return e.value.astype(dtype)


# --- movement ---------------------------------------------------------------------------------------------------------

step("reverse", ndim=1)(lambda m, e, b, c: np.flip(e.value, axis_of(e.value, b)))
step("ravel")(lambda m, e, b, c: e.value.reshape(-1))
step("new_axis")(lambda m, e, b, c: np.expand_dims(e.value, b % (e.value.ndim + 1)) if e.value.ndim < 5 else None)
step("squeeze")(lambda m, e, b, c: np.squeeze(e.value))
step("triangle", "bif", ndim=2)(lambda m, e, b, c: (np.tril, np.triu)[c % 2](e.value, b % 3 - 1))
step("roll", ndim=1)(lambda m, e, b, c: np.roll(e.value, c % 5 - 2, axis_of(e.value, b)))


@step("transpose", ndim=2)
def _(m, e, b, c):
    axes = list(range(e.value.ndim))
    axes.insert(c % len(axes), axes.pop(b % len(axes)))
    return np.transpose(e.value, axes)


@step("merge_axes", ndim=2)
def _(m, e, b, c):
    shape = e.value.shape
    d = b % (len(shape) - 1)
    return e.value.reshape(*shape[:d], shape[d] * shape[d + 1], *shape[d + 2 :])


@step("split_axis", ndim=1)
def _(m, e, b, c):
    shape, d = e.value.shape, axis_of(e.value, b)
    factor = next((f for f in (2, 3, 5, 7, 11) if shape[d] and shape[d] % f == 0), None)
    if factor is None or e.value.ndim > 4:
        return None
    return e.value.reshape(*shape[:d], shape[d] // factor, factor, *shape[d + 1 :])


@step("slice", ndim=1)
def _(m, e, b, c):
    d = axis_of(e.value, b)
    part = (slice(1, None), slice(None, -1), slice(None, None, 2), slice(None, None, -1), slice(2, 5), 0)[c % 6]
    if part == 0 and not e.value.shape[d]:
        return None
    return e.value[(*[slice(None)] * d, part)]


@step("broadcast")
def _(m, e, b, c):
    n = (2, 3, 5)[b % 3]
    if e.value.size * n > m.most or e.value.ndim > 4:
        return None
    return np.broadcast_to(e.value, (n, *e.value.shape))


@step("concatenate", ndim=1)
def _(m, e, b, c):
    d = axis_of(e.value, b)
    others = [
        o for o in m.entries if o.value.dtype == e.value.dtype and o.value.ndim == e.value.ndim
        and all(p == q for k, (p, q) in enumerate(zip(o.value.shape, e.value.shape, strict=True)) if k != d)
    ]
    chosen = [e, others[c % len(others)]] + ([e] if c % 2 else [])
    if sum(o.value.size for o in chosen) > m.most:
        return None
    return Entry(np.concatenate([o.value for o in chosen], d), all(o.exact for o in chosen))


@step("pad", ndim=1)
def _(m, e, b, c):
    width = [(0, 0)] * e.value.ndim
    width[axis_of(e.value, b)] = (c % 3, (c + b) % 2)
    return np.pad(e.value, width) if e.value.size < m.most // 2 else None


# --- reductions -------------------------------------------------------------------------------------------------------


@step("sum", "ifc", exact=False)
def _(m, e, b, c):
    axes = axes_of(e.value, b)
    found = np.sum(e.value, axis=axes, keepdims=bool(c % 2))
    if kind(e.value) == "i":
        return Entry(found, e.exact)
    return found / np.asarray(max(1.0, e.value.size / max(1, found.size))).astype(e.value.dtype)


@step("extremum", "if", filled=True)
def _(m, e, b, c):
    return (np.max, np.min)[c % 2](e.value, axis=axes_of(e.value, b), keepdims=bool(c >> 1 & 1))


@step("any", "b")
def _(m, e, b, c):
    return (np.any, np.all)[c % 2](e.value, axis=axes_of(e.value, b), keepdims=bool(c >> 1 & 1))


step("prod", "f", exact=False)(lambda m, e, b, c: np.prod(np.clip(e.value, -1, 1), axis=axes_of(e.value, b)))
step("logsumexp", "f", exact=False, filled=True, ndim=1)(
    lambda m, e, b, c: fl.scipy.special.logsumexp(e.value, axis=axis_of(e.value, b)))
step("argmax", "if", filled=True, ndim=1)(
    lambda m, e, b, c: (np.argmax, np.argmin)[c % 2](e.value, axis_of(e.value, b)) if e.exact else None)
step("cumsum", "i", ndim=1)(lambda m, e, b, c: np.cumsum(e.value, axis_of(e.value, b)))
step("float_cumsum", "f", exact=False, ndim=1)(
    lambda m, e, b, c: np.cumsum(e.value, axis_of(e.value, b)) / (e.value.shape[b % e.value.ndim] + 1))
step("cummax", "if", ndim=1, filled=True)(lambda m, e, b, c: np.maximum.accumulate(e.value, axis_of(e.value, b)))
step("sort", "bif", ndim=1)(lambda m, e, b, c: np.sort(e.value, axis_of(e.value, b)))
step("argsort", "bif", ndim=1)(
    lambda m, e, b, c: np.argsort(e.value, axis_of(e.value, b), kind="stable") if e.exact else None)


# --- products and gathers ---------------------------------------------------------------------------------------------


@step("matmul", "ifc", exact=False, ndim=1)
def _(m, e, b, c):
    fits = [o for o in m.entries if o.value.dtype == e.value.dtype and o.value.ndim in (1, 2)
            and o.value.shape[0] == e.value.shape[-1]]
    if not fits:
        return None
    other = fits[b % len(fits)]
    return Entry(e.value @ np.clip(other.value, -1, 1) if kind(e.value) == "f" else e.value @ other.value,
                 kind(e.value) == "i")


@step("outer", "ifc", ndim=1)
def _(m, e, b, c):
    x = e.value.reshape(-1)[:20]
    return Entry(np.einsum("i,j->ij", x, x), e.exact and kind(x) == "i")


@step("take", filled=True, ndim=1)
def _(m, e, b, c):
    d = axis_of(e.value, b)
    indices = [o for o in m.entries if kind(o.value) == "i" and o.value.ndim <= 2 and o.value.size <= 50]
    if not indices or e.value.size * 50 > 10 * m.most:
        return None
    return np.take(e.value, indices[c % len(indices)].value.astype(np.int64) % e.value.shape[d], d)


@step("put", "if", filled=True, ndim=1)
def _(m, e, b, c):
    at = fnp.at(e.value)[b % e.value.shape[0]]
    return at.add(e.value[0]) if c % 2 else at.set(e.value[-1])


@step("segment", "if", filled=True, ndim=1)
def _(m, e, b, c):
    n = e.value.shape[0]
    return fnp.at(e.value)[np.arange(n) * (b % 3) % n].add(e.value)


# --- loops and branches -----------------------------------------------------------------------------------------------


@step("scan", "f", exact=False, ndim=1)
def _(m, e, b, c):
    x = e.value
    if x.shape[0] > 20:
        return None
    start = np.zeros(x.shape[1:], x.dtype)
    bodies = (
        lambda s, v: (np.tanh(s + v), s * v), lambda s, v: (v, s), lambda s, v: (s, v),
        lambda s, v: (np.sin(s) + v / 2, np.sum(s * v)),
    )
    carry, ys = lax.scan(bodies[b % 4], start, x, reverse=bool(c % 2))
    return carry if c >> 1 & 1 else ys


@step("swap_scan", "if", ndim=1)
def _(m, e, b, c):
    x = e.value
    if x.shape[0] > 20:
        return None
    start = (np.zeros(x.shape[1:], x.dtype), np.ones(x.shape[1:], x.dtype), 0)
    (p, q, k), ys = lax.scan(lambda s, v: ((s[1], np.maximum(s[0], v), s[2] + 1), (s[0], v, s[2])), start, x)
    return (p, q, k, *ys)[c % 6]


@step("while", "f", exact=False)
def _(m, e, b, c):
    def body(s):
        return s[0] + 1, s[2], np.tanh(s[1] + s[2])

    return lax.while_loop(lambda s: s[0] < b % 4, body, (0, e.value, e.value * e.value.dtype.type(0.5)))[1 + c % 2]


@step("while_on_data", "f")
def _(m, e, b, c):
    if not e.exact or not e.value.size:
        return None
    x = np.clip(e.value, -2, 2)
    return lax.while_loop(lambda s: np.max(s) < 3, lambda s: s + np.max(s) * 0 + 1, x)


@step("cond", "if")
def _(m, e, b, c):
    flags = [o for o in m.entries if o.value.dtype == bool and o.value.size]
    if not flags:
        return None
    flag = flags[b % len(flags)].value.reshape(-1)[0]
    other = m.like(e, c).value
    if other.shape != e.value.shape:
        other = e.value
    return Entry(lax.cond(flag, lambda p, q: p - q, lambda p, q: q, e.value, other), False)


@step("switch", "f", exact=False)
def _(m, e, b, c):
    numbers = [o for o in m.entries if kind(o.value) == "i" and o.value.size]
    if not numbers:
        return None
    number = numbers[b % len(numbers)].value.reshape(-1)[0].astype(np.int32)
    return lax.switch(number, [np.sin, lambda v: v, lambda v: v[::-1] if v.ndim else -v], e.value)


# --- transforms -------------------------------------------------------------------------------------------------------

_ROW = (
    np.sin, lambda v: np.cumsum(v) / 10, lambda v: fl.nn.softmax(v, -1), lambda v: v * np.mean(v),
    lambda v: v[::-1] * 2,
    lambda v: lax.scan(lambda s, w: (np.tanh(s + w), s), v[0] * 0, v)[1], np.sort, lambda v: v - np.max(v),
    lambda v: lax.cond(v[0] > 100, np.sin, np.cos, v), lambda v: np.outer(v, np.sin(v)) @ v / 10,
    lambda v: v[np.array([0, -1, 0])], lambda v: np.concatenate([v, np.pad(v, 1)]),
    lambda v: lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, np.tanh(s[1])), (0, v))[1],
)  # fmt: skip


@step("grad", "f", exact=False, filled=True, ndim=1)
def _(m, e, b, c):
    x = np.clip(e.value, -2, 2)
    if x.shape[-1] > 20 or x.dtype.itemsize < 4:
        return None
    if not e.exact and b % len(_ROW) in (6, 7, 8):
        return None  # a derivative of a sort, maximum or branch jumps
    fun = _ROW[b % len(_ROW)]
    rows = fun if x.ndim == 1 else fl.vmap(fun)
    if x.ndim > 2:
        return None
    first = fl.grad(lambda v: np.sum(np.sin(rows(v))))
    return fl.grad(lambda v: np.sum(first(v) * v))(x) if c % 5 == 4 else first(x)


@step("vmap", "f", exact=False, filled=True, ndim=2)
def _(m, e, b, c):
    x = e.value
    if x.ndim > 2 or x.size > 200:
        return None
    return fl.vmap(_ROW[b % len(_ROW)], in_axes=c % 2)(x)


# --- programs ---------------------------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """A random program: types of its inputs, its steps, and which values it returns."""

    inputs: list[tuple[int, int]]
    steps: list[tuple[str, int, int, int]]
    outputs: list[int]
    seed: int = 0
    large: bool = False


def inputs_of(recipe: Recipe) -> list[np.ndarray]:
    """Arrays for the inputs: halves of small integers where they are floats, so that much is exact."""
    rng = np.random.default_rng(recipe.seed)
    found = []
    for s, d in recipe.inputs:
        shapes = LARGE_SHAPES if recipe.large else SHAPES
        shape, dtype = shapes[s % len(shapes)], DTYPES[d % len(DTYPES)]
        x = rng.integers(-4, 5, shape) / 2
        if dtype.kind == "c":
            x = x + 1j * rng.integers(-4, 5, shape) / 2
        if dtype.kind in "iu":
            x = np.abs(x * 2)
        found.append(np.asarray(x).astype(dtype))
    return found


def function_of(recipe: Recipe) -> tuple[Callable[..., Any], list[bool]]:
    """The function that a recipe is; calling it fills the list: which outputs are exact."""
    exact: list[bool] = []
    most = MOST_LARGE if recipe.large else MOST

    def fun(*args):
        maker = Maker([Entry(fnp.asarray(a) if not hasattr(a, "dtype") else a, True) for a in args], most)
        for name, a, b, c in recipe.steps:
            made = STEPS[name](maker, a, b, c)
            if made is not None and made.value is not None and int(np.prod(made.value.shape)) <= most:
                maker.entries.append(made)
        chosen = [maker.pick(k) for k in recipe.outputs]
        if len(chosen) % 3 == 2:
            chosen.append(Entry(np.float64(1.5), True))
        exact[:] = [e.exact for e in chosen]
        return [e.value for e in chosen]

    return fun, exact

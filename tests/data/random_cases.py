# SPDX-License-Identifier: MIT
"""The random samples kept in random_jax.npz: which function, which arguments, which shapes, dtypes and seeds.

Read by make_random_jax.py, which asks JAX, and by the tests, which ask us. An entry of the file is named

    <function>[:<variant>]/<dtype>/seed<seed>/<shape>      normal/f32/seed0/(7,)      gumbel:high/f32/seed0/(3, 5)

`-` stands for a dtype or a shape that is not passed. bfloat16 arrays are kept as their uint16 bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SEEDS = (0, 20240607)

DTYPES = {
    "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64",
    "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
}
# What JAX gives only in its 64-bit mode.
WIDE = frozenset({"f64", "i64", "u64"})

_ANY_SHAPE = ((), (0,), (7,), (3, 5))
_SOME_SHAPE = ((), (5,))
_FLOATS = ("f32", "f64")


@dataclass(frozen=True)
class Case:
    """One function with one set of arguments, over shapes and dtypes; None means the argument is not passed."""

    function: str
    variant: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    shapes: Sequence[tuple[int, ...] | None] = _SOME_SHAPE
    dtypes: Sequence[str | None] = _FLOATS
    seeds: Sequence[int] = (SEEDS[0],)

    def name(self, dtype: str | None, seed: int, shape: tuple[int, ...] | None) -> str:
        """The name of the entry in the file."""
        function = f"{self.function}:{self.variant}" if self.variant else self.function
        return f"{function}/{dtype or '-'}/seed{seed}/{'-' if shape is None else shape}"

    def keywords(self, dtype: str | None, shape: tuple[int, ...] | None) -> dict[str, Any]:
        """The keyword arguments of the call but `dtype`: lists of floats become arrays of the case's float dtype."""
        wide = "float64" if dtype == "f64" else "float32"
        given = {name: _array(value, wide) if isinstance(value, list) else value
                 for name, value in self.arguments.items()}
        return given if shape is None else {**given, "shape": shape}

    def entries(self) -> Iterator[tuple[str | None, int, tuple[int, ...] | None]]:
        """Every (dtype, seed, shape)."""
        return ((d, seed, shape) for d in self.dtypes for seed in self.seeds for shape in self.shapes)


def _array(values, wide):
    array = np.asarray(values)
    return array.astype(wide) if array.dtype.kind == "f" else array.astype("int32")


_COV = [[2.0, 0.5, 0.1], [0.5, 1.0, -0.2], [0.1, -0.2, 0.7]]
_P = [0.1, 0.0, 0.4, 0.3, 0.2]
_LOGITS = [[0.5, -1.0, 2.0, 0.0], [3.0, 0.0, -2.0, 1.0], [0.0, 0.0, 0.0, 0.0]]

CASES = (
    Case("bits", shapes=(*_ANY_SHAPE, (2, 3, 4)), dtypes=("u8", "u16", "u32", "u64"), seeds=SEEDS),
    Case("uniform", shapes=_ANY_SHAPE, dtypes=("f16", "bf16", "f32", "f64"), seeds=SEEDS),
    Case("uniform", "minus3to5", {"minval": -3.0, "maxval": 5.0}, ((7,),), ("f16", "bf16", "f32", "f64")),
    Case("normal", shapes=(*_ANY_SHAPE, (200,)), dtypes=("f32", "f64"), seeds=SEEDS),
    Case("normal", shapes=((7,), (50,)), dtypes=("f16", "bf16")),
    Case("truncated_normal", "minus1to2", {"lower": -1.0, "upper": 2.0}, _ANY_SHAPE),
    Case("truncated_normal", "tail", {"lower": [2.0, -9.0, 0.0], "upper": [2.5, -1.0, 9.0]}, ((3,), (2, 3))),
    Case("bernoulli", shapes=_ANY_SHAPE, dtypes=(None,), seeds=SEEDS),
    Case("bernoulli", "p", {"p": [0.1, 0.5, 0.9]}, (None, (4, 3)), (None,)),
    Case("bernoulli", "high", {"p": [0.1, 0.5, 0.9], "mode": "high"}, ((4, 3),), (None,)),
    Case("randint", "minus5to17", {"minval": -5, "maxval": 17}, _ANY_SHAPE, ("i8", "i16", "i32", "i64"), SEEDS),
    Case("randint", "0to200", {"minval": 0, "maxval": 200}, ((7,), (3, 5)), ("u8", "u32", "u64", "i32", "i64")),
    Case("randint", "0to256", {"minval": 0, "maxval": 256}, ((7,),), ("u8",)),
    Case("randint", "full", {"minval": -(2**31), "maxval": 2**31 - 1}, ((7,),), ("i32", "i64")),
    Case("randint", "empty", {"minval": 4, "maxval": 4}, ((7,),), ("i32",)),
    Case("randint", "arrays", {"minval": [0, 10, -3], "maxval": [5, 1000, 3]}, ((3,), (2, 3)), ("i32",)),
    Case("permutation", "7", {"x": 7}, (None,), (None,), SEEDS),
    Case("permutation", "1", {"x": 1}, (None,), (None,)),
    Case("permutation", "0", {"x": 0}, (None,), (None,)),
    Case("permutation", "2000", {"x": 2000}, (None,), (None,)),
    Case("permutation", "rows", {"x": _LOGITS}, (None,), (None,)),
    Case("permutation", "columns", {"x": _LOGITS, "axis": 1}, (None,), (None,)),
    Case("permutation", "independent", {"x": _LOGITS, "axis": 1, "independent": True}, (None,), (None,)),
    Case("choice", "int", {"a": 10}, _ANY_SHAPE, (None,)),
    Case("choice", "int_without", {"a": 10, "replace": False}, ((), (4,), (2, 5)), (None,)),
    Case("choice", "array", {"a": _LOGITS, "axis": 1}, ((), (6,)), (None,)),
    Case("choice", "array_without", {"a": _LOGITS, "axis": 1, "replace": False}, ((3,),), (None,)),
    Case("choice", "p", {"a": 5, "p": _P}, ((), (9,), (2, 3)), (None,)),
    Case("choice", "p_without", {"a": 5, "p": _P, "replace": False}, ((3,), (2, 2)), (None,)),
    Case("choice", "p_without_high", {"a": 5, "p": _P, "replace": False, "mode": "high"}, ((3,),), (None,)),
    Case("categorical", "rows", {"logits": _LOGITS}, (None, (6, 3)), (None,), SEEDS),
    Case("categorical", "columns", {"logits": _LOGITS, "axis": 0}, (None, (2, 4)), (None,)),
    Case("categorical", "without", {"logits": _LOGITS, "replace": False}, ((2, 3),), (None,)),
    Case("categorical", "high", {"logits": _LOGITS, "mode": "high"}, ((2, 3),), (None,)),
    Case("gumbel", shapes=_ANY_SHAPE, dtypes=_FLOATS),
    Case("gumbel", "high", {"mode": "high"}, ((7,), (3, 5))),
    Case("gumbel", "highest", {"mode": "highest"}, ((7,), (3, 5)), ("f32",)),
    Case("exponential", shapes=_ANY_SHAPE),
    Case("laplace", shapes=_ANY_SHAPE),
    Case("logistic", shapes=_ANY_SHAPE),
    Case("cauchy", shapes=_ANY_SHAPE),
    Case("gamma", "a", {"a": [0.1, 0.7, 1.0, 2.5, 30.0]}, (None, (4, 5)), seeds=SEEDS),
    Case("gamma", "scalar", {"a": 0.5}, ((), (0,), (7,))),
    Case("loggamma", "a", {"a": [0.01, 0.7, 1.0, 2.5, 30.0]}, (None, (4, 5))),
    Case("beta", "ab", {"a": [0.2, 1.0, 5.0], "b": [0.3, 2.0, 0.5]}, (None, (2, 3))),
    Case("dirichlet", "alpha", {"alpha": [0.2, 1.0, 3.0]}, (None, (), (4,))),
    Case("poisson", "lam", {"lam": [0.0, 0.3, 3.0, 9.9]}, (None, (3, 4)), ("i32", "i64")),
    Case("poisson", "large", {"lam": [10.0, 12.5, 300.0, 2.0]}, (None, (3, 4)), ("i32", "i64")),
    Case("multivariate_normal", "cholesky", {"mean": [1.0, -2.0, 0.5], "cov": _COV}, (None, (4,))),
    Case("multivariate_normal", "eigh", {"mean": [1.0, -2.0, 0.5], "cov": _COV, "method": "eigh"}, ((4,),)),
    Case("multivariate_normal", "svd", {"mean": [1.0, -2.0, 0.5], "cov": _COV, "method": "svd"}, ((4,),)),
    Case("ball", "3d", {"d": 3}, ((), (4,))),
    Case("ball", "2d_p1", {"d": 2, "p": 1.0}, ((4,),)),
    Case("orthogonal", "3", {"n": 3}, ((), (2,))),
    Case("orthogonal", "2by4", {"n": 2, "m": 4}, ((2,),), ("f32",)),
    Case("t", "df", {"df": [1.0, 2.5, 30.0]}, (None, (2, 3))),
    Case("chisquare", "df", {"df": [1.0, 2.5, 30.0]}, (None, (2, 3))),
    Case("f", "df", {"dfnum": [1.0, 2.5, 30.0], "dfden": [4.0, 5.0, 6.0]}, (None, (3,))),
    Case("rademacher", shapes=_ANY_SHAPE, dtypes=("i32", "f32")),
    Case("maxwell", shapes=((), (7,))),
    Case("double_sided_maxwell", "loc1_scale2", {"loc": 1.0, "scale": 2.0}, ((), (7,))),
    Case("weibull_min", "2_3", {"scale": 2.0, "concentration": 3.0}, ((), (7,))),
    Case("pareto", "b", {"b": [1.0, 3.0]}, (None, (3, 2))),
    Case("rayleigh", "scale", {"scale": [1.0, 3.0]}, (None, (3, 2))),
    Case("wald", "mean", {"mean": [0.5, 3.0]}, (None, (3, 2))),
    Case("geometric", "p", {"p": [0.1, 0.5, 0.9]}, (None, (3, 3)), ("i32",)),
    Case("binomial", "small", {"n": [10.0, 5.0, 0.0], "p": [0.3, 0.8, 0.5]}, (None, (3, 3))),
    Case("binomial", "large", {"n": [1000.0, 50.0, 20.0], "p": [0.3, 0.8, 0.1]}, (None, (3, 3))),
    Case("multinomial", "p", {"n": [20.0], "p": [[0.2, 0.5, 0.3]]}, (None,)),
    Case("lognormal", "sigma", {"sigma": [0.5, 2.0]}, (None, (3, 2))),
    Case("triangular", "0_1_4", {"left": [0.0], "mode": [1.0], "right": [4.0]}, ((7,),)),
    Case("generalized_normal", "p3", {"p": 3.0}, ((), (7,))),
)

# How far a plain NumPy implementation may be from JAX's values, in units of the dtype's eps, relative to the larger of
# |value| and 1: its logarithms round otherwise, and JAX's CPU code fuses products with sums. Measured with the inverse
# error function of Giles in both: normal 2.1 (float32), 15 (float64); gumbel, exponential, laplace, logistic, cauchy
# below 1; the others are allowances. Integers, booleans and bits are exact, and so is `uniform` once the product and
# the sum of `floats * (maxval - minval) + minval` are fused.
TOLERANCE_EPS = {
    "uniform": 0, "normal": 16, "truncated_normal": 32, "gumbel": 2, "exponential": 2, "laplace": 2, "logistic": 2,
    "cauchy": 4, "gamma": 64, "loggamma": 64, "beta": 128, "dirichlet": 128, "multivariate_normal": 64, "ball": 128,
    "orthogonal": 64, "t": 128, "chisquare": 64, "f": 256, "maxwell": 32, "double_sided_maxwell": 64,
    "weibull_min": 16, "pareto": 32, "rayleigh": 16, "wald": 256, "lognormal": 64, "triangular": 8,
    "generalized_normal": 64,
}

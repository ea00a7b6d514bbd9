# SPDX-License-Identifier: MIT
"""How far a compiled program's outputs may be from the evaluator's, and whether they are.

The rule, for each element of an output with value v:

    |compiled - v| <= growth |v| + 4 spread

- Operations that both must round in the same way (arithmetic of real numbers, conversions, comparisons, movement,
  indexing, minima and maxima) add nothing. What depends on none but these must be equal, bit for bit but for the sign
  of zeros and the payload of NaN.
- Every other equation adds n eps of its dtype: n is the number of terms added for one element of a sum, product or
  contraction, 4 for a function such as `exp`, 64 for special functions and other numerical routines. `growth` is the
  sum of n eps along the longest path to the output; loops count as often as they run (a `while` 100 times).
- `spread` is how far the value moves when the program is evaluated again with random errors of just these sizes put
  after each such equation, and before those that add terms and (in the size of the largest element) before routines on
  whole matrices: it measures cancellation and ill-conditioned steps.
- An output of which one element in twenty moves by a tenth of itself is chaotic: `spread` is then the largest of all.
- NaN and infinities are where the evaluator has them, unless a random error moves them there, too. Integers and
  booleans have growth 0: they must be equal unless random errors change them.

Two perturbed runs are made where something differs; before it is called wrong, 16 more.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from functorch_lite.compiler.passes.inline import inline_calls
from functorch_lite.compiler.passes.rewriting import program_pass, with_bodies
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Equation, Literal, Program, Var, memoized
from functorch_lite.errors import FunctorchLiteError
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.convolution import conv_general_dilated_p
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.loops import batched_cond_p, cond_p, scan_p, while_p

SAFETY = 4
ROUNDS = (2, 16)
WHILE_STEPS = 100
FUNCTION_ULPS = 4
ROUTINE_ULPS = 64
MOST_NOISE = 0.125
CHAOTIC_MOVE, CHAOTIC_SHARE = 0.1, 0.05

_EXACT = frozenset({
    "abs", "add", "add_any", "and", "bitcast", "ceil", "clamp", "complex", "conj", "convert", "div", "eq", "floor",
    "ge", "gt", "imag", "is_finite", "le", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not", "or",
    "population_count", "real", "round", "safe_div", "scale", "select", "shift_left", "shift_right", "sign", "sqrt",
    "square", "stop_gradient", "sub", "trunc", "xor", "argmax", "argmin", "cummax", "cummin", "reduce_and",
    "reduce_max", "reduce_min", "reduce_or", "reduce_window_max", "reduce_window_min", "window_argmax",
    "window_argmin", "barrier", "index_order", "sort", "top_k", "pure_callback", "debug_callback", "use_key",
    "split_key", "fold_in_key", "random_bits",
})
_INEXACT_COMPLEX = frozenset({"abs", "mul", "div", "safe_div", "scale", "sqrt", "square", "sign"})
_SIMPLE = frozenset({
    "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin",
    "acos", "atan", "asinh", "acosh", "atanh", "atan2", "cbrt", "rsqrt", "logistic", "rem", "fused_multiply_add",
    "log_or_zero", "erf",
})


class Difference(NamedTuple):
    """The worst element of an output: its number, position, what was compiled and evaluated, and what may differ."""

    output: int
    position: tuple[int, ...]
    found: Any
    expected: Any
    allowed: float

    def __str__(self):
        at = f" at {list(self.position)}" if self.position else ""
        return f"output {self.output}{at} is {self.found}, evaluated {self.expected} (may differ by {self.allowed:.2g})"


# --- what an equation may add ---------------------------------------------------------------------------------------


def growth_of(program: Program) -> list[float]:
    """For each output the relative error that may gather along the longest path to it; 0 where it must be exact."""
    return memoized(program, "growth", lambda: _growth(program, [0.0] * len(program.inputs)))


def _growth(program: Program, inputs: Sequence[float]) -> list[float]:
    known: dict[Any, float] = dict(zip(program.inputs, inputs, strict=True))
    for eqn in program.equations:
        given = [0.0 if type(a) is Literal else known[a] for a in eqn.inputs]
        rule = _BODIES.get(eqn.prim)
        found = rule(given, **eqn.params) if rule else [_step(eqn, max(given, default=0.0), v) for v in eqn.outputs]
        known.update(zip(eqn.outputs, found, strict=True))
    return [0.0 if type(a) is Literal else known[a] for a in program.outputs]


def _step(eqn: Equation, so_far: float, out: Var) -> float:
    return so_far + error_of(eqn, out)


def error_of(eqn: Equation, out: Var) -> float:
    """The relative error that one equation may add to an output of it: n eps."""
    aval = out.aval
    if not dtypes.is_inexact(aval.dtype) or _is_exact(eqn):
        return 0.0
    if aval.dtype.itemsize == 2 and _adds_terms(eqn):  # sums of half precision are kept in float32
        return 2 * epsilon(aval.dtype) + _terms(eqn) * epsilon(np.dtype(np.float32))
    return max(1.0, _terms(eqn)) * epsilon(aval.dtype)


def _is_exact(eqn: Equation) -> bool:
    prim = eqn.prim
    if prim.kind is Kind.INDEXING:
        return eqn.params.get("combine", "set") in ("set", "min", "max") and "reduce" not in prim.name
    if prim.kind in (Kind.MOVEMENT, Kind.BROADCAST):
        return True
    if prim.name in _INEXACT_COMPLEX and any(a.aval.dtype.kind == "c" for a in eqn.inputs):
        return False
    return prim.name in _EXACT


def _terms(eqn: Equation) -> float:
    """How many roundings an element of the result may go through."""
    if eqn.prim.kind is Kind.ELEMENTWISE:
        return FUNCTION_ULPS if eqn.prim.name in _SIMPLE else ROUTINE_ULPS
    if eqn.prim is dot_general_p:
        return float(math.prod(eqn.inputs[0].aval.shape[a] for a in eqn.params["contract"][0]))
    if eqn.prim is conv_general_dilated_p:
        return float(math.prod(eqn.inputs[1].aval.shape[1:]))
    if eqn.prim.kind in (Kind.REDUCTION, Kind.INDEXING):
        return 2.0 + _reduced(eqn, max((math.prod(a.aval.shape) for a in eqn.inputs), default=1))
    return float(ROUTINE_ULPS)


def _reduced(eqn, size):
    params = eqn.params
    shape = eqn.inputs[0].aval.shape
    if "window" in params:
        return math.prod(params["window"])
    if "axes" in params:
        return math.prod(shape[a] for a in params["axes"])
    return shape[params["axis"]] if "axis" in params else size


def _adds_terms(eqn: Equation) -> bool:
    return eqn.prim.kind in (Kind.REDUCTION, Kind.CONTRACTION, Kind.INDEXING)


def _is_routine(eqn: Equation) -> bool:
    """Whether it is a routine on whole arrays (a factorization, a transform), with errors of the size of its norm."""
    return eqn.prim.kind in (Kind.OPAQUE, Kind.HIGHER_ORDER, Kind.COLLECTIVE)


def epsilon(dtype: Any) -> float:
    """The distance from 1 to the next number of a float or complex dtype."""
    return float(ml_dtypes.finfo(_real(dtype)).eps)


def _real(dtype):
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


# --- equations with bodies ------------------------------------------------------------------------------------------


def _scan_growth(given, *, body, n_consts, n_carry, length, **_):
    xs = given[n_consts + n_carry :]
    return _loop_growth(body, given[:n_consts], given[n_consts : n_consts + n_carry], xs, length or WHILE_STEPS)


def _while_growth(given, *, body, n_cond_consts, n_body_consts, n_carry, **_):
    first = n_cond_consts + n_body_consts
    return _loop_growth(body, given[n_cond_consts:first], given[first:], [], WHILE_STEPS)


def _loop_growth(body, consts, carry, xs, steps):
    """Runs the body until every carried value grows steadily, and extends that to all steps."""
    n = len(carry)
    rate = [0.0] * n
    now, done, outs = list(carry), 0, []
    while done < min(steps, n + 2):
        outs = _growth(body, [*consts, *now, *xs])
        following = [max(a, b) for a, b in zip(outs[:n], now, strict=True)]
        rate = [b - a for a, b in zip(now, following, strict=True)]
        now, done = following, done + 1
    more = steps - done
    extra = max(rate, default=0.0) * more
    ys = [y + extra if y else 0.0 for y in outs[n:]] if outs else [0.0] * (len(body.outputs) - n)
    return [*(c + r * more for c, r in zip(now, rate, strict=True)), *ys]


def _branch_growth(given, *, branches, **_):
    index, *operands = given
    found = [_growth(b, operands) for b in branches]
    return [max(index, *each) for each in zip(*found, strict=True)]


_BODIES: dict[Primitive, Any] = {
    scan_p: _scan_growth,
    while_p: _while_growth,
    cond_p: _branch_growth,
    batched_cond_p: _branch_growth,
    jit_p: lambda given, *, program: _growth(program, given),
}


# --- perturbed runs -------------------------------------------------------------------------------------------------


class _Noise:
    """Multiplies by 1 + u, with |u| at most `size`, or normwise adds u max |x| of the last two axes.

    It takes the place of a NumPy function in the evaluator.
    """

    def __init__(self, size: float, seed: int, normwise: bool):
        self.__name__ = "noise"
        self._normwise = normwise
        self._size = min(size, MOST_NOISE)
        self._random = np.random.default_rng(seed)

    def __call__(self, x: Any) -> Any:
        x = np.asarray(x)
        noise = self._errors(x.shape)
        if x.dtype.kind == "c":
            noise = noise + 1j * self._errors(x.shape)
        with np.errstate(all="ignore"):
            value = wide(x)
            finite = np.isfinite(value)
            scale = np.where(finite, np.abs(value), 0.0)
            if self._normwise and x.ndim:
                scale = scale.max(axis=tuple(range(x.ndim))[-2:], keepdims=True)
            return np.where(finite, value + scale * noise, value).astype(x.dtype)[()]

    def _errors(self, shape):
        return self._size * self._random.uniform(0.5, 1, shape) * self._random.choice((-1.0, 1.0), shape)


@program_pass
def perturbed(program: Program) -> Program:
    """The program with a random error, new in each run, wherever an error may come in."""
    equations: list[Equation] = []
    for eqn in program.equations:
        eqn = with_bodies(eqn, perturbed)
        errors = [0.0 if eqn.prim in _BODIES else error_of(eqn, v) for v in eqn.outputs]
        if not any(errors):
            equations.append(eqn)
            continue
        if _adds_terms(eqn) or _is_routine(eqn):
            inputs = tuple([_with_noise(a, max(errors), equations, _is_routine(eqn)) for a in eqn.inputs])
            eqn = Equation(eqn.prim, inputs, eqn.outputs, eqn.params, eqn.source)
        plain = tuple([Var(v.aval) if e else v for v, e in zip(eqn.outputs, errors, strict=True)])
        equations.append(Equation(eqn.prim, eqn.inputs, plain, eqn.params, eqn.source))
        for before, after, error in zip(plain, eqn.outputs, errors, strict=True):
            if error:
                equations.append(_noise_equation(before, after, error, len(equations)))
    return Program(program.inputs, tuple(equations), program.outputs, program.name)


def _with_noise(atom, error, equations, normwise):
    if not dtypes.is_inexact(atom.aval.dtype):
        return atom
    out = Var(atom.aval)
    equations.append(_noise_equation(atom, out, error, len(equations), normwise))
    return out


def _noise_equation(before, after, error, seed, normwise=False):
    prim = Primitive("noise", Kind.OPAQUE)
    prim.ufunc = _Noise(error, seed, normwise)
    return Equation(prim, (before,), (after,), {})


class _Spread:
    """How far outputs move in perturbed runs; `unsure` marks where they become or cease to be finite."""

    def __init__(self, program: Program, args: Sequence[Any], outputs: Sequence[int], expected: Sequence[Any]):
        self._run = evaluator(perturbed(inline_calls(program)))
        self._args = args
        self._values = {k: wide(expected[k]) for k in outputs}
        self.spread = {k: np.zeros(v.shape) for k, v in self._values.items()}
        self.unsure = {k: np.zeros(v.shape, bool) for k, v in self._values.items()}

    def add(self, runs: int) -> None:
        """Make some runs. One that raises (a perturbed index may lie outside) tells nothing."""
        for _ in range(runs):
            try:
                with np.errstate(all="ignore"):
                    outs = self._run(*self._args)
            except (FunctorchLiteError, ArithmeticError, np.linalg.LinAlgError):
                continue
            for k, value in self._values.items():
                self._note(k, value, wide(outs[k]))

    def _note(self, k, value, out):
        finite = np.isfinite(value) & np.isfinite(out)
        with np.errstate(all="ignore"):
            moved = np.where(finite, np.abs(out - value), 0.0)
        np.maximum(self.spread[k], moved, out=self.spread[k])
        self.unsure[k] |= ~finite & ~_alike(out, value)


def wide(value: Any) -> np.ndarray:
    """A value as float64 or complex128 for measuring; integers that need more than 53 bits lose some."""
    array = np.asarray(value)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _alike(a, b):
    """Equal, or both NaN."""
    return (a == b) | ((a != a) & (b != b))


# --- comparing ------------------------------------------------------------------------------------------------------


def worst_difference(
    program: Program, args: Sequence[Any], found: Sequence[Any], expected: Sequence[Any]
) -> Difference | None:
    """The element furthest outside what may differ, or None if all outputs agree. See the rule above."""
    with np.errstate(all="ignore"):
        apart = [k for k, a in enumerate(program.out_avals) if type(a) is Aval and not _equal(found[k], expected[k])]
    if not apart:
        return None
    for k in apart:
        if np.shape(found[k]) != np.shape(expected[k]) or np.asarray(found[k]).dtype != np.asarray(expected[k]).dtype:
            return Difference(k, (), _type_of(found[k]), _type_of(expected[k]), 0.0)
    growth = growth_of(inline_calls(program))
    spread = _Spread(program, args, apart, expected)
    worst: Difference | None = None
    for runs in ROUNDS:
        spread.add(runs)
        worst = _worst(found, expected, growth, spread)
        if worst is None:
            return None
    return worst


def _type_of(value):
    return Aval(np.shape(value), np.asarray(value).dtype)


def _equal(f, e):
    f, e = np.asarray(f), np.asarray(e)
    return f.dtype == e.dtype and f.shape == e.shape and bool(np.all(_alike(f, e)))


def _worst(found, expected, growth, spread: _Spread) -> Difference | None:
    worst, most = None, 0.0
    for k in spread.spread:
        f, e = np.asarray(found[k]), np.asarray(expected[k])
        error = growth[k] if dtypes.is_inexact(e.dtype) else 0.0
        with np.errstate(all="ignore"):
            apart, value = np.abs(wide(f) - wide(e)), np.abs(wide(e))
            allowed = SAFETY * _settled(spread.spread[k], value) + (error * value + _tiny(e.dtype) if error else 0.0)
            allowed = np.where(np.isfinite(allowed), allowed, 0.0)
            wrong = ~_alike(f, e) & ~(apart <= allowed) & ~spread.unsure[k]
            wrong |= ~_alike(f, e) & (allowed == 0) & ~spread.unsure[k]
        if wrong.any():
            score = np.where(wrong, np.where(np.isfinite(apart), apart / np.maximum(allowed, 1e-300), np.inf), -1.0)
            position = np.unravel_index(int(np.argmax(score)), score.shape) if score.shape else ()
            if worst is None or score[position] > most:
                most = float(score[position])
                worst = Difference(k, tuple(int(i) for i in position), f[position], e[position],
                                   float(allowed[position]))
    return worst


def _settled(spread: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The spread of each element; where the output is chaotic, the largest for all."""
    chaotic = spread.size and np.mean(spread > CHAOTIC_MOVE * value) > CHAOTIC_SHARE
    return np.full_like(spread, spread.max()) if chaotic else spread


def _tiny(dtype):
    return float(ml_dtypes.finfo(_real(dtype)).tiny)

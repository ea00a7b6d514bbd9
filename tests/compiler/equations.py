# SPDX-License-Identifier: MIT
"""Running many primitives' lowerings at once: one LLVM module with a kernel for each of a list of equations."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.codegen.llvm.emitter import Emitter
from functorch_lite.compiler.codegen.llvm.function import write_kernel
from functorch_lite.compiler.lowering.rules import elementwise_rules, kernel_rules, movement_rules
from functorch_lite.compiler.runtime import engine
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Literal
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.transforms.inspection import make_program
from tests.compiler.support import rule_kernel

TABLES = (elementwise_rules, movement_rules, kernel_rules)


class Case(NamedTuple):
    """A primitive applied to arrays, and what must come out, from its eval rule."""

    name: str
    prim: Primitive
    arrays: list[np.ndarray]
    params: dict[str, Any]
    expected: np.ndarray


def case(name: str, prim: Primitive, /, *arrays: Any, **params: Any) -> Case:
    """The primitive on these arrays (C-ordered copies of them)."""
    given = [np.array(a, order="C", copy=True) for a in arrays]
    with np.errstate(all="ignore"):
        expected = np.array(eval_rules[prim](np, *given, **params), order="C", copy=True)
    return Case(name, prim, given, params, expected)


def cases_of(name: str, fun: Any, args: Sequence[Any]) -> list[Case]:
    """A case for every equation of `fun`'s program at these arguments that has a lowering."""
    program = make_program(fun)(*args)
    values = dict(zip(program.inputs, args, strict=True))
    found = []
    for e in program.equations:
        given = [a.value if isinstance(a, Literal) else values[a] for a in e.inputs]
        if e.prim.multiple:
            return found
        if not any(e.prim in table for table in TABLES):
            with np.errstate(all="ignore"):
                values[e.outputs[0]] = eval_rules[e.prim](np, *given, **e.params)
            continue
        found.append(case(f"{name}: {e.prim.name}", e.prim, *given, **e.params))
        values[e.outputs[0]] = found[-1].expected
    return found


def run_all(cases: Sequence[Case], lanes_bytes: int = 64, has_fma: bool = True) -> list[np.ndarray]:
    """What each case's kernel computes; all are compiled in one module."""
    texts, declarations, tables, outs = [], {}, {}, []
    for k, c in enumerate(cases):
        avals = [Aval(a.shape, a.dtype) for a in c.arrays]
        out = shape_rules[c.prim](*avals, **c.params)
        outs.append(np.empty(out.shape, out.dtype))
        function = rule_kernel(c.prim, avals, [out], c.params)
        function.name = f"kernel{k}"
        emitter = Emitter(has_fma=has_fma, lanes_bytes=lanes_bytes)
        texts += [write_kernel(function, emitter), _entry(function, k)]
        declarations |= emitter.declarations
        tables |= emitter.tables
    attributes = 'attributes #0 = { nounwind "prefer-vector-width"="512" }'
    loaded = engine.load("\n".join([*declarations.values(), *tables.values(), *texts, attributes]), cache=False)
    for k, (c, out) in enumerate(zip(cases, outs, strict=True)):
        arrays = [*c.arrays, out]
        places = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded.address(f"entry{k}"))(ctypes.addressof(places))
    return outs


def _entry(function, k):
    lines = [f"define void @entry{k}(ptr %places) {{"]
    for i in range(len(function.params)):
        lines += [f"  %a{i} = getelementptr ptr, ptr %places, i64 {i}", f"  %p{i} = load ptr, ptr %a{i}"]
    given = ", ".join(f"ptr %p{i}" for i in range(len(function.params)))
    return "\n".join([*lines, f"  call void @{function.name}({given})", "  ret void", "}"])


# Units in the last place: of the maths functions, and of the complex ones composed of them.
TOLERANCE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 32, "complex128": 64}


def difference(found: np.ndarray, expected: np.ndarray, smallest: float = 0.0) -> float:
    """The largest difference in units in the last place; infinite where types, NaN or infinities differ.

    Of a complex number, in units of its larger part. Values below `smallest` are measured in units of that.
    """
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return np.inf
    if found.dtype.kind in "biu":
        return 0.0 if np.array_equal(found, expected) else np.inf
    if found.dtype.kind == "c":
        return _complex_difference(found, expected)
    f, e = found.astype(np.float64), expected.astype(np.float64)
    return _worst(f, e, _unit(np.maximum(np.abs(e), smallest), found.dtype))


def _complex_difference(found, expected):
    unit = np.maximum(*[_unit(np.where(np.isfinite(v), v, 0).astype(np.float64), expected.real.dtype)
                        for v in (expected.real, expected.imag)])
    parts = [(getattr(found, n).astype(np.float64), getattr(expected, n).astype(np.float64)) for n in ("real", "imag")]
    return max(_worst(f, e, unit) for f, e in parts)


def _unit(x, dtype):
    bits, tiny = {"float16": (10, -14), "bfloat16": (7, -126), "float32": (23, -126), "float64": (52, -1022)}[
        dtype.name]
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log2(np.abs(np.where(np.isfinite(x), x, 1))))
    return np.exp2(np.maximum(exponent, tiny) - bits)


def _worst(found, expected, unit):
    with np.errstate(all="ignore"):
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        apart = np.abs(found - expected) / unit
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    return float(apart.max(initial=0.0))


# SciPy is itself only that exact near their zeros.
_ABSOLUTE_BELOW = {"lgamma": 1.0, "digamma": 1.0}


def check_all(cases: Sequence[Case], *, lanes_bytes: int = 64, has_fma: bool = True, factor: float = 1) -> None:
    """Every case gives what its eval rule does, within the tolerance of its dtype (times `factor`)."""
    wrong = []
    for c, found in zip(cases, run_all(cases, lanes_bytes, has_fma), strict=True):
        bound = factor * TOLERANCE.get(c.expected.dtype.name, 0)
        apart = difference(found, c.expected, _ABSOLUTE_BELOW.get(c.prim.name, 0.0))
        if apart > bound:
            wrong.append(f"{c.name} {[str(a.dtype) + str(list(a.shape)) for a in c.arrays]} {c.params}: {apart} units\n"
                         f"  of {c.arrays}\n  found {found}\n  expected {c.expected}")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong)

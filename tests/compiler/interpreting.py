# SPDX-License-Identifier: MIT
"""Running a lowered program by the interpreter of loop IR."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.nodes import Function
from functorch_lite.compiler.loop_ir.numpy_ops import DTYPES
from functorch_lite.compiler.lowering.program import Lowered
from functorch_lite.compiler.memory.plan import Plan
from functorch_lite.core.program import Literal
from functorch_lite.core.rules import eval_rules


def with_constants(lowered: Lowered) -> Function:
    """The lowered function with its constants as parameters."""
    function = lowered.function
    return dataclasses.replace(function, params=[*function.params, *lowered.constant_buffers])


def words_of(array: Any, kind: str) -> np.ndarray:
    """A copy as a flat array of loop IR elements: two for a complex number."""
    flat = np.array(array).reshape(-1)
    return flat.view(DTYPES[kind]) if flat.size else np.empty(0, DTYPES[kind])


def run_interpreted(lowered: Lowered, args: Sequence[Any], out_avals: Sequence[Any], plan: Plan | None = None) -> list:
    """The outputs. With a plan, temporaries are where it puts them in one arena of random bytes."""
    function = with_constants(lowered)
    ins = [words_of(a, b.kind) for a, b in zip(args, lowered.inputs, strict=True)]
    outs = [np.full(b.size, 77, DTYPES[b.kind]) for b in lowered.outputs]
    constants = [words_of(c, b.kind) for c, b in zip(lowered.constants, lowered.constant_buffers, strict=True)]
    temporaries = []
    if plan is not None:
        arena = np.random.default_rng(0).integers(0, 2, plan.size, np.uint8)
        used = [b for b in function.locals if b in plan.offsets]
        function = dataclasses.replace(function, params=[*function.params, *used], locals=[])
        temporaries = [arena[plan.offsets[b] :][: b.nbytes].view(DTYPES[b.kind]) for b in used]
    status = interpret(function, [*ins, *outs, *constants, *temporaries], host=_Host(lowered))
    assert status == 0, f"left with status {status}"
    return [o.view(a.dtype).reshape(a.shape) if o.size else np.empty(a.shape, a.dtype)
            for o, a in zip(outs, out_avals, strict=True)]


class _Host:
    """Runs the steps that are done in Python."""

    def __init__(self, lowered: Lowered):
        self.steps = lowered.steps
        self.names: dict[Any, Any] = {}

    def __call__(self, number: int, places: list[np.ndarray], reads: int) -> None:
        step = self.steps[number]
        left = iter(places)
        args = []
        for given, atom in zip(step.inputs, step.equation.inputs, strict=True):
            if given is None:
                args.append(_array(next(left), atom.aval).copy()[()])
            else:
                args.append(given.value if type(given) is Literal else self.names[given])
        found = eval_rules[step.equation.prim](np, *args, **step.equation.params)
        found = found if step.equation.prim.multiple else [found]
        for value, name, var in zip(found, step.outputs, step.equation.outputs, strict=True):
            if name is None:
                _array(next(left), var.aval)[...] = value
            else:
                self.names[name] = value


def _array(flat: np.ndarray, aval: Any) -> np.ndarray:
    if not aval.size:
        return np.empty(aval.shape, aval.dtype)
    words = aval.size * aval.dtype.itemsize // flat.dtype.itemsize
    return flat[:words].view(aval.dtype).reshape(aval.shape)

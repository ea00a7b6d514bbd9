# SPDX-License-Identifier: MIT
"""Compiling for the CPU. Importing this imports all lowerings, and LLVM: the pipeline does it when first needed."""

from collections.abc import Sequence
from typing import Any

from functorch_lite.compiler import dumps as dumps
from functorch_lite.compiler.cost import Cost, cost_of, has_products, multiplications
from functorch_lite.compiler.lowering import attention as attention
from functorch_lite.compiler.lowering import broadcast as broadcast
from functorch_lite.compiler.lowering import calls as calls
from functorch_lite.compiler.lowering import casts as casts
from functorch_lite.compiler.lowering import comparison as comparison
from functorch_lite.compiler.lowering import complex_parts as complex_parts
from functorch_lite.compiler.lowering import concatenation as concatenation
from functorch_lite.compiler.lowering import contraction as contraction
from functorch_lite.compiler.lowering import convolution as convolution
from functorch_lite.compiler.lowering import cumulative as cumulative
from functorch_lite.compiler.lowering import elementwise as elementwise
from functorch_lite.compiler.lowering import fft as fft
from functorch_lite.compiler.lowering import host as host
from functorch_lite.compiler.lowering import indexing as indexing
from functorch_lite.compiler.lowering import linalg as linalg
from functorch_lite.compiler.lowering import loops as loops
from functorch_lite.compiler.lowering import matrix as matrix
from functorch_lite.compiler.lowering import matrix_functions as matrix_functions
from functorch_lite.compiler.lowering import movement as movement
from functorch_lite.compiler.lowering import positions as positions
from functorch_lite.compiler.lowering import random_bits as random_bits
from functorch_lite.compiler.lowering import reduction as reduction
from functorch_lite.compiler.lowering import rounding as rounding
from functorch_lite.compiler.lowering import sorting as sorting
from functorch_lite.compiler.lowering import special as special
from functorch_lite.compiler.lowering import spectral as spectral
from functorch_lite.compiler.lowering import transcendental as transcendental
from functorch_lite.compiler.lowering import windows as windows
from functorch_lite.compiler.lowering.cutting import AS_USUAL, LOOPED, SHORT, Cutting
from functorch_lite.compiler.lowering.program import can_lower as can_lower
from functorch_lite.compiler.lowering.program import lower_program
from functorch_lite.compiler.memory.forecast import MemoryForecast, live_at_peak
from functorch_lite.compiler.runtime.executable import Executable
from functorch_lite.compiler.runtime.executable import may_replace as may_replace
from functorch_lite.compiler.runtime.tiers import may_be_short
from functorch_lite.core.program import Program


def compile_native(
    program: Program, optimized: Program, donated: Sequence[int] = (), quick: bool = False
) -> Executable:
    """The optimized form of a program as native code.

    donated: inputs whose memory outputs may take over. quick: make code quickly if that pays, and better code later.
    """
    cutting = _first_cutting(optimized) if quick else AS_USUAL
    lowered = lower_program(optimized, cutting, donated)
    return Executable(program, optimized, lowered, donated, quick, cutting != AS_USUAL)


def _first_cutting(optimized: Program) -> Cutting:
    """How products and convolutions are cut in the code of a first call."""
    if not has_products(optimized):
        return AS_USUAL
    return SHORT if may_be_short(multiplications(optimized)) else LOOPED


def forecast(program: Program, optimized: Program, captured: Sequence[Any], quick: bool = False) -> MemoryForecast:
    """What a call of the program will need: arguments, outputs, what it captured, and one arena.

    quick: the first call may run quickly made code, whose arena stays.
    """
    lowered = lower_program(optimized)
    plan = lowered.plan()
    if quick and (cutting := _first_cutting(optimized)) != AS_USUAL:
        short = lower_program(optimized, cutting)
        own = short.plan()
        lowered, plan = (short, own) if own.size > plan.size else (lowered, plan)
    sizes = [_nbytes(a) for a in program.in_avals]
    kept = sum(sizes[: len(captured)]) + sum(c.nbytes for c in lowered.constants)
    arguments, outputs = sum(sizes[len(captured) :]), sum(map(_nbytes, program.out_avals))
    peak = arguments + kept + outputs + plan.size
    return MemoryForecast(peak, arguments, kept, outputs, plan.size, live_at_peak(plan, lowered.made))


def cost(optimized: Program) -> Cost:
    """Operations and bytes of one call."""
    return cost_of(lower_program(optimized))


def _nbytes(aval: Any) -> int:
    return aval.size * aval.dtype.itemsize

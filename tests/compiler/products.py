# SPDX-License-Identifier: MIT
"""What the tests of products with prologues and epilogues check alike."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import functorch_lite as fl
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.schedule.parallel import shared_loops
from tests.compiler.guarded import Guarded
from tests.compiler.support import run_kernel

BATCHED = {
    "batch": ("bik,bkj->bij", (5, 9, 11), (5, 11, 33)),
    "two batches": ("abik,abkj->abij", (2, 3, 9, 11), (2, 3, 11, 17)),
    "shared": ("bik,kj->bij", (5, 9, 11), (11, 33)),
    "two contracted": ("ikl,klj->ij", (30, 4, 5), (4, 5, 36)),
    "outer": ("i,j->ij", (30,), (70,)),
    "rows in the middle": ("bik,bjk->ibj", (5, 9, 11), (5, 33, 11)),
}
"""Products with other axes than rows and columns: as `einsum` writes them, with the shapes of the operands."""


def check_stays_inside(
    fun: Callable[..., Any], args: Sequence[np.ndarray], at_end: bool, name: str = "dot_general"
) -> None:
    """The one kernel of `fun` that is named so, of a product, on arrays of one dtype, touches nothing beside them."""
    program = fl.make_program(fun)(*args)
    lowered = native.compile_native(program, pipeline.optimize(program)).lowered
    (call,) = [s for s in lowered.function.body if s.kernel.name.startswith(name)]
    arrays = []
    for buffer, place in zip(call.kernel.params, call.places, strict=True):
        guarded = Guarded(buffer.size, args[0].dtype, at_end)
        if place[0] in lowered.inputs:
            guarded.array[:] = args[lowered.inputs.index(place[0])].ravel()
        if buffer.role != "scratch":
            arrays.append(guarded)
    run_kernel(call.kernel, [g.array for g in arrays], engine.target().lanes_bytes)
    assert all(g.untouched() for g in arrays)


def check_threads(fun: Callable[..., Any], args: Sequence[np.ndarray]) -> None:
    """One thread and two, which share a loop, give the same bits."""
    found = []
    for number in (1, 2):
        program = fl.make_program(fun)(*args)
        with fl.config(num_threads=number):
            executable = native.compile_native(program, pipeline.optimize(program))
            found.append(executable(*args))
    assert any(shared_loops(kernel) for kernel in executable.lowered.kernels)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)

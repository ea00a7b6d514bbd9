# SPDX-License-Identifier: MIT
"""The memory plan: no two temporaries alive together share memory, little is wasted, and the forecast holds."""

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite import lax, optim, tree
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.nodes import Function, KernelCall
from functorch_lite.compiler.memory.plan import ALIGNMENT, plan_memory

# --- random straight and nested functions -----------------------------------------------------------------------------


def kernel(size):
    """out = x + y, element by element: an output may take the place of either input."""
    b = Builder(f"add{size}")
    x, y, out = b.input("x", "i64", size), b.input("y", "i64", size), b.output("out", "i64", size)
    with b.loop(size, vector=True) as i:
        b.store(out, i, b.op("add", b.load(x, i), b.load(y, i)))
    return b.finish()


class Random:
    """A random function on temporaries, each written once (twice in branches), from a list of small integers.

    What is written in a loop or branch is read there only; a loop also updates one temporary from outside it.
    """

    def __init__(self, numbers):
        self.numbers = iter(numbers)
        self.b = Builder("program")
        self.source = self.b.input("source", "i64", 64)
        self.out = self.b.output("out", "i64", 64)
        self.in_place = {}
        self.kernels = {n: kernel(n) for n in (1, 8, 24, 64)}
        self.block([], 0)

    def number(self, below):
        return next(self.numbers, 0) % below

    def block(self, known, depth):
        known = list(known)
        for _ in range(2 + self.number(8)):
            kind = self.number(8)
            if kind == 0 and depth < 2 and known:
                self.loop(known, depth)
            elif kind == 1 and depth < 2 and known:
                self.branch(known, depth)
            else:
                known.append(self.call(known))
        if known:
            self.deliver(known[-1])

    def deliver(self, buffer):
        self.b.copy(self.out, buffer, buffer.size)

    def operand(self, size, known):
        fits = [k for k in known if k.size == size]
        return fits[-1 - self.number(4) % len(fits)] if fits else self.source

    def call(self, known):
        size = (1, 8, 24, 64)[self.number(4)]
        out = self.b.local(f"t{len(self.b.function.locals)}", "i64", size)
        self.add(out, self.operand(size, known), self.operand(size, known))
        return out

    def add(self, out, x, y):
        places = [(p, self.zero) for p in (x, y, out)]
        self.b.add(KernelCall(self.kernels[out.size], places))
        if x is not y and x is not out and y is not out:
            self.in_place.setdefault(out, []).extend([x, y])

    @property
    def zero(self):
        return self.b.index_of(self.b.constant(0, "i64"))

    def loop(self, known, depth):
        carried = known[-1 - self.number(len(known))]
        with self.b.loop(2 + self.number(2)):
            self.block(known, depth + 1)
            self.add(carried, carried, carried)

    def branch(self, known, depth):
        condition = self.b.op("gt", self.b.load(known[-1], 0), self.b.constant(3, "i64"))
        self.b.branch(condition, lambda: self.block(known, depth + 1), lambda: self.block(known, depth + 1))


def run(function: Function, plan=None):
    """What the function writes, with memory of its own for each temporary, or in one arena."""
    source, out = np.arange(1, 65), np.zeros(64, np.int64)
    if plan is None:
        interpret(function, [source, out])
        return out
    arena = np.full(plan.size, 85, np.uint8)
    used = [b for b in function.locals if b in plan.offsets]
    moved = Function(function.name, [*function.params, *used], function.body)
    interpret(moved, [source, out, *(arena[plan.offsets[b] :][: b.nbytes].view(np.int64) for b in used)])
    return out


def rounded(buffer):
    return max(ALIGNMENT, -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT)


def most_alive(plan):
    """The largest sum of sizes alive at one statement."""
    times = {t for life in plan.lifetimes.values() for t in life}
    return max((sum(rounded(b) for b, (first, last) in plan.lifetimes.items() if first <= t <= last) for t in times),
               default=0)


numbers = st.lists(st.integers(0, 30), max_size=120)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(numbers)
def test_random_functions_compute_the_same_in_one_arena(numbers):
    made = Random(numbers)
    function = made.b.finish()
    expected = run(function)
    for in_place in ({}, made.in_place):
        np.testing.assert_array_equal(run(function, plan_memory(function, in_place)), expected)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(numbers)
def test_temporaries_alive_together_are_apart(numbers):
    made = Random(numbers)
    plan = plan_memory(made.b.finish(), made.in_place)
    buffers = list(plan.offsets)
    for k, a in enumerate(buffers):
        assert plan.offsets[a] % ALIGNMENT == 0 and plan.offsets[a] + a.nbytes <= plan.size
        for b in buffers[:k]:
            (first, last), (start, end) = plan.lifetimes[a], plan.lifetimes[b]
            takes = last == start and a in made.in_place.get(b, ()), end == first and b in made.in_place.get(a, ())
            taken = any(takes)
            if first <= end and start <= last and not (taken and plan.offsets[a] == plan.offsets[b]):
                apart = plan.offsets[a] + a.nbytes <= plan.offsets[b] or plan.offsets[b] + b.nbytes <= plan.offsets[a]
                assert apart, f"{a!r} and {b!r}"


def test_the_arena_is_close_to_the_lower_bound():
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(100):
        made = Random(rng.integers(0, 31, 120).tolist())
        plan = plan_memory(made.b.finish(), {})
        ratios.append(plan.size / max(most_alive(plan), 1))
    assert min(ratios) >= 1 and np.mean(ratios) < 1.05 and max(ratios) < 1.5


# --- compiled programs ------------------------------------------------------------------------------------------------

N = 400
X = np.random.default_rng(0).standard_normal((N, N))


def chain(x):
    for _ in range(6):
        x = np.tanh(x @ x)
    return x


def mlp_gradient(ws, x):
    def loss(ws):
        y = x
        for w in ws:
            y = np.maximum(y @ w, 0.0)
        return np.sum(y * y)

    return fl.grad(loss)(ws)


def scanned(x):
    return lax.scan(lambda s, v: (np.tanh(s @ x) + v, np.sum(s)), x, np.stack([x, x]))


def adam_step(params):
    opt = optim.adam()
    return opt.step(params, params, opt.init(params))


PROGRAMS = {
    "element by element": (lambda x: np.sin(x) * np.cos(x) + x, X),
    "chain of products": (chain, X),
    "gradient": (mlp_gradient, [X * 0.1, X * 0.2, X * 0.3], X),
    "sort and cumsum": (lambda x: (np.sort(x, 0), np.cumsum(x, 1), np.argsort(x, 1)), X),
    "scan": (scanned, X),
    "branches": (lambda x: lax.cond(x[0, 0] > 0, lambda x: np.sort(x, 0) @ x, lambda x: x, x), X),
    "captured": (lambda x: x @ X + np.sort(x, 0), X),
    "single precision": (lambda x: np.exp(x.astype(np.float32)) @ x.astype(np.float32), X),
    "adam": (adam_step, [X, X[:7], X[0]]),
}
OVERHEAD = 1 << 15  # Python objects of a call


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_forecast_is_what_a_call_allocates(name):
    fun, *args = PROGRAMS[name]
    lowered = fl.jit(fun).lower(*args)
    forecast, program = lowered.memory_analysis(), lowered.program
    captured = fl.closure_convert(fun, *args)[1]
    leaves = [np.asarray(x) for x in tree.leaves(args)]
    given, kept = sum(x.nbytes for x in leaves), sum(c.nbytes for c in captured)
    executable = native.compile_native(program, pipeline.optimize(program))
    gc.collect()
    tracemalloc.start()
    try:
        outs = executable(*captured, *leaves)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert forecast.outputs == sum(np.asarray(o).nbytes for o in outs)
    assert forecast.arguments == given
    assert forecast.captured >= kept
    assert forecast.peak == forecast.arguments + forecast.captured + forecast.outputs + forecast.temporaries
    assert peak - OVERHEAD <= forecast.outputs + forecast.temporaries <= 1.02 * peak


def test_at_the_peak_are_the_values_that_need_most():
    forecast = fl.jit(chain).lower(X).memory_analysis()
    assert forecast.temporaries == sum(v.bytes for v in forecast.at_peak)
    assert all(__file__.rsplit("/", 1)[-1] in v.source for v in forecast.at_peak if v.type == "f64[400,400]")
    assert "peak" in str(forecast)


def test_a_chain_of_updates_needs_no_memory_for_each():
    """An elementwise result takes the place of its operand: however long the chain, one temporary or two."""

    def long(x):
        for _ in range(20):
            x = np.tanh(np.sort(x, 1))
        return x

    temporaries = [fl.jit(f).lower(X).memory_analysis().temporaries for f in (long, lambda x: long(long(x)))]
    assert temporaries[0] == temporaries[1] <= 4 * X.nbytes

# SPDX-License-Identifier: MIT
"""Loop IR's printer, its keys, what the verifier refuses, and the interpreter on what the others do not reach."""

from pathlib import Path

import numpy as np
import pytest

from functorch_lite.compiler.codegen.llvm.maths import MATHS
from functorch_lite.compiler.codegen.llvm.scalar_ops import SCALAR_OPS
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.nodes import (
    ZERO,
    Buffer,
    Carried,
    Exit,
    Function,
    HostCall,
    If,
    Index,
    KernelCall,
    LibraryCall,
    Loop,
    Store,
    Value,
    While,
)
from functorch_lite.compiler.loop_ir.numpy_ops import OPS
from functorch_lite.compiler.loop_ir.printer import function_key, function_text
from functorch_lite.compiler.loop_ir.verify import LoopIRError, verify
from functorch_lite.compiler.lowering.rules import kind_of
from tests.compiler.guarded import Guarded
from tests.compiler.support import run_kernel

HERE = Path(__file__).parent


# --- kernels to print and run ---------------------------------------------------------------------------------------


def add_relu(x="x", y="y", out="out", name="add_relu", size=64):
    b = Builder(name)
    first, second, result = b.input(x, "f32", size), b.input(y, "f32", size), b.output(out, "f32", size)
    with b.loop(size, vector=True) as i:
        total = b.op("add", b.load(first, i), b.load(second, i))
        b.store(result, i, b.op("max", total, b.constant(0.0, "f32")))
    return b.finish()


def row_sums():
    """Sums of the rows of a matrix, each kept if it is positive."""
    b = Builder("row_sums")
    x, out, keep = b.input("x", "f64", 6 * 20), b.output("out", "f64", 6), b.output("keep", "bool", 6)
    zero = b.constant(0.0, "f64")
    with b.loop(6) as i:
        def add(j, total):
            return [b.op("add", total, b.load(x, i * 20 + j))]

        [total] = b.reduce(20, [zero], add, combine=["add"], vector=True)
        positive = b.op("gt", total, zero)
        [kept] = b.branch(positive, lambda: [total], lambda: [zero])
        b.store(out, i, kept)
        b.store(keep, i, positive)
    return b.finish()


def gather():
    """x[at], where a position below zero leaves with status 3."""
    b = Builder("gather")
    x, at, count = b.input("x", "f32", 10), b.input("at", "i32", 5), b.input("count", "i64", 1)
    out = b.output("out", "f32", 5)
    with b.loop(b.load(count, 0)) as i:
        position = b.load(at, i)
        b.branch(b.op("lt", position, b.constant(0, "i32")), lambda: b.exit(3))
        b.store(out, i, b.load(x, Index.of(position)))
    return b.finish()


def halvings():
    """How often each number can be halved, its last odd part, and numbers converted and moved."""
    b = Builder("halvings")
    x, out, odd = b.input("x", "u32", 4), b.output("out", "i64", 4), b.output("odd", "u32", 4)
    spare, n = b.local("spare", "u32", 8), b.integer()
    b.fill(spare, 8)
    b.copy(spare, x, 4, at=Index(4))
    with b.loop(4) as i:
        two = b.constant(2, "u32")
        values = b.loop_while(
            [n, b.load(spare, i + 4)],
            lambda k, v: b.op("and", b.op("eq", b.op("rem", v, two), b.constant(0, "u32")),
                              b.op("gt", v, b.constant(0, "u32"))),
            lambda k, v: [b.op("add", k, b.value_of(i * 2 - i - i + 1)), b.op("div", v, two)],
        )
        b.store(out, i, values[0])
        b.store(odd, i, values[1])
    return b.finish()


def whole_program():
    """Calls of two kernels that print alike but for their names, of a library, and of Python."""
    x, out = Buffer("x", "f32", 64, "in"), Buffer("out", "f32", 128, "out")
    spare = Buffer("spare", "f32", 64, "scratch")
    function = Function("program", [x, out, spare], scratch=[spare], can_fail=True)
    status = Value("result", "i32")
    first, second = add_relu(), add_relu("u", "v", "w", "other")
    function.body = [
        KernelCall(first, [(x, ZERO), (x, ZERO), (spare, ZERO)]),
        KernelCall(second, [(spare, ZERO), (x, ZERO), (out, Index(64))], HostCall(1, [(x, ZERO)], 1)),
        KernelCall(first, [(spare, ZERO), (spare, ZERO), (out, ZERO)]),
        LibraryCall("scale", [("i32", 64), ("f32", 2.0), (out, Index(64))], status, _scale),
        If(Value("constant", "bool", (), True), [Exit(status)], []),
        HostCall(7, [(x, ZERO), (out, Index(3))], 1),
    ]
    return function


def _scale(n, factor, x):
    x[:n] *= factor
    return 0


KERNELS = [add_relu, row_sums, gather, halvings, whole_program]


@pytest.mark.parametrize("kernel", KERNELS)
def test_text_is_the_golden_one(kernel, check_golden):
    check_golden(HERE / "golden" / f"{kernel.__name__}.txt", function_text(kernel()))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_verifier_accepts_it(kernel):
    assert verify(kernel()) is None


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_function_built_twice_has_one_key(kernel):
    assert function_key(kernel()) == function_key(kernel())


def test_names_are_not_in_the_key():
    assert function_key(add_relu()) == function_key(add_relu("p", "q", "r", "other"))


def test_different_functions_have_different_keys():
    functions = [*(k() for k in KERNELS), add_relu(size=65), *_variants()]
    assert len({function_key(f) for f in functions}) == len(functions)


def _variants():
    for number, kind, vector, step, op in [
        (0.0, "f32", True, 1, "add"), (-0.0, "f32", True, 1, "add"), (0.0, "f64", True, 1, "add"),
        (0.0, "f32", False, 1, "add"), (0.0, "f32", True, 2, "add"), (0.0, "f32", True, 1, "sub"),
    ]:
        b = Builder("kernel")
        x, out = b.input("x", kind, 16), b.output("out", kind, 16)
        with b.loop(8, vector=vector) as i:
            b.store(out, i * step, b.op(op, b.load(x, i * step), b.constant(number, kind)))
        yield b.finish()


# --- the interpreter ------------------------------------------------------------------------------------------------


def test_add_relu_is_interpreted():
    x, y = np.linspace(-1, 1, 64, dtype=np.float32), np.full(64, 0.25, np.float32)
    out = np.empty(64, np.float32)
    assert interpret(add_relu(), [x, y, out]) == 0
    assert np.array_equal(out, np.maximum(x + y, 0))


def test_row_sums_are_interpreted():
    x = np.random.default_rng(0).normal(size=(6, 20))
    out, keep = np.empty(6), np.empty(6, bool)
    interpret(row_sums(), [x, out, keep])
    assert np.array_equal(keep, x.sum(1) > 0)
    np.testing.assert_allclose(out, np.maximum(x.sum(1), 0), rtol=1e-14)


def test_an_exit_leaves_with_its_status():
    x, out = np.arange(10, dtype=np.float32), np.zeros(5, np.float32)
    at = np.array([9, 2, -1, 3, 4], np.int32)
    assert interpret(gather(), [x, at, np.array([2]), out]) == 0
    assert out.tolist() == [9, 2, 0, 0, 0]
    assert interpret(gather(), [x, at, np.array([5]), out]) == 3


def test_a_position_outside_its_buffer_is_an_error():
    x, at = np.arange(10, dtype=np.float32), np.array([10, 0, 0, 0, 0], np.int32)
    with pytest.raises(IndexError, match=r"positions 10 to 10 of x:f32\[10\], in:\n.* = load x\["):
        interpret(gather(), [x, at, np.array([1]), np.zeros(5, np.float32)])


def test_while_loops_integers_and_locals_are_interpreted():
    x = np.array([8, 3, 0, 6], np.uint32)
    out, odd = np.empty(4, np.int64), np.empty(4, np.uint32)
    assert interpret(halvings(), [x, out, odd], [100]) == 0
    assert (out.tolist(), odd.tolist()) == ([103, 100, 100, 101], [1, 3, 0, 3])


def test_calls_are_interpreted():
    x, out, spare = np.ones(64, np.float32), np.zeros(128, np.float32), np.zeros(64, np.float32)
    seen = []

    def host(number, places, reads):
        seen.append((number, [p.size for p in places], reads))
        places[reads][0] = 50

    function = whole_program()
    function.body.pop(4)
    assert interpret(function, [x, out, spare], host=host) == 0
    assert seen == [(7, [64, 125], 1)]
    assert (out[0], out[3], out[127]) == (4, 50, 6)


def test_a_kernel_that_fails_leaves_by_way_of_its_failure():
    b = Builder("fails")
    x = b.input("x", "f32", 1)
    b.exit(5)
    buffer = Buffer("x", "f32", 8, "in")
    call = KernelCall(b.finish(), [(buffer, Index(2))], HostCall(9, [(buffer, Index(1))], 1))
    seen = []
    status = interpret(Function("program", [buffer], [call], can_fail=True), [np.zeros(8, np.float32)],
                       host=lambda number, places, reads: seen.append((number, places[0].size)))
    assert (status, seen, x.size) == (5, [(9, 7)], 1)


def test_every_operation_has_its_meaning_in_numpy():
    assert set(SCALAR_OPS) | set(MATHS) <= set(OPS)


# --- what the verifier refuses --------------------------------------------------------------------------------------

X, OUT = Buffer("x", "f32", 16, "in"), Buffer("out", "f32", 16, "out")


def number(value, kind="f32"):
    return Value("constant", kind, (), value)


def load(index=ZERO, buffer=X):
    return Value("load", buffer.kind, (), (buffer, index))


def check_refused(body, match, **fields):
    with pytest.raises(LoopIRError, match=match):
        verify(Function("kernel", [X, OUT], body, **fields))


def test_a_value_used_before_its_definition_is_refused():
    a = load()
    check_refused([Store(OUT, ZERO, a), a], "before it is defined, in:\nstore out")


def test_a_value_used_outside_its_block_is_refused():
    a = load()
    check_refused([Loop(Value("variable", "i64"), 4, [a]), Store(OUT, ZERO, a)], "outside the block")


def test_a_value_of_one_branch_used_in_the_other_is_refused():
    a = load()
    check_refused([If(number(True, "bool"), [a], [Store(OUT, ZERO, a)])], "outside the block")


def test_a_value_defined_twice_is_refused():
    a = load()
    check_refused([a, a], "defined twice")


def test_operands_of_two_kinds_are_refused():
    check_refused([Value("add", "f32", (number(1.0), number(1.0, "f64")))], "operands of kinds f32, f64")


def test_a_result_of_another_kind_is_refused():
    check_refused([Value("add", "f64", (number(1.0), number(1.0)))], "add of f32 as f64")


def test_a_comparison_that_is_no_bool_is_refused():
    check_refused([Value("lt", "f32", (number(1.0), number(1.0)))], "lt of f32 as f32")


def test_a_selection_by_a_number_is_refused():
    check_refused([Value("select", "f32", (number(1.0),) * 3)], "a condition of kind f32")


def test_an_operation_with_too_few_operands_is_refused():
    check_refused([Value("add", "f32", (number(1.0),))], "add takes 2 operands")


def test_bit_operations_on_floats_are_refused():
    check_refused([Value("xor", "f32", (number(1.0), number(1.0)))], "xor of f32")


def test_functions_of_integers_are_refused():
    check_refused([Value("sqrt", "i32", (number(1, "i32"),))], "sqrt of i32")


def test_a_bitcast_to_another_width_is_refused():
    check_refused([Value("bitcast", "i64", (number(1.0),))], "a bitcast of f32 to i64")


def test_an_unknown_operation_is_refused():
    check_refused([Value("frobnicate", "f32", (number(1.0),))], "no scalar operation frobnicate")


def test_a_constant_of_another_kind_is_refused():
    check_refused([Store(OUT, ZERO, number(1))], "1 is no number of kind f32")
    check_refused([Value("neg", "u8", (number(256, "u8"),))], "256 is no number of kind u8")


def test_a_store_of_another_kind_is_refused():
    check_refused([Store(OUT, ZERO, number(1.0, "f64"))], "a store of f64 into out:f32")


def test_a_load_of_another_kind_is_refused():
    check_refused([Value("load", "f64", (), (X, ZERO))], "a load of f64 from x:f32")


def test_a_store_into_an_input_is_refused():
    check_refused([Store(X, ZERO, number(1.0))], "only read")


def test_a_buffer_of_another_function_is_refused():
    check_refused([load(buffer=Buffer("y", "f32", 4, "in"))], "y:f32.4. is not a buffer of this function")


def test_an_index_by_a_float_is_refused():
    a = load()
    check_refused([a, load(Index.of(a))], "an index of a term of kind f32")


@pytest.mark.parametrize("position", [-1, 16])
def test_a_constant_position_outside_the_buffer_is_refused(position):
    check_refused([load(Index(position))], f"position {position} of x")


@pytest.mark.parametrize(("step", "start"), [(1, 13), (1, -1), (6, 0), (-1, 2)])
def test_an_affine_position_outside_the_buffer_is_refused(step, start):
    i = Value("variable", "i64")
    check_refused([Loop(i, 4, [load(Index.of(i) * step + start)])], "positions? .* of x")


def test_an_affine_position_inside_the_buffer_is_accepted():
    i, j = Value("variable", "i64"), Value("variable", "i64")
    body = [Loop(i, 4, [Loop(j, 4, [load(Index.of(i) * -4 + Index.of(j) + 12)])])]
    assert verify(Function("kernel", [X, OUT], body)) is None


def test_terms_that_cancel_are_accepted():
    i = Value("variable", "i64")
    again = Value("index", "i64", (), Index.of(i) + 100)
    assert verify(Function("kernel", [X], [Loop(i, 16, [again, load(Index.of(again) - 100)])])) is None


def test_a_position_that_a_condition_keeps_inside_is_accepted():
    b = Builder("kernel")
    x, out = b.input("x", "f32", 8), b.output("out", "f32", 12)
    with b.loop(12) as i:
        inside = b.op("lt", b.value_of(i), b.constant(8, "i64"))
        [value] = b.branch(inside, lambda: [b.load(x, i)], lambda: [b.constant(0.0, "f32")])
        b.store(out, i, value)
    assert verify(b.finish()) is None


def test_a_position_that_no_condition_can_make_right_is_refused():
    i = Value("variable", "i64")
    check_refused([Loop(i, 4, [If(number(True, "bool"), [load(Index.of(i) + 16)], [])])], "of x")


def test_a_copy_outside_a_buffer_is_refused():
    b = Builder("kernel")
    x, out = b.input("x", "f32", 8), b.output("out", "f32", 8)
    b.copy(out, x, 8, at=Index(1))
    with pytest.raises(LoopIRError, match="positions 1 to 8 of out"):
        verify(b.finish())


@pytest.mark.parametrize(("rows", "columns", "stride", "step"), (
    (1, 1, 1, 1), (16, 16, 16, 16), (33, 70, 71, 40), (14, 256, 300, 14), (100, 5, 8, 101), (7, 16, 20, 7),
    (32, 15, 15, 33), (64, 48, 0, 64), (3, 70, 71, 3), (4, 33, 40, 4), (5, 64, 64, 5), (6, 259, 300, 6), (8, 48, 48, 8),
    (8, 15, 15, 8)))
@pytest.mark.parametrize("dtype", ("float32", "float64", "int8", "bool", "uint16"))
def test_a_transpose_moves_every_element_and_touches_no_other(rows, columns, stride, step, dtype):
    """The interpreter and the machine code, for every width of vectors."""
    kind = kind_of(np.dtype(dtype)) or ""
    reads, writes = (rows - 1) * stride + columns, (columns - 1) * step + rows
    b = Builder("transpose")
    x, out = b.input("x", kind, reads + 3), b.output("out", kind, writes + 5)
    b.transpose(out, Index(2), x, Index(1), rows, columns, stride, step)
    function = b.finish()
    verify(function)
    source = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, reads + 3).astype(dtype)
    expected = np.ones(writes + 5, dtype)
    for c in range(columns):
        for r in range(rows):
            expected[2 + c * step + r] = source[1 + r * stride + c]
    found = np.ones(writes + 5, dtype)
    interpret(function, [source, found])
    np.testing.assert_array_equal(found, expected)
    for lanes_bytes in (64, 32, 16):
        guarded = [Guarded(a.size, a.dtype, True) for a in (source, expected)]
        guarded[0].array[:], guarded[1].array[:] = source, 1
        run_kernel(function, [g.array for g in guarded], lanes_bytes)
        np.testing.assert_array_equal(guarded[1].array, expected)
        assert all(g.untouched() for g in guarded)


@pytest.mark.parametrize("lanes_bytes", (64, 32, 16))
def test_a_prefetch_changes_nothing_wherever_it_points(lanes_bytes):
    b = Builder("kernel")
    x, out = b.input("x", "f32", 64), b.output("out", "f32", 64)
    with b.loop(64) as i:
        b.prefetch(x, i * 1000 - 30_000)
        b.store(out, i, b.load(x, i))
    function = b.finish()
    verify(function)
    assert "prefetch x[1000*i - 30000]" in function_text(function)
    source, found = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    interpret(function, [source, found])
    np.testing.assert_array_equal(found, source)
    guarded = [Guarded(64, source.dtype, True) for _ in range(2)]
    guarded[0].array[:] = source
    run_kernel(function, [g.array for g in guarded], lanes_bytes)
    np.testing.assert_array_equal(guarded[1].array, source)


def test_a_prefetch_of_another_functions_buffer_or_a_varying_place_is_refused():
    b = Builder("kernel")
    x, out = b.input("x", "f32", 64), b.output("out", "f32", 64)
    b.prefetch(Buffer("y", "f32", 8, "in"), ZERO)
    b.copy(out, x, 64)
    with pytest.raises(LoopIRError, match="not a buffer of this function"):
        verify(b.finish())
    b = Builder("kernel")
    x, out = b.input("x", "f32", 64), b.output("out", "f32", 64)
    with b.loop(64, vector=True) as i:
        value = b.load(x, i)
        b.prefetch(x, Index.of(b.op("convert", value, kind="i64")))
        b.store(out, i, value)
    with pytest.raises(LoopIRError, match="varies in a vector loop"):
        verify(b.finish())


def test_a_prefetch_in_a_vector_loop_is_of_the_first_lanes_place():
    b = Builder("kernel")
    x, out = b.input("x", "f32", 64), b.output("out", "f32", 64)
    with b.loop(64, vector=True) as i:
        b.prefetch(x, i + 1000, near=True)
        b.store(out, i, b.load(x, i))
    function = b.finish()
    verify(function)
    assert "prefetch x[i + 1000] near" in function_text(function)
    found = np.empty(64, np.float32)
    run_kernel(function, [np.arange(64, dtype=np.float32), found])
    np.testing.assert_array_equal(found, np.arange(64))


def test_a_transpose_outside_a_buffer_or_onto_itself_is_refused():
    for count, rows, step, match in ((63, 8, 8, "positions 0 to 63 of x"), (64, 8, 7, "overlap")):
        b = Builder("kernel")
        x, out = b.input("x", "f32", count), b.output("out", "f32", 64)
        b.transpose(out, ZERO, x, ZERO, rows, 8, 8, step)
        with pytest.raises(LoopIRError, match=match):
            verify(b.finish())


def test_a_vector_loop_that_carries_without_combining_is_refused():
    check_refused([carrying("add", None)], "does not combine")


def test_a_vector_loop_that_combines_by_another_operation_is_refused():
    check_refused([carrying("mul", "add")], "is not add of it and another")


def test_a_vector_loop_that_uses_what_it_carries_otherwise_is_refused():
    loop = carrying("add", "add")
    loop.body.append(Store(OUT, ZERO, loop.carried[0].value))
    check_refused([loop], "for more than to combine it")


def carrying(op, combine):
    value = Value("carried", "f32")
    following = Value(op, "f32", (value, number(1.0)))
    carried = Carried(value, number(0.0), following, Value("result", "f32"), combine)
    return Loop(Value("variable", "i64"), 4, [following], [carried], vector=True)


def test_a_vector_loop_whose_iterations_share_an_element_is_refused():
    i, local = Value("variable", "i64"), Buffer("t", "f32", 1, "local")
    a, again = load(Index.of(i)), load(buffer=local)
    body = [a, Store(local, ZERO, a), again, Store(OUT, Index.of(i), again)]
    check_refused([Loop(i, 16, body, vector=True)], "share an element", locals=[local])


def varying_condition():
    i = Value("variable", "i64")
    a = load(Index.of(i))
    return i, a, Value("is_nan", "bool", (a,))


def test_a_branch_that_varies_in_a_vector_loop_is_refused():
    i, a, bad = varying_condition()
    check_refused([Loop(i, 16, [a, bad, If(bad, [], [])], vector=True)], "the condition of a branch varies")


def test_a_while_that_varies_in_a_vector_loop_is_refused():
    i, a, bad = varying_condition()
    check_refused([Loop(i, 16, [a, bad, While([], bad, [], [])], vector=True)], "the condition of a while varies")


def test_an_exit_that_varies_in_a_vector_loop_is_refused():
    i, a, bad = varying_condition()
    status = Value("convert", "i32", (bad,))
    loop = Loop(i, 16, [a, bad, status, Exit(status)], vector=True)
    check_refused([loop], "the status of an exit varies", can_fail=True)


def test_a_loop_whose_extent_varies_in_a_vector_loop_is_refused():
    i = Value("variable", "i64")
    check_refused([Loop(i, 16, [Loop(Value("variable", "i64"), i, [])], vector=True)], "the extent of a loop varies")


def test_a_condition_carried_in_from_varying_values_is_refused():
    i, a, bad = varying_condition()
    value = Value("carried", "bool")
    inner = Loop(Value("variable", "i64"), 3, [If(value, [], [])],
                 [Carried(value, number(True, "bool"), bad, Value("result", "bool"))])
    check_refused([Loop(i, 16, [a, bad, inner], vector=True)], "the condition of a branch varies")


def test_a_branch_with_results_of_two_kinds_is_refused():
    results = [(Value("result", "f32"), number(1.0), number(1.0, "f64"))]
    check_refused([If(number(True, "bool"), [], [], results)], "a result of kinds f32, f32, f64")


def test_a_carried_value_of_two_kinds_is_refused():
    value = Value("carried", "f32")
    carried = Carried(value, number(0.0, "f64"), value, Value("result", "f32"))
    check_refused([Loop(Value("variable", "i64"), 4, [], [carried])], "a carried value of kinds f32, f64, f32, f32")


def test_an_exit_of_a_function_that_cannot_fail_is_refused():
    check_refused([Exit(number(1, "i32"))], "cannot fail")


def test_a_call_with_other_parameters_is_refused():
    check_refused([KernelCall(add_relu(), [(X, ZERO)])], "other parameters than add_relu has")


def test_a_call_that_writes_an_input_is_refused():
    kernel = add_relu(size=16)
    check_refused([KernelCall(kernel, [(X, ZERO), (X, ZERO), (X, ZERO)])], "only read")


def test_a_called_kernel_is_verified_too():
    b = Builder("inner")
    b.load(b.input("x", "f32", 4), 4)
    with pytest.raises(LoopIRError, match="kernel inner: position 4 of x"):
        verify(Function("kernel", [X], [KernelCall(b.finish(), [(X, ZERO)])]))


def test_two_buffers_of_one_name_are_refused():
    with pytest.raises(LoopIRError, match="one name"):
        verify(Function("kernel", [X, Buffer("x", "f32", 4, "in")]))

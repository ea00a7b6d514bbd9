# SPDX-License-Identifier: MIT
import gc
import pickle
import sys
from collections import OrderedDict, deque
from contextvars import ContextVar
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from functorch_lite import nn, tree
from functorch_lite.compiler.runtime import call_path, object_layout
from functorch_lite.compiler.runtime import call_path_ir as ir
from tests.compiler.native_calls import F32, MATRIX, Layer, Pair, assert_keeps_nothing, native

# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_a_fresh_writable_array():
    f = native((MATRIX,), out=MATRIX)
    result = f.call(MATRIX)
    assert type(result) is np.ndarray and result.dtype == F32
    np.testing.assert_array_equal(result, MATRIX + 1)
    assert result.flags.owndata and result.flags.writeable and result.base is None
    assert not f.slow.calls


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.int8, np.complex64, np.complex128,
                                   ml_dtypes.bfloat16])  # fmt: skip
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 2), (0, 4)])
def test_shapes_and_dtypes(dtype, shape):
    x = np.full(shape, 5, dtype)
    f = native((x,), out=x)
    result = f.call(x)
    assert type(result) is (x.dtype.type if shape == () else np.ndarray)
    assert result.dtype == x.dtype and result.shape == shape
    np.testing.assert_array_equal(result, np.full(shape, 6, dtype))


@pytest.mark.parametrize("value", [2.5, 3, -(1 << 62), True, False, 1 + 2j])
def test_python_scalars_come_and_go_as_themselves(value):
    f = native((value,), out=value)
    result = f.call(value)
    expected = (not value) if type(value) is bool else value + 1
    assert type(result) is type(value) and result == expected


def test_a_numpy_scalar_goes_where_an_array_of_rank_0_does():
    f = native((np.float32(1),), out=0.0)
    for value in (np.float32(4), np.array(4, np.float32)):
        result = f.call(value)
        assert type(result) is np.float32 and result == 5


def test_trees_of_every_native_kind():
    t = {"z": [MATRIX, (MATRIX,)], "a": Pair(MATRIX, None), "m": {}, "e": ((), [])}
    f = native((t,), out=t)
    result = f.call(t)
    assert list(result) == list(t)  # the order of the original, though leaves are sorted
    assert type(result["a"]) is Pair and result["a"].right is None and result["m"] == {} and result["e"] == ((), [])
    assert tree.structure(result) == tree.structure(t)
    for leaf in tree.leaves(result):
        np.testing.assert_array_equal(leaf, MATRIX + 1)


def test_the_result_may_be_of_any_registered_kind():
    out = (OrderedDict(b=MATRIX, a=MATRIX), deque([MATRIX], maxlen=3))
    f = native((MATRIX, MATRIX, MATRIX), out=out)
    result = f.call(MATRIX, MATRIX + 1, MATRIX + 2)
    assert tree.structure(result) == tree.structure(out)
    assert [leaf[0, 0] for leaf in tree.leaves(result)] == [1, 2, 3]


def test_modules_by_their_attributes():
    model = Layer(MATRIX, 0.5, [Layer(MATRIX, 0.25, None)])
    f = native((model,), out=model)
    result = f.call(model)
    assert type(result) is Layer and result.rate is model.rate and type(result.inner[0]) is Layer
    assert tree.structure(result) == tree.structure(model) and list(vars(result)) == ["weight", "inner", "rate"]
    np.testing.assert_array_equal(result.inner[0].weight, MATRIX + 1)
    assert f.fits(result)
    assert f.fits(model.replace(rate=float("0.5")))  # an equal value
    assert not f.fits(model.replace(rate=0.75))
    assert not f.fits(model.replace(inner=[]))
    opened = object.__new__(Layer)
    assert not f.fits(opened)


@pytest.mark.parametrize("odd", [OrderedDict(a=MATRIX), deque([MATRIX])])
def test_no_native_call_for_arguments_of_other_kinds(odd):
    assert native((odd,), out=[MATRIX]).call is None


def test_captured_arrays_come_first():
    text = """
define i32 @run(ptr %ins, ptr %outs, ptr %arena, ptr %context) {
  %cp = load ptr, ptr %ins
  %xpp = getelementptr ptr, ptr %ins, i64 1
  %xp = load ptr, ptr %xpp
  %op = load ptr, ptr %outs
  %c = load float, ptr %cp
  %x = load float, ptr %xp
  %y = fsub float %c, %x
  store float %y, ptr %op
  ret i32 0
}"""
    f = native((np.ones(1, np.float32),), out=0, text=text, captured=[np.full(1, 10, np.float32)])
    gc.collect()
    assert f.call(np.full(1, 3, np.float32))[0] == 7
    strided = np.zeros(4, np.float32)[::2]
    assert native((np.ones(1, np.float32),), out=0, text=text, captured=[strided]).call is None


# --- what does not fit ------------------------------------------------------------------------------------------------


def odd_arguments():
    swapped = MATRIX.astype(MATRIX.dtype.newbyteorder())
    return {
        "swapped": swapped, "float64": MATRIX.astype(np.float64), "int32": MATRIX.astype(np.int32),
        "transposed": np.zeros((3, 2), np.float32).T, "strided": np.zeros((2, 6), np.float32)[:, ::2],
        "shape": np.zeros((3, 2), np.float32), "rank": np.zeros(6, np.float32), "rank 0": np.zeros((), np.float32),
        "unaligned": np.frombuffer(bytearray(25), np.uint8)[1:].view(np.float32).reshape(2, 3),
        "subclass": MATRIX.view(type("Sub", (np.ndarray,), {})), "numpy scalar": np.float32(1), "float": 1.0, "int": 1,
        "list": MATRIX.tolist(), "none": None, "tuple": (MATRIX,), "text": "x", "object": MATRIX.astype(object),
    }  # fmt: skip


@pytest.mark.parametrize("kind", odd_arguments())
def test_an_odd_argument_goes_to_the_slow_callable(kind):
    f = native((MATRIX,), out=MATRIX)
    odd = odd_arguments()[kind]
    assert f.call(odd) is f.slow
    assert f.slow.calls[0][0][0] is odd
    before = sys.getrefcount(odd)
    for _ in range(1000):
        f.call(odd)
    f.slow.calls.clear()
    assert abs(sys.getrefcount(odd) - before) < 100


@pytest.mark.parametrize("fitting", ["read-only", "unpickled", "metadata", "from a buffer"])
def test_arrays_that_fit_though_they_look_otherwise(fitting):
    read_only = MATRIX.copy()
    read_only.flags.writeable = False
    x = {
        "read-only": read_only,
        "unpickled": pickle.loads(pickle.dumps(MATRIX)),
        "metadata": MATRIX.view(np.dtype(np.float32, metadata={"a": 1})),
        "from a buffer": np.frombuffer(MATRIX.tobytes(), np.float32).reshape(2, 3),
    }[fitting]
    f = native((MATRIX,), out=MATRIX)
    np.testing.assert_array_equal(f.call(x), MATRIX + 1)


@pytest.mark.parametrize(("like", "odd"), [
    (1.0, 1), (1.0, np.float64(1)), (1.0, np.array(1.0)), (1j, 1.0), (True, 1), (True, np.True_),
    (1, True), (1, 1.0), (1, 1 << 63), (1, -(1 << 63) - 1), (1, np.int64(1)),
    (np.float32(1), 1.0), (np.float32(1), np.float64(1)), (np.float32(1), np.ones(1, np.float32)),
])  # fmt: skip
def test_scalars_of_another_type_do_not_fit(like, odd):
    f = native((like,), out=like)
    assert f.fits(like) and not f.fits(odd)


def test_other_structures_do_not_fit():
    t = {"a": [MATRIX, MATRIX], "b": (MATRIX, None)}
    f = native((t,), out=t)
    a, b = t["a"], t["b"]
    odd = [
        {"a": a}, {"a": a, "c": b}, {"a": a, "b": b, "c": b}, {"a": tuple(a), "b": b}, {"a": a[:1], "b": b},
        {"a": a, "b": list(b)}, {"a": a, "b": (MATRIX, MATRIX)}, {"a": a, "b": Pair(*b)}, OrderedDict(t), [a, b],
        MATRIX, {"a": [*a, MATRIX], "b": b}, {"a": a, "b": (None, MATRIX)},
    ]  # fmt: skip
    for other in odd:
        assert not f.fits(other)
    assert f.fits({"b": b, "a": a})

    def declined():
        for other in odd:
            f.call(other)
        f.slow.calls.clear()

    assert_keeps_nothing(declined, MATRIX, a, b, None, *odd)


def test_the_number_of_arguments_must_fit():
    f = native((MATRIX, MATRIX), out=(MATRIX, MATRIX))
    assert f.fits(MATRIX, MATRIX)
    assert not f.fits(MATRIX) and not f.fits() and not f.fits(MATRIX, MATRIX, MATRIX) and not f.fits(MATRIX, x=MATRIX)
    assert f.slow.calls[-1][0][0] is MATRIX and f.slow.calls[-1][1]["x"] is MATRIX


def test_keyword_arguments_in_any_order():
    f = native((MATRIX,), {"scale": 2.0, "bias": MATRIX}, out=(0, 0, 0))
    result = f.call(MATRIX, scale=7.0, bias=MATRIX + 5)
    assert result[2] == 8.0 and result[1][0, 0] == 6 and result[0][0, 0] == 1
    assert f.call(MATRIX, bias=MATRIX, scale=7.0)[2] == 8.0
    assert not f.fits(MATRIX, bias=MATRIX) and not f.fits(MATRIX, bias=MATRIX, other=1.0)
    assert not f.fits(MATRIX, MATRIX, scale=7.0)
    assert f.slow.calls[-1][1] == {"scale": 7.0}


def test_static_arguments_must_be_the_same_or_equal():
    kernel = object()
    f = native((), in_tree=((MATRIX, None, None), {"x": MATRIX}), out=(0, 0),
               static=[(1, kernel), (2, 2.5), ("mode", "same")])  # fmt: skip
    assert f.fits(MATRIX, kernel, 2.5, x=MATRIX, mode="same")
    assert f.fits(MATRIX, kernel, float("2.5"), mode="".join(["sa", "me"]), x=MATRIX)
    assert not f.fits(MATRIX, object(), 2.5, x=MATRIX, mode="same")
    assert not f.fits(MATRIX, kernel, 3.5, x=MATRIX, mode="same")
    assert not f.fits(MATRIX, kernel, np.float64(2.5), x=MATRIX, mode="same")
    assert not f.fits(MATRIX, kernel, 2.5, x=MATRIX, mode="other") and not f.fits(MATRIX, kernel, 2.5, x=MATRIX)


def test_a_cell_that_changed_sends_calls_to_the_slow_callable():
    cell = np.array([41], np.int64)
    f = native((MATRIX,), out=MATRIX, allowed=(cell.ctypes.data, 41))
    assert f.fits(MATRIX)
    cell[0] = 42
    assert not f.fits(MATRIX)


def test_context_variables_must_hold_the_object():
    root, other = object(), object()
    first, unset = ContextVar("first", default=root), ContextVar("unset")
    f = native((MATRIX,), out=MATRIX, contexts=[(first, root)])
    assert f.fits(MATRIX)
    token = first.set(other)
    assert not f.fits(MATRIX)
    f.slow.calls.clear()
    assert_keeps_nothing(lambda: f.call(MATRIX) and f.slow.calls.clear(), root, other)
    first.reset(token)
    assert f.fits(MATRIX)
    assert_keeps_nothing(lambda: f.call(MATRIX), root, other)
    assert not native((MATRIX,), out=MATRIX, contexts=[(first, root), (unset, root)]).fits(MATRIX)


class Key:
    """A dictionary key whose hash fails when `broken`."""

    broken = False

    def __hash__(self):
        if Key.broken:
            raise RuntimeError("no hash")
        return 1


def test_errors_of_keys_and_attributes_are_dropped():
    key = Key()
    f = native(({key: MATRIX},), out=MATRIX)
    assert f.fits({key: MATRIX})
    argument = {key: MATRIX}
    Key.broken = True
    try:
        assert not f.fits(argument)
    finally:
        Key.broken = False


class Shortening:
    """A static value that, compared, shortens the list around it."""

    around: Any = None

    def __eq__(self, other):
        if self.around:
            self.around.clear()
        return True

    __hash__ = object.__hash__


class Holder(nn.Module):
    static: Any = nn.static()


def test_a_comparison_that_changes_the_arguments_does_no_harm():
    f = native(([Holder(Shortening()), MATRIX],), out=MATRIX)
    changed = Shortening()
    argument = [Holder(changed), MATRIX]
    changed.around = argument
    assert not f.fits(argument) and argument == []


# --- the layout -------------------------------------------------------------------------------------------------------


def test_the_layout_is_known_here():
    assert object_layout.layout_is_known()


@pytest.mark.parametrize("name", [
    "TYPE", "SIZE", "VALUE", "TUPLE_ITEMS", "LIST_ITEMS", "ARRAY_DATA", "ARRAY_RANK", "ARRAY_LENGTHS", "ARRAY_DTYPE",
    "ARRAY_FLAGS", "DTYPE_ORDER", "DTYPE_NUMBER",
])  # fmt: skip
def test_another_layout_is_noticed(name, monkeypatch):
    monkeypatch.setattr(ir, name, getattr(ir, name) + (1 if name == "DTYPE_ORDER" else -8))
    assert not object_layout.layout_is_known()


def test_no_native_calls_where_the_layout_is_unknown(monkeypatch):
    monkeypatch.setattr(call_path, "_loaded", lambda: None)
    assert native((MATRIX,), out=MATRIX).call is None

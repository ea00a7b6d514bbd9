# SPDX-License-Identifier: MIT
"""Python's syntax on tracers, NumPy's protocols, and the messages for what a traced array cannot do."""

import operator

import numpy as np
import pytest

import functorch_lite.numpy as fnp
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.staging import stage
from functorch_lite.errors import ConcretizationError, ImmutableError, MissingRuleError, ShapeError
from functorch_lite.transforms.batching import batch_flat
from functorch_lite.transforms.linearize import linearize_flat

A = np.array([[1.5, -2.0], [3.0, 0.5]])
B = np.array([[2.0, 3.0], [-1.0, 4.0]])
INTS, J = np.array([5, 6, -7]), np.array([2, 3, 2])


def staged(function, *arrays):
    """The value of a function, staged and run."""
    program, captured = stage(lambda *xs: [function(*xs)], [Aval(x.shape, x.dtype) for x in arrays])
    return evaluator(program)(*captured, *arrays)[0]


@pytest.mark.parametrize(
    "op",
    [
        operator.add,
        operator.sub,
        operator.mul,
        operator.truediv,
        operator.floordiv,
        operator.mod,
        operator.matmul,
        operator.eq,
        operator.ne,
        operator.lt,
        operator.le,
        operator.gt,
        operator.ge,
    ],
)
@pytest.mark.parametrize("other", [B, 2.0, 3, np.float64(2), B[0]], ids=["matrix", "float", "int", "scalar", "row"])
def test_operator_and_its_reflection(op, other):
    if op is operator.matmul and np.ndim(other) == 0:
        return
    np.testing.assert_allclose(staged(lambda x: op(x, other), A), op(A, other))
    np.testing.assert_allclose(staged(lambda x: op(other, x), A), op(other, A))
    np.testing.assert_allclose(linearize_flat(lambda x: [op(other, x)], [A], [True])[0][0], op(other, A))


@pytest.mark.parametrize("op", [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift, divmod])
def test_integer_operator(op):
    i = np.abs(INTS)
    found = (
        stage(
            lambda x, y: list(np.atleast_1d(op(x, y))) if op is not divmod else list(op(x, y)),
            [Aval(i.shape, i.dtype), Aval(J.shape, J.dtype)],
        )
        if op is divmod
        else None
    )
    if found is None:
        np.testing.assert_array_equal(staged(op, i, J), op(i, J))
    else:
        for f, w in zip(evaluator(found.program)(INTS, J), op(INTS, J), strict=True):
            np.testing.assert_array_equal(f, w)


@pytest.mark.parametrize("power", [2, -1, 0.5, 3.0, 2.5, 0, -2])
def test_power(power):
    x = np.abs(A)
    np.testing.assert_allclose(staged(lambda x: x**power, x), x**power)
    np.testing.assert_allclose(staged(lambda x: power**x if power > 0 else x, x), power**x if power > 0 else x)


def test_integer_to_negative_power_is_an_error():
    with pytest.raises(ValueError, match="negative integer powers"):
        staged(lambda x: x**-1, INTS)


@pytest.mark.parametrize(
    "x, y", [(5.5, 2.0), (-5.5, 2.0), (5.5, -2.0), (1.0, 0.1), (7.0, np.inf), (-7.0, np.inf), (3.0, 0.0)]
)
@pytest.mark.filterwarnings("ignore")
def test_floor_division_and_modulus_follow_numpy(x, y):
    x, y = np.array([x]), np.array([y])
    np.testing.assert_array_equal(staged(operator.floordiv, x, y), x // y)
    np.testing.assert_array_equal(staged(operator.mod, x, y), x % y)


def test_unary_operators_and_in_place_rebinding():
    def run(x):
        y = x
        y += 1.0
        return abs(-x) + (+x) + y

    np.testing.assert_allclose(staged(run, A), np.abs(-A) + A + A + 1)
    np.testing.assert_array_equal(staged(lambda x: ~x, INTS), ~INTS)


def test_iteration_length_membership_and_unpacking():
    def run(x):
        first, second = x
        assert len(x) == 2
        return first + second + sum(row for row in x)

    np.testing.assert_allclose(staged(run, A), 2 * A.sum(0))
    with pytest.raises(TypeError, match="rank 0"):
        staged(lambda x: len(x), np.array(1.0))


def test_attributes():
    def run(x):
        assert (x.ndim, x.size, x.itemsize, x.nbytes, x.dtype, x.shape) == (3, 24, 8, 192, np.float64, (2, 3, 4))
        assert x.T.shape == (4, 3, 2) and x.mT.shape == (2, 4, 3)
        return x.real + x.imag

    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(staged(run, x), x)


METHODS = [
    ("sum", ()),
    ("sum", (0,)),
    ("prod", ()),
    ("mean", (1,)),
    ("var", ()),
    ("std", (0,)),
    ("min", ()),
    ("max", (1,)),
    ("any", ()),
    ("all", ()),
    ("argmax", ()),
    ("argmin", (1,)),
    ("cumsum", (0,)),
    ("cumprod", ()),
    ("dot", (B,)),
    ("trace", ()),
    ("diagonal", ()),
    ("reshape", (4,)),
    ("reshape", ((1, -1),)),
    ("ravel", ()),
    ("flatten", ()),
    ("transpose", ()),
    ("transpose", (1, 0)),
    ("swapaxes", (0, 1)),
    ("squeeze", ()),
    ("repeat", (2, 0)),
    ("take", ([0, 3],)),
    ("argsort", ()),
    ("astype", (np.float32,)),
    ("clip", (-1, 1)),
    ("round", (1,)),
    ("conj", ()),
    ("conjugate", ()),
    ("copy", ()),
    ("compress", ([True, False], 0)),
    ("searchsorted", (0.5,)),
    ("view", ()),
]


@pytest.mark.parametrize("name, args", METHODS)
def test_method_equals_numpys(name, args):
    x = np.sort(A.ravel()) if name == "searchsorted" else A
    wanted = getattr(x, name)(*args)
    found = staged(lambda x: getattr(x, name)(*args), x)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize(
    "name, args", [("sort", ()), ("fill", (0,)), ("put", (0, 1)), ("partition", (1,)), ("resize", (2,))]
)
def test_method_that_changes_its_array_shows_the_replacement(name, args):
    with pytest.raises(ImmutableError, match="x = "):
        staged(lambda x: getattr(x, name)(*args), A)


# --- conversion to Python values ----------------------------------------------------------------------------------


def test_concrete_values_under_grad():
    def run(x):
        assert x > 0
        assert float(x) == 2.0 and int(x) == 2 and bool(x) and x.item() == 2.0 and f"{x:.1f}" == "2.0"
        assert "2.0" in repr(x)
        return [x * x]

    outs, _ = linearize_flat(run, [np.float64(2.0)], [True])
    assert outs[0] == 4.0


@pytest.mark.parametrize(
    "function, dtype, text",
    [
        (lambda x: 1 if x > 0 else 2, float, "fl.lax.cond"),
        (lambda x: list(range(x)), int, "static_argnums"),
        (lambda x: fnp.zeros(x), int, "static_argnums"),
        (lambda x: float(x), float, r"cannot become a Python float"),
        (lambda x: int(x), float, r"cannot become a Python int"),
        (lambda x: complex(x), float, r"cannot become a Python complex"),
        (lambda x: x.item(), float, r"x.item\(\)"),
        (lambda x: x.tolist(), float, "tolist"),
        (lambda x: np.asarray(x), float, "NumPy functions take traced arrays as they are"),
        (lambda x: np.array([x, 1.0]), float, r"fl.numpy.array\(\[x, y\]\)"),
        (lambda x: np.arange(3)[x], int, "fl.numpy.take"),
        (lambda x: x.reshape(x), int, "x.shape"),
    ],
    ids=["if", "range", "zeros", "float", "int", "complex", "item", "tolist", "asarray", "array", "index", "shape"],
)
@pytest.mark.parametrize("transform", ["jit", "vmap"])
def test_asking_for_a_value_that_is_not_there_says_what_to_do(function, dtype, text, transform):
    with pytest.raises(ConcretizationError, match=text) as caught:
        if transform == "jit":
            staged(function, np.ones((), dtype))
        else:
            batch_flat(lambda x: [function(x)], [np.ones(2, dtype)], [True], size=2)
    message = str(caught.value)
    assert "test_operators.py" in message  # names the user's line
    assert "Tracer" not in message and message.count("\n") < 8


def test_numpy_copy_of_a_differentiated_value_is_refused():
    with pytest.raises(ConcretizationError, match="stop_gradient"):
        linearize_flat(lambda x: [np.asarray(x)], [A], [True])


# --- NumPy's protocols --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.add.reduce(x),
        lambda x: np.add.reduce(x, axis=1, keepdims=True),
        lambda x: np.multiply.reduce(x, axis=None),
        lambda x: np.maximum.reduce(x, axis=0),
        lambda x: np.logaddexp.reduce(x, axis=1),
        lambda x: np.subtract.reduce(x),
        lambda x: np.add.accumulate(x, axis=1),
        lambda x: np.maximum.accumulate(x),
        lambda x: np.multiply.outer(x, B),
        lambda x: np.subtract.outer(B, x),
        lambda x: np.add(x, 1, dtype=np.float32),
        lambda x: np.logical_or.reduce(x > 0),
        lambda x: fnp.add.reduce(x),
    ],
)
def test_ufunc_method_equals_numpys(function):
    found = staged(function, A)
    assert found.dtype == function(A).dtype
    np.testing.assert_allclose(found, function(A), rtol=1e-12)


def test_plain_numpy_code_runs_under_every_transform():
    def model(x, w):
        h = np.tanh(x @ w) + np.where(x > 0, x, 0.1 * x)
        h = (h - h.mean(axis=-1, keepdims=True)) / np.sqrt(h.var(axis=-1, keepdims=True) + 1e-5)
        return np.linalg.norm(np.concatenate([h, np.exp(-h)], axis=-1)) + np.einsum("ij,ij->", h, x)

    x = np.random.default_rng(0).normal(size=(3, 4))
    w = np.random.default_rng(1).normal(size=(4, 4))
    wanted = model(x, w)
    outs, tape = linearize_flat(lambda x, w: [model(x, w)], [x, w], [True, True])
    np.testing.assert_allclose(outs[0], wanted)
    np.testing.assert_allclose(staged(model, x, w), wanted)
    mapped, _ = batch_flat(lambda x, w: [model(x, w)], [np.stack([x, x + 1]), w], [True, False], size=2)
    np.testing.assert_allclose(mapped[0], [wanted, model(x + 1, w)])
    step = 1e-6
    slope = (model(x, w + step) - model(x, w - step)) / (2 * step)
    np.testing.assert_allclose(tape.backward([np.float64(1)])[1].sum(), slope, rtol=1e-6)


def test_out_and_where_are_refused_with_the_replacement():
    with pytest.raises(ImmutableError, match="x = x \\+ y"):
        staged(lambda x: np.add(x, 1, out=np.ones((2, 2))), A)
    with pytest.raises(ImmutableError, match="x = x \\+ y"):
        y = A.copy()
        staged(lambda x: y.__iadd__(x), A)
    with pytest.raises(ValueError, match="numpy.where"):
        staged(lambda x: np.add(x, 1, where=A > 0), A)
    with pytest.raises(ImmutableError, match=r"fl.numpy.at\(x\)"):
        staged(lambda x: np.add.at(np.ones(2), [0], x), A)
    with pytest.raises(ImmutableError, match="out="):
        staged(lambda x: np.sum(x, out=np.ones(())), A)


def test_function_without_an_implementation_is_named():
    with pytest.raises(MissingRuleError, match="numpy.*is_busday"):
        staged(lambda x: np.is_busday(x), A[0])


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(ShapeError, match=r"\(2, 2\) and .*\(3,\)"):
        staged(lambda x: x + np.ones(3), A)
    with pytest.raises(ShapeError, match=r"matrix product.*\(2, 2\) and .*\(3,\)"):
        staged(lambda x: x @ np.ones(3), A)


def test_array_of_tracers():
    found = staged(lambda x: fnp.array([[x[0, 0], 1.0], [2, x[1, 1]]]), A)
    np.testing.assert_array_equal(found, [[1.5, 1.0], [2.0, 0.5]])
    assert staged(lambda x: fnp.array([x, 1.0]), np.float32(3)).dtype == np.float32


def test_creation_is_staged():
    program = stage(lambda: [fnp.zeros(3), fnp.arange(4), fnp.eye(2)], []).program
    assert len(program.equations) >= 3
    for found, wanted in zip(evaluator(program)(), [np.zeros(3), np.arange(4), np.eye(2)], strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("n", (1, 2, 8, 9, 30))
@pytest.mark.parametrize("axis", (0, 1, -1))
@pytest.mark.parametrize("ufunc", (np.maximum, np.minimum, np.logaddexp, np.subtract, np.divide, np.hypot))
def test_methods_of_ufuncs_along_few_and_many_slices(ufunc, axis, n):
    x = np.random.default_rng(n).standard_normal((n, 3) if axis == 0 else (3, n))
    for function in (lambda x: ufunc.accumulate(x, axis=axis), lambda x: ufunc.reduce(x, axis=axis),
                     lambda x: ufunc.reduce(x, axis=axis, keepdims=True)):
        np.testing.assert_allclose(staged(function, x), function(x), rtol=1e-12)


@pytest.mark.parametrize("ufunc", (np.divide, np.bitwise_or, np.gcd, np.maximum, np.power))
def test_methods_of_ufuncs_on_integers_have_numpys_dtype(ufunc):
    x = np.random.default_rng(0).integers(1, 4, (12, 2))
    for function in (lambda x: ufunc.accumulate(x), lambda x: ufunc.reduce(x)):
        found, wanted = staged(function, x), function(x)
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype


def test_running_maxima_take_few_equations():
    program = stage(lambda x: [np.maximum.accumulate(x), np.logaddexp.accumulate(x)], [Aval((5000,), A.dtype)]).program
    assert len(program.equations) < 200  # without loops 40,000

# SPDX-License-Identifier: MIT
"""Creation functions, functional forms of NumPy's in-place functions, and that no function is without a case."""

import numpy as np
import pytest

import functorch_lite.numpy as fnp
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.staging import stage
from functorch_lite.errors import DeviceError, ImmutableError

from . import cases

CREATION = [
    ("zeros", ((2, 3),), {}),
    ("ones", (3,), {"dtype": np.int8}),
    ("full", ((2,), 1.5), {}),
    ("full", ((2,), 3), {}),
    ("eye", (3, 4, 1), {}),
    ("identity", (3,), {}),
    ("tri", (3, 4, -1), {}),
    ("arange", (5,), {}),
    ("arange", (1, 9, 2), {}),
    ("arange", (0.0, 1.0, 0.25), {}),
    ("arange", (5, 1, -2), {"dtype": np.float64}),
    ("linspace", (0, 1, 5), {}),
    ("linspace", (0, 1, 5), {"endpoint": False, "retstep": True}),
    ("linspace", (0, 10, 5), {"dtype": np.int32}),
    ("logspace", (0, 2, 3), {}),
    ("geomspace", (1, 8, 4), {}),
    ("indices", ((2, 3),), {}),
    ("array", ([[1.0, 2.0], [3.0, 4.0]],), {}),
    ("array", ([1, 2],), {"ndmin": 2}),
    ("asarray", ([True, False],), {}),
    ("fromfunction", (lambda i, j: i + 2 * j, (2, 3)), {}),
    ("tril_indices", (3,), {}),
    ("triu_indices", (3, 1), {}),
    ("diag_indices", (3,), {}),
    ("mask_indices", (3, np.triu), {}),
    ("hanning", (7,), {}),
    ("hamming", (7,), {}),
    ("blackman", (7,), {}),
    ("bartlett", (7,), {}),
    ("kaiser", (7, 3.0), {}),
]
OTHERS = {"at", "empty", "empty_like", "fill_diagonal", "put", "put_along_axis", "unique_values"}
OTHERS |= {"apply_along_axis", "apply_over_axes", "vectorize"}  # in test_mapping.py


def leaves(value):
    return [x for v in value for x in leaves(v)] if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("name, args, options", CREATION)
def test_creation_equals_numpy_in_the_default_float(name, args, options):
    wanted = leaves(getattr(np, name)(*args, **options))
    eager = leaves(getattr(fnp, name)(*args, **options))
    program = stage(lambda: leaves(getattr(fnp, name)(*args, **options)), []).program
    for found in (eager, evaluator(program)()):
        for f, w in zip(found, wanted, strict=True):
            np.testing.assert_allclose(f, w, rtol=1e-6, atol=1e-7)
            if isinstance(w, np.ndarray):
                kept = w.dtype != np.float64 or "dtype" in options
                assert f.dtype == (w.dtype if kept else np.float32)


def test_every_function_has_a_case():
    ours = {
        name
        for name in dir(fnp)
        if not name.startswith("_")
        and callable(getattr(fnp, name))
        and not isinstance(getattr(fnp, name), type)
        and getattr(fnp, name) is not getattr(np, name, None)
    }
    assert ours - {c[0] for c in cases.CASES} - {c[0] for c in CREATION} - OTHERS == set()


def test_functional_forms_of_in_place_functions():
    x = np.arange(6.0).reshape(2, 3)
    kept = x.copy()
    wanted = x.copy()
    np.put(wanted, [0, -1], [9.0, 8.0])
    np.testing.assert_array_equal(fnp.put(x, [0, -1], [9.0, 8.0]), wanted)
    wanted = x.copy()
    np.put_along_axis(wanted, np.array([[1], [0]]), 7.0, axis=1)
    np.testing.assert_array_equal(fnp.put_along_axis(x, np.array([[1], [0]]), 7.0, axis=1), wanted)
    wanted = x.copy()
    np.fill_diagonal(wanted, 5.0)
    np.testing.assert_array_equal(fnp.fill_diagonal(x, 5.0), wanted)
    np.testing.assert_array_equal(x, kept)
    for function in (fnp.put, fnp.fill_diagonal):
        with pytest.raises(ImmutableError, match="inplace=False"):
            function(x, 0, 1.0, inplace=True) if function is fnp.put else function(x, 1.0, inplace=True)


def test_empty_holds_zeros():
    np.testing.assert_array_equal(fnp.empty((2, 2)), np.zeros((2, 2)))
    np.testing.assert_array_equal(fnp.empty_like(np.ones(3)), np.zeros(3))


def test_unique_values():
    np.testing.assert_array_equal(np.sort(fnp.unique_values(np.array([3, 1, 3]))), [1, 3])


def test_unknown_device_is_named():
    with pytest.raises(DeviceError, match="tpu"):
        fnp.zeros(3, device="tpu")

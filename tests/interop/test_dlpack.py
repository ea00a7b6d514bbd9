# SPDX-License-Identifier: MIT
import sys

import ml_dtypes
import numpy as np
import pytest

from functorch_lite import interop
from functorch_lite.errors import ArgumentError, ArgumentTypeError, MissingPackageError

PLAIN = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
SMALL = "bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu".split()
DTYPES = [*PLAIN, *SMALL]


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name) if name in SMALL else name)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the reference is torch")


@pytest.fixture
def jnp():
    return pytest.importorskip("jax.numpy", reason="the reference is JAX")


# --- torch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DTYPES)
def test_an_array_and_a_tensor_of_each_dtype_share_their_memory(torch, name):
    array = np.ones((2, 3), dtype_of(name))
    tensor = interop.to_torch(array)
    assert str(tensor.dtype) == f"torch.{name}" and tensor.shape == (2, 3)
    back = interop.from_torch(tensor)
    assert back.dtype == array.dtype and np.shares_memory(back, array)


def test_what_one_side_writes_the_other_sees(torch):
    array = np.zeros(3, np.float32)
    tensor = interop.to_torch(array)
    array[0], tensor[1] = 7.0, 8.0
    assert array.tolist() == tensor.tolist() == [7.0, 8.0, 0.0]
    tensor = torch.zeros(3, dtype=torch.bfloat16)
    interop.from_torch(tensor)[2] = 5.0
    assert tensor.tolist() == [0.0, 0.0, 5.0]


def test_strided_and_empty_and_scalar_tensors_are_shared(torch):
    tensor = torch.arange(12.0).reshape(3, 4)
    view = interop.from_torch(tensor.T[1:, ::2])
    view[0, 1] = 100.0
    assert view.shape == (3, 2) and tensor[2, 1] == 100.0
    assert interop.from_torch(torch.zeros(0, 3)).shape == (0, 3)
    assert interop.from_torch(torch.tensor(2.0)) == 2.0
    array = np.arange(12.0).reshape(3, 4)
    interop.to_torch(array[::2, 1:])[1, 0] = 200.0
    assert array[2, 1] == 200.0


def test_a_tensor_with_gradient_and_a_lazily_conjugated_one_come_over(torch):
    parameter = torch.nn.Parameter(torch.ones(2))
    interop.from_torch(parameter)[0] = 3.0
    assert parameter.tolist() == [3.0, 1.0]
    assert interop.from_torch(torch.tensor([1 + 2j]).conj()).tolist() == [1 - 2j]
    assert interop.from_torch(torch.tensor([1 + 2j]).conj().imag).tolist() == [-2.0]


def test_a_copy_shares_nothing(torch):
    array = np.zeros(3)
    interop.to_torch(array, copy=True)[0] = 1.0
    tensor = torch.zeros(3)
    interop.from_torch(tensor, copy=True)[0] = 1.0
    assert array.sum() == 0 and tensor.sum() == 0


def read_only():
    array = np.arange(4.0)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array, reason",
    [
        (read_only(), "it is read-only"),
        (np.arange(4.0)[::-1], r"its strides \(-8,\) are negative"),
        (np.arange(4, dtype=">f8"), "has the other byte order"),
        (np.zeros(4, [("a", "i1"), ("x", "f4")])["x"], r"its strides \(5,\) are negative or no whole elements"),
    ],
)
def test_an_array_that_torch_cannot_share_is_refused_but_may_be_copied(torch, array, reason):
    with pytest.raises(ArgumentError, match=reason) as caught:
        interop.to_torch(array)
    assert "interop.to_torch(x, copy=True)" in str(caught.value)
    assert interop.to_torch(array, copy=True).tolist() == array.tolist()


def test_what_is_no_dense_tensor_is_named(torch):
    with pytest.raises(ArgumentTypeError, match="from_torch: expected a torch tensor, got ndarray"):
        interop.from_torch(np.zeros(3))
    with pytest.raises(ArgumentTypeError, match="got layout torch.sparse_coo on cpu"):
        interop.from_torch(torch.ones(2).to_sparse())
    with pytest.raises(ArgumentTypeError, match="on meta"):
        interop.from_torch(torch.ones(2, device="meta"))
    with pytest.raises(ArgumentTypeError, match="to_torch: expected a NumPy or CuPy array, got list"):
        interop.to_torch([1.0])


@pytest.mark.parametrize("package, function", [("torch", interop.to_torch), ("jax.numpy", interop.to_jax)])
def test_a_missing_package_is_named_with_the_line_for_pip(monkeypatch, package, function):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=f"{function.__name__} needs {package}.*pip install"):
        function(np.zeros(3))


# --- JAX ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float32", "int32", "bool", "complex64", "bfloat16", "float8_e4m3fn"])
def test_a_jax_array_shares_its_memory_and_is_read_only(jnp, name):
    x = jnp.ones((2, 3), dtype_of(name))
    array = interop.from_jax(x)
    assert array.dtype == dtype_of(name) and array.ctypes.data == x.unsafe_buffer_pointer()
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 0
    copy = interop.from_jax(x, copy=True)
    copy[0, 0] = 0
    assert x[0, 0] == 1


def test_an_aligned_array_is_shared_with_jax_and_others_are_copied(jnp):
    room = np.zeros(64 + 256, np.uint8)
    start = -room.ctypes.data % 64
    aligned = room[start : start + 256].view(np.float32)
    assert interop.to_jax(aligned).unsafe_buffer_pointer() == aligned.ctypes.data
    frozen = np.arange(4, dtype=np.float32)
    frozen.flags.writeable = False
    for other in (frozen, frozen[::-1], np.arange(8, dtype=np.int32)[::2]):
        assert np.array_equal(interop.to_jax(other), other)
    assert interop.to_jax(np.ones(3, ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


def test_what_is_no_jax_array_is_named():
    with pytest.raises(ArgumentTypeError, match="from_jax: expected a JAX array, got ndarray"):
        interop.from_jax(np.zeros(3))
    with pytest.raises(ArgumentTypeError, match="to_jax: expected a NumPy or CuPy array, got float"):
        interop.to_jax(1.0)


def test_an_array_goes_from_jax_to_torch(jnp, torch):
    shared = interop.from_jax(jnp.arange(3.0))
    with pytest.raises(ArgumentError, match="read-only"):
        interop.to_torch(shared)
    assert interop.to_torch(shared, copy=True).tolist() == [0.0, 1.0, 2.0]


@pytest.mark.gpu
def test_cuda_tensors_and_cupy_arrays_share_their_memory(torch):
    cupy = pytest.importorskip("cupy", reason="arrays on a GPU are CuPy's")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    for dtype in (torch.float32, torch.bfloat16):
        tensor = torch.zeros(3, device="cuda", dtype=dtype)
        array = interop.from_torch(tensor)
        assert isinstance(array, cupy.ndarray)
        array[0] = 7.0
        interop.to_torch(array)[1] = 8.0
        assert tensor.tolist() == [7.0, 8.0, 0.0]

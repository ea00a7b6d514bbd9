# SPDX-License-Identifier: MIT
"""Arrays of torch and JAX as NumPy or CuPy arrays and back, sharing their memory by DLPack.

An array on the CPU is NumPy's, one on a CUDA device CuPy's; nothing moves between devices. Shared memory is shared both
ways: what one side writes the other sees. What cannot be shared safely is an error, or a copy that was asked for.

DLPack has no bfloat16 and no 8-bit floats in NumPy; these travel as integers of their width and are viewed anew.

Source: the DLPack specification, https://dmlc.github.io/dlpack; the array API standard 2024.12, `from_dlpack`.
"""

from typing import Any

import ml_dtypes
import numpy as np

from functorch_lite.backends.registry import on_device
from functorch_lite.errors import ArgumentError, ArgumentTypeError
from functorch_lite.packages import need

_SMALL_FLOATS = {
    np.dtype(getattr(ml_dtypes, name)): name
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
}
_BY_NAME = {name: dtype for dtype, name in _SMALL_FLOATS.items()}

_UNSHARED = """\
to_torch: the array cannot be shared with torch, because {reason}:
    interop.to_torch(x)                 # shares the memory
    interop.to_torch(x, copy=True)      # a copy, always possible"""


def from_torch(tensor: Any, *, copy: bool = False) -> Any:
    """The torch tensor `tensor` as a NumPy array, or as a CuPy array if it is on a CUDA device.

    The memory is shared, strides and all, also with a tensor that requires gradients (torch does not see what is done
    to it then). bfloat16 and 8-bit floats become those of ml_dtypes. A tensor that torch holds conjugated or negated
    lazily is copied. copy: always copy.

    Raises ArgumentTypeError for what is no dense tensor on the CPU or a CUDA device.

    >>> import torch                                                                      # doctest: +SKIP
    >>> tensor = torch.zeros(3)                                                           # doctest: +SKIP
    >>> from_torch(tensor)[0] = 7.0                                                       # doctest: +SKIP
    >>> tensor                                                                            # doctest: +SKIP
    tensor([7., 0., 0.])
    """
    if not (hasattr(tensor, "detach") and hasattr(tensor, "layout")):
        raise ArgumentTypeError(f"from_torch: expected a torch tensor, got {type(tensor).__name__}.")
    if str(tensor.layout) != "torch.strided" or tensor.device.type not in ("cpu", "cuda"):
        raise ArgumentTypeError(
            f"from_torch: expected a dense tensor on the CPU or a CUDA device, got layout {tensor.layout} "
            f"on {tensor.device}."
        )
    tensor = tensor.detach().resolve_conj().resolve_neg()
    small = _BY_NAME.get(str(tensor.dtype).removeprefix("torch."))
    if small is not None:
        torch = need("torch", by="from_torch", install="torch")
        tensor = tensor.view(torch.uint8 if small.itemsize == 1 else torch.int16)
    array = _import(tensor, tensor.device.type == "cuda")
    array = array if small is None else array.view(small)
    return array.copy() if copy else array


def to_torch(x: Any, *, copy: bool = False) -> Any:
    """The NumPy or CuPy array `x` as a torch tensor on the same device; needs torch.

    The memory is shared unless `copy` is true. ml_dtypes' bfloat16 and 8-bit floats become torch's.

    Raises ArgumentError for an array that torch cannot share: one that is read-only (torch would write to it), not of
    this machine's byte order, or with strides that are negative or no whole elements.
    """
    x = _array(x, "to_torch")
    torch = need("torch", by="to_torch", install="torch")
    reason = _unshareable(x)
    if reason and not copy:
        raise ArgumentError(_UNSHARED.format(reason=reason))
    if copy:
        x = x.astype(x.dtype.newbyteorder("="), order="C", copy=True)
    name = _SMALL_FLOATS.get(x.dtype)
    if name is None:
        return torch.from_dlpack(x)
    return torch.from_dlpack(x.view(np.uint8 if x.dtype.itemsize == 1 else np.int16)).view(getattr(torch, name))


def from_jax(x: Any, *, copy: bool = False) -> Any:
    """The JAX array `x` as a NumPy array, or as a CuPy array if it is on a CUDA device.

    The memory is shared and, as JAX's arrays never change, the NumPy array is read-only; CuPy has no such mark, so do
    not write to that one. copy: a copy, which may be written to. bfloat16 and 8-bit floats are those of ml_dtypes.

    Raises ArgumentTypeError for what is no JAX array on the CPU or one CUDA device.
    """
    if not hasattr(x, "devices"):
        raise ArgumentTypeError(f"from_jax: expected a JAX array, got {type(x).__name__}.")
    kinds = {device.platform for device in x.devices()}
    if kinds == {"cpu"}:
        return np.array(x) if copy else np.asarray(x)
    if kinds != {"gpu"} and kinds != {"cuda"}:
        raise ArgumentTypeError(f"from_jax: expected an array on the CPU or a CUDA device, got one on {sorted(kinds)}.")
    array = _import(x, True)
    return array.copy() if copy else array


def to_jax(x: Any) -> Any:
    """The NumPy or CuPy array `x` as a JAX array; needs JAX. It shares the memory where JAX allows, else it is a copy.

    JAX shares rows one behind the other that begin at a multiple of 64 bytes, and takes it that they never change: do
    not write to `x` afterwards. Without its 64-bit mode it makes 64-bit numbers 32-bit ones.
    """
    x = _array(x, "to_jax")
    jnp = need("jax.numpy", by="to_jax", install="jax")
    shareable = not _unshareable(x) and x.dtype not in _SMALL_FLOATS and x.flags.c_contiguous
    return jnp.from_dlpack(x) if shareable else jnp.array(x.get() if on_device(x) else x)


def _import(x: Any, is_cuda: bool) -> Any:
    if not is_cuda:
        return np.from_dlpack(x)
    return need("cupy", by="an array on a CUDA device", install="cupy-cuda12x").from_dlpack(x)


def _array(x: Any, function: str) -> Any:
    if not isinstance(x, np.ndarray) and not on_device(x):
        raise ArgumentTypeError(f"{function}: expected a NumPy or CuPy array, got {type(x).__name__}.")
    return x


def _unshareable(x: Any) -> str:
    """Why other libraries cannot use the memory of `x` as it is; empty when they can."""
    if not getattr(x.flags, "writeable", True):
        return "it is read-only"
    if not x.dtype.isnative:
        return f"its dtype {x.dtype} has the other byte order"
    if any(step < 0 or step % x.dtype.itemsize for step in x.strides):
        return f"its strides {x.strides} are negative or no whole elements"
    return ""

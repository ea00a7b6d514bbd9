# SPDX-License-Identifier: MIT
"""The stand-in is as strict as CuPy, or its tests prove nothing; NumPy and device arrays together are an error."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import numpy as fnp
from functorch_lite.backends import registry
from functorch_lite.errors import DeviceError

HOST = np.ones(3)


@pytest.mark.parametrize(
    "mix",
    [
        lambda xp, x: x + HOST, lambda xp, x: HOST + x, lambda xp, x: xp.add(x, HOST), lambda xp, x: np.add(x, HOST),
        lambda xp, x: np.asarray(x), lambda xp, x: x * np.array(2.0), lambda xp, x: xp.where(x > 0, x, HOST),
        lambda xp, x: np.concatenate([x, HOST]), lambda xp, x: x.__iadd__(HOST), lambda xp, x: x @ HOST,
    ],
)
def test_the_stand_in_refuses_numpy_arrays(device, mix):
    with pytest.raises(TypeError):
        mix(device, device.asarray(HOST))


def test_the_stand_in_gives_arrays_for_numbers_of_rank_zero(device):
    x = device.asarray(HOST)
    for found in (x[0], x.sum(), device.max(x), np.sum(x), x[0] + np.float64(1), x @ x, device.linalg.norm(x)):
        assert isinstance(found, device.ndarray) and found.shape == ()
    assert not hasattr(device, "bitwise_count")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: fl.grad(lambda v: fnp.sum(v * HOST))(x), lambda x: fl.vmap(lambda v: v * HOST)(fnp.stack([x, x])),
        lambda x: fl.jvp(lambda v: v + HOST, (x,), (x,)), lambda x: fl.jit(lambda v, w: v + w)(x, HOST),
    ],
    ids=["grad", "vmap", "jvp", "jit"],
)
def test_operands_on_two_devices_are_an_error_that_names_both(device, function):
    with pytest.raises(DeviceError, match=r"(strict.*numpy|numpy.*strict)"):
        function(device.asarray(HOST))


def test_a_jitted_function_is_traced_for_each_device(device):
    double = fl.jit(lambda x: x * fnp.linspace(0.0, 1.0, 2000)[:3])
    on_device = double(device.asarray(HOST))
    np.testing.assert_allclose(on_device.get(), double(HOST), rtol=1e-6)
    assert isinstance(on_device, device.ndarray) and isinstance(double(HOST), np.ndarray)
    assert double.cache_info().entries[-1].reason == "the arguments live on another device"


def test_home_is_numpy_again_after_a_transform_that_raised(device):
    def fails(x):
        raise KeyError(x.shape)

    for transformed in (fl.grad(fails), fl.jit(fails), fl.vmap(fails), lambda x: fl.jvp(fails, (x,), (x,))):
        with pytest.raises(KeyError):
            transformed(device.asarray(HOST))
        assert registry.home.get() is np

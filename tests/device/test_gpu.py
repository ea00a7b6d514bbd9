# SPDX-License-Identifier: MIT
"""The same laws and programs on CuPy's arrays, where there is a GPU."""

import importlib
import importlib.util

import pytest

from tests.device.laws import LAWS, assert_law
from tests.device.programs import CASES, assert_same_on, assert_trains_on
from tests.records import ALL_RECORDS


def why_not() -> str | None:
    """Why nothing can be run on a GPU here, or None."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install functorch_lite[cuda12]"
    cupy = importlib.import_module("cupy")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no CUDA device: {error}"
    return None if count else "no CUDA device"


REASON = why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


@pytest.fixture(scope="module")
def cupy():
    """CuPy, imported where there is a device."""
    return importlib.import_module("cupy")


@pytest.mark.parametrize("record", ALL_RECORDS, ids=lambda record: record.name)
def test_laws(cupy, record):
    for law in LAWS:
        assert_law(law, cupy, record)


@pytest.mark.parametrize(("name", "function", "args"), CASES, ids=[c[0].replace(" ", "_") for c in CASES])
def test_program(cupy, name, function, args):
    assert_same_on(cupy, function, args)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_training(cupy, jitted):
    assert_trains_on(cupy, jitted)

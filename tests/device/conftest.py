# SPDX-License-Identifier: MIT
"""The stand-in device, known to the registry for as long as a test file of this folder runs; silent overflow."""

from unittest import mock

import numpy as np
import pytest

from functorch_lite.backends import registry
from tests.device import strict


@pytest.fixture(scope="module")
def device():
    """The module of the stand-in for CuPy."""
    with mock.patch.dict(registry._modules), mock.patch.object(registry, "_devices", []):
        yield strict.library()


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield

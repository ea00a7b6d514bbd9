# SPDX-License-Identifier: MIT
"""The laws call the traces directly, below the public transforms that silence floating-point warnings."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield

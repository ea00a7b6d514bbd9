# SPDX-License-Identifier: MIT
"""Transforms, loops, random numbers and training on the stand-in device."""

import pytest

from tests.device.programs import CASES, assert_same_on, assert_trains_on


@pytest.mark.parametrize(("name", "function", "args"), CASES, ids=[c[0].replace(" ", "_") for c in CASES])
def test_program(device, name, function, args):
    assert_same_on(device, function, args)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_training(device, jitted):
    assert_trains_on(device, jitted)

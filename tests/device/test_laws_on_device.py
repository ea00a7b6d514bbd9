# SPDX-License-Identifier: MIT
"""Every law of every operation on the stand-in device: results stay there and equal NumPy's."""

import pytest

from tests.device.laws import LAWS, assert_law
from tests.records import ALL_RECORDS


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("record", ALL_RECORDS, ids=lambda record: record.name)
def test_law(device, law, record):
    assert_law(law, device, record)

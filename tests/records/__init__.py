# SPDX-License-Identifier: MIT
"""Tables of operation records, one file a family: what the laws of `tests/laws` run over."""

import importlib
import importlib.util

from tests.records.op_record import OpRecord as OpRecord
from tests.records.op_record import Sample as Sample

FAMILIES = (
    "broadcast", "movement", "elementwise", "comparison", "casts", "transcendental", "contraction", "convolution",
    "indexing", "reduction", "cumulative", "sorting", "windows", "special", "linalg", "fft", "random_bits",
    "attention", "control_flow",
)

ALL_RECORDS: list[OpRecord] = [
    record
    for family in FAMILIES
    if importlib.util.find_spec(f"tests.records.{family}")
    for record in importlib.import_module(f"tests.records.{family}").RECORDS
]

# SPDX-License-Identifier: MIT
"""Every primitive has, in every table, a rule or a stated absence; and the generated page of them is up to date."""

from pathlib import Path

import functorch_lite
from functorch_lite.rules import families, holes, matrix, tables

DOCS = Path(functorch_lite.__file__).parents[1] / "docs"


def test_no_cell_of_the_matrix_is_a_hole():
    assert holes() == []


def test_an_absence_has_a_reason():
    assert all(why.strip() for table in tables() for why in table.absences.values())


def test_names_are_unique():
    names = [p.name for prims in families().values() for p in prims]
    assert len(names) == len(set(names))


def test_the_generated_page_is_up_to_date():
    text = (DOCS / "primitives.md").read_text()
    assert text == "\n".join(matrix()) + "\n", "run `make docs`"

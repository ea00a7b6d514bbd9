# SPDX-License-Identifier: MIT
"""Options and fixtures of all tests."""

from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts with what tests get now")


@pytest.fixture
def check_golden(request):
    """`check_golden(path, text)`: the text is that of the file at `path`; --update-golden rewrites the file."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        assert path.is_file(), f"{path.name} is missing: run pytest --update-golden and read the result"
        assert text == path.read_text()

    return check

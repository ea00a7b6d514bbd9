# SPDX-License-Identifier: MIT
"""Options and fixtures of all tests."""

import signal
from pathlib import Path

import pytest

from functorch_lite.config import config

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so in what a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts with what tests get now")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """The folder of compiled code, for all workers of this run: a temporary one."""
    before = config.cache_dir
    folder = tmp_path_factory.getbasetemp().parent / "functorch_lite-objects"
    config.update(cache_dir=str(folder))
    yield folder
    config.update(cache_dir=before)


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

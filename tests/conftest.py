# SPDX-License-Identifier: MIT
"""Options and fixtures of all tests."""

import signal
from pathlib import Path

import numpy as np
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


_states: dict[str, dict] = {}


@pytest.fixture(autouse=True)
def same_numbers(request):
    """What a test draws from its module's generator `RNG` does not depend on the tests that ran before it."""
    generator = getattr(request.module, "RNG", None)
    if isinstance(generator, np.random.Generator):
        state = _states.setdefault(request.module.__name__, generator.bit_generator.state)
        generator.bit_generator.state = state


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

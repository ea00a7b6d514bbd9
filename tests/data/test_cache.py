# SPDX-License-Identifier: MIT
import gzip
import hashlib
import io
import os
from pathlib import Path

import pytest

from functorch_lite.config import config
from functorch_lite.data import DataError, cache, fashion_mnist
from functorch_lite.errors import ArgumentError
from functorch_lite.files import whole_file

CONTENT = {"images": b"four images", "labels": b"four labels"}
DATASET = cache.Published(
    name="toys",
    package="dataset-toys",
    mirrors=("https://one.invalid", "https://two.invalid"),
    sha256={name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()},
)
NAMES = ["images", "labels"]


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The fetchers that were asked, in order; none of them has anything."""
    asked = []

    def fetcher(way):
        def fetch(dataset, names):
            asked.append(way)
            raise cache.DataError(f"no {way} here")

        return fetch

    monkeypatch.setattr(cache, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(cache, "fetch_package", fetcher("package"))
    monkeypatch.setattr(cache, "fetch_with_pip", fetcher("pip"))
    monkeypatch.setattr(cache, "fetch_https", fetcher("https"))
    return asked


def fill(folder, content=CONTENT, pack=bytes, ending=""):
    (folder / "toys").mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / "toys" / (name + ending)).write_bytes(pack(data))


def load(tmp_path, names=NAMES):
    return cache.load_files(DATASET, names, data_dir=tmp_path / "cache")


# Order of look-up


def test_the_cache_folder_is_asked_first(calls, tmp_path):
    fill(tmp_path / "cache")
    fill(tmp_path / "system", {name: b"never read" for name in NAMES})
    assert load(tmp_path) == list(CONTENT.values())
    assert calls == []


def test_gzipped_files_are_taken_too(calls, tmp_path):
    fill(tmp_path / "cache", pack=gzip.compress, ending=".gz")
    assert load(tmp_path, ["labels", "images"]) == [CONTENT["labels"], CONTENT["images"]]


def test_the_system_folder_is_asked_second_and_left_in_place(calls, tmp_path):
    fill(tmp_path / "system", pack=gzip.compress, ending=".gz")
    assert load(tmp_path) == list(CONTENT.values())
    assert calls == []
    assert not (tmp_path / "cache").exists()


def test_a_file_missing_from_the_cache_comes_from_the_system_folder(calls, tmp_path):
    fill(tmp_path / "cache", {"images": CONTENT["images"]})
    fill(tmp_path / "system", {"labels": CONTENT["labels"]})
    assert load(tmp_path) == list(CONTENT.values())


def test_the_package_is_asked_before_https_and_what_came_is_kept(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "fetch_package", lambda dataset, names: dict(CONTENT))
    assert load(tmp_path, ["labels"]) == [CONTENT["labels"]]
    assert calls == []
    assert {path.name for path in (tmp_path / "cache" / "toys").iterdir()} == set(NAMES)


def test_https_is_asked_last_and_only_for_what_is_missing(calls, tmp_path, monkeypatch):
    fill(tmp_path / "cache", {"images": CONTENT["images"]})
    wanted = []

    def fetch(dataset, names):
        wanted.extend(names)
        return {name: CONTENT[name] for name in names}

    monkeypatch.setattr(cache, "fetch_https", fetch)
    assert load(tmp_path) == list(CONTENT.values())
    assert (calls, wanted) == (["package"], ["labels"])


def test_when_nothing_helps_the_error_lists_the_ways(calls, tmp_path):
    with pytest.raises(DataError) as raised:
        load(tmp_path)
    text = str(raised.value)
    assert calls == ["package", "https"]
    for part in (
        "images, labels could not be had",
        str(tmp_path / "cache" / "toys"),
        str(tmp_path / "system" / "toys"),
    ):
        assert part in text
    for part in ("package dataset-toys: no package here", "HTTPS: no https here", "FUNCTORCH_LITE_DATA"):
        assert part in text


def test_ways_that_a_data_set_has_not_are_not_asked_nor_listed(calls, tmp_path):
    plain = cache.Published(name="toys", sha256=DATASET.sha256, mirrors=DATASET.mirrors)
    with pytest.raises(DataError) as raised:
        cache.load_files(plain, ["images"], data_dir=tmp_path)
    assert calls == ["https"]
    assert "1. the cache folder" in str(raised.value)
    assert "2. a download over HTTPS" in str(raised.value)
    assert "apt-get" not in str(raised.value)
    assert "download the file from https://one.invalid, and copy the file, gzipped or not," in str(raised.value)


def test_the_setting_names_the_cache_folder(calls, tmp_path):
    fill(tmp_path)
    with config(data_dir=str(tmp_path)):
        assert cache.load_files(DATASET, NAMES) == list(CONTENT.values())


def test_without_a_setting_the_cache_is_below_the_home_folder():
    with config(data_dir=None):
        assert Path.home() in cache.cache_folder().parents


# Torn and foreign files


def test_a_foreign_file_in_the_cache_is_named_and_kept(calls, tmp_path):
    fill(tmp_path / "cache", {"images": CONTENT["images"], "labels": b"something else"})
    path = tmp_path / "cache" / "toys" / "labels"
    with pytest.raises(DataError, match="should have the SHA-256.*torn or another one. Delete it") as raised:
        load(tmp_path)
    assert str(path) in str(raised.value)
    assert path.read_bytes() == b"something else"
    assert calls == []


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_torn_file_in_the_cache_is_named(calls, tmp_path, ending):
    pack = gzip.compress if ending else bytes
    fill(tmp_path / "cache", pack=lambda data: pack(data)[:-3], ending=ending)
    with pytest.raises(DataError, match=f"images{ending} .*torn"):
        load(tmp_path)


def test_a_torn_system_file_is_passed_over_and_listed(calls, tmp_path):
    fill(tmp_path / "system", {name: data[:-1] for name, data in CONTENT.items()})
    with pytest.raises(DataError, match=r"system/toys/images should have the SHA-256"):
        load(tmp_path)
    assert calls == ["package", "https"]


def test_a_package_without_the_files_is_refused(tmp_path, monkeypatch):
    def download(package, folder):
        (folder / f"{package}.deb").touch()

    monkeypatch.setattr(cache.shutil, "which", lambda program: program)
    monkeypatch.setattr(cache, "_download_package", download)
    monkeypatch.setattr(cache, "_run", lambda command, folder: None)
    with pytest.raises(DataError, match="package dataset-toys holds no images, labels"):
        cache.fetch_package(DATASET, NAMES)


def test_a_machine_without_apt_is_told_so(monkeypatch):
    monkeypatch.setattr(cache.shutil, "which", lambda program: None)
    with pytest.raises(DataError, match="apt-get and dpkg-deb are not on this machine"):
        cache.fetch_package(DATASET, NAMES)


def test_package_lists_are_fetched_only_when_the_download_fails(tmp_path, monkeypatch):
    commands = []

    def run(command, folder):
        commands.append(next(word for word in command[1:] if not word.startswith("-o")))
        if len(commands) == 1:
            raise cache.DataError("Unable to locate package")

    monkeypatch.setattr(cache, "_run", run)
    cache._download_package("dataset-toys", tmp_path)
    assert commands == ["download", "update", "download"]
    commands.append("a first one that works")
    cache._download_package("dataset-toys", tmp_path)
    assert commands[4:] == ["download"]


def test_a_failing_command_is_quoted_with_its_last_line(tmp_path):
    with pytest.raises(DataError, match="ended with status 3: second"):
        cache._run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"], tmp_path)


def test_a_mirror_with_wrong_content_is_passed_over(monkeypatch):
    replies = {
        "https://one.invalid/images.gz": b"a portal's login page",
        "https://two.invalid/images.gz": CONTENT["images"],
    }
    monkeypatch.setattr(cache.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(replies[url]))
    assert cache.fetch_https(DATASET, ["images"]) == {"images": CONTENT["images"]}


def test_what_each_mirror_answered_is_told(monkeypatch):
    def refuse(url, timeout):
        raise TimeoutError("timed out")

    monkeypatch.setattr(cache.urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match=r"one.invalid/images.gz: timed out; https://two.invalid/images.gz: timed out"):
        cache.fetch_https(DATASET, ["images"])


# Archives, and pip

ARCHIVE = gzip.compress(b"a source package", mtime=0)
PACKAGE = cache.Published(
    name="toys",
    sha256={"toys-1.0.tar.gz": hashlib.sha256(ARCHIVE).hexdigest()},
    requirement="toys==1.0",
    mirrors=("https://one.invalid",),
    is_archive=True,
)


def load_package(tmp_path):
    return cache.load_files(PACKAGE, PACKAGE.sha256, data_dir=tmp_path / "cache")


def test_an_archive_is_kept_and_read_as_it_was_published(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "fetch_with_pip", lambda dataset, names: {"toys-1.0.tar.gz": ARCHIVE})
    assert load_package(tmp_path) == [ARCHIVE]
    assert (tmp_path / "cache" / "toys" / "toys-1.0.tar.gz").read_bytes() == ARCHIVE
    monkeypatch.delattr(cache, "fetch_with_pip")
    assert load_package(tmp_path) == [ARCHIVE]


def test_pip_is_asked_before_https_and_both_are_listed(calls, tmp_path):
    with pytest.raises(DataError) as raised:
        load_package(tmp_path)
    assert calls == ["pip", "https"]
    for part in ("2. pip download toys==1.0: no pip here", "3. a download over HTTPS", "copy the file as they are"):
        assert part.replace("they are", "it is") in str(raised.value)
    assert "run `pip download --no-deps --no-binary :all: toys==1.0`, or download" in str(raised.value)


def test_a_torn_archive_is_named(calls, tmp_path):
    fill(tmp_path / "cache", {"toys-1.0.tar.gz": ARCHIVE[:-3]})
    with pytest.raises(DataError, match=r"toys-1.0.tar.gz should have the SHA-256 .*torn or another one. Delete it"):
        load_package(tmp_path)


def test_an_archive_comes_over_https_by_its_own_name(monkeypatch):
    replies = {"https://one.invalid/toys-1.0.tar.gz": ARCHIVE}
    monkeypatch.setattr(cache.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(replies[url]))
    assert cache.fetch_https(PACKAGE, PACKAGE.sha256) == {"toys-1.0.tar.gz": ARCHIVE}


def test_pip_gets_the_sha256_and_its_file_is_verified(monkeypatch):
    asked = []

    def run(command, folder, called):
        asked.append((command, (folder / "requirements.txt").read_text()))
        (folder / "toys-1.0.tar.gz").write_bytes(ARCHIVE)

    monkeypatch.setattr(cache, "_run", run)
    assert cache.fetch_with_pip(PACKAGE, PACKAGE.sha256) == {"toys-1.0.tar.gz": ARCHIVE}
    ((command, requirements),) = asked
    assert {"--no-deps", "--require-hashes"} <= set(command)
    assert requirements == f"toys==1.0 --hash=sha256:{hashlib.sha256(ARCHIVE).hexdigest()}\n"


def test_a_machine_without_pip_is_told_so(monkeypatch):
    monkeypatch.setattr(cache.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip is not installed for"):
        cache.fetch_with_pip(PACKAGE, PACKAGE.sha256)


# Atomic writing


def write(path, content):
    with whole_file(path) as file:
        file.write(content)


def test_writing_replaces_the_old_file_whole(tmp_path):
    path = tmp_path / "new" / "file"
    for content in (b"old", b"newer"):
        write(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    path = tmp_path / "file"
    write(path, b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, b"newer")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


# The data set itself


def test_an_unknown_split_is_refused():
    with pytest.raises(ArgumentError, match="`split` should be 'train' or 'test', but is 'valid'"):
        fashion_mnist("valid")


def test_fashion_mnist_names_a_foreign_file(tmp_path):
    (tmp_path / "fashion-mnist").mkdir()
    (tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"cats")
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte should have the SHA-256 0402a96d"):
        fashion_mnist("test", data_dir=tmp_path)

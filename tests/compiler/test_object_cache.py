# SPDX-License-Identifier: MIT
"""The cache of object files: what it gives back, what it refuses, how it stays small, who may share its folder."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from functorch_lite import config
from functorch_lite.compiler.runtime.object_cache import MAGIC, ObjectCache, default_folder

KEY, OTHER = "5a" * 32, "6b" * 32


def fresh(folder, **limits):
    return ObjectCache(lambda: folder, **limits)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_stored_is_found_in_memory_and_by_the_next_process(tmp_path):
    folder = tmp_path / "a" / "b"
    cache = fresh(folder)
    assert cache.find(KEY) is None
    cache.store(KEY, b"code")
    assert cache.find(KEY) == b"code"
    assert names(folder) == [f"{KEY}.o"]
    assert fresh(folder).find(KEY) == b"code"
    assert fresh(folder).find(OTHER) is None


def test_an_object_found_on_disk_is_kept_in_memory(tmp_path):
    fresh(tmp_path).store(KEY, b"code")
    cache = fresh(tmp_path)
    cache.find(KEY)
    (tmp_path / f"{KEY}.o").unlink()
    assert cache.find(KEY) == b"code"
    cache.forget()
    assert cache.find(KEY) is None


@pytest.mark.parametrize("content", [b"", MAGIC, b"foreign" * 40, None, "torn", "flipped", "another key"])
def test_a_torn_or_foreign_file_is_absent_and_written_anew(tmp_path, content):
    path = tmp_path / f"{KEY}.o"
    fresh(tmp_path).store(KEY, bytes(range(200)))
    whole = path.read_bytes()
    fresh(tmp_path).store(OTHER, bytes(range(200)))
    if content is None:
        path.unlink()
        path.mkdir()
    else:
        other = (tmp_path / f"{OTHER}.o").read_bytes()
        bad = {"torn": whole[:-1], "flipped": whole[:-1] + b"\0", "another key": other}
        path.write_bytes(content if isinstance(content, bytes) else bad[content])
    cache = fresh(tmp_path)
    assert cache.find(KEY) is None
    cache.store(KEY, b"new")
    assert cache.find(KEY) == b"new"
    if content is not None:
        assert fresh(tmp_path).find(KEY) == b"new"


def test_the_oldest_files_go_when_the_folder_is_full(tmp_path):
    cache = fresh(tmp_path, disk_bytes=10_000)
    keys = [f"{i:064x}"[::-1].replace("0", "a") for i in range(1, 11)]
    for age, key in enumerate(keys):
        cache.store(key, bytes(1500))
        os.utime(tmp_path / f"{key}.o", (1000 + age, 1000 + age))
    left_over = tmp_path / f"{KEY}.0123.part"
    left_over.write_bytes(bytes(100))
    os.utime(left_over, (1, 1))
    foreign = tmp_path / "notes.txt"
    foreign.write_bytes(bytes(20_000))
    cache.trim()
    assert names(tmp_path) == sorted([f"{key}.o" for key in keys[-4:]] + ["notes.txt"])
    cache.trim()
    assert len(names(tmp_path)) == 5


def test_a_use_makes_a_file_young(tmp_path):
    for age, key in enumerate((KEY, OTHER)):
        fresh(tmp_path).store(key, bytes(1000))
        os.utime(tmp_path / f"{key}.o", (1000 + age, 1000 + age))
    fresh(tmp_path).find(KEY)
    fresh(tmp_path, disk_bytes=2000).trim()
    assert names(tmp_path) == [f"{KEY}.o"]


def test_storing_trims_the_folder_for_one_key_in_64(tmp_path):
    cache = fresh(tmp_path, disk_bytes=100)
    cache.store(KEY, bytes(1000))
    cache.store(OTHER, bytes(1000))
    assert len(names(tmp_path)) == 2
    cache.store("03" * 32, bytes(1000))
    assert names(tmp_path) == []


def test_memory_keeps_the_most_recently_used(tmp_path):
    cache = ObjectCache(lambda: None, memory_bytes=3000)
    keys = [f"{i:064x}" for i in range(4)]
    for key in keys[:3]:
        cache.store(key, bytes(1000))
    cache.find(keys[0])
    cache.store(keys[3], bytes(1000))
    assert [cache.find(key) is not None for key in keys] == [True, False, True, True]
    cache.store(keys[0], bytes(500))
    cache.store(KEY, bytes(500))
    assert all(cache.find(key) is not None for key in (keys[0], keys[2], keys[3], KEY))
    cache.store(OTHER, bytes(4000))
    assert cache.find(OTHER) is None


def test_clear_forgets_all_of_its_own(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    cache = fresh(tmp_path)
    cache.store(KEY, b"code")
    cache.clear()
    assert cache.find(KEY) is None
    assert names(tmp_path) == ["notes.txt"]
    fresh(tmp_path / "absent").clear()
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_cannot_be_made_means_memory_only(tmp_path):
    (tmp_path / "file").write_text("")
    cache = fresh(tmp_path / "file" / "folder")
    cache.store(KEY, b"code")
    cache.trim()
    assert cache.find(KEY) == b"code"
    assert fresh(tmp_path / "file" / "folder").find(KEY) is None


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuse(*paths):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(os, "replace", refuse)
    cache = fresh(tmp_path)
    cache.store(KEY, b"code")
    assert cache.find(KEY) == b"code"
    assert names(tmp_path) == []


def test_the_setting_names_the_folder(tmp_path, monkeypatch):
    with config(cache_dir=str(tmp_path)):
        assert default_folder() == tmp_path / "objects"
    with config(cache_dir=""):
        assert default_folder() is None
    with config(cache_dir=None):
        folder = default_folder()
        assert folder is not None and Path.home() in folder.parents
        monkeypatch.setattr(Path, "home", no_home)
        assert default_folder() is None


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_threads_share_a_cache(tmp_path):
    cache = fresh(tmp_path, memory_bytes=3000)
    failed = []

    def work():
        for i in range(200):
            key = f"{i % 7 + 16:02x}" * 32
            found = cache.find(key)
            if found not in (None, key.encode() * 10):
                failed.append(key)
            cache.store(key, key.encode() * 10)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(names(tmp_path)) == 7


WORKER = """
import sys
from pathlib import Path
from functorch_lite.compiler.runtime.object_cache import ObjectCache
cache = ObjectCache(lambda: Path(sys.argv[1]), disk_bytes=60_000)
for i in range(150):
    key = f"{i % 13:02x}" * 32  # some of these trim the folder
    found = cache.find(key)
    assert found in (None, key.encode() * 100), key
    cache.store(key, key.encode() * 100)
    cache.forget()
"""


def test_processes_share_a_folder(tmp_path):
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)]) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert all(name.endswith(".o") for name in names(tmp_path))

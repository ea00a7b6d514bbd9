# SPDX-License-Identifier: MIT
"""Object files of compiled programs, kept in memory and on disk.

On disk each is a file of its own, named by its key, in `config.cache_dir`: a line that names the format, a SHA-256
of the key and the object, and the object. It appears whole or not at all, so processes may share the folder; what is
torn or foreign is taken as absent and written anew. A folder that cannot be written or read means memory only.
"""

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from functorch_lite.config import config, platform_cache_folder

MAGIC = b"functorch_lite object 1\n"
_HEADER = len(MAGIC) + hashlib.sha256().digest_size
_OURS = (".o", ".part")


def default_folder() -> Path | None:
    """The folder of object files: in `config.cache_dir`, else in the platform's cache folder; None is memory only."""
    chosen = config.cache_dir
    if chosen is None:
        try:
            return platform_cache_folder() / "objects"
        except RuntimeError:  # no home folder
            return None
    return Path(chosen).expanduser() / "objects" if chosen else None


class ObjectCache:
    """Keys (hexadecimal digests) and object files; methods may be called from several threads and processes.

    folder: called at each use; None is memory only.
    disk_bytes: when the folder holds more, its oldest files go; looked at after about one store in 64.
    memory_bytes: when the objects in memory are more, the least recently used go.
    """

    def __init__(
        self,
        folder: Callable[[], Path | None] = default_folder,
        disk_bytes: int = 1 << 30,
        memory_bytes: int = 64 << 20,
    ):
        self._folder = folder
        self._disk_bytes = disk_bytes
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._held = 0

    def find(self, key: str) -> bytes | None:
        """The object of `key`, or None."""
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
        found = self._read(key)
        if found is not None:
            self._remember(key, found)
        return found

    def store(self, key: str, data: bytes) -> None:
        """Keep the object `data` of `key`."""
        self._remember(key, data)
        folder = self._folder()
        if folder is None:
            return
        with contextlib.suppress(OSError):
            _write(folder, key, data)
            if key.startswith(("00", "01", "02", "03")):  # one key in 64
                self.trim()

    def trim(self) -> None:
        """Remove the oldest files when the folder holds too much, down to three quarters of what it may hold."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        if total <= self._disk_bytes:
            return
        for _, size, path in files:
            if total <= self._disk_bytes * 3 // 4:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size

    def clear(self) -> None:
        """Forget every object, in memory and on disk."""
        self.forget()
        for _, _, path in list(self._files()):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def forget(self) -> None:
        """Forget the objects in memory."""
        with self._lock:
            self._memory.clear()
            self._held = 0

    def _remember(self, key: str, data: bytes) -> None:
        with self._lock:
            self._held += len(data) - len(self._memory.pop(key, b""))
            self._memory[key] = data
            while self._held > self._memory_bytes:
                self._held -= len(self._memory.popitem(last=False)[1])

    def _read(self, key: str) -> bytes | None:
        folder = self._folder()
        if folder is None:
            return None
        path = folder / f"{key}.o"
        try:
            content = path.read_bytes()
        except OSError:
            return None
        data = content[_HEADER:]
        if content[:_HEADER] != _header(key, data):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # recently used
        return data

    def _files(self) -> Iterator[tuple[float, int, str]]:
        folder = self._folder()
        if folder is None:
            return
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_OURS):
                    with contextlib.suppress(OSError):  # another process may have removed it
                        status = entry.stat()
                        yield status.st_mtime, status.st_size, entry.path


def _header(key: str, data: bytes) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(data)
    return MAGIC + digest.digest()


def _write(folder: Path, key: str, data: bytes) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = folder / f"{key}.{os.urandom(8).hex()}.part"
    try:
        with part.open("xb") as file:
            file.write(_header(key, data))
            file.write(data)
        os.replace(part, folder / f"{key}.o")
    finally:
        part.unlink(missing_ok=True)


objects = ObjectCache()

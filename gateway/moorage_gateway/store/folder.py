"""The object store as a folder: one file an object, durable before `put` returns. Layer: gateway.

A write goes to `.tmp/` on the same file system, is fsynced, renamed to its place, and the folders on the way are
fsynced: a kill at any instant leaves the old object or the new one, whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from moorage_gateway.store import base
from moorage_gateway.store.errors import InvalidKey, StoreUnavailable

STALE_TEMPORARY = 3600.0  # seconds; younger ones may belong to another process that writes right now
RENAME_TRIES = 20  # a concurrent delete may take the empty parent folder away between mkdir and rename

T = TypeVar("T")


class FolderStore:
    """Objects below `root`. Several processes of one machine may share the folder."""

    def __init__(self, root: Path, *, workers: int = 8, waiting: int = 1024, deadline: float = 30.0) -> None:
        self._root = root
        self._tmp = root / ".tmp"
        self._tmp.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()
        self._threads = base.Threads("folder-store", workers=workers, waiting=waiting, deadline=deadline)

    async def put(self, key: str, data: bytes) -> None:
        """See `base.Store.put`."""
        target = self._path(key)

        def write(file: BinaryIO) -> None:
            file.write(data)

        await self._run(lambda: self._write(target, write))

    async def get(self, key: str) -> bytes | None:
        """See `base.Store.get`."""
        target = self._path(key)

        def read() -> bytes | None:
            try:
                return target.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

        return await self._run(read)

    async def delete(self, key: str) -> None:
        """See `base.Store.delete`."""
        target = self._path(key)
        await self._run(lambda: self._delete(target))

    async def delete_prefix(self, prefix: str) -> None:
        """See `base.Store.delete_prefix`."""
        target = self._path(base.check_folder(prefix).rstrip("/"))
        await self._run(lambda: self._delete_folder(target))

    async def list(self, prefix: str, after: str = "", limit: int = 1000) -> base.Keys:
        """See `base.Store.list`."""
        base.check_prefix(prefix)
        bound = min(limit, base.MAX_LIST)

        def read() -> base.Keys:
            found: base.Keys = []
            head = prefix.rpartition("/")[0]
            for key in self._walk(f"{head}/" if head else "", prefix, after):
                if len(found) >= bound:
                    break
                found.append(key)
            return found

        return await self._run(read)

    async def put_file(self, key: str, path: Path) -> None:
        """See `base.Store.put_file`."""
        target = self._path(key)

        def copy(file: BinaryIO) -> None:
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)

        await self._run(lambda: self._write(target, copy))

    async def get_file(self, key: str, path: Path) -> bool:
        """See `base.Store.get_file`."""
        source = self._path(key)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")

        def copy() -> bool:
            try:
                with source.open("rb") as file, temporary.open("wb") as out:
                    shutil.copyfileobj(file, out, 1 << 20)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                if not source.is_file():
                    temporary.unlink(missing_ok=True)
                    return False
                raise
            temporary.replace(path)
            return True

        return await self._run(copy)

    async def size(self, key: str) -> int | None:
        """See `base.Store.size`."""
        target = self._path(key)

        def look() -> int | None:
            try:
                found = target.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return found.st_size if stat.S_ISREG(found.st_mode) else None

        return await self._run(look)

    async def ping(self) -> None:
        """Prove that the folder can be written."""

        def touch() -> None:
            probe = self._tmp / f"ping-{secrets.token_hex(6)}"
            probe.touch()
            probe.unlink()

        await self._run(touch)

    async def aclose(self) -> None:
        """See `base.Store.aclose`."""
        await self._threads.aclose()

    def _path(self, key: str) -> Path:
        return self._root / base.check_key(key)

    async def _run(self, call: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                return call()
            except (NotADirectoryError, IsADirectoryError) as error:
                raise InvalidKey("a key may not be another key plus '/…'") from error
            except OSError as error:
                raise StoreUnavailable(f"the store folder failed: {error.strerror or error}") from error

        return await self._threads.run(guarded)

    def _write(self, target: Path, fill: Callable[[BinaryIO], None]) -> None:
        temporary = self._tmp / secrets.token_hex(12)
        try:
            with temporary.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            self._publish(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _publish(self, temporary: Path, target: Path) -> None:
        for attempt in range(RENAME_TRIES):
            try:
                made = self._make_folders(target.parent)
                temporary.replace(target)
            except FileNotFoundError:
                if attempt == RENAME_TRIES - 1:
                    raise
                continue
            for folder in (target.parent, *made):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile: then the object is gone as well
                    _fsync_folder(folder)
            return

    def _make_folders(self, folder: Path) -> tuple[Path, ...]:
        """Make `folder` and what is missing above it; returns the folders whose entries changed."""
        changed: tuple[Path, ...] = ()
        missing: tuple[Path, ...] = ()
        while not folder.is_dir():
            missing += (folder,)
            folder = folder.parent
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.makedirs(path, mode=0o700)
            changed += (path.parent,)
        return changed

    def _delete(self, target: Path) -> None:
        try:
            target.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except (IsADirectoryError, PermissionError):
            if target.is_dir():
                return  # no object has this key
            raise
        with contextlib.suppress(FileNotFoundError):
            _fsync_folder(target.parent)
        self._prune(target.parent)

    def _delete_folder(self, target: Path) -> None:
        if not target.is_dir():
            return
        # Renamed away first: a listing sees all of it or nothing, and a kill leaves only what the sweep takes.
        grave = self._tmp / f"gone-{secrets.token_hex(12)}"
        try:
            target.rename(grave)
        except FileNotFoundError:
            return
        _fsync_folder(target.parent)
        shutil.rmtree(grave, ignore_errors=True)
        self._prune(target.parent)

    def _prune(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:  # not empty, or already gone: either way nothing to do here
                return
            folder = folder.parent

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[str]:
        """Keys below `folder` in the order of the whole key: a folder sorts as its name plus `/`."""
        try:
            with os.scandir(self._root / folder) as entries:
                names = sorted(
                    f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if not entry.name.startswith(".")
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            key = folder + name
            if not name.endswith("/"):
                if key > after and key.startswith(prefix):
                    yield key
            elif (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
                yield from self._walk(key, prefix, after)

    def _sweep(self) -> None:
        now = time.time()
        for path in self._tmp.iterdir():
            with contextlib.suppress(OSError):
                if now - path.lstat().st_mtime < STALE_TEMPORARY and not path.name.startswith("gone-"):
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

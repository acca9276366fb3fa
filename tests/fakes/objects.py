"""What lies in a platform's object store, looked at and altered behind its back: a folder, or a bucket of an S3 server."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minio import Minio


class Objects(Protocol):
    """Names are those of the store, with slashes."""

    def names(self, prefix: str = "") -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None: ...

    def remove(self, name: str) -> None: ...


@dataclass(frozen=True)
class FolderObjects:
    """Below `root`."""

    root: Path

    def names(self, prefix: str = "") -> list[str]:
        """Of everything whose name begins so, in order."""
        found = (str(path.relative_to(self.root)) for path in files_below(self.root))
        return sorted(name for name in found if name.startswith(prefix))

    def read(self, name: str) -> bytes:
        """Its bytes."""
        return (self.root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Other bytes, by the same mode: written objects are read-only."""
        path = self.root / name
        mode = path.stat().st_mode if path.exists() else 0o600
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(mode)

    def remove(self, name: str) -> None:
        """It is gone."""
        (self.root / name).unlink()


@dataclass(frozen=True)
class S3Objects:
    """In `bucket`."""

    client: Minio
    bucket: str

    def names(self, prefix: str = "") -> list[str]:
        """Of everything whose name begins so, in order."""
        found = self.client.list_objects(self.bucket, prefix=prefix, recursive=True)
        return sorted(str(one.object_name) for one in found)

    def read(self, name: str) -> bytes:
        """Its bytes."""
        answer = self.client.get_object(self.bucket, name)
        with contextlib.closing(answer):
            return bytes(answer.read())

    def write(self, name: str, data: bytes) -> None:
        """Other bytes."""
        self.client.put_object(self.bucket, name, io.BytesIO(data), len(data))

    def remove(self, name: str) -> None:
        """It is gone."""
        self.client.remove_object(self.bucket, name)


def files_below(folder: Path) -> list[Path]:
    """All files of a tree in use: folders that go meanwhile are passed over (`Path.rglob` raises on them)."""
    return [Path(inner) / name for inner, _, names in os.walk(folder) for name in names]


def bytes_of(path: Path) -> bytes:
    """A small file's bytes; none of what is gone meanwhile, is no file, or is larger than 64 MB (a Valkey's log, a disk image)."""
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size < 2**26 else b""
    except OSError:
        return b""


@contextlib.contextmanager
def changed(objects: Objects, name: str, data: bytes | None) -> Iterator[None]:
    """The object holds other bytes (None: is gone) for a while."""
    before = objects.read(name)
    try:
        if data is None:
            objects.remove(name)
        else:
            objects.write(name, data)
        yield
    finally:
        objects.write(name, before)

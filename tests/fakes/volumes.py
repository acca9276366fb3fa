"""Volumes for tests of checkpoints: what lies in a folder as a picture that can be compared, and a store of packs that counts."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from pathlib import Path

from moorage_sandbox.checkpoint.manifest import Manifest, decode
from moorage_sandbox.checkpoint.restoring import unpack
from moorage_sandbox.checkpoint.saving import Saved, save

Picture = dict[bytes, tuple[object, ...]]


class Store:
    """Packs by name, and how often each was got."""

    def __init__(self) -> None:
        self.packs: dict[str, bytes] = {}
        self.got: Counter[str] = Counter()

    def put(self, name: str, data: bytes) -> None:
        """A pack is put once."""
        assert name not in self.packs and hashlib.blake2b(data, digest_size=32).hexdigest() == name
        self.packs[name] = data

    def get(self, name: str) -> bytes:
        """A pack's bytes."""
        self.got[name] += 1
        return self.packs[name]

    def save(self, volume: Path, previous: Manifest | None = None) -> Saved:
        """A checkpoint, read back from its bytes."""
        saved = save(volume, previous, self.put)
        assert decode(saved.data) == saved.manifest
        return saved

    def restore(self, manifest: Manifest, target: Path) -> Path:
        """The folder in which the files are again."""
        target.mkdir()
        unpack(manifest, self.get, target, owner=None)
        return target


def volume(folder: Path) -> Path:
    """An empty one."""
    for name in ("home", "workspace"):
        (folder / name).mkdir(parents=True)
    return folder


def picture(folder: Path, *, times: bool = True) -> Picture:
    """Path → kind, mode, time, content; of files with several names also the first of these. Links are not followed."""
    found: Picture = {}
    first: dict[int, bytes] = {}
    root = os.fsencode(folder)
    for top in (b"home", b"workspace"):
        pending = [top]
        while pending:
            path = pending.pop()
            where = os.path.join(root, path)
            if not os.path.lexists(where):
                continue
            status = os.lstat(where)
            mode = stat.S_IMODE(status.st_mode)
            time = status.st_mtime_ns if times else 0
            if stat.S_ISDIR(status.st_mode):
                found[path] = ("folder", mode, time)
                pending += [path + b"/" + name for name in sorted(os.listdir(where), reverse=True)]
            elif stat.S_ISLNK(status.st_mode):
                found[path] = ("symlink", os.readlink(where), time)
            else:
                content = _digest(where) if stat.S_ISREG(status.st_mode) else ""
                same = first.setdefault(status.st_ino, path) if status.st_nlink > 1 else b""
                found[path] = ("file", mode, time, status.st_size, content, same)
    return found


def _digest(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()

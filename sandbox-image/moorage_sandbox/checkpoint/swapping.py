"""Putting restored trees in place of old ones, whole or not at all, though killed at any instant. Layer: I/O rim.

The folders `home` and `workspace` of a volume are mounted somewhere, so they stay and their contents change places:

    volume/.moorage/restoring/fresh/…    what was unpacked
                              old/…      what was there
                              swap.out   old contents go out        one file, renamed from phase to phase;
                              swap.in    new ones come in           without it the restore has not got so far,
                              swap.end   only removing is left      and what it left is removed

Once the file is there, every end is forward: `finish` goes on where the swap stopped.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage_sandbox.checkpoint import clearing, handles
from moorage_sandbox.checkpoint.shapes import TOPS

PLACE = ".moorage/restoring"
"""Below a volume: where a restore works. The fresh trees lie in its folder `fresh`."""
OUT, IN, END = b"swap.out", b"swap.in", b"swap.end"
_DRAFT = b"swap.draft"
_MAX_MARKER = 64 * 2**20
_PATIENCE = 100
"""Rounds in which what is put into a folder while it is emptied is taken out again."""


def swap(volume: Path, fresh: Path) -> None:
    """Puts the trees in `fresh`, which is `volume/PLACE/fresh`, in place of those of the volume; nobody writes to these meanwhile.

    Raises OSError, and then, as when it is killed, `finish` ends it one way or the other.
    """
    if fresh != volume / PLACE / "fresh":
        raise ValueError(f"fresh trees of {volume} lie in {PLACE}/fresh, not in {fresh}")
    with _opened(volume) as places:
        if any(_marker(places.work, phase) is not None for phase in (OUT, IN, END)):
            raise FileExistsError(errno.EEXIST, "an earlier swap of this volume is not finished: call finish first")
        marker = _prepared(places)
        _synced(places.work)
        _written(places.work, json.dumps(marker).encode())
        _forward(places, OUT, marker)


def finish(volume: Path) -> bool:
    """Ends what a killed restore or swap left; before anything else uses the volume. Whether new files are in place by it.

    A swap that was killed when all was done but the last removing gives False: there is nothing left to tell it by. Raises OSError;
    it may be called again.
    """
    if not os.path.lexists(volume / PLACE):
        return False
    with _opened(volume) as places:
        for phase in (OUT, IN, END):
            marker = _marker(places.work, phase)
            if marker is not None:
                _forward(places, phase, marker)
                return True
        clearing.clear(places.work)
        places.remove()
        return False


@dataclass(frozen=True)
class _Places:
    """Open folders: the volume, its .moorage, and where the restore works."""

    volume: int
    own: int
    work: int

    def remove(self) -> None:
        """Removes the work folder, which is empty."""
        os.rmdir("restoring", dir_fd=self.own)
        os.fsync(self.own)


@contextmanager
def _opened(volume: Path) -> Iterator[_Places]:
    with ExitStack() as stack:
        opened: list[int] = []
        for at, name in ((None, volume), (0, ".moorage"), (1, "restoring")):
            opened.append(handles.plain_folder(None if at is None else opened[at], name))
            stack.callback(os.close, opened[-1])
        yield _Places(*opened)


@contextmanager
def _folder(*names: bytes, at: int) -> Iterator[int]:
    """A folder some names below `at`, in which its owner may do everything."""
    fd = os.dup(at)
    try:
        for name in names:
            below, _ = handles.folder(fd, name)
            os.close(fd)
            fd = below
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o700 != 0o700:
            os.fchmod(fd, mode | 0o700)
        yield fd
    finally:
        os.close(fd)


def _prepared(places: _Places) -> dict[str, Any]:
    """Makes all folders that the swap needs, so that it needs no room later. What to set when the new trees are in place: mode and time
    of each top folder, and the modes of folders in it that must be unlocked to be moved."""
    marker: dict[str, Any] = {}
    for name in (b"fresh", b"old"):
        _made(places.work, name)
    with _folder(b"fresh", at=places.work) as fresh, _folder(b"old", at=places.work) as old:
        for top in TOPS:
            found = _status(fresh, top)
            for at in (places.volume, fresh, old):
                _made(at, top)
            if found is None:
                marker[top.decode()] = {}
                continue
            with _folder(top, at=fresh) as fd:
                locked = {os.fsdecode(name): mode for name, mode in _locked(fd)}
            marker[top.decode()] = {"mode": found.st_mode & 0o777, "mtime": found.st_mtime_ns, "locked": locked}
    return marker


def _forward(places: _Places, phase: bytes, marker: dict[str, Any]) -> None:
    """From a phase to the end."""
    if phase == OUT:
        for top in TOPS:
            with _folder(top, at=places.volume) as here, _folder(b"old", top, at=places.work) as old:
                _move_all(here, old)
        phase = _next(places.work, OUT, IN)
    if phase == IN:
        for top in TOPS:
            with _folder(b"fresh", top, at=places.work) as fresh, _folder(top, at=places.volume) as here:
                _move_all(fresh, here)
                _set(here, marker[top.decode()])
        phase = _next(places.work, IN, END)
    for name in (b"old", b"fresh"):
        if _status(places.work, name) is not None:
            with _folder(name, at=places.work) as fd:
                clearing.clear(fd)
            os.rmdir(name, dir_fd=places.work)
    os.unlink(END, dir_fd=places.work)
    places.remove()


def _move_all(source: int, target: int) -> None:
    """All names of one folder into another, where none of them is."""
    for _ in range(_PATIENCE):
        names = os.listdir(source)
        if not names:
            os.fsync(source)
            os.fsync(target)
            return
        for name in map(os.fsencode, names):
            found = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                with _folder(name, at=source):
                    pass  # moving a folder writes to it, so it is unlocked now
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    raise OSError(errno.EBUSY, "somebody goes on writing to the volume while its files are exchanged")


def _set(top: int, marker: dict[str, Any]) -> None:
    """Modes and time as they were saved."""
    for name, mode in marker.get("locked", {}).items():
        os.chmod(name, mode, dir_fd=top)
    if "mode" in marker:
        os.fchmod(top, marker["mode"])
        os.utime(top, ns=(marker["mtime"], marker["mtime"]))


def _locked(at: int) -> Iterator[tuple[bytes, int]]:
    """Folders in a folder that must be unlocked to be moved, with their modes."""
    for name in map(os.fsencode, os.listdir(at)):
        mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
            yield name, mode & 0o777


def _next(work: int, phase: bytes, following: bytes) -> bytes:
    os.rename(phase, following, src_dir_fd=work, dst_dir_fd=work)
    os.fsync(work)
    return following


def _written(work: int, data: bytes) -> None:
    """The marker: on disk, whole, and then there."""
    fd = os.open(_DRAFT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=work)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    _next(work, _DRAFT, OUT)


def _marker(work: int, phase: bytes) -> dict[str, Any] | None:
    try:
        fd = os.open(phase, handles.FILE, dir_fd=work)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        data = file.read(_MAX_MARKER)
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError) as error:
        raise OSError(errno.EIO, f"{PLACE}/{phase.decode()} is damaged; look at what lies beside it") from error


def _made(at: int, name: bytes) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=at)
    except FileExistsError:
        pass


def _status(at: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _synced(fd: int) -> None:
    """Everything written to this file system is on disk."""
    try:
        sync = ctypes.CDLL(None, use_errno=True).syncfs
    except AttributeError:  # not Linux
        os.sync()
        return
    if sync(fd):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

"""Saving a session's files: what changed since the last checkpoint is read, what is new in it goes into packs. Layer: I/O rim.

The tree belongs to the agent, which may be running: it is walked by descriptors of folders, links are never followed, and what
changes under our hands is told, not guessed. Nothing is written to the volume; only what its owner locked is unlocked while it is open.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from moorage_sandbox.checkpoint import handles
from moorage_sandbox.checkpoint.manifest import Manifest, checked, encode
from moorage_sandbox.checkpoint.packing import Packing, Pieces, digest
from moorage_sandbox.checkpoint.reading import Content, Reader
from moorage_sandbox.checkpoint.rewriting import rewrite
from moorage_sandbox.checkpoint.shapes import TOPS, BadCheckpoint, Limits
from moorage_sandbox.checkpoint.table import FILE, FOLDER, HARD, ROW, SYMLINK, TOP, Entry, Table

MAX_SKIPPED = 100
"""So many skipped paths are told by name."""
_CHANGED = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ESTALE)
"""What opening says of a name that is something else by now."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose packs have been put; `data` is its manifest encoded, which the caller puts next."""

    manifest: Manifest
    data: bytes
    hashed: int  # files read
    packs: int  # put now
    octets: int  # of them, compressed
    unsteady: bool  # a file or folder changed while it was read, or vanished
    skipped: tuple[str, ...]  # sockets, pipes, devices, what could not be read; the first MAX_SKIPPED


def save(
    volume: Path, previous: Manifest | None, put: Callable[[str, bytes], None], *, limits: Limits | None = None
) -> Saved:
    """Saves the folders `home` and `workspace` of a volume; one that is not there is left out.

    `put(name, compressed)` is called for each new pack before this returns, in this thread; what it raises comes through.
    Raises BadCheckpoint for a tree beyond the limits, OSError when the volume itself cannot be read.
    """
    with ExitStack() as stack:
        root = handles.plain_folder(None, volume)
        stack.callback(os.close, root)
        pieces = Pieces(previous)
        packing = stack.enter_context(Packing(pieces, put))
        bounds = limits or Limits()
        saving = _Saving(bounds, previous, pieces, packing)
        for top in TOPS:
            saving.tree(root, top)
        saving.hashed += rewrite(root, saving.table, pieces, packing)
        packing.finish()
        table = saving.table
        manifest = checked(*pieces.settled(table), table, bounds)
    return Saved(
        manifest,
        encode(manifest),
        saving.hashed,
        packing.put,
        packing.octets,
        saving.unsteady,
        tuple(saving.skipped),
    )


@dataclass
class _Frame:
    """A folder that is being walked."""

    fd: int
    number: int
    path: bytes
    mtime_ns: int
    locked: int | None
    names: Iterator[bytes] = iter(())

    def close(self) -> None:
        try:
            handles.lock(self.fd, self.locked)
        finally:
            os.close(self.fd)


class _Saving:
    """The walk of one save."""

    def __init__(self, limits: Limits, previous: Manifest | None, pieces: Pieces, packing: Packing) -> None:
        self.table = Table()
        self.hashed = 0
        self.unsteady = False
        self.skipped: list[str] = []
        self._limits = limits
        self._previous = previous
        self._pieces = pieces
        self._packing = packing
        self._octets = 0
        self._known = _by_inode(previous)
        self._linked: dict[tuple[int, int], int] = {}  # files of more than one name
        self._reader = Reader(self._keep)

    def tree(self, root: int, top: bytes) -> None:
        """Walks one top folder: a row for each name in order, folders before what they hold."""
        frames: list[_Frame] = []
        try:
            try:
                frames.append(self._entered(root, TOP, top, top))
            except FileNotFoundError:
                return
            while frames:
                frame = frames[-1]
                name = next(frame.names, None)
                if name is not None:
                    below = self._name(frame, name)
                    if below is not None:
                        frames.append(below)
                else:
                    self.unsteady |= os.fstat(frame.fd).st_mtime_ns != frame.mtime_ns
                    frames.pop().close()
        finally:
            for frame in reversed(frames):
                frame.close()

    def _entered(self, at: int, parent: int, name: bytes, path: bytes) -> _Frame:
        """A folder with its row and its names. Raises OSError, and then nothing is left open."""
        fd, locked = handles.folder(at, name)
        frame = _Frame(fd, 0, path, 0, locked)
        try:
            found = os.fstat(fd)
            frame.mtime_ns = found.st_mtime_ns
            if path.count(b"/") > self._limits.depth:
                raise BadCheckpoint(
                    f"{_shown(path)} is deeper than {self._limits.depth} folders; move or remove it to have a checkpoint"
                )
            names = self._names(fd)
            mode = (found.st_mode if locked is None else locked) & 0o777
            frame.number = self._add(path, Entry(FOLDER, mode, parent, found.st_mtime_ns, 0, 0, 0, 0, name, b""))
            frame.names = iter(names)
            return frame
        except BaseException:
            frame.close()
            raise

    def _names(self, fd: int) -> list[bytes]:
        names = []
        room = self._limits.files - len(self.table)
        with os.scandir(fd) as found:
            for each in found:
                names.append(os.fsencode(each.name))
                if len(names) > room:
                    raise self._too_many()
        names.sort()
        return names

    def _name(self, frame: _Frame, name: bytes) -> _Frame | None:
        """One name of a folder: a row, or a note why there is none. Gives the folder to go into, if it is one."""
        path = frame.path + b"/" + name
        try:
            found = os.stat(name, dir_fd=frame.fd, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                self._file(frame, name, path, found)
            elif stat.S_ISDIR(found.st_mode):
                return self._entered(frame.fd, frame.number, name, path)
            elif stat.S_ISLNK(found.st_mode):
                target = handles.target(frame.fd, name)
                entry = Entry(SYMLINK, 0o777, frame.number, found.st_mtime_ns, 0, 0, 0, 0, name, target)
                self._add(path, entry)
            else:
                self._skip(path)
        except PermissionError:
            self._skip(path)
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            self.unsteady = True
        return None

    def _file(self, frame: _Frame, name: bytes, path: bytes, found: os.stat_result) -> None:
        if found.st_nlink > 1:
            first = self._linked.get((found.st_dev, found.st_ino))
            if first is not None:
                mode = found.st_mode & 0o777
                self._add(path, Entry(HARD, mode, frame.number, found.st_mtime_ns, 0, 0, 0, first, name, b""))
                return
        parts: Iterable[int] | None = self._unchanged(found)
        size, lasting = found.st_size, True
        if parts is None:
            content = self._content(frame.fd, name)
            if content is None:
                self._skip(path)
                return
            self.hashed += 1
            self.unsteady |= not content.steady
            parts, size, found, lasting = content.parts, content.size, content.seen, content.lasting
        changed = found.st_ctime_ns if lasting else 0
        mode, inode = found.st_mode & 0o777, found.st_ino
        number = self._add(
            path, Entry(FILE, mode, frame.number, found.st_mtime_ns, changed, inode, size, 0, name, b""), parts
        )
        if found.st_nlink > 1:
            self._linked[found.st_dev, inode] = number

    def _content(self, at: int, name: bytes) -> Content | None:
        fd = handles.file(at, name)
        try:
            content = self._reader.read(fd)
        finally:
            os.close(fd)
        self.unsteady |= content is None  # it was a file a moment ago
        return content

    def _unchanged(self, found: os.stat_result) -> array[int] | None:
        """The parts of a file that is as the last checkpoint has it."""
        number = self._known.get(found.st_ino)
        if number is None or self._previous is None:
            return None
        table = self._previous.table
        _, _, _, mtime_ns, ctime_ns, _, size, *_ = ROW.unpack_from(table.rows, number * ROW.size)
        if (size, mtime_ns, ctime_ns) != (found.st_size, found.st_mtime_ns, found.st_ctime_ns):
            return None
        parts = table.parts_of(number)
        self._count(sum(self._pieces[part][3] for part in parts if part >= 0))
        return parts

    def _keep(self, data: bytes) -> int:
        """The number of a piece; it is packed if it is new."""
        self._count(len(data))
        name = digest(data)
        number = self._pieces.number(name)
        return self._packing.add(name, data) if number is None else number

    def _count(self, octets: int) -> None:
        self._octets += octets
        if self._octets > self._limits.octets:
            raise BadCheckpoint(
                f"home and workspace have more than {self._limits.octets} bytes; remove some to have a checkpoint"
            )

    def _add(self, path: bytes, entry: Entry, parts: Iterable[int] = ()) -> int:
        limits = self._limits
        if len(path) > limits.path:
            raise BadCheckpoint(f"the path {_shown(path)} is longer than {limits.path} bytes; move or remove it")
        number = self.table.add(entry, array("q", parts))
        if number >= limits.files:
            raise self._too_many()
        weight = self.table.weight() + len(self._pieces.records)
        if len(self.table.parts) > limits.parts or weight > limits.manifest - 2**20:
            raise BadCheckpoint(
                f"{_shown(path)} is one file or hole too many for a checkpoint: {limits.parts} parts of files and "
                f"{limits.manifest} bytes of names are the most; remove some"
            )
        return number

    def _too_many(self) -> BadCheckpoint:
        most = self._limits.files
        return BadCheckpoint(
            f"home and workspace hold more than {most} files and folders; remove some to have a checkpoint"
        )

    def _skip(self, path: bytes) -> None:
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append(_shown(path))


def _shown(path: bytes) -> str:
    return path[:200].decode(errors="replace")


def _by_inode(previous: Manifest | None) -> dict[int, int]:
    """Rows of the files that may be as they were, by inode."""
    known: dict[int, int] = {}
    if previous is not None:
        for number, (kind, _, _, _, ctime_ns, inode, *_) in enumerate(ROW.iter_unpack(previous.table.rows)):
            if kind == FILE and ctime_ns:
                known[inode] = number
    return known

"""Writing a checkpoint's files: each pack got once, each byte checked before it counts. Layer: I/O rim.

Everything happens below one fresh folder, by descriptors of folders and single names; nothing is written over, no link is followed,
and links are made when all files are there.

    BadCheckpoint   a pack is not the one its name means, or does not hold what the manifest says
"""

from __future__ import annotations

import os
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import zstandard

from moorage_sandbox.checkpoint import handles
from moorage_sandbox.checkpoint.manifest import Manifest
from moorage_sandbox.checkpoint.packing import digest
from moorage_sandbox.checkpoint.shapes import MAX_WINDOW, BadCheckpoint, Limits, Pack
from moorage_sandbox.checkpoint.table import FILE, FOLDER, HARD, PIECE, SYMLINK, TOP, Entry

_OPEN_FOLDERS = 100
_STEP = 2**20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def unpack(
    manifest: Manifest,
    get: Callable[[str], bytes],
    target: Path,
    *,
    owner: tuple[int, int] | None,
    limits: Limits | None = None,
) -> None:
    """Writes `home` and `workspace` below the fresh, empty folder `target`, owned by `owner` (uid, gid) if it is given.

    `get(name)` gives a pack's compressed bytes. Raises BadCheckpoint, OSError, and what `get` raises; then `target` holds some of the
    files, and the caller removes it.
    """
    bounds = limits or Limits()
    if len(manifest.table) > bounds.files or manifest.octets > bounds.octets:
        raise BadCheckpoint(
            f"the checkpoint has {len(manifest.table)} files and folders of {manifest.octets} bytes, which is beyond the limits"
        )
    with ExitStack() as stack:
        root = handles.plain_folder(None, target)
        stack.callback(os.close, root)
        tree = _Tree(manifest, root, owner)
        stack.callback(tree.close)
        tree.empty_ones()
        for number, pack in enumerate(manifest.packs):
            tree.pack(number, get(pack.name))  # and no name for it here: one pack at a time is in memory
        tree.links()
        tree.folders()


class _Tree:
    """The tree that is being written."""

    def __init__(self, manifest: Manifest, root: int, owner: tuple[int, int] | None) -> None:
        self._manifest = manifest
        self._table = manifest.table
        self._owner = owner
        self._root = root
        self._handles: OrderedDict[int, int] = OrderedDict()  # open folders, the last used at the end
        self._uses = _Uses(manifest)
        # pieces of each file that are not yet written
        self._left = array("I", [sum(part >= 0 for part in self._table.parts_of(at)) for at in range(len(self._table))])
        self._begun: set[int] = set()  # files of several parts that are there, but not whole
        self._file: tuple[int, int] | None = None  # the file that is open: row, descriptor

    def close(self) -> None:
        """Closes what is open."""
        self._leave()
        for fd in self._handles.values():
            os.close(fd)
        self._handles.clear()

    def empty_ones(self) -> None:
        """Folders, and files without any piece."""
        for number in range(len(self._table)):
            kind = self._table.kind(number)
            if kind == FOLDER:
                row = self._table.entry(number)
                os.mkdir(row.name, 0o700, dir_fd=self._folder(row.parent))
            elif kind == FILE and all(part < 0 for part in self._table.parts_of(number)):
                self._write(number, b"", 0)

    def pack(self, number: int, data: bytes) -> None:
        """Every use of every piece of one pack."""
        pack = self._manifest.packs[number]
        if len(data) != pack.size or digest(data).hex() != pack.name:
            raise BadCheckpoint(f"the pack {pack.name} is not the one that was saved; use an older checkpoint")
        try:
            with zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(data) as stream:
                at = 0
                for piece in self._uses.pieces_of(number):
                    found, _, offset, length = self._manifest.piece(piece)
                    _skip(stream, offset - at, pack)
                    content = _exactly(stream, length, pack)
                    at = offset + length
                    if digest(content) != found:
                        raise BadCheckpoint(f"the pack {pack.name} holds another piece than the manifest says")
                    for row, place in self._uses.of(piece):
                        self._write(row, content, place)
                _skip(stream, pack.raw - at, pack)
                if stream.read(1):
                    raise BadCheckpoint(f"the pack {pack.name} inflates to more than {pack.raw} bytes")
        except zstandard.ZstdError as error:
            raise BadCheckpoint(f"the pack {pack.name} cannot be inflated") from error

    def links(self) -> None:
        """Hard links, then symlinks: by now no file is made any more."""
        self._leave()
        for kind in (HARD, SYMLINK):
            for number in range(len(self._table)):
                if self._table.kind(number) == kind:
                    self._link(self._table.entry(number))

    def folders(self) -> None:
        """Owner, mode and time of the folders, from the deepest up: nothing is made in them any more."""
        for number in range(len(self._table) - 1, -1, -1):
            if self._table.kind(number) == FOLDER:
                row = self._table.entry(number)
                self._finish(self._folder(number), row)
                os.close(self._handles.pop(number))

    def _write(self, number: int, content: bytes, place: int) -> None:
        """One part of a file, which is made with its first and finished with its last."""
        if self._file is None or self._file[0] != number:
            self._leave()
            row = self._table.entry(number)
            at = self._folder(row.parent)
            fd = os.open(row.name, _AGAIN if number in self._begun else _NEW, 0o600, dir_fd=at)
            self._file = (number, fd)
            self._begun.add(number)
        fd = self._file[1]
        view = memoryview(content)
        while view:
            written = os.pwrite(fd, view, place)
            view, place = view[written:], place + written
        if content:
            self._left[number] -= 1
        if not self._left[number]:
            self._begun.discard(number)
            row = self._table.entry(number)
            os.ftruncate(fd, row.size)  # it may end in a hole
            self._finish(fd, row)
            self._leave()

    def _leave(self) -> None:
        if self._file is not None:
            fd = self._file[1]
            self._file = None
            os.close(fd)

    def _finish(self, fd: int, row: Entry) -> None:
        if self._owner is not None:
            os.fchown(fd, *self._owner)
        os.fchmod(fd, row.mode)
        os.utime(fd, ns=(row.mtime_ns, row.mtime_ns))

    def _link(self, row: Entry) -> None:
        at = self._folder(row.parent)
        if row.kind == SYMLINK:
            os.symlink(row.target, row.name, dir_fd=at)
            if self._owner is not None:
                os.chown(row.name, *self._owner, dir_fd=at, follow_symlinks=False)
            os.utime(row.name, ns=(row.mtime_ns, row.mtime_ns), dir_fd=at, follow_symlinks=False)
            return
        first = self._table.entry(row.link)
        there = self._folder(first.parent)
        at = self._folder(row.parent)  # again: so that both are open
        os.link(first.name, row.name, src_dir_fd=there, dst_dir_fd=at, follow_symlinks=False)

    def _folder(self, number: int) -> int:
        """A folder of the table, open; valid until some others have been asked for."""
        if number == TOP:
            return self._root
        fd = self._handles.get(number)
        if fd is not None:
            self._handles.move_to_end(number)
            return fd
        row = self._table.entry(number)
        fd = handles.plain_folder(self._folder(row.parent), row.name)
        self._handles[number] = fd
        if len(self._handles) > _OPEN_FOLDERS:
            os.close(self._handles.popitem(last=False)[1])
        return fd


class _Uses:
    """Where each piece goes: (row, offset in the file). Columns, since there may be as many as parts."""

    def __init__(self, manifest: Manifest) -> None:
        pieces = len(manifest.pieces) // PIECE.size
        table = manifest.table
        self._first = array("I", bytes(4 * (pieces + 1)))
        for part in table.parts:
            if part >= 0:
                self._first[part + 1] += 1
        for number in range(pieces):
            self._first[number + 1] += self._first[number]
        total = self._first[pieces]
        self._rows, self._places = array("I", bytes(4 * total)), array("q", bytes(8 * total))
        free = array("I", self._first)
        for row in range(len(table)):
            at = 0
            for part in table.parts_of(row):
                if part < 0:
                    at -= part
                    continue
                self._rows[free[part]], self._places[free[part]] = row, at
                free[part] += 1
                at += manifest.piece(part)[3]
        self._of_pack: list[list[int]] = [[] for _ in manifest.packs]
        for number in range(pieces):
            self._of_pack[manifest.piece(number)[1]].append(number)

    def pieces_of(self, pack: int) -> list[int]:
        """The pieces of a pack by their offsets."""
        return self._of_pack[pack]

    def of(self, piece: int) -> Iterator[tuple[int, int]]:
        """Every use of a piece."""
        for at in range(self._first[piece], self._first[piece + 1]):
            yield self._rows[at], self._places[at]


def _exactly(stream: zstandard.ZstdDecompressionReader, size: int, pack: Pack) -> bytes:
    data = stream.read(size)
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise BadCheckpoint(f"the pack {pack.name} ends in the middle")
        data += more
    return data


def _skip(stream: zstandard.ZstdDecompressionReader, size: int, pack: Pack) -> None:
    while size:
        size -= len(_exactly(stream, min(size, _STEP), pack))

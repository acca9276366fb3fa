"""Reading one file that may be changing: whole pieces, holes left out, and whether it stood still. Layer: I/O rim."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moorage_sandbox.checkpoint.shapes import MAX_PIECE

_HOLE = 64 * 1024  # a shorter hole is read as zeros: a part costs more than it
_TICK_NS = 10_000_000  # times of files go on in steps of this at most
_WAIT = 0.002  # seconds
_PATIENCE = 0.25  # seconds a save waits in all for the clock of the file system to go on


@dataclass(frozen=True)
class Content:
    """What was read. `seen`: how the file was when it had been read."""

    parts: list[int]
    size: int
    seen: os.stat_result
    steady: bool  # it was so before, too
    lasting: bool  # and a later write will show


class Reader:
    """Reads the files of one save; `keep` takes each piece and gives its number."""

    def __init__(self, keep: Callable[[bytes], int]) -> None:
        self._keep = keep
        self._patience = _PATIENCE
        self._never = threading.Event()

    def read(self, fd: int) -> Content | None:
        """The content of an open file; None when it is no file. Raises OSError."""
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return None
        settled = self._settled(before.st_ctime_ns)
        if before.st_size <= MAX_PIECE and before.st_blocks * 512 >= before.st_size - _HOLE:
            data = os.pread(fd, before.st_size, 0) if before.st_size else b""
            parts, size = ([self._keep(data)] if data else []), len(data)
        else:
            parts, size = self._long(fd, before.st_size)
        after = os.fstat(fd)
        same = (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
            after.st_size,
            after.st_mtime_ns,
            after.st_ctime_ns,
        )
        steady = same and size == after.st_size
        return Content(parts, size, after, steady, steady and settled)

    def _settled(self, changed: int) -> bool:
        """Whether a write from now on would leave another time: the file system's clock has gone on since the last one."""
        while changed >= time.time_ns() - _TICK_NS:
            if self._patience <= 0:
                return False
            self._never.wait(_WAIT)
            self._patience -= _WAIT
        return True

    def _long(self, fd: int, size: int) -> tuple[list[int], int]:
        """Parts of a file that has more than one piece, or holes. Pieces begin at multiples of MAX_PIECE or after a hole."""
        parts: list[int] = []
        at = 0
        for begin, end in _extents(fd, size):
            if begin > at:
                parts.append(at - begin)
                at = begin
            while at < end:
                data = os.pread(fd, min(end, at - at % MAX_PIECE + MAX_PIECE) - at, at)
                if not data:
                    return parts, at
                parts.append(self._keep(data))
                at += len(data)
        if at < size:
            parts.append(at - size)
        return parts, max(at, size)


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, holes shorter than _HOLE included."""
    begin = end = 0
    while end < size:
        try:
            data = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            break
        if data - end >= _HOLE:
            if end > begin:
                yield begin, end
            begin = data
        end = min(size, os.lseek(fd, data, os.SEEK_HOLE))
    if size - end < _HOLE:
        end = size
    if end > begin:
        yield begin, end

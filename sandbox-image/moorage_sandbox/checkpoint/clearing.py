"""Removing trees that an agent made: of any depth and size, with locked folders and links in them. Layer: I/O rim.

A folder that lies in another is moved up beside it before it is emptied, so that neither depth nor open descriptors grow.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator

from moorage_sandbox.checkpoint import handles

_AT_ONCE = 10_000  # names held in memory


def clear(at: int) -> None:
    """Empties an open folder, which nobody else uses. Raises OSError."""
    numbers = itertools.count()
    while names := _names(at):
        for name in names:
            if _is_folder(at, name):
                _empty(at, name, numbers)
                os.rmdir(name, dir_fd=at)
            else:
                os.unlink(name, dir_fd=at)


def _empty(at: int, name: bytes, numbers: Iterator[int]) -> None:
    """Empties the folder `name`: what it holds of folders moves to `at`."""
    fd, _ = handles.folder(at, name)
    try:
        _unlock(fd)
        while names := _names(fd):
            for inner in names:
                if _is_folder(fd, inner):
                    _move_up(fd, inner, at, numbers)
                else:
                    os.unlink(inner, dir_fd=fd)
    finally:
        os.close(fd)


def _move_up(fd: int, inner: bytes, at: int, numbers: Iterator[int]) -> None:
    below, _ = handles.folder(fd, inner)
    try:
        _unlock(below)  # moving a folder writes to it
    finally:
        os.close(below)
    while True:
        name = b"%d" % next(numbers)
        try:
            os.stat(name, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(inner, name, src_dir_fd=fd, dst_dir_fd=at)
            return


def _unlock(fd: int) -> None:
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & 0o700 != 0o700:
        os.fchmod(fd, mode | 0o700)


def _is_folder(at: int, name: bytes) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)


def _names(at: int) -> list[bytes]:
    with os.scandir(at) as found:
        return [os.fsencode(each.name) for each in itertools.islice(found, _AT_ONCE)]

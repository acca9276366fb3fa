"""Opening what an agent may be changing: by the descriptor of a folder and one name, never through a link. Layer: I/O rim.

What its owner locked (mode 000) is unlocked by the same user for as long as it is open, by the inode and not by its name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ALL = 0o700


def plain_folder(at: int | None, name: bytes | str | os.PathLike[str]) -> int:
    """A folder that is nobody's to lock. Raises OSError, also for a link."""
    return os.open(name, FOLDER, dir_fd=at)


def folder(at: int, name: bytes) -> tuple[int, int | None]:
    """An open folder, and the mode that `lock` must put back when it is closed. Raises OSError."""
    try:
        found = os.open(name, FOLDER, dir_fd=at)
    except PermissionError:
        return _unlocked(at, name, FOLDER, stat.S_ISDIR)
    mode = stat.S_IMODE(os.fstat(found).st_mode)
    if mode & 0o500 == 0o500 or os.geteuid() == 0:
        return found, None
    try:
        os.fchmod(found, mode | _ALL)  # it can be listed, but nothing in it be reached
    except OSError:
        pass  # somebody else's: each name in it will be refused
    else:
        return found, mode
    return found, None


def file(at: int, name: bytes) -> int:
    """A file open for reading; its mode is what it was again. Raises OSError. It may turn out to be of any kind."""
    try:
        return os.open(name, FILE, dir_fd=at)
    except PermissionError:
        found, mode = _unlocked(at, name, FILE, stat.S_ISREG)
    lock(found, mode)
    return found


def target(at: int, name: bytes) -> bytes:
    """Where a link points to. Raises OSError; FileNotFoundError also when the name is something else by now."""
    try:
        return os.readlink(name, dir_fd=at)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what Linux says of anything but a link
            raise
        raise FileNotFoundError(errno.ENOENT, "is no link by now") from error


def lock(found: int, mode: int | None) -> None:
    """Puts a mode back."""
    if mode is not None:
        os.fchmod(found, mode)


def _unlocked(at: int, name: bytes, flags: int, fits: Callable[[int], bool]) -> tuple[int, int]:
    """Opens what refuses its owner: the inode is held by a descriptor that needs no rights, and changed through it."""
    held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        found = os.fstat(held).st_mode
        if not fits(found):
            raise PermissionError(errno.EACCES, "is of another kind by now")
        mode, inode = stat.S_IMODE(found), f"/proc/self/fd/{held}"
        os.chmod(inode, mode | _ALL)
        try:
            return os.open(inode, flags & ~os.O_NOFOLLOW), mode
        except OSError:
            os.chmod(inode, mode)
            raise
    finally:
        os.close(held)

"""Walks over trees that an agent made: of any depth, with any names, modes and links. Layer: floor of the local provider.

Both walks go by open folders, never by paths: a link is not followed even when it takes a folder's place meanwhile, no path gets too
long, and neither recurses, so that a tree of a thousand levels is only a tree.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DEEPEST = 256  # levels that are measured; each holds a descriptor while it is
MOST_FILES = 2_000_000

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Usage:
    """How much a tree holds. `complete`: everything was counted; `deep`: something lies below `DEEPEST` levels, uncounted."""

    octets: int
    files: int
    complete: bool
    deep: bool = False


@dataclass
class _Count:
    octets: int = 0
    files: int = 0
    deep: bool = False
    seen: set[tuple[int, int]] = field(default_factory=set)

    def take(self, folder: int) -> list[str]:
        """Counts what lies in an open folder; the names of the folders in it."""
        below = []
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # removed meanwhile
                self.files += 1
                if stat.S_ISDIR(found.st_mode):
                    below.append(entry.name)
                elif found.st_nlink > 1:
                    if (found.st_dev, found.st_ino) in self.seen:
                        continue
                    self.seen.add((found.st_dev, found.st_ino))
                self.octets += found.st_blocks * 512
        return below


def measure(roots: list[Path], now: Callable[[], float], until: float) -> Usage:
    """Allocated bytes and number of files below the roots, hard links counted once. Bounded by time, count and depth."""
    count = _Count()
    open_: list[tuple[int, list[str]]] = []
    try:
        for root in roots:
            _enter(open_, count, str(root), None)
            while open_:
                if count.files > MOST_FILES or now() > until:
                    return Usage(count.octets, count.files, complete=False, deep=count.deep)
                folder, below = open_[-1]
                if not below:
                    os.close(open_.pop()[0])
                elif len(open_) > DEEPEST:
                    count.deep = True
                    below.clear()
                else:
                    _enter(open_, count, below.pop(), folder)
    finally:
        for folder, _ in open_:
            os.close(folder)
    return Usage(count.octets, count.files, complete=not count.deep, deep=count.deep)


def _enter(open_: list[tuple[int, list[str]]], count: _Count, name: str, parent: int | None) -> None:
    try:
        folder = os.open(name, _FOLDER, dir_fd=parent)
    except OSError:
        return  # removed meanwhile, replaced by a link, or closed by the agent to its own user
    open_.append((folder, []))
    open_[-1] = (folder, count.take(folder))


def remove(root: Path) -> None:
    """Removes a tree that nothing writes any more, whatever modes its folders have. What cannot be removed is left.

    Folders below the first level are moved up to it, so that the tree is never walked deeper than two.
    """
    try:
        top = os.open(root, _FOLDER)
    except OSError:
        return
    fresh = (f".moved-{number}" for number in itertools.count())
    stuck: set[str] = set()
    try:
        while left := [name for name in os.listdir(top) if name not in stuck]:
            for name in left:
                if not _removed(top, name, fresh_name=lambda: next(fresh)):
                    stuck.add(name)
    finally:
        os.close(top)
    if not stuck:
        os.rmdir(root)


def _removed(top: int, name: str, fresh_name: Callable[[], str]) -> bool:
    """Removes one entry of the top folder, its own folders moved up first. False when it cannot be."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=top)
            return True
        if os.getuid() != 0:
            os.chmod(name, 0o700, dir_fd=top)
        folder = os.open(name, _FOLDER, dir_fd=top)
        try:
            for child in os.listdir(folder):
                if not stat.S_ISDIR(os.stat(child, dir_fd=folder, follow_symlinks=False).st_mode):
                    os.unlink(child, dir_fd=folder)
                    continue
                if os.getuid() != 0:
                    os.chmod(child, 0o700, dir_fd=folder)  # moving a folder writes into it
                _move_up(child, folder, top, fresh_name)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=top)
    except OSError:
        return False
    return True


def _move_up(child: str, folder: int, top: int, fresh_name: Callable[[], str]) -> None:
    while True:
        name = fresh_name()
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(child, name, src_dir_fd=folder, dst_dir_fd=top)
            return

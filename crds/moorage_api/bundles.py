"""Bundles: an agent's folder as one file. Packing is deterministic; unpacking trusts nothing.

Layer: the floor; stdlib only. The CLI packs and uploads, the gateway keeps bundles by digest, providers unpack them;
a provider also lists a plain source folder by the same rules (`files_of`), so that a folder and its bundle hold the
same files.

    BundleError   the folder cannot be packed, or the archive is refused (`unpacking`)
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from moorage_api.unpacking import BundleError, Limits, unpack

__all__ = ["BundleError", "Limits", "Packed", "SourceFile", "files_of", "pack", "tree_digest", "unpack"]

IGNORE_FILE = ".moorageignore"
ALWAYS_IGNORED = (
    ".git",
    ".hg",
    ".svn",
    "__pycache__",
    "*.pyc",
    ".venv",
    "venv",
    "node_modules",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".DS_Store",
    ".env",
)

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Packed:
    """A finished bundle: `digest` is the sha256 (hex) of the archive's bytes."""

    digest: str
    size: int
    files: int


@dataclass(frozen=True)
class SourceFile:
    """One file of a source folder: `name` is its path inside, with `/`."""

    name: str
    path: Path
    executable: bool


def files_of(folder: Path, *, limits: Limits | None = None, everything: bool = False) -> list[SourceFile]:
    """The files of a source folder, sorted by name; ignored ones left out. Raises BundleError for what cannot travel.

    `everything`: nothing is ignored, as for what a build has made.

    A link to a file inside the folder counts as that file; any other link is refused, since it would mean something
    else elsewhere.
    """
    bounds = limits or Limits()
    root = folder.resolve()
    if not root.is_dir():
        raise BundleError(f"{folder} is not a folder")
    patterns = () if everything else (*ALWAYS_IGNORED, *_patterns(root))
    found: list[SourceFile] = []
    for current, folders, files in os.walk(root):
        here = Path(current)
        folders[:] = sorted(f for f in folders if not _ignored((here / f).relative_to(root).as_posix() + "/", patterns))
        for name in sorted([*files, *(f for f in folders if (here / f).is_symlink())]):
            path = here / name
            relative = path.relative_to(root).as_posix()
            if _ignored(relative, patterns):
                continue
            found.append(_source_file(root, path, relative))
            if len(found) > bounds.files:
                raise BundleError(f"more than {bounds.files} files in {folder}; leave some out with {IGNORE_FILE}")
    return sorted(found, key=lambda file: file.name)


def tree_digest(files: list[SourceFile]) -> str:
    """sha256 (hex) over names, modes and contents: equal for equal folders, wherever they lie."""
    whole = hashlib.sha256()
    for file in files:
        content = hashlib.sha256()
        with file.path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                content.update(chunk)
        name = file.name.encode()
        whole.update(b"%d:%s:%d:%s\n" % (len(name), name, file.executable, content.hexdigest().encode()))
    return whole.hexdigest()


def pack(folder: Path, target: IO[bytes], *, limits: Limits | None = None, everything: bool = False) -> Packed:
    """Writes the folder as tar.gz: the same files give the same bytes on every machine. Raises BundleError. See `files_of`."""
    bounds = limits or Limits()
    files = files_of(folder, limits=bounds, everything=everything)
    if not files:
        raise BundleError(f"{folder} has no files to pack")
    counted = _Counted(target)
    total = 0
    with (
        gzip.GzipFile(fileobj=counted, mode="wb", mtime=0, filename="", compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for file in files:
            info = tarfile.TarInfo(file.name)
            info.size = file.path.stat().st_size
            info.mode = 0o755 if file.executable else 0o644
            total += info.size
            if total > bounds.octets:
                raise BundleError(f"more than {bounds.octets} bytes in {folder}; leave files out with {IGNORE_FILE}")
            with file.path.open("rb") as stream:
                tar.addfile(info, stream)
    return Packed(counted.sha.hexdigest(), counted.size, len(files))


def _patterns(root: Path) -> list[str]:
    path = root / IGNORE_FILE
    if not path.is_file():
        return []
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[:1000]]
    return [line for line in lines if line and not line.startswith("#")]


def _ignored(relative: str, patterns: tuple[str, ...]) -> bool:
    """Simple rules: a pattern without `/` matches any name; one with `/` matches the path from the top; `x/` matches
    folders only."""
    is_folder, path = relative.endswith("/"), relative.rstrip("/")
    name = path.rsplit("/", 1)[-1]
    for pattern in patterns:
        if pattern.endswith("/") and not is_folder:
            continue
        wanted = pattern.strip("/")
        subject = path if "/" in pattern.rstrip("/") else name
        if fnmatch.fnmatchcase(subject, wanted):
            return True
    return False


def _source_file(root: Path, path: Path, relative: str) -> SourceFile:
    if path.is_symlink():
        real = path.resolve()
        if not real.is_file() or not real.is_relative_to(root):
            raise BundleError(
                f"{relative} is a link that leads out of the folder or to no file; copy it in or ignore it"
            )
        path = real
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise BundleError(f"{relative} is neither a file nor a folder; ignore it with {IGNORE_FILE}")
    try:
        relative.encode()
    except UnicodeEncodeError:
        raise BundleError(f"{relative!r} is not a valid UTF-8 name") from None
    return SourceFile(relative, path, bool(mode & stat.S_IXUSR))


class _Counted:
    """A writer that knows digest and size of what went through it."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.sha = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        self.size += len(data)
        self._target.write(data)
        return len(data)

    def flush(self) -> None:
        self._target.flush()

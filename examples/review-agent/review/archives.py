"""Unpacking release files that nobody has vetted. Nothing is ever executed, linked, or written outside the folder.

Only what a review reads is written (Python sources and metadata). Traversal, devices, duplicates and bombs end the unpacking with
`Hostile` or `TooLarge`; links are left out, since a review needs none. Every byte is counted as it is written: sizes that an archive
declares about itself are not believed.
"""

import gzip
import io
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from . import errors
from .budget import MIB, Budget

BLOCK = 64 * 1024
LARGEST_HEADER = MIB
DEEPEST_PATH = 32
LONGEST_PATH = 1024
SUFFIXES = (".py", ".pyi", ".toml", ".cfg")
NAMES = ("PKG-INFO", "METADATA", "requirements.txt")


@dataclass(frozen=True)
class Unpacked:
    """`root` is the folder; the counts say what was left out and why."""

    root: Path
    written: int
    links: int
    oversized: tuple[str, ...]


@dataclass(frozen=True)
class _Member:
    """One entry as either format tells it; `open` is called only for files that are wanted."""

    name: str
    kind: str  # "file", "folder", "link", "other"
    entry: tarfile.TarInfo | zipfile.ZipInfo


def wanted(name: str) -> bool:
    """Whether a review reads a file of this name."""
    return name.endswith(SUFFIXES) or PurePosixPath(name).name in NAMES


def unpack(archive: Path, into: Path, budget: Budget) -> Unpacked:
    """Unpack a `.tar.gz`, `.zip` or `.whl`. Raises `Hostile`, `TooLarge`; the folder is then removed."""
    into.mkdir(parents=True)
    try:
        if archive.name.endswith((".zip", ".whl")):
            return _unpack_zip(archive, into, budget)
        if archive.name.endswith((".tar.gz", ".tgz")):
            return _unpack_tar(archive, into, budget)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile) as fault:
        shutil.rmtree(into)
        raise errors.Hostile(f"{archive.name} is not a readable archive.") from fault
    except (NotImplementedError, RuntimeError, ValueError, OverflowError, OSError) as fault:
        shutil.rmtree(into)
        raise errors.Hostile(f"{archive.name} uses an unsupported or encrypted archive format.") from fault
    except errors.ReviewError:
        shutil.rmtree(into)
        raise
    shutil.rmtree(into)
    raise errors.NotFound(f"{archive.name} is in a format that a review does not read.")


def safe_path(name: str, archive: str) -> PurePosixPath:
    """The member's relative path. Raises `Hostile` for a name that no honest tool writes."""
    path = PurePosixPath(name)
    bad = (
        not name
        or "\\" in name
        or any(ord(c) < 32 for c in name)
        or path.is_absolute()
        or ".." in path.parts
        or (path.parts and path.parts[0].endswith(":"))
        or len(path.parts) > DEEPEST_PATH
        or len(name) > LONGEST_PATH
        or any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in path.parts)
    )
    if bad:
        raise errors.Hostile(f"{archive} holds a member with an unsafe name ({name[:80]!r}).")
    return path


class _Guarded(io.RawIOBase):
    """A file that refuses single huge reads: tar headers give their own length and would be read into memory at once."""

    def __init__(self, inner: IO[bytes], archive: str) -> None:
        self._inner = inner
        self._archive = archive

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise errors.Hostile(f"{self._archive} has a header of {size} bytes.")
        return self._inner.read(size)


def _unpack_tar(archive: Path, into: Path, budget: Budget) -> Unpacked:
    """Decompressed to disk first, with a cap, so that a compression bomb costs bounded disk and no memory."""
    plain = into.with_name(into.name + ".tar")
    try:
        with gzip.open(archive) as packed, plain.open("wb") as target:
            _copy(packed, target, budget.limits.unpacked_bytes, archive.name, budget)
        with plain.open("rb") as raw, tarfile.open(fileobj=_Guarded(raw, archive.name), mode="r:") as tar:

            def members() -> Iterator[_Member]:
                for info in tar:
                    yield _Member(info.name, _tar_kind(info), info)

            def opened(member: _Member) -> IO[bytes]:
                assert isinstance(member.entry, tarfile.TarInfo)
                stream = tar.extractfile(member.entry)
                if stream is None:
                    raise errors.Hostile(f"{archive.name} holds a file without content.")
                return stream

            return _write_all(archive.name, members(), opened, into, budget)
    finally:
        plain.unlink(missing_ok=True)


def _unpack_zip(archive: Path, into: Path, budget: Budget) -> Unpacked:
    _check_directory(archive)
    with zipfile.ZipFile(archive) as bundle:

        def members() -> Iterator[_Member]:
            for info in bundle.infolist():
                yield _Member(info.filename, _zip_kind(info), info)

        def opened(member: _Member) -> IO[bytes]:
            assert isinstance(member.entry, zipfile.ZipInfo)
            return bundle.open(member.entry)

        return _write_all(archive.name, members(), opened, into, budget)


def _check_directory(archive: Path) -> None:
    """zipfile reads the whole central directory into objects before anything can be counted: cap its size beforehand."""
    with archive.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 66_000))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise zipfile.BadZipFile("no end record")
    if b"PK\x06\x07" in tail[max(0, at - 20) : at] or int.from_bytes(tail[at + 12 : at + 16], "little") > 8 * MIB:
        raise errors.TooLarge(f"{archive.name} lists more files than a review takes.")


def _write_all(
    archive: str, members: Iterator[_Member], opened: Callable[[_Member], IO[bytes]], into: Path, budget: Budget
) -> Unpacked:
    seen: set[PurePosixPath] = set()
    oversized: list[str] = []
    written = links = 0
    left = budget.limits.unpacked_bytes
    for count, member in enumerate(members, 1):
        budget.check()
        if count > budget.limits.files:
            raise errors.TooLarge(f"{archive} holds more than {budget.limits.files} files.")
        path = safe_path(member.name, archive)
        if member.kind == "other":
            raise errors.Hostile(f"{archive} holds a device, a pipe or a sparse file ({member.name[:80]!r}).")
        links += member.kind == "link"
        if member.kind != "file" or not wanted(member.name):
            continue
        if path in seen:
            raise errors.Hostile(f"{archive} holds {member.name[:80]!r} twice.")
        seen.add(path)
        target = into / path
        with opened(member) as source, _fresh(target, archive) as sink:
            size, whole = _copy_source(source, sink, min(budget.limits.source_bytes, left), budget)
        left -= size
        if left <= 0:
            raise errors.TooLarge(f"{archive} unpacks to more than {budget.limits.unpacked_bytes} bytes.")
        if whole:
            written += 1
        else:
            target.unlink()
            oversized.append(member.name)
    return Unpacked(into, written, links, tuple(sorted(oversized)))


def _fresh(target: Path, archive: str) -> IO[bytes]:
    """A new file; never one that is there already (also where the file system ignores case)."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as fault:
        raise errors.Hostile(f"{archive} uses one name for two things ({target.name[:80]!r}).") from fault


def _copy(source: gzip.GzipFile, target: IO[bytes], limit: int, archive: str, budget: Budget) -> None:
    total = 0
    while block := source.read(BLOCK):
        budget.check()
        total += len(block)
        if total > limit:
            raise errors.TooLarge(f"{archive} unpacks to more than {limit} bytes.")
        target.write(block)


def _copy_source(source: IO[bytes], target: IO[bytes], limit: int, budget: Budget) -> tuple[int, bool]:
    """Bytes written, and whether that was all of it; never writes more than `limit`."""
    total = 0
    while block := source.read(BLOCK):
        budget.check()
        if total + len(block) > limit:
            return total, False
        target.write(block)
        total += len(block)
    return total, True


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issparse():
        return "other"
    if info.isfile():
        return "file"
    if info.isdir():
        return "folder"
    return "link" if info.issym() or info.islnk() else "other"


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = (info.external_attr >> 16) & 0o170000
    if mode == 0o120000:
        return "link"
    if mode not in (0, 0o100000, 0o040000):
        return "other"
    return "folder" if info.is_dir() else "file"

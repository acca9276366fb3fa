"""Unpacking a bundle nobody vouches for: whole, or not at all.

Layer: the floor; stdlib only. Called through `bundles.unpack` by providers and by the gateway, which checks uploads.
Every member is judged before a byte of it is written, every limit while reading, and no path is ever resolved by
name.

    BundleError   the archive is refused (or, in `bundles`, the folder cannot be packed); nothing was written or
    replaced
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_BLOCK = 512
_CHUNK = 1 << 16
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)


class BundleError(ValueError):
    """Why a folder cannot be packed or an archive is refused; the message names the file and the rule."""


@dataclass(frozen=True)
class Limits:
    """What an archive may be at most. Every number is checked while reading, before it is written."""

    files: int = 20_000
    octets: int = 512 * 2**20
    ratio: int = 200
    ratio_from: int = 16 * 2**20  # small archives may compress as well as they like
    depth: int = 32
    name: int = 255
    path: int = 1024
    extension: int = 64 * 1024  # a pax or long-name header


def unpack(archive: IO[bytes], target: Path, *, digest: str | None = None, limits: Limits | None = None) -> int:
    """Unpacks a bundle to `target`, whole or not at all; returns the number of files. Raises BundleError.

    The archive goes into a fresh folder beside `target` first; only when every member was accepted and the digest of
    the bytes is right does it take the place of an older tree.
    """
    bounds = limits or Limits()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-", dir=target.parent))
    try:
        count = _extract(archive, fresh, digest, bounds)
        fresh.chmod(0o755)
        _replace(fresh, target)
        return count
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _replace(fresh: Path, target: Path) -> None:
    if not target.exists():
        fresh.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-old-", dir=target.parent))
    target.rename(old / "tree")
    try:
        fresh.rename(target)
    except OSError:
        (old / "tree").rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


class _Inflated:
    """Decompressed bytes of an archive, bounded in size and ratio; knows the digest of the compressed ones."""

    def __init__(self, archive: IO[bytes], limits: Limits) -> None:
        self._archive = archive
        self._limits = limits
        self._inflate = zlib.decompressobj(wbits=31)
        self._ready = bytearray()
        self._ended = False
        self.sha = hashlib.sha256()
        self._in = 0
        self._out = 0

    def exactly(self, size: int) -> bytes:
        while len(self._ready) < size and not self._ended:
            self._more()
        if len(self._ready) < size:
            raise BundleError("the archive ends in the middle")
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def drain(self) -> None:
        """Reads to the end, so that the digest covers every byte; only padding may follow the archive."""
        while True:
            if any(self._ready):
                raise BundleError("something follows the end of the archive")
            self._ready.clear()
            if self._ended:
                break
            self._more()

    def _more(self) -> None:
        pending = self._inflate.unconsumed_tail
        if not pending:
            pending = self._archive.read(_CHUNK)
            self.sha.update(pending)
            self._in += len(pending)
        if not pending:
            raise BundleError("the archive ends in the middle")
        try:
            data = self._inflate.decompress(pending, _CHUNK)
        except zlib.error:
            raise BundleError("the archive is not a tar.gz file") from None
        self._out += len(data)
        self._ready += data
        if self._out > self._limits.octets + self._limits.files * 3 * _BLOCK:
            raise BundleError(f"the archive unpacks to more than {self._limits.octets} bytes")
        if self._out > self._limits.ratio_from and self._out > self._in * self._limits.ratio:
            raise BundleError(f"the archive is compressed more than {self._limits.ratio} times; refused as a bomb")
        if self._inflate.eof:
            if self._inflate.unused_data or self._archive.read(1):
                raise BundleError("something follows the end of the archive")
            self._ended = True


def _extract(archive: IO[bytes], folder: Path, digest: str | None, limits: Limits) -> int:
    source = _Inflated(archive, limits)
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    count = 0
    total = 0
    seen: dict[str, str] = {}
    try:
        for info in _members(source, limits):
            count += 1
            if count > limits.files:
                raise BundleError(f"the archive has more than {limits.files} members")
            parts = _checked_name(info, limits, seen)
            total += info.size
            if total > limits.octets:
                raise BundleError(f"the archive unpacks to more than {limits.octets} bytes")
            _write(root, parts, info, source)
        source.drain()
    except OSError as error:
        raise BundleError(f"the archive cannot be unpacked: {error.strerror or error}") from error
    finally:
        os.close(root)
    if digest is not None and source.sha.hexdigest() != digest.removeprefix("sha256:"):
        raise BundleError("the archive is not the one its digest names; upload it again")
    if count == 0:
        raise BundleError("the archive is empty")
    return count


def _members(source: _Inflated, limits: Limits) -> Iterator[tarfile.TarInfo]:
    """The members one by one; the consumer reads each file's data from `source` before asking for the next.

    Own reading of the blocks: the standard reader takes extension headers of any size into memory and follows sparse
    maps.
    """
    long_name: str | None = None
    while True:
        block = source.exactly(_BLOCK)
        if not any(block):
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
            raise BundleError("the archive has a broken header or a name that is not UTF-8") from None
        if info.size < 0:
            raise BundleError("the archive has a member of negative size")
        if info.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            data = _extension(source, info, limits)
            long_name = _pax_path(data) if info.type == tarfile.XHDTYPE else _decoded(data.rstrip(b"\0"))
            continue
        if info.type not in (*_REGULAR, tarfile.DIRTYPE):
            raise BundleError(
                f"{info.name[:200]!r} is a link, device or other special member; a bundle holds files and folders only"
            )
        if long_name is not None:
            info.name, long_name = long_name, None
        if info.type == tarfile.DIRTYPE and info.size:
            raise BundleError(f"{info.name[:200]!r} is a folder with data")
        yield info


def _extension(source: _Inflated, info: tarfile.TarInfo, limits: Limits) -> bytes:
    if info.size > limits.extension:
        raise BundleError("the archive has an extension header that is too large")
    return source.exactly(-(-info.size // _BLOCK) * _BLOCK)[: info.size]


def _pax_path(data: bytes) -> str | None:
    path: str | None = None
    while data:
        length_text, _, rest = data.partition(b" ")
        if not length_text.isdigit() or not len(length_text) < int(length_text) <= len(data):
            raise BundleError("the archive has a broken extension header")
        record, data = data[: int(length_text)], data[int(length_text) :]
        key, _, value = record[len(length_text) + 1 : -1].partition(b"=")
        if key == b"path":
            path = _decoded(value)
        elif key == b"size" or key.startswith((b"GNU.sparse", b"SCHILY")) or key == b"linkpath":
            raise BundleError(
                f"the archive uses the extension {key.decode(errors='replace')[:40]!r}, which a bundle may not"
            )
    return path


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BundleError("the archive has a name that is not UTF-8") from None


def _checked_name(info: tarfile.TarInfo, limits: Limits, seen: dict[str, str]) -> list[str]:
    name = info.name
    shown = repr(name[:200])
    if name.startswith("/") or "\\" in name or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise BundleError(f"{shown} is an absolute path or has forbidden characters")
    parts = name.rstrip("/").removeprefix("./").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise BundleError(f"{shown} leads out of the bundle")
    if (
        len(parts) > limits.depth
        or len(name.encode()) > limits.path
        or any(len(p.encode()) > limits.name for p in parts)
    ):
        raise BundleError(f"{shown} is too long or too deep")
    if info.mode & 0o7000:
        raise BundleError(f"{shown} has a setuid, setgid or sticky bit")
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", path).casefold())
        if seen.setdefault(key, path) != path:
            raise BundleError(f"{path[:200]!r} and {seen[key][:200]!r} differ only in case or in Unicode form")
    return parts


def _write(root: int, parts: list[str], info: tarfile.TarInfo, source: _Inflated) -> None:
    """Creates one member below `root` by open folders alone: a link in the way fails, and no path is ever resolved."""
    here = os.dup(root)
    try:
        folders = parts if info.type == tarfile.DIRTYPE else parts[:-1]
        for part in folders:
            try:
                os.mkdir(part, 0o755, dir_fd=here)
            except FileExistsError:
                pass
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        if info.type == tarfile.DIRTYPE:
            return
        mode = 0o755 if info.mode & stat.S_IXUSR else 0o644
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(parts[-1], flags, mode, dir_fd=here), "wb") as stream:
            left = info.size
            while left:
                piece = source.exactly(min(left, _CHUNK))
                stream.write(piece)
                left -= len(piece)
            source.exactly(-info.size % _BLOCK)
    finally:
        os.close(here)

"""The rules of a manifest, whoever made it. Layer: pure. Every function raises BadCheckpoint with the rule that is broken."""

from __future__ import annotations

from dataclasses import dataclass, field

from moorage_sandbox.checkpoint.shapes import (
    MAX_PACK_RAW,
    MAX_PIECE,
    TOPS,
    BadCheckpoint,
    Limits,
    Pack,
    most_compressed,
)
from moorage_sandbox.checkpoint.table import FILE, FOLDER, HARD, PIECE, SYMLINK, TOP, Entry, Table


def packs(given: tuple[Pack, ...]) -> None:
    """No name twice, and sizes that a pack can have."""
    names = set()
    for pack in given:
        if pack.name in names:
            raise BadCheckpoint(f"the pack {pack.name} is named twice")
        names.add(pack.name)
        if not 1 <= pack.raw <= MAX_PACK_RAW or not 1 <= pack.size <= most_compressed(pack.raw):
            raise BadCheckpoint(f"the pack {pack.name} has impossible sizes: {pack.size} bytes, {pack.raw} inflated")


def pieces(given: tuple[Pack, ...], records: bytes) -> None:
    """Every pack is used; pieces lie inside their packs, in order, none on another, none twice."""
    last, end = -1, 0
    digests = set()
    for digest, pack, offset, length in PIECE.iter_unpack(records):
        if pack != last:
            if pack != last + 1:
                raise BadCheckpoint("the pieces do not go through the packs one by one")
            last, end = pack, 0
        if pack >= len(given):
            raise BadCheckpoint("a piece lies in a pack that is not there")
        if not 1 <= length <= MAX_PIECE or offset < end or offset + length > given[pack].raw:
            raise BadCheckpoint(f"a piece does not lie inside the pack {given[pack].name}")
        if digest in digests:
            raise BadCheckpoint("a piece is there twice")
        digests.add(digest)
        end = offset + length
    if last + 1 != len(given):
        raise BadCheckpoint("a pack is not used by any piece")


@dataclass
class _Folder:
    depth: int
    path: int  # bytes of its path
    last: bytes = b""  # name of the child that came last


@dataclass
class _Rows:
    table: Table
    records: bytes
    limits: Limits
    folders: dict[int, _Folder] = field(default_factory=lambda: {TOP: _Folder(-1, -1)})
    used: bytearray = field(default_factory=bytearray)
    files: int = 0
    octets: int = 0


def rows(table: Table, records: bytes, limits: Limits) -> tuple[int, int]:
    """Every row is one that can be restored below its top folder; (files, bytes of content)."""
    state = _Rows(table, records, limits, used=bytearray(len(records) // PIECE.size))
    if len(table) > limits.files:
        raise BadCheckpoint(f"there are {len(table)} files and folders; {limits.files} are the most")
    for number in range(len(table)):
        _row(state, number, table.entry(number))
    if not all(state.used):
        raise BadCheckpoint("a piece is not used by any file")
    return state.files, state.octets


def _row(state: _Rows, number: int, row: Entry) -> None:
    _place(state, number, row)
    shown = repr(row.name[:80])
    if row.mode > 0o777:
        raise BadCheckpoint(f"{shown} has a setuid, setgid or sticky bit, or more")
    if bool(row.target) != (row.kind == SYMLINK) or b"\0" in row.target or len(row.target) >= state.limits.path:
        raise BadCheckpoint(f"{shown} has a target that its kind cannot have")
    if row.kind == FILE:
        _file(state, number, row, shown)
    elif row.kind in (FOLDER, SYMLINK, HARD):
        if row.size or row.inode or row.ctime_ns or state.table.parts_of(number):
            raise BadCheckpoint(f"{shown} has content that its kind cannot have")
        if row.kind == HARD and not (row.link < number and state.table.kind(row.link) == FILE):
            raise BadCheckpoint(f"{shown} is a hard link to something that is no file before it")
    else:
        raise BadCheckpoint(f"{shown} is neither a folder, a file nor a link")


def _place(state: _Rows, number: int, row: Entry) -> None:
    """The row lies in a folder before it, under a name that leads nowhere else and is not taken."""
    limits, name = state.limits, row.name
    shown = repr(name[:80])
    folder = state.folders.get(row.parent)
    if folder is None:
        raise BadCheckpoint(f"{shown} lies in something that is no folder before it")
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise BadCheckpoint(f"{shown} is not a name")
    if row.parent == TOP and (name not in TOPS or row.kind != FOLDER):
        raise BadCheckpoint(f"{shown} lies at the top; only the folders home and workspace may")
    if name <= folder.last:
        raise BadCheckpoint(f"{shown} is there twice, or not in order")
    folder.last = name
    depth, path = folder.depth + 1, folder.path + 1 + len(name)
    if len(name) > limits.name or depth > limits.depth or path > limits.path:
        raise BadCheckpoint(
            f"{shown} is too long or too deep: {limits.depth} folders below each other, {limits.name} bytes a name and "
            f"{limits.path} a path are the most; move or remove it"
        )
    if row.kind == FOLDER:
        state.folders[number] = _Folder(depth, path)


def _file(state: _Rows, number: int, row: Entry, shown: str) -> None:
    """The parts are pieces that are there, with holes between them, and add up to the size."""
    total, hole = 0, False
    count = len(state.used)
    for part in state.table.parts_of(number):
        if part >= count or (part < 0 and hole):
            raise BadCheckpoint(f"{shown} has a part that is not there")
        hole = part < 0
        if hole:
            total -= part
        else:
            state.used[part] = 1
            length = PIECE.unpack_from(state.records, part * PIECE.size)[3]
            total += length
            state.octets += length
    if total != row.size or total > state.limits.size:
        raise BadCheckpoint(f"{shown} has parts that do not add up to its size")
    if state.octets > state.limits.octets:
        raise BadCheckpoint(
            f"the files have more than {state.limits.octets} bytes together; remove some, or raise the limit"
        )
    state.files += 1

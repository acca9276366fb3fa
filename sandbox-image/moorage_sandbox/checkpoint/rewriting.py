"""Packs that are hardly used any more, or are many and small: what is used of them moves into new packs. Layer: I/O rim.

A piece is its digest: it is read again from some file that has it, and moves only when it is still the same there. Otherwise the
old pack is kept, which is as good.
"""

from __future__ import annotations

import os

from moorage_sandbox.checkpoint import handles
from moorage_sandbox.checkpoint.packing import Packing, Pieces, digest
from moorage_sandbox.checkpoint.shapes import MAX_PACK_RAW
from moorage_sandbox.checkpoint.table import FILE, Table

SMALL = MAX_PACK_RAW // 16
MANY = 32
"""More small packs than these become one: each is a request when restoring."""


def rewrite(root: int, table: Table, pieces: Pieces, packing: Packing) -> int:
    """Moves the pieces of such packs; returns how many files were read for it. `root`: the open volume."""
    worn = _worn(table, pieces)
    if not worn:
        return 0
    wanted = {number for number in set(table.parts) if number >= 0 and pieces[number][1] in worn}
    hashed = 0
    for row in range(len(table)):
        if not wanted:
            break
        if table.kind(row) != FILE or wanted.isdisjoint(parts := table.parts_of(row)):
            continue
        hashed += 1
        try:
            fd = _opened(root, table.path(row))
        except OSError:
            continue
        try:
            at = 0
            for part in parts:
                length = -part if part < 0 else pieces[part][3]
                if part in wanted:
                    data = os.pread(fd, length, at)
                    if digest(data) == pieces[part][0]:
                        packing.add(pieces[part][0], data, part)
                        wanted.discard(part)
                at += length
        except OSError:
            continue
        finally:
            os.close(fd)
    return hashed


def _worn(table: Table, pieces: Pieces) -> set[int]:
    """Numbers of the packs to be rewritten."""
    used: dict[int, int] = {}
    for number in {part for part in table.parts if part >= 0}:
        _, pack, _, length = pieces[number]
        used[pack] = used.get(pack, 0) + length
    old = {number: pack.raw for number, pack in enumerate(pieces.packs) if pack is not None and number in used}
    worn = {number for number, raw in old.items() if used[number] * 2 < raw}
    small = {number for number, raw in old.items() if raw < SMALL}
    return worn | small if len(small) > MANY else worn


def _opened(root: int, path: list[bytes]) -> int:
    """A file below the volume, by its names one after the other. Raises OSError."""
    here = os.dup(root)
    try:
        for name in path[:-1]:
            below = handles.plain_folder(here, name)
            os.close(here)
            here = below
        return handles.file(here, path[-1])
    finally:
        os.close(here)

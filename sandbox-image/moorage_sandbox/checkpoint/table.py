"""What a manifest tells of files, as columns: a row a file, in the order of a walk. Layer: pure.

Kept packed, since a workspace may hold 200,000 files and the process that reads it has little memory: about 70 bytes a row.
"""

from __future__ import annotations

import struct
from array import array
from typing import NamedTuple

FOLDER, FILE, SYMLINK, HARD = range(4)
TOP = 0xFFFFFFFF
"""The parent of the top folders."""

# kind, mode, parent, mtime_ns, ctime_ns, inode, size, parts (or the row a hard link means), length of name and of target
ROW = struct.Struct("<BHIqqQQIHH")
# digest, number of the pack, offset and length within its inflated bytes
PIECE = struct.Struct("<32sIII")


class Entry(NamedTuple):
    """One row. `ctime_ns`, `inode` and `size` are those of a file, 0 for others; a `ctime_ns` of 0 says: read it again."""

    kind: int
    mode: int
    parent: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    size: int
    link: int  # the row of the file that a hard link means
    name: bytes
    target: bytes  # of a symlink


class Table:
    """Rows, their names and targets, and the parts of files: a piece's number, or a hole's length as a negative number."""

    def __init__(self) -> None:
        self.rows = bytearray()
        self.parts = array("q")
        self.text = bytearray()
        self._text_at = array("I")
        self._part_at = array("I", [0])

    def __len__(self) -> int:
        return len(self._text_at)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return (self.rows, self.parts, self.text) == (other.rows, other.parts, other.text)

    @classmethod
    def of(cls, rows: bytearray, parts: array[int], text: bytearray) -> Table | None:
        """A table out of its columns; None when these do not fit each other."""
        table = cls()
        table.rows, table.parts, table.text = rows, parts, text
        text_at = part_at = 0
        for kind, _, _, _, _, _, _, count, name, target in ROW.iter_unpack(rows):
            table._text_at.append(text_at)
            text_at += name + target
            part_at += 0 if kind == HARD else count
            if text_at > len(text) or part_at > len(parts):
                return None
            table._part_at.append(part_at)
        return table if (text_at, part_at) == (len(text), len(parts)) else None

    def add(self, entry: Entry, parts: array[int] | tuple[int, ...] = ()) -> int:
        """The new row's number."""
        count = entry.link if entry.kind == HARD else len(parts)
        self.rows += ROW.pack(*entry[:7], count, len(entry.name), len(entry.target))
        self._text_at.append(len(self.text))
        self.text += entry.name
        self.text += entry.target
        self.parts.extend(parts)
        self._part_at.append(len(self.parts))
        return len(self) - 1

    def entry(self, number: int) -> Entry:
        """A row by its number."""
        kind, mode, parent, mtime_ns, ctime_ns, inode, size, count, name, target = ROW.unpack_from(
            self.rows, number * ROW.size
        )
        at = self._text_at[number]
        named = at + name
        return Entry(
            kind,
            mode,
            parent,
            mtime_ns,
            ctime_ns,
            inode,
            size,
            count if kind == HARD else 0,
            bytes(self.text[at:named]),
            bytes(self.text[named : named + target]),
        )

    def kind(self, number: int) -> int:
        """The kind of a row."""
        return self.rows[number * ROW.size]

    def parts_of(self, number: int) -> array[int]:
        """The parts of a file; none for other kinds."""
        return self.parts[self._part_at[number] : self._part_at[number + 1]]

    def path(self, number: int) -> list[bytes]:
        """The names from a top folder down to the row."""
        names = []
        while number != TOP:
            row = self.entry(number)
            names.append(row.name)
            number = row.parent
        return names[::-1]

    def weight(self) -> int:
        """Bytes when encoded, pieces apart."""
        return len(self.rows) + len(self.text) + 8 * len(self.parts)

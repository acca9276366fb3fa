"""A checkpoint's manifest: which files there are, of which pieces they consist, and in which packs these lie. Layer: pure.

    zstd( FORMAT "\\n", five counts, packs, pieces, rows, parts, text )      little-endian; records: PACK, PIECE, ROW, i64

`decode` believes nothing: what it returns can be restored without leaving the target, and within `Limits`.

    BadCheckpoint   a manifest or pack is not one, or was altered; or a tree is beyond the limits
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass

import zstandard

from moorage_sandbox.checkpoint import checking
from moorage_sandbox.checkpoint.shapes import FORMAT, LEVEL, MAX_PACK_RAW, MAX_PIECE, BadCheckpoint, Limits, Pack
from moorage_sandbox.checkpoint.table import PIECE, ROW, Table

__all__ = ["FORMAT", "MAX_PACK_RAW", "MAX_PIECE", "BadCheckpoint", "Limits", "Manifest", "Pack", "decode", "encode"]

_MAGIC = FORMAT.encode() + b"\n"
_HEAD = struct.Struct("<IIIII")  # packs, pieces, rows, parts, bytes of text
_PACK = struct.Struct("<32sII")  # name, size, raw
_START = len(_MAGIC) + _HEAD.size


@dataclass(frozen=True)
class Manifest:
    """A whole checkpoint: all packs it needs, older ones included."""

    packs: tuple[Pack, ...]
    pieces: bytes  # PIECE records, by pack and offset
    table: Table
    files: int
    octets: int  # of content, holes apart

    def piece(self, number: int) -> tuple[bytes, int, int, int]:
        """Digest, pack's number, offset, length."""
        digest, pack, offset, length = PIECE.unpack_from(self.pieces, number * PIECE.size)
        return digest, pack, offset, length


def checked(packs: tuple[Pack, ...], pieces: bytes, table: Table, limits: Limits) -> Manifest:
    """A manifest of these parts, every rule proved. Raises BadCheckpoint."""
    checking.packs(packs)
    checking.pieces(packs, pieces)
    files, octets = checking.rows(table, pieces, limits)
    return Manifest(packs, pieces, table, files, octets)


def encode(manifest: Manifest) -> bytes:
    """The bytes that `decode` takes; the same manifest gives the same bytes."""
    table = manifest.table
    counts = (len(manifest.packs), len(manifest.pieces) // PIECE.size, len(table), len(table.parts), len(table.text))
    raw = b"".join(
        (
            _MAGIC + _HEAD.pack(*counts),
            *(_PACK.pack(bytes.fromhex(pack.name), pack.size, pack.raw) for pack in manifest.packs),
            manifest.pieces,
            table.rows,
            _numbers(memoryview(table.parts).cast("B")),
            table.text,
        )
    )
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True).compress(raw)


def decode(data: bytes, limits: Limits | None = None) -> Manifest:
    """The manifest in `data`. Raises BadCheckpoint on anything that is not right."""
    bounds = limits or Limits()
    raw = _inflated(data, bounds)
    if not raw.startswith(_MAGIC) or len(raw) < _START:
        raise BadCheckpoint(
            f"the manifest is not of the form {FORMAT}; it was made by another version, or is no manifest"
        )
    packs, pieces, rows, parts, text = _HEAD.unpack_from(raw, len(_MAGIC))
    if rows > bounds.files or max(parts, pieces, packs) > bounds.parts:
        raise BadCheckpoint(
            f"the manifest has {rows} files and folders of {parts} parts; {bounds.files} and {bounds.parts} are the most"
        )
    ends = [_START]
    for size in (packs * _PACK.size, pieces * PIECE.size, rows * ROW.size, parts * 8, text):
        ends.append(ends[-1] + size)
    if ends[-1] != len(raw):
        raise BadCheckpoint("the manifest's counts are not those of what it holds")
    sections = [memoryview(raw)[at:end] for at, end in zip(ends, ends[1:], strict=False)]
    table = Table.of(bytearray(sections[2]), _numbers(sections[3]), bytearray(sections[4]))
    if table is None:
        raise BadCheckpoint("the manifest's rows do not add up to its names and parts")
    return checked(
        tuple(Pack(name.hex(), size, inflated) for name, size, inflated in _PACK.iter_unpack(sections[0])),
        bytes(sections[1]),
        table,
        bounds,
    )


def _numbers(given: memoryview) -> array[int]:
    """Little-endian bytes as numbers of this machine, and back."""
    numbers = array("q")
    numbers.frombytes(given)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _inflated(data: bytes, limits: Limits) -> bytes:
    """The one frame that `data` is; what it would inflate to is known, and bounded, before it is."""
    if len(data) > limits.manifest:
        raise BadCheckpoint(f"the manifest has {len(data)} bytes; {limits.manifest} are the most")
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= limits.manifest:
            raise BadCheckpoint(f"the manifest does not say that it inflates to {limits.manifest} bytes at most")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadCheckpoint("the manifest is damaged: it cannot be inflated") from error

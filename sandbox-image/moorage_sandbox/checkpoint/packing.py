"""Putting pieces into packs: compressed by a second thread while the first reads on, and handed out when full. Layer: I/O rim.

What is held in memory: some MiB on their way to the compressor, and one pack's compressed bytes.
"""

from __future__ import annotations

import hashlib
import io
from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import zstandard

from moorage_sandbox.checkpoint.manifest import Manifest
from moorage_sandbox.checkpoint.shapes import LEVEL, MAX_PACK_RAW, Pack
from moorage_sandbox.checkpoint.table import PIECE, Table

_BATCH = 2**20  # bytes given to the compressor at once
_WAITING = 6 * 2**20  # bytes on their way to it


def digest(data: bytes | memoryview) -> bytes:
    """How pieces and packs are known: blake2b, 32 bytes."""
    return hashlib.blake2b(data, digest_size=32).digest()


class Pieces:
    """The pieces that are known, by digest, and the packs they lie in; first those of an earlier manifest."""

    def __init__(self, previous: Manifest | None) -> None:
        self.packs: list[Pack | None] = list(previous.packs) if previous else []
        self.records = bytearray(previous.pieces if previous else b"")
        self._numbers: dict[bytes, int] | None = None

    def __len__(self) -> int:
        return len(self.records) // PIECE.size

    def __getitem__(self, number: int) -> tuple[bytes, int, int, int]:
        """Digest, pack's number, offset, length."""
        found, pack, offset, length = PIECE.unpack_from(self.records, number * PIECE.size)
        return found, pack, offset, length

    def number(self, wanted: bytes) -> int | None:
        """The piece with this digest. The index is made when it is first asked for: a save without changes never does."""
        if self._numbers is None:
            self._numbers = {record[0]: at for at, record in enumerate(PIECE.iter_unpack(self.records))}
        return self._numbers.get(wanted)

    def place(self, found: bytes, pack: int, offset: int, length: int, number: int | None = None) -> int:
        """Notes where a piece lies; `number`: a known one that has moved."""
        if number is not None:
            PIECE.pack_into(self.records, number * PIECE.size, found, pack, offset, length)
            return number
        self.records += PIECE.pack(found, pack, offset, length)
        if self._numbers is not None:
            self._numbers[found] = len(self) - 1
        return len(self) - 1

    def settled(self, table: Table) -> tuple[tuple[Pack, ...], bytes]:
        """Packs and records as a manifest has them: only what the table uses, in order; its parts are renumbered."""
        used = sorted({part for part in table.parts if part >= 0}, key=lambda number: self[number][1:3])
        kept: dict[int, int] = {}
        renumbered = array("q", bytes(8 * len(self)))
        records = bytearray()
        for at, number in enumerate(used):
            found, pack, offset, length = self[number]
            records += PIECE.pack(found, kept.setdefault(pack, len(kept)), offset, length)
            renumbered[number] = at
        for at, part in enumerate(table.parts):
            if part >= 0:
                table.parts[at] = renumbered[part]
        packs = [self.packs[number] for number in kept]
        return tuple(pack for pack in packs if pack is not None), bytes(records)


@dataclass
class _Open:
    """A pack that is being filled."""

    number: int
    stream: zstandard.ZstdCompressionObj
    raw: int = 0
    done: io.BytesIO = field(default_factory=io.BytesIO)  # compressed; its value is taken without a copy


class Packing:
    """Fills packs with pieces. A context: leaving it by an exception throws away what is under way."""

    def __init__(self, pieces: Pieces, put: Callable[[str, bytes], None]) -> None:
        self.put = 0
        self.octets = 0
        self._pieces = pieces
        self._put = put
        self._thread = ThreadPoolExecutor(1, "packing")
        self._open: _Open | None = None
        self._batch = bytearray()
        self._waiting: deque[tuple[_Open, Future[bytes], int, bool]] = deque()
        self._weight = 0

    def __enter__(self) -> Packing:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def add(self, found: bytes, data: bytes, number: int | None = None) -> int:
        """Puts a piece into the pack that is open; its number. `number`: a known piece that moves here."""
        pack = self._open
        if pack is not None and pack.raw + len(data) > MAX_PACK_RAW:
            self.close()
            pack = None
        if pack is None:
            pack = self._open = _Open(len(self._pieces.packs), zstandard.ZstdCompressor(level=LEVEL).compressobj())
            self._pieces.packs.append(None)
        number = self._pieces.place(found, pack.number, pack.raw, len(data), number)
        pack.raw += len(data)
        self._batch += data
        if len(self._batch) >= _BATCH:
            self._send(pack, last=False)
        return number

    def close(self) -> None:
        """Ends the pack that is open. It is put when it has been compressed."""
        if self._open is not None:
            self._send(self._open, last=True)
            self._open = None

    def finish(self) -> None:
        """Everything that was added has been put."""
        self.close()
        while self._waiting:
            self._take()

    def _send(self, pack: _Open, *, last: bool) -> None:
        data, self._batch = self._batch, bytearray()
        self._weight += len(data)
        self._waiting.append((pack, self._thread.submit(_compressed, pack.stream, data, last), len(data), last))
        while self._weight > _WAITING:
            self._take()

    def _take(self) -> None:
        """The oldest of what was sent; with the last of a pack, the pack is put."""
        pack, future, weight, last = self._waiting.popleft()
        pack.done.write(future.result())
        self._weight -= weight
        if last:
            data = pack.done.getvalue()
            pack.done.close()
            made = Pack(digest(data).hex(), len(data), pack.raw)
            self._put(made.name, data)
            self._pieces.packs[pack.number] = made
            self.put += 1
            self.octets += made.size


def _compressed(stream: zstandard.ZstdCompressionObj, data: bytearray, last: bool) -> bytes:
    found = stream.compress(data)
    return found + stream.flush() if last else found

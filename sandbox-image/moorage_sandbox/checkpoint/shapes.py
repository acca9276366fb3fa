"""The plain shapes and numbers of a checkpoint. Layer: pure. `manifest` gives them on."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PACK_RAW = 16 * 2**20
MAX_PIECE = 4 * 2**20
FORMAT = "moorage-checkpoint/1"
LEVEL = 1
MAX_WINDOW = 8 * 2**20
"""What inflating may need of memory; what is made here needs half a MiB."""
TOPS = (b"home", b"workspace")
"""The folders of a volume that a checkpoint keeps."""


class BadCheckpoint(ValueError):
    """Why a manifest or pack is refused, or a tree cannot be saved; the message says what it is and what to do."""


@dataclass(frozen=True)
class Limits:
    """What a checkpoint may be at most."""

    files: int = 200_000  # with folders and links
    parts: int = 400_000  # of all files together: pieces and holes
    octets: int = 64 * 2**30  # of content; holes do not count
    size: int = 16 * 2**40  # of one file, with its holes
    depth: int = 64
    name: int = 255
    path: int = 4096
    manifest: int = 64 * 2**20  # encoded as well as decoded


@dataclass(frozen=True)
class Pack:
    """Some pieces, one after the other, as one zstd frame."""

    name: str  # 64 hex digits: blake2b-256 of the compressed bytes
    size: int  # of the compressed bytes
    raw: int  # of the inflated ones


def most_compressed(raw: int) -> int:
    """The compressed size that `raw` bytes can have at most: what does not compress is stored with a few bytes a block."""
    return raw + raw // 128 + 1024

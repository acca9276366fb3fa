"""What shim and gateway say to each other about checkpoints (turns.md §8). Layer: the floor.

A checkpoint is packs, then a manifest, then a pointer; the last one alone makes it one. What lies in packs and manifest only the shim
knows (`moorage_sandbox.checkpoint`); whoever stores them knows names, sizes and digests. On the gateway's sandbox port:

    PUT  /sandbox/v1/checkpoints/packs/NAME        the bytes; NAME is their digest
    PUT  /sandbox/v1/checkpoints/manifests/NAME    the same
    POST /sandbox/v1/checkpoints                   Offered → Checkpoint
    GET  /sandbox/v1/checkpoints/ID                → Checkpoint; ID may be `before:TURN`, the one from before that turn
    GET  /sandbox/v1/checkpoints/packs/NAME, …/manifests/NAME
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PATH = "/sandbox/v1/checkpoints"
MAX_PACK = 20 * 2**20
"""Bytes of a pack: 16 MiB of files (performance.md P19), and room for what does not compress."""
MAX_MANIFEST = 32 * 2**20
MAX_OFFER = 2 * 2**20
MAX_PACKS = 8192
DIGEST = r"^[0-9a-f]{64}$"
ID = re.compile(r"ck-([0-9]{20})-([0-9]{16})\Z")
BEFORE = "before:"

Digest = Annotated[str, Field(pattern=DIGEST)]
Why = Literal["hibernate", "schedule", "turn", "before", "asked"]


def digest(data: bytes) -> str:
    """The name of a pack or manifest: blake2b, 256 bits, hex."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PackRef(_Shape):
    """One pack; `size` in bytes as stored."""

    name: Digest
    size: int = Field(ge=1, le=MAX_PACK)


class Offered(_Shape):
    """A checkpoint whose packs and manifest are stored. `number` rises within an epoch (ms of the shim's clock).

    `quiet`: no attempt ran and no file changed meanwhile. `why`: what it was made for; `before`: the turn that had not begun then.
    `packs` are all it needs, older ones too; `octets` is what the files take.
    """

    session: str
    epoch: int = Field(ge=0, lt=10**20)
    number: int = Field(ge=1, lt=10**16)
    quiet: bool
    why: Why
    before: str = Field(default="", max_length=128)
    manifest: PackRef
    packs: list[PackRef] = Field(max_length=MAX_PACKS)
    files: int = Field(ge=0)
    octets: int = Field(ge=0)

    @property
    def id(self) -> str:
        """`ck-EPOCH-NUMBER`, which sort as they were made."""
        return f"ck-{self.epoch:020d}-{self.number:016d}"


class Checkpoint(Offered):
    """A stored one. `created` in epoch ms, by the gateway's clock."""

    created: int


class Save(_Shape):
    """Gateway → shim: make a checkpoint within `deadline` seconds. With `quiet`, only if nothing runs (else `busy`)."""

    session: str
    epoch: int
    why: Why
    quiet: bool = False
    before: str = ""
    deadline: float = 60.0


class Restore(_Shape):
    """Gateway → shim: replace the session's files by those of a checkpoint. Refused (`busy`) while something runs."""

    session: str
    epoch: int
    checkpoint: str
    deadline: float = 600.0


class Saved(_Shape):
    """What came of `Save`: the checkpoint's id, and what it took. `skipped`: files that could not be saved, at most a few."""

    id: str
    quiet: bool
    files: int
    octets: int
    hashed: int
    packs: int
    skipped: list[str] = []

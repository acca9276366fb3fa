"""Builds and starting pods at the sandbox port: sources and results by digest, and the index that builds use. Layer: gateway, boundary.

call             | who                      | may
-----------------|--------------------------|-----------------------------------------------------
GET  index       | a build, a sandbox       | learn the platform's package index (no secret; what may be reached is the proxy's to say)
GET  source      | a build                  | read the one bundle its token names
PUT  built/X     | a build                  | store what it made for its own agent, under its digest
GET  built/X     | a sandbox                | read what a build made for its own agent

Files go through a folder of this process: a read is shared by all who ask for the same one meanwhile. A file has its room before it is
made: what finds none is told to try again (503). Silence, and a whole transfer, have deadlines, so that no slow peer keeps room for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage_api import built
from moorage_gateway.boundary.pod_tokens import NotProven
from moorage_gateway.boundary.proofs import Proofs
from moorage_gateway.bundles import built_key, bundle_key
from moorage_gateway.package_index import IndexRefused, PackageIndex
from moorage_gateway.store import Store, StoreError

PREFIX = "/sandbox/v1/"
LEAST = 16 * 2**20  # bytes of room that any file takes: bounds their number too
SILENCE_SECONDS = 30.0  # for the peer to send or to take the next piece
TRANSFER_SECONDS = 600.0
CHUNK = 256 * 1024
MAX_CA = 4 * 2**20

_BUILT = re.compile(r"/sandbox/v1/built/([0-9a-f]{64})\Z")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _No(Exception):
    """Ends a call with this status and this sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass
class _Reading:
    """A file that is being read, and by how many."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    readers: int = 0
    room: int = 0
    folder: tempfile.TemporaryDirectory[str] | None = None
    file: Path | None = None
    looked: bool = False


class _Answer:
    """The way back, with a deadline on each piece. `begun`: no other answer can follow."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        self.begun = True
        async with asyncio.timeout(SILENCE_SECONDS):
            await self._send(message)


class BuildPort:
    """ASGI app of these calls. `index` raises IndexRefused; None where this gateway offers none. `room`: bytes of files held at a time."""

    def __init__(
        self, store: Store, proofs: Proofs, index: Callable[[], Awaitable[PackageIndex]] | None, *, room: int
    ) -> None:
        self._store = store
        self._proofs = proofs
        self._index = index
        self._whole = self._room = room
        self._uploading: set[tuple[str, str]] = set()  # tenant and Job of builds
        self._reading: dict[str, _Reading] = {}

    def serves(self, path: str) -> bool:
        """Whether a path is one of these calls."""
        return path in (f"{PREFIX}index", f"{PREFIX}source") or _BUILT.match(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send, shown: tuple[str | None, str | None]) -> None:
        """One call; `shown` are the caller's two tokens. Raises what ends it once an answer has begun: the connection is closed then."""
        answer = _Answer(send)
        try:
            async with asyncio.timeout(TRANSFER_SECONDS):
                await self._answered(scope, receive, answer, shown)
        except (NotProven, _No, StoreError, OSError) as fault:  # TimeoutError is an OSError
            if answer.begun:
                raise
            status, why = _said(fault)
            await _json(answer, status, {"error": why})

    async def _answered(self, scope: Scope, receive: Receive, send: Send, shown: tuple[str | None, str | None]) -> None:
        method, path = scope["method"], scope["path"]
        found = _BUILT.match(path)
        if method == "PUT" and found is not None:
            await self._keep(shown, found.group(1), scope, receive)
            await _json(send, 201, {})
        elif method != "GET":
            raise _No(405, "not a call of the sandbox port")
        elif found is not None:
            who = self._proofs.identify(*shown)
            await self._give(send, built_key(who.tenant, who.agent, found.group(1)), "this agent has no such build")
        elif path == f"{PREFIX}source":
            build = self._proofs.identify_build(*shown)
            if not build.source:
                raise _No(404, "this build is of no uploaded bundle")
            why = "spec.source.bundle was never uploaded; run `moorage up` again"
            await self._give(send, bundle_key(build.tenant, build.source), why)
        else:
            self._proofs.identify_either(*shown)
            await _json(send, 200, await self._told())

    async def _told(self) -> dict[str, Any]:
        if self._index is None:
            raise _No(409, "this platform offers no package index to builds")
        try:
            found = await self._index()
            authorities = await asyncio.to_thread(_text, found.ca_file) if found.ca_file is not None else None
        except IndexRefused as why:
            raise _No(409, str(why)) from None
        return {"env": _plain(found.env), "ca": authorities}

    async def _keep(self, shown: tuple[str | None, str | None], digest: str, scope: Scope, receive: Receive) -> None:
        build = self._proofs.identify_build(*shown)
        length = _length(scope["headers"])
        if length is None or length > built.PACKED:
            raise _No(413, f"a built bundle says its length, and has at most {built.PACKED} bytes")
        key, who = built_key(build.tenant, build.agent, digest), (build.tenant, build.job)
        if who in self._uploading:
            raise _No(429, "this build uploads already; one at a time")
        room = self._take(length)
        self._uploading.add(who)
        try:
            with tempfile.TemporaryDirectory(prefix="built-") as folder:
                archive = Path(folder) / "built.tar.gz"
                if await _received(receive, archive, length) != digest:
                    raise _No(422, "the bundle is not the one its digest names")
                await self._store.put_file(key, archive)
        finally:
            self._uploading.discard(who)
            self._room += room

    def _take(self, size: int) -> int:
        """Takes room for a file of so many bytes, to be given back; how much. Raises _No."""
        room = max(size, LEAST)
        if room > self._whole:
            raise _No(413, f"{size} bytes are more than this gateway ever has room for; make MOORAGE_SCRATCH larger")
        if room > self._room:
            raise _No(503, "try again: there is no room for another bundle now")
        self._room -= room
        return room

    async def _give(self, send: Send, key: str, missing: str) -> None:
        async with self._held(key) as file:
            if file is None:
                raise _No(404, missing)
            size = (await asyncio.to_thread(file.stat)).st_size
            head = [(b"content-type", b"application/gzip"), (b"content-length", b"%d" % size)]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            with await asyncio.to_thread(file.open, "rb") as stream:
                while chunk := await asyncio.to_thread(stream.read, CHUNK):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    @contextlib.asynccontextmanager
    async def _held(self, key: str) -> AsyncIterator[Path | None]:
        """An object as a file for as long as somebody reads it; None when there is none."""
        one = self._reading.setdefault(key, _Reading())
        one.readers += 1
        try:
            async with one.lock:
                if not one.looked:
                    await self._read(key, one)
            yield one.file
        finally:
            one.readers -= 1
            if not one.readers:
                del self._reading[key]
                try:
                    if one.folder is not None:
                        await asyncio.to_thread(one.folder.cleanup)
                finally:
                    self._room += one.room

    async def _read(self, key: str, one: _Reading) -> None:
        size = await self._store.size(key)
        if size is not None:
            one.room = one.room or self._take(size)
            one.folder = one.folder or tempfile.TemporaryDirectory(prefix="given-")
            path = Path(one.folder.name) / "object"
            if await self._store.get_file(key, path):
                one.file = path
        one.looked = True


def _said(fault: Exception) -> tuple[int, str]:
    """Status and sentence of what ended a call."""
    if isinstance(fault, NotProven):
        return 401, str(fault)
    if isinstance(fault, _No):
        return fault.status, fault.why
    return 503, f"try again: {fault or 'not in time'}"


async def _received(receive: Receive, archive: Path, length: int) -> str:
    """Writes the body; its sha256 in hex. Raises _No when it is not as long as it said."""
    digest, size = hashlib.sha256(), 0
    with await asyncio.to_thread(archive.open, "wb") as file:
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await receive()
            if message["type"] != "http.request":
                raise _No(400, "the body broke off")
            part = message.get("body", b"")
            size += len(part)
            if size > length:
                raise _No(400, "the body is longer than it said")
            digest.update(part)
            await asyncio.to_thread(file.write, part)
            if not message.get("more_body"):
                break
    if size != length:
        raise _No(400, "the body is shorter than it said")
    return digest.hexdigest()


def _length(found: Sequence[tuple[bytes, bytes]]) -> int | None:
    values = [value for name, value in found if name == b"content-length"]
    return int(values[0]) if len(values) == 1 and values[0].isdigit() and len(values[0]) < 16 else None


def _plain(env: Mapping[str, str]) -> dict[str, str]:
    """The index's variables without those that name a file of ours."""
    return {name: text for name, text in env.items() if name.startswith(("UV_", "PIP_")) and name != "PIP_CERT"}


def _text(file: Path) -> str:
    text = file.read_text(encoding="utf-8", errors="replace")
    if len(text) > MAX_CA:
        raise IndexRefused(f"the authorities in {file.name} are more than {MAX_CA} bytes")
    return text


async def _json(send: Send, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})

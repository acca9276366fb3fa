"""A machine without processes: sandboxes are objects that speak the least of the shim's interface on a unix socket.

Layer: local; a second, real implementation of `moorage_api.provider.base.Machine`, for tests of what stands above sandboxes. It
passes the same conformance suite as the one with processes. Limits: nothing is isolated, an agent only repeats its input, a volume
is a dict, `relay` answers 404, and a "kill" is a method call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage_api import names
from moorage_api.ledger.records import Descriptor, SessionIdentity
from moorage_api.provider.base import Death, MakeFailed, OutOfReach, Revision
from moorage_api.wire import headers, shim

_BODY_LIMIT = 8 * 2**20
_FIRST_PID = 1_000_000_000  # no real process can have it

VolumeKey = tuple[str, str, str]


@dataclass
class MemoryVolume:
    """A session's files and what the shim noted on them."""

    files: dict[str, bytes] = field(default_factory=dict)
    bound: tuple[str, int] | None = None
    label: SessionIdentity | None = None
    held: bool = False


class MemoryMachine:
    """Makes sandboxes below `sockets`. `broken` names agents whose sandboxes never get ready."""

    outlives = False

    def __init__(self, sockets: Path) -> None:
        self.broken: set[str] = set()
        self.full: set[str] = set()
        self.made = 0
        self._sockets = sockets
        self._volumes: dict[VolumeKey, MemoryVolume] = {}
        self._sandboxes: dict[str, _Sandbox] = {}
        self._dead: dict[str, Death] = {}
        self._prepared: set[str] = set()
        self._wake: Callable[[], None] = lambda: None

    def watch(self, wake: Callable[[], None]) -> None:
        """See Machine."""
        self._wake = wake

    async def leftovers(self) -> list[str]:
        """Nothing of it outlives its process."""
        return []

    async def adopted(self) -> list[tuple[Revision, Descriptor]]:
        """None: they end with this process."""
        return []

    def strays(self) -> list[str]:
        """None: what is there, this process made."""
        return []

    def origin(self, tenant: str, agent: str, volume: str) -> tuple[str, str] | None:
        """None: a volume bears the mark of its own shim."""
        return None

    async def prepare(self, revision: Revision) -> None:
        """See Machine."""
        if revision.agent in self.broken:
            raise MakeFailed("it never calls serve()", ["Traceback (most recent call last):", "ImportError: parrot"])
        self._prepared.add(revision.key)

    async def make(self, revision: Revision, sandbox: str, volume: str) -> Descriptor:
        """See Machine."""
        key = (revision.tenant, revision.agent, volume)
        if revision.key not in self._prepared:
            raise MakeFailed("its revision is not prepared", fault=False)
        found = self._volumes.get(key)
        if found is None or found.held:
            raise MakeFailed(f"the volume {volume} is missing or held", fault=False)
        self.made += 1
        one = _Sandbox(self._descriptor(revision, sandbox, volume), found)
        found.held = True
        await one.start()
        self._sandboxes[sandbox] = one
        return one.descriptor

    async def destroy(self, sandbox: str, reason: str) -> None:
        """See Machine."""
        one = self._sandboxes.pop(sandbox, None)
        if one is not None:
            await one.stop()

    async def release(self, revision: str) -> None:
        """See Machine."""
        self._prepared.discard(revision)

    def dead(self) -> list[Death]:
        """See Machine."""
        return list(self._dead.values())

    def forget(self, sandbox: str) -> None:
        """See Machine."""
        self._dead.pop(sandbox, None)

    def create_volume(self, revision: Revision) -> str:
        """See Machine."""
        volume = f"v-{secrets.token_hex(8)}"
        self._volumes[revision.tenant, revision.agent, volume] = MemoryVolume()
        return volume

    def has_volume(self, tenant: str, agent: str, volume: str) -> bool:
        """See Machine."""
        return (tenant, agent, volume) in self._volumes

    def bound(self, tenant: str, agent: str, volume: str) -> tuple[str, int] | None:
        """See Machine."""
        found = self._volumes.get((tenant, agent, volume))
        return found.bound if found is not None else None

    async def remove_volume(self, tenant: str, agent: str, volume: str) -> None:
        """See Machine."""
        self._volumes.pop((tenant, agent, volume), None)

    def volumes(self) -> list[VolumeKey]:
        """See Machine."""
        return sorted(self._volumes)

    def label(self, tenant: str, agent: str, volume: str) -> SessionIdentity | None:
        """See Machine."""
        found = self._volumes.get((tenant, agent, volume))
        return found.label if found is not None else None

    async def set_label(self, one: Descriptor, epoch: int, identity: SessionIdentity) -> None:
        """See Machine."""
        self._volumes[one.tenant, one.agent, one.volume].label = identity

    async def unfit(self) -> list[tuple[str, str]]:
        """Those named in `full`."""
        return [(sandbox, "disk quota: 2Gi of 1Gi used") for sandbox in self.full if sandbox in self._sandboxes]

    async def out_of_reach(self) -> list[OutOfReach]:
        """See Machine: memory is always there."""
        return []

    abandon = remove_volume

    async def close(self) -> None:
        """See Machine."""
        for sandbox in list(self._sandboxes):
            await self.destroy(sandbox, "closing")

    # For tests

    async def kill(self, sandbox: str) -> None:
        """The sandbox dies by itself."""
        await self.destroy(sandbox, "killed")
        self._dead[sandbox] = Death(sandbox, "killed by signal 9")
        self._wake()

    async def write(self, one: Descriptor, name: str, data: bytes) -> None:
        """As if its agent wrote a file."""
        self._volumes[one.tenant, one.agent, one.volume].files[name] = data

    async def read(self, one: Descriptor, name: str) -> bytes | None:
        """As if its agent read a file."""
        return self._volumes[one.tenant, one.agent, one.volume].files.get(name)

    def _descriptor(self, revision: Revision, sandbox: str, volume: str) -> Descriptor:
        return Descriptor(
            sandbox=sandbox,
            tenant=revision.tenant,
            agent=revision.agent,
            revision=revision.revision,
            endpoint=f"unix:{self._sockets / sandbox}",
            secret=names.new_secret(),
            volume=volume,
            pids=(_FIRST_PID + self.made,),
        )


class _Refused(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


class _Sandbox:
    """One fake: `bind`, `start`, `stop`, `drain`, `status`; one request a connection."""

    def __init__(self, descriptor: Descriptor, volume: MemoryVolume) -> None:
        self.descriptor = descriptor
        self._volume = volume
        self._draining = False
        self._turn: str | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        path = self.descriptor.endpoint.removeprefix("unix:")
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def stop(self) -> None:
        self._volume.held = False
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.descriptor.endpoint.removeprefix("unix:"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(30):
                    await self._one(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        length = min(int(fields.get("content-length", "0")), _BODY_LIMIT)
        body = json.loads(await reader.readexactly(length) or b"{}")
        try:
            if fields.get(headers.SECRET) != self.descriptor.secret:
                raise _Refused(401, "unauthorized")
            kind, data = self._answer(head[0].split(" ")[1], body)
        except _Refused as refusal:
            _write(writer, refusal.status, "application/json", json.dumps({"error": refusal.error}).encode())
        else:
            _write(writer, 200, kind, data)
        await writer.drain()

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[str, bytes]:
        match path:
            case "/shim/bind":
                return _json(self._bind(shim.Bind.model_validate(body)))
            case "/shim/start":
                return shim.FRAMES, self._start(shim.Start.model_validate(body))
            case "/shim/stop":
                self._turn = None
                return _json({"stopped": True})
            case "/shim/drain":
                self._check(body["session"], body["epoch"])
                self._draining = True
                return _json({"status": "draining"})
            case "/shim/status":
                bound = self._volume.bound or (None, 0)
                state = "bound" if self._volume.bound else "unbound"
                found = {"sandbox": self.descriptor.sandbox, "session": bound[0], "epoch": bound[1], "state": state}
                return _json({**found, "pids": list(self.descriptor.pids), "turn": self._turn, "log_tail": []})
            case _:
                raise _Refused(404, "unknown")

    def _bind(self, call: shim.Bind) -> dict[str, Any]:
        bound = self._volume.bound
        if bound is not None and bound[0] != call.session:
            raise _Refused(409, "other_session")
        if bound is not None and call.epoch < bound[1]:
            raise _Refused(409, "stale_epoch")
        self._volume.bound = (call.session, call.epoch)
        return {"bound": True, "epoch": call.epoch}

    def _start(self, call: shim.Start) -> bytes:
        self._check(call.session, call.epoch)
        if self._draining:
            raise _Refused(409, "draining")
        text = json.dumps(call.body.get("input", ""))
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
        events = [
            {"type": "response.created", "response": {"status": "in_progress", "output": []}},
            {"type": "response.completed", "response": {"status": "completed", "output": [message]}},
        ]
        lines = [f"ok {json.dumps({'begun': call.fence})}"]
        lines += [
            f"{number} {json.dumps(event, separators=(',', ':'))}" for number, event in enumerate(events, start=1)
        ]
        lines.append(f"end {json.dumps({'kind': 'done', 'detail': '', 'log_tail': []})}")
        return "".join(f"{line}\n" for line in lines).encode()

    def _check(self, session: str, epoch: int) -> None:
        if self._volume.bound is None:
            raise _Refused(409, "unbound")
        if self._volume.bound[0] != session:
            raise _Refused(409, "other_session")
        if self._volume.bound[1] != epoch:
            raise _Refused(409, "stale_epoch")


def _json(data: dict[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(data).encode()


def _write(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes) -> None:
    writer.write(
        f"HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
        + body
    )

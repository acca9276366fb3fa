"""Bundles on their way through a gateway: room before a file is made; slow peers hold nothing for ever. The callers are played."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moorage_gateway.boundary import builds
from moorage_gateway.boundary.builds import LEAST, BuildPort
from moorage_gateway.bundles import built_key
from moorage_gateway.store import MemoryStore

pytestmark = pytest.mark.unit

DATA = b"bundle" * 100_000
DIGEST = hashlib.sha256(DATA).hexdigest()
Message = MutableMapping[str, Any]


class Proofs:
    """Believes: the first token names the job of a build, or is a sandbox's."""

    def identify(self, token: str | None, pod: str | None) -> Any:
        return SimpleNamespace(tenant="t", agent="a")

    def identify_build(self, token: str | None, pod: str | None) -> Any:
        return SimpleNamespace(tenant="t", agent="a", job=token, source="")


class Peer:
    """One call. `stalls`: takes, or sends, one piece and then nothing."""

    def __init__(self, port: BuildPort, method: str, *, job: str = "one", stalls: bool = False) -> None:
        self.pieces: list[Message] = []
        self.stalled = asyncio.Event()
        self._stalls = stalls
        self._sent = False
        heads = [(b"content-length", b"%d" % len(DATA))]
        scope = {"method": method, "path": f"/sandbox/v1/built/{DIGEST}", "headers": heads}
        self.call = asyncio.ensure_future(port(scope, self._receive, self._send, (job, None)))

    @property
    def status(self) -> int:
        return int(self.pieces[0]["status"])

    async def _receive(self) -> Message:
        if self._stalls and self._sent:
            await self._stall()
        self._sent = True
        body = DATA[:100] if self._stalls else DATA
        return {"type": "http.request", "body": body, "more_body": self._stalls}

    async def _send(self, message: Message) -> None:
        if self._stalls and len(self.pieces) == 1 and self.status == 200 and not self.stalled.is_set():
            await self._stall()
        self.pieces.append(message)

    async def _stall(self) -> None:
        self.stalled.set()
        await asyncio.Event().wait()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path


def port(store: MemoryStore, files: int = 1) -> BuildPort:
    return BuildPort(store, Proofs(), None, room=files * LEAST)  # type: ignore[arg-type]


async def done(peer: Peer) -> int:
    async with asyncio.timeout(30):
        await peer.call
    return peer.status


async def test_a_bundle_without_room_is_told_to_come_again_and_comes_through_then(
    store: MemoryStore, folder: Path
) -> None:
    one = port(store)
    slow = Peer(one, "PUT", stalls=True)
    await slow.stalled.wait()
    assert await done(Peer(one, "PUT", job="two")) == 503
    assert len(list(folder.iterdir())) == 1, "no file was made for it"
    slow.call.cancel()
    await asyncio.gather(slow.call, return_exceptions=True)
    assert await done(Peer(one, "PUT", job="two")) == 201 and await store.get(built_key("t", "a", DIGEST)) == DATA
    assert await done(Peer(one, "GET")) == 200 and not list(folder.iterdir())


async def test_a_build_uploads_once_at_a_time(store: MemoryStore) -> None:
    one = port(store, files=4)
    slow = Peer(one, "PUT", stalls=True)
    await slow.stalled.wait()
    assert await done(Peer(one, "PUT")) == 429
    assert await done(Peer(one, "PUT", job="two")) == 201
    slow.call.cancel()
    await asyncio.gather(slow.call, return_exceptions=True)
    assert await done(Peer(one, "PUT")) == 201


async def test_a_peer_that_falls_silent_gives_its_room_back(
    store: MemoryStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "SILENCE_SECONDS", 0.05)
    one = port(store)
    assert await done(Peer(one, "PUT", stalls=True)) == 503
    assert await done(Peer(one, "PUT")) == 201
    reader = Peer(one, "GET", stalls=True)
    ended, _ = await asyncio.wait([reader.call], timeout=30)
    assert ended and isinstance(reader.call.exception(), TimeoutError)
    assert [piece["type"] for piece in reader.pieces] == ["http.response.start"], "no second answer after the first"
    assert await done(Peer(one, "GET")) == 200 and not list(folder.iterdir())


async def test_a_transfer_that_never_ends_is_ended(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "TRANSFER_SECONDS", 0.05)
    one = port(store)
    assert await done(Peer(one, "PUT", stalls=True)) == 503
    monkeypatch.undo()
    assert await done(Peer(one, "PUT")) == 201


async def test_a_disk_that_is_full_is_no_bug_and_costs_no_room(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = port(store)
    await store.put(built_key("t", "a", DIGEST), DATA)

    def full(*given: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", full)
        assert [await done(Peer(one, method)) for method in ("PUT", "GET", "GET", "PUT")] == [503] * 4
    assert [await done(Peer(one, method)) for method in ("PUT", "GET")] == [201, 200]


async def test_what_no_gateway_of_this_size_ever_holds_is_said_with_the_setting(store: MemoryStore) -> None:
    await store.put(built_key("t", "a", DIGEST), DATA)
    small = BuildPort(store, Proofs(), None, room=LEAST - 1)  # type: ignore[arg-type]
    for method in ("PUT", "GET"):
        peer = Peer(small, method)
        assert await done(peer) == 413 and b"MOORAGE_SCRATCH" in peer.pieces[1]["body"]


async def test_readers_of_one_bundle_share_its_room(store: MemoryStore) -> None:
    await store.put(built_key("t", "a", DIGEST), DATA)
    one = port(store)
    peers = [Peer(one, "GET") for _ in range(10)]
    assert [await done(peer) for peer in peers] == [200] * 10
    assert all(b"".join(piece["body"] for piece in peer.pieces[1:]) == DATA for peer in peers)

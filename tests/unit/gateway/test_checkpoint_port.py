"""Places of the checkpoint calls: few in all, one a sandbox, held until the answer is taken, and by nobody for ever."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from moorage_api.tokens import Identity
from moorage_api.wire import checkpoints as wire
from moorage_gateway.boundary import checkpoint_port
from moorage_gateway.boundary.checkpoint_port import Answered, CheckpointPort

pytestmark = pytest.mark.unit

PACK = f"{wire.PATH}/packs/{'0' * 64}"


def who(number: int) -> Identity:
    return Identity(f"sb-{number}", "acme", "a", "r1", "v")


class Store:
    """Every pack is there; `put` counts."""

    def __init__(self) -> None:
        self.stored = 0

    async def blob(self, *where: str) -> bytes:
        return b"pack"

    async def put_blob(self, *where: Any) -> None:
        self.stored += 1


def made(store: Store) -> CheckpointPort:
    async def read(*command: Any) -> str:
        return str(command[1])

    async def session(key: str) -> Any:
        return SimpleNamespace(
            sandbox=key.removeprefix("x:"), state="claimed", tenant="acme", agent="a", partition="p", key=key
        )

    return CheckpointPort(store, SimpleNamespace(session=session), SimpleNamespace(read=read))  # type: ignore[arg-type]


class Peers:
    """What the peers were told; none takes its answer before `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked: list[int] = []
        self.told: list[int] = []

    async def say(self, answer: Answered) -> None:
        self.asked.append(answer.status)
        await self.go.wait()
        self.told.append(answer.status)


async def nothing(most: int) -> bytes | None:
    return b""


async def test_no_more_answers_are_held_than_there_are_places() -> None:
    port, peers = made(Store()), Peers()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(port.serve(who(number), "GET", PACK, nothing, peers.say))
        while len(peers.asked) < 4:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(peers.asked) == 4
        peers.go.set()
    assert peers.told == [200] * 12


async def test_nobody_waits_for_a_place_longer_than_a_shim_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_port, "_PLACE_S", 0.01)
    port, peers, late = made(Store()), Peers(), Peers()
    late.go.set()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(port.serve(who(number), "GET", PACK, nothing, peers.say))
        while len(peers.asked) < 4:
            await asyncio.sleep(0)
        await port.serve(who(9), "GET", PACK, nothing, late.say)
        assert late.told == [503]
        peers.go.set()
    await port.serve(who(9), "GET", PACK, nothing, late.say)
    assert late.told == [503, 200]


async def test_one_sandbox_has_one_place_and_gets_it_back() -> None:
    port, peers = made(Store()), Peers()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(port.serve(who(1), "GET", PACK, nothing, peers.say))
        while not peers.asked:
            await asyncio.sleep(0)
        second = Peers()
        second.go.set()
        await port.serve(who(1), "GET", PACK, nothing, second.say)
        assert second.told == [503]
        await port.serve(who(2), "GET", PACK, nothing, second.say)
        peers.go.set()
    await port.serve(who(1), "GET", PACK, nothing, second.say)
    assert second.told == [503, 200, 200]


async def test_who_sends_nothing_or_takes_nothing_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_port, "_PEER_S", 0.01)
    store, quick = Store(), Peers()
    port = made(store)
    quick.go.set()

    async def never(most: int) -> bytes | None:
        await asyncio.Event().wait()
        return None

    async with asyncio.timeout(10):
        await port.serve(who(1), "PUT", PACK, never, quick.say)
        assert quick.told == [408] and store.stored == 0
        with pytest.raises(TimeoutError):
            await port.serve(who(1), "GET", PACK, nothing, Peers().say)
        await port.serve(who(1), "GET", PACK, nothing, quick.say)
    assert quick.told == [408, 200]

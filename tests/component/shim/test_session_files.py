"""A whole shim and a session's files: nothing of the agent lives while they change, and what was cut off is ended before it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes.checkpoint_gateway import CheckpointGateway, gateway
from fakes.shim_world import DONE, SESSION, World, until
from moorage_sandbox import agent, keeping
from moorage_sandbox.checkpoint import swapping

__all__ = ["gateway"]

pytestmark = pytest.mark.component

WITHIN = 30.0


@pytest.fixture
async def world(gateway: CheckpointGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(
        agent, "STABLE_SECONDS", 0.0
    )  # a process that ends is replaced at once, as one that lived long is
    for name in ("workspace", "home"):
        (tmp_path / "volume" / name).mkdir(parents=True)
    async with World(tmp_path, gateways=(gateway.url,)) as made:
        yield made


def place(world: World) -> Path:
    return Path(world.config.volume) / "workspace"


async def saved(world: World, why: str = "asked") -> str:
    status, answer = await world.call("checkpoint", session=SESSION, epoch=1, why=why, deadline=WITHIN)
    assert status == 200, answer
    return str(answer["id"])


class Held:
    """Holds the gateway's answer to the first pack, and says when it was asked for."""

    def __init__(self, gateway: CheckpointGateway) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()

        async def hold(call: int, method: str, path: str) -> None:
            if method == "GET" and "/packs/" in path:
                self.asked.set()
                await self.go.wait()

        gateway.fault = hold


async def test_no_process_lives_while_files_are_replaced_and_what_wants_one_waits(
    world: World, gateway: CheckpointGateway
) -> None:
    await world.bind()
    (place(world) / "a").write_text("then")
    name = await saved(world)
    (place(world) / "a").write_text("now")
    before = world.init.process
    assert before is not None and world.init.alive()
    held = Held(gateway)
    restoring = asyncio.ensure_future(world.call("restore", session=SESSION, epoch=1, checkpoint=name, deadline=WITHIN))
    async with asyncio.timeout(WITHIN):
        await held.asked.wait()
    spawned = world.init.calls.count("spawn")
    starting = asyncio.ensure_future(world.start([["event", DONE]]))
    relaying = asyncio.ensure_future(world.relay("GET", "/headers"))
    status = await world.request("GET", "/shim/status", {})  # it has looked at the two requests by now
    assert status.status == 200
    assert world.init.alive() == [] and world.init.calls.count("spawn") == spawned
    held.go.set()
    async with asyncio.timeout(WITHIN):
        assert (await restoring)[0] == 200
        stream = await starting
        assert await stream.acknowledged() == 10
        await stream.rest()
        assert (await relaying).status == 200
    assert (place(world) / "a").read_text() == "then"
    assert world.init.process is not None and world.init.process.pid != before.pid


async def test_the_last_checkpoint_is_made_when_nothing_can_write_any_more(
    world: World, gateway: CheckpointGateway
) -> None:
    await world.bind()
    assert (await world.call("checkpoint", session=SESSION, epoch=1, why="hibernate", deadline=WITHIN))[0] == 409
    assert world.init.alive()
    drained = await world.call("drain", session=SESSION, epoch=1, idle_before=2**53)
    assert drained[0] == 200
    alive: list[list[int]] = []

    def look(call: int, method: str, path: str) -> None:
        alive.append(world.init.alive())

    gateway.fault = look
    await saved(world, "hibernate")
    assert alive and not any(alive)
    assert gateway.made[-1].quiet
    assert world.init.alive() == []


@pytest.mark.parametrize("phase", ["_next", "_move_all", "_set", "_synced"])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_an_exchange_that_is_killed_at_any_step_is_ended_before_the_agent_runs(
    world: World, gateway: CheckpointGateway, monkeypatch: pytest.MonkeyPatch, phase: str, at: int
) -> None:
    await world.bind()
    for name in ("a", "b"):
        (place(world) / name).write_text("then")
    name = await saved(world)
    for path in place(world).iterdir():
        path.write_text("now")
    (place(world) / "c").write_text("now")
    real, calls = getattr(swapping, phase), []

    def dies(*about: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            swapping.os._exit(9)
        return real(*about, **more)

    unpatched = keeping._finish

    def whole(volume: Path) -> dict[str, Any]:  # in the child that ends it nobody dies
        setattr(swapping, phase, real)
        return unpatched(volume)

    monkeypatch.setattr(swapping, phase, dies)
    monkeypatch.setattr(keeping, "_finish", whole)
    status, _ = await world.call("restore", session=SESSION, epoch=1, checkpoint=name, deadline=WITHIN)
    found = {path.name: path.read_text() for path in place(world).iterdir()}
    old, new = {"a": "now", "b": "now", "c": "now"}, {"a": "then", "b": "then"}
    assert found in ((new,) if status == 200 else (old, new)), (status, found)
    assert not (Path(world.config.volume) / swapping.PLACE).exists()
    stream = await world.start([["event", DONE]])  # it goes on
    await stream.acknowledged()
    await stream.rest()


async def test_a_sandbox_whose_files_cannot_be_put_in_order_ends(
    world: World, gateway: CheckpointGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.bind()
    (place(world) / "a").write_text("then")
    name = await saved(world)

    def broken(volume: Path) -> dict[str, Any]:
        raise OSError("the disk is gone")

    monkeypatch.setattr(keeping, "_finish", broken)
    gateway.blobs = dict.fromkeys(gateway.blobs, b"damaged")
    status, _ = await world.call("restore", session=SESSION, epoch=1, checkpoint=name, deadline=WITHIN)
    assert status == 503
    await until(lambda: any(each["op"] == "over" for each in world.status()))


async def test_a_turn_of_an_agent_that_goes_back_begins_though_the_store_is_away(
    world: World, gateway: CheckpointGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PATIENCE_SECONDS", 0.1)
    await world.bind()
    gateway.fault = lambda call, method, path: 503
    stream = await world.start([["event", DONE]], workspace="restore")
    assert await stream.acknowledged() == 10
    await stream.rest()


async def test_an_ending_shim_gives_up_what_it_brings(world: World, gateway: CheckpointGateway) -> None:
    held = Held(gateway)
    await world.bind()
    (place(world) / "a").write_text("then")
    name = await saved(world)
    restoring = asyncio.ensure_future(world.call("restore", session=SESSION, epoch=1, checkpoint=name, deadline=WITHIN))
    async with asyncio.timeout(WITHIN):
        await held.asked.wait()
    assert world.task is not None
    world.gateway.epoch = 0
    for line in world.status():
        assert line["op"] != "over"
    world.init.ours.close()  # init is gone, so the sandbox is over
    async with asyncio.timeout(WITHIN):
        await asyncio.wait({world.task})
    held.go.set()
    restoring.cancel()
    await asyncio.gather(restoring, return_exceptions=True)
    assert json.loads(json.dumps(world.status()))[-1]["op"] == "over"
    assert (place(world) / "a").read_text() == "then"

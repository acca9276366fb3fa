"""The in-memory machine keeps what every provider promises."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from component.provider import worlds
from component.provider.conformance import *  # noqa: F403
from component.provider.conformance import AGENT, World, pool_of
from moorage_api import names
from moorage_api.ledger.records import Descriptor
from moorage_api.provider.base import Revision
from moorage_local import state
from moorage_local.memory_provider import MemoryMachine

pytestmark = pytest.mark.component


class MemoryHands:
    def __init__(self, machine: MemoryMachine) -> None:
        self.machine = machine

    async def kill(self, one: Descriptor) -> None:
        await self.machine.kill(one.sandbox)

    async def write(self, one: Descriptor, name: str, data: bytes) -> None:
        await self.machine.write(one, name, data)

    async def read(self, one: Descriptor, name: str) -> bytes | None:
        return await self.machine.read(one, name)

    async def call(self, one: Descriptor, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return await worlds.call(one, path, body)

    def alive(self, one: Descriptor) -> bool:
        return one.sandbox in self.machine._sandboxes

    def fill(self, one: Descriptor) -> None:
        self.machine.full.add(one.sandbox)

    def break_agent(self, agent: str) -> None:
        self.machine.broken.add(agent)


def revision(agent: str, mode: str, broken: bool) -> Revision:
    name = names.revision(json.dumps([agent, mode]).encode())
    return Revision("dev", agent, name, worlds.spec(agent, mode), "moorage")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with state.hold(tmp_path / "state") as held:
        machine = MemoryMachine(held.sockets)
        async with worlds.world_of(held, machine, MemoryHands(machine), revision) as one:
            yield one
        assert not machine._sandboxes


async def test_whoever_shows_conditions_is_told_when_they_changed_and_not_at_every_look(world: World) -> None:
    told: list[tuple[str, str]] = []
    await pool_of(world, 2)
    await world.provider._step()
    world.provider.changed = lambda tenant, agent: told.append((tenant, agent))
    for _ in range(3):
        world.provider.wake()  # else it looks at what is new alone
        await world.provider._step()
    assert told == []
    await world.deploy(mode="broken", broken=True)
    assert await world.provider.settled("dev", AGENT, revision=None, within=20) is not None
    assert ("dev", AGENT) in told

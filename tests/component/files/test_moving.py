"""A session whose volume is out of reach, before a real gateway: it moves to a checkpoint, or waits; its former sandbox is refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from component.files.conftest import WITHIN, Port, identity
from moorage_api.ledger.records import Descriptor, SessionRecord
from moorage_api.wire import checkpoints as wire

pytestmark = pytest.mark.component

ANN = identity("acme", "ann")
WHY = "its node is not heard of"


async def until(look: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(WITHIN):
        while not await look():
            await asyncio.sleep(0.05)


async def now(port: Port, key: str) -> SessionRecord:
    found = await port.sessions.session(key)
    assert found is not None
    return found


async def lost(port: Port, key: str) -> None:
    """A gateway has no answer, and its provider gives up the sandbox that it has."""
    await port.sessions.doom("sb-1", "no answer")
    assert await port.provider.out_of_reach("sb-1", "", "v-sb-1", WHY) == "OK"


def damage(store: Path, digest: str) -> None:
    """The object of that name says something else."""
    found = [Path(folder) / name for folder, _, names in os.walk(store) for name in names if digest in name]
    assert found
    for each in found:
        each.write_bytes(b"something else")


async def test_it_begins_from_its_newest_checkpoint_and_its_former_sandbox_is_refused_at_once(port: Port) -> None:
    key = await port.session("sb-1", ANN)
    assert (await port.offer(key, "sb-1", "acme")).status_code == 200
    assert await port.announce(key, "sb-1", ANN)
    before = await now(port, key)
    await lost(port, key)

    async def moved() -> bool:
        return (await now(port, key)).state == "archived"

    await until(moved)
    after = await now(port, key)
    assert after.restore and after.volume == "" and after.epoch > before.epoch
    assert not await port.announce(key, "sb-1", ANN)
    for method, path in (("GET", "/before:x"), ("PUT", f"/packs/{wire.digest(b'x')}"), ("POST", "")):
        answer = await port.call(method, path, "sb-1", "acme", content=b"x" if method != "GET" else None)
        assert answer.status_code == 403, (method, answer.text)

    await port.provider.offer(Descriptor("sb-2", "acme", "a", "r1", "unix:/none", "s", "v-sb-2"))
    claim = await port.sessions.claim(key, "r1", named=True)
    assert claim.sandbox == "sb-2" and claim.restore
    await port.sessions.bound(key, claim.epoch)
    assert not await port.announce(key, "sb-1", ANN)
    assert (await now(port, key)).sandbox == "sb-2"


@pytest.mark.parametrize("checkpoint", ["none", "damaged"])
async def test_without_a_checkpoint_that_can_be_read_it_waits_and_callers_are_told(
    port: Port, tmp_path: Path, checkpoint: str
) -> None:
    key = await port.session("sb-1", ANN)
    if checkpoint == "damaged":
        made = (await port.offer(key, "sb-1", "acme")).json()
        damage(tmp_path / "store", made["packs"][0]["name"])
    await lost(port, key)

    async def told() -> bool:
        return bool((await port.sessions.claim(key, "r1", named=True)).reason)

    await until(told)
    claim = await port.sessions.claim(key, "r1", named=True)
    assert WHY in claim.reason and "no checkpoint" in claim.reason and "delete the session" in claim.reason
    assert (claim.word, claim.sandbox, claim.volume) == ("ROUTE", "sb-1", "v-sb-1")
    assert (await port.provider.asked()).left == {}
    assert await port.announce(key, "sb-1", ANN)  # nobody else has its files


async def test_one_that_was_never_bound_has_nothing_to_lose(port: Port) -> None:
    key = await port.session("sb-1", ANN, bound=False)
    await lost(port, key)

    async def moved() -> bool:
        return (await now(port, key)).state == "new"

    await until(moved)
    assert not (await now(port, key)).restore

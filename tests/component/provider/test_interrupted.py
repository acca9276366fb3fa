"""A provider whose ledger fails between any two calls still ends where an undisturbed one does.

The ledger is played (limits: one pool, no sessions wake, nothing is guarded but by `lose`); the machine is the one in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from component.provider import worlds
from moorage_api import names
from moorage_api.catalog import AgentEntry
from moorage_api.ledger.provider import Asked
from moorage_api.ledger.records import Descriptor, SessionIdentity
from moorage_api.ledger.script import LedgerError, Lost, Unreachable
from moorage_api.provider import decide
from moorage_api.provider.base import Revision
from moorage_api.provider.fleet import Held
from moorage_api.provider.loop import Provider, ProviderSettings
from moorage_local import state
from moorage_local.memory_provider import MemoryMachine

pytestmark = pytest.mark.component


class Ledger:
    """`fail(n)`: the n-th call from now has no answer. `lose()`: everything is gone, and every call says so until `found`."""

    def __init__(self) -> None:
        self.pools: list[str] = []
        self.seen: set[str] = set()
        self.entries: dict[str, AgentEntry] = {}
        self.doomed_now: dict[str, str] = {}
        self.gone_now: list[str] = []
        self.labels: list[str] = []
        self.holders: dict[str, str] = {}
        self.records: dict[str, Any] = {}
        self.key = ""
        self.lost = False
        self._left = 0

    def fail(self, number: int) -> None:
        self._left = number

    def lose(self) -> None:
        self.pools, self.seen, self.entries, self.doomed_now, self.key, self.lost = [], set(), {}, {}, "", True

    async def found(self) -> None:
        self._call(guarded=False)
        self.lost = False

    def _call(self, *, guarded: bool = True) -> None:
        self._left -= 1
        if self._left == 0:
            raise Unreachable("a test asked")
        if guarded and self.lost:
            raise Lost("a test asked")

    async def set_token_key(self, key: str) -> None:
        self._call()
        self.key = key

    async def offer(self, one: Descriptor) -> bool:
        self._call()
        fresh = one.sandbox not in self.seen
        self.seen.add(one.sandbox)
        self.pools += [one.sandbox] if fresh else []
        return fresh

    async def pool(self, *_: str) -> list[str]:
        self._call()
        return list(self.pools)

    async def asked(self) -> Asked:
        self._call()
        waking = [key for key, record in self.records.items() if record.state == "waking"]
        deletes = [key for key, record in self.records.items() if record.state == "deleted"]
        return Asked(waking, dict(self.doomed_now), {}, deletes, {})

    async def doom(self, sandbox: str, reason: str) -> None:
        self._call()
        self.doomed_now[sandbox] = reason

    async def gone(self, sandbox: str, reason: str) -> tuple[str, str]:
        self._call()
        self.gone_now.append(sandbox)
        self.doomed_now.pop(sandbox, None)
        self.pools = [one for one in self.pools if one != sandbox]
        return "", ""

    async def publish(self, entry: AgentEntry) -> bool:
        self._call()
        self.entries[entry.field] = entry
        return True

    async def unpublish(self, tenant: str, agent: str) -> None:
        self._call()
        self.entries.pop(f"{tenant}/{agent}", None)

    async def label(self, session: str, epoch: int, volume: str, identity: SessionIdentity) -> str:
        self._call()
        self.labels.append(volume)
        return "OK"

    async def ready(self, session: str, epoch: int, one: Descriptor) -> bool:
        self._call()
        self.records[session].state, self.records[session].sandbox = "claimed", one.sandbox
        return True

    async def removed(self, session: str) -> None:
        self._call()
        del self.records[session]

    async def session(self, key: str) -> Any:
        self._call()
        return self.records.get(key)

    async def holder(self, sandbox: str) -> str:
        self._call()
        return self.holders.get(sandbox, "")


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path, now: Callable[[], float] = time.monotonic
) -> AsyncIterator[tuple[Provider, Ledger, MemoryMachine]]:
    """A provider of one agent with a pool of two."""
    with state.hold(tmp_path / "state") as held:
        ledger, machine = Ledger(), MemoryMachine(held.sockets)
        provider = Provider(
            ledger,  # type: ignore[arg-type]
            machine,
            now=now,
            found=ledger.found,
            token_key="00" * 32,
            settings=ProviderSettings(tick=0.01, quota_every=0.05),
        )
        name = names.revision(b"one")
        provider.deploy(Revision("dev", "hello", name, worlds.spec("hello", "first"), "moorage"), generation=1)
        task = asyncio.create_task(provider.run())
        try:
            yield provider, ledger, machine
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(what: str, look: Any, within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not look():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.005)


def whole(provider: Provider, ledger: Ledger) -> bool:
    """What an undisturbed provider comes to."""
    return (
        ledger.key == "00" * 32
        and set(ledger.entries) == {"dev/hello"}
        and len(ledger.pools) == 2
        and set(ledger.pools) == set(provider.fleet.sandboxes)
    )


@pytest.mark.parametrize("number", range(1, 13))
async def test_a_lost_ledger_is_made_whole_though_any_call_has_no_answer(tmp_path: Path, number: int) -> None:
    async with running(tmp_path) as (provider, ledger, machine):
        await until("whole", lambda: whole(provider, ledger))
        volume = machine.create_volume(Revision("dev", "hello", "r", worlds.spec("hello", "first"), "moorage"))
        machine._volumes["dev", "hello", volume].bound = ("dev:s", 3)
        machine._volumes["dev", "hello", volume].label = SessionIdentity("dev", "hello", "ann", "s", "s")
        ledger.lose()
        ledger.fail(number)
        provider.wake()
        await until("whole again", lambda: whole(provider, ledger) and volume in ledger.labels)


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_an_agent_is_taken_out_in_the_end_though_the_ledger_failed_at_first(tmp_path: Path, number: int) -> None:
    async with running(tmp_path) as (provider, ledger, machine):
        await until("whole", lambda: whole(provider, ledger))
        failed = 0
        real = ledger.unpublish if number == 1 else ledger.doom

        async def failing(*words: str) -> None:
            nonlocal failed
            failed += 1
            if failed == max(1, number - 1):
                raise Unreachable("a test asked")
            await real(*words)

        setattr(ledger, "unpublish" if number == 1 else "doom", failing)
        with pytest.raises(LedgerError):
            await provider.withdraw("dev", "hello")
        await provider.withdraw("dev", "hello")
        await until("nothing is left", lambda: not provider.fleet.sandboxes and not ledger.entries)
        assert not machine._sandboxes


async def test_an_end_that_met_a_lost_ledger_is_ended(tmp_path: Path) -> None:
    async with running(tmp_path) as (provider, ledger, machine):
        await until("whole", lambda: whole(provider, ledger))
        sandbox = ledger.pools[0]
        real, times = machine.destroy, 0

        async def destroy(one: str, reason: str) -> None:
            nonlocal times
            await real(one, reason)
            times += one == sandbox
            if one == sandbox and times == 1:
                ledger.lose()  # between the end and its report

        machine.destroy = destroy  # type: ignore[method-assign]
        await ledger.doom(sandbox, "a test asked")
        provider.wake()
        await until("it is told", lambda: sandbox in ledger.gone_now and whole(provider, ledger))
        assert sandbox not in provider.fleet.sandboxes


async def test_a_volume_that_was_claimed_in_a_lost_ledger_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as (provider, ledger, machine):
        await until("whole", lambda: whole(provider, ledger))
        sandbox = ledger.pools.pop(0)  # a gateway claimed it
        one = provider.fleet.sandboxes[sandbox].descriptor
        await until("it is seen as claimed", lambda: provider.fleet.sandboxes[sandbox].claimed)
        ledger.lose()
        provider.wake()
        await until("offered anew", lambda: sandbox in ledger.pools)
        await machine.kill(sandbox)
        await until("told", lambda: sandbox in ledger.gone_now)
        assert machine.has_volume("dev", "hello", one.volume), "its session may have written there"


async def test_a_volume_that_nobody_claimed_goes(tmp_path: Path) -> None:
    async with running(tmp_path) as (provider, ledger, machine):
        await until("whole", lambda: whole(provider, ledger))
        sandbox = ledger.pools[0]
        one = provider.fleet.sandboxes[sandbox].descriptor
        await machine.kill(sandbox)
        await until("gone", lambda: not machine.has_volume("dev", "hello", one.volume))


async def test_an_agent_whose_sandboxes_live_again_is_no_longer_called_broken(tmp_path: Path) -> None:
    later = 0.0
    async with running(tmp_path, now=lambda: time.monotonic() + later) as (provider, ledger, machine):
        await until("whole", lambda: whole(provider, ledger))

        def ready() -> str:
            return next(
                str(one["status"])
                for one in provider.fleet.agents["dev", "hello"].conditions.to_list()
                if one["type"] == "Ready"
            )

        await machine.kill(ledger.pools[0])
        await until("it is called broken", lambda: ready() == "False")
        await until("the pool is full again", lambda: whole(provider, ledger))
        assert ready() == "False", "it may die again at once"
        later = decide.YOUNG
        provider.wake()
        await until("it is ready", lambda: ready() == "True")


@pytest.mark.parametrize("state", ["waking", "deleted"])
async def test_what_a_dead_provider_made_for_a_session_and_told_nobody_of_is_ended(tmp_path: Path, state: str) -> None:
    async with running(tmp_path) as (provider, ledger, machine):
        await until("whole", lambda: whole(provider, ledger))
        revision = provider.fleet.agents["dev", "hello"].revisions[0].revision
        volume = machine.create_volume(revision)
        machine._volumes["dev", "hello", volume].bound = ("dev:s", 1)
        untold = await machine.make(revision, "sb-00000000untold00", volume)
        provider.fleet.sandboxes[untold.sandbox] = Held(untold, revision.key, time.monotonic(), session="dev:s")
        ledger.records["dev:s"] = SimpleNamespace(
            key="dev:s",
            state=state,
            epoch=2,
            tenant="dev",
            agent="hello",
            revision=revision.revision,
            volume=volume,
            sandbox="",
            bound="",
            user="ann",
            session="s",
            partition="s",
        )
        provider.wake()
        await until(
            "it is ended", lambda: untold.sandbox in ledger.gone_now and untold.sandbox not in provider.fleet.sandboxes
        )
        if state == "deleted":
            await until(
                "its files are gone", lambda: not machine.has_volume("dev", "hello", volume) and not ledger.records
            )
        else:
            await until("another one runs in its place", lambda: ledger.records["dev:s"].state == "claimed")
            on = [held for held in provider.fleet.sandboxes.values() if held.descriptor.volume == volume]
            assert [held.descriptor.sandbox for held in on] == [ledger.records["dev:s"].sandbox]

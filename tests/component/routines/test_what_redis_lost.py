"""A Redis that comes back older than it was, or empty, while a run goes on or after it has ended: on a real Valkey, by real schedulers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from component.gateway_http.test_invocations import Shim
from component.routines.test_invocations_once import KNOWN, RUN, Gateways, gateways, holding, kill, until
from fakes.routine_world import RoutineWorld
from fakes.valkey import Valkey
from moorage_api.ledger.script import LedgerError
from moorage_gateway.routines.choosing import Choosing
from moorage_gateway.routines.desk import Desk
from moorage_gateway.routines.state import State, Turn
from moorage_gateway.store import StoreUnavailable
from moorage_gateway.store.memory import MemoryStore

__all__ = ["gateways"]

pytestmark = [pytest.mark.component, pytest.mark.routines, pytest.mark.timeout(120)]

HOUR_S = 3600
ALERTED = {"alerts": [{"name": "ops", "url": {"secret": "ops"}}]}
INVOKED = {
    "agent": "hello",
    "input": None,
    "protocol": "invocations",
    "body": {"at": "{{ scheduledTime }}"},
    "onFailure": "retry",
}


@pytest.fixture
async def world(server: Valkey) -> AsyncIterator[RoutineWorld]:
    made = RoutineWorld(server, seed=1)
    await made.begin()
    yield made
    await made.aclose()


async def ticking(world: RoutineWorld, holds: Callable[[], Awaitable[Any]], seconds: float = 1) -> Any:
    """The clock goes on until then; what it said."""
    async with asyncio.timeout(40):
        while True:
            with suppress(LedgerError):  # a server that has just begun
                if found := await holds():
                    return found
            await world.tick(seconds)
            await asyncio.sleep(0.02)


async def state_of(world: RoutineWorld, name: str = "r") -> State:
    found = await world.ledger.look(f"dev/{name}")
    return State.from_json(found.state) if found is not None else State()


async def outcomes(world: RoutineWorld, name: str = "r") -> list[str]:
    """The oldest first."""
    return [run.outcome for run in reversed(await world.history.newest("dev", name, 500))]


class Late(MemoryStore):
    """While it gives up, what is put lands when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.gives_up = False
        self._late: list[tuple[str, bytes]] = []

    async def put(self, key: str, data: bytes) -> None:
        if not self.gives_up:
            await super().put(key, data)
            return
        self._late.append((key, data))
        raise StoreUnavailable("no answer from the store")

    async def gave_up(self) -> bool:
        return bool(self._late)

    async def land(self) -> None:
        """In the order in which it was put."""
        assert self._late and not self.gives_up
        while self._late:
            await self.put(*self._late.pop(0))


class Dump:
    """What a server had at one moment."""

    def __init__(self, server: Valkey, folder: Path) -> None:
        self._server, self._folder = server, folder
        server.stop()
        shutil.copytree(server.folder, folder, ignore=lambda _, names: [name for name in names if name == "s"])
        server.start()

    def restore(self) -> None:
        """A failover, or a machine that went down: the server has that again, and nothing since."""
        self._server.stop(kill=True)
        shutil.rmtree(self._server.folder)
        shutil.copytree(self._folder, self._server.folder)
        self._server.start()


@pytest.mark.parametrize("when", ["before it was due", "as it ran"])
async def test_a_run_that_has_ended_is_neither_sent_again_nor_told_as_interrupted_by_a_redis_that_is_older(
    world: RoutineWorld, server: Valkey, gateways: Gateways, tmp_path: Path, when: str
) -> None:
    gateways.store, gateways.clock = world.store, world.clock
    shim: Shim = gateways.shim
    go = holding(shim, 200, b"done")
    world.turns = Choosing(None, await gateways.one())  # type: ignore[arg-type]
    # Due times that are passed over meanwhile are more than the history keeps.
    await world.publish("r", every="1h", historyLimit=1, **INVOKED, **ALERTED)
    await world.start(0)
    await ticking(world, lambda: has(world, lambda state: state.cursor > 0), 0)
    dump = Dump(server, tmp_path / "dump") if when == "before it was due" else None
    await ticking(world, lambda: has(world, lambda state: state.run is not None and state.run.phase == "running"), 60)
    dump = dump or Dump(server, tmp_path / "dump")
    await world.tick(HOUR_S)
    await ticking(world, lambda: outcomes(world))
    go.set()
    await ticking(world, lambda: has(world, lambda state: state.run is None))
    assert await outcomes(world) == ["succeeded", "skipped"]
    await ticking(world, lambda: nothing_in(world, "routine-invocations/"))

    dump.restore()
    await world.tick(0)
    await world.again()
    await gateways.recoveries[0].recover()  # as the scheduler does, whose client is the same one in a gateway
    at = (await state_of(world)).cursor
    await ticking(world, lambda: has(world, lambda state: state.run is None and state.cursor > at), 5)
    assert await outcomes(world) == ["succeeded", "skipped"], "of each due time what was said of it"
    assert len(shim.bodies) == 1 and world.people.alerts == []
    state = await state_of(world)
    if when == "as it ran":
        assert state.last is not None and (state.last.outcome, state.last.output) == ("succeeded", "done")
    assert state.failures == 0 and state.ending == ()


async def has(world: RoutineWorld, holds: Callable[[State], bool]) -> bool:
    return holds(await state_of(world))


async def nothing_in(world: RoutineWorld, prefix: str) -> bool:
    return not await world.store.list(prefix)


@pytest.mark.parametrize("policy", ["forbid", "queue"])
async def test_a_run_goes_on_though_redis_was_emptied_while_due_times_were_passed_over(
    world: RoutineWorld, server: Valkey, policy: str
) -> None:
    spec = {"every": "10s", "concurrencyPolicy": policy, "startingDeadline": "1m"}
    world.turns.lasts_ms = HOUR_S * 1000
    await world.publish("r", **spec)
    await world.start(0)
    await ticking(world, lambda: outcomes(world))  # of a queue: ten wait, and one is passed over
    before = await state_of(world)
    assert before.run is not None and before.run.phase == "running" and not before.owes
    assert set(await outcomes(world)) == {"skipped"} and len(before.queue) == (10 if policy == "queue" else 0)
    await world.kill(0)
    await world.tick(90)
    await world.emptied(server)
    await world.start(1)
    await world.publish("r", **spec)
    await ticking(world, lambda: has(world, lambda state: state.run is not None and state.run.phase == "running"))
    after = await state_of(world)
    assert after.run is not None and (after.run.id, after.run.responses) == (before.run.id, before.run.responses)
    assert after.queue == before.queue and len(world.turns.accepted) == 1, "no other run beside it"
    world.turns.lasts_ms = 0
    await ticking(world, lambda: has(world, lambda state: state.run is None and not state.queue))
    runs = await world.history.newest("dev", "r", 500)
    ended = [run.slot for run in runs if run.outcome == "succeeded"]
    assert set(ended) >= {before.run.slot, *before.queue} and len({run.slot for run in runs}) == len(runs), runs
    assert len(ended) == len(world.turns.accepted), "each once"


async def test_what_the_store_is_told_late_of_a_suspension_counts_over_nothing_newer(
    world: RoutineWorld, server: Valkey
) -> None:
    world.store = store = Late()
    desk = Desk(world.ledger, world.history, world.clock)
    await world.publish("r", every="1h")
    await world.start(0)
    await ticking(world, lambda: has(world, lambda state: state.cursor > 0))
    store.gives_up = True
    await desk.suspend("dev", "r", suspended=True)
    await ticking(world, store.gave_up)
    store.gives_up = False
    await desk.suspend("dev", "r", suspended=False)
    await ticking(world, lambda: has(world, lambda state: not state.owes))
    await store.land()
    await world.kill(0)
    await world.emptied(server)
    await world.start(1)
    await world.publish("r", every="1h")
    await ticking(world, lambda: has(world, lambda state: state.cursor > 0))
    assert not (await state_of(world)).suspended


async def test_a_record_of_an_invocation_that_lands_late_counts_over_nothing_newer(gateways: Gateways) -> None:
    gateways.store = store = Late()
    go = holding(gateways.shim, 200, b"done")
    first, second = await gateways.one(), await gateways.one()
    store.gives_up = True
    with pytest.raises(StoreUnavailable):
        await first.accept("acme", KNOWN, State(), RUN)
    store.gives_up = False
    name = await second.accept("acme", KNOWN, State(), RUN)
    go.set()
    assert await second.ended("acme", name) == Turn("completed", "done")
    await store.land()  # that it is open
    await gateways.tick(11)
    assert await first.look("acme", name) == await second.look("acme", name) == Turn("completed", "done")


async def test_an_end_that_lands_after_another_gateway_said_interrupted_changes_nothing(gateways: Gateways) -> None:
    gateways.store = store = Late()
    go = holding(gateways.shim, 200, b"done")
    first, second = await gateways.one(), await gateways.one()
    name = await first.accept("acme", KNOWN, State(), RUN)
    await until(lambda: len(gateways.shim.bodies) == 1)
    store.gives_up = True
    go.set()
    async with asyncio.timeout(20):
        while not await store.gave_up():
            await asyncio.sleep(0.01)
    await kill(name)
    store.gives_up = False
    await gateways.tick(11)
    found = await second.look("acme", name)
    assert found.status == "failed" and found.error.startswith("interrupted"), found
    await store.land()
    assert await first.look("acme", name) == await second.look("acme", name) == found

"""An invocation is sent once, whoever dies and whatever Redis loses: on a real Valkey and a real hop, to a shim that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis

from component.gateway_http.test_invocations import Shim, answer
from fakes.gateway import FakeActivation, FakeSessions
from fakes.routine_world import CLOCK, CLOCK_KEY, START_MS, HandClock, PlayedTurns, RoutineWorld
from fakes.valkey import Valkey
from moorage_api.errors import ApiError
from moorage_api.ledger.run_leases import RunLeases
from moorage_api.wire.hop import HopPool
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.recovery import Recovery
from moorage_gateway.routes.reaching import Reaching, RelayLimits
from moorage_gateway.routines.invocations import Invocations
from moorage_gateway.routines.invoking import Invoking
from moorage_gateway.routines.known import Known
from moorage_gateway.routines.state import MOST_TEXT, Run, State, Turn
from moorage_gateway.store import StoreUnavailable
from moorage_gateway.store.memory import MemoryStore

pytestmark = [pytest.mark.component, pytest.mark.routines, pytest.mark.timeout(120)]

KNOWN = Known.of(
    "r", {"agent": "hello", "every": "1m", "protocol": "invocations", "body": {"at": "{{ scheduledTime }}"}}
)
RUN = Run(id="run_1", slot=START_MS)


class Gateways:
    """Some of them, one after the other or side by side; each with a ledger client of its own."""

    def __init__(self, server: Valkey, shim: Shim) -> None:
        self.server, self.shim = server, shim
        self.store = MemoryStore()
        self.clock = HandClock()
        self.sessions = FakeSessions()
        self.clients: list[LedgerClient] = []
        self.made: list[Invoking] = []
        self.recoveries: list[Recovery] = []
        self.calm = 0.0

    async def one(self) -> Invoking:
        await self.tick(0)
        client = LedgerClient(
            aioredis.Redis.from_url(self.server.url), who=f"gw-{len(self.clients)}", clock=CLOCK, call_timeout=5
        )
        await client.found()
        self.clients.append(client)

        async def generation() -> int:
            return 0

        limits = RelayLimits(
            body_bytes=1000, acquire_seconds=5, connect_seconds=5, head_seconds=60, idle_seconds=60
        )  # fmt: skip
        reaching = Reaching(FakeActivation([self.shim.route()]), HopPool(max_idle=0), self.clock, limits)
        recovery = Recovery(client, stored_generation=generation)
        made = Invoking(
            reaching, self.sessions, RunLeases(client), Invocations(self.store), recovery, self.clock, lambda: self.calm
        )
        self.made.append(made)
        self.recoveries.append(recovery)
        return made

    async def tick(self, seconds: float) -> None:
        self.clock.ms += int(seconds * 1000)
        async with aioredis.Redis.from_url(self.server.url) as client:
            await client.set(CLOCK_KEY, self.clock.ms * 1000)

    async def aclose(self) -> None:
        for made in self.made:
            await made.aclose()
        for client in self.clients:
            await client.aclose()


@pytest.fixture
async def gateways(server: Valkey, tmp_path: Path) -> AsyncIterator[Gateways]:
    shim = Shim(tmp_path / "s")
    await shim.listener.start(path=str(shim.path))
    made = Gateways(server, shim)
    yield made
    await made.aclose()
    await shim.listener.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def holding(shim: Shim, status: int, body: bytes) -> asyncio.Event:
    """The shim's agent answers when that is set."""
    go = asyncio.Event()

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await shim.body(receive)
        waits, leaves = asyncio.create_task(go.wait()), asyncio.create_task(receive())
        await asyncio.wait({waits, leaves}, return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
        if leaves.done():
            shim.left += 1
            raise ConnectionError
        leaves.cancel()
        await answer(send, status, body)

    shim.serve = serve
    return go


def half_of(shim: Shim) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """It answers half, and then nothing until its caller leaves."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await shim.body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await receive()
        shim.left += 1

    return serve


async def kill(name: str) -> None:
    """Whoever waits for it is gone, and could say nothing."""
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == f"invocation {name}")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_two_gateways_that_saw_one_try_send_it_once_and_both_learn_how_it_ended(gateways: Gateways) -> None:
    go = holding(gateways.shim, 200, b"done")
    first, second = await gateways.one(), await gateways.one()
    names = await asyncio.gather(
        *(one.accept("acme", KNOWN, State(), RUN) for one in (first, second, first)), return_exceptions=True
    )
    name = next(each for each in names if isinstance(each, str))
    assert all(each == name or isinstance(each, ApiError) for each in names), names
    await until(lambda: len(gateways.shim.bodies) == 1)
    assert await second.look("acme", name) == await first.look("acme", name) == Turn("open")
    go.set()
    assert await second.ended("acme", name) == await first.ended("acme", name) == Turn("completed", "done")
    assert await first.accept("acme", KNOWN, State(), RUN) == name and len(gateways.shim.bodies) == 1
    assert gateways.shim.bodies == [b'{"at":"2027-01-15T08:00:00Z"}']
    assert gateways.shim.calls[0][:2] == ("POST", "/relay/invocations")
    assert gateways.shim.calls[0][3][b"x-moorage-run-seconds"] == b"1860"


async def test_one_whose_gateway_died_is_interrupted_and_not_sent_again(gateways: Gateways) -> None:
    holding(gateways.shim, 200, b"never")
    first, second = await gateways.one(), await gateways.one()
    name = await first.accept("acme", KNOWN, State(), RUN)
    await until(lambda: len(gateways.shim.bodies) == 1)
    await kill(name)
    await until(lambda: gateways.shim.left == 1)
    assert await second.look("acme", name) == Turn("open"), "its gateway may live: the lease says so"
    assert await second.accept("acme", KNOWN, State(), RUN) == name
    await gateways.tick(11)
    gateways.calm = 5
    assert await second.look("acme", name) == Turn("open"), "after a loss leases are given time"
    gateways.calm = 0
    found = await second.look("acme", name)
    assert found.status == "failed" and found.error.startswith("interrupted: nobody knows"), found
    assert await second.accept("acme", KNOWN, State(), RUN) == name and await first.look("acme", name) == found
    assert len(gateways.shim.bodies) == 1, "a further try is the routine's decision"


async def test_a_gateway_that_was_paused_gives_up_what_another_one_took(gateways: Gateways) -> None:
    holding(gateways.shim, 200, b"late")
    first, second = await gateways.one(), await gateways.one()
    name = await first.accept("acme", KNOWN, State(), RUN)
    await until(lambda: len(gateways.shim.bodies) == 1)
    await gateways.tick(11)  # longer than a lease, within one pause between its renewals
    found = await second.look("acme", name)
    assert found.status == "failed"
    await until(lambda: gateways.shim.left == 1)
    assert await first.ended("acme", name) == found


async def test_a_look_at_one_that_is_just_being_begun_takes_it_from_nobody(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding(gateways.shim, 200, b"done").set()
    first, second = await gateways.one(), await gateways.one()
    put, go = gateways.store.put, asyncio.Event()

    async def slowly(key: str, data: bytes) -> None:
        await put(key, data)
        await go.wait()

    monkeypatch.setattr(gateways.store, "put", slowly)
    beginning = asyncio.create_task(first.accept("acme", KNOWN, State(), RUN))
    async with asyncio.timeout(20):
        while not await gateways.store.list("routine-invocations/"):
            await asyncio.sleep(0.01)
    name = await second.accept("acme", KNOWN, State(), RUN)
    assert await first.look("acme", name) == await second.look("acme", name) == Turn("open")
    go.set()
    assert await beginning == name and await first.ended("acme", name) == Turn("completed", "done")


async def test_what_redis_forgot_is_not_sent_again(gateways: Gateways, server: Valkey) -> None:
    go = holding(gateways.shim, 200, b"done")
    first = await gateways.one()
    name = await first.accept("acme", KNOWN, State(), RUN)
    await until(lambda: len(gateways.shim.bodies) == 1)
    async with aioredis.Redis.from_url(server.url) as client:
        await client.flushall()
    await gateways.tick(0)
    second = await gateways.one()
    gateways.calm = 5
    with pytest.raises(ApiError, match="just now"):
        await second.accept("acme", KNOWN, State(), RUN)
    assert await second.look("acme", name) == Turn("open")
    go.set()
    assert await first.ended("acme", name) == Turn("completed", "done")
    gateways.calm = 0
    await gateways.recoveries[1].recover()  # as the scheduler does when a look meets the loss
    assert await second.accept("acme", KNOWN, State(), RUN) == name
    assert await second.look("acme", name) == Turn("completed", "done") and len(gateways.shim.bodies) == 1


async def test_it_is_cancelled_by_whichever_gateway_and_keeps_what_it_said(gateways: Gateways) -> None:
    shim = gateways.shim
    shim.serve = half_of(shim)
    first, second = await gateways.one(), await gateways.one()
    name = await first.accept("acme", KNOWN, State(), RUN)
    await until(lambda: len(shim.bodies) == 1)
    await second.cancel("acme", name)
    assert await second.look("acme", name) == Turn("cancelled", "half", "it was cancelled") and shim.left == 1
    await second.cancel("acme", name)  # nobody holds it any more


async def test_a_gateway_that_stops_says_what_it_leaves(gateways: Gateways) -> None:
    holding(gateways.shim, 200, b"never")
    first, second = await gateways.one(), await gateways.one()
    name = await first.accept("acme", KNOWN, State(), RUN)
    await until(lambda: len(gateways.shim.bodies) == 1)
    await first.aclose()
    found = await second.look("acme", name)
    assert found.status == "failed" and "its gateway was stopped" in found.error
    with pytest.raises(ApiError):
        await first.accept("acme", KNOWN, State(), Run(id="run_2", slot=START_MS))


@pytest.mark.parametrize(
    ("status", "body", "turn"),
    [
        (201, b"x" * 50_000, Turn("completed", "x" * MOST_TEXT)),
        (500, b"no \xff", Turn("failed", "no \ufffd", "it answered 500: no \ufffd")),
        (204, b"", Turn("completed")),
    ],
)
async def test_an_answer_is_kept_within_bounds(gateways: Gateways, status: int, body: bytes, turn: Turn) -> None:
    holding(gateways.shim, status, body).set()
    first = await gateways.one()
    assert await first.ended("acme", await first.accept("acme", KNOWN, State(), RUN)) == turn


async def test_a_shim_that_refuses_is_asked_again_and_a_broken_answer_is_not(gateways: Gateways) -> None:
    shim = gateways.shim
    refusing = shim.refusing(409, error="draining")
    times = 0

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        nonlocal times
        times += 1
        if times <= 5:  # more than the routes that one call tries
            await refusing(scope, receive, send)
            return
        await shim.body(receive)
        scope["moorage.exchange"].abort()

    shim.serve = serve
    first = await gateways.one()
    found = await first.ended("acme", await first.accept("acme", KNOWN, State(), RUN))
    assert found.status == "failed" and found.error.startswith("interrupted: nobody knows") and times == 6, found


class Hasty(HandClock):
    """Whoever waits has waited."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        await asyncio.sleep(0)


async def test_an_agent_that_never_starts_says_why_before_its_time_is_over(gateways: Gateways) -> None:
    gateways.shim.serve = gateways.shim.refusing(503, error="not_ready", log_tail=["no module named x"])
    gateways.clock = clock = Hasty()
    first = await gateways.one()
    found = await first.ended("acme", await first.accept("acme", KNOWN, State(), RUN))
    assert found.status == "failed" and "no module named x" in found.error, found
    assert 300 <= clock.slept < 1800


async def test_one_whose_time_is_over_is_left_and_keeps_what_it_said(gateways: Gateways) -> None:
    gateways.shim.serve = half_of(gateways.shim)
    gateways.clock = clock = Hasty()
    first = await gateways.one()
    name = await first.accept("acme", KNOWN, State(), RUN)
    await until(lambda: len(gateways.shim.bodies) == 1)
    clock.slept += 30 * 60
    assert await first.ended("acme", name) == Turn("failed", "half", "its time is over")
    await until(lambda: gateways.shim.left == 1)


async def test_an_end_that_the_store_does_not_take_is_kept_when_it_does(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = holding(gateways.shim, 200, b"done")
    first = await gateways.one()
    name = await first.accept("acme", KNOWN, State(), RUN)
    put, refused = gateways.store.put, 0

    async def later(key: str, data: bytes) -> None:
        nonlocal refused
        refused += 1
        if refused < 3:
            raise StoreUnavailable("away")
        await put(key, data)

    monkeypatch.setattr(gateways.store, "put", later)
    go.set()
    assert await first.ended("acme", name) == Turn("completed", "done") and refused == 3


class Gated(PlayedTurns):
    """Runs are invocations whose records go once they are in the history; the first look at one waits until it may go on."""

    def __init__(self, world: RoutineWorld) -> None:
        super().__init__(world.clock, world.rng, lasts_ms=20_000)
        self.looks = 0
        self.go = asyncio.Event()
        self.forgotten: set[str] = set()

    def response(self, tenant: str, known: Known, run: Run) -> str:
        return f"inv_{run.id}"

    async def look(self, tenant: str, response: str) -> Turn:
        self.looks += 1
        if self.looks == 1:
            await self.go.wait()
        if response in self.forgotten:
            return Turn("failed", error="interrupted: its record is gone")
        return await super().look(tenant, response)

    async def ended(self, tenant: str, response: str) -> Turn:
        while (turn := await super().look(tenant, response)).status == "open":
            await asyncio.sleep(0.01)
        return turn

    async def forget(self, tenant: str, names: Iterable[str]) -> None:
        self.forgotten.update(names)


async def test_a_look_that_comes_late_does_not_write_another_end_over_what_the_history_has(server: Valkey) -> None:
    world = RoutineWorld(server, seed=1)
    world.turns = played = Gated(world)
    await world.begin()
    try:
        await world.publish("r", every="1h")
        await world.start(0)
        await world.tick(3600)
        await until(lambda: len(played.accepted) == 1)
        await ticking(world, lambda: played.looks == 1)
        await ticking(world, lambda: len(played.forgotten) == 1)
        played.go.set()
        await until(nobody_works)
        assert [run.outcome for run in await world.history.newest("dev", "r", 5)] == ["succeeded"]
    finally:
        await world.aclose()


def nobody_works() -> bool:
    """No look at a routine goes on."""
    return not any("Scheduler._guarded" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def ticking(world: RoutineWorld, holds: Callable[[], bool]) -> None:
    """The clock goes on until then."""
    async with asyncio.timeout(20):
        while not holds():
            await world.tick(1)
            await asyncio.sleep(0.01)


class Away(MemoryStore):
    """Takes no object while `away`."""

    away = False

    async def put(self, key: str, data: bytes) -> None:
        if self.away:
            raise StoreUnavailable("away")
        await super().put(key, data)


async def test_one_that_could_not_be_persisted_is_begun_by_whoever_looks_next_and_has_not_failed(
    gateways: Gateways,
) -> None:
    store = gateways.store = Away()
    first, second = await gateways.one(), await gateways.one()
    go = holding(gateways.shim, 200, b"done")
    store.away = True
    with pytest.raises(StoreUnavailable):
        await first.accept("dev", KNOWN, State(cursor=0), RUN)
    store.away = False
    name = await second.accept("dev", KNOWN, State(cursor=0), RUN)
    go.set()
    assert (await second.ended("dev", name)).status == "completed" and len(gateways.shim.bodies) == 1


async def test_a_lease_without_a_record_is_no_persisted_invocation_and_none_that_failed(gateways: Gateways) -> None:
    first, second = await gateways.one(), await gateways.one()
    name = first.response("dev", KNOWN, RUN)
    assert await RunLeases(gateways.clients[0]).take(name)  # it is about to write it down
    with pytest.raises(ApiError):
        await second.accept("dev", KNOWN, State(cursor=0), RUN)
    assert (await second.look("dev", name)).status == "open"


async def test_one_that_was_cancelled_as_it_was_persisted_is_not_sent(gateways: Gateways) -> None:
    class Cancelling(MemoryStore):
        async def put(self, key: str, data: bytes) -> None:
            await super().put(key, data)
            await RunLeases(gateways.clients[1]).stop(name)

    gateways.store = Cancelling()
    first, second = await gateways.one(), await gateways.one()
    name = first.response("acme", KNOWN, RUN)
    assert await first.accept("acme", KNOWN, State(), RUN) == name
    assert (await second.look("acme", name)).status == "cancelled" and not gateways.shim.bodies

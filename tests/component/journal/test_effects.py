"""Calls that must not be made twice: what the journal makes of them when their gateway, or the other end, gives no outcome (turns.md §6).

The kind is played (models are no effects, and tools have tests of their own); journal, ledger and Valkey are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from component.journal.conftest import Desk
from moorage_api.ledger.journal import Asking, Binding, Permits
from moorage_gateway.app import Gateway
from moorage_gateway.journal.answers import Answer, already_done, outcome_unknown
from moorage_gateway.journal.flights import Broken, Flight
from moorage_gateway.journal.found import Stored
from moorage_gateway.journal.journaling import Journaling
from moorage_gateway.journal.kinds import NoOutcome, NothingSent, Outlet
from moorage_gateway.journal.refusals import Refused
from moorage_gateway.journal.seeing import Call

pytestmark = pytest.mark.component


@dataclass
class Effect:
    """Counts how often it was done. `go` is what happens once it was sent."""

    go: Callable[[Outlet], Any]
    done: int = 0
    fingerprint: str = "effect"
    permits: Permits = "once"
    what: dict[str, str] = field(default_factory=lambda: {"kind": "tool"})
    sends: bool = True
    bounded: None = None
    tool: str = ""
    call: str = ""

    async def perform(self, outlet: Outlet) -> None:
        if self.sends:
            await outlet.sending()
            self.done += 1
        await self.go(outlet)

    def unknown(self) -> Answer:
        return outcome_unknown("The tool")

    def earlier(self, call: str, answer: Answer | None) -> Answer:
        return already_done(call, answer)


async def answers(outlet: Outlet) -> None:
    outlet.begin(200, (), streams=False)
    outlet.put(b"done")


async def breaks(outlet: Outlet) -> None:
    raise NoOutcome("reset")


async def nothing(outlet: Outlet) -> None:
    raise NothingSent("no connection")


def of(gateway: Gateway) -> Journaling:
    return gateway.core.journaling


async def ask(desk: Desk, effect: Effect, *, at: Gateway | None = None, number: int = 1, resent: bool = False) -> Any:
    binding = Binding("sb-1", desk.session, desk.epoch, "acme", "a")
    asking = Asking(
        desk.turn, desk.fence, number, effect.fingerprint, effect.permits, resent, effect.what,
        tool=effect.tool, call=effect.call,
    )  # fmt: skip
    return await of(at or desk.gateways[0]).ask(Call(binding, asking, effect))


async def told(found: Any) -> tuple[int, bytes]:
    """Status and body of whatever was found."""
    if isinstance(found, Flight):
        if not await found.head():
            assert found.refusal is not None
            return found.refusal.status, found.refusal.body
        return found.status, b"".join([piece async for piece in found.follow()])
    assert isinstance(found, Stored | Refused)
    return found.answer.status, found.answer.body


async def test_an_effect_is_done_once_and_met_again(desk: Desk) -> None:
    effect = Effect(answers)
    assert await told(await ask(desk, effect)) == (200, b"done")
    await desk.attempt()
    found = await ask(desk, effect, number=9)
    assert isinstance(found, Stored) and await told(found) == (200, b"done")
    assert effect.done == 1


async def test_an_effect_without_an_outcome_is_unknown_and_stays_so(desk: Desk) -> None:
    effect = Effect(breaks)
    status, body = await told(await ask(desk, effect))
    assert status == 409 and b"outcome_unknown" in body
    await desk.attempt()
    status, body = await told(await ask(desk, effect))
    assert status == 409 and b"outcome_unknown" in body
    assert effect.done == 1
    assert [entry.state for entry in await desk.journal.entries(desk.turn)] == ["unknown"]


async def test_what_surely_was_not_sent_may_be_asked_again(desk: Desk) -> None:
    effect = Effect(nothing, sends=False)
    assert (await told(await ask(desk, effect)))[0] == 503
    assert await desk.journal.entries(desk.turn) == []
    effect.go, effect.sends = answers, True
    assert await told(await ask(desk, effect, resent=True)) == (200, b"done")
    assert effect.done == 1


async def test_an_effect_whose_gateway_ended_is_never_made_by_another(desk: Desk) -> None:
    other, gate = await desk.gateway(), asyncio.Event()

    async def hangs(outlet: Outlet) -> None:
        await gate.wait()

    effect = Effect(hangs)
    flight = await ask(desk, effect)
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while not effect.done:
            await asyncio.sleep(0.01)
    await of(desk.gateways[0]).drain(0)
    with pytest.raises(Broken):
        await flight.head()
    effect.go = answers
    found = await asyncio.wait_for(ask(desk, effect, at=other, resent=True), 30)  # once its lease is over
    status, body = await told(found)
    assert status == 409 and b"outcome_unknown" in body and effect.done == 1


async def test_a_call_that_may_be_made_again_is_handed_on_at_once(desk: Desk) -> None:
    other, gate = await desk.gateway(), asyncio.Event()

    async def hangs(outlet: Outlet) -> None:
        await gate.wait()

    effect = Effect(hangs, permits="again")
    await ask(desk, effect)
    async with asyncio.timeout(10):
        while not effect.done:
            await asyncio.sleep(0.01)
    await of(desk.gateways[0]).drain(0)
    effect.go = answers
    assert await told(await asyncio.wait_for(ask(desk, effect, at=other, resent=True), 5)) == (200, b"done")
    assert effect.done == 2


async def test_who_was_stopped_past_its_lease_sends_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    journaling = of(desk.gateways[0])
    effect, ahead = Effect(answers), 0.0
    real = journaling._clock.monotonic

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(desk.gateways[0].core.clock, name)

        def monotonic(self) -> float:
            return real() + ahead

    async def no_answer(*_: Any) -> list[str]:
        return ["LOST"]

    for each in (journaling, journaling._making):
        monkeypatch.setattr(each, "_clock", Late())
    monkeypatch.setattr(journaling._ledger, "hold", no_answer)
    started = journaling._ledger.start

    async def start(*args: Any, **options: Any) -> Any:
        nonlocal ahead
        found = await started(*args, **options)
        ahead = 60.0  # the process was stopped here
        return found

    monkeypatch.setattr(journaling._ledger, "start", start)
    assert (await told(await ask(desk, effect)))[0] == 503
    assert effect.done == 0


async def test_a_mistake_of_ours_ends_the_call_and_nothing_else(desk: Desk) -> None:
    async def slips(outlet: Outlet) -> None:
        raise ZeroDivisionError

    effect = Effect(slips)
    status, body = await told(await ask(desk, effect))
    assert status == 409 and b"outcome_unknown" in body
    effect = Effect(slips, permits="again", fingerprint="model")
    assert (await told(await ask(desk, effect, number=2)))[0] == 503
    async with asyncio.timeout(10):
        while of(desk.gateways[0]).flights:
            await asyncio.sleep(0.01)


async def test_room_is_given_back(desk: Desk) -> None:
    journaling = of(desk.gateways[0])
    before = journaling.room.left
    for n in range(5):
        await told(await ask(desk, Effect(answers, fingerprint=f"f{n}"), number=n + 1))
    await told(await ask(desk, Effect(breaks, fingerprint="b"), number=9))
    assert journaling.room.left == before

    async def too_much(outlet: Outlet) -> None:
        outlet.begin(200, (), streams=True)
        for _ in range(64):
            outlet.put(bytes(2**20))

    effect = Effect(too_much, permits="again", fingerprint="big")
    with pytest.raises(Broken, match="longer than"):
        await told(await ask(desk, effect, number=10))
    assert journaling.room.left == before

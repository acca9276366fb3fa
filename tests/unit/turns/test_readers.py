"""A reader beside the turn's owner: what is taken the moment it is logged, and what is yielded, is the log once and in order."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from moorage_api.ledger.records import Entry
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.normalise import Template
from moorage_gateway.turns.readers import LogHints, Readers
from moorage_gateway.turns.rules import Limits

pytestmark = pytest.mark.unit


def held_turn() -> Held:
    """A turn with nothing logged."""
    nothing: Any = None
    record: Any = SimpleNamespace(response="r", meta={})
    return Held(record, 1, Template("r", 1, "m", "a", "v", "s", {}), nothing, Limits(), [])


def log(held: Held, *events: bytes) -> None:
    """Logs a group."""
    held.logged([Entry(1, 0, event) for event in events])


class Caller:
    """Takes events at once while it keeps up, and reads the rest."""

    def __init__(self, held: Held, *, quick: bool = True) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.keeps_up = True
        nothing: Any = None
        readers = Readers(nothing, nothing, LogHints(), lambda response: held, nothing)
        self.stream = readers.follow("r", tenant="t", quick=self._at_once if quick else None)
        self.task = asyncio.create_task(self._read())

    def _at_once(self, event: bytes) -> bool:
        if self.keeps_up:
            self.heard.append(("at once", event))
        return self.keeps_up

    async def _read(self) -> None:
        async for _, event in self.stream:
            self.heard.append(("read", event))

    @property
    def events(self) -> list[bytes]:
        """Whatever the way."""
        return [event for _, event in self.heard]


async def settle() -> None:
    """Lets every task run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_waiting_reader_has_an_event_when_it_is_logged_and_the_terminal_one_ends_it() -> None:
    held = held_turn()
    log(held, b"0")
    caller = Caller(held)
    await settle()
    log(held, b"1", b"2")
    assert caller.heard == [("read", b"0"), ("at once", b"1"), ("at once", b"2")], "with no task in between"
    held.ended = True
    log(held, b"3")
    await asyncio.wait_for(caller.task, 1)
    assert caller.heard[3:] == [("read", b"3")]


async def test_a_reader_that_falls_behind_reads_on_and_nothing_is_lost_or_told_twice() -> None:
    held = held_turn()
    caller = Caller(held)
    await settle()
    for number in range(40):
        caller.keeps_up = number % 7 not in (2, 3)
        log(held, b"%d" % number)
        if number % 3 == 0:
            await settle()
    held.ended = True
    log(held, b"end")
    await asyncio.wait_for(caller.task, 1)
    assert caller.events == [*(b"%d" % number for number in range(40)), b"end"]
    assert {way for way, _ in caller.heard} == {"read", "at once"}


async def test_one_slow_reader_holds_no_other_back() -> None:
    held = held_turn()
    slow, fast, plain = Caller(held), Caller(held), Caller(held, quick=False)
    slow.keeps_up = False
    await settle()
    log(held, b"0")
    assert (slow.events, fast.events) == ([], [b"0"])
    await settle()
    held.ended = True
    log(held, b"1")
    await asyncio.wait_for(asyncio.gather(slow.task, fast.task, plain.task), 1)
    assert slow.events == fast.events == plain.events == [b"0", b"1"]
    assert held.readers == 0


async def test_a_reader_that_is_cancelled_hears_no_more() -> None:
    held = held_turn()
    caller = Caller(held)
    await settle()
    caller.task.cancel()
    await asyncio.gather(caller.task, return_exceptions=True)
    await caller.stream.aclose()  # type: ignore[attr-defined]
    log(held, b"0")
    assert caller.heard == []
    assert held.readers == 0

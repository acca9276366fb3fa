"""Record and log are read one after the other: what Redis loses in between makes nobody take an early event for the end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from moorage_api.ledger.records import Entry, TurnRecord
from moorage_gateway.turns.readers import LogHints, Readers
from moorage_gateway.turns.service import Turns

pytestmark = pytest.mark.unit

RESPONSE = {"id": "r", "object": "response", "status": "in_progress", "output": []}
CREATED = json.dumps({"type": "response.created", "sequence_number": 0, "response": RESPONSE}).encode()
END = json.dumps(
    {"type": "response.failed", "sequence_number": 1, "response": {**RESPONSE, "status": "cancelled"}}
).encode()
META = json.dumps({
    "tenant": "dev", "user": "u", "agent": "a", "revision": "v", "session_id": "s", "partition": "p", "created_at": 1, "model": "m",
    "body": {},
})  # fmt: skip


def record(state: str) -> TurnRecord:
    fields = {"state": state, "session": "dev:p", "fence": "1", "meta": META, "terminal": "0 0 " + END.decode()}
    found = TurnRecord.parse("r", fields)
    assert found is not None
    return found


class Ledger:
    """Answers `turn` and `log` from scripts, the last of each for ever. Limits: no ledger; one turn."""

    def __init__(self, states: list[str | None], logs: list[list[bytes]]) -> None:
        self._states = states
        self._logs = logs

    async def turn(self, response: str) -> TurnRecord | None:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return None if state is None else record(state)

    async def log(self, response: str, first: int = 0, last: int = -1) -> list[Entry]:
        entries = self._logs.pop(0) if len(self._logs) > 1 else self._logs[0]
        return [Entry(0, 0, data) for data in entries][first : None if last == -1 else last + 1]

    async def length(self, response: str) -> int:
        return len(self._logs[0])

    async def watch(self, response: str) -> None:
        return


class Clock:
    """Does not wait."""

    def monotonic(self) -> float:
        return 0.0

    def now_ms(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Nothing:
    """A store that holds the turn's end, or not; a recovery that never runs."""

    def __init__(self, document: Any = None) -> None:
        self._document = document

    async def document(self, tenant: str, response: str) -> Any:
        return self._document

    async def input(self, *_: str) -> list[Any]:
        return []

    async def settled(self) -> None:
        return


def readers(ledger: Ledger) -> Readers:
    async def stored(tenant: str, response: str) -> None:
        return None

    doors: Any = ledger
    return Readers(doors, Clock(), LogHints(), lambda response: None, stored)


def turns(ledger: Ledger, store: Nothing) -> Turns:
    nothing: Any = None
    doors: Any = ledger
    kept: Any = store
    return Turns(
        ledger=doors, keeper=nothing, readers=readers(ledger), store=kept, clock=Clock(), recovery=kept,
        limits_of=nothing, generation=lambda: 1,
    )  # fmt: skip


async def test_a_reader_goes_on_when_the_log_it_finds_is_not_the_ended_one() -> None:
    ledger = Ledger(["cancelled", "closing", "cancelled"], [[CREATED], [CREATED], [CREATED, END]])
    async with asyncio.timeout(10):
        found = [(number, data) async for number, data in readers(ledger).follow("r", tenant="dev")]
    assert found == [(0, CREATED), (1, END)]


async def test_a_cursor_past_the_end_is_told_the_end_and_nothing_else() -> None:
    ledger = Ledger(["cancelled"], [[], [CREATED], [CREATED, END]])
    async with asyncio.timeout(10):
        found = [data async for _, data in readers(ledger).follow("r", tenant="dev", after=7)]
    assert found == [END]


@pytest.mark.parametrize("log", [[CREATED], []])
async def test_who_asks_for_an_ended_turn_whose_log_is_gone_is_told_of_no_end_that_is_none(log: list[bytes]) -> None:
    found = await turns(Ledger(["cancelled"], [log]), Nothing()).get("r", tenant="dev")
    assert found is not None
    assert (found.ended, found.response["status"]) == (False, "in_progress")


async def test_a_cancel_is_answered_when_the_end_is_there_again() -> None:
    ledger = Ledger(["cancelled"], [[CREATED], [CREATED], [CREATED, END]])
    async with asyncio.timeout(10):
        answer = await turns(ledger, Nothing()).cancel("r", tenant="dev")
    assert answer["status"] == "cancelled"

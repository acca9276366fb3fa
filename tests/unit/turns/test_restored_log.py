"""An owner whose turn was restored while an acknowledgement was still on its way: Redis lacks what was shown already."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from moorage_api.ledger.records import Entry, TurnRecord
from moorage_api.ledger.script import Lost
from moorage_gateway.clock import SystemClock
from moorage_gateway.turns import steps
from moorage_gateway.turns.engine import Engine
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.normalise import Template, created_event
from moorage_gateway.turns.rules import Limits

pytestmark = pytest.mark.unit


async def none_asked(_: Held) -> list[dict[str, Any]]:
    return []


async def none_recorded(_: str) -> int:
    return 0


STARTED = {"type": "response.in_progress", "sequence_number": 1, "response": {}}
OPEN = {
    "type": "response.output_item.added",
    "sequence_number": 2,
    "output_index": 0,
    "item": {"id": "m", "type": "message", "role": "assistant", "status": "in_progress", "content": []},
}


class Redis:
    """The log of one turn, by the rules of the scripts `append` and `decide`. It is lost before the append number `lost_at`."""

    def __init__(self, log: Sequence[Entry], *, lost_at: int = 0) -> None:
        self.log = list(log)
        self.outcome = ""
        self._lost_at = lost_at
        self._appends = 0

    async def append(self, response: str, fence: int, first: int, entries: Sequence[Entry]) -> tuple[str, int]:
        self._appends += 1
        if self._appends == self._lost_at:
            raise Lost("append")
        have = len(self.log)
        if have < first + len(entries) and have != first:
            return "GAP", have
        if have == first:
            self.log += entries
        return "OK", len(self.log)

    async def decide(
        self, r: str, f: int, outcome: str, index: int, *told: Any, **more: Any
    ) -> tuple[str, str, int, str]:
        if index != len(self.log):
            return "GAP", "", 0, ""
        self.outcome = outcome
        return "OK", outcome, 1, ""

    async def close(self, response: str, *, stored: bool) -> str:
        return "OK"


def cancelled(*events: dict[str, Any]) -> Held:
    """A turn that was cancelled after these events, none of it to be stored."""
    meta = {"store": False, "user": "u", "session_id": "s", "tenant": "dev"}
    fields = {"state": "running", "session": "dev:p", "fence": "10", "meta": orjson.dumps(meta).decode()}
    record = TurnRecord.parse("caresp_1", fields)
    assert record is not None
    template = Template("caresp_1", 1, "m", "a", "r", "s", {})
    held = Held(record, 10, template, SimpleNamespace(revision="r"), Limits(), [], proved=False)  # type: ignore[arg-type]
    first = created_event(template, queued=False)
    held.logged([Entry(0, 0, orjson.dumps(event)) for event in [*first, *events]])
    held.cancelled = True
    return held


@pytest.mark.parametrize(
    ("events", "lost_at"), [((STARTED, OPEN), 0), ((STARTED, OPEN), 2), ((STARTED,), 0)],
    ids=["an item is open", "lost once more, restored whole", "nothing is open"],
)  # fmt: skip
async def test_its_owner_writes_what_redis_lacks_and_keeps_the_turn(
    events: Sequence[dict[str, Any]], lost_at: int
) -> None:
    held = cancelled(*events)
    shown = list(held.log)
    redis = Redis(shown[:-1], lost_at=lost_at)

    async def restore() -> None:
        redis.log = list(held.log)

    unused: Any = None
    ports = steps.Ports(
        redis, unused, unused, unused, SystemClock(), SimpleNamespace(runs=False, recover=restore), unused, unused,
        lambda: 1, lambda: 0.0, none_recorded, none_asked,
    )  # type: ignore[arg-type]  # fmt: skip
    async with asyncio.timeout(10):
        await Engine(ports).drive(held)
    assert (held.ended, redis.outcome) == (True, "cancelled")
    assert redis.log[: len(shown)] == shown, "nothing that was shown is withdrawn"
    assert held.log[:-1] == redis.log, "and what followed is logged"

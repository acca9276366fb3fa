"""What a gateway stores of a turn, and which one it takes, when Redis lost something and nobody noticed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from moorage_api.ledger.records import Entry, TurnRecord
from moorage_gateway.store.errors import StoreUnavailable
from moorage_gateway.turns.keeper import UNFLUSHED_S, Keeper
from moorage_gateway.turns.rules import limits

pytestmark = pytest.mark.unit

LIMITS = limits({}, acquire_s=60.0, log_bytes=1)
CREATED = Entry(0, 0, orjson.dumps({"type": "response.created", "response": {"status": "in_progress"}}))
ENDED = Entry(0, 0, orjson.dumps({"type": "response.completed", "response": {"status": "completed"}}))


class Ledger:
    """One ended turn, whose log reads as each of `logs` in turn, the last one for ever."""

    def __init__(self, *logs: list[Entry]) -> None:
        self.logs = list(logs)
        self.waiting = ["caresp_1"]

    async def unflushed(self, limit: int) -> list[str]:
        return list(self.waiting)

    async def due(self, now_ms: int, limit: int) -> list[str]:
        return []

    async def turn(self, response: str) -> TurnRecord | None:
        fields = {"state": "completed", "session": "dev:p", "fence": "1", "meta": '{"tenant": "dev"}'}
        return TurnRecord.parse(response, fields | {"terminal": ENDED.encode().decode()})

    async def attempts(self, response: str) -> list[dict[str, Any]]:
        return []

    async def log(self, response: str) -> list[Entry]:
        return self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]

    async def flushed(self, response: str) -> None:
        self.waiting.clear()


class Store:
    """Keeps every document it is given; `settled` says that the turn is open no longer."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.done = asyncio.Event()

    async def input(self, tenant: str, response: str, where: str) -> list[dict[str, Any]]:
        return []

    async def put_response(self, tenant: str, response: str, document: bytes) -> None:
        self.documents.append(orjson.loads(document))

    async def settled(self, response: str) -> None:
        self.done.set()


class Clock:
    """The round that stores comes at once, every other never."""

    def now_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await (asyncio.sleep(0) if seconds == UNFLUSHED_S else asyncio.Event().wait())


@pytest.mark.parametrize("left", [[], [CREATED]], ids=["emptied", "rolled back"])
async def test_what_a_loss_left_of_a_log_is_not_stored_as_its_end(left: list[Entry]) -> None:
    ledger, store = Ledger(left, [CREATED, ENDED]), Store()
    unused: Any = None
    keeper = Keeper(
        engine=unused, ledger=ledger, store=store, clock=Clock(), recovery=SimpleNamespace(on_loss=lambda restore: None),
        limits=unused, generation=lambda: 1, calm=lambda: 1.0, capacity=0,
    )  # type: ignore[arg-type]  # fmt: skip
    rounds = asyncio.ensure_future(keeper.run())
    stored = asyncio.ensure_future(store.done.wait())
    await asyncio.wait([rounds, stored], timeout=10, return_when=asyncio.FIRST_COMPLETED)
    lives = not rounds.done()
    rounds.cancel()
    stored.cancel()
    await asyncio.gather(rounds, stored, return_exceptions=True)
    assert lives, "such a loss ends no loop of the gateway"
    assert [[event["type"] for event in each["events"]] for each in store.documents] == [
        ["response.created", "response.completed"]
    ]


class Due(Ledger):
    """One turn that is due, which Redis says is in `state`; once taken, its lease is lost to another."""

    def __init__(self, state: str, store: bool) -> None:
        super().__init__([CREATED])
        self.discarded = self.read = False
        words = dict.fromkeys(("tenant", "user", "agent", "model", "revision", "session_id", "partition"), "a")
        meta = orjson.dumps({**words, "store": store, "created_at": 1, "body": {}}).decode()
        self._fields = {"state": state, "session": "dev:p", "fence": "7", "generation": "1", "meta": meta}

    async def due(self, now_ms: int, limit: int) -> list[str]:
        return ["caresp_1"]

    async def acquire(self, response: str) -> tuple[str, TurnRecord]:
        return "OK", TurnRecord.parse(response, self._fields)

    async def discard(self, response: str, fence: int) -> None:
        self.discarded = True

    async def log(self, response: str) -> list[Entry]:
        self.read = True
        return []

    async def renew(self, held: list[tuple[str, int]]) -> list[str]:
        return ["FENCED"]


class Archive(Store):
    """Holds the end of every turn; `away`: or answers nothing."""

    def __init__(self, *, away: bool) -> None:
        super().__init__()
        self.away = away

    async def has(self, tenant: str, response: str) -> bool:
        if self.away:
            raise StoreUnavailable("no answer")
        return True

    async def accepted(self, response: str) -> object:
        return self


@pytest.mark.parametrize(
    ("state", "stored", "away", "ended"),
    [
        ("running", True, False, True),
        ("queued", True, False, True),
        ("closing", True, False, False),  # stored and not yet shown
        ("running", False, False, False),
        ("running", True, True, False),  # without a store turns go on
    ],
)
async def test_a_turn_whose_end_is_stored_is_not_run_again(state: str, stored: bool, away: bool, ended: bool) -> None:
    ledger, unused = Due(state, stored), cast("Any", None)
    keeper = Keeper(
        engine=unused, ledger=ledger, store=Archive(away=away), clock=Clock(),
        recovery=SimpleNamespace(on_loss=lambda restore: None),
        limits=lambda record: LIMITS, generation=lambda: 1, calm=lambda: 0.0, capacity=1,
    )  # type: ignore[arg-type]  # fmt: skip
    await keeper.take_due()
    assert (ledger.discarded, ledger.read) == (ended, not ended)

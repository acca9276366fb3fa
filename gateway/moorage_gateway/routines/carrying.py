"""Steps that a run's tries have made, for its next try (design.md §8): a further try is a new turn with an empty journal, but for these.

Taken out of the journal when a try has failed, kept in the object store until the run is over, put into the journal of the next try's turn
before that turn is accepted. So the agent that calls the same step, with the same arguments, gets the result it had. Layer: gateway.

a step of a try that failed       | in the next try
----------------------------------|------------------------------------------------------------------
completed                         | its result, and it does not run
its function raised               | not carried: it runs again, which is what the try is for
begun, its end unknown            | told as unknown, once, as a later attempt is told
no room (`MOST` bytes in all)     | told as unknown: better asked about than made twice
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import orjson

from moorage_api.ledger.journal import Carried, JournalLedger
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.spilling import Spill
from moorage_gateway.store import Store, StoreUnavailable

MOST = 16 * 2**20
"""Bytes of the results of one run's steps that are carried."""
LASTS_MS = 7 * 24 * 3600 * 1000
"""How long carried entries wait in Redis for their turn, beyond its own time: it may be queued behind others of its session."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One entry, `FINGERPRINT.N`; `answer` is None where its outcome is not known."""

    entry: str
    name: str
    answer: Answer | None


class Carrying:
    """Every method may raise LedgerError or StoreUnavailable."""

    def __init__(self, ledger: JournalLedger, spill: Spill, store: Store) -> None:
        self._ledger = ledger
        self._spill = spill
        self._store = store

    async def take(self, tenant: str, routine: str, run: str, response: str) -> None:
        """Keeps what a try that has failed leaves to the next one; done again it is the same."""
        found, room = list[Step](), MOST
        for kept in await self._ledger.whole(response):
            if kept.what.get("kind") != "step":
                continue
            answer = None
            if kept.state == "completed" and kept.answer:
                answer = await self._spill.get(tenant, response, kept.answer)
            size = len(answer.body) if answer is not None else 0
            found.append(Step(kept.entry, kept.what.get("name", ""), answer if size <= room else None))
            room -= min(size, room)
        if found:
            key = _key(tenant, routine, run)
            held = _unpacked(await self._store.get(key) or b"[]")  # more than a journal that Redis has lost since
            await self._store.put(key, _packed(joined(held, worth(found))))

    async def give(self, tenant: str, routine: str, run: str, response: str, *, lasts_ms: int) -> None:
        """Puts it into the journal of the turn that will be this response; nothing where there is none, or it was done before."""
        data = await self._store.get(_key(tenant, routine, run))
        if data is None:
            return
        entries, held = list[Carried](), 0
        for step in _unpacked(data):
            if step.answer is None:
                entries.append(Carried(step.entry, "unknown", _what(step), b""))
                continue
            answer = await self._spill.put(tenant, response, f"{step.entry}.0", step.answer, held=held)
            held += len(answer)
            entries.append(Carried(step.entry, "completed", _what(step), answer))
        await self._ledger.carry(response, entries, lasts_ms + LASTS_MS)

    async def forget(self, tenant: str, routine: str, run: str) -> None:
        """The run is over. A store that is away keeps a few bytes that nobody reads."""
        with suppress(StoreUnavailable):
            await self._store.delete(_key(tenant, routine, run))


def worth(steps: Sequence[Step]) -> list[Step]:
    """Those that a next try is told of, numbered anew: its first call of a step meets the first that did not fail."""
    counts, found = dict[str, int](), list[Step]()
    for step in sorted(steps, key=lambda one: _number(one.entry)):
        if step.answer is not None and _failed(step.answer):
            continue
        fingerprint = step.entry.rpartition(".")[0]
        number = counts.get(fingerprint, 0)
        counts[fingerprint] = number + 1
        found.append(replace(step, entry=f"{fingerprint}.{number}"))
    return found


def joined(before: Iterable[Step], now: Iterable[Step]) -> list[Step]:
    """Both; of one entry the one whose outcome is known."""
    found = {one.entry: one for one in before}
    for one in now:
        if one.answer is not None or one.entry not in found:
            found[one.entry] = one
    return list(found.values())


def _number(entry: str) -> int:
    return int(entry.rpartition(".")[2])


def _failed(answer: Answer) -> bool:
    # As `steps.py` wrote it: what a file name may hold is JSON to the standard library, and to no other.
    return "error" in (json.loads(answer.body).get("outcome") or {})


def _what(step: Step) -> dict[str, str]:
    return {"kind": "step", "name": step.name, "carried": "1"}


def _packed(steps: Iterable[Step]) -> bytes:
    return orjson.dumps(
        [[one.entry, one.name, b64encode(one.answer.encode()).decode() if one.answer else None] for one in steps]
    )


def _unpacked(data: bytes) -> list[Step]:
    return [
        Step(entry, name, Answer.decode(b64decode(answer)) if answer is not None else None)
        for entry, name, answer in orjson.loads(data)
    ]


def _key(tenant: str, routine: str, run: str) -> str:
    return f"routine-steps/{tenant}/{routine}/{run}"

"""Completed steps of one turn, given on to another that does the same over: a run that failed is tried again. Layer: engine.

    t/TENANT/responses/ID/journal/carried    what turn ID begins with: fingerprint → results, in the order they were come by

An object of the new turn, written before that is accepted, so it outlives Redis. What failed is not in it: a try that is made because
something failed makes that again. What is not known is in it without a result, and is told so. The N-th equal step of the new turn gets
the N-th of them.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

import orjson

from moorage_api.ledger.journal import JournalLedger
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.spilling import INLINE_ALL, Spill
from moorage_gateway.store import Store
from moorage_gateway.turns import archive

MOST = 2_000
"""Results that are given on: as many as one turn may have of all calls."""
MOST_BYTES = 2 * 2**20
"""Of results that lie in the object itself; further ones are objects beside it, and large ones stay where they are, and are named."""
TURNS = 64
"""Turns whose results a gateway has at hand."""

Carries = Callable[[str], Awaitable[bool]]
"""Whether a turn was accepted with what another one completed."""


@dataclass(frozen=True)
class _Result:
    """As the journal of the turn `response` holds it; `held` is empty where nobody knows how it ended."""

    response: str
    held: str


_Results = dict[str, list[_Result]]


@dataclass(frozen=True)
class Given:
    """What a step was given; `answer` None: it was begun, and nobody knows how it ended."""

    answer: Answer | None


class Gone(Exception):
    """The step was completed, and its result is not in the store any more."""


class Carrying:
    """Gives results on, and finds them. Methods raise LedgerError and StoreUnavailable."""

    def __init__(self, ledger: JournalLedger, spill: Spill, store: Store, carries: Carries) -> None:
        self._ledger = ledger
        self._spill = spill
        self._store = store
        self._carries = carries
        self._known: OrderedDict[str, _Results] = OrderedDict()

    async def give(self, tenant: str, response: str, following: str) -> None:
        """What `following` begins with: what `response` completed, and what it was given and did not ask for. Once: the turn that gives has
        ended, and after a loss of Redis its journal would say less."""
        if await self._store.get(_key(tenant, following)) is not None:
            return
        found, met = await self._made(tenant, response)
        for print_, results in (await self._read(tenant, response)).items():
            found.setdefault(print_, []).extend(results[met.get(print_, 0) :])
        kept = await self._fitting(tenant, following, found)
        if kept:
            written = {print_: [asdict(one) for one in results] for print_, results in kept.items()}
            await self._store.put(_key(tenant, following), orjson.dumps(written))

    async def get(self, tenant: str, response: str, entry: str) -> Given | None:
        """What this entry of the turn was given; None: its step is to be run. Raises Gone."""
        print_, number = _parts(entry)
        results = (await self._of(tenant, response)).get(print_, [])
        if number >= len(results):
            return None
        result = results[number]
        if not result.held:
            return Given(None)
        answer = await self._spill.get(tenant, result.response, result.held.encode())
        if answer is None:
            raise Gone(entry)
        return Given(answer)

    async def _of(self, tenant: str, response: str) -> _Results:
        if response not in self._known:
            carries = await self._carries(response)
            self._known[response] = await self._read(tenant, response) if carries else {}
            while len(self._known) > TURNS:
                self._known.popitem(last=False)
        self._known.move_to_end(response)
        return self._known[response]

    async def _read(self, tenant: str, response: str) -> _Results:
        data = await self._store.get(_key(tenant, response))
        if data is None:
            return {}
        return {print_: [_Result(**one) for one in results] for print_, results in orjson.loads(data).items()}

    async def _made(self, tenant: str, response: str) -> tuple[_Results, dict[str, int]]:
        """What the turn's steps came to, in the order of their occurrence, and how many of a kind it asked for."""
        steps = [one for one in await self._ledger.entries(response) if one.what.get("kind") == "step"]
        found, met = _Results(), dict[str, int]()
        for one in sorted(steps, key=lambda one: _parts(one.entry)):
            print_, number = _parts(one.entry)
            met[print_] = number + 1
            if one.state != "completed":  # also one that is begun: who made it has ended, and reports no more
                found.setdefault(print_, []).append(_Result(response, ""))
                continue
            held = await self._ledger.answer(response, one.entry)
            answer = await self._spill.get(tenant, response, held)
            # As `steps.py` wrote it: what a file name may hold is JSON to the standard library, and to no other.
            if answer is None or "result" in json.loads(answer.body)["outcome"]:
                found.setdefault(print_, []).append(_Result(response, held.decode()))
        return found, met

    async def _fitting(self, tenant: str, following: str, found: _Results) -> _Results:
        """The same, with what is too much for one object beside it."""
        kept = _Results()
        size = 0
        flat = [(print_, one) for print_, results in found.items() for one in results]
        for at, (print_, one) in enumerate(flat[:MOST]):
            size += len(one.held)
            if size > MOST_BYTES and one.held and not one.held.startswith("@"):
                answer = Answer.decode(one.held.encode())
                held = await self._spill.put(tenant, following, f"carried-{at}", answer, held=INLINE_ALL)
                one = _Result(following, held.decode())
            kept.setdefault(print_, []).append(one)
        return kept


def _parts(entry: str) -> tuple[str, int]:
    print_, _, number = entry.rpartition(".")
    return print_, int(number)


def _key(tenant: str, response: str) -> str:
    return f"{archive.folder(tenant, response)}journal/carried"

"""The journal of a turn as who develops its agent reads it: `GET …/responses/{id}/journal`. Layer: engine; reads only.

It is what `moorage replay` runs against, so it holds all that decides which call is which: requests as they are compared, answers as they
were given, and what of the endpoints' manifests a request is read by. No keys, no places.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from moorage_api.catalog import EndpointEntry
from moorage_api.ledger.journal import JournalLedger, Kept
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.spilling import Spill
from moorage_gateway.store import StoreUnavailable

MOST = 64 * 2**20
"""Bytes of answers in one document; those past it are left out."""
READ_BY = ("protocol", "models", "defaultModel", "aliases")
"""Fields of an endpoint that say how a request is read."""

Turn = Callable[[str, str], Awaitable[dict[str, Any] | None]]
"""Tenant and response → what its agent was asked (`agent`, `asked`, `history`); None where the ledger does not know it any more."""


class Exporting:
    """Makes the document. `spec` is an agent's manifest by tenant and name, `endpoint` a model endpoint."""

    def __init__(
        self,
        ledger: JournalLedger,
        spill: Spill,
        turn: Turn,
        spec: Callable[[str, str], dict[str, Any]],
        endpoint: Callable[[str, str], EndpointEntry | None],
    ) -> None:
        self._ledger = ledger
        self._spill = spill
        self._turn = turn
        self._spec = spec
        self._endpoint = endpoint

    async def document(self, tenant: str, response: str) -> dict[str, Any] | None:
        """The journal; None once it is gone. Raises LedgerError."""
        turn = await self._turn(tenant, response)
        if turn is None:
            return None
        models = [str(each) for each in self._spec(tenant, str(turn["agent"])).get("models") or ()]
        found = [(name, self._endpoint(tenant, name)) for name in models]
        endpoints = {
            name: {field: each.spec[field] for field in READ_BY if field in each.spec}
            for name, each in found
            if each is not None
        }
        calls, room = list[dict[str, Any]](), MOST
        for kept in await self._ledger.whole(response):
            answer = await self._answer(tenant, response, kept)
            if answer is not None and len(answer.body) > room:
                answer = None
            room -= len(answer.body) if answer is not None else 0
            calls.append(_call(kept, answer))
        return {
            "object": "response.journal",
            "id": response,
            **turn,
            "models": models,
            "endpoints": endpoints,
            "calls": calls,
        }

    async def _answer(self, tenant: str, response: str, kept: Kept) -> Answer | None:
        if not kept.answer:
            return None
        try:
            return await self._spill.get(tenant, response, kept.answer)
        except StoreUnavailable:
            return None


def _call(kept: Kept, answer: Answer | None) -> dict[str, Any]:
    told = None
    if answer is not None:
        body = base64.b64encode(answer.body).decode()
        told = {"status": answer.status, "headers": [list(each) for each in answer.headers], "body": body}
    request = orjson.loads(zlib.decompress(kept.request)) if kept.request else None
    return {"entry": kept.entry, "state": kept.state, "what": kept.what, "request": request, "answer": told}

"""The type `openapi`: an HTTP API whose operations are the tools. Layer: gateway, I/O rim.

A request goes to the manifest's `server`, whatever the document says; nothing that a model says leaves its place in it (`openapi/`). It is
sent exactly once, with the call's id as `Idempotency-Key` where HTTP does not call the method safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moorage_gateway.models.asking import Upstreams
from moorage_gateway.openapi import Api, ArgumentError, Request, build, told
from moorage_gateway.tools.documents import CALL_KEY, UNAUTHORIZED, Documents
from moorage_gateway.tools.opening import Opening
from moorage_gateway.tools.reading import answered, bearer_error, request, whole
from moorage_gateway.tools.results import MOST_TEXT
from moorage_gateway.tools.rpc import PARAMS
from moorage_gateway.tools.servers import CALL_ID, MOST_TITLE, Sending, ToolFault, ToolRefusal

_SAFE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class ApiPlace:
    """Which API. `described`: the manifest's `openapi`; `most`: bytes of an answer; `first`: which tools stand first in a list that may
    be too long."""

    key: str
    described: dict[str, Any]
    opening: Opening
    most: int
    first: Callable[[str], bool]

    @property
    def server(self) -> str:
        """Its base URL."""
        return str(self.described["server"])


class ApiUpstream:
    """See `ToolServer`."""

    def __init__(self, place: ApiPlace, upstreams: Upstreams, documents: Documents) -> None:
        self._place = place
        self._upstreams = upstreams
        self._documents = documents
        self.left_out: dict[str, str] = {}
        self.title = ""

    async def tools(self, seconds: float) -> list[Any]:
        """See ToolServer."""
        try:
            async with asyncio.timeout(seconds):
                api = await self._api()
        except TimeoutError:
            raise ToolFault(
                f"its OpenAPI document did not come within {seconds:.3g} s", sent=False, late=True
            ) from None
        self.left_out, self.title = api.refused, api.title[:MOST_TITLE]
        every = sorted(api.operations, key=lambda each: not self._place.first(each.name))
        return [each.definition for each in every]

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], seconds: float, sending: Sending
    ) -> dict[str, Any]:
        """See ToolServer."""
        sent = False
        try:
            async with asyncio.timeout(seconds):
                api = await self._api()
                operation = next((each for each in api.operations if each.name == tool), None)
                if operation is None:
                    raise ToolRefusal(PARAMS, f"its OpenAPI document has no operation {tool}")
                try:
                    made = build(operation, arguments)
                except ArgumentError as wrong:
                    return {"content": [{"type": "text", "text": f"Not called: {wrong}"}], "isError": True}
                await sending()
                sent = True
                return await self._asked(made, str(meta[CALL_ID]))
        except TimeoutError:
            raise ToolFault(f"it did not answer within {seconds:.3g} s", sent=sent, late=True) from None

    async def _api(self) -> Api:
        return await self._documents.of(self._place.key, self._place.described, self._place.opening)

    async def _asked(self, made: Request, call_id: str) -> dict[str, Any]:
        opening, url = self._place.opening, self._place.server + made.target
        headers = {"accept": "application/json, */*;q=0.5", **made.headers, **dict(opening.headers)}
        if made.method not in _SAFE:
            headers[CALL_KEY] = call_id
        asked = request(made.method, opening.url(url), headers, made.body or b"")
        async with answered(self._upstreams, asked) as coming:
            if coming.status >= 500:
                raise ToolFault(f"it answered {coming.status}", sent=True, status=coming.status)
            body = opening.concealed(await whole(coming, self._place.most))
            if coming.status == UNAUTHORIZED or bearer_error(coming):
                text = body.decode("utf-8", "replace")[:MOST_TEXT]
                raise ToolRefusal(PARAMS, f"it answered {coming.status} {text}".strip(), status=coming.status)
            return told(coming.status, {name.lower(): value for name, value in coming.headers}, body, url)

"""OpenAPI documents of upstreams, as this process has read them. Layer: gateway, state and I/O; what a document means is `openapi/`'s.

One is read when it is needed, and again `FRESH_S` later. Where that fails, what was read last serves for `STALE_S`; where there is nothing,
why it cannot be used is remembered for a moment, so that calls do not ask for it one after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moorage_api.errors import ApiError
from moorage_api.upstream_places import authority
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.openapi import Api, DocumentError, read
from moorage_gateway.request import JsonLimits, parse_json
from moorage_gateway.tools.opening import Opening
from moorage_gateway.tools.reading import answered, request, whole
from moorage_gateway.tools.servers import ToolFault

FRESH_S = 300.0
STALE_S = 3600.0
AGAIN_S = 30.0
"""Until the next try, where an older one serves."""
BROKEN_S = 5.0
FETCH_S = 20.0
LIMITS = JsonLimits(size=4 * 2**20, depth=96, containers=200_000)
MOST = 64
"""Documents that are held; the one that was used least recently goes first."""
UNAUTHORIZED = 401
CALL_KEY = "idempotency-key"
"""The header in which an API is told a call's id."""

log = logging.getLogger(__name__)


@dataclass
class _Held:
    described: dict[str, Any]
    reserved: frozenset[tuple[str, str]]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    api: Api | None = None
    fault: ToolFault | None = None
    read_at: float = 0.0
    until: float = float("-inf")


class Documents:
    """Those of this process. `now` in seconds that only go forward."""

    def __init__(self, upstreams: Upstreams, now: Callable[[], float]) -> None:
        self._upstreams = upstreams
        self._now = now
        self._held: OrderedDict[str, _Held] = OrderedDict()

    async def of(self, key: str, described: dict[str, Any], opening: Opening) -> Api:
        """What the document of this upstream says; `described` is its `openapi`. Raises ToolFault."""
        held = self._found(key, described, opening)
        async with held.lock:
            if self._now() < held.until:
                if held.api is not None:
                    return held.api
                raise _again(held.fault)
            try:
                api = await self._read(described, opening, held.reserved)
            except ToolFault as fault:
                return self._without(key, held, fault)
            if api.refused:
                log.warning("%s: %d operations of its document are no tools, as %s", key, len(api.refused), _first(api))
            now = self._now()
            held.api, held.fault, held.read_at = api, None, now
            held.until = now + FRESH_S if described.get("url") else float("inf")
            return api

    def _found(self, key: str, described: dict[str, Any], opening: Opening) -> _Held:
        held, reserved = self._held.get(key), opening.reserved | {("header", CALL_KEY)}
        if held is None or held.reserved != reserved or (
            held.described is not described and held.described != described
        ):  # fmt: skip
            held = self._held[key] = _Held(described, reserved)
        held.described = described  # the same object is compared in no time
        self._held.move_to_end(key)
        while len(self._held) > MOST:
            self._held.popitem(last=False)
        return held

    def _without(self, key: str, held: _Held, fault: ToolFault) -> Api:
        now = self._now()
        if held.api is not None and now - held.read_at < STALE_S:
            log.warning("%s: %s; what was read earlier serves on", key, fault)
            held.until = now + AGAIN_S
            return held.api
        held.api, held.fault = None, fault
        held.until = now if fault.status == UNAUTHORIZED else now + BROKEN_S  # another token may open it at once
        raise fault

    async def _read(self, described: dict[str, Any], opening: Opening, reserved: frozenset[tuple[str, str]]) -> Api:
        url = described.get("url")
        try:
            if url is None:
                return await asyncio.to_thread(read, described["document"], reserved)
            data = await self._fetched(str(url), str(described["server"]), opening)
            return await asyncio.to_thread(lambda: read(parse_json(data, LIMITS), reserved))
        except (DocumentError, ApiError) as why:
            text = why.message if isinstance(why, ApiError) else str(why)
            raise ToolFault(f"its OpenAPI document cannot be used: {text}", sent=False, final=True) from None

    async def _fetched(self, url: str, server: str, opening: Opening) -> bytes:
        """The document's text. What opens the API goes nowhere else."""
        near = url[:8] == server[:8] and authority(url) == authority(server)
        given = opening if near else Opening()
        asked = request("GET", given.url(url), {"accept": "application/json", **dict(given.headers)})
        try:
            async with asyncio.timeout(FETCH_S), answered(self._upstreams, asked) as coming:
                if coming.status != 200:
                    raise ToolFault(f"it answered {coming.status}", sent=False, status=coming.status)
                return await whole(coming, LIMITS.size)
        except TimeoutError:
            raise _of_document(ToolFault(f"it did not answer within {FETCH_S:g} s", sent=False, late=True)) from None
        except ToolFault as fault:
            raise _of_document(fault) from None


def _of_document(fault: ToolFault) -> ToolFault:
    """The same as a fault of the document: nothing of a call was sent. One that is too long stays so until it is changed."""
    final = fault.final or fault.large
    return ToolFault(f"its OpenAPI document: {fault}", sent=False, late=fault.late, final=final, status=fault.status)


def _again(fault: ToolFault | None) -> ToolFault:
    """A fault for one more asker: an exception that is raised twice grows."""
    if fault is None:
        return ToolFault("its OpenAPI document was not read", sent=False)
    return ToolFault(str(fault), sent=False, late=fault.late, final=fault.final, status=fault.status)


def _first(api: Api) -> str:
    where, why = next(iter(api.refused.items()))
    return f"{where}: {why}"

"""The door of a replayed agent: reads requests as a gateway does, answers them from the journal, and asks nobody. Layer: local, I/O rim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from moorage_api.catalog import EndpointEntry
from moorage_api.wire.calls import MAX_BODY
from moorage_gateway.clock import SystemClock
from moorage_gateway.journal.answers import error
from moorage_gateway.journal.kinds import Asked, CallRefused
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.models.credentials import NoCredentials
from moorage_gateway.models.identity import WorkloadTokens
from moorage_gateway.models.kind import Models
from moorage_local.replay.matching import Matching

TENANT = "replay"


class Door:
    """Serves on loopback. `differed` is set with the first difference: there is no sense in going on."""

    def __init__(self, journal: dict[str, Any], matching: Matching) -> None:
        entries = {name: EndpointEntry(TENANT, name, spec) for name, spec in journal["endpoints"].items()}
        self._spec = {"models": list(journal["models"])}
        self._agent = str(journal["agent"])
        # It prepares requests and makes none: nothing here may be connected to.
        clock, nowhere = SystemClock(), Upstreams(lambda: frozenset())
        identity = WorkloadTokens(nowhere, None, frozenset(), clock.monotonic)
        self._models = Models(lambda _, name: entries.get(name), nowhere, NoCredentials(), clock, identity=identity)
        self.matching = matching
        self.differed = asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """The port, for as long as the context lasts."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield int(runner.addresses[0][1])
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = tuple((name.lower(), value) for name, value in request.headers.items())
        asked = Asked(TENANT, self._agent, self._spec, request.method, request.raw_path, headers, body, session="")
        try:
            call = self._models.prepare(asked)
        except CallRefused as no:
            if not request.raw_path.startswith(self._models.prefix):
                self.matching.unknown(f"{request.method} {request.path}")
                self.differed.set()
            return _answer(no.answer.status, list(no.answer.headers), no.answer.body)
        found = self.matching.ask(call.fingerprint, call.canonical)
        if found is None or found.answer is None:
            self.differed.set()
            said = error(409, "conflict", "replay_differs", "This call is not in the journal that is replayed.")
            return _answer(said.status, list(said.headers), said.body)
        return _answer(*found.answer)


def _answer(status: int, headers: list[tuple[str, str]], body: bytes) -> web.Response:
    kept = [each for each in headers if each[0].lower() not in ("content-length", "transfer-encoding", "connection")]
    return web.Response(status=status, headers=kept, body=body)

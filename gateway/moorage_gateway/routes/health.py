"""Liveness, readiness that means it, and metrics. Raw ASGI. Layer: gateway, rim.

path       | 200 when
-----------|--------------------------------------------------------------
/healthz   | the process lives
/servez    | this replica takes calls: it does not drain
/readyz    | that, and what all replicas share answers: Redis and the store

All three on the public and the control listener, `/metrics` on the control listener only. Whoever picks among replicas asks `/servez`: with
Redis away `/readyz` fails on all of them at once, and a caller that none is picked for is told neither why nor when to come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from moorage_gateway.metrics import Metrics
from moorage_gateway.middleware.drain import Draining
from moorage_gateway.routes import answers

HEALTHZ, SERVEZ, READYZ, METRICS = "/healthz", "/servez", "/readyz", "/metrics"
PATHS = frozenset({HEALTHZ, SERVEZ, READYZ})
PROBE_SECONDS = 2.0
FRESH_SECONDS = 1.0


class Health:
    """Answers the probes. `probes` are named checks that raise when their part does not answer; results live a second."""

    def __init__(
        self,
        probes: Mapping[str, Callable[[], Awaitable[object]]],
        draining: Draining,
        monotonic: Callable[[], float],
        metrics: Metrics | None = None,
    ) -> None:
        self._probes = dict(probes)
        self._draining = draining
        self._monotonic = monotonic
        self._metrics = metrics
        self._checked = float("-inf")
        self._found: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one probe; anything else is a 404."""
        path = scope["path"]
        if path == HEALTHZ:
            await answers.send_json(send, 200, {"status": "alive"})
        elif path == SERVEZ:
            drains = self._draining.notified
            await answers.send_json(send, 503 if drains else 200, {"status": "draining" if drains else "serving"})
        elif path == READYZ:
            found = await self.check()
            ready = all(word == "ok" for word in found.values())
            await answers.send_json(send, 200 if ready else 503, {"status": "ready" if ready else "unready", **found})
        elif path == METRICS and self._metrics is not None:
            await answers.send_bytes(send, 200, self._metrics.render(), self._metrics.content_type)
        else:
            await answers.send_json(send, 404, {"error": {"message": "Nothing is served under this path."}})

    async def check(self) -> dict[str, str]:
        """Each part's word: `ok` or why not. Many askers share one check a second."""
        if self._draining.notified:
            return {"gateway": "draining"}
        async with self._lock:
            if self._monotonic() - self._checked > FRESH_SECONDS:
                words = await asyncio.gather(*(self._ask(probe) for probe in self._probes.values()))
                self._found = dict(zip(self._probes, words, strict=True))
                self._checked = self._monotonic()
        return self._found

    async def _ask(self, probe: Callable[[], Awaitable[object]]) -> str:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await probe()
        except (
            Exception
        ) as error:  # whatever a client raises means the same to a probe; no text, it may hold an address
            return type(error).__name__
        return "ok"

"""`/healthz` and `/readyz`, and a few numbers. Layer: I/O rim; the smallest server that does it.

Alive: the process answers and its leader's loop moved of late. Ready: what the cluster holds is known; a replica without the lease is
ready too.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web


class Health:
    """`ready` and `alive` are asked at each request; `numbers` gives name → value for `/metrics`."""

    def __init__(
        self, *, ready: Callable[[], bool], alive: Callable[[], bool], numbers: Callable[[], dict[str, float]]
    ) -> None:
        self._ready = ready
        self._alive = alive
        self._numbers = numbers
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port. Raises OSError."""
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._readiness)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return _word(self._alive(), "ok", "the loop stands still")

    async def _readiness(self, _: web.Request) -> web.Response:
        return _word(self._ready(), "ready", "the cluster is not known yet")

    async def _metrics(self, _: web.Request) -> web.Response:
        lines = [f"{name} {value:g}\n" for name, value in sorted(self._numbers().items())]
        return web.Response(text="".join(lines), content_type="text/plain")


def _word(good: bool, yes: str, no: str) -> web.Response:
    return web.Response(text=f"{yes if good else no}\n", status=200 if good else 503)

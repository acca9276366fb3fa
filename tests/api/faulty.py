"""A proxy before the API server that does an operator what networks and busy servers do. Layer: I/O rim of the tests.

The operator speaks plain HTTP to it, on loopback; it speaks to the real API server with the operator's certificate. Requests of the lease
pass untouched: who holds it is tried elsewhere, and nothing here starts a further operator. `Fault` says what happens to the rest; a seed
chooses to which. Limits: a fault of a request comes before the server saw it or after it answered, and never in the midst of a body.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
KEPT = ("Accept", "Content-Type", "User-Agent")
WATCH_LINE = 2**22
WORDS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong. Shares are of 1; those of `drop`, `double` and `swap` are of a watch's events.

    `refuse`: (status, share of requests that get it in place of an answer); `writes_only`: of writes alone. `lose`: the server does what it
    is asked, and its answer never comes, since the connection breaks. `expire`: a watch gets `ERROR` with code 410 after so many events,
    and so does each one from no later a version, until somebody lists (`forgotten`). `first`: only so many faults; None for no end.
    """

    refuse: tuple[tuple[int, float], ...] = ()
    writes_only: bool = False
    lose: float = 0.0
    drop: float = 0.0
    double: float = 0.0
    swap: float = 0.0
    expire: int = 0
    first: int | None = None


class Faulty:
    """The proxy. `counts`: what it did, by name; `watches` and `expired`: those that were begun, and those that it ended so, by path."""

    def __init__(self, upstream: str, tls: ssl.SSLContext, fault: Fault, seed: str) -> None:
        self._upstream = upstream
        self._tls = tls
        self._fault = fault
        self._chance = random.Random(seed)
        self._session: aiohttp.ClientSession | None = None
        self.counts: Counter[str] = Counter()
        self.watches: Counter[str] = Counter()
        self.expired: Counter[str] = Counter()
        self._forgotten: dict[str, int] = {}  # path → the last version that is too old

    def _hits(self, share: float, name: str) -> bool:
        """Whether a fault of that share happens now."""
        done = self._fault.first is not None and self.counts.total() >= self._fault.first
        if done or self._chance.random() >= share:
            return False
        self.counts[name] += 1
        return True

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        watch = request.query.get("watch") in ("true", "1")
        self.watches[request.path] += watch
        if request.method == "GET" and not watch:
            self._forgotten.pop(request.path, None)
        spared = "/leases" in request.path or (self._fault.writes_only and request.method not in WRITES)
        if not spared:
            for status, share in self._fault.refuse:
                if self._hits(share, str(status)):
                    return _refused(status)
        assert self._session is not None
        heads = {name: request.headers[name] for name in KEPT if name in request.headers}
        url = f"{self._upstream}{request.rel_url}"
        body = await request.read() or None
        async with self._session.request(request.method, url, data=body, headers=heads, ssl=self._tls) as answer:
            if watch and answer.status == 200:
                return await self._watched(request, answer)
            raw = await answer.read()
            if not spared and self._hits(self._fault.lose, "lost"):
                assert request.transport is not None
                request.transport.abort()
                return web.Response(status=502)
            content = answer.headers.get("Content-Type", "application/json")
            return web.Response(status=answer.status, body=raw, headers={"Content-Type": content})

    async def _watched(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Passes a watch on, event by event, as the fault has it."""
        told = web.StreamResponse(headers={"Content-Type": "application/json"})
        await told.prepare(request)
        if int(request.query.get("resourceVersion") or 0) <= self._forgotten.get(request.path, -1):
            await self._expire(request, told, "forgotten")
            return told
        held, passed = b"", 0
        with contextlib.suppress(ConnectionError):
            async for line in answer.content:
                if b'"type":"BOOKMARK"' not in line:
                    if self._hits(self._fault.drop, "dropped"):
                        continue
                    if not held and self._hits(self._fault.swap, "swapped"):
                        held = line
                        continue
                twice = 2 if self._hits(self._fault.double, "doubled") else 1
                await told.write(line * twice + held)
                held, passed = b"", passed + 1
                if self._fault.expire and passed >= self._fault.expire:
                    self._forgotten[request.path] = int(json.loads(line)["object"]["metadata"]["resourceVersion"])
                    await self._expire(request, told, "expired")
                    return told
            await told.write_eof()
        return told

    async def _expire(self, request: web.Request, told: web.StreamResponse, name: str) -> None:
        self.counts[name] += 1
        self.expired[request.path] += 1
        await told.write(EXPIRED)
        await told.write_eof()


EXPIRED = json.dumps(
    {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
).encode() + b"\n"  # fmt: skip


def _refused(status: int) -> web.Response:
    word = WORDS[status]
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": word,
        "code": status,
        "message": "a test asked",
    }
    heads = {"Retry-After": "1"} if status in (429, 503) else {}
    return web.json_response(body, status=status, headers=heads)


@contextlib.asynccontextmanager
async def before(kubeconfig: Path, fault: Fault, folder: Path, seed: str) -> AsyncIterator[tuple[Faulty, Path]]:
    """A proxy before the server of `kubeconfig`, and the kubeconfig that leads to it, in `folder`."""
    given: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    cluster, user = given["clusters"][0]["cluster"], given["users"][0]["user"]
    tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
    tls.load_cert_chain(user["client-certificate"], user["client-key"])
    made = Faulty(cluster["server"], tls, fault, seed)
    app = web.Application(client_max_size=2**23)
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(), read_bufsize=WATCH_LINE, trust_env=False
    ) as made._session:
        try:
            await site.start()
            cluster.pop("certificate-authority")
            port = runner.addresses[0][1]
            given["clusters"][0]["cluster"] = cluster | {"server": f"http://127.0.0.1:{port}"}
            given["users"][0]["user"] = {}
            through = folder / f"faulty-{port}.kubeconfig"
            through.write_text(yaml.safe_dump(given))
            yield made, through
        finally:
            await asyncio.shield(runner.cleanup())

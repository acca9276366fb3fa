"""The control API against its own OpenAPI document: generated requests, good and bad, over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis.asyncio as aioredis
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks

from fakes.control_app import ControlApp
from fakes.control_worlds import World
from fakes.valkey import Valkey
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.store import MemoryStore

pytestmark = pytest.mark.component

EXAMPLES = 12  # per operation


@dataclass
class Running:
    url: str
    key: str
    document: dict[str, Any]


class Server(threading.Thread):
    """The control API with its loop in a thread of its own, as the generated requests are synchronous."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(daemon=True)
        self._redis_url = redis_url
        self._ready = threading.Event()
        self._server: uvicorn.Server | None = None
        self.running: Running | None = None

    def run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        ledger = LedgerClient(aioredis.Redis.from_url(self._redis_url), who="gw-schema")
        await ledger.found()
        world = World(ledger, MemoryStore())
        app = ControlApp(world, within=0.2)
        key = await app.key("acme", "ann", "admin")
        self._server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off", loop="asyncio")
        )
        async with app.providing(lambda _: {"ok": True, "revision": "abc123"}):
            serving = asyncio.create_task(self._server.serve())
            while not self._server.started:
                await asyncio.sleep(0.01)
            port = self._server.servers[0].sockets[0].getsockname()[1]
            self.running = Running(f"http://127.0.0.1:{port}", key, app.control.openapi())
            self._ready.set()
            await serving
        await world.records.aclose()
        await ledger.aclose()

    def wait(self) -> Running:
        assert self._ready.wait(20) and self.running is not None
        return self.running

    def stop(self) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self.join(20)


@pytest.fixture(scope="module")
def served(valkey_server: Valkey) -> Iterator[Running]:
    valkey_server.flush()
    server = Server(valkey_server.url)
    server.start()
    yield server.wait()
    server.stop()


CHECKS = [
    checks.not_a_server_error,
    checks.response_schema_conformance,
    checks.content_type_conformance,
    checks.status_code_conformance,
]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_generated_request_gets_a_500_or_an_undocumented_answer(served: Running, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(served.document)
    seen: set[str] = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        try:
            strategy = operation.as_strategy(generation_mode=mode)
        except schemathesis.errors.SchemathesisError:
            continue

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=strategy)
        def conforms(case: Any) -> None:
            headers = {**dict(case.headers or {}), "authorization": f"Bearer {served.key}"}
            response = case.call(base_url=served.url, headers=headers, timeout=20)
            seen.add(case.operation.label)
            case.validate_response(response, checks=CHECKS)

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong about a request that has no parts
            conforms()
    assert len(seen) > (20 if mode is GenerationMode.POSITIVE else 10)

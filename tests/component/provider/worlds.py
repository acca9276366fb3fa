"""The world of the conformance suite around a given machine: Valkey, both halves of the ledger, a running provider."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis

from component.provider.conformance import AGENT, Hands, World
from moorage_api.kinds import parse
from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.provider.base import Machine, Revision
from moorage_api.provider.loop import Provider, ProviderSettings
from moorage_gateway.ledger_client import LedgerClient
from moorage_local import valkey
from moorage_local.state import State

MakeRevision = Callable[[str, str, bool], Revision]


def spec(agent: str, mode: str, **more: Any) -> HostedAgentSpec:
    """The spec of the suite's agents."""
    own = {"source": {"path": "."}, "pool": {"min": 2, "max": 3}, "env": [{"name": "MODE", "value": mode}]}
    document = {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": agent}}
    return parse({**document, "spec": {**own, **more}}).spec


@contextlib.asynccontextmanager
async def world_of(
    state: State, machine: Machine, hands: Hands, revision: MakeRevision, *, token_key: str = "00" * 32
) -> AsyncIterator[World]:
    """A running world with the suite's agent deployed."""
    async with valkey.running(state, valkey.ValkeySettings(fsync="everysec")) as server:
        ours = LedgerClient(Redis.from_url(server.url), who="provider")
        gateways = LedgerClient(Redis.from_url(server.url), who="gateway")
        await ours.found()
        await gateways.found()
        ledger = ProviderLedger(ours)
        provider = Provider(
            ledger,
            machine,
            now=time.monotonic,
            found=ours.found,
            token_key=token_key,
            settings=ProviderSettings(tick=0.05, quota_every=0.2),
        )

        async def deploy(agent: str = AGENT, mode: str = "first", broken: bool = False) -> str:
            fresh = revision(agent, mode, broken)
            provider.deploy(fresh, generation=1)
            return fresh.revision

        task = asyncio.create_task(provider.run())
        name = await deploy()
        try:
            yield World(provider, ledger, SessionLedger(gateways), gateways, hands, name, deploy)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await ours.aclose()
            await gateways.aclose()


async def call(one: Descriptor, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """One call of the shim's interface."""
    if one.endpoint.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(one.endpoint.removeprefix("unix:"))
    else:
        where = urlsplit(one.endpoint)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
    data = json.dumps(body).encode()
    verb = "GET" if path == "/shim/status" else "POST"
    head = f"{verb} {path} HTTP/1.1\r\nhost: x\r\nx-moorage-secret: {one.secret}\r\ncontent-length: {len(data)}\r\n"
    writer.write(f"{head}content-type: application/json\r\nconnection: close\r\n\r\n".encode() + data)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    return int(top.split(b" ")[1]), json.loads(rest or b"{}")

"""A gateway on a real Valkey, and sessions of which nothing is real but what their sandboxes say at its sandbox port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fakes.catalogs import learned
from fakes.gateway_settings import settings
from fakes.trust import trusted
from fakes.valkey import Valkey
from moorage_api import names, tokens
from moorage_api.catalog import AgentEntry, RevisionEntry
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor, SessionIdentity
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.wire import checkpoints as wire
from moorage_gateway.app import create_gateway
from moorage_gateway.ledger_client import LedgerClient

KEY = "5a" * 32
WITHIN = 20.0


def identity(tenant: str, user: str) -> SessionIdentity:
    return SessionIdentity(tenant, "a", user, "s-12345678", names.partition(tenant, "a", user, "s-12345678"), "r1")


class Port:
    """A gateway's sandbox port, and two sessions of two tenants, each in a sandbox of its own."""

    def __init__(self, url: str, ledger: LedgerClient) -> None:
        self.http = httpx2.AsyncClient(base_url=url, timeout=WITHIN, verify=trusted())
        self.sessions, self.provider = SessionLedger(ledger), ProviderLedger(ledger)
        self.epochs: dict[str, int] = {}

    async def session(self, sandbox: str, who: SessionIdentity, *, bound: bool = True) -> str:
        key = names.session_key(who.tenant, who.partition)
        await self.sessions.open_session(key, who)
        await self.provider.offer(Descriptor(sandbox, who.tenant, "a", "r1", "unix:/none", "s", f"v-{sandbox}"))
        claim = await self.sessions.claim(key, "r1", named=False)
        assert claim.sandbox == sandbox
        if bound:
            await self.sessions.bound(key, claim.epoch)
        self.epochs[key] = claim.epoch
        return key

    async def announce(self, key: str, sandbox: str, who: SessionIdentity) -> bool:
        """Whether the shim of that sandbox may go on, in the binding that it was told of first."""
        said = {
            "session": key, "epoch": self.epochs[key], "sandbox": sandbox, "state": "bound", "endpoint": "unix:/none",
            "session_id": who.session, "user": who.user,
        }  # fmt: skip
        token = tokens.sign(tokens.Identity(sandbox, who.tenant, "a", "r1", f"v-{sandbox}"), KEY)
        answer = await self.http.post("/sandbox/v1/announce", headers={"authorization": f"Bearer {token}"}, json=said)
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["epoch"] == self.epochs[key])

    async def call(self, method: str, path: str, sandbox: str, tenant: str, **more: Any) -> httpx2.Response:
        who = tokens.Identity(sandbox, tenant, "a", "r1", f"v-{sandbox}")
        head = {"authorization": f"Bearer {tokens.sign(who, KEY)}"}
        return await self.http.request(method, wire.PATH + path, headers=head, **more)

    async def put(self, kind: str, data: bytes, sandbox: str, tenant: str) -> dict[str, Any]:
        name = wire.digest(data)
        answer = await self.call("PUT", f"/{kind}/{name}", sandbox, tenant, content=data)
        assert answer.status_code == 200, answer.text
        return {"name": name, "size": len(data)}

    async def offer(self, key: str, sandbox: str, tenant: str, **other: Any) -> httpx2.Response:
        body = {
            "session": key, "epoch": self.epochs[key], "number": 1, "quiet": True, "why": "schedule", "files": 1, "octets": 1,
            "packs": [await self.put("packs", b"pack", sandbox, tenant)],
            "manifest": await self.put("manifests", b"manifest", sandbox, tenant),
        } | other  # fmt: skip
        return await self.call("POST", "", sandbox, tenant, json=body)


@pytest.fixture
async def port(valkey: Valkey, ledger: LedgerClient, tmp_path: Path) -> AsyncIterator[Port]:
    gateway = await create_gateway(settings(valkey, tmp_path / "store"), access_sink=lambda _: None)
    await gateway.start()
    made = Port(gateway.sandbox_url, ledger)
    await made.provider.set_token_key(KEY)
    await made.provider.publish(
        AgentEntry("acme", "a", (RevisionEntry("r1"),), frozenset({"responses"}), "moorage", {})
    )
    await learned([gateway], lambda known: known.token_key is not None)
    yield made
    await made.http.aclose()
    await gateway.stop()

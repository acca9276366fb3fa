"""The checkpoint calls of the sandbox port: a sandbox reaches its own session's, while it holds it, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from fakes.catalogs import learned
from fakes.trust import trusted
from fakes.valkey import Valkey
from moorage_api import names, tokens
from moorage_api.catalog import AgentEntry, RevisionEntry
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor, SessionIdentity
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.wire import checkpoints as wire
from moorage_gateway.app import create_gateway
from moorage_gateway.checkpoints import Checkpoints
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.settings import Settings

pytestmark = [pytest.mark.component, pytest.mark.tenancy]

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

    async def session(self, sandbox: str, who: SessionIdentity) -> str:
        key = names.session_key(who.tenant, who.partition)
        await self.sessions.open_session(key, who)
        await self.provider.offer(Descriptor(sandbox, who.tenant, "a", "r1", "unix:/none", "s", f"v-{sandbox}"))
        claim = await self.sessions.claim(key, "r1", named=False)
        assert claim.sandbox == sandbox
        await self.sessions.bound(key, claim.epoch)
        self.epochs[key] = claim.epoch
        return key

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
    settings = Settings(
        redis_url=SecretStr(valkey.url), store=str(tmp_path / "store"), durability="relaxed", public_port=0, sandbox_port=0,
        egress_port=0, control_port=0, drain_notice_seconds=0, drain_seconds=2,
    )  # fmt: skip
    gateway = await create_gateway(settings, access_sink=lambda _: None)
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


async def test_what_a_sandbox_stored_it_gets_back(port: Port) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    made = await port.offer(key, "sb-1", "acme", before="caresp_1")
    assert made.status_code == 200, made.text
    one = made.json()
    for name in (one["id"] if "id" in one else wire.Checkpoint.model_validate(one).id, "before:caresp_1"):
        assert (await port.call("GET", f"/{name}", "sb-1", "acme")).json() == one
    pack = await port.call("GET", f"/packs/{one['packs'][0]['name']}", "sb-1", "acme")
    assert pack.content == b"pack"
    assert (await port.call("GET", "/before:caresp_2", "sb-1", "acme")).status_code == 404


async def test_another_tenants_sandbox_finds_nothing_of_it(port: Port) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    one = (await port.offer(key, "sb-1", "acme")).json()
    await port.session("sb-2", identity("rival", "ann"))
    name = wire.Checkpoint.model_validate(one).id
    for path in (f"/{name}", f"/packs/{one['packs'][0]['name']}", f"/manifests/{one['manifest']['name']}"):
        assert (await port.call("GET", path, "sb-2", "rival")).status_code == 404, path
    assert (await port.offer(key, "sb-2", "rival")).status_code == 403
    lied = await port.call("GET", f"/{name}", "sb-1", "rival")  # a token of ours, but the session is another tenant's
    assert lied.status_code == 403


@pytest.mark.parametrize("end", ["unclaimed", "hibernated", "deleted", "elsewhere"])
async def test_a_sandbox_that_holds_no_session_stores_and_reads_nothing(port: Port, end: str) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    await port.offer(key, "sb-1", "acme")
    sandbox, epoch = "sb-1", port.epochs[key]
    match end:
        case "unclaimed":
            sandbox = "sb-9"
            await port.provider.offer(Descriptor("sb-9", "acme", "a", "r1", "unix:/none", "s", "v"))
        case "hibernated":
            await port.sessions.drain(key, epoch, idle_before=0)
            assert (await port.offer(key, "sb-1", "acme")).status_code == 200  # draining: it is asked for its last one
            await port.sessions.hibernated(key, epoch, "idle")
        case "deleted":
            await port.sessions.delete_session(key)
        case "elsewhere":
            await port.provider.gone("sb-1", "dead")
            await port.sessions.claim(key, "r1", named=False)
    for method, path in (("GET", "/before:x"), ("PUT", f"/packs/{wire.digest(b'x')}"), ("POST", "")):
        answer = await port.call(method, path, sandbox, "acme", content=b"x" if method != "GET" else None)
        assert answer.status_code == 403, (method, answer.text)


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({"epoch": 3}, 403),
        ({"session": "acme:ffffffffffffffff"}, 403),
        ({"packs": [{"name": "0" * 64, "size": 4}]}, 409),
        ({"number": 0}, 400),
        ({"why": "fun"}, 400),
        ({"packs": "none"}, 400),
        ({"manifest": {"name": "../../x", "size": 1}}, 400),
        ({"more": 1}, 400),
    ],
)
async def test_an_offer_that_is_wrong_makes_no_checkpoint(port: Port, other: dict[str, Any], status: int) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    assert (await port.offer(key, "sb-1", "acme", **other)).status_code == status
    assert (await port.call("GET", "/before:", "sb-1", "acme")).status_code == 404


async def test_a_checkpoint_of_a_session_that_is_deleted_meanwhile_is_none(port: Port, tmp_path: Path) -> None:
    key = await port.session("sb-1", identity("acme", "ann"))
    commit = Checkpoints.commit

    async def late(self: Checkpoints, *about: Any) -> wire.Checkpoint:
        await port.sessions.delete_session(key)  # it was still there when the sandbox was asked who it is
        return await commit(self, *about)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "commit", late)
        assert (await port.offer(key, "sb-1", "acme")).status_code == 403
    assert not list((tmp_path / "store").glob("t/acme/checkpoints/*"))


async def test_bodies_are_bounded_and_held_to_their_names(port: Port) -> None:
    await port.session("sb-1", identity("acme", "ann"))
    large = await port.call("PUT", f"/packs/{'0' * 64}", "sb-1", "acme", content=bytes(wire.MAX_PACK + 1))
    assert large.status_code == 413
    wrong = await port.call("PUT", f"/packs/{'0' * 64}", "sb-1", "acme", content=b"other bytes")
    assert wrong.status_code == 422
    for path in ("/packs/..%2f..%2fx", "/pointers/x", "/packs/short"):
        assert (await port.call("GET", path, "sb-1", "acme")).status_code == 404, path

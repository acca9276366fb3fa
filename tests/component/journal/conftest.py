"""Gateways on a real Valkey, a scripted server of models, and a session whose attempt runs: what a shim says, said by the test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from fakes.catalogs import learned
from fakes.models import Models, serving
from fakes.trust import trusted
from fakes.valkey import Valkey
from moorage_api import tokens
from moorage_api.catalog import AgentEntry, EndpointEntry, RevisionEntry, credential_name
from moorage_api.kinds import ModelEndpoint
from moorage_api.ledger.journal import JournalLedger
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor, SessionIdentity
from moorage_api.ledger.sessions import SessionLedger
from moorage_api.ledger.turns import Acceptance, TurnLedger
from moorage_api.wire import calls as wire
from moorage_gateway.app import Gateway, create_gateway
from moorage_gateway.catalog import Catalog
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.settings import Settings

KEY = "5e" * 32
SECRET = "sk-the-canary-0123456789"
WITHIN = 15.0


@pytest.fixture
def models() -> Iterator[Models]:
    """The scripted server."""
    with serving() as made:
        yield made


@dataclass
class Said:
    """What came back of one call."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def refused(self) -> str:
        return self.headers.get(wire.REFUSED, "")

    @property
    def replayed(self) -> bool:
        return self.headers.get(wire.ENTRY, "").endswith(" replayed")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """Of a chat completion."""
        return str(self.json["choices"][0]["message"]["content"])


@dataclass
class Desk:
    """Everything a test of calls needs."""

    models: Models
    valkey: Valkey
    folder: Path
    ledger: LedgerClient
    http: httpx2.AsyncClient
    gateways: list[Gateway] = field(default_factory=list)
    epoch: int = 0
    fence: int = 0
    numbers: int = 0

    session = "acme:0123456789abcdef"
    sandbox = "sb-1"
    turn = "caresp_0123456789abcdef00" + "x" * 32

    @property
    def provider(self) -> ProviderLedger:
        return ProviderLedger(self.ledger)

    @property
    def turns(self) -> TurnLedger:
        return TurnLedger(self.ledger)

    @property
    def journal(self) -> JournalLedger:
        return JournalLedger(self.ledger)

    async def gateway(self, **more: Any) -> Gateway:
        """One more gateway that serves."""
        settings = Settings(**{
            "redis_url": SecretStr(self.valkey.url), "store": str(self.folder / "store"), "durability": "relaxed", "public_port": 0,
            "sandbox_port": 0, "egress_port": 0, "control_port": 0, "drain_notice_seconds": 0, "drain_seconds": 5,
            "allowed_upstreams": f"127.0.0.1:{self.models.port}", "credentials": str(self.folder / "keys"), **more,
        })  # fmt: skip
        made = await create_gateway(settings, access_sink=lambda _: None)
        await made.start()
        self.gateways.append(made)
        await learned([made], lambda known: known.token_key is not None and known.get("acme", "a") is not None)
        return made

    async def publish(self, name: str = "m", *, agent_models: list[str] | None = None, **spec: Any) -> None:
        """A model endpoint as its manifest says, and the agent that may use it."""
        whole = {"protocol": "compatible", "baseUrl": f"{self.models.url}/v1", "retries": {"attempts": 0}, **spec}
        document = {
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "ModelEndpoint",
            "metadata": {"name": name},
            "spec": whole,
        }
        endpoint = ModelEndpoint.model_validate(document, by_alias=True, by_name=False)
        entry = EndpointEntry("acme", name, endpoint.wire_spec())
        await self.provider.publish_endpoint(entry)
        listed = {"models": agent_models if agent_models is not None else [name]}
        await self.provider.publish(
            AgentEntry("acme", "a", (RevisionEntry("r1"),), frozenset({"responses"}), "moorage", listed)
        )
        await learned(self.gateways, lambda known: known.endpoint("acme", name) == entry and _spec(known) == listed)

    def put_key(self, name: str, text: str) -> None:
        """As the chart's mounted Secret has it."""
        folder = self.folder / "keys"
        folder.mkdir(exist_ok=True)
        (folder / credential_name("acme", name)).write_text(text + "\n")

    async def begin(self, user: str = "ann") -> int:
        """A session in a sandbox, its turn running, one attempt begun."""
        who = SessionIdentity("acme", "a", user, "session-1", self.session.partition(":")[2], "r1")
        accepted = await self.turns.accept(
            Acceptance(
                self.turn,
                self.session,
                who,
                4,
                4_000_000_000_000,
                json.dumps({"tenant": "acme", "user": user}),
                "[]",
                ["{}"],
                ["{}"],
            )
        )
        sessions = SessionLedger(self.ledger)
        await self.provider.offer(Descriptor(self.sandbox, "acme", "a", "r1", "unix:/none", "s", "v"))
        claim = await sessions.claim(self.session, "r1", named=False)
        self.epoch = claim.epoch
        await sessions.bound(self.session, self.epoch)
        self.fence = accepted.fence
        return await self.attempt()

    async def attempt(self) -> int:
        """One more attempt."""
        word, self.fence, _ = await self.turns.begin(self.turn, self.fence, epoch=self.epoch, attempt={"n": 1})
        assert word == "OK"
        return self.fence

    def call(self, text: str, **over: Any) -> tuple[wire.Call, bytes]:
        """A chat completion of the running attempt, under the next number."""
        self.numbers += 1
        stream = over.pop("stream", False)
        body = over.pop("body", None)
        given: dict[str, Any] = {
            "session": self.session, "epoch": self.epoch, "turn": self.turn, "begun": self.fence, "number": self.numbers,
            "method": "POST", "target": "/models/m/v1/chat/completions", "headers": [("content-type", "application/json")],
        }  # fmt: skip
        chat = {"model": "m-1", "messages": [{"role": "user", "content": text}]} | ({"stream": True} if stream else {})
        return wire.Call(**(given | over)), json.dumps(chat).encode() if body is None else body

    async def ask(
        self, call: tuple[wire.Call, bytes], *, at: Gateway | None = None, sandbox: str = "", tenant: str = "acme"
    ) -> Said:
        """The whole answer. Raises httpx2.HTTPError when it breaks off."""
        head, body = call
        gateway = at or self.gateways[0]
        shown = {"authorization": f"Bearer {token(sandbox or self.sandbox, tenant)}"}
        answer = await self.http.post(gateway.sandbox_url + wire.PATH, content=head.encode(body), headers=shown)
        return Said(answer.status_code, dict(answer.headers), answer.content)

    async def chat(self, text: str, *, at: Gateway | None = None, **over: Any) -> Said:
        """One call, its whole answer."""
        return await self.ask(self.call(text, **over), at=at)


def _spec(known: Catalog) -> Any:
    """Of the agent, None as long as it is not known."""
    return None if (entry := known.get("acme", "a")) is None else entry.spec


def token(sandbox: str, tenant: str) -> str:
    """As the provider signs it."""
    return tokens.sign(tokens.Identity(sandbox, tenant, "a", "r1", "v"), KEY)


@pytest.fixture
async def desk(valkey: Valkey, ledger: LedgerClient, models: Models, tmp_path: Path) -> AsyncIterator[Desk]:
    """One gateway, one endpoint `m`, one attempt."""
    async with httpx2.AsyncClient(timeout=WITHIN, verify=trusted()) as http:
        made = Desk(models, valkey, tmp_path, ledger, http)
        await made.provider.set_token_key(KEY)
        await made.publish()
        await made.gateway()
        await made.begin()
        yield made
        for gateway in made.gateways:
            await gateway.stop()

"""A gateway on a real Valkey, scripted tool servers, and a session whose attempt runs: what a shim says, said by the test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from component.journal.conftest import KEY, WITHIN, Desk, Said
from fakes.catalogs import learned
from fakes.http_api import HttpApi
from fakes.http_api import serving as serving_api
from fakes.models import Models
from fakes.models import serving as serving_models
from fakes.tools import Tools, serving
from fakes.trust import trusted
from fakes.valkey import Valkey
from moorage_api.catalog import AgentEntry, RevisionEntry, ToolboxEntry, tool_credential_name
from moorage_api.kinds import Toolbox
from moorage_gateway.catalog import Catalog
from moorage_gateway.ledger_client import LedgerClient

SECRET = "tok-the-canary-0123456789"


@dataclass
class Box(Desk):
    """Desk of calls, with tool servers beside it. `given` is what the agent may use."""

    tools: Tools = field(kw_only=True)
    old: Tools = field(kw_only=True)
    api: HttpApi = field(kw_only=True)
    given: list[str] = field(default_factory=list)

    async def toolbox(self, name: str = "t", *upstreams: dict[str, Any], **spec: Any) -> None:
        """A toolbox as its manifest says, and the agent that may use it. Without upstreams: the newer server."""
        listed = list(upstreams) or [{"name": "one", "mcp": {"url": self.tools.url}}]
        document = {
            "apiVersion": "moorage.dev/v1alpha1", "kind": "Toolbox", "metadata": {"name": name},
            "spec": {"upstreams": listed, **spec},
        }  # fmt: skip
        made = Toolbox.model_validate(document, by_alias=True, by_name=False)
        await self.provider.publish_toolbox(ToolboxEntry("acme", name, made.wire_spec()))
        self.given = sorted({*self.given, name})
        agent = {"models": [], "toolboxes": self.given}
        await self.provider.publish(
            AgentEntry("acme", "a", (RevisionEntry("r1"),), frozenset({"responses"}), "moorage", agent)
        )
        await learned(self.gateways, lambda known: _known(known, name) == (made.wire_spec(), agent))

    def upstream(self, **more: Any) -> dict[str, Any]:
        """The newer server as an upstream."""
        return {"name": "one", "mcp": {"url": self.tools.url}, **more}

    def put_secret(self, upstream: str, name: str = "t", text: str = SECRET) -> None:
        """As the chart's mounted Secret has it."""
        folder = self.folder / "keys"
        folder.mkdir(exist_ok=True)
        (folder / tool_credential_name("acme", name, upstream)).write_text(text + "\n")

    async def everything(self) -> list[Any]:
        """All that Redis holds in hashes and texts."""
        found: list[Any] = []
        for key in await self.ledger.read("KEYS", "*"):
            kind = await self.ledger.read("TYPE", key)
            if kind in (b"hash", "hash"):
                found.append(await self.ledger.read("HGETALL", key))
            elif kind in (b"string", "string"):
                found.append(await self.ledger.read("GET", key))
        return found

    async def rpc(
        self, method: str, params: dict[str, Any] | None = None, *, box: str = "t", number: Any = None, **over: Any
    ) -> Said:
        """One message of an older client."""
        body = {"jsonrpc": "2.0", "id": self.numbers + 100 if number is None else number, "method": method}
        if params is not None:
            body["params"] = params
        return await self.chat("", body=json.dumps(body).encode(), target=f"/toolboxes/{box}/mcp", **over)

    async def run(self, text: str, tool: str = "add", **over: Any) -> tuple[str, bool]:
        """One call of a tool: its text, and whether it is an error."""
        said = await self.rpc("tools/call", {"name": tool, "arguments": {"text": text}}, **over)
        assert said.status == 200, said
        result = said.json["result"]
        return result["content"][0]["text"], result["isError"]


def _known(catalog: Catalog, name: str) -> tuple[Any, Any]:
    """The specs of a toolbox and of the agent, None for what is not known yet."""
    held, entry = catalog.toolbox("acme", name), catalog.get("acme", "a")
    return None if held is None else held.spec, None if entry is None else entry.spec


@pytest.fixture
def tools() -> Iterator[Tools]:
    """A server of the newer era."""
    with serving("new") as made:
        yield made


@pytest.fixture
def old() -> Iterator[Tools]:
    """A server of the older one."""
    with serving("old") as made:
        yield made


@pytest.fixture
def api() -> Iterator[HttpApi]:
    """An HTTP API with its document, and tokens."""
    with serving_api() as made:
        yield made


@pytest.fixture
def models() -> Iterator[Models]:
    """Nobody asks it here."""
    with serving_models() as made:
        yield made


@pytest.fixture
def settings() -> dict[str, str]:
    """Of the gateway; `allowed_upstreams` beside the servers here."""
    return {}


@pytest.fixture
async def box(
    valkey: Valkey,
    ledger: LedgerClient,
    models: Models,
    tools: Tools,
    old: Tools,
    api: HttpApi,
    tmp_path: Path,
    settings: dict[str, str],
) -> AsyncIterator[Box]:
    """One gateway, one toolbox `t` with the newer server, one attempt."""
    async with httpx2.AsyncClient(timeout=WITHIN, verify=trusted()) as http:
        made = Box(models, valkey, tmp_path, ledger, http, tools=tools, old=old, api=api)
        await made.provider.set_token_key(KEY)
        await made.publish()
        hosts = [f"127.0.0.1:{each.port}" for each in (tools, old, api)]
        hosts += [settings["allowed_upstreams"]] if "allowed_upstreams" in settings else []
        await made.gateway(**{**settings, "allowed_upstreams": ",".join(hosts)})
        await made.toolbox()
        await made.begin()
        yield made
        for gateway in made.gateways:
            await gateway.stop()

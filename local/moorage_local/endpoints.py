"""Model endpoints and toolboxes of the folder given to `moorage dev`: published in the catalog; their keys and hosts for this process'
gateway.

Layer: local. A key is read from the folder of keys or the environment at each use, never kept, and never handed to a sandbox.

    FOLDER/SECRET/KEY      as Kubernetes mounts a Secret
    SECRET_KEY             the environment, in capitals: `openai` and `api-key` are OPENAI_API_KEY
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moorage_api.catalog import EndpointEntry, ToolboxEntry, credential_name, tool_credential_name
from moorage_api.kinds import ModelEndpoint, Toolbox
from moorage_api.kinds.model_endpoint import Credential
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.script import LedgerError
from moorage_gateway.models import places
from moorage_gateway.models.credentials import usable
from moorage_local.manifests import FoundEndpoint, FoundToolbox

PAUSE_S = 2.0
_LARGEST = 16 * 1024


@dataclass(frozen=True)
class _Needed:
    """A key: what the gateway calls it, whose it is, and where it is found."""

    name: str
    whose: str
    credential: Credential


class Endpoints:
    """What the folder holds now. It is the gateway's `Credentials`, too; whose manifest it is named the hosts, so they are allowed."""

    def __init__(self, tenant: str, environment: Mapping[str, str], folder: Path | None) -> None:
        self._tenant = tenant
        self._environment = environment
        self._folder = folder
        self._found: dict[str, FoundEndpoint] = {}
        self._boxes: dict[str, FoundToolbox] = {}
        self._allowed: frozenset[str] = frozenset()
        self._wake = asyncio.Event()

    def use(
        self,
        found: Mapping[str, FoundEndpoint],
        broken: Collection[str] = (),
        toolboxes: Mapping[str, FoundToolbox] | None = None,
    ) -> list[str]:
        """These from now on, and of the former ones those whose files are `broken`; sentences about keys that are missing."""
        kept = {name: one for name, one in self._found.items() if str(one.file) in broken}
        self._found = {**kept, **found}
        kept_boxes = {name: one for name, one in self._boxes.items() if str(one.file) in broken}
        self._boxes = {**kept_boxes, **(toolboxes or {})}
        urls = [each.spec.base_url for each in self._endpoints]
        servers = [upstream.mcp for each in self._toolboxes for upstream in each.spec.upstreams]
        urls += [server.url for server in servers if server is not None]
        self._allowed = frozenset(places.named(*places.authority(url)) for url in urls)
        self._wake.set()
        return [sentence for each in self._needed() if (sentence := self._missing(each)) is not None]

    @property
    def _endpoints(self) -> list[ModelEndpoint]:
        return [one.endpoint for one in self._found.values()]

    @property
    def _toolboxes(self) -> list[Toolbox]:
        return [one.toolbox for one in self._boxes.values()]

    def _needed(self) -> Iterator[_Needed]:
        """Every key that a manifest names."""
        for endpoint in self._endpoints:
            if endpoint.spec.credential is not None:
                name = credential_name(self._tenant, endpoint.name)
                yield _Needed(name, f"model endpoint {endpoint.name}", endpoint.spec.credential)
        for box in self._toolboxes:
            for upstream in box.spec.upstreams:
                if upstream.credential is not None:
                    name = tool_credential_name(self._tenant, box.name, upstream.name)
                    yield _Needed(name, f"toolbox {box.name}, upstream {upstream.name}", upstream.credential)

    def allowed(self) -> frozenset[str]:
        """Hosts that may be on this machine or its network."""
        return self._allowed

    def get(self, name: str) -> str | None:
        """See `moorage_gateway.models.credentials.Credentials`."""
        return next((self._key(each) for each in self._needed() if each.name == name), None)

    async def run(self, ledger: ProviderLedger) -> None:
        """Keeps the catalog as the folder says, until cancelled."""
        while True:
            self._wake.clear()
            with contextlib.suppress(LedgerError):
                await self._publish(ledger)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S):
                    await self._wake.wait()

    async def _publish(self, ledger: ProviderLedger) -> None:
        wanted = {one.name: EndpointEntry(self._tenant, one.name, one.wire_spec()) for one in self._endpoints}
        held = {entry.name: entry for entry in await ledger.endpoints() if entry.tenant == self._tenant}
        for name, entry in wanted.items():
            if held.get(name) != entry:
                await ledger.publish_endpoint(entry)
        for name in held.keys() - wanted.keys():
            await ledger.unpublish_endpoint(self._tenant, name)
        boxes = {one.name: ToolboxEntry(self._tenant, one.name, one.wire_spec()) for one in self._toolboxes}
        shown = {entry.name: entry for entry in await ledger.toolboxes() if entry.tenant == self._tenant}
        for name, box in boxes.items():
            if shown.get(name) != box:
                await ledger.publish_toolbox(box)
        for name in shown.keys() - boxes.keys():
            await ledger.unpublish_toolbox(self._tenant, name)

    def _key(self, needed: _Needed) -> str | None:
        named = needed.credential
        if self._folder is not None:
            with (
                contextlib.suppress(OSError, UnicodeDecodeError),
                (self._folder / named.secret / named.key).open("rb") as file,
            ):
                return usable(file.read(_LARGEST).decode("ascii"))
        return usable(self._environment.get(variable(named.secret, named.key)))

    def _missing(self, needed: _Needed) -> str | None:
        if self._key(needed) is not None:
            return None
        named = needed.credential
        where = f" or put it into {self._folder / named.secret / named.key}" if self._folder is not None else ""
        return f"{needed.whose}: there is no key; set {variable(named.secret, named.key)} where `moorage dev` is started{where}"


def variable(secret: str, key: str) -> str:
    """The environment variable of a value of a Secret."""
    return re.sub(r"[^A-Z0-9]", "_", f"{secret}_{key}".upper())

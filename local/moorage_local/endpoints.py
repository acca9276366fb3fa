"""Model endpoints of the folder given to `moorage dev`: published in the catalog; their keys and hosts for this process' gateway.

Layer: local. A key is read from the folder of keys or the environment at each use, never kept, and never handed to a sandbox.

    FOLDER/SECRET/KEY      as Kubernetes mounts a Secret
    SECRET_KEY             the environment, in capitals: `openai` and `api-key` are OPENAI_API_KEY
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from moorage_api.catalog import EndpointEntry, credential_name
from moorage_api.kinds import ModelEndpoint
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.script import LedgerError
from moorage_gateway.models import places
from moorage_gateway.models.credentials import usable
from moorage_local.manifests import FoundEndpoint

PAUSE_S = 2.0
_LARGEST = 16 * 1024


class Endpoints:
    """What the folder holds now. It is the gateway's `Credentials`, too; whose manifest it is named the hosts, so they are allowed."""

    def __init__(self, tenant: str, environment: Mapping[str, str], folder: Path | None) -> None:
        self._tenant = tenant
        self._environment = environment
        self._folder = folder
        self._found: dict[str, FoundEndpoint] = {}
        self._allowed: frozenset[str] = frozenset()
        self._wake = asyncio.Event()

    def use(self, found: Mapping[str, FoundEndpoint], broken: Collection[str] = ()) -> list[str]:
        """These from now on, and of the former ones those whose files are `broken`; sentences about keys that are missing."""
        kept = {name: one for name, one in self._found.items() if str(one.file) in broken}
        self._found = {**kept, **found}
        hosts = (places.authority(each.spec.base_url) for each in self._endpoints)
        self._allowed = frozenset(places.named(*each) for each in hosts)
        self._wake.set()
        return [sentence for each in self._endpoints if (sentence := self._missing(each)) is not None]

    @property
    def _endpoints(self) -> list[ModelEndpoint]:
        return [one.endpoint for one in self._found.values()]

    def allowed(self) -> frozenset[str]:
        """Hosts that may be on this machine or its network."""
        return self._allowed

    def get(self, name: str) -> str | None:
        """See `moorage_gateway.models.credentials.Credentials`."""
        for endpoint in self._endpoints:
            if credential_name(self._tenant, endpoint.name) == name:
                return self._key(endpoint)
        return None

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

    def _key(self, endpoint: ModelEndpoint) -> str | None:
        named = endpoint.spec.credential
        if named is None:
            return None
        if self._folder is not None:
            with (
                contextlib.suppress(OSError, UnicodeDecodeError),
                (self._folder / named.secret / named.key).open("rb") as file,
            ):
                return usable(file.read(_LARGEST).decode("ascii"))
        return usable(self._environment.get(variable(named.secret, named.key)))

    def _missing(self, endpoint: ModelEndpoint) -> str | None:
        named = endpoint.spec.credential
        if named is None or self._key(endpoint) is not None:
            return None
        where = f" or put it into {self._folder / named.secret / named.key}" if self._folder is not None else ""
        return (
            f"model endpoint {endpoint.name}: there is no key; set {variable(named.secret, named.key)} where `moorage dev` "
            f"is started{where}"
        )


def variable(secret: str, key: str) -> str:
    """The environment variable of a value of a Secret."""
    return re.sub(r"[^A-Z0-9]", "_", f"{secret}_{key}".upper())

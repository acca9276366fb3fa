"""The catalog as this process holds it: agents, endpoints, toolboxes, what sandboxes are verified with. Told of changes, and it polls."""

from __future__ import annotations

import asyncio
import builtins
import logging
import random
from typing import TypeVar

from moorage_api.catalog import AgentEntry, EndpointEntry, ToolboxEntry, field
from moorage_api.ledger import keys
from moorage_api.ledger.records import fields, text
from moorage_api.ledger.script import LedgerError, Runner
from moorage_api.pod_tokens import PodTokens
from moorage_gateway.clock import Clock

N = TypeVar("N", EndpointEntry, ToolboxEntry)

POLL_S = 2.0

log = logging.getLogger(__name__)


class Catalog:
    """In-process copy; `get` and `list` never wait.

    `token_key` and `pod_tokens` (None: not published, or not read yet) stay what they were when Redis has lost them: that a
    sandbox must show more than it had to before is never taken back by a loss.
    """

    def __init__(self, runner: Runner, clock: Clock) -> None:
        self._runner = runner
        self._clock = clock
        self._entries: dict[str, AgentEntry] = {}
        self._endpoints: dict[str, EndpointEntry] = {}
        self._toolboxes: dict[str, ToolboxEntry] = {}
        self._version = ""
        self._wake = asyncio.Event()
        self.token_key: str | None = None
        self.pod_tokens: PodTokens | None = None
        self._pod_tokens_text = ""

    def get(self, tenant: str, agent: str) -> AgentEntry | None:
        """The agent's entry, None when it is not published."""
        return self._entries.get(field(tenant, agent))

    def list(self, tenant: str) -> list[AgentEntry]:
        """A tenant's agents by name."""
        return sorted((e for e in self._entries.values() if e.tenant == tenant), key=lambda e: e.agent)

    def endpoint(self, tenant: str, name: str) -> EndpointEntry | None:
        """A model endpoint, None when it is not published."""
        return self._endpoints.get(field(tenant, name))

    def toolbox(self, tenant: str, name: str) -> ToolboxEntry | None:
        """A toolbox, None when it is not published."""
        return self._toolboxes.get(field(tenant, name))

    def toolboxes(self, tenant: str) -> builtins.list[ToolboxEntry]:
        """A tenant's toolboxes by name."""
        return sorted((e for e in self._toolboxes.values() if e.tenant == tenant), key=lambda e: e.name)

    def programs(self) -> frozenset[str]:
        """Where the provider runs programs of toolboxes, as URLs."""
        return frozenset(url for entry in self._toolboxes.values() for url in entry.places.values())

    def hint(self, _: str) -> None:
        """Something changed."""
        self._wake.set()

    async def load(self) -> None:
        """Reads everything, if its version moved. Raises LedgerError."""
        version = text(await self._runner.read("GET", keys.CATALOG_VERSION))
        # Both in one look: a key without the demand that came with it would let a sandbox in by its token alone.
        key, pods = await self._runner.read("HMGET", keys.PLATFORM, "token_key", "pod_tokens")
        self._learn_pod_tokens(text(pods))
        self.token_key = text(key) or self.token_key
        if version == self._version and version:
            return
        raw = fields(await self._runner.read("HGETALL", keys.CATALOG))
        found: dict[str, AgentEntry] = {}
        for name, body in raw.items():
            try:
                found[name] = AgentEntry.from_json(body)
            except (ValueError, TypeError, KeyError):
                log.warning("catalog entry %s cannot be read; it is left out", name)
        endpoints = await self._named(keys.ENDPOINTS, EndpointEntry)
        toolboxes = await self._named(keys.TOOLBOXES, ToolboxEntry)
        if found or version:
            self._entries, self._endpoints, self._toolboxes = found, endpoints, toolboxes
        self._version = version

    async def _named(self, key: str, kind: type[N]) -> dict[str, N]:
        found: dict[str, N] = {}
        for name, body in fields(await self._runner.read("HGETALL", key)).items():
            try:
                found[name] = kind.from_json(body)
            except (ValueError, TypeError, KeyError):
                log.warning("%s of %s cannot be read; it is left out", name, key)
        return found

    def _learn_pod_tokens(self, said: str) -> None:
        if not said or said == self._pod_tokens_text:
            return
        self._pod_tokens_text = said
        try:
            self.pod_tokens = PodTokens.from_json(said)
        except ValueError as error:
            log.warning("what verifies the tokens of pods cannot be read: %s", error)
            self.pod_tokens = self.pod_tokens or PodTokens.nobody()

    async def run(self) -> None:
        """Keeps the copy fresh until cancelled; an unreachable Redis leaves it as it is."""
        while True:
            try:
                await self.load()
            except LedgerError:
                log.debug("the catalog could not be read; the copy stays")
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()


def choose_revision(entry: AgentEntry, rng: random.Random) -> str | None:
    """A revision for a new session: ready ones by weight, the newest ready one if no weight is left."""
    ready = [r for r in entry.revisions if r.ready]
    if not ready:
        return entry.revisions[0].revision if entry.revisions else None
    newest = ready[0]
    if newest.weight >= 100 or len(ready) == 1:
        return newest.revision
    return newest.revision if rng.uniform(0, 100) < newest.weight else ready[1].revision

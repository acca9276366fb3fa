"""Model endpoints, toolboxes and routines of the folder given to `moorage dev`, and routines that came through the API: published in the
catalog; their keys and hosts for this process' gateway.

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

from moorage_api import upstream_places
from moorage_api.catalog import (
    EndpointEntry,
    RoutineEntry,
    ToolboxEntry,
    alert_credential_name,
    credential_name,
    tool_credential_name,
)
from moorage_api.kinds import ModelEndpoint, Routine, Toolbox
from moorage_api.kinds.model_endpoint import Credential
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.script import LedgerError
from moorage_api.provider import routines as rules
from moorage_gateway.models.credentials import usable
from moorage_local.manifests import FoundEndpoint, FoundRoutine, FoundToolbox

PAUSE_S = 2.0
_LARGEST = 16 * 1024


@dataclass(frozen=True)
class _Needed:
    """A key: what the gateway calls it, whose it is, and where it is found."""

    name: str
    whose: str
    credential: Credential
    routine: str = ""


class Endpoints:
    """What the folder holds now. It is the gateway's `Credentials`, too; whose manifest it is named the hosts, so they are allowed."""

    def __init__(self, tenant: str, environment: Mapping[str, str], folder: Path | None) -> None:
        self._tenant = tenant
        self._environment = environment
        self._folder = folder
        self._found: dict[str, FoundEndpoint] = {}
        self._boxes: dict[str, FoundToolbox] = {}
        self._timed: dict[str, FoundRoutine] = {}
        self._places: dict[str, dict[str, str]] = {}
        self._applied: dict[str, Routine] = {}
        self._published: frozenset[str] = frozenset()
        self._allowed: frozenset[str] = frozenset()
        self._wake = asyncio.Event()

    def use(
        self,
        found: Mapping[str, FoundEndpoint],
        broken: Collection[str] = (),
        toolboxes: Mapping[str, FoundToolbox] | None = None,
        routines: Mapping[str, FoundRoutine] | None = None,
    ) -> list[str]:
        """These from now on, and of the former ones those whose files are `broken`; sentences about keys that are missing."""
        kept = {name: one for name, one in self._found.items() if str(one.file) in broken}
        self._found = {**kept, **found}
        kept_boxes = {name: one for name, one in self._boxes.items() if str(one.file) in broken}
        self._boxes = {**kept_boxes, **(toolboxes or {})}
        kept_routines = {name: one for name, one in self._timed.items() if str(one.file) in broken}
        self._timed = {**kept_routines, **(routines or {})}
        urls = [each.spec.base_url for each in self._endpoints]
        urls += [url for each in self._toolboxes for upstream in each.spec.upstreams for url in upstream.urls]
        self._allowed = frozenset(upstream_places.named(*upstream_places.authority(url)) for url in urls)
        self._wake.set()
        needed = [*self._needed(), *self._of_programs()]
        missing = [sentence for each in needed if (sentence := self._missing(each)) is not None]
        missing += [f"routine {one.name}: {why}" for one in self._routines if (why := self.refusal(one)) is not None]
        return missing + [
            f"{whose}: workloadIdentity is a cluster's; on a laptop give it a credential"
            for whose in self._by_identity()
        ]

    @property
    def toolboxes(self) -> list[FoundToolbox]:
        """What of them counts now."""
        return list(self._boxes.values())

    def placed(self, places: Mapping[str, Mapping[str, str]]) -> None:
        """Where programs of toolboxes are reached from now on: toolbox → upstream → URL."""
        self._places = {name: dict(held) for name, held in places.items()}
        self._wake.set()

    def key_of(self, named: Credential) -> str | None:
        """A value that a manifest names; None where there is none."""
        return self._key(_Needed("", "", named))

    def apply(self, routines: Mapping[str, Routine]) -> list[str]:
        """These from now on beside the folder's, whose files go before; sentences about keys that are missing."""
        self._applied = dict(routines)
        self._wake.set()
        ours = [each for each in self._needed() if each.routine in routines]
        return [sentence for each in ours if (sentence := self._missing(each)) is not None]

    def refusal(self, routine: Routine) -> str | None:
        """Why a routine is not begun whose alerts may go nowhere, with the field; None where they may, or where there is no URL yet."""
        for number, target in enumerate(routine.spec.alerts):
            url = self.key_of(target.url)
            why = "" if url is None else rules.refusal(rules.place_of(number, "url"), target.name, url, _opened(url))
            if why:
                return why
        return None

    def without_agent(self, agents: Collection[str]) -> list[str]:
        """Sentences about routines whose agents are none of these."""
        return [
            f"routine {one.name}: {rules.without_agent(one.spec.agent, published=one.name in self._published)}"
            for one in self._routines
            if one.spec.agent not in agents
        ]

    def file_of(self, routine: str) -> Path | None:
        """The file of the folder that a routine stands in."""
        found = self._timed.get(routine)
        return None if found is None else found.file

    @property
    def _endpoints(self) -> list[ModelEndpoint]:
        return [one.endpoint for one in self._found.values()]

    @property
    def _toolboxes(self) -> list[Toolbox]:
        return [one.toolbox for one in self._boxes.values()]

    @property
    def _routines(self) -> list[Routine]:
        applied = [one for name, one in self._applied.items() if name not in self._timed]
        return [*(one.routine for one in self._timed.values()), *applied]

    def _needed(self) -> Iterator[_Needed]:
        """Every key that a manifest names."""
        for endpoint in self._endpoints:
            if endpoint.spec.credential is not None:
                name = credential_name(self._tenant, endpoint.name)
                yield _Needed(name, f"model endpoint {endpoint.name}", endpoint.spec.credential)
        for box in self._toolboxes:
            for upstream in box.spec.upstreams:
                if upstream.secret is not None:
                    name = tool_credential_name(self._tenant, box.name, upstream.name)
                    yield _Needed(name, f"toolbox {box.name}, upstream {upstream.name}", upstream.secret)
        for routine in self._routines:
            for target in routine.spec.alerts:
                whose = f"routine {routine.name}, alert {target.name}"
                for part, named in (("url", target.url), ("signing", target.signing)):
                    if named is not None:
                        yield _Needed(
                            alert_credential_name(self._tenant, routine.name, target.name, part),
                            whose,
                            named,
                            routine.name,
                        )

    def _by_identity(self) -> Iterator[str]:
        """What a laptop cannot open."""
        for endpoint in self._endpoints:
            if endpoint.spec.workload_identity is not None:
                yield f"model endpoint {endpoint.name}"
        for box in self._toolboxes:
            for upstream in box.spec.upstreams:
                if upstream.workload_identity is not None:
                    yield f"toolbox {box.name}, upstream {upstream.name}"

    def _of_programs(self) -> Iterator[_Needed]:
        """What programs find in their environment, and no gateway does."""
        for box in self._toolboxes:
            for upstream in box.spec.upstreams:
                if upstream.stdio is not None:
                    for name, named in upstream.stdio.secrets.items():
                        yield _Needed("", f"toolbox {box.name}, upstream {upstream.name}, {name}", named)

    def allowed(self) -> frozenset[str]:
        """Hosts that may be on this machine or its network: those of manifests, and where alerts go, whose URLs are keys."""
        return self._allowed | frozenset(self._alerted())

    def _alerted(self) -> Iterator[str]:
        for routine in self._routines:
            for target in routine.spec.alerts:
                yield from _opened(self.key_of(target.url) or "")

    def get(self, name: str) -> str | None:
        """See `moorage_gateway.models.credentials.Credentials`."""
        return next((self._key(each) for each in self._needed() if each.name == name), None)

    async def run(self, ledger: ProviderLedger) -> None:
        """Keeps the catalog as the folder says, until cancelled."""
        while True:
            self._wake.clear()
            with contextlib.suppress(LedgerError):
                await self._publish(ledger)
                await self._publish_routines(ledger)
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
        boxes = {
            one.name: ToolboxEntry(self._tenant, one.name, one.wire_spec(), self._places.get(one.name, {}))
            for one in self._toolboxes
        }
        shown = {entry.name: entry for entry in await ledger.toolboxes() if entry.tenant == self._tenant}
        for name, box in boxes.items():
            if shown.get(name) != box:
                await ledger.publish_toolbox(box)
        for name in shown.keys() - boxes.keys():
            await ledger.unpublish_toolbox(self._tenant, name)

    async def _publish_routines(self, ledger: ProviderLedger) -> None:
        held = {entry.field: entry for entry in await ledger.routines.entries() if entry.tenant == self._tenant}
        agents = await ledger.agents()
        found = [(one, RoutineEntry(self._tenant, one.name, one.wire_spec())) for one in self._routines]
        able = [entry for one, entry in found if entry.field in held or self.refusal(one) is None]
        wanted = {entry.field: entry for entry in able if rules.counts(entry, agents, held)}
        for field, entry in wanted.items():
            if held.get(field) != entry:
                await ledger.routines.publish(entry)
        for field in held.keys() - wanted.keys():
            await ledger.routines.unpublish(self._tenant, held[field].name)
        self._published = frozenset(entry.name for entry in wanted.values())

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


def _opened(url: str) -> frozenset[str]:
    """The host of a URL that this machine's own environment names; none where it cannot be read."""
    try:
        return frozenset([upstream_places.named(*upstream_places.authority(url))])
    except ValueError:
        return frozenset()


def variable(secret: str, key: str) -> str:
    """The environment variable of a value of a Secret."""
    return re.sub(r"[^A-Z0-9]", "_", f"{secret}_{key}".upper())

"""ModelEndpoints and Toolboxes of the served namespaces: into the catalog, their keys into the one Secret that gateways mount, and what
became of them.

Layer: engine of the operator, above `kube`. It looks at everything every `LOOK_SECONDS`: they are few and change seldom, and so a key that
was changed in its Secret is noticed too (faults.md F41). Keys pass through this process and stand nowhere else in it.

    Wanted     what follows from the objects alone (pure): one an object, with why it cannot be used
    Endpoints  the loop
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from moorage_api import conditions
from moorage_api.catalog import (
    EndpointEntry,
    RoutineEntry,
    ToolboxEntry,
    alert_credential_name,
    credential_name,
    tool_credential_name,
)
from moorage_api.kinds import ManifestError, ModelEndpoint, Routine, Toolbox, parse_any
from moorage_api.kinds.agent import API_VERSION
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.routines import Standing
from moorage_api.ledger.script import LedgerError
from moorage_api.provider import routines
from moorage_operator import consent_faults, telling
from moorage_operator.kube import ENDPOINTS, EVENTS, ROUTINES, SECRETS, TOOLBOXES, Kind, Kube, KubeError, Object
from moorage_operator.program_objects import Program
from moorage_operator.programs import Programs, forbidden
from moorage_operator.programs import Standing as ProgramStanding
from moorage_operator.settings import Settings
from moorage_operator.status import shown_conditions

log = logging.getLogger(__name__)

E = TypeVar("E", EndpointEntry, ToolboxEntry, RoutineEntry)

LOOK_SECONDS = 10.0
SOON_SECONDS = 3.0
"""While a program is not ready yet."""
MOST_KEY = 16 * 1024

_CALLED = {ModelEndpoint.__name__: "model endpoint", Toolbox.__name__: "toolbox", Routine.__name__: "routine"}
_LISTED = {ENDPOINTS: ModelEndpoint.__name__, TOOLBOXES: Toolbox.__name__, ROUTINES: Routine.__name__}
_KIND_OF: dict[str, Kind] = {name: kind for kind, name in _LISTED.items()}

NAME_TAKEN = "NameTaken"
SPEC_REFUSED = "SpecRefused"
CREDENTIAL_MISSING = "CredentialMissing"
CREDENTIAL_FORBIDDEN = "CredentialForbidden"
PROGRAM_WAITS = "ProgramNotReady"
OAUTH_REFUSED = "OAuthRefused"
ALERT_FORBIDDEN = "AlertForbidden"
AGENT_MISSING = "AgentMissing"
STOPPED = "Stopped"
SUSPENDED = "Suspended"


@dataclass(frozen=True)
class Needed:
    """A credential: what gateways call it, and the value of the Secret it is. `field`: where a routine's manifest names it; `target`: the
    alert target whose URL it is."""

    name: str
    namespace: str
    secret: str
    key: str
    field: str = ""
    target: str = ""


@dataclass(frozen=True)
class Wanted:
    """One object: its entry, or why there is none. `programs`: what is to run for it."""

    body: Mapping[str, Any]
    tenant: str
    name: str
    entry: EndpointEntry | ToolboxEntry | RoutineEntry | None = None
    needs: tuple[Needed, ...] = ()
    programs: tuple[Program, ...] = ()
    waits: str = ""
    """What it lacks though it is published: one of its programs, for what else it has; or its agent, which was there."""
    refused: str = ""
    """What authorization servers do not take of it: likewise."""
    reason: str = conditions.SERVING
    message: str = "Agents that name it may use it."

    @property
    def ready(self) -> bool:
        """Whether agents may use it."""
        return self.entry is not None and self.reason == conditions.SERVING

    def without(self, reason: str, message: str) -> Wanted:
        """It cannot be used: it is not published."""
        return replace(self, reason=reason, message=message)


def wanted(bodies: Sequence[Mapping[str, Any]], tenants: Mapping[str, str]) -> list[Wanted]:
    """What each object asks for. A name is unique in a tenant: the oldest has it."""
    found: list[Wanted] = []
    taken: dict[tuple[str, str, str], str] = {}
    order = sorted(bodies, key=lambda body: (body["metadata"].get("creationTimestamp") or "", _place(body)))
    for body in order:
        namespace, name = _place(body)
        tenant = tenants.get(namespace, namespace)
        one, kind = Wanted(body, tenant, name), str(body["kind"])
        owner = taken.get((kind, tenant, name))
        if owner is not None:
            what = f"{_CALLED.get(kind, kind)} {name}"
            found.append(one.without(NAME_TAKEN, f"the tenant {tenant} has a {what} in the namespace {owner}"))
            continue
        taken[kind, tenant, name] = namespace
        try:
            made = parse_any(_document(body))
        except ManifestError as fault:
            found.append(one.without(SPEC_REFUSED, str(fault)))
            continue
        if isinstance(made, ModelEndpoint):
            found.append(_endpoint(one, namespace, made))
        elif isinstance(made, Toolbox):
            found.append(_toolbox(one, namespace, made))
        elif isinstance(made, Routine):
            found.append(_routine(one, namespace, made))
    return found


def _endpoint(one: Wanted, namespace: str, made: ModelEndpoint) -> Wanted:
    entry, named = EndpointEntry(one.tenant, one.name, made.wire_spec()), made.spec.credential
    if named is None:
        return replace(one, entry=entry)
    needed = Needed(credential_name(one.tenant, one.name), namespace, named.secret, named.key)
    return replace(one, entry=entry, needs=(needed,))


def _toolbox(one: Wanted, namespace: str, made: Toolbox) -> Wanted:
    bare = [each.name for each in made.spec.upstreams if each.stdio is not None and each.stdio.image is None]
    if bare:
        why = f"upstream {bare[0]}: stdio.image is missing: in a cluster a program runs in the image that holds it"
        return one.without(SPEC_REFUSED, why)
    meta = one.body["metadata"]
    owner = {"apiVersion": API_VERSION, "kind": "Toolbox", "name": one.name, "uid": str(meta.get("uid", ""))}
    runs = tuple(
        Program(namespace, one.tenant, one.name, each.name, each.stdio, owner)
        for each in made.spec.upstreams
        if each.stdio is not None
    )
    needs = tuple(
        Needed(tool_credential_name(one.tenant, one.name, each.name), namespace, named.secret, named.key)
        for each in made.spec.upstreams
        if (named := each.secret) is not None
    )
    return replace(one, entry=ToolboxEntry(one.tenant, one.name, made.wire_spec()), needs=needs, programs=runs)


def _routine(one: Wanted, namespace: str, made: Routine) -> Wanted:
    needs = tuple(
        Needed(
            alert_credential_name(one.tenant, one.name, target.name, part),
            namespace,
            named.secret,
            named.key,
            routines.place_of(number, part),
            target.name if part == "url" else "",
        )
        for number, target in enumerate(made.spec.alerts)
        for part, named in (("url", target.url), ("signing", target.signing))
        if named is not None
    )
    entry = RoutineEntry(one.tenant, one.name, made.wire_spec())
    return replace(one, entry=entry, needs=needs, message=f"Due times are run by {made.spec.agent}.")


def attended(one: Wanted, agents: Container[str], published: Container[str]) -> Wanted:
    """A routine whose agent is not there says so, and waits where nobody ran it yet. Both hold fields of the catalog."""
    if not one.ready or not isinstance(one.entry, RoutineEntry) or routines.is_known(one.entry, agents):
        return one
    stays = routines.counts(one.entry, agents, published)
    why = routines.without_agent(one.entry.spec["agent"], published=stays)
    return replace(one, waits=why) if stays else one.without(AGENT_MISSING, why)


def key_of(secret: Mapping[str, Any] | None, key: str) -> str | None:
    """A value of a Secret as it may stand in a header, base64 as Secrets have it; None where there is none."""
    try:
        raw = base64.b64decode(str((secret or {}).get("data", {})[key]), validate=True).strip()
    except (KeyError, TypeError, binascii.Error):
        return None
    usable = 0 < len(raw) <= MOST_KEY and raw.isascii() and raw.decode().isprintable()
    return base64.b64encode(raw).decode() if usable else None


class Endpoints:
    """Brings ModelEndpoints and Toolboxes to the gateways. `now` in epoch seconds."""

    def __init__(self, kube: Kube, settings: Settings, *, now: Callable[[], float], tenants: Mapping[str, str]) -> None:
        self._kube = kube
        self._settings = settings
        self._now = now
        self._tenants = tenants
        self._programs = Programs(kube, settings)
        self._noted = ""
        self._waits = False

    async def run(self, doors: ProviderLedger) -> None:
        """Looks until cancelled."""
        while True:
            try:
                await self.look(doors)
                self._noted = ""
            except (KubeError, LedgerError) as fault:
                if str(fault) != self._noted:  # once, not at every look
                    self._noted = str(fault)
                    log.warning("model endpoints and toolboxes: %s", fault)
            await asyncio.sleep(SOON_SECONDS if self._waits else LOOK_SECONDS)

    async def look(self, doors: ProviderLedger) -> None:
        """One look at everything. Keys are there before what needs them is published. Raises KubeError, LedgerError."""
        found = wanted([body async for body in self._bodies()], self._tenants)
        keys: dict[str, str] = {}
        found = [await self._keyed(one, keys) for one in found]
        found = await self._run(await self._kept(found, keys))
        timed = {entry.field: entry for entry in await doors.routines.entries()}
        agents = await doors.agents()
        found = [attended(one, agents, timed) for one in found]
        ready = [one.entry for one in found if one.ready]
        await _told(
            {each.field: each for each in ready if isinstance(each, EndpointEntry)},
            {entry.field: entry for entry in await doors.endpoints()},
            doors.publish_endpoint,
            doors.unpublish_endpoint,
        )
        await _told(
            {each.field: each for each in ready if isinstance(each, ToolboxEntry)},
            {entry.field: entry for entry in await doors.toolboxes()},
            doors.publish_toolbox,
            doors.unpublish_toolbox,
        )
        await _told(
            {each.field: each for each in ready if isinstance(each, RoutineEntry)},
            timed,
            doors.routines.publish,
            doors.routines.unpublish,
        )
        for one in await self._refused(found, doors):
            standing = await doors.routines.standing(one.entry.field) if isinstance(one.entry, RoutineEntry) else None
            await self._report(one, standing)

    async def _run(self, found: list[Wanted]) -> list[Wanted]:
        """Programs of what is ready run; their places stand in its entry."""
        standing = await self._programs.look([each for one in found if one.ready for each in one.programs])
        self._waits = any(each.waits for each in standing.values())
        return [_placed(one, standing) if one.ready and one.programs else one for one in found]

    async def _refused(self, found: list[Wanted], doors: ProviderLedger) -> list[Wanted]:
        """What gateways saw of authorization servers stands in the status of the toolbox whose `oauth` it is."""
        tenants = {one.tenant for one in found if one.ready and consent_faults.of_users(one.entry)}
        wrongs = {tenant: await doors.consents.wrongs(tenant, self._now()) for tenant in tenants}
        return [replace(one, refused=consent_faults.told(one.entry, wrongs.get(one.tenant, {}))) for one in found]

    async def _bodies(self) -> AsyncIterator[Mapping[str, Any]]:
        for kind, name in _LISTED.items():
            for namespace in self._settings.namespaces:
                try:
                    async for body in self._kube.each(kind, namespace, labels={}):
                        yield {"kind": name, "apiVersion": API_VERSION, **body}  # items of a list need not say them
                except KubeError as fault:
                    if fault.status != 404:  # a cluster whose definitions are older than this operator
                        raise

    async def _keyed(self, one: Wanted, keys: dict[str, str]) -> Wanted:
        """Reads its keys into `keys`: all of them, or none."""
        read: dict[str, str] = {}
        for need in one.needs if one.ready else ():
            where = f"{need.field}: " if need.field else ""
            if self._settings.gateway_credentials is None:
                return one.without(CREDENTIAL_FORBIDDEN, where + forbidden(need.secret))
            try:
                secret = await self._kube.get(SECRETS, need.namespace, need.secret)
            except KubeError as fault:
                if fault.status == 403:
                    return one.without(CREDENTIAL_FORBIDDEN, where + forbidden(need.secret))
                raise
            value = key_of(secret, need.key)
            if value is None:
                what = f"has no usable value {need.key!r}" if secret is not None else "is not there"
                why = f"{where}the Secret {need.secret} {what} in the namespace {need.namespace}"
                return one.without(CREDENTIAL_MISSING, why)
            why = self._refusal(need, value)
            if why:
                return one.without(ALERT_FORBIDDEN, why)
            read[need.name] = value
        keys |= read
        return one

    def _refusal(self, need: Needed, value: str) -> str:
        """Why a value of a Secret, base64, is not the URL of an alert; nothing of it is said."""
        if not need.target:
            return ""
        url, allowed = base64.b64decode(value).decode(), frozenset(self._settings.allowed_upstreams)
        return routines.refusal(need.field, need.target, url, allowed)

    async def _kept(self, found: list[Wanted], keys: dict[str, str]) -> list[Wanted]:
        """The gateways' Secret holds exactly these keys, or nothing that needs one is ready."""
        name = self._settings.gateway_credentials
        if name is None:
            return found
        held = await self._kube.get(SECRETS, self._settings.namespace, name)
        if held is None:
            why = f"the platform's Secret {name} is gone: run helm upgrade, which makes it again"
            return [one.without(CREDENTIAL_MISSING, why) if one.needs and one.ready else one for one in found]
        old: Mapping[str, str] = held.get("data") or {}
        change: dict[str, str | None] = {each: value for each, value in keys.items() if old.get(each) != value}
        change |= dict.fromkeys(old.keys() - keys.keys())
        if change:
            await self._kube.merge(SECRETS, self._settings.namespace, name, {"data": change})
        return found

    async def _report(self, one: Wanted, standing: Standing | None) -> None:
        fresh = status_of(one, self._now(), standing)
        if fresh is None:
            return
        try:
            kind, event = _KIND_OF[str(one.body["kind"])], telling.failure(one.body, standing, self._now())
            if event is not None:  # before the status: it is told anew where that was not written
                await self._event(event)
            await self._kube.merge(kind, *_place(one.body), {"status": fresh}, part="status")
        except KubeError as fault:
            if fault.status != 404:
                log.warning("%s %s/%s: its status: %s", one.body["kind"], *_place(one.body), fault.message)

    async def _event(self, body: Object) -> None:
        """A failure to tell of one keeps no status from being written."""
        try:
            await self._kube.create(EVENTS, body)
        except KubeError as fault:
            if fault.status != 409:
                log.warning("an event of %s: %s", body["involvedObject"]["name"], fault.message)


def _placed(one: Wanted, standing: Mapping[tuple[str, str, str], ProgramStanding]) -> Wanted:
    held = {each.upstream: standing[each.namespace, each.toolbox, each.upstream] for each in one.programs}
    waits = [f"program {name}: {each.waits}" for name, each in held.items() if each.waits]
    assert isinstance(one.entry, ToolboxEntry)
    places = {name: each.place for name, each in held.items() if each.place}
    return replace(one, entry=replace(one.entry, places=places), waits="\n".join(waits))


async def _told(
    ready: Mapping[str, E],
    held: Mapping[str, E],
    publish: Callable[[E], Awaitable[bool]],
    unpublish: Callable[[str, str], Awaitable[None]],
) -> None:
    """The catalog of one kind holds what is ready and nothing else."""
    for name, entry in ready.items():
        if held.get(name) != entry:
            await publish(entry)
    for name in held.keys() - ready.keys():
        await unpublish(held[name].tenant, held[name].name)


def status_of(one: Wanted, now: float, standing: Standing | None = None) -> Object | None:
    """The status to write, None when the object says it already. `standing`: of a routine that had a look."""
    one = _troubled(one, standing)
    generation = int(one.body["metadata"].get("generation", 1))
    seen = conditions.begin(generation)
    if one.ready and one.waits:
        reason = AGENT_MISSING if isinstance(one.entry, RoutineEntry) else PROGRAM_WAITS
        one = one.without(reason, one.waits[: conditions.MESSAGE_LIMIT])
    if one.ready and one.refused:
        one = one.without(OAUTH_REFUSED, one.refused[: conditions.MESSAGE_LIMIT])
    mark = conditions.mark_true if one.ready else conditions.mark_false
    seen = mark(seen, conditions.READY, one.reason, one.message, now=now)
    shown = one.body.get("status") or {}
    fresh = {"observedGeneration": generation, "conditions": shown_conditions(seen, shown.get("conditions") or ())}
    if isinstance(one.entry, RoutineEntry):
        fresh |= telling.runs(one.entry.spec, standing)
    return fresh if any(shown.get(name) != value for name, value in fresh.items()) else None


def _troubled(one: Wanted, standing: Standing | None) -> Wanted:
    """A routine that was stopped, or is suspended, is not ready, and says why."""
    if standing is None or not one.ready:
        return one
    if standing.stopped:
        why = f"stopped after {standing.failures} failed runs in a row ({standing.error}): `moorage routines resume {one.name}`"
        return one.without(STOPPED, why)
    return one.without(SUSPENDED, "no due time is run") if standing.suspended else one


def _place(body: Mapping[str, Any]) -> tuple[str, str]:
    return str(body["metadata"]["namespace"]), str(body["metadata"]["name"])


def _document(body: Mapping[str, Any]) -> dict[str, Any]:
    namespace, name = _place(body)
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": meta, "spec": body.get("spec") or {}}

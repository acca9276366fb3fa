"""ModelEndpoints and Toolboxes of the served namespaces: into the catalog, their keys into the one Secret that gateways mount, and what
became of them.

Layer: engine of the operator, above `kube`. It looks at everything every `LOOK_SECONDS`: they are few and change seldom, and so a key that
was changed in its Secret is noticed too (faults.md F41). Keys pass through this process and stand nowhere else in it.

    wanted     what follows from the objects alone (pure): one an object, with why it cannot be used
    Endpoints  the loop
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from moorage_api import conditions
from moorage_api.catalog import EndpointEntry, RoutineEntry, ToolboxEntry
from moorage_api.kinds import ModelEndpoint, Routine, Toolbox
from moorage_api.kinds.agent import API_VERSION
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.routines import Standing
from moorage_api.ledger.script import LedgerError
from moorage_api.provider import routines
from moorage_operator import consent_faults, telling
from moorage_operator.kube import ENDPOINTS, EVENTS, ROUTINES, SECRETS, TOOLBOXES, Kind, Kube, KubeError, Object
from moorage_operator.programs import Programs, forbidden
from moorage_operator.programs import Standing as ProgramStanding
from moorage_operator.settings import Settings
from moorage_operator.status import shown_conditions
from moorage_operator.wanted import (
    ALERT_FORBIDDEN,
    CREDENTIAL_FORBIDDEN,
    CREDENTIAL_MISSING,
    OAUTH_REFUSED,
    PROGRAM_WAITS,
    SPEC_REFUSED,
    STOPPED,
    SUSPENDED,
    Needed,
    Wanted,
    attended,
    place_of,
    still,
    wanted,
)

log = logging.getLogger(__name__)

E = TypeVar("E", EndpointEntry, ToolboxEntry, RoutineEntry)

LOOK_SECONDS = 10.0
SOON_SECONDS = 3.0
"""While a program is not ready yet."""
MOST_KEY = 16 * 1024

_LISTED = {ENDPOINTS: ModelEndpoint.__name__, TOOLBOXES: Toolbox.__name__, ROUTINES: Routine.__name__}
_KIND_OF: dict[str, Kind] = {name: kind for kind, name in _LISTED.items()}


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
        timed = {entry.field: entry for entry in await doors.routines.entries()}
        found = [still(one, timed) for one in wanted([body async for body in self._bodies()], self._tenants)]
        keys: dict[str, str] = {}
        found = [await self._keyed(one, keys, timed) for one in found]
        found = await self._run(await self._kept(found, keys, timed))
        agents = await doors.agents()
        found = [attended(one, agents, timed) for one in found]
        ready = [one.entry for one in found if one.published]
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

    async def _keyed(self, one: Wanted, keys: dict[str, str], published: Collection[str]) -> Wanted:
        """Reads its keys into `keys`: all of them, or none; of a routine those that there are, where it is run without the others."""
        read: dict[str, str] = {}
        faults: list[tuple[str, str]] = []
        for need in one.needs if one.published else ():
            fault = await self._read(need, read)
            if fault is not None:
                faults.append(fault)
        if faults:
            one = one.unkeyed(faults, published)
        if one.published:
            keys |= read
        return one

    async def _read(self, need: Needed, read: dict[str, str]) -> tuple[str, str] | None:
        """Puts its value into `read`; why there is none, as reason and message."""
        where = f"{need.field}: " if need.field else ""
        if self._settings.gateway_credentials is None:
            return CREDENTIAL_FORBIDDEN, where + forbidden(need.secret)
        try:
            secret = await self._kube.get(SECRETS, need.namespace, need.secret)
        except KubeError as fault:
            if fault.status == 403:
                return CREDENTIAL_FORBIDDEN, where + forbidden(need.secret)
            raise
        value = key_of(secret, need.key)
        if value is None:
            what = f"has no usable value {need.key!r}" if secret is not None else "is not there"
            return CREDENTIAL_MISSING, f"{where}the Secret {need.secret} {what} in the namespace {need.namespace}"
        why = self._refusal(need, value)
        if why:
            return ALERT_FORBIDDEN, why
        read[need.name] = value
        return None

    def _refusal(self, need: Needed, value: str) -> str:
        """Why a value of a Secret, base64, is not the URL of an alert; nothing of it is said."""
        if not need.target:
            return ""
        url, allowed = base64.b64decode(value).decode(), frozenset(self._settings.allowed_upstreams)
        return routines.refusal(need.field, need.target, url, allowed)

    async def _kept(self, found: list[Wanted], keys: dict[str, str], published: Collection[str]) -> list[Wanted]:
        """The gateways' Secret holds exactly these keys, or nothing that needs one is ready."""
        name = self._settings.gateway_credentials
        if name is None:
            return found
        held = await self._kube.get(SECRETS, self._settings.namespace, name)
        if held is None:
            why = f"the platform's Secret {name} is gone: run helm upgrade, which makes it again"
            fault = (CREDENTIAL_MISSING, why)
            return [one.unkeyed([fault], published) if one.needs and one.published else one for one in found]
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
            await self._kube.merge(kind, *place_of(one.body), {"status": fresh}, part="status")
        except KubeError as fault:
            if fault.status != 404:
                log.warning("%s %s/%s: its status: %s", one.body["kind"], *place_of(one.body), fault.message)

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
        one = one.without(PROGRAM_WAITS, one.waits)
    if one.ready and one.refused:
        one = one.without(OAUTH_REFUSED, one.refused)
    mark = conditions.mark_true if one.ready else conditions.mark_false
    seen = mark(seen, conditions.READY, one.reason, one.message, now=now)
    shown = one.body.get("status") or {}
    fresh = {"observedGeneration": generation, "conditions": shown_conditions(seen, shown.get("conditions") or ())}
    if isinstance(one.entry, RoutineEntry):
        fresh |= telling.runs(one.entry.spec, standing)
    return fresh if any(shown.get(name) != value for name, value in fresh.items()) else None


def _troubled(one: Wanted, standing: Standing | None) -> Wanted:
    """A routine that was stopped, or is suspended, is not ready, and says why, beside what else is wrong with it."""
    if standing is None or not one.published:
        return one
    more = "" if one.ready else f"\n{one.message}"
    if standing.stopped:
        why = f"stopped after {standing.failures} failed runs in a row ({standing.error}): `moorage routines resume {one.name}`"
        return one.without(STOPPED, why + more)
    if standing.suspended and one.reason != SPEC_REFUSED:
        why = "no due time is run"
        return one.without(SUSPENDED, why) if one.ready else one.without(one.reason, f"{one.message}\nsuspended: {why}")
    return one

"""ModelEndpoints of the served namespaces: into the catalog, their keys into the one Secret that gateways mount, and what became of them.

Layer: engine of the operator, above `kube`. It looks at everything every `LOOK_SECONDS`: they are few and change seldom, and so a key that
was changed in its Secret is noticed too (faults.md F41). Keys pass through this process and stand nowhere else in it.

    Wanted     what follows from the objects alone (pure): one a ModelEndpoint, with why it cannot be used
    Endpoints  the loop
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moorage_api import conditions
from moorage_api.catalog import EndpointEntry, credential_name
from moorage_api.kinds import ManifestError, ModelEndpoint, parse_any
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.script import LedgerError
from moorage_operator.kube import ENDPOINTS, SECRETS, Kube, KubeError, Object
from moorage_operator.settings import Settings
from moorage_operator.status import shown_conditions

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
MOST_KEY = 16 * 1024

NAME_TAKEN = "NameTaken"
SPEC_REFUSED = "SpecRefused"
CREDENTIAL_MISSING = "CredentialMissing"
CREDENTIAL_FORBIDDEN = "CredentialForbidden"


@dataclass(frozen=True)
class Wanted:
    """One object: its entry, or why there is none. `secret`: (namespace, name, key) of its credential."""

    body: Mapping[str, Any]
    tenant: str
    name: str
    entry: EndpointEntry | None = None
    secret: tuple[str, str, str] | None = None
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
    taken: dict[tuple[str, str], str] = {}
    order = sorted(bodies, key=lambda body: (body["metadata"].get("creationTimestamp") or "", _place(body)))
    for body in order:
        namespace, name = _place(body)
        tenant = tenants.get(namespace, namespace)
        one = Wanted(body, tenant, name)
        owner = taken.get((tenant, name))
        if owner is not None:
            found.append(
                one.without(NAME_TAKEN, f"the tenant {tenant} has a model endpoint {name} in the namespace {owner}")
            )
            continue
        taken[tenant, name] = namespace
        try:
            endpoint = parse_any(_document(body))
        except ManifestError as fault:
            found.append(one.without(SPEC_REFUSED, str(fault)))
            continue
        assert isinstance(endpoint, ModelEndpoint)
        named = endpoint.spec.credential
        found.append(
            replace(
                one,
                entry=EndpointEntry(tenant, name, endpoint.wire_spec()),
                secret=None if named is None else (namespace, named.secret, named.key),
            )
        )
    return found


def key_of(secret: Mapping[str, Any] | None, key: str) -> str | None:
    """A value of a Secret as it may stand in a header, base64 as Secrets have it; None where there is none."""
    try:
        raw = base64.b64decode(str((secret or {}).get("data", {})[key]), validate=True).strip()
    except (KeyError, TypeError, binascii.Error):
        return None
    usable = 0 < len(raw) <= MOST_KEY and raw.isascii() and raw.decode().isprintable()
    return base64.b64encode(raw).decode() if usable else None


class Endpoints:
    """Brings ModelEndpoints to the gateways. `now` in epoch seconds."""

    def __init__(self, kube: Kube, settings: Settings, *, now: Callable[[], float], tenants: Mapping[str, str]) -> None:
        self._kube = kube
        self._settings = settings
        self._now = now
        self._tenants = tenants
        self._noted = ""

    async def run(self, doors: ProviderLedger) -> None:
        """Looks until cancelled."""
        while True:
            try:
                await self.look(doors)
                self._noted = ""
            except (KubeError, LedgerError) as fault:
                if str(fault) != self._noted:  # once, not at every look
                    self._noted = str(fault)
                    log.warning("model endpoints: %s", fault)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self, doors: ProviderLedger) -> None:
        """One look at everything. Keys are there before what needs them is published. Raises KubeError, LedgerError."""
        found = wanted([body async for body in self._bodies()], self._tenants)
        keys: dict[str, str] = {}
        found = [await self._keyed(one, keys) for one in found]
        found = await self._kept(found, keys)
        ready = {one.entry.field: one.entry for one in found if one.ready and one.entry is not None}
        held = {entry.field: entry for entry in await doors.endpoints()}
        for name, entry in ready.items():
            if held.get(name) != entry:
                await doors.publish_endpoint(entry)
        for name in held.keys() - ready.keys():
            await doors.unpublish_endpoint(held[name].tenant, held[name].name)
        for one in found:
            await self._report(one)

    async def _bodies(self) -> Any:
        for namespace in self._settings.namespaces:
            try:
                async for body in self._kube.each(ENDPOINTS, namespace, labels={}):
                    yield body
            except KubeError as fault:
                if fault.status != 404:  # a cluster whose definitions are older than this operator
                    raise

    async def _keyed(self, one: Wanted, keys: dict[str, str]) -> Wanted:
        """Reads its key into `keys`."""
        if one.secret is None or not one.ready:
            return one
        namespace, name, key = one.secret
        if self._settings.gateway_credentials is None:
            return one.without(CREDENTIAL_FORBIDDEN, _forbidden(name))
        try:
            secret = await self._kube.get(SECRETS, namespace, name)
        except KubeError as fault:
            if fault.status == 403:
                return one.without(CREDENTIAL_FORBIDDEN, _forbidden(name))
            raise
        value = key_of(secret, key)
        if value is None:
            what = f"has no usable value {key!r}" if secret is not None else "is not there"
            return one.without(CREDENTIAL_MISSING, f"the Secret {name} {what} in the namespace {namespace}")
        keys[credential_name(one.tenant, one.name)] = value
        return one

    async def _kept(self, found: list[Wanted], keys: dict[str, str]) -> list[Wanted]:
        """The gateways' Secret holds exactly these keys, or nothing that needs one is ready."""
        name = self._settings.gateway_credentials
        if name is None:
            return found
        held = await self._kube.get(SECRETS, self._settings.namespace, name)
        if held is None:
            why = f"the platform's Secret {name} is gone: run helm upgrade, which makes it again"
            return [
                one.without(CREDENTIAL_MISSING, why) if one.secret is not None and one.ready else one for one in found
            ]
        old: Mapping[str, str] = held.get("data") or {}
        change: dict[str, str | None] = {each: value for each, value in keys.items() if old.get(each) != value}
        change |= dict.fromkeys(old.keys() - keys.keys())
        if change:
            await self._kube.merge(SECRETS, self._settings.namespace, name, {"data": change})
        return found

    async def _report(self, one: Wanted) -> None:
        fresh = status_of(one, self._now())
        if fresh is None:
            return
        try:
            await self._kube.merge(ENDPOINTS, *_place(one.body), {"status": fresh}, part="status")
        except KubeError as fault:
            if fault.status != 404:
                log.warning("model endpoint %s/%s: its status: %s", *_place(one.body), fault.message)


def status_of(one: Wanted, now: float) -> Object | None:
    """The status to write, None when the object says it already."""
    generation = int(one.body["metadata"].get("generation", 1))
    seen = conditions.begin(generation)
    mark = conditions.mark_true if one.ready else conditions.mark_false
    seen = mark(seen, conditions.READY, one.reason, one.message, now=now)
    shown = one.body.get("status") or {}
    fresh = {"observedGeneration": generation, "conditions": shown_conditions(seen, shown.get("conditions") or ())}
    return fresh if any(shown.get(name) != value for name, value in fresh.items()) else None


def _forbidden(secret: str) -> str:
    return (
        f"the operator may not read the Secret {secret}: name it under models.secrets in the chart's values, which lets it read "
        "that one and no other"
    )


def _place(body: Mapping[str, Any]) -> tuple[str, str]:
    return str(body["metadata"]["namespace"]), str(body["metadata"]["name"])


def _document(body: Mapping[str, Any]) -> dict[str, Any]:
    namespace, name = _place(body)
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": meta, "spec": body.get("spec") or {}}

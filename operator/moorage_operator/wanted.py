"""What follows from the objects of ModelEndpoints, Toolboxes and Routines alone: one `Wanted` each, with why it cannot be used. Pure.
Layer: engine of the operator; `endpoints` brings it to the gateways.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moorage_api import conditions
from moorage_api.catalog import (
    EndpointEntry,
    RoutineEntry,
    ToolboxEntry,
    alert_credential_name,
    credential_name,
    field,
    tool_credential_name,
)
from moorage_api.kinds import ManifestError, ModelEndpoint, Routine, Toolbox, parse_any
from moorage_api.kinds.agent import API_VERSION
from moorage_api.provider import routines
from moorage_operator.program_objects import Program

_CALLED = {ModelEndpoint.__name__: "model endpoint", Toolbox.__name__: "toolbox", Routine.__name__: "routine"}

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

UNTOLD = "it runs, and alerts that cannot be told wait"
STANDS_STILL = "no due time is run until that is mended; what runs goes on"


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
    """What it lacks though it is published: one of its programs, for what else it has."""
    refused: str = ""
    """What authorization servers do not take of it: likewise."""
    reason: str = conditions.SERVING
    message: str = "Agents that name it may use it."
    stays: bool = False
    """Published though something is wrong with it: a routine, whose state would go with it."""

    @property
    def ready(self) -> bool:
        """Whether agents may use it."""
        return self.entry is not None and self.reason == conditions.SERVING

    @property
    def published(self) -> bool:
        """Whether gateways know it."""
        return self.entry is not None and (self.stays or self.ready)

    def without(self, reason: str, message: str) -> Wanted:
        """It cannot be used: it is not published, unless it stays."""
        return replace(self, reason=reason, message=message)

    def unkeyed(self, faults: Sequence[tuple[str, str]], published: Container[str]) -> Wanted:
        """It lacks keys, for these reasons. A routine needs none to run: what it cannot tell, waits. One with a target that is not allowed
        is not begun; one that ran stays. `published`: fields of the catalog."""
        if not isinstance(self.entry, RoutineEntry):
            return self.without(*faults[0])
        said = "\n".join(message for _, message in faults)
        if not self.ready:
            return replace(self, message=f"{self.message}\n{said}")
        reason = next((each for each, _ in faults if each == ALERT_FORBIDDEN), faults[0][0])
        if reason == ALERT_FORBIDDEN and self.entry.field not in published:
            return self.without(reason, said)
        return replace(self, reason=reason, message=f"{said}\n{UNTOLD}", stays=True)


def wanted(bodies: Sequence[Mapping[str, Any]], tenants: Mapping[str, str]) -> list[Wanted]:
    """What each object asks for. A name is unique in a tenant: the oldest has it."""
    found: list[Wanted] = []
    taken: dict[tuple[str, str, str], str] = {}
    order = sorted(bodies, key=lambda body: (body["metadata"].get("creationTimestamp") or "", place_of(body)))
    for body in order:
        namespace, name = place_of(body)
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
    if not one.published or not isinstance(one.entry, RoutineEntry) or routines.is_known(one.entry, agents):
        return one
    stays = routines.counts(one.entry, agents, published)
    why = routines.without_agent(one.entry.spec["agent"], published=stays)
    said = why if one.ready else f"{why}\n{one.message}"
    return replace(one, reason=AGENT_MISSING, message=said, stays=stays)


def still(one: Wanted, published: Mapping[str, RoutineEntry]) -> Wanted:
    """A routine that ran, and whose manifest says now what cannot be, keeps its state and stands still, as what it was."""
    held = published.get(field(one.tenant, one.name))
    if one.reason != SPEC_REFUSED or held is None or one.body["kind"] != Routine.__name__:
        return one
    spec = {**held.spec, "suspend": True}
    try:
        made = parse_any({**_document(one.body), "spec": spec})
    except ManifestError:  # of another version of ours
        return one
    assert isinstance(made, Routine)
    was = _routine(one, place_of(one.body)[0], made)
    return replace(was, message=f"{one.message}\n{STANDS_STILL}", stays=True)


def place_of(body: Mapping[str, Any]) -> tuple[str, str]:
    """Namespace and name of an object."""
    return str(body["metadata"]["namespace"]), str(body["metadata"]["name"])


def _document(body: Mapping[str, Any]) -> dict[str, Any]:
    namespace, name = place_of(body)
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": meta, "spec": body.get("spec") or {}}

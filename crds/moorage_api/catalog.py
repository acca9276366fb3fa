"""What a provider publishes of its agents, model endpoints and toolboxes, and gateways hold in process. Layer: the floor.

Stored in the Redis hashes `catalog` under `TENANT/AGENT`, `catalog:endpoints` and `catalog:toolboxes` under `TENANT/NAME`; every change
raises `catalog:version`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from dataclasses import field as field_of
from typing import Any, Self


@dataclass(frozen=True)
class RevisionEntry:
    """One revision: `weight` is its share (0–100) of new sessions; `ready` says whether its pool can serve."""

    revision: str
    weight: int = 100
    ready: bool = True


@dataclass(frozen=True)
class AgentEntry:
    """One agent as gateways see it. `revisions` has the newest first; `message` says why it is not ready."""

    tenant: str
    agent: str
    revisions: tuple[RevisionEntry, ...]
    protocols: frozenset[str]
    contract: str
    spec: dict[str, Any]
    conditions: tuple[dict[str, Any], ...] = ()
    message: str | None = None

    @property
    def field(self) -> str:
        """The entry's field in the catalog hash."""
        return field(self.tenant, self.agent)

    def to_json(self) -> str:
        """Canonical JSON, so that an unchanged entry is byte for byte the same."""
        data: dict[str, Any] = dict(self.__dict__)  # `asdict` would copy the whole spec, for each look at the agent
        data["protocols"] = sorted(self.protocols)
        data["revisions"] = [one.__dict__ for one in self.revisions]
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> AgentEntry:
        """The entry behind `to_json`; raises ValueError or TypeError on anything else."""
        data = json.loads(text)
        return cls(
            tenant=data["tenant"],
            agent=data["agent"],
            revisions=tuple(RevisionEntry(**r) for r in data["revisions"]),
            protocols=frozenset(data["protocols"]),
            contract=data["contract"],
            spec=data["spec"],
            conditions=tuple(data.get("conditions", ())),
            message=data.get("message"),
        )


def field(tenant: str, agent: str) -> str:
    """The catalog field of an agent."""
    return f"{tenant}/{agent}"


@dataclass(frozen=True)
class _Named:
    """An object that agents name: `spec` is its `wire_spec`; credentials in it are only names."""

    tenant: str
    name: str
    spec: dict[str, Any]

    @property
    def field(self) -> str:
        """The entry's field in its hash."""
        return field(self.tenant, self.name)

    def to_json(self) -> str:
        """Canonical JSON."""
        return json.dumps(dict(self.__dict__), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The entry behind `to_json`; raises ValueError, KeyError or TypeError on anything else."""
        data = json.loads(text)
        return cls(tenant=data["tenant"], name=data["name"], spec=dict(data["spec"]))


@dataclass(frozen=True)
class EndpointEntry(_Named):
    """One ModelEndpoint as gateways see it."""


@dataclass(frozen=True)
class ToolboxEntry(_Named):
    """One Toolbox as gateways see it. `places`: where its upstreams of type `stdio` are reached, by name; said by the provider that runs
    them, and by no manifest."""

    places: dict[str, str] = field_of(default_factory=dict)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The entry behind `to_json`, also of a provider that knows no places; raises as the others do."""
        data = json.loads(text)
        return cls(data["tenant"], data["name"], dict(data["spec"]), dict(data.get("places") or {}))


@dataclass(frozen=True)
class RoutineEntry(_Named):
    """One Routine as gateways see it."""


def credential_name(tenant: str, endpoint: str) -> str:
    """What the key of a model endpoint is called among a gateway's credentials: no name has a `_`, so no two are called alike."""
    return f"{tenant}_models_{endpoint}"


def tool_credential_name(tenant: str, toolbox: str, upstream: str) -> str:
    """The same, of one upstream of a toolbox."""
    return f"{tenant}_toolboxes_{toolbox}_{upstream}"


def alert_credential_name(tenant: str, routine: str, target: str, part: str) -> str:
    """The same, of one target of a routine's alerts. `part`: `url` or `signing`."""
    return f"{tenant}_routines_{routine}_{target}_{part}"

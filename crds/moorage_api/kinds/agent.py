"""HostedAgent: the one manifest of an agent, on a laptop and in a cluster.

Layer: the floor. These models are the only source: the JSON schema, the reference page and the error messages are
generated from them. They read what `kinds.documents` hands them and know neither files nor YAML. Works with pydantic
2.11 and newer, since it also runs in agent images.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from moorage_api.kinds import secret_shapes
from moorage_api.kinds.source import Source
from moorage_api.kinds.values import Cpu, Duration, Metadata, Part, Size, absolute_path, egress_host, list_default

API_VERSION: Final = "moorage.dev/v1alpha1"
KIND: Final = "HostedAgent"


ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
RESERVED_ENV = frozenset({"PORT", "HOME", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"})


class EnvVar(Part):
    """One environment variable of the agent; never a secret."""

    name: str
    """Name of the variable. `PORT`, `HOME`, the proxy variables and `MOORAGE_…` belong to the platform."""
    value: str = Field(default="", max_length=32768)
    """Its value, a string: quote numbers and true/false."""

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if ENV_NAME.match(name) is None:
            raise ValueError(f"{name!r} is not a name of an environment variable")
        if name.upper() in RESERVED_ENV or name.startswith("MOORAGE_"):
            raise ValueError(f"{name} is set by the platform; choose another name")
        return name

    @field_validator("value")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("holds a NUL character")
        kind = secret_shapes.certain(value)
        if kind is not None:
            raise ValueError(f"looks like {kind}; {secret_shapes.WHERE_INSTEAD}")
        return value


class Resources(Part):
    """Limits of one sandbox."""

    cpu: Cpu = "500m"
    """Processor time: `500m` is half a core."""
    memory: Size = "512Mi"
    """Memory; a sandbox over it is killed and the turn goes on in another attempt."""
    ephemeral_storage: Size = "1Gi"
    """Space in `/tmp`, gone when the sandbox is."""
    pids: int = Field(default=256, ge=8, le=65536)
    """Most processes and threads at a time."""


class Workspace(Part):
    """The session's own files."""

    size: Size = "1Gi"
    """Space for `/workspace` and `$HOME` together."""
    storage_class_name: str | None = Field(default=None, max_length=253)
    """Storage class of the volume; Kubernetes only."""
    mount: str = Field(default="/workspace", max_length=1024)
    """Where the folder appears in the sandbox."""
    file_system: bool = True
    """`false`: a scratch folder that ends with the sandbox; nothing is kept."""

    @field_validator("mount")
    @classmethod
    def _place(cls, mount: str) -> str:
        return absolute_path(mount)


class SessionRules(Part):
    """Clocks and bounds of a session."""

    idle_timeout: Duration = "15m"
    """Without a turn, open stream or declared work for so long, a session is hibernated: sandbox gone, workspace
    kept."""
    max_lifetime: Duration = "8h"
    """Longest life of a sandbox; then it is replaced in place."""
    retention: Duration = "30d"
    """A session nobody used for so long is deleted with its files."""
    isolation: Literal["session"] = "session"
    """Every session has a sandbox of its own. The only value: it cannot be turned off."""
    queue: int = Field(default=8, ge=0, le=1000)
    """Turns that may wait behind the running one; more are refused with 429."""

    @field_validator("isolation", mode="before")
    @classmethod
    def _always(cls, value: object) -> object:
        if value != "session":
            raise ValueError("is always `session`: isolation between sessions cannot be turned off")
        return value


class TurnRules(Part):
    """How one turn is run."""

    timeout: Duration = "30m"
    """Longest time of a turn with all its attempts."""
    max_attempts: int = Field(default=3, ge=1, le=20)
    """Attempts that fail by the agent's own fault before the turn fails. Lost sandboxes do not count."""
    retry_workspace: Literal["keep", "restore"] = "keep"
    """`keep`: the next attempt sees the files as the last one left them.

    `restore`: the checkpoint from before the turn.
    """
    durability: Literal["turn", "session"] = "session"
    """`turn`: completed only after a workspace checkpoint. `session`: checkpoints on hibernation and drain."""
    durable_state: bool = True
    """`false`: one attempt and no journal."""


class Pool(Part):
    """Warm sandboxes kept ready for new sessions."""

    min: int = Field(default=1, ge=0, le=1000)
    """Kept ready at all times; 0 costs nothing while idle, and the first call waits."""
    max: int = Field(default=10, ge=1, le=10000)
    """Most ready sandboxes at a time."""

    @model_validator(mode="after")
    def _ordered(self) -> Pool:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is more than max ({self.max})")
        return self


class Access(Part):
    """Who may call. Empty lists mean: whoever belongs to the tenant that owns the agent."""

    tenants: list[str] = Field(default_factory=list, max_length=256)
    """Tenants that may call, beside the owner."""
    users: list[str] = Field(default_factory=list, max_length=1024)
    """Users that may call; empty: all of the tenant."""
    scopes: list[str] = Field(default_factory=list, max_length=64)
    """Scopes that a key must hold, beside `invoke`."""


class Mount(Part):
    """A read-only folder of this machine; `moorage dev` only."""

    path: str = Field(min_length=1, max_length=4096)
    """The folder on this machine; relative to the manifest, `~` is the user's home."""
    mount: str = Field(max_length=1024)
    """Where it appears in the sandbox."""

    @field_validator("mount")
    @classmethod
    def _place(cls, mount: str) -> str:
        return absolute_path(mount)


class Rollout(Part):
    """How new sessions move to the newest revision."""

    weight: int = Field(default=100, ge=0, le=100)
    """Share in percent of new sessions that get the newest revision; the rest stays on the one before."""


class Toleration(Part):
    """A toleration as Kubernetes has it."""

    key: str | None = None
    """Taint key."""
    operator: Literal["Exists", "Equal"] | None = None
    """How key and value are compared."""
    value: str | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Which taint effects are tolerated."""
    toleration_seconds: int | None = None
    """How long a NoExecute taint is tolerated."""


class HostedAgentSpec(Part):
    """What the agent is and how it is run. Only a source (or an image) is needed; all else has a default."""

    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """Container image that already holds the agent. Either this or `source`."""
    source: Source | None = None
    """The agent's code. Either this or `image`."""
    protocols: list[Literal["responses", "invocations"]] = Field(
        default_factory=list_default("responses", "invocations"), min_length=1, max_length=2
    )
    """What callers may use. Default: both, where the program serves them."""
    contract: Literal["auto", "moorage", "foundry", "agentcore"] = "auto"
    """How the program is spoken to. `auto` finds out."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the program in its sandbox. Default: 8088 (`agentcore`: 8080)."""
    readiness: str | None = Field(default=None, max_length=1024, pattern=r"^/")
    """Path that answers 200 when the program is ready. Default: `/readiness` (`agentcore`: `/ping`)."""
    env: list[EnvVar] = Field(default_factory=list, max_length=256)
    """Environment variables; never a secret."""
    resources: Resources = Field(default_factory=Resources)
    """Limits of one sandbox."""
    workspace: Workspace = Field(default_factory=Workspace)
    """The session's own files."""
    session: SessionRules = Field(default_factory=SessionRules)
    """Clocks and bounds of a session."""
    turn: TurnRules = Field(default_factory=TurnRules)
    """How one turn is run."""
    pool: Pool = Field(default_factory=Pool)
    """Warm sandboxes kept ready."""
    egress: list[Annotated[str, AfterValidator(egress_host)]] = Field(default_factory=list, max_length=256)
    """Hosts the agent may reach: `host` or `host:port`, wildcards by a leading `*.`; `package-index` is the
    platform's own index."""
    models: list[str] = Field(default_factory=list, max_length=64)
    """Names of the ModelEndpoints it may use."""
    toolboxes: list[str] = Field(default_factory=list, max_length=64)
    """Names of the Toolboxes it may use."""
    access: Access = Field(default_factory=Access)
    """Who may call. Default: the tenant that owns it."""
    runtime_class_name: str | None = Field(default=None, max_length=253)
    """Runtime class of the pods (gVisor, Kata); Kubernetes only."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes it may run on; Kubernetes only."""
    tolerations: list[Toleration] = Field(default_factory=list, max_length=64)
    """Taints it tolerates; Kubernetes only."""
    image_pull_secrets: list[str] = Field(default_factory=list, max_length=16)
    """Names of secrets for pulling `image`; Kubernetes only."""
    priority_class_name: str | None = Field(default=None, max_length=253)
    """Priority class of the pods; Kubernetes only."""
    mounts: list[Mount] = Field(default_factory=list, max_length=32)
    """Read-only folders of this machine; `moorage dev` only, refused in a cluster."""
    rollout: Rollout = Field(default_factory=Rollout)
    """How new sessions move to the newest revision."""

    @field_validator("protocols")
    @classmethod
    def _once(cls, protocols: list[str]) -> list[str]:
        if len(set(protocols)) != len(protocols):
            raise ValueError("names a protocol twice")
        return protocols

    @field_validator("env")
    @classmethod
    def _distinct(cls, env: list[EnvVar]) -> list[EnvVar]:
        seen: set[str] = set()
        for variable in env:
            if variable.name in seen:
                raise ValueError(f"sets {variable.name} twice")
            seen.add(variable.name)
        return env

    @model_validator(mode="after")
    def _one(self) -> HostedAgentSpec:
        if (self.image is None) == (self.source is None):
            found = "none" if self.image is None else "both"
            raise ValueError(f"give exactly one of image and source (found: {found})")
        return self


class HostedAgent(Part):
    """One agent: its code, its limits, its callers. The smallest manifest has `metadata.name` and a source."""

    api_version: Literal["moorage.dev/v1alpha1"] = API_VERSION
    """Always `moorage.dev/v1alpha1`."""
    kind: Literal["HostedAgent"] = KIND
    """Always `HostedAgent`."""
    metadata: Metadata
    """Name and labels."""
    spec: HostedAgentSpec
    """What the agent is and how it is run."""
    status: dict[str, Any] | None = None
    """Written by the platform, ignored in a manifest."""

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.metadata.name

    def wire_spec(self) -> dict[str, Any]:
        """The spec as JSON data with all defaults filled and camelCase names: what the catalog holds."""
        return self.spec.model_dump(mode="json", by_alias=True)

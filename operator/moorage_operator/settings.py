"""The operator's settings: one frozen object, read once from `MOORAGE_*` variables. Layer: floor of the operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from moorage_api.upstream_places import ALLOWED

PREFIX = "MOORAGE_"


class BadSetting(ValueError):
    """A setting is missing or wrong; the message names its variable."""


class Settings(BaseSettings):
    """What an operator process is told. `load` reads an environment; keywords in code."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    redis_url: SecretStr
    """Redis or Valkey: `redis://`, `rediss://` or `unix:///path?db=0`. The gateways' own."""

    token_key: SecretStr
    """Signs sandbox descriptors and makes the secrets between gateway and shim; 64 hex digits. From a Secret that the chart makes once."""

    namespace: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """The operator's own namespace: its Lease lives there, and the gateways run there."""

    namespaces: Annotated[tuple[str, ...], NoDecode] = Field(min_length=1)
    """Namespaces whose HostedAgents it serves, comma separated. Each belongs to one tenant."""

    sandbox_image: str = Field(min_length=1)
    """The stock image: shim and launcher of every pod, and the whole of it for sources. No default: there is no public one."""

    sandbox_image_pull_policy: str = Field(default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$")
    """`imagePullPolicy` of the stock image."""

    sandbox_cpu_request: str = Field(default="50m", pattern=r"^[1-9][0-9]{0,5}m$")
    """CPU that a node keeps for an agent's container, in thousandths of a core; its shim asks for 20m besides. With the memory, it decides
    how many sessions a node holds that are awake; where a manifest's limit is lower, that counts."""

    sandbox_memory_request: str = Field(default="64Mi", pattern=r"^[1-9][0-9]{0,5}(Mi|Gi)$")
    """Memory that a node keeps for an agent's container; 32Mi more for its shim."""

    sandbox_url: str = Field(pattern=r"^http://[^/]+$")
    """Where shims find a gateway at first: the sandbox port of the gateways' Service, as `http://host:port`."""

    egress_url: str | None = Field(default=None, pattern=r"^http://[^/]+$")
    """The gateways' egress proxy, as `http://host:port`. None: sandboxes reach nothing but the gateway."""

    gateway_pods: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)
    """Labels of the gateways' pods as `key=value`, comma separated: NetworkPolicies let only these in and out."""

    gateway_cidr: str | None = None
    """Instead of `gateway_pods`: an address range, for gateways that run outside the cluster."""

    public_url: str | None = Field(default=None, pattern=r"^https?://[^/]+$")
    """The gateways' base URL as callers use it; `status.url` of an agent is made from it."""

    storage_class: str | None = None
    """StorageClass of workspaces whose manifest names none. None: the cluster's default."""

    ready_seconds: float = Field(default=120.0, gt=0)
    """A pod that is not Ready after so long has failed; image pulls come before it."""

    lost_after_seconds: float = Field(default=480.0, gt=0)
    """A session whose pod is still there so long after its grace, or whose volume no pod gets to for so long, leaves it for its newest
    checkpoint. Longer than a node takes to restart."""

    gateway_credentials: str | None = Field(default=None, pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
    """The Secret of the operator's namespace that gateways mount, for the keys of model endpoints and toolboxes. None: those that need one
    are not published."""

    allowed_upstreams: Annotated[tuple[str, ...], NoDecode] = ()
    """As the gateways': hosts, as `host:port`, comma separated, where alerts of routines may go although the address is private, or is
    spoken to without TLS."""

    resync_seconds: float = Field(default=300.0, gt=0)
    """Between two looks at everything, whatever was told."""

    build_seconds: float = Field(default=900.0, ge=60)
    """A build of a source that takes longer has failed; what its pod waits for before it starts does not count."""

    build_memory: str = Field(default="2Gi", pattern=r"^[1-9][0-9]*(Mi|Gi)$")
    """Memory limit of a build."""

    lease_name: str = "moorage-operator"
    """Name of the Lease that lets one of several replicas work."""

    health_host: str = "0.0.0.0"
    """Address of `/healthz`, `/readyz` and `/metrics`."""

    health_port: int = Field(default=8084, ge=0, le=65535)
    """Their port; 0 picks a free one."""

    ephemeral_storage: bool = True
    """Whether pods ask for ephemeral storage. Off only where a node cannot measure it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords only: `load` hands over the environment, so a test never inherits one."""
        return (init_settings,)

    @field_validator("token_key")
    @classmethod
    def _is_hex(cls, value: SecretStr) -> SecretStr:
        if re.fullmatch("[0-9a-f]{64}", value.get_secret_value()) is None:
            raise ValueError("must be 64 lower-case hex digits")
        return value

    @model_validator(mode="after")
    def _one_way_in(self) -> Settings:
        if bool(self.gateway_pods) == (self.gateway_cidr is not None):
            raise ValueError(
                "give exactly one of MOORAGE_GATEWAY_PODS and MOORAGE_GATEWAY_CIDR: policies let only gateways through"
            )
        return self

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_upstreams", mode="before")
    @classmethod
    def _split_places(cls, value: Any) -> Any:
        return cls._split(value.lower() if isinstance(value, str) else value)

    @field_validator("allowed_upstreams")
    @classmethod
    def _are_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(ALLOWED.fullmatch(each) is None for each in value):
            raise ValueError("must be hosts with a port, as hooks.example:443 or 10.0.0.5:8080, comma separated")
        return value

    @field_validator("gateway_pods", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not sign for _, sign, _ in pairs):
            raise ValueError("must be key=value pairs, comma separated")
        return {key.strip(): text.strip() for key, _, text in pairs}


def load(environment: Mapping[str, str]) -> Settings:
    """Settings from `MOORAGE_*` variables. Raises BadSetting, which names the first variable at fault and never shows a value."""
    given = {
        name: environment[PREFIX + name.upper()]
        for name in Settings.model_fields
        if PREFIX + name.upper() in environment
    }
    try:
        return Settings(**{name: text for name, text in given.items() if text != ""})  # type: ignore[arg-type]
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        where = f"{PREFIX}{str(first['loc'][0]).upper()}: " if first["loc"] else ""
        raise BadSetting(f"{where}{first['msg']}") from None

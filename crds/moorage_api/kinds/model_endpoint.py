"""ModelEndpoint: one place where models answer, and how agents may use it. The same manifest on a laptop and in a cluster.

Layer: the floor. These models are the only source: the JSON schema, the CRD, the reference page and the error messages are generated
from them.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from moorage_api.kinds.values import Duration, Metadata, Part, server_url
from moorage_api.kinds.workload import WorkloadIdentity

KIND: Final = "ModelEndpoint"

_SECRET = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}\Z")
_ENDPOINT = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_VERSION = re.compile(r"[A-Za-z0-9.-]{1,64}\Z")

Protocol = Literal["openai", "azure", "anthropic", "compatible"]


class Credential(Part):
    """Where the key is; never the key itself.

    In a cluster a Secret in the manifest's namespace. On a laptop the file `SECRET/KEY` in the folder given by `--credentials`, else the
    environment variable `SECRET_KEY` in capitals: `openai` and `api-key` are `OPENAI_API_KEY`.
    """

    secret: str
    """Name of the Secret."""
    key: str = "api-key"
    """Which of its values."""

    @field_validator("secret")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if _SECRET.match(value) is None:
            raise ValueError(
                f"{value[:20]!r} is not the name of a Secret; a manifest never holds the key itself: put it into a Secret "
                "and name that"
            )
        return value

    @field_validator("key")
    @classmethod
    def _is_a_key(cls, value: str) -> str:
        if _KEY.match(value) is None:
            raise ValueError("is not the name of a value in a Secret: letters, digits, -, _ and .")
        return value


class Timeouts(Part):
    """How long a call may take."""

    connect: Duration = "10s"
    """For a connection to the server."""
    first_byte: Duration = "5m"
    """For the answer to begin: a model that thinks sends nothing."""
    idle: Duration = "2m"
    """Longest silence within a streamed answer."""
    total: Duration = "15m"
    """For the whole call, its retries included."""


class Retries(Part):
    """What the gateway does when the server does not answer, or answers 408, 409, 429, 500, 502, 503, 504 or 529."""

    attempts: int = Field(default=2, ge=0, le=10)
    """Further tries, as long as nothing of an answer was passed on. 0: none."""
    max_wait: Duration = "30s"
    """Longest pause between two. A server that asks for a longer one (`Retry-After`) is not waited for: its answer is passed on."""


class Limits(Part):
    """What agents may use of it, counted over all gateways. 0: no limit.

    Tokens are those that its answers tell of (`usage`), in and out. They are known when a call has ended: calls in flight may overdraw a
    limit, and what was overdrawn is filled first.
    """

    requests_per_minute: int = Field(default=0, ge=0, le=10_000_000)
    """Calls of all agents together; a minute's worth may come at once."""
    tokens_per_minute: int = Field(default=0, ge=0, le=10_000_000_000)
    """Tokens of all agents together; a minute's worth may come at once."""
    tokens_per_turn: int = Field(default=0, ge=0, le=10_000_000_000)
    """Tokens of one turn, over all its attempts; once they are spent the turn's further calls are refused. Answers that come from the
    journal cost nothing."""


class ModelEndpointSpec(Part):
    """Where the models are, with what key, and within which bounds. Only `protocol` and `baseUrl` are needed."""

    protocol: Protocol
    """What is spoken there: `openai` (Responses, chat completions, embeddings), `azure` (Azure OpenAI), `anthropic` (messages), or
    `compatible` (any server with OpenAI's routes)."""
    base_url: str = Field(max_length=1024)
    """The server. `openai` and `compatible`: with the path before `/chat/completions`, as `https://api.example.com/v1`; `azure` and
    `anthropic`: without a path. `http://`, and private addresses, only where the platform's `allowedUpstreams` names the host."""
    credential: Credential | None = None
    """The key. Default: none is sent."""
    workload_identity: WorkloadIdentity | None = None
    """In place of a key: a token that the gateway gets for its own identity in the cluster, sent as `Authorization: Bearer`. Either this or
    `credential`."""
    models: list[str] = Field(default_factory=list, max_length=256)
    """Models (with `azure`: deployments) that may be asked for. Empty: all."""
    default_model: str | None = Field(default=None, max_length=128)
    """Put in where a request names none."""
    api_version: str | None = Field(default=None, max_length=64)
    """`azure`: put in where a request has no `api-version`."""
    timeouts: Timeouts = Field(default_factory=Timeouts)
    """How long a call may take."""
    retries: Retries = Field(default_factory=Retries)
    """What follows a failed try."""
    concurrency: int = Field(default=64, ge=1, le=10_000)
    """Calls in flight of one gateway; more wait for a place, and are refused with 429 when none comes free in time."""
    limits: Limits = Field(default_factory=Limits)
    """What agents may use of it; more is refused with 429, which the journal does not hold."""
    suspend: bool = False
    """No further call is made, from now on; each is refused with 429. What is in flight ends, and what a turn was answered before it is
    still answered."""
    failover: list[str] = Field(default_factory=list, max_length=4)
    """Other ModelEndpoints of the same protocol (`openai` and `compatible` count as one), asked in this order where this one gave
    nothing of an answer: no connection, no key, no free place, or after its retries still 408, 409, 429 or 5xx. One that does not allow the
    model, or is suspended, is passed over; `limits` are always those of the endpoint that was asked for."""
    aliases: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Models by other names: what is asked for as the left one is sent as the right one. The names on the left are allowed too."""
    stream_usage: bool | None = None
    """Whether streamed chat completions are asked for their token counts (`stream_options.include_usage`) where the agent's client did not,
    and the event with them is left out of what the agent gets. Default: only with `openai`; other servers may not know the option, and what
    they do not tell no limit counts."""

    @model_validator(mode="after")
    def _is_opened_once(self) -> ModelEndpointSpec:
        if self.credential is not None and self.workload_identity is not None:
            raise ValueError("has either credential or workloadIdentity, and not both")
        return self

    @field_validator("base_url")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        return server_url(value, like="https://api.example.com/v1", key="spec.credential")

    @field_validator("models")
    @classmethod
    def _are_models(cls, value: list[str]) -> list[str]:
        for each in value:
            _model(each)
        if len(set(value)) != len(value):
            raise ValueError("names a model twice")
        return value

    @field_validator("failover")
    @classmethod
    def _are_endpoints(cls, value: list[str]) -> list[str]:
        for each in value:
            if _ENDPOINT.match(each) is None:
                raise ValueError(f"{each[:60]!r} is not the name of a ModelEndpoint")
        if len(set(value)) != len(value):
            raise ValueError("names an endpoint twice")
        return value

    @field_validator("aliases")
    @classmethod
    def _are_aliases(cls, value: dict[str, str]) -> dict[str, str]:
        for asked, sent in value.items():
            _model(asked)
            _model(sent)
        return value

    @field_validator("default_model")
    @classmethod
    def _is_a_model(cls, value: str | None) -> str | None:
        return value if value is None else _model(value)

    @field_validator("api_version")
    @classmethod
    def _is_a_version(cls, value: str | None) -> str | None:
        if value is not None and _VERSION.match(value) is None:
            raise ValueError("is not a version like 2025-04-01-preview")
        return value


class ModelEndpoint(Part):
    """One place where models answer. Agents name it under `spec.models`; its key never reaches them.

    The smallest manifest has `metadata.name`, `protocol` and `baseUrl`.
    """

    api_version: Literal["moorage.dev/v1alpha1"] = "moorage.dev/v1alpha1"
    """Always `moorage.dev/v1alpha1`."""
    kind: Literal["ModelEndpoint"] = KIND
    """Always `ModelEndpoint`."""
    metadata: Metadata
    """Name and labels."""
    spec: ModelEndpointSpec
    """Where the models are, and within which bounds."""
    status: dict[str, Any] | None = None
    """Written by the platform, ignored in a manifest."""

    @model_validator(mode="after")
    def _names_others(self) -> ModelEndpoint:
        if self.metadata.name in self.spec.failover:
            raise ValueError("spec.failover names the endpoint itself; name others")
        return self

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.metadata.name

    def wire_spec(self) -> dict[str, Any]:
        """The spec as JSON data with all defaults filled and camelCase names: what the catalog holds."""
        return self.spec.model_dump(mode="json", by_alias=True)


def _model(name: str) -> str:
    if _MODEL.match(name) is None:
        raise ValueError(f"{name[:60]!r} is not the name of a model")
    return name

"""Every setting of a gateway: read once from the environment (`MOORAGE_…`), frozen, handed down as arguments.

Layer: the edge. `__main__.py` and the local platform call `load`; nothing else reads the environment. The docs page is
generated from the text under each field, so unit, default and reason stand there.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from moorage_api.kinds import quantities
from moorage_api.upstream_places import ALLOWED

PREFIX = "MOORAGE_"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})

KiB = 1024
MiB = 1024 * KiB

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=1 * KiB)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class SettingsError(Exception):
    """A setting is missing or wrong. The message names the variable, what is wrong and never its value."""


class Settings(BaseSettings):
    """One gateway's settings. Construct it with keywords in code, or with `load` from an environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    # Who this process is

    gateway_id: str = Field(default_factory=lambda: f"gw-{secrets.token_hex(6)}", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Name of this replica in leases, claims and audit chains. Default: random, because two replicas must never share one."""

    dev: bool = False
    """Local development: allows `anonymous` and plain defaults. Default off, so that a bare start fails closed."""

    anonymous: bool = False
    """Requests without a credential act as the tenant `dev`. Only with `dev`, only on a loopback address."""

    # Where truth lives

    redis_url: SecretStr
    """Redis or Valkey: `redis://`, `rediss://` or `unix:///path?db=0`. No default: a gateway without its ledger must not start."""

    durability: Literal["always", "relaxed"] = "always"
    """Promise asked of Redis. `always` refuses to start on a server that may lose acknowledged writes; `relaxed` accepts that."""

    redis_seconds: Seconds = 5.0
    """Longest wait for one Redis reply, in seconds. Default 5: the slowest healthy append-only write stays far below."""

    store: str = Field(min_length=1)
    """Object store: a folder, or `s3://BUCKET[/PREFIX]`. No default: responses must not land in a place nobody chose."""

    s3_endpoint: str | None = None
    """S3 server as `http(s)://host[:port]`. Needed with an `s3://` store."""

    s3_region: str = "us-east-1"
    """S3 region. Given always, because it saves a look-up per client."""

    s3_access_key: SecretStr | None = None
    """S3 access key. Needed with an `s3://` store."""

    s3_secret_key: SecretStr | None = None
    """S3 secret key. Needed with an `s3://` store."""

    store_seconds: Seconds = 30.0
    """Longest wait for one object store call, in seconds."""

    # Listeners

    public_host: str = "127.0.0.1"
    """Address of the public listener. Default loopback; a cluster sets `0.0.0.0`."""

    public_port: Port = 8080
    """Port of the public listener; 0 picks a free one."""

    public_url: str | None = None
    """Base URL that callers use, as printed in answers. Default: made from the listener's address."""

    sandbox_host: str = "127.0.0.1"
    """Address of the sandbox port, where shims announce themselves."""

    sandbox_port: Port = 8081
    """Sandbox port; 0 picks a free one."""

    sandbox_url: str | None = None
    """URL at which shims reach this replica's sandbox port. Default: made from its address; a cluster sets the pod's."""

    egress_host: str = "127.0.0.1"
    """Address of the egress proxy."""

    egress_port: Port = 8082
    """Port of the egress proxy; 0 picks a free one."""

    egress_connections: int = Field(default=128, ge=1)
    """Connections that one session may have open past the egress proxy of one gateway."""

    egress_requests: int = Field(default=600, ge=1)
    """Requests of one session at it in a minute; each may look up a name."""

    egress_sent: str = "1Gi"
    """Bytes that one session may send through it in an hour. What is over ends the connection."""

    egress_received: str = "16Gi"
    """Bytes that one session may receive through it in an hour."""

    build_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts, as `host:port`, that builds may reach although their addresses are private: git servers of your own network. A build
    reaches only the one its agent's manifest names, and only by name."""

    allowed_upstreams: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts, as `host:port`, comma separated, where model endpoints and tool servers may be although the address is private or this
    machine's, or is spoken to without TLS. Metadata and link-local addresses are never connected to."""

    credentials: str | None = None
    """Folder with the keys of model endpoints and toolboxes, a file each, called `TENANT_models_NAME` and `TENANT_toolboxes_NAME_UPSTREAM`;
    read anew when changed. Default: none."""

    consent_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that users' tokens are kept under (upstreams with `grant: authorizationCode`), comma separated, 64 hex digits each: the first
    one seals, all of them open. Default: none, and then no user can consent. Who loses them makes all users consent anew."""

    workload_tokens: str | None = None
    """Folder with projected service-account tokens, a file each, called `TENANT_NAME`; read at each exchange (model endpoints and
    toolboxes with `workloadIdentity`). Default: none."""

    workload_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts, as `login.example.com:443`, comma separated, whose token endpoints these tokens may be shown to, whatever a manifest says."""

    control_host: str = "127.0.0.1"
    """Address of the control listener (metrics, health). Default loopback: metrics are not for callers."""

    control_port: Port = 8083
    """Port of the control listener; 0 picks a free one."""

    hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names callers may use, comma separated, without ports. Default: loopback names when `public_host` is loopback, else any."""

    # Limits of one connection

    header_bytes: Bytes = 32 * KiB
    """Largest request head (request line and headers), in bytes. 32 KiB holds any real token; more is 431."""

    header_count: int = Field(default=100, ge=8)
    """Most header lines of a request; more is 431."""

    header_seconds: Seconds = 10.0
    """A request head must be complete in this many seconds after it began (slow-loris)."""

    body_floor: int = Field(default=1024, ge=1)
    """Slowest accepted body, in bytes a second, measured over `body_grace` seconds."""

    body_grace: Seconds = 10.0
    """Seconds a body may stall before `body_floor` ends the connection."""

    keep_alive_seconds: Seconds = 75.0
    """Idle connections are closed after this many seconds. Above the 60 s most balancers use, so that they close first."""

    slow_reader_seconds: Seconds = 60.0
    """A caller that reads nothing for this many seconds while an answer waits is disconnected."""

    stream_buffer: Bytes = 256 * KiB
    """Bytes of one answer that may wait for a slow reader before back-pressure reaches the agent."""

    max_connections: int = Field(default=10_000, ge=1)
    """Open connections of a listener; above it new ones get 503."""

    client_connections: int = Field(default=4_096, ge=0)
    """Open connections from one address; 0: no limit (behind a balancer all callers share one)."""

    # Limits of one request

    input_bytes: Bytes = 8 * MiB
    """Largest JSON body of the Responses API. Files belong in the workspace, not in the input."""

    json_depth: int = Field(default=64, ge=8, le=512)
    """Deepest nesting of a JSON body."""

    json_containers: int = Field(default=100_000, ge=100)
    """Most objects and arrays of a JSON body: bounds the memory a small body can claim."""

    body_bytes: Bytes = 100 * MiB
    """Largest body of an invocation; it is streamed, never held."""

    upload_bytes: Bytes = 512 * MiB
    """Largest uploaded bundle."""

    scratch: str = "6Gi"
    """Room for temporary files; half of it for bundles on their way between builds, pods and the store. What finds none gets 503."""

    # Calls of agents past the boundary

    call_room: str = "512Mi"
    """Memory for the bodies and answers of all calls in flight. What finds no room is told to come again."""

    call_requests: int = Field(default=1_024, ge=1)
    """Calls to models in flight in this process; above it a sandbox is told to come again."""

    sandbox_calls: int = Field(default=64, ge=1)
    """Calls of one sandbox at a time."""

    # Admission

    max_requests: int = Field(default=8_192, ge=1)
    """Requests in flight in this process; above it 503 at once, before any work."""

    key_concurrency: int = Field(default=2_048, ge=0)
    """Requests in flight of one key; above it 429. 0: no limit."""

    key_rate: float = Field(default=2_000.0, ge=0)
    """Requests a second of one key in this process; above it 429. 0: no limit."""

    key_burst: float = Field(default=4_000.0, ge=1)
    """Requests one key may make at once after a quiet time."""

    # Deadlines

    acquire_seconds: Seconds = 60.0
    """Longest wait for a sandbox (wake, claim, readiness). Past it the answer is 424 or 503, never a hung call."""

    connect_seconds: Seconds = 5.0
    """Longest wait for a connection to a shim."""

    head_seconds: Seconds = 600.0
    """Longest wait for the first byte of an invocation's answer; as long as the stock client waits."""

    idle_seconds: Seconds = 3_600.0
    """Longest silence within an invocation's answer."""

    comment_seconds: Seconds = 15.0
    """A stream that is silent this long gets a comment line, so that proxies keep it open."""

    drain_notice_seconds: float = Field(default=2.0, ge=0, le=600)
    """Between failing readiness and closing the listener: what routing needs to notice."""

    drain_seconds: Seconds = 30.0
    """Running requests get this long to end when the gateway stops."""

    # Sessions

    archive_seconds: float = Field(default=86_400.0, ge=0)
    """A hibernated session unused for this many seconds gives up its volume, once its last checkpoint was read whole. 0: never."""

    # Telemetry

    otlp_endpoint: str | None = None
    """OTLP/HTTP base URL (`/v1/traces` is appended). Default: no export, and then no span is made."""

    otlp_queue: int = Field(default=2_048, ge=64)
    """Spans that may wait for the collector; more are dropped and counted."""

    access_log: Literal["stdout", "stderr", "none"] = "stdout"
    """Where the line per request goes."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords only: `load` hands over the environment, so a test or the local platform never inherits one."""
        return (init_settings,)

    @field_validator("hosts", "build_hosts", "allowed_upstreams", "workload_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return (
            tuple(part.strip().lower() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("consent_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("consent_keys")
    @classmethod
    def _are_keys(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(re.fullmatch(r"[0-9a-f]{64}", each.get_secret_value()) is None for each in value):
            raise ValueError("must be 64 lower-case hex digits each, comma separated: openssl rand -hex 32")
        return value

    @field_validator("build_hosts")
    @classmethod
    def _have_ports(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(re.fullmatch(r"[a-z0-9_.-]*[a-z][a-z0-9_-]*:[1-9][0-9]{0,4}", each) is None for each in value):
            raise ValueError("must be names with a port, as git.example:443, comma separated")
        return value

    @field_validator("allowed_upstreams", "workload_hosts")
    @classmethod
    def _are_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(ALLOWED.fullmatch(each) is None for each in value):
            raise ValueError("must be hosts with a port, as models.example:443 or 127.0.0.1:11434, comma separated")
        return value

    @field_validator("scratch", "call_room", "egress_sent", "egress_received")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        quantities.octets(value)
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("public_url", "sandbox_url", "s3_endpoint", "otlp_endpoint")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must be an http:// or https:// URL")
        return value.rstrip("/") if value else None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.anonymous and not self.dev:
            raise ValueError("MOORAGE_ANONYMOUS needs MOORAGE_DEV: callers without a key are for development only")
        if self.anonymous and not is_loopback(self.public_host):
            raise ValueError("MOORAGE_ANONYMOUS needs a loopback MOORAGE_PUBLIC_HOST")
        if self.store.startswith("s3://"):
            needed = {
                "s3_endpoint": self.s3_endpoint,
                "s3_access_key": self.s3_access_key,
                "s3_secret_key": self.s3_secret_key,
            }
            missing = [f"{PREFIX}{name.upper()}" for name, value in needed.items() if value is None]
            if missing:
                raise ValueError(f"an s3:// MOORAGE_STORE needs {', '.join(missing)}")
        return self

    @property
    def allowed_hosts(self) -> frozenset[str] | None:
        """Names a Host header may carry (without port); None: any well-formed one."""
        if self.hosts:
            return None if "*" in self.hosts else frozenset(self.hosts)
        return LOOPBACK_NAMES if is_loopback(self.public_host) else None


def is_loopback(host: str) -> bool:
    """Whether a listener on `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(environ: Mapping[str, str]) -> Settings:
    """The settings in an environment. Raises SettingsError, which names each bad variable and never its value."""
    given: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = environ.get(f"{PREFIX}{name.upper()}")
        if value is not None and value != "":
            given[name] = value
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(entry) for entry in error.errors(include_input=False))) from None


def _sentence(entry: Any) -> str:
    name = "_".join(str(part) for part in entry["loc"]).upper()
    what = "is missing" if entry["type"] == "missing" else str(entry["msg"]).removeprefix("Value error, ")
    return f"{PREFIX}{name}: {what}" if name else what

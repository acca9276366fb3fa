"""Toolbox: tools of one or several servers under one MCP URL, and how agents may use them. The same manifest on a laptop and in a cluster.

Layer: the floor. These models are the only source: the JSON schema, the CRD, the reference page and the error messages are generated
from them.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from moorage_api.kinds import quantities
from moorage_api.kinds.model_endpoint import Credential
from moorage_api.kinds.values import Duration, Metadata, Part, Size, server_url

KIND: Final = "Toolbox"

MOST_SECONDS = 900
"""Longest `timeout`: a boundary call lives half an hour, and a turn's own deadline is a session's default of as much."""
MOST_RESULT = 8 * 2**20
"""Largest `maxResult`."""

_UPSTREAM = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?\Z")
_TOOL = re.compile(r"[A-Za-z0-9_./-]{1,128}\Z")
_PATTERN = re.compile(r"[A-Za-z0-9_./*-]{1,128}\Z")
_PREFIX = re.compile(r"[A-Za-z0-9_./-]{0,32}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HEADER = re.compile(r"[A-Za-z0-9!#$&'^_`|~.+-]{1,64}\Z")
_SCHEME = re.compile(r"[A-Za-z0-9-]{0,32}\Z")
_TAKEN = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)


class ToolCredential(Credential):
    """What opens the server, and in which header the gateway sends it; never the value itself.

    Where it is found is said as for a ModelEndpoint: a Secret in the manifest's namespace; on a laptop the file `SECRET/KEY` in the folder
    given by `--credentials`, else the environment variable `SECRET_KEY` in capitals.
    """

    header: str = "authorization"
    """The header it is sent in."""
    scheme: str | None = None
    """What stands before it in that header. Default: `Bearer` in `authorization`, nothing elsewhere."""

    @field_validator("header")
    @classmethod
    def _is_a_header(cls, value: str) -> str:
        name = value.lower()
        if _HEADER.match(name) is None or name in _TAKEN or name.startswith("mcp-"):
            raise ValueError(
                f"{value[:40]!r} is not a header for a credential; write it like authorization or x-api-key"
            )
        return name

    @field_validator("scheme")
    @classmethod
    def _is_a_scheme(cls, value: str | None) -> str | None:
        if value is not None and _SCHEME.match(value) is None:
            raise ValueError("is not a scheme like Bearer or Basic; the credential itself goes into the Secret")
        return value


class McpServer(Part):
    """A server that speaks MCP over streamable HTTP, of either era (2025-11-25 and older, 2026-07-28)."""

    url: str = Field(max_length=1024)
    """Its one URL, as `https://tools.example.com/mcp`. `http://`, and private addresses, only where the platform's `allowedUpstreams`
    names the host."""

    @field_validator("url")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        return server_url(value, like="https://tools.example.com/mcp", key="credential")


class ToolUpstream(Part):
    """One server whose tools the toolbox has. Patterns are the server's own tool names, with `*` for any run of characters."""

    name: str
    """Unique in the toolbox: lower-case letters, digits and `-`, at most 32."""
    mcp: McpServer
    """Where it is."""
    credential: ToolCredential | None = None
    """What opens it. Default: nothing is sent."""
    prefix: str | None = None
    """Put before the names of its tools. Default: none where it is the only upstream, else its name and `_`."""
    allow: list[str] = Field(default_factory=list, max_length=256)
    """Patterns of the tools that agents may see and call. Empty: all."""
    deny: list[str] = Field(default_factory=list, max_length=256)
    """Patterns of tools that they may not, whatever `allow` says."""
    rename: dict[str, str] = Field(default_factory=dict, max_length=64)
    """The server's name of a tool → what agents call it (before the prefix)."""
    read_only: list[str] = Field(default_factory=list, max_length=256)
    """Patterns of tools that change nothing: where their answer was lost they are asked again."""
    idempotent: list[str] = Field(default_factory=list, max_length=256)
    """Patterns of tools that may be run twice without harm. Every other tool is an effect, and is never run again by itself; what the
    server says of its own tools is not believed."""
    pin: dict[str, str] = Field(default_factory=dict, max_length=64)
    """The server's name of a tool → the digest of its definition that was approved. A tool whose definition is another now is held back,
    neither listed nor called, until the manifest names the new digest: `moorage toolboxes tools NAME` shows them."""
    timeout: Duration = "1m"
    """For one call, at most 15m. An effect that did not answer in time has an unknown outcome."""
    max_result: Size = "1Mi"
    """Largest answer, at most 8Mi."""
    concurrency: int = Field(default=32, ge=1, le=1000)
    """Calls in flight of one gateway."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if _UPSTREAM.match(value) is None:
            raise ValueError(f"{value[:40]!r} is not a name: lower-case letters, digits and -, at most 32, like github")
        return value

    @field_validator("prefix")
    @classmethod
    def _is_a_prefix(cls, value: str | None) -> str | None:
        if value is not None and _PREFIX.match(value) is None:
            raise ValueError("is not a prefix: letters, digits, _, -, . and /, at most 32, like github_")
        return value

    @field_validator("allow", "deny", "read_only", "idempotent")
    @classmethod
    def _are_patterns(cls, value: list[str]) -> list[str]:
        for each in value:
            if _PATTERN.match(each) is None:
                raise ValueError(f"{each[:60]!r} is not a tool's name or a pattern like get_*")
        return value

    @field_validator("rename")
    @classmethod
    def _are_names(cls, value: dict[str, str]) -> dict[str, str]:
        for each in (*value, *value.values()):
            if _TOOL.match(each) is None:
                raise ValueError(f"{each[:60]!r} is not a tool's name: letters, digits, _, -, . and /, at most 128")
        if len(set(value.values())) != len(value):
            raise ValueError("gives two tools one name")
        return value

    @field_validator("pin")
    @classmethod
    def _are_digests(cls, value: dict[str, str]) -> dict[str, str]:
        for name, digest in value.items():
            if _TOOL.match(name) is None:
                raise ValueError(f"{name[:60]!r} is not a tool's name: letters, digits, _, -, . and /, at most 128")
            if _DIGEST.match(digest) is None:
                raise ValueError(f"{digest[:20]!r} is not a digest: sha256: and 64 hex digits")
        return value

    @field_validator("timeout")
    @classmethod
    def _is_short(cls, value: str) -> str:
        if not 0 < quantities.seconds(value) <= MOST_SECONDS:
            raise ValueError(f"{value} is not between 1ms and {MOST_SECONDS // 60}m")
        return value

    @field_validator("max_result")
    @classmethod
    def _is_small(cls, value: str) -> str:
        if not 1024 <= quantities.octets(value) <= MOST_RESULT:
            raise ValueError(f"{value} is not between 1Ki and {MOST_RESULT // 2**20}Mi")
        return value


class Breaker(Part):
    """When a server that fails is left alone for a while: each gateway counts for itself."""

    failures: int = Field(default=5, ge=1, le=1000)
    """Failed calls of one upstream in a row (no connection, no answer in time, 5xx, an answer that is none)."""
    pause: Duration = "30s"
    """How long it is left alone then; calls are answered at once with an error that says so. The next one after it is a trial."""


class ToolboxSpec(Part):
    """Whose tools there are, and within which bounds. Only `upstreams` is needed."""

    description: str = Field(default="", max_length=4096)
    """Told to MCP clients as the server's instructions."""
    upstreams: list[ToolUpstream] = Field(min_length=1, max_length=16)
    """The servers."""
    breaker: Breaker = Field(default_factory=Breaker)
    """When one of them is left alone."""
    tool_search: bool = False
    """Whether agents see `tool_search` and `call_tool` in place of the list of all tools: for toolboxes with so many that a model should
    not read them all. They find tools by what they do, and call them by name."""

    @model_validator(mode="after")
    def _distinct(self) -> ToolboxSpec:
        names = [each.name for each in self.upstreams]
        if len(set(names)) != len(names):
            raise ValueError("upstreams: two have the same name")
        prefixes = [prefix_of(each.name, each.prefix, alone=len(names) == 1) for each in self.upstreams]
        if len(set(prefixes)) != len(prefixes):
            raise ValueError("upstreams: two have the same prefix, so that a tool's name would not say whose it is")
        return self


class Toolbox(Part):
    """Tools under one MCP URL. Agents name it under `spec.toolboxes`; its credentials never reach them.

    The smallest manifest has `metadata.name` and one upstream with a name and a URL.
    """

    api_version: Literal["moorage.dev/v1alpha1"] = "moorage.dev/v1alpha1"
    """Always `moorage.dev/v1alpha1`."""
    kind: Literal["Toolbox"] = KIND
    """Always `Toolbox`."""
    metadata: Metadata
    """Name and labels."""
    spec: ToolboxSpec
    """Whose tools there are, and within which bounds."""
    status: dict[str, Any] | None = None
    """Written by the platform, ignored in a manifest."""

    @property
    def name(self) -> str:
        """The toolbox' name."""
        return self.metadata.name

    def wire_spec(self) -> dict[str, Any]:
        """The spec as JSON data with all defaults filled and camelCase names: what the catalog holds."""
        return self.spec.model_dump(mode="json", by_alias=True)


def prefix_of(name: str, prefix: str | None, *, alone: bool) -> str:
    """What stands before the names of an upstream's tools."""
    if prefix is not None:
        return prefix
    return "" if alone else f"{name}_"

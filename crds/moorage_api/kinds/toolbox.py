"""Toolbox: tools of one or several servers, and agents that others may call, under one MCP URL. The same manifest on a laptop and in a
cluster.

Layer: the floor. These models are the only source: the JSON schema, the CRD, the reference page and the error messages are generated
from them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from moorage_api import names
from moorage_api.kinds import quantities
from moorage_api.kinds.model_endpoint import Credential
from moorage_api.kinds.stdio_server import StdioServer
from moorage_api.kinds.tool_servers import McpServer, OAuth, OpenApiServer, ToolCredential
from moorage_api.kinds.values import Duration, Metadata, Part, Size
from moorage_api.kinds.workload import WorkloadIdentity

KIND: Final = "Toolbox"

MOST_SECONDS = 900
"""Longest `timeout`: a boundary call lives half an hour, and a turn's own deadline is a session's default of as much."""
MOST_RESULT = 8 * 2**20
"""Largest `maxResult`."""
MOST_EXAMPLES = 256 * 1024
"""Bytes of a toolbox' `examples`, the tools' names counted: the whole object must fit into an API server's store (1.5 MB)."""

_UPSTREAM = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?\Z")
_TOOL = re.compile(r"[A-Za-z0-9_./-]{1,128}\Z")
_PATTERN = re.compile(r"[A-Za-z0-9_./*-]{1,128}\Z")
_PREFIX = re.compile(r"[A-Za-z0-9_./-]{0,32}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")

Examples = Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=3)]


class CalledAgent(Part):
    """A hosted agent of the same tenant. It is one tool, `ask`, that takes the `input` as a text and gives the agent's answer as a text."""

    name: str = Field(max_length=63)
    """The HostedAgent's name."""
    description: str = Field(default="", max_length=4096)
    """Told to the calling agent's model: what this agent is good for, and what it has to be told."""
    session: Literal["kept", "fresh"] = "kept"
    """`kept`: each session of the calling agent has one session of this agent, with its files and the conversation so far, and calls in it
    run one at a time. `fresh`: a new session each call, so that calls may run at once."""

    @field_validator("name")
    @classmethod
    def _is_an_agent(cls, value: str) -> str:
        if names.AGENT.match(value) is None:
            raise ValueError(f"{value[:40]!r} is not an agent's name: lower-case letters, digits and -, at most 63")
        return value


class ToolUpstream(Part):
    """One server, or one hosted agent, whose tools the toolbox has: it has `mcp`, `openapi`, `stdio` or `agent`. Patterns are the server's
    own tool names, with `*` for any run of characters."""

    name: str
    """Unique in the toolbox: lower-case letters, digits and `-`, at most 32."""
    mcp: McpServer | None = None
    """A server that speaks MCP. An upstream has one of this, `openapi`, `stdio` and `agent`."""
    openapi: OpenApiServer | None = None
    """An HTTP API that an OpenAPI document describes: its operations are the tools."""
    stdio: StdioServer | None = None
    """A program that speaks MCP over stdin and stdout, run by the platform."""
    agent: CalledAgent | None = None
    """A hosted agent of the same tenant, called by a turn of its own for the same user."""
    credential: ToolCredential | None = None
    """What opens it. Default: nothing is sent."""
    oauth: OAuth | None = None
    """The same, where what opens it is a token that the gateway asks for, its own or a user's. Either this or `credential`."""
    workload_identity: WorkloadIdentity | None = None
    """The same without a secret: a token that the gateway gets for its own identity in the cluster, sent as `Authorization: Bearer`. In
    place of both."""
    prefix: str | None = None
    """Put before the names of its tools. Default: its name and `_`, but none where it is the only upstream and no agent."""
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
    require_approval: list[str] = Field(default_factory=list, max_length=256)
    """Patterns of tools of which each call waits until a person has approved it: who called the agent, by an `mcp_approval_response`."""
    pin: dict[str, str] = Field(default_factory=dict, max_length=64)
    """The server's name of a tool → the digest of its definition that was approved. A tool whose definition is another now is held back,
    neither listed nor called, until the manifest names the new digest: `moorage toolboxes tools NAME` shows them."""
    examples: dict[str, Examples] = Field(default_factory=dict, max_length=512)
    """The server's name of a tool → one to three questions that it answers, of 200 characters at most, as an agent's model would ask for
    it: `tool_search` finds it by them, too. Names that the server does not have count for nothing: `moorage toolboxes tools NAME` says
    which."""
    timeout: Duration = "1m"
    """For one call, at most 15m. An effect that did not answer in time has an unknown outcome; an agent is stopped."""
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

    @field_validator("allow", "deny", "read_only", "idempotent", "require_approval")
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

    @field_validator("examples")
    @classmethod
    def _are_questions(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, questions in value.items():
            if _TOOL.match(name) is None:
                raise ValueError(f"{name[:60]!r} is not a tool's name: letters, digits, _, -, . and /, at most 128")
            if not all(each.strip() for each in questions):
                raise ValueError(f"a question of {name} is empty; write it like: close a ticket")
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

    @model_validator(mode="after")
    def _is_of_one_type(self) -> ToolUpstream:
        if sum(each is not None for each in (self.mcp, self.openapi, self.stdio, self.agent)) != 1:
            raise ValueError("has exactly one of mcp, openapi, stdio and agent")
        if self.stdio is not None and self.secret is not None:
            raise ValueError("what opens a program goes into its environment: stdio.env, with secret in place of value")
        if self.agent is not None and self.secret is not None:
            raise ValueError("an agent of the same tenant is called without a credential; leave it out")
        if self.credential is not None and self.oauth is not None:
            raise ValueError("has either credential or oauth, and not both")
        if self.workload_identity is not None:
            self._has_identity_alone()
        if self.credential is not None and self.credential.query is not None and self.openapi is None:
            raise ValueError("credential.query is for openapi: MCP servers are opened by a header")
        return self

    def _has_identity_alone(self) -> None:
        if self.stdio is not None or self.agent is not None:
            raise ValueError("workloadIdentity opens servers: it is for mcp and openapi")
        if self.credential is not None or self.oauth is not None:
            raise ValueError("has workloadIdentity or one of credential and oauth, and not both")

    @property
    def secret(self) -> Credential | None:
        """What must be found for it: its credential, or the secret that tokens are asked for with."""
        return self.oauth.client_secret if self.oauth is not None else self.credential

    @property
    def urls(self) -> list[str]:
        """Every place that the gateway connects to for it."""
        found = [self.mcp.url] if self.mcp is not None else []
        if self.openapi is not None:
            found += [url for url in (self.openapi.server, self.openapi.url) if url is not None]
        return [*found, *self.oauth.urls] if self.oauth is not None else found


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
    not read them all. They find tools by what they do, and call them by name. A client may ask for the other way (`?toolSearch=`)."""

    @model_validator(mode="after")
    def _distinct(self) -> ToolboxSpec:
        called = [each.name for each in self.upstreams]
        if len(set(called)) != len(called):
            raise ValueError("upstreams: two have the same name")
        alone = len(called) == 1
        prefixes = [prefix_of(e.name, e.prefix, alone=alone and e.agent is None) for e in self.upstreams]
        if len(set(prefixes)) != len(prefixes):
            raise ValueError("upstreams: two have the same prefix, so that a tool's name would not say whose it is")
        examples = [pair for each in self.upstreams for pair in each.examples.items()]
        size = sum(len(text.encode()) for name, questions in examples for text in (name, *questions))
        if size > MOST_EXAMPLES:
            raise ValueError(
                f"upstreams: their examples are {size // 1024} KiB, and may be {MOST_EXAMPLES // 1024} in all; "
                "give each tool one, or shorter ones"
            )
        return self


class Toolbox(Part):
    """Tools under one MCP URL. Agents name it under `spec.toolboxes`; its credentials never reach them.

    The smallest manifest has `metadata.name` and one upstream with a name and a place.
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
    """What stands before the names of an upstream's tools. `alone`: it is the only one, and no agent."""
    if prefix is not None:
        return prefix
    return "" if alone else f"{name}_"

"""The types of servers that a toolbox may have as upstreams, and what opens them. Layer: the floor; parts of the kind in `toolbox.py`."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from moorage_api.kinds.model_endpoint import Credential
from moorage_api.kinds.values import Part, server_url

MOST_INLINE = 256 * 1024
"""Bytes of a document within a manifest: the whole object must fit into an API server's store, and its record into Redis."""

_HEADER = re.compile(r"[A-Za-z0-9!#$&'^_`|~.+-]{1,64}\Z")
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_SCOPE = re.compile(r"[!#-\[\]-~]{1,128}\Z")
"""RFC 6749, 3.3."""
_IDENTIFIER = re.compile(r"https?://[!\"$-~]+\Z")
_SCHEME = re.compile(r"[A-Za-z0-9-]{0,32}\Z")
_TAKEN = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_ASKED = frozenset(
    {
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code",
        "code_challenge",
        "code_challenge_method",
        "code_verifier",
        "grant_type",
        "redirect_uri",
        "refresh_token",
        "request",
        "request_uri",
        "response_mode",
        "response_type",
        "scope",
        "state",
    }
)
"""Of a request for a token, or for a user's consent: what the other fields say."""


class ToolCredential(Credential):
    """What opens the server, and in which header the gateway sends it; never the value itself.

    Where it is found is said as for a ModelEndpoint: a Secret in the manifest's namespace; on a laptop the file `SECRET/KEY` in the folder
    given by `--credentials`, else the environment variable `SECRET_KEY` in capitals.
    """

    header: str = "authorization"
    """The header it is sent in."""
    scheme: str | None = None
    """What stands before it in that header. Default: `Bearer` in `authorization`, nothing elsewhere."""
    query: str | None = None
    """With `openapi`: the query parameter that it is sent in, in place of a header."""

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

    @field_validator("query")
    @classmethod
    def _is_a_parameter(cls, value: str | None) -> str | None:
        if value is not None and _PARAMETER.match(value) is None:
            raise ValueError("is not a query parameter for a credential; write it like api_key")
        return value


class McpServer(Part):
    """A server that speaks MCP: over streamable HTTP, of either era (2025-11-25 and older, 2026-07-28), or over the older HTTP with SSE."""

    url: str = Field(max_length=1024)
    """Its one URL, as `https://tools.example.com/mcp`; with `sse` the one of the stream. `http://`, and private addresses, only where the
    platform's `allowedUpstreams` names the host."""
    transport: Literal["streamable-http", "sse"] = "streamable-http"
    """`sse`: the transport of 2024-11-05. Each call has a stream of its own, so that nothing that such a server keeps in a session lasts
    from call to call."""

    @field_validator("url")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        return server_url(value, like="https://tools.example.com/mcp", key="credential")


class OpenApiServer(Part):
    """An HTTP API and the OpenAPI document (3.0, 3.1) that describes it. Every operation is a tool: its `operationId` is the name, its
    parameters are the arguments, a JSON or form body is the argument `body`."""

    server: str = Field(max_length=1024)
    """The API's base URL, as `https://api.example.com/v1`: the paths of the document follow it. What the document says of servers is not
    heeded. `http://`, and private addresses, only where the platform's `allowedUpstreams` names the host."""
    url: str | None = Field(default=None, max_length=1024)
    """Where the document is, as JSON of at most 4 MiB; read again every five minutes. What opens the API is sent along where it is at
    the same host and port."""
    document: dict[str, Any] | None = None
    """The document itself, at most 256 KiB as JSON. Either this or `url`."""

    @field_validator("server")
    @classmethod
    def _is_a_base(cls, value: str) -> str:
        return server_url(value, like="https://api.example.com/v1", key="credential")

    @field_validator("url")
    @classmethod
    def _is_a_place(cls, value: str | None) -> str | None:
        return value and server_url(value, like="https://api.example.com/openapi.json", key="credential")

    @field_validator("document")
    @classmethod
    def _is_small(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            size = len(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise ValueError("holds what JSON has no form for: quote dates, and other values of YAML's own") from None
        if size > MOST_INLINE:
            raise ValueError(f"is larger than {MOST_INLINE // 1024} KiB; give its url, or leave out what is not needed")
        return value

    @model_validator(mode="after")
    def _has_a_document(self) -> OpenApiServer:
        if (self.url is None) == (self.document is None):
            raise ValueError("has either url or document, and not both")
        return self


class OAuth(Part):
    """OAuth 2.0: the gateway asks for a token, keeps it until shortly before it ends, and sends it as `Authorization: Bearer`. The token
    is the platform's own (`clientCredentials`), or that of the user for whom a turn runs (`authorizationCode`)."""

    grant: Literal["clientCredentials", "authorizationCode"] = "clientCredentials"
    """`clientCredentials`: the grant for programs (RFC 6749, 4.4), one token for all. `authorizationCode`: each user consents once in a
    browser, by a link that the first call gives, and calls are made with that user's own token (with PKCE; RFC 6749, 4.1)."""
    authorization_url: str | None = Field(default=None, max_length=1024)
    """With `authorizationCode`: where the user's browser is sent to consent."""
    issuer: str | None = Field(default=None, max_length=1024)
    """The same: who the authorization server says it is (`iss`, RFC 9207). Where it is given, an answer of anybody else, or of nobody, is
    refused. Default: an `iss` that an answer has must be at the host of `authorizationUrl`."""
    resource: str | None = Field(default=None, max_length=1024)
    """The same: the server that tokens are for (RFC 8707), as `https://tools.example.com/mcp`. Default: none is named."""
    revocation_url: str | None = Field(default=None, max_length=1024)
    """The same: where a token is given back when its user revokes the consent (RFC 7009). Default: it is only forgotten here."""
    token_url: str = Field(max_length=1024)
    """The token endpoint. `http://`, and private addresses, only where the platform's `allowedUpstreams` names the host."""
    client_id: str = Field(min_length=1, max_length=256)
    """Who asks."""
    client_secret: Credential
    """Where the secret is that proves it."""
    scopes: list[str] = Field(default_factory=list, max_length=64)
    """What is asked for. Default: whatever the server gives."""
    auth: Literal["basic", "post"] = "basic"
    """Whether id and secret go as HTTP Basic or in the form (`client_secret_basic`, `client_secret_post`)."""
    parameters: dict[str, str] = Field(default_factory=dict, max_length=16)
    """Further fields of the request for a token, as `audience` or `resource`; with `authorizationCode` of the one for consent, as
    `prompt` or `access_type`."""

    @field_validator("token_url", "authorization_url", "revocation_url")
    @classmethod
    def _is_a_place(cls, value: str | None) -> str | None:
        return value and server_url(value, like="https://login.example.com/oauth2/token", key="clientSecret")

    @field_validator("issuer", "resource")
    @classmethod
    def _is_an_identifier(cls, value: str | None) -> str | None:
        if value is not None and _IDENTIFIER.match(value) is None:
            raise ValueError("is not an absolute URL without a fragment; write it like https://login.example.com")
        return value

    @field_validator("client_id")
    @classmethod
    def _is_an_id(cls, value: str) -> str:
        if not value.isascii() or not value.isprintable():
            raise ValueError("is not a client's id: printable ASCII only")
        return value

    @field_validator("scopes")
    @classmethod
    def _are_scopes(cls, value: list[str]) -> list[str]:
        for each in value:
            if _SCOPE.match(each) is None:
                raise ValueError(
                    f"{each[:40]!r} is not a scope: printable ASCII without spaces, quotes and \\, one an entry"
                )
        return value

    @field_validator("parameters")
    @classmethod
    def _are_others(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name in _ASKED:
                raise ValueError(f"{name} is said by a field of its own, and a secret by clientSecret alone")
            if _PARAMETER.match(name) is None:
                raise ValueError(f"{name[:40]!r} is not a field of a form; write it like audience")
        return value

    @model_validator(mode="after")
    def _is_one_grant(self) -> OAuth:
        theirs = (self.authorization_url, self.issuer, self.resource, self.revocation_url)
        if self.grant == "authorizationCode" and self.authorization_url is None:
            raise ValueError("grant authorizationCode needs authorizationUrl: where users consent")
        if self.grant == "clientCredentials" and any(each is not None for each in theirs):
            raise ValueError(
                "authorizationUrl, issuer, resource and revocationUrl belong to grant authorizationCode; a resource of clientCredentials "
                "stands under parameters"
            )
        if self.resource is not None and "resource" in self.parameters:
            raise ValueError("parameters: resource is said by a field of its own")
        return self

    @property
    def urls(self) -> list[str]:
        """Every place that is connected to for it, by the gateway or by a user's browser."""
        return [each for each in (self.token_url, self.authorization_url, self.revocation_url) if each is not None]

"""What opens a server without a key: the identity of the gateway's own workload. Layer: the floor; a part of ModelEndpoint and
Toolbox."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from moorage_api.kinds.values import Part, server_url

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?\Z")
_TEXT = re.compile(r"[!-~]{1,512}\Z")
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_SAID = frozenset(
    {
        "assertion",
        "audience",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "grant_type",
        "requested_token_type",
        "scope",
        "subject_token",
        "subject_token_type",
    }
)


class WorkloadIdentity(Part):
    """A service-account token that the kubelet projects into the gateway's pod is shown to the provider's token endpoint, which gives a
    token for its API in return. Nothing is stored, and nobody has to replace a key.

    Which tokens there are, for which tenant, and to which hosts they may be shown, the chart's `workloadIdentity` says.
    """

    token: str = "default"
    """Which of the tenant's projected tokens."""
    token_url: str = Field(max_length=1024)
    """The provider's token endpoint, at a host that the chart's `workloadIdentity.hosts` names."""
    grant: Literal["clientAssertion", "tokenExchange", "jwtBearer"] = "clientAssertion"
    """How it is shown: as what proves a client (RFC 7523, 2.2; Entra's federated credentials), as the token to exchange (RFC 8693), or as
    the grant itself (RFC 7523, 2.1)."""
    client_id: str | None = Field(default=None, max_length=256)
    """Who asks. `clientAssertion` needs it."""
    scopes: list[str] = Field(default_factory=list, max_length=64)
    """What is asked for, as `https://cognitiveservices.azure.com/.default`."""
    audience: str | None = Field(default=None, max_length=512)
    """With `tokenExchange`: the `audience` of the token that is asked for."""
    parameters: dict[str, str] = Field(default_factory=dict, max_length=16)
    """Further fields of the request, as `resource`."""

    @field_validator("token")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if _NAME.match(value) is None:
            raise ValueError(f"{value[:40]!r} is not a token's name: lower-case letters, digits and -, at most 32")
        return value

    @field_validator("token_url")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        return server_url(value, like="https://login.example.com/oauth2/token", key="spec.credential")

    @field_validator("client_id", "audience")
    @classmethod
    def _is_a_text(cls, value: str | None) -> str | None:
        if value is not None and _TEXT.match(value) is None:
            raise ValueError("is not printable ASCII without spaces")
        return value

    @field_validator("scopes")
    @classmethod
    def _are_scopes(cls, value: list[str]) -> list[str]:
        for each in value:
            if _TEXT.match(each) is None:
                raise ValueError(f"{each[:40]!r} is not a scope: printable ASCII without spaces, one an entry")
        return value

    @field_validator("parameters")
    @classmethod
    def _are_others(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name in _SAID:
                raise ValueError(f"{name} is said by a field of its own")
            if _PARAMETER.match(name) is None:
                raise ValueError(f"{name[:40]!r} is not a field of a form; write it like resource")
        return value

    @model_validator(mode="after")
    def _fits_its_grant(self) -> WorkloadIdentity:
        if self.grant == "clientAssertion" and self.client_id is None:
            raise ValueError("grant clientAssertion needs clientId: whose assertion it is")
        if self.grant != "tokenExchange" and self.audience is not None:
            raise ValueError("audience belongs to grant tokenExchange; of the projected token the chart says it")
        return self

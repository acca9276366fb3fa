"""Whose a consent is, for what it was given, and what is kept of it. Layer: shapes, pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moorage_api.catalog import ToolboxEntry
from moorage_gateway.token_requests import Client
from moorage_gateway.tools.names import place_of

GIVEN, ENDED, REVOKED = "given", "ended", "revoked"

GRANT = "authorizationCode"


class NoKey(Exception):
    """There is nothing to keep tokens with, or an object that this key does not open; `str()` says what to do."""


@dataclass(frozen=True)
class Subject:
    """Whose, and at which upstream."""

    tenant: str
    user: str
    toolbox: str
    upstream: str

    @property
    def place(self) -> str:
        """Its name in Redis."""
        return _digest([self.tenant, self.user, self.toolbox, self.upstream])

    @property
    def folder(self) -> str:
        """Where its objects are; users' names are not made for keys of a store."""
        return f"{folder_of(self.tenant, self.user)}{self.toolbox}/{self.upstream}/"


@dataclass(frozen=True)
class Tokens:
    """What a user's consent gave. `until`: used so long, `ends`: accepted so long (epoch ms; 0: nobody has said)."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    until: int
    ends: int


@dataclass(frozen=True)
class Consent:
    """One version of it. `binding`: what it was given for; `at`: when (epoch s). Without tokens it only says that it is over."""

    subject: Subject
    version: int
    state: str
    binding: str
    scopes: tuple[str, ...]
    at: int
    tokens: Tokens | None = None

    def counts(self, binding: str) -> bool:
        """Whether it was given for just this, and still is."""
        return self.state == GIVEN and self.binding == binding and self.tokens is not None


@dataclass(frozen=True)
class Terms:
    """What an upstream's manifest says of consents, with what opens its token endpoint."""

    toolbox: str
    upstream: str
    oauth: dict[str, Any]
    binding: str
    client: Client

    @property
    def scopes(self) -> tuple[str, ...]:
        """What is asked for."""
        return tuple(self.oauth["scopes"])

    @property
    def resource(self) -> list[tuple[str, str]]:
        """For which server (RFC 8707)."""
        return [("resource", self.oauth["resource"])] if self.oauth.get("resource") else []


def terms(toolbox: str, spec: dict[str, Any], secret: str) -> Terms:
    """Those of an upstream with `grant: authorizationCode`."""
    said = spec["oauth"]
    client = Client(str(said["tokenUrl"]), str(said["clientId"]), secret, said["auth"] == "post")
    return Terms(toolbox, str(spec["name"]), said, binding(spec), client)


def binding(spec: dict[str, Any]) -> str:
    """What a user consents to: where the token goes, who gives it, to whom, for what. A manifest that says otherwise needs a new one."""
    said = spec["oauth"]
    named = [
        said.get(each) for each in ("authorizationUrl", "tokenUrl", "revocationUrl", "clientId", "resource", "issuer")
    ]
    return _digest([place_of(spec), spec.get("openapi") and spec["openapi"].get("url"), *named, sorted(said["scopes"])])


def is_per_user(spec: dict[str, Any]) -> bool:
    """Whether an upstream is opened by its user's own token."""
    return (spec.get("oauth") or {}).get("grant") == GRANT


def has_per_user(entry: ToolboxEntry) -> bool:
    """Whether one of a toolbox' upstreams is."""
    return any(map(is_per_user, entry.spec["upstreams"]))


def may_ask(spec: dict[str, Any], find: Callable[[str], ToolboxEntry | None]) -> bool:
    """Whether an agent of that manifest has a tool that its user must consent to: else nobody need look. `find` by a toolbox' name."""
    boxes = [find(str(name)) for name in spec.get("toolboxes") or ()]
    return any(has_per_user(box) for box in boxes if box is not None)


def folder_of(tenant: str, user: str = "") -> str:
    """Where the consents of a tenant, or of one of its users, are."""
    return f"consents/{tenant}/{_digest([user])[:40]}/" if user else f"consents/{tenant}/"


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

"""Who calls: the principal, how a credential is read off a request, and when there may be none. Layer: gateway.

Pure but for `Authenticator.identify`, which asks the key service. Everything downstream compares against the principal;
nothing downstream looks at a header again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from moorage_api.errors import ApiError, Kind

INVOKE = "invoke"
DEPLOY = "deploy"
OPERATOR = "operator"
ADMIN = "admin"
SCOPES = frozenset({INVOKE, DEPLOY, OPERATOR, ADMIN})

MAX_CREDENTIAL = 512  # characters

ROUTINE = "routine:"
"""How the user begins in whose name a routine runs that has no owner."""

ANONYMOUS_TENANT = "dev"
ANONYMOUS_USER = "anonymous"

_HINT = "send an API key as 'Authorization: Bearer KEY' or 'api-key: KEY'; `moorage keys create` makes one"


@dataclass(frozen=True)
class Principal:
    """A verified caller. `agents` None means every agent of the tenant; `key_id` is empty for an anonymous one."""

    tenant: str
    user: str
    key_id: str = ""
    agents: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset()

    def may(self, scope: str) -> bool:
        """Whether the caller has the scope; `admin` includes the others."""
        return scope in self.scopes or ADMIN in self.scopes

    def require(self, scope: str) -> None:
        """FORBIDDEN without the scope: it concerns the caller's own rights, so it gives nothing away."""
        if not self.may(scope):
            raise ApiError(
                Kind.FORBIDDEN,
                f"This API key has no '{scope}' scope. Use a key that has it, or ask an admin of the tenant for one.",
            )

    def owns(self, tenant: str, user: str) -> bool:
        """Whether what this user of this tenant has is the caller's own. What a routine has that runs in nobody's name, belongs to the
        tenant's operators."""
        if tenant != self.tenant:
            return False
        return user == self.user or (user.startswith(ROUTINE) and self.agents is None and self.may(OPERATOR))

    def may_use(self, agent: str) -> bool:
        """Whether the key's list of agents contains this one. A refusal is answered as if the agent did not exist."""
        return self.agents is None or agent in self.agents


class KeyDoor(Protocol):
    """What the authenticator needs of the key service."""

    async def identify(self, text: str) -> Principal | None:
        """The principal of a valid key, None for any other text."""


@dataclass(frozen=True)
class Anonymous:
    """Where callers without a credential are let in: only where settings say dev *and* the port is on loopback."""

    dev: bool = False
    loopback_port: bool = False

    @property
    def allowed(self) -> bool:
        """Both, never one of them."""
        return self.dev and self.loopback_port


def credential(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key a request carries (`Authorization: Bearer` or `api-key`), or None when it carries none.

    UNAUTHENTICATED when a header is repeated, of another scheme, or when the two name different keys.
    """
    found: set[str] = set()
    for name, value in headers:
        lower = name.lower()
        if lower not in (b"authorization", b"api-key"):
            continue
        text = value.decode("latin-1").strip()
        if lower == b"authorization":
            scheme, _, text = text.partition(" ")
            text = text.strip()
            if scheme and scheme.lower() != "bearer":
                raise ApiError(Kind.UNAUTHENTICATED, f"Unknown authorization scheme: {_HINT}.")
        if text:
            found.add(text)
    if len(found) > 1:
        raise ApiError(Kind.UNAUTHENTICATED, "The request carries two different credentials: send one.")
    if not found:
        return None
    (only,) = found
    if len(only) > MAX_CREDENTIAL:
        raise ApiError(Kind.UNAUTHENTICATED, f"Incorrect API key provided: {_HINT}.")
    return only


def from_this_machine(peer: str | None, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request surely was made by a program of this machine, and not by a web page in its browser.

    A page of any origin can send requests to loopback: it shows by `Origin`, or by a Host that a hostile name server
    pointed here.
    """
    if peer is None or not _is_loopback(peer):
        return False
    host = headers.get(b"host", b"").decode("latin-1")
    if not _is_loopback(_host_of(host)):
        return False
    origin = headers.get(b"origin")
    if origin is None:
        return headers.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin")
    return _is_loopback(_host_of(origin.decode("latin-1").partition("://")[2]))


class Authenticator:
    """Turns a request into a principal, or refuses it."""

    def __init__(self, keys: KeyDoor, anonymous: Anonymous) -> None:
        self._keys = keys
        self._anonymous = anonymous

    async def identify(self, headers: list[tuple[bytes, bytes]], peer: str | None) -> Principal:
        """The caller of a request with these (raw ASGI) headers from this peer address. UNAUTHENTICATED otherwise.

        A credential that is there but wrong is refused even where none would be needed.
        """
        text = credential(headers)
        if text is not None:
            found = await self._keys.identify(text)
            if found is None:
                raise ApiError(Kind.UNAUTHENTICATED, f"Incorrect API key provided: {_HINT}.")
            return found
        if self._anonymous.allowed and from_this_machine(peer, dict(headers)):
            return Principal(tenant=ANONYMOUS_TENANT, user=ANONYMOUS_USER, scopes=SCOPES)
        raise ApiError(Kind.UNAUTHENTICATED, f"No API key provided: {_HINT}.")


def _host_of(authority: str) -> str:
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

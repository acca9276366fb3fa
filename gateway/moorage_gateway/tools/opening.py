"""What opens a server: where it is put into a request, and how it is kept out of answers. Layer: pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from moorage_gateway.models import hiding


@dataclass(frozen=True)
class Opening:
    """Headers and query parameters; `secrets`: what no answer may say, as it stands."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def reserved(self) -> frozenset[tuple[str, str]]:
        """Parameters of an operation that are not a model's to fill in."""
        found = [("header", name) for name, _ in self.headers] + [("query", name) for name, _ in self.query]
        return frozenset(found)

    def url(self, url: str) -> str:
        """The place with what opens it."""
        return url + ("&" if "?" in url else "?") + urlencode(self.query) if self.query else url

    def concealed(self, data: bytes) -> bytes:
        """An answer in which the server does not tell its own credential."""
        for secret in self.secrets:
            data = hiding.whole(data, secret)
        return data


def by_credential(named: dict[str, Any], secret: str) -> Opening:
    """As the manifest's `credential` says."""
    if named.get("query"):
        return Opening((), ((str(named["query"]), secret),), (secret,))
    header, scheme = str(named["header"]), named.get("scheme")
    if scheme is None:
        scheme = "Bearer" if header == "authorization" else ""
    return Opening(((header, f"{scheme} {secret}" if scheme else secret),), (), (secret,))


def by_token(token: str, *secrets: str) -> Opening:
    """A token, and the secrets that it was asked for with."""
    return Opening((("authorization", f"Bearer {token}"),), (), (token, *secrets))

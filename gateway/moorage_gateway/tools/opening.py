"""What opens a server: where it is put into a request, and how it is kept out of answers. Layer: pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import orjson

LEAST_SECRET = 6
"""Characters of a credential that is looked for in answers: shorter ones are no secrets."""
HIDDEN = b"[credential]"


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
            if len(secret) >= LEAST_SECRET:
                for written in _written(secret):
                    data = data.replace(written, HIDDEN)
        return data


def by_credential(named: dict[str, Any], secret: str) -> Opening:
    """As the manifest's `credential` says."""
    if named.get("query"):
        return Opening((), ((str(named["query"]), secret),), (secret,))
    header, scheme = str(named["header"]), named.get("scheme")
    if scheme is None:
        scheme = "Bearer" if header == "authorization" else ""
    return Opening(((header, f"{scheme} {secret}" if scheme else secret),), (), (secret,))


def by_token(token: str, secret: str) -> Opening:
    """A token that was asked for with a secret."""
    return Opening((("authorization", f"Bearer {token}"),), (), (token, secret))


def _written(secret: str) -> Iterator[bytes]:
    """How it may stand in an answer: as it is, in JSON, in a URL."""
    forms = (secret, orjson.dumps(secret)[1:-1].decode(), quote(secret, safe=""), quote_plus(secret))
    yield from (form.encode() for form in dict.fromkeys(forms))

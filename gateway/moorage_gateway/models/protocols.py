"""Each provider's protocol, as far as a gateway that passes it through must know it. Layer: pure.

protocol    | what stands behind `/models/NAME/`                                  | the key's header
------------|----------------------------------------------------------------------|------------------
openai      | `[v1/]` chat/completions, responses, completions, embeddings, models | authorization
compatible  | the same                                                             | authorization
azure       | openai/deployments/D/…, openai/[v1/]responses, …                     | api-key
anthropic   | v1/messages, v1/messages/count_tokens, v1/models                     | x-api-key

Everything else is a 404: a route that no journal has thought about may do anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import orjson

from moorage_gateway.journal.answers import Answer, error, json_answer

_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,200}"
_OPENAI = (
    ("POST", re.compile(r"(chat/completions|completions|embeddings|moderations|responses|responses/input_tokens)\Z")),
    ("GET", re.compile(rf"(models|models/{_ID}|responses/[A-Za-z0-9_-]{{1,200}})\Z")),
    ("POST", re.compile(r"responses/[A-Za-z0-9_-]{1,200}/cancel\Z")),
)
_AZURE = (
    ("POST", re.compile(r"openai/deployments/[A-Za-z0-9._-]{1,128}/(chat/completions|completions|embeddings)\Z")),
    ("POST", re.compile(r"openai/(v1/)?(chat/completions|completions|embeddings|responses)\Z")),
    ("GET", re.compile(r"openai/(v1/)?(models|responses/[A-Za-z0-9_-]{1,200})\Z")),
)
_ANTHROPIC = (
    ("POST", re.compile(r"v1/(messages|messages/count_tokens|complete)\Z")),
    ("GET", re.compile(rf"v1/(models|models/{_ID})\Z")),
)
_ROUTES = {"openai": _OPENAI, "compatible": _OPENAI, "azure": _AZURE, "anthropic": _ANTHROPIC}
_DEPLOYMENT = re.compile(r"openai/deployments/([^/]+)/")
_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]{0,1024}\Z")

# Headers of the agent's client that reach the provider; everything else it says is for itself.
_SENT = frozenset({"content-type", "accept", "anthropic-version", "anthropic-beta", "openai-beta", "idempotency-key"})
# Headers of the provider that reach the agent.
_GIVEN = frozenset(
    {
        "content-type",
        "content-encoding",
        "retry-after",
        "retry-after-ms",
        "x-request-id",
        "request-id",
        "x-should-retry",
    }
)
_GIVEN_FAMILIES = ("x-ratelimit-", "anthropic-ratelimit-", "openai-")

# Where a stream tells that it is whole: from here on it waits for the journal.
_LAST = re.compile(rb"\n(?:data: ?\[DONE\]|event: ?(?:message_stop|response\.(?:completed|failed|incomplete)|error)\b)")
_TAIL = 48  # bytes: longer than any of these


@dataclass(frozen=True)
class Path:
    """What stands behind the endpoint's name, checked; `model` is a deployment that the path names."""

    path: str
    query: str
    model: str = ""


def path_of(protocol: str, method: str, rest: str) -> Path | None:
    """The path as the provider has it; None for a route that is not passed through."""
    path, _, query = rest.partition("?")
    if protocol in ("openai", "compatible"):
        path = path.removeprefix("v1/")
    if ".." in path or "//" in path or _QUERY.match(query) is None:
        return None
    if not any(method == each and pattern.match(path) for each, pattern in _ROUTES[protocol]):
        return None
    deployment = _DEPLOYMENT.match(path) if protocol == "azure" else None
    return Path(path, query, deployment[1] if deployment else "")


def url_of(protocol: str, base: str, path: Path, api_version: str | None) -> str:
    """Where it is asked for."""
    if protocol == "anthropic":
        base = base.removesuffix("/v1")
    query = path.query
    if protocol == "azure" and api_version and "api-version=" not in query and "openai/v1/" not in path.path:
        query = f"{query}&api-version={api_version}" if query else f"api-version={api_version}"
    return f"{base}/{path.path}" + (f"?{query}" if query else "")


def sent_headers(
    protocol: str, headers: tuple[tuple[str, str], ...], key: str | None, *, bearer: bool = False
) -> dict[str, str]:
    """What the provider is told: by allow-list, and the key, where the protocol has it; `bearer`: it is a token."""
    found = {name.lower(): value for name, value in headers if name.lower() in _SENT}
    found |= {"accept-encoding": "identity", "user-agent": "moorage"}
    if protocol == "anthropic":
        found.setdefault("anthropic-version", "2023-06-01")
    if key is not None:
        match "" if bearer else protocol:
            case "anthropic":
                found["x-api-key"] = key
            case "azure":
                found["api-key"] = key
            case _:
                found["authorization"] = f"Bearer {key}"
    return found


def given_headers(headers: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What the agent is told: by allow-list."""
    return tuple(
        (name.lower(), value)
        for name, value in headers
        if (name.lower() in _GIVEN or name.lower().startswith(_GIVEN_FAMILIES))
        and value.isascii()
        and value.isprintable()
    )


def refusal(protocol: str, status: int, code: str, message: str, *, retry_after: float | None = None) -> Answer:
    """An error in the form that the protocol's clients read."""
    if protocol != "anthropic":
        kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
        return error(status, kind, code, message, retry_after=retry_after)
    kinds = {400: "invalid_request_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large"}
    kind = kinds.get(status, "rate_limit_error" if status == 429 else "api_error")
    body = orjson.dumps({"type": "error", "error": {"type": kind, "message": message, "code": code}})
    return json_answer(status, body, retry_after=retry_after)


class Ends:
    """Finds where a stream tells its end, though the telling may come in two pieces."""

    def __init__(self) -> None:
        self._tail = b"\n"
        self._found = False

    def split(self, piece: bytes) -> int:
        """How many bytes of the piece come before it; all of them while it has not come."""
        if self._found:
            return 0
        text = self._tail + piece
        found = _LAST.search(text)
        if found is None:
            self._tail = text[-_TAIL:]
            return len(piece)
        self._found = True
        return max(0, found.start() + 1 - len(self._tail))

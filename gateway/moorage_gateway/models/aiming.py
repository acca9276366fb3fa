"""What an endpoint is sent of a request that was made to it, or to one that it stands in for. Layer: pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from moorage_api.catalog import EndpointEntry
from moorage_gateway.models import protocols


@dataclass(frozen=True)
class Request:
    """As the agent made it; `parsed` is the body as JSON where it is some, `model` the one it names."""

    path: protocols.Path
    body: bytes
    parsed: Any
    model: str


@dataclass(frozen=True)
class Aim:
    """One endpoint and what it is sent. `hides`: the event with the counts was not asked for by the agent, and is left out."""

    endpoint: EndpointEntry
    path: protocols.Path
    body: bytes
    hides: bool = False


def allowed(spec: dict[str, Any]) -> list[str]:
    """Models that may be asked for; none: all."""
    models = spec.get("models") or []
    return [*models, *(each for each in spec.get("aliases") or {} if each not in models)] if models else []


def aim(endpoint: EndpointEntry, request: Request) -> Aim | None:
    """None: it does not allow this model."""
    may = allowed(endpoint.spec)
    if may and request.model not in may:
        return None
    sent = (endpoint.spec.get("aliases") or {}).get(request.model, request.model)
    path, parsed, changed = request.path, request.parsed, False
    if sent != request.model:
        if path.model:
            path = replace(path, path=path.path.replace(f"/{path.model}/", f"/{sent}/", 1), model=sent)
        if isinstance(parsed, dict) and "model" in parsed:
            parsed, changed = {**parsed, "model": sent}, True
    hides = _counts_asked(endpoint.spec, path, parsed)
    if hides:
        options = parsed.get("stream_options")
        parsed = {**parsed, "stream_options": {**(options or {}), "include_usage": True}}
    return Aim(endpoint, path, orjson.dumps(parsed) if changed or hides else request.body, hides)


def _counts_asked(spec: dict[str, Any], path: protocols.Path, parsed: Any) -> bool:
    """Whether the gateway asks a stream for its counts, where the agent's client did not."""
    wanted = spec.get("streamUsage")
    if not (spec["protocol"] == "openai" if wanted is None else wanted) or not isinstance(parsed, dict):
        return False
    if not path.path.endswith("/completions") and path.path != "completions":
        return False
    options = parsed.get("stream_options")
    if parsed.get("stream") is not True or not (options is None or isinstance(options, dict)):
        return False
    return (options or {}).get("include_usage") is not True

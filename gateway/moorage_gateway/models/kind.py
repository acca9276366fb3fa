"""The call kind of models: `/models/ENDPOINT/…`, which endpoint that is, and whether the agent may ask it this. Layer: engine.

What is asked then, and how often, is `performing.py`'s.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import orjson

from moorage_api.catalog import EndpointEntry
from moorage_api.errors import ApiError
from moorage_api.wire.calls import ANY, MAX_BODY, MODELS
from moorage_gateway.clock import Clock
from moorage_gateway.journal.kinds import Asked, CallRefused
from moorage_gateway.models import aiming, clocks, fingerprints, protocols
from moorage_gateway.models.aiming import Request
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.models.credentials import Credentials
from moorage_gateway.models.identity import WorkloadTokens
from moorage_gateway.models.performing import ModelCall
from moorage_gateway.request import JsonLimits, parse_json

LIMITS = JsonLimits(size=MAX_BODY, depth=200, containers=1_000_000)
"""Of a body: deeper ones have no fingerprint, since they cannot be written again."""

_TARGET = re.compile(rf"{MODELS}(~?[a-z0-9][a-z0-9-]{{0,62}})/([^\s]*)\Z")

Find = Callable[[str, str], EndpointEntry | None]


class Models:
    """Finds the endpoint, prepares, asks. `find` is the catalog's, by tenant and name."""

    prefix = MODELS

    def __init__(
        self, find: Find, upstreams: Upstreams, credentials: Credentials, clock: Clock, *, identity: WorkloadTokens
    ) -> None:
        self._find = find
        self.upstreams = upstreams
        self.credentials = credentials
        self.identity = identity
        self.clock = clock
        self._places: dict[str, tuple[int, asyncio.Semaphore]] = {}

    def prepare(self, asked: Asked) -> ModelCall:
        """See CallKind."""
        found = _TARGET.match(asked.target)
        if found is None:
            raise CallRefused(protocols.refusal("openai", 404, "not_found", "Models are asked at /models/ENDPOINT/…"))
        name, rest = found[1], found[2]
        endpoint = self._endpoint(asked, name)
        spec, protocol = endpoint.spec, str(endpoint.spec["protocol"])
        path = protocols.path_of(protocol, asked.method, rest)
        if path is None:
            shown = rest.partition("?")[0][:80]
            message = f"{asked.method} {shown} is not a call of {protocol} that is passed through"
            raise CallRefused(protocols.refusal(protocol, 404, "not_found", message))
        body, parsed, model = _body(asked, spec, protocol, path.model)
        said = fingerprints.parts(
            endpoint.name,
            asked.method,
            f"{path.path}?{path.query}" if path.query else path.path,
            asked.headers,
            body,
            parsed,
        )
        alike = clocks.alike(*said, self.clock.now_ms() / 1000)
        return ModelCall(self, asked, Request(path, body, parsed, model), endpoint, fingerprints.digest(*said), alike)

    def _endpoint(self, asked: Asked, name: str) -> EndpointEntry:
        may = [str(each) for each in asked.spec.get("models") or []]
        if name.startswith(ANY):
            speaks = name[len(ANY) :]
            wanted = {"openai", "compatible"} if speaks == "openai" else {speaks}
            of_it = (self._find(asked.tenant, each) for each in may)
            endpoint = next((each for each in of_it if each is not None and each.spec["protocol"] in wanted), None)
            protocol = speaks
            why = f"None of the model endpoints in spec.models of agent '{asked.agent}' speaks {speaks}; it has: "
        else:
            endpoint = self._find(asked.tenant, name) if name in may else None
            protocol = "openai"
            why = (
                f"'{name}' is not a model endpoint that agent '{asked.agent}' may use: add it to spec.models; it has: "
            )
            if name in may and endpoint is None:
                why = f"There is no ModelEndpoint '{name}' (or it is not ready), though spec.models names it; spec.models: "
        if endpoint is None:
            raise CallRefused(protocols.refusal(protocol, 403, "no_endpoint", why + (", ".join(may) or "none") + "."))
        return endpoint

    def others(self, endpoint: EndpointEntry) -> list[EndpointEntry]:
        """Where its calls go when it gives nothing: endpoints of the same protocol that are there and not suspended."""
        protocol = _family(str(endpoint.spec["protocol"]))
        found = (self._find(endpoint.tenant, str(name)) for name in endpoint.spec.get("failover") or ())
        return [
            each
            for each in found
            if each is not None and _family(str(each.spec["protocol"])) == protocol and not each.spec.get("suspend")
        ]

    def place(self, endpoint: EndpointEntry) -> asyncio.Semaphore:
        """The places of an endpoint in this process; new ones where its manifest says another number."""
        most = int(endpoint.spec["concurrency"])
        known = self._places.get(endpoint.field)
        if known is None or known[0] != most:
            known = self._places[endpoint.field] = most, asyncio.Semaphore(most)
        return known[1]


def _family(protocol: str) -> str:
    return "openai" if protocol == "compatible" else protocol


def _body(asked: Asked, spec: dict[str, Any], protocol: str, deployment: str) -> tuple[bytes, Any, str]:
    """The body as it is sent, the same as JSON, and the model it is for. Raises CallRefused."""
    if asked.method == "GET":
        return b"", None, deployment
    try:
        parsed = parse_json(asked.body, LIMITS)
    except ApiError as fault:
        raise CallRefused(protocols.refusal(protocol, 400, str(fault.kind.value), fault.message)) from None
    if not isinstance(parsed, dict):
        raise CallRefused(protocols.refusal(protocol, 400, "invalid_request", "The body is not a JSON object."))
    body, default = asked.body, spec.get("defaultModel")
    model = deployment or parsed.get("model") or ""
    if not model and default:
        model = str(default)
        parsed = {"model": model, **parsed} | {"model": model}
        body = orjson.dumps(parsed)
    may = aiming.allowed(spec)
    if not isinstance(model, str) or (may and model not in may):
        shown = model[:80] if isinstance(model, str) and model else "none"
        message = f"The model '{shown}' is not one that this endpoint allows; it allows: {', '.join(may)}."
        raise CallRefused(protocols.refusal(protocol, 403, "model_not_allowed", message))
    return body, parsed, model

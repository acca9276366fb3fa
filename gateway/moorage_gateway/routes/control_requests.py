"""What every control route does with a request: who calls, the body within bounds, ids for the audit log. Layer: gateway, rim."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from moorage_api.errors import ApiError, Kind
from moorage_gateway import facts
from moorage_gateway.audit import Origin
from moorage_gateway.auth import Principal
from moorage_gateway.request import JsonLimits, parse_object
from moorage_gateway.routes import answers
from moorage_gateway.routes.control_models import ErrorBody

BODY = JsonLimits(size=512 * 1024, depth=32, containers=20_000)

MANIFEST = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
"""The `openapi_extra` of a route that takes a manifest."""

M = TypeVar("M", bound=BaseModel)

# FastAPI would document its own 422 and leave the rest out.
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "Refused; the message says what to do."},
    "5XX": {"model": ErrorBody, "description": "Not now; try again."},
}


def caller(request: Request) -> Principal:
    """The principal that the identity layer found."""
    found = request.scope.get("state", {}).get("principal")
    if not isinstance(found, Principal):
        raise ApiError(Kind.UNAUTHENTICATED, "No API key provided.")
    return found


def origin(request: Request) -> Origin:
    """The ids of this request."""
    known = request.scope.get(facts.KEY)
    return Origin(known.request_id, known.trace_id) if isinstance(known, facts.Facts) else Origin()


async def object_body(request: Request) -> dict[str, Any]:
    """The JSON object of the body; ApiError by size, syntax or nesting."""
    return parse_object(await answers.read_body(request.scope, request.receive, BODY.size), BODY)


async def model_body(request: Request, model: type[M]) -> M:
    """The body as this model; INVALID_PARAMETERS names the first wrong field. No body counts as an empty object."""
    raw = await answers.read_body(request.scope, request.receive, BODY.size)
    data = parse_object(raw, BODY) if raw.strip() else {}
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:100]
        raise ApiError(Kind.INVALID_PARAMETERS, f"'{field}': {first['msg'][:200]}.", param=field or None) from None


def documented(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body by `model_body`."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"

"""The control API: one FastAPI app behind the public layers, for all that is not the data path. Layer: gateway, rim.

Routes are thin: who calls, what is asked, one service call, one audit record. Every refusal is an ApiError and leaves by the
one handler here; the layers outside answer what nobody foresaw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.script import LedgerError
from moorage_gateway import facts
from moorage_gateway.audit import AuditLog
from moorage_gateway.bundles import Bundles
from moorage_gateway.clock import Clock
from moorage_gateway.consents.flow import Consents
from moorage_gateway.deploy import Deployer
from moorage_gateway.keys import Commands, KeyService
from moorage_gateway.logs import LogSource
from moorage_gateway.routes import (
    control_agents,
    control_consents,
    control_files,
    control_keys,
    control_routines,
    control_sessions,
    control_toolboxes,
)
from moorage_gateway.routines.desk import Desk
from moorage_gateway.session_control import SessionControl
from moorage_gateway.session_files import SessionFiles
from moorage_gateway.sessions import Sessions
from moorage_gateway.store import Store, StoreError
from moorage_gateway.tools.trying import Trials

OPENAPI = "/v1/openapi.json"

_BY_STATUS = {404: Kind.NOT_FOUND, 405: Kind.METHOD_NOT_ALLOWED, 413: Kind.TOO_LARGE, 415: Kind.INVALID_REQUEST}


@dataclass(frozen=True)
class Services:
    """What the control API drives. `public_url` gives the base of printed addresses, without a slash at its end."""

    sessions: Sessions
    session_control: SessionControl
    session_files: SessionFiles
    keys: KeyService
    audit: AuditLog
    bundles: Bundles
    deployer: Deployer
    logs: LogSource
    trials: Trials
    consents: Consents
    routines: Desk
    store: Store
    commands: Commands
    clock: Clock
    public_url: Callable[[], str]


def create_control_app(services: Services) -> FastAPI:
    """The app; it expects the principal in `scope["state"]` (`middleware/identity.py`)."""
    app = FastAPI(
        title="Moorage control API",
        version="1",
        openapi_url=OPENAPI,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose the method and invite loops
    )
    app.include_router(control_agents.router(services))
    app.include_router(control_sessions.router(services))
    app.include_router(control_files.router(services))
    app.include_router(control_keys.router(services))
    app.include_router(control_toolboxes.router(services))
    app.include_router(control_consents.router(services))
    app.include_router(control_routines.router(services))
    app.add_exception_handler(ApiError, _refusal)
    app.add_exception_handler(LedgerError, _away)
    app.add_exception_handler(StoreError, _away)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document with our refusals in place of FastAPI's own 422."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for path in made["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["security"] = [{"bearer": []}, {"apiKey": []}]
        made.setdefault("components", {})["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
        }
        for unused in ("HTTPValidationError", "ValidationError"):
            made["components"].get("schemas", {}).pop(unused, None)
        app.openapi_schema = made
    return app.openapi_schema


def _answer(request: Request, error: ApiError, more: dict[str, str] | None = None) -> JSONResponse:
    known = request.scope.get(facts.KEY)
    if isinstance(known, facts.Facts):
        known.error = error.code
    return JSONResponse(error.body(), status_code=error.status, headers={**error.headers(), **(more or {})})


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return _answer(request, error)


async def _away(request: Request, error: Exception) -> JSONResponse:
    return _answer(
        request, ApiError(Kind.UNAVAILABLE, "The platform's storage does not answer: try again.", retry_after=1)
    )


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = [str(part) for part in first["loc"][1:]]
    field = ".".join(where)[:100] or str(first["loc"][0])
    return _answer(request, ApiError(Kind.INVALID_PARAMETERS, f"'{field}': {str(first['msg'])[:200]}.", param=field))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code, Kind.INVALID_REQUEST)
    words = {
        Kind.NOT_FOUND: "There is nothing at this address.",
        Kind.METHOD_NOT_ALLOWED: "This address does not take this method.",
    }
    allow = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    return _answer(request, ApiError(kind, words.get(kind, "The request cannot be read.")), allow)

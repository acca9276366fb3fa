"""API keys and the audit log. Layer: gateway, rim; part of the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Query, Request

from moorage_api.errors import ApiError, Kind
from moorage_gateway import audit_reading
from moorage_gateway.auth import ADMIN, OPERATOR, Principal
from moorage_gateway.keys import KeyRecord
from moorage_gateway.refusals import unavailable
from moorage_gateway.routes import control_models as models
from moorage_gateway.routes import control_requests as requests

if TYPE_CHECKING:
    from moorage_gateway.routes.control import Services

Caller = Annotated[Principal, Depends(requests.caller)]
Since = Annotated[int, Query(ge=0, le=2**53, description="Epoch seconds; 0 for everything.")]
Limit = Annotated[int, Query(ge=1, le=1000)]


def router(services: Services) -> APIRouter:
    """The routes, driving these services."""
    routes = APIRouter(responses=requests.REFUSALS)
    _keys(routes, services)
    _audit(routes, services)
    return routes


def _keys(routes: APIRouter, services: Services) -> None:
    @routes.get("/v1/keys", tags=["keys"])
    async def list_keys(caller: Caller) -> models.KeyList:
        """All keys of the tenant, revoked ones too; never a secret."""
        caller.require(ADMIN)
        return models.KeyList(data=[_key(record) for record in await services.keys.list(caller.tenant)])

    @routes.post(
        "/v1/keys", tags=["keys"], status_code=201, openapi_extra=requests.documented(models.NewKey, required=False)
    )
    async def create_key(request: Request, caller: Caller) -> models.MadeKey:
        """Makes a key of the caller's tenant; the answer is the only place where its text is shown."""
        caller.require(ADMIN)
        wanted = await requests.model_body(request, models.NewKey)
        agents = _within(caller, wanted.agents)
        async with services.audit.recording(caller, "key.create", "key/new", requests.origin(request)) as entry:
            record, text = await services.keys.create(
                tenant=caller.tenant,
                user=wanted.user if wanted.user is not None else caller.user,
                scopes=wanted.scopes,
                agents=agents,
                name=wanted.name,
                created_by=caller.user,
            )
            entry.object = f"key/{record.id}"
        return models.MadeKey(**_key(record).model_dump(), key=text)

    @routes.get("/v1/keys/{id}", tags=["keys"])
    async def get_key(id: str, caller: Caller) -> models.Key:
        """One key of the tenant."""
        caller.require(ADMIN)
        record = await services.keys.get(caller.tenant, id)
        if record is None:
            raise _no_key()
        return _key(record)

    @routes.delete("/v1/keys/{id}", tags=["keys"])
    async def revoke_key(id: str, request: Request, caller: Caller) -> models.Key:
        """Ends a key for good, within five seconds everywhere."""
        caller.require(ADMIN)
        async with services.audit.recording(caller, "key.revoke", f"key/{id}", requests.origin(request)):
            record = await services.keys.revoke(caller.tenant, id)
            if record is None:
                raise _no_key()
        return _key(record)


def _audit(routes: APIRouter, services: Services) -> None:
    @routes.get("/v1/audit", tags=["audit"])
    async def list_audit(caller: Caller, since: Since = 0, limit: Limit = 200) -> models.AuditRecords:
        """The tenant's audit records from a time on; at most the newest `limit`."""
        caller.require(OPERATOR)
        with unavailable("The audit log cannot be read"):
            await services.audit.flush()
            records, more = await audit_reading.since(
                services.store, services.commands, caller.tenant, since * 1000, limit=limit
            )
        return models.AuditRecords(data=[models.AuditRecord(**record) for record in records], has_more=more)

    @routes.get("/v1/audit/verify", tags=["audit"])
    async def verify_audit(caller: Caller) -> models.Chains:
        """Walks every chain; says which record is altered, missing, or cut off."""
        caller.require(ADMIN)
        with unavailable("The audit log cannot be read"):
            await services.audit.flush()
            found = [
                await audit_reading.verify(services.store, services.commands, writer)
                for writer in await audit_reading.writers(services.store, services.commands)
            ]
        data = [
            models.Chain(
                writer=one.writer,
                ok=one.ok,
                records=one.records,
                anchored=one.anchored,
                problem=one.problem,
                sequence=one.sequence,
            )
            for one in found
        ]
        return models.Chains(ok=all(one.ok for one in found), data=data)


def _within(caller: Principal, agents: list[str] | None) -> list[str] | None:
    """A key that is limited to some agents makes none that may use others."""
    if caller.agents is None:
        return agents
    wanted = sorted(caller.agents) if agents is None else agents
    if not set(wanted) <= caller.agents:
        raise ApiError(Kind.FORBIDDEN, "This key may not give access to agents that it cannot use.", param="agents")
    return wanted


def _key(record: KeyRecord) -> models.Key:
    return models.Key(
        id=record.id,
        name=record.name,
        tenant=record.tenant,
        user=record.user,
        scopes=list(record.scopes),
        agents=None if record.agents is None else list(record.agents),
        created_at=record.created_at,
        created_by=record.created_by,
        revoked_at=record.revoked_at or None,
    )


def _no_key() -> ApiError:
    return ApiError(Kind.NOT_FOUND, "There is no such key. GET /v1/keys lists those of your tenant.", param="id")

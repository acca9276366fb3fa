"""Sessions, under /v1/sessions and under /v1/agents/NAME/sessions. Layer: gateway, rim; part of the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from moorage_api.errors import ApiError, Kind
from moorage_gateway.auth import Principal
from moorage_gateway.routes import control_models as models
from moorage_gateway.routes import control_requests as requests
from moorage_gateway.routes.control_agents import _STREAM, Follow, Tail, here, no_agent, stream
from moorage_gateway.session_views import KNOWN_STATUSES

if TYPE_CHECKING:
    from moorage_gateway.routes.control import Services

Caller = Annotated[Principal, Depends(requests.caller)]
AgentName = Annotated[str | None, Query(max_length=63, description="Only sessions of this agent.")]
Status = Annotated[str | None, Query(max_length=20, description=f"One of {', '.join(sorted(KNOWN_STATUSES))}.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(max_length=128, description="Id of the last session of the page before.")]


def router(services: Services) -> APIRouter:
    """The routes, driving these services."""
    routes = APIRouter(responses=requests.REFUSALS, tags=["sessions"])
    _plain(routes, services)
    _under_agents(routes, services)
    return routes


def _plain(routes: APIRouter, services: Services) -> None:
    @routes.get("/v1/sessions")
    async def list_sessions(
        caller: Caller, agent: AgentName = None, status: Status = None, limit: Limit = 100, after: After = None
    ) -> models.SessionList:
        """The caller's own sessions, newest first."""
        return await _list(services, caller, agent=agent, status=status, limit=limit, after=after)

    @routes.post("/v1/sessions", status_code=201, openapi_extra=requests.documented(models.NewSession))
    async def create_session(request: Request, caller: Caller) -> models.Session:
        """Makes a session before its first turn; the caller's own existing one is returned as it is."""
        wanted = await requests.model_body(request, models.NewSession)
        if wanted.agent is None:
            raise no_agent()
        return await _create(services, request, caller, wanted.agent, wanted.agent_session_id)

    @routes.get("/v1/sessions/{id}")
    async def get_session(id: str, caller: Caller, agent: AgentName = None) -> models.Session:
        """One session; sandbox details for keys with the operator scope."""
        return _session(await services.session_control.get(caller, id, agent=agent))

    @routes.delete("/v1/sessions/{id}")
    async def delete_session(id: str, request: Request, caller: Caller, agent: AgentName = None) -> models.Deleted:
        """Cancels its turns, removes its responses, files and checkpoints."""
        return await _delete(services, request, caller, id, agent)

    @routes.post("/v1/sessions/{id}/stop")
    async def stop_session(id: str, request: Request, caller: Caller, agent: AgentName = None) -> models.Session:
        """Lets its sandbox go; the workspace stays, and the next call wakes it."""
        return await _stop(services, request, caller, id, agent)

    @routes.get("/v1/sessions/{id}/logs", response_class=StreamingResponse, responses={200: _STREAM})
    async def session_logs(
        id: str, caller: Caller, agent: AgentName = None, tail: Tail = 100, follow: Follow = False
    ) -> StreamingResponse:
        """What the session's sandbox prints. On Kubernetes 404 with the command that shows it."""
        return await _logs(services, caller, id, agent, tail=tail, follow=follow)


def _under_agents(routes: APIRouter, services: Services) -> None:
    base = "/v1/agents/{name}/sessions"

    @routes.get(base)
    async def list_agent_sessions(
        name: str, caller: Caller, status: Status = None, limit: Limit = 100, after: After = None
    ) -> models.SessionList:
        """The caller's own sessions of this agent, newest first."""
        agent = services.sessions.agent(caller, name).agent
        return await _list(services, caller, agent=agent, status=status, limit=limit, after=after)

    @routes.post(base, status_code=201, openapi_extra=requests.documented(models.NewSession, required=False))
    async def create_agent_session(name: str, request: Request, caller: Caller) -> models.Session:
        """Makes a session of this agent before its first turn."""
        wanted = await requests.model_body(request, models.NewSession)
        if wanted.agent not in (None, name):
            raise ApiError(Kind.INVALID_PARAMETERS, "'agent' differs from the address: leave it out.", param="agent")
        return await _create(services, request, caller, name, wanted.agent_session_id)

    @routes.get(base + "/{id}")
    async def get_agent_session(name: str, id: str, caller: Caller) -> models.Session:
        """One session of this agent."""
        return _session(await services.session_control.get(caller, id, agent=name))

    @routes.delete(base + "/{id}")
    async def delete_agent_session(name: str, id: str, request: Request, caller: Caller) -> models.Deleted:
        """Cancels its turns, removes its responses, files and checkpoints."""
        return await _delete(services, request, caller, id, name)

    @routes.post(base + "/{id}/stop")
    async def stop_agent_session(name: str, id: str, request: Request, caller: Caller) -> models.Session:
        """Lets its sandbox go; the workspace stays."""
        return await _stop(services, request, caller, id, name)

    @routes.get(base + "/{id}/logs", response_class=StreamingResponse, responses={200: _STREAM})
    async def agent_session_logs(
        name: str, id: str, caller: Caller, tail: Tail = 100, follow: Follow = False
    ) -> StreamingResponse:
        """What the session's sandbox prints. On Kubernetes 404 with the command that shows it."""
        return await _logs(services, caller, id, name, tail=tail, follow=follow)


async def _list(
    services: Services, caller: Principal, *, agent: str | None, status: str | None, limit: int, after: str | None
) -> models.SessionList:
    if status is not None and status not in KNOWN_STATUSES:
        raise ApiError(
            Kind.INVALID_PARAMETERS, f"'status' must be one of {', '.join(sorted(KNOWN_STATUSES))}.", param="status"
        )
    page = await services.session_control.list(caller, agent=agent, status=status, limit=limit, after=after)
    return models.SessionList(data=[_session(one) for one in page.data], has_more=page.has_more)


async def _create(
    services: Services, request: Request, caller: Principal, agent: str, session_id: str | None
) -> models.Session:
    target = f"session/{session_id or 'new'}"
    async with services.audit.recording(caller, "session.create", target, requests.origin(request)) as entry:
        made = await services.session_control.create(caller, agent, session_id)
        entry.object = f"session/{made['id']}"
    return _session(made)


async def _delete(
    services: Services, request: Request, caller: Principal, session_id: str, agent: str | None
) -> models.Deleted:
    origin = requests.origin(request)
    async with services.audit.recording(caller, "session.delete", f"session/{session_id}", origin):
        await services.session_control.delete(caller, session_id, agent=agent)
    return models.Deleted(id=session_id, object="session.deleted")


async def _stop(
    services: Services, request: Request, caller: Principal, session_id: str, agent: str | None
) -> models.Session:
    async with services.audit.recording(caller, "session.stop", f"session/{session_id}", requests.origin(request)):
        return _session(await services.session_control.stop(caller, session_id, agent=agent))


async def _logs(
    services: Services, caller: Principal, session_id: str, agent: str | None, *, tail: int, follow: bool
) -> StreamingResponse:
    key, name = await services.session_control.find(caller, session_id, agent=agent)
    if services.logs.elsewhere(caller.tenant, name, "", tail=tail, follow=follow):
        view = await services.session_control.get(caller, session_id, agent=name)
        here(services.logs, caller, name, (view["sandbox"] or {}).get("id", ""), tail=tail, follow=follow)
    return stream(services.logs.lines(caller.tenant, name, session_key=key, tail=tail, follow=follow))


def _session(view: dict[str, Any]) -> models.Session:
    return models.Session.model_validate(view)

"""Checkpoints of sessions, under /v1/sessions/ID. Layer: gateway, rim; part of the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Query, Request

from moorage_gateway.auth import Principal
from moorage_gateway.routes import control_models as models
from moorage_gateway.routes import control_requests as requests

if TYPE_CHECKING:
    from moorage_gateway.routes.control import Services

Caller = Annotated[Principal, Depends(requests.caller)]
AgentName = Annotated[str | None, Query(max_length=63, description="Where several agents have a session of this id.")]


def router(services: Services) -> APIRouter:
    """The routes, driving these services."""
    routes = APIRouter(responses=requests.REFUSALS, tags=["sessions"])
    base = "/v1/sessions/{id}"
    files, audit = services.session_files, services.audit

    @routes.get(base + "/checkpoints")
    async def list_checkpoints(id: str, caller: Caller, agent: AgentName = None) -> models.CheckpointList:
        """The session's checkpoints, newest first."""
        found = await files.list(caller, id, agent=agent)
        return models.CheckpointList(data=[models.Checkpoint.model_validate(one) for one in found])

    @routes.post(base + "/checkpoints", status_code=201)
    async def make_checkpoint(id: str, request: Request, caller: Caller, agent: AgentName = None) -> models.Checkpoint:
        """Makes one of the files as they are now; of a session without a sandbox it is the one made when that ended."""
        async with audit.recording(caller, "session.checkpoint", f"session/{id}", requests.origin(request)):
            return models.Checkpoint.model_validate(await files.save(caller, id, agent=agent))

    @routes.post(base + "/restore", openapi_extra=requests.documented(models.FromCheckpoint, required=False))
    async def restore_session(id: str, request: Request, caller: Caller, agent: AgentName = None) -> models.Checkpoint:
        """Puts a checkpoint's files (the newest one's) in place of the session's. Refused while a turn or a request runs."""
        wanted = await requests.model_body(request, models.FromCheckpoint)
        async with audit.recording(caller, "session.restore", f"session/{id}", requests.origin(request)):
            return models.Checkpoint.model_validate(await files.restore(caller, id, wanted.checkpoint, agent=agent))

    @routes.post(base + "/fork", status_code=201, openapi_extra=requests.documented(models.NewFork, required=False))
    async def fork_session(id: str, request: Request, caller: Caller, agent: AgentName = None) -> models.Session:
        """A new session of the same agent that begins with a checkpoint's files (else with those of now)."""
        wanted = await requests.model_body(request, models.NewFork)
        async with audit.recording(caller, "session.fork", f"session/{id}", requests.origin(request)) as entry:
            made = await files.fork(caller, id, wanted.checkpoint, wanted.agent_session_id, agent=agent)
            entry.object = f"session/{made['id']}"
        return models.Session.model_validate(made)

    return routes

"""Agents, models, bundles, agents' logs. Layer: gateway, rim; part of the control API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from moorage_api.catalog import AgentEntry
from moorage_api.errors import ApiError, Kind
from moorage_gateway.auth import DEPLOY, OPERATOR, Principal
from moorage_gateway.bundles import Upload
from moorage_gateway.logs import LogLine, LogSource
from moorage_gateway.routes import control_models as models
from moorage_gateway.routes import control_requests as requests
from moorage_gateway.routes.answers import CallerLeft

if TYPE_CHECKING:
    from moorage_gateway.routes.control import Services

Caller = Annotated[Principal, Depends(requests.caller)]
Tail = Annotated[int, Query(ge=0, le=5_000, description="Lines from before now.")]
Follow = Annotated[bool, Query(description="Go on with new lines.")]
Offset = Annotated[int, Header(alias="upload-offset", ge=0, le=2**53)]

SILENCE_S = 15.0  # of a log: what is between us and the caller gives a silent stream up after 30 s or more

_STREAM: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Lines."}
_BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def router(services: Services) -> APIRouter:
    """The routes, driving these services."""
    routes = APIRouter(responses=requests.REFUSALS)
    _agents(routes, services)
    _models(routes, services)
    _uploads(routes, services)
    return routes


def _agents(routes: APIRouter, services: Services) -> None:
    @routes.get("/v1/agents", tags=["agents"])
    async def list_agents(caller: Caller) -> models.Agents:
        """The agents that this key may use."""
        return models.Agents(data=[_agent(entry, services.public_url()) for entry in _usable(services, caller)])

    @routes.get("/v1/agents/{name}", tags=["agents"])
    async def get_agent(name: str, caller: Caller) -> models.Agent:
        """One agent; `message` says why it is not ready."""
        return _agent(services.sessions.agent(caller, name), services.public_url())

    @routes.put("/v1/agents/{name}", tags=["agents"], openapi_extra=requests.MANIFEST)
    async def deploy_agent(name: str, request: Request, caller: Caller) -> models.DeployedAgent:
        """Deploys a HostedAgent manifest under this name."""
        caller.require(DEPLOY)  # before the body: who may not deploy does not get one parsed
        manifest = await requests.object_body(request)
        async with services.audit.recording(caller, "agent.deploy", f"agent/{name}", requests.origin(request)) as entry:
            made = await services.deployer.apply(caller, name, manifest)
            entry.object = f"agent/{name}@{made.revision}"
        url = f"{services.public_url()}/v1/agents/{name}"
        return models.DeployedAgent(
            name=name, revision=made.revision, generation=made.generation, url=url, warnings=list(made.warnings)
        )

    @routes.delete("/v1/agents/{name}", tags=["agents"])
    async def delete_agent(name: str, request: Request, caller: Caller) -> models.Deleted:
        """Takes the agent away."""
        async with services.audit.recording(caller, "agent.delete", f"agent/{name}", requests.origin(request)):
            await services.deployer.delete(caller, name)
        return models.Deleted(id=name, object="agent.deleted")

    @routes.get("/v1/agents/{name}/logs", tags=["agents"], response_class=StreamingResponse, responses={200: _STREAM})
    async def agent_logs(name: str, caller: Caller, tail: Tail = 100, follow: Follow = False) -> StreamingResponse:
        """What the agent's sandboxes print, of all sessions: for the operator scope. On Kubernetes 404 with the command that shows it."""
        entry = services.sessions.agent(caller, name)
        caller.require(OPERATOR)
        here(services.logs, caller, entry.agent, "", tail=tail, follow=follow)
        lines = services.logs.lines(caller.tenant, entry.agent, session_key=None, tail=tail, follow=follow)
        return stream(lines)


def _models(routes: APIRouter, services: Services) -> None:
    @routes.get("/v1/models", tags=["agents"])
    async def list_models(caller: Caller) -> models.Models:
        """The agents, as clients of the Responses API list models."""
        data = [models.Model(id=entry.agent, owned_by=entry.tenant) for entry in _usable(services, caller)]
        return models.Models(data=data)

    @routes.get("/v1/models/{name}", tags=["agents"])
    async def get_model(name: str, caller: Caller) -> models.Model:
        """One agent as a model."""
        entry = services.sessions.agent(caller, name)
        return models.Model(id=entry.agent, owned_by=entry.tenant)


def _uploads(routes: APIRouter, services: Services) -> None:
    bundles = services.bundles

    @routes.post(
        "/v1/agents/{name}/bundles",
        tags=["bundles"],
        status_code=201,
        openapi_extra=requests.documented(models.NewUpload),
    )
    async def begin_upload(name: str, request: Request, response: Response, caller: Caller) -> models.BundleUpload:
        """Begins an upload, or finds the one that was broken off; `complete` when the bundle is there already."""
        caller.require(DEPLOY)
        wanted = await requests.model_body(request, models.NewUpload)
        upload = await bundles.begin(caller, name, wanted.digest, wanted.size)
        response.headers["location"] = f"/v1/bundles/uploads/{upload.id}"
        return _upload(upload, response)

    @routes.head("/v1/bundles/uploads/{id}", tags=["bundles"], status_code=204)
    async def upload_offset(id: str, caller: Caller) -> Response:
        """The offset to go on from, in the header `upload-offset`."""
        upload = await bundles.state(caller, id)
        response = Response(status_code=204)
        _upload(upload, response)
        return response

    @routes.patch("/v1/bundles/uploads/{id}", tags=["bundles"], openapi_extra=_BYTES)
    async def append_upload(
        id: str, request: Request, response: Response, caller: Caller, upload_offset: Offset
    ) -> models.BundleUpload:
        """Sends bytes from `upload-offset` on; what arrives before a broken connection stays."""
        return _upload(await bundles.append(caller, id, upload_offset, _body(request)), response)


async def _body(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _upload(upload: Upload, response: Response) -> models.BundleUpload:
    response.headers["upload-offset"] = str(upload.offset)
    response.headers["upload-length"] = str(upload.size)
    response.headers["cache-control"] = "no-store"
    return models.BundleUpload(
        id=upload.id, digest=upload.digest, size=upload.size, offset=upload.offset, complete=upload.complete
    )


def _usable(services: Services, caller: Principal) -> list[AgentEntry]:
    return [entry for entry in services.sessions.catalog.list(caller.tenant) if caller.may_use(entry.agent)]


def _agent(entry: AgentEntry, base: str) -> models.Agent:
    url = f"{base}/v1/agents/{entry.agent}"
    revisions = [models.Revision(revision=r.revision, weight=r.weight, ready=r.ready) for r in entry.revisions]
    return models.Agent(
        id=entry.agent,
        name=entry.agent,
        ready=any(revision.ready for revision in revisions),
        revision=revisions[0].revision if revisions else None,
        revisions=revisions,
        protocols=sorted(entry.protocols),
        contract=entry.contract,
        conditions=list(entry.conditions),
        message=entry.message,
        url=url,
        responses_url=f"{url}/responses",
        invocations_url=f"{url}/invocations",
    )


def here(logs: LogSource, caller: Principal, agent: str, sandbox: str, *, tail: int, follow: bool) -> None:
    """Raises NOT_FOUND where agents' lines are elsewhere, with the way to them for whoever operates the platform."""
    command = logs.elsewhere(caller.tenant, agent, sandbox, tail=tail, follow=follow)
    if not command:
        return
    way = f"Whoever may read pods there sees it by\n{command}" if caller.may(OPERATOR) else "Ask who operates it."
    said = f"What agents print stays in their cluster, where no gateway reads it. {way}"
    raise ApiError(Kind.NOT_FOUND, said, code="logs_elsewhere")


def stream(lines: AsyncIterator[LogLine], *, silence: float = SILENCE_S) -> StreamingResponse:
    """Lines as server-sent events, a comment after each `silence` seconds without one; the source is closed when the caller leaves."""

    async def events() -> AsyncIterator[bytes]:
        coming: asyncio.Task[LogLine | None] | None = None
        try:
            while True:
                coming = coming or asyncio.create_task(_next(lines))
                done, _ = await asyncio.wait([coming], timeout=silence)
                if not done:
                    yield b": keep-alive\n\n"
                    continue
                line, coming = coming.result(), None
                if line is None:
                    break
                yield requests.event(
                    {"time": line.time, "stream": line.stream, "session": line.session, "text": line.text}
                )
            yield b"data: [DONE]\n\n"
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            close = getattr(lines, "aclose", None)
            if close is not None:
                await close()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _next(lines: AsyncIterator[LogLine]) -> LogLine | None:
    return await anext(lines, None)


def no_agent() -> ApiError:
    """A session route without the name of its agent."""
    return ApiError(Kind.INVALID_PARAMETERS, "'agent' is missing: name the agent of the session.", param="agent")

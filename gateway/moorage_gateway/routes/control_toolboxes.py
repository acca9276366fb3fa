"""Toolboxes: list them and their tools, try a tool. Layer: gateway, rim; part of the control API.

For the operator scope, and for keys that are not bound to some agents: a tool that is tried runs with the toolbox' credentials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, StringConstraints

from moorage_api.catalog import ToolboxEntry
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.consents import Wrong
from moorage_gateway.auth import OPERATOR, Principal
from moorage_gateway.refusals import unavailable
from moorage_gateway.routes import control_requests as requests
from moorage_gateway.routes.control_models import In
from moorage_gateway.tools.names import place_of

if TYPE_CHECKING:
    from moorage_gateway.routes.control import Services

Caller = Annotated[Principal, Depends(requests.caller)]
_TRIED = 128  # characters of a tool's name in the audit log


class TriedCall(In):
    """Calls one tool, as an agent would."""

    tool: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    """Its name as agents know it."""
    arguments: dict[str, Any] = {}
    """Its arguments."""


class Upstream(BaseModel):
    """One server of a toolbox (`url`), one program (`command`), or one agent (`agent`). `problem`: what is wrong with its `oauth`, as
    an authorization server or the server itself said, and no consent mends; `problem_at`: when that was seen last, epoch seconds."""

    name: str
    type: Literal["mcp", "openapi", "stdio", "agent"] = "mcp"
    url: str | None = None
    command: str | None = None
    agent: str | None = None
    problem: str | None = None
    problem_at: int | None = None


class Toolbox(BaseModel):
    """A toolbox as its manifest has it."""

    id: str
    object: Literal["toolbox"] = "toolbox"
    name: str
    description: str
    upstreams: list[Upstream]


class Toolboxes(BaseModel):
    """All toolboxes of the tenant."""

    object: Literal["list"] = "list"
    data: list[Toolbox]


class Tool(BaseModel):
    """One tool as its server describes it. `name` is what agents call it, null where they may not; `effect` is `once` unless the manifest
    says that it may be run again, and `joins` for an agent, whose same turn is met again; `held_back`: its definition is not the one that
    the manifest pins; `digest`: what to pin."""

    object: Literal["tool"] = "tool"
    name: str | None
    upstream: str
    tool: str
    description: str
    effect: Literal["once", "again", "joins"]
    digest: str
    held_back: bool


class Tools(BaseModel):
    """Every tool of every server; `unavailable` says why a server told none, `left_out` what of an OpenAPI document,
    or of the manifest's examples, is no tool, and why."""

    object: Literal["list"] = "list"
    data: list[Tool]
    unavailable: dict[str, str]
    left_out: dict[str, str]


class Tried(BaseModel):
    """What an agent would read: MCP's result of a tool."""

    object: Literal["tool.result"] = "tool.result"
    result: dict[str, Any]


def router(services: Services) -> APIRouter:
    """The routes, driving these services."""
    routes = APIRouter(responses=requests.REFUSALS)

    @routes.get("/v1/toolboxes", tags=["toolboxes"])
    async def list_toolboxes(caller: Caller) -> Toolboxes:
        """The tenant's toolboxes."""
        _may(caller)
        with unavailable("Toolboxes cannot be listed"):
            problems = await services.consents.problems(caller.tenant)
        return Toolboxes(data=[_shown(entry, problems) for entry in services.trials.listed(caller.tenant)])

    @routes.get("/v1/toolboxes/{name}/tools", tags=["toolboxes"])
    async def list_tools(name: str, caller: Caller) -> Tools:
        """Asks every server of a toolbox for its tools."""
        entry = _found(services, caller, name)
        found = await services.trials.tools(entry, caller.user)
        data = [
            Tool(
                name=each.name or None,
                upstream=each.upstream,
                tool=each.tool,
                description=each.description,
                effect=each.effect,
                digest=each.digest,
                held_back=each.held,
            )
            for each in found.tools
        ]
        return Tools(data=data, unavailable=found.unavailable, left_out=found.left_out)

    @routes.post("/v1/toolboxes/{name}/call", tags=["toolboxes"], openapi_extra=requests.documented(TriedCall))
    async def call_tool(name: str, request: Request, caller: Caller) -> Tried:
        """Runs one tool, each time it is asked to: this is no call of a turn."""
        entry = _found(services, caller, name)
        wanted = await requests.model_body(request, TriedCall)
        what = f"toolbox/{name}/{wanted.tool[:_TRIED]}"
        async with services.audit.recording(caller, "toolbox.call", what, requests.origin(request)):
            result = await services.trials.call(entry, wanted.tool, wanted.arguments, caller.user)
            if result is None:
                text = f"Toolbox '{name}' has no tool of that name for agents: `moorage toolboxes tools {name}` lists them."
                raise ApiError(Kind.INVALID_PARAMETERS, text, param="tool")
        return Tried(result=result)

    return routes


def _found(services: Services, caller: Principal, name: str) -> ToolboxEntry:
    entry = services.trials.find(caller.tenant, name)
    if entry is None:
        raise ApiError(
            Kind.NOT_FOUND, "There is no toolbox of that name. `moorage toolboxes list` shows those of your tenant."
        )
    _may(caller)
    return entry


def _may(caller: Principal) -> None:
    caller.require(OPERATOR)
    if caller.agents is not None:
        raise ApiError(
            Kind.FORBIDDEN, "This API key is bound to some agents: use one of the whole tenant for toolboxes."
        )


def _shown(entry: ToolboxEntry, problems: dict[tuple[str, str], Wrong]) -> Toolbox:
    upstreams = [_upstream(each) for each in entry.spec["upstreams"]]
    for each in upstreams:
        found = problems.get((entry.name, each.name))
        if found is not None:
            each.problem, each.problem_at = found.says, found.at
    return Toolbox(id=entry.name, name=entry.name, description=entry.spec["description"], upstreams=upstreams)


def _upstream(spec: dict[str, Any]) -> Upstream:
    if spec.get("agent"):
        return Upstream(name=spec["name"], type="agent", agent=spec["agent"]["name"])
    if spec.get("stdio"):
        return Upstream(name=spec["name"], type="stdio", command=spec["stdio"]["command"])
    return Upstream(name=spec["name"], type="openapi" if spec.get("openapi") else "mcp", url=place_of(spec))

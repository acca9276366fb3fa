"""Routines: list them, apply and delete, look at their runs, run one now, suspend and resume. Layer: gateway, rim; part of the control API.

For the operator scope, and for keys that are not bound to some agents: a run is made in the name of the routine's owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from moorage_api.catalog import AgentEntry
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.progress import Told
from moorage_gateway.auth import OPERATOR, Principal
from moorage_gateway.refusals import unavailable
from moorage_gateway.routes import control_requests as requests
from moorage_gateway.routines.desk import Desk, Shown
from moorage_gateway.routines.running import owner, shown
from moorage_gateway.routines.state import Alert, Ended, is_invocation
from moorage_gateway.routines.state import Run as Going

if TYPE_CHECKING:
    from moorage_gateway.routes.control import Services

Caller = Annotated[Principal, Depends(requests.caller)]
MOST_RUNS = 500


class Progress(BaseModel):
    """How far a run says that it is. `fraction`: 0 to 1, null where it does not say."""

    text: str
    fraction: float | None
    said_at: str


class Run(BaseModel):
    """One run. `outcome` is null while it goes on; `tries` counts its turns, `response_ids` names them, or `invocation_ids` where it is
    called by invocations. `progress`: of a run that goes on, what it said last."""

    id: str
    object: Literal["routine.run"] = "routine.run"
    scheduled_time: str
    manual: bool
    outcome: str | None
    started_at: str | None
    ended_at: str | None
    tries: int
    response_ids: list[str]
    invocation_ids: list[str]
    error: str
    output: str
    progress: Progress | None = None


class Runs(BaseModel):
    """Runs, the newest first."""

    object: Literal["list"] = "list"
    data: list[Run]


class DeadLetter(BaseModel):
    """An alert that reached nobody."""

    id: str
    target: str
    run: str
    given_up_at: str
    why: str


class Routine(BaseModel):
    """A routine as it is now. `status`: whether due times are run (`stopped`: after too many failures in a row);
    `revision` is another one for each change of the manifest."""

    id: str
    object: Literal["routine"] = "routine"
    name: str
    revision: str
    agent: str
    schedule: str
    time_zone: str
    status: Literal["active", "suspended", "stopped"]
    owner: str
    protocol: Literal["responses", "invocations"]
    session: Literal["persistent", "fresh"]
    next: list[str]
    running: Run | None
    last: Run | None
    failures: int
    waiting_alerts: int
    dead_letters: list[DeadLetter]


class AppliedRoutine(BaseModel):
    """What was taken. `revision`: the routine's once it counts; `generation`: of the custom resource in a cluster, 0 elsewhere;
    `warnings`: what is still lacking."""

    id: str
    object: Literal["routine.applied"] = "routine.applied"
    revision: str
    generation: int
    warnings: list[str]


class DeletedRoutine(BaseModel):
    """What was taken away."""

    id: str
    object: Literal["routine.deleted"] = "routine.deleted"
    deleted: Literal[True] = True


class Routines(BaseModel):
    """All routines of the tenant."""

    object: Literal["list"] = "list"
    data: list[Routine]


def router(services: Services) -> APIRouter:
    """The routes, driving these services."""
    routes = APIRouter(responses=requests.REFUSALS, tags=["routines"])
    desk = services.routines

    @routes.get("/v1/routines")
    async def list_routines(caller: Caller) -> Routines:
        """The tenant's routines."""
        _may(caller)
        with unavailable("Routines cannot be listed"):
            return Routines(data=[_routine(one) for one in await desk.listed(caller.tenant)])

    @routes.get("/v1/routines/{name}")
    async def get_routine(name: str, caller: Caller) -> Routine:
        """One routine: its next due times, the run that goes on, the last one."""
        return _routine(await _found(desk, caller, name))

    @routes.get("/v1/routines/{name}/runs")
    async def list_runs(name: str, caller: Caller, limit: Annotated[int, Query(ge=1, le=MOST_RUNS)] = 20) -> Runs:
        """Its runs, the one that goes on first."""
        one = await _found(desk, caller, name)
        with unavailable("Runs cannot be listed"):
            ended = await desk.runs(caller.tenant, name, limit)
        going = [_going(one.state.run, one.progress)] if one.state.run is not None else []
        return Runs(data=[*going, *[_ended(each) for each in ended]][:limit])

    _runs_by_hand(routes, services)
    _holds(routes, services)
    _manifests(routes, services)
    return routes


def _runs_by_hand(routes: APIRouter, services: Services) -> None:
    desk, audit = services.routines, services.audit

    @routes.post("/v1/routines/{name}/run", status_code=202)
    async def run_routine(name: str, request: Request, caller: Caller) -> Run:
        """Runs it now, whatever its schedule says. Refused while a run goes on."""
        await _found(desk, caller, name)
        async with audit.recording(caller, "routine.run", f"routine/{name}", requests.origin(request)):
            with unavailable("The routine cannot be run"):
                run = await desk.run(caller.tenant, name)
            if run is None:
                raise ApiError(
                    Kind.CONFLICT, f"A run of '{name}' goes on: wait for its end, or cancel it.", param="name"
                )
        return _going(run)

    @routes.post("/v1/routines/{name}/cancel", status_code=202)
    async def cancel_run(name: str, request: Request, caller: Caller) -> Run:
        """Ends the run that goes on, without a further try. It is no failure; what it said is kept."""
        await _found(desk, caller, name)
        async with audit.recording(caller, "routine.cancel", f"routine/{name}", requests.origin(request)):
            with unavailable("The run cannot be cancelled"):
                run = await desk.cancel(caller.tenant, name)
            if run is None:
                message = f"No run of '{name}' can be cancelled: none goes on, or it is only about to begin. Look at its runs."
                raise ApiError(Kind.CONFLICT, message, param="name")
        return _going(run)


def _holds(routes: APIRouter, services: Services) -> None:
    desk, audit = services.routines, services.audit

    @routes.post("/v1/routines/{name}/suspend")
    async def suspend_routine(name: str, request: Request, caller: Caller) -> Routine:
        """No due time is run from now on; what runs, goes on."""
        return await held(name, request, caller, suspended=True)

    @routes.post("/v1/routines/{name}/resume")
    async def resume_routine(name: str, request: Request, caller: Caller) -> Routine:
        """Due times are run from now on, also of a routine that was stopped."""
        return await held(name, request, caller, suspended=False)

    async def held(name: str, request: Request, caller: Principal, *, suspended: bool) -> Routine:
        await _found(desk, caller, name)
        action = "routine.suspend" if suspended else "routine.resume"
        async with audit.recording(caller, action, f"routine/{name}", requests.origin(request)):
            with unavailable("The routine cannot be changed"):
                one = await desk.suspend(caller.tenant, name, suspended=suspended)
            if one is None:
                raise _missing()
        return _routine(one)


async def _found(desk: Desk, caller: Principal, name: str) -> Shown:
    with unavailable("Routines cannot be looked up"):
        one = await desk.get(caller.tenant, name)
    if one is None:
        raise _missing()
    _may(caller)
    return one


def _manifests(routes: APIRouter, services: Services) -> None:
    deployer, audit = services.deployer, services.audit

    @routes.put("/v1/routines/{name}", openapi_extra=requests.MANIFEST)
    async def apply_routine(name: str, request: Request, caller: Caller) -> AppliedRoutine:
        """Applies a Routine manifest under this name."""
        _may(caller)
        manifest = await requests.object_body(request)
        catalog = services.sessions.catalog
        async with audit.recording(caller, "routine.apply", f"routine/{name}", requests.origin(request)):
            made = await deployer.apply_routine(
                caller, name, manifest, serves=lambda agent: _protocols(catalog.get(caller.tenant, agent))
            )
        return AppliedRoutine(id=name, revision=made.revision, generation=made.generation, warnings=list(made.warnings))

    @routes.delete("/v1/routines/{name}")
    async def delete_routine(name: str, request: Request, caller: Caller) -> DeletedRoutine:
        """Takes the routine away; what runs of it is cancelled."""
        with unavailable("Routines cannot be looked up"):
            if await services.routines.get(caller.tenant, name) is None:
                raise _missing()
        _may(caller)
        async with audit.recording(caller, "routine.delete", f"routine/{name}", requests.origin(request)):
            await deployer.delete_routine(caller, name)
        return DeletedRoutine(id=name)


def _protocols(entry: AgentEntry | None) -> frozenset[str] | None:
    return None if entry is None else entry.protocols


def _missing() -> ApiError:
    return ApiError(
        Kind.NOT_FOUND, "There is no routine of that name. `moorage routines list` shows those of your tenant."
    )


def _may(caller: Principal) -> None:
    caller.require(OPERATOR)
    if caller.agents is not None:
        raise ApiError(
            Kind.FORBIDDEN, "This API key is bound to some agents: use one of the whole tenant for routines."
        )


def _routine(one: Shown) -> Routine:
    spec, state, last = one.known.spec, one.state, one.state.last
    return Routine(
        id=one.known.name,
        name=one.known.name,
        revision=one.known.digest,
        agent=spec.agent,
        schedule=spec.schedule or (f"every {spec.every}" if spec.every else f"at {spec.at}"),
        time_zone=spec.time_zone,
        status=one.status,
        owner=owner(one.known),
        protocol=spec.protocol,
        session=spec.session,
        next=[shown(slot) for slot in one.next],
        running=_going(state.run, one.progress) if state.run is not None else None,
        last=Run(
            id=last.run,
            scheduled_time=shown(last.slot),
            manual=False,
            outcome=last.outcome,
            started_at=None,
            ended_at=shown(last.ended),
            tries=1,
            **_tries((last.response,) if last.response else ()),
            error=last.error,
            output=last.output,
        )
        if last is not None
        else None,
        failures=state.failures,
        waiting_alerts=len(state.alerts),
        dead_letters=[_dead(each) for each in state.dead],
    )


def _going(run: Going, said: Told | None = None) -> Run:
    return Run(
        id=run.id,
        scheduled_time=shown(run.slot),
        manual=run.manual,
        outcome=None,
        started_at=shown(run.began),
        ended_at=None,
        tries=run.number,
        **_tries(run.responses),
        error=run.error,
        output="",
        progress=Progress(text=said.text, fraction=said.fraction, said_at=shown(said.at)) if said is not None else None,
    )


def _ended(run: Ended) -> Run:
    return Run(
        id=run.id,
        scheduled_time=shown(run.slot),
        manual=run.manual,
        outcome=run.outcome,
        started_at=shown(run.began) if run.began else None,
        ended_at=shown(run.ended),
        tries=run.tries,
        **_tries(run.responses),
        error=run.error,
        output=run.output,
    )


def _tries(names: tuple[str, ...]) -> dict[str, list[str]]:
    return {
        "response_ids": [each for each in names if not is_invocation(each)],
        "invocation_ids": [each for each in names if is_invocation(each)],
    }


def _dead(alert: Alert) -> DeadLetter:
    return DeadLetter(id=alert.id, target=alert.target, run=alert.run, given_up_at=shown(alert.at), why=alert.why)

"""Users' consents: each user's own, and for operators those of the tenant. Never a token. Layer: gateway, rim; part of the control API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from moorage_api.errors import ApiError, Kind
from moorage_api.names import AGENT
from moorage_gateway.auth import OPERATOR, Principal
from moorage_gateway.consents.records import MOST_LISTED
from moorage_gateway.consents.shapes import Consent as Kept
from moorage_gateway.consents.shapes import Subject
from moorage_gateway.refusals import unavailable
from moorage_gateway.routes import control_requests as requests

if TYPE_CHECKING:
    from moorage_gateway.routes.control import Services

Caller = Annotated[Principal, Depends(requests.caller)]
All = Annotated[bool, Query(alias="all", description="Those of all users of the tenant: for the operator scope.")]
User = Annotated[str | None, Query(max_length=128, description="Whose: another user's for the operator scope.")]
Limit = Annotated[int, Query(ge=1, le=MOST_LISTED)]
After = Annotated[str | None, Query(max_length=256, description="`next` of the page before.")]

_PLACE = re.compile(r"[0-9a-f]{40}/[a-z0-9-]{1,63}/[a-z0-9-]{1,63}\Z")


class Consent(BaseModel):
    """A user lets agents act for them at one upstream of a toolbox. `scopes`: what was asked for; `created_at`: epoch seconds."""

    object: Literal["consent"] = "consent"
    user: str
    toolbox: str
    upstream: str
    scopes: list[str]
    created_at: int


class Consents(BaseModel):
    """Consents that count. `next`: `after` of those that follow. A page may have fewer than `limit`, and more behind it."""

    object: Literal["list"] = "list"
    data: list[Consent]
    has_more: bool
    next: str | None


class Revoked(BaseModel):
    """What was ended."""

    object: Literal["consent.revoked"] = "consent.revoked"
    user: str
    toolbox: str
    upstream: str


def router(services: Services) -> APIRouter:
    """The routes, driving these services."""
    routes = APIRouter(responses=requests.REFUSALS)

    @routes.get("/v1/oauth/consents", tags=["toolboxes"])
    async def list_consents(
        caller: Caller, every: All = False, user: User = None, limit: Limit = 100, after: After = None
    ) -> Consents:
        """What the caller, or for operators another user, has consented to."""
        whose = "" if every else caller.user if user is None else user
        if whose != caller.user:
            _may(caller)
        if after is not None and not _PLACE.match(after):
            raise ApiError(
                Kind.INVALID_PARAMETERS, "`after` is `next` of the page before, as it stands.", param="after"
            )
        with unavailable("Consents cannot be read"):
            found = await services.consents.given(caller.tenant, whose, after=after or "", limit=limit)
        mine = [_shown(each) for each in found.data if every or each.subject.user == whose]
        return Consents(data=mine, has_more=bool(found.next), next=found.next or None)

    @routes.delete("/v1/oauth/consents/{toolbox}/{upstream}", tags=["toolboxes"])
    async def revoke_consent(
        toolbox: str, upstream: str, request: Request, caller: Caller, user: User = None
    ) -> Revoked:
        """Ends a consent, within five seconds everywhere, and gives the tokens back where the manifest says how."""
        whose = caller.user if user is None else user
        if whose != caller.user:
            _may(caller)
        what = f"consent/{toolbox[:63]}/{upstream[:63]}"
        async with services.audit.recording(caller, "consent.revoke", what, requests.origin(request)):
            with unavailable("Consents cannot be ended"):
                named = Subject(caller.tenant, whose, toolbox, upstream)
                real = all(map(AGENT.match, (toolbox, upstream)))  # what is none has no place in the store
                if not whose or not real or not await services.consents.revoke(named):
                    raise ApiError(
                        Kind.NOT_FOUND,
                        "There is no such consent. `moorage toolboxes consent list` shows what there is.",
                    )
        return Revoked(user=whose, toolbox=toolbox, upstream=upstream)

    return routes


def _may(caller: Principal) -> None:
    caller.require(OPERATOR)
    if caller.agents is not None:
        raise ApiError(Kind.FORBIDDEN, "This API key is bound to some agents: use one of the whole tenant.")


def _shown(kept: Kept) -> Consent:
    who = kept.subject
    return Consent(
        user=who.user, toolbox=who.toolbox, upstream=who.upstream, scopes=list(kept.scopes), created_at=kept.at
    )

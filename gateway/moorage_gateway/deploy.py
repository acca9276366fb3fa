"""Deploying and deleting agents and routines: validated here, done by the provider, which is asked through Redis. Layer: gateway.

The gateway has no rights of its own over configuration. A request goes to the list `applies`, the answer comes back under the
request's id within a deadline; an answer that comes later finds nobody, and the caller is told where to look.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_api.kinds import Routine
from moorage_api.kinds.documents import ManifestError, parse, parse_any, warnings_of
from moorage_api.ledger import keys
from moorage_api.ledger.records import text
from moorage_gateway.auth import DEPLOY, OPERATOR, Principal
from moorage_gateway.bundles import Bundles
from moorage_gateway.clock import Clock
from moorage_gateway.keys import Commands
from moorage_gateway.refusals import unavailable
from moorage_gateway.routines.known import Known

ANSWER_WITHIN = 30.0  # seconds; building the environment goes on after the answer
POLL = 0.05
_PLACES = {"HostedAgent": "agents", Routine.__name__: "routines"}
WAITING = 200  # requests on the list; beyond that no provider is taking them


@dataclass(frozen=True)
class Deployed:
    """What the provider made of a manifest. `agent` is its name. `revision` is "" where the source is still to be built; then `generation`
    tells the spec by which the agent's conditions will speak of it (0: not told)."""

    agent: str
    revision: str
    warnings: tuple[str, ...] = ()
    generation: int = 0


class Deployer:
    """Raises ApiError only."""

    def __init__(self, commands: Commands, bundles: Bundles, clock: Clock, *, within: float = ANSWER_WITHIN) -> None:
        self._commands = commands
        self._bundles = bundles
        self._clock = clock
        self._within = within

    async def apply(self, caller: Principal, name: str, manifest: dict[str, Any]) -> Deployed:
        """Deploys the manifest as agent `name`. UNPROCESSABLE names the field, CONFLICT the owner of a field or name."""
        self._check(caller, name)
        try:
            agent = parse(manifest)
        except ManifestError as error:
            raise ApiError(Kind.UNPROCESSABLE, f"The manifest is not valid: {error}", param=error.field) from None
        if agent.name != name:
            raise ApiError(
                Kind.UNPROCESSABLE,
                f"metadata.name is '{agent.name}', and the address names '{name}': make them equal.",
                param="metadata.name",
            )
        await self._check_source(caller, agent.spec.source, bool(agent.spec.mounts))
        answer = await self._ask("apply", caller, name, manifest)
        generation = int(answer.get("generation") or 0)
        return Deployed(name, str(answer.get("revision") or ""), tuple(warnings_of(agent)), generation)

    async def delete(self, caller: Principal, name: str) -> None:
        """Takes the agent away; its sessions end. NOT_FOUND when the provider has none of that name."""
        self._check(caller, name)
        await self._ask("delete", caller, name, None)

    async def apply_routine(
        self, caller: Principal, name: str, manifest: dict[str, Any], *, serves: Callable[[str], Collection[str] | None]
    ) -> Deployed:
        """Applies the manifest as routine `name`; `serves` knows an agent's protocols, None for one that there is not. As `apply`."""
        caller.require(OPERATOR)
        try:
            routine = parse_any(manifest)
        except ManifestError as error:
            raise ApiError(Kind.UNPROCESSABLE, f"The manifest is not valid: {error}", param=error.field) from None
        if not isinstance(routine, Routine):
            raise _refused("kind", f"is {routine.kind}: a Routine is applied here")
        if routine.name != name:
            raise _refused("metadata.name", f"is '{routine.name}', and the address names '{name}': make them equal")
        protocols = serves(routine.spec.agent)
        if protocols is None:
            raise _refused("spec.agent", f"names '{routine.spec.agent}', and there is no such agent: deploy it first")
        if routine.spec.protocol not in protocols:
            served = " and ".join(sorted(protocols)) or "nothing"
            raise _refused("spec.protocol", f"is {routine.spec.protocol}, and '{routine.spec.agent}' serves {served}")
        if routine.spec.owner not in (None, caller.user):
            # Its runs act as the owner, with what that person has consented to.
            raise _refused("spec.owner", "names somebody else: leave it out, or give yourself")
        answer = await self._ask("apply", caller, name, manifest, Routine.__name__)
        said = tuple(str(one) for one in answer.get("warnings") or ())
        revision = Known.of(name, routine.wire_spec()).digest
        return Deployed(name, revision, said, int(answer.get("generation") or 0))

    async def delete_routine(self, caller: Principal, name: str) -> None:
        """Takes the routine away; what runs of it is cancelled. As `delete`."""
        caller.require(OPERATOR)
        await self._ask("delete", caller, name, None, Routine.__name__)

    async def _check_source(self, caller: Principal, source: Any, has_mounts: bool) -> None:
        """A caller over the network must not reach folders of the platform's machine."""
        if has_mounts:
            raise _refused("spec.mounts", "is for manifests in the folder of `moorage dev` only: leave it out here")
        if source is None:
            return
        if source.path is not None:
            raise _refused("spec.source.path", "names a folder of your machine: `moorage up` uploads it as a bundle")
        if source.git is not None and source.git.url.lower().startswith("file:"):
            raise _refused("spec.source.git.url", "names a folder of the platform's machine: use https or ssh")
        if source.bundle is not None and not await self._bundles.has(caller.tenant, source.bundle):
            raise _refused("spec.source.bundle", "was never uploaded: run `moorage up` again")

    async def _ask(
        self, verb: str, caller: Principal, name: str, manifest: dict[str, Any] | None, kind: str = "HostedAgent"
    ) -> dict[str, Any]:
        request = secrets.token_hex(12)
        body = {
            "kind": kind,
            "id": request,
            "verb": verb,
            "tenant": caller.tenant,
            "agent": name,
            "manifest": manifest,
            "by": caller.user,
        }
        until = self._clock.monotonic() + self._within
        with unavailable("Agents and routines cannot be changed"):
            if int(await self._commands.read("LLEN", keys.APPLIES)) >= WAITING:
                raise ApiError(Kind.UNAVAILABLE, "No provider takes requests: is the operator running?", retry_after=10)
            await self._commands.read("RPUSH", keys.APPLIES, json.dumps(body))
            await self._commands.read("PUBLISH", keys.HINT_PROVIDER, "apply")
            while (raw := await self._commands.read("LPOP", keys.answer(request))) is None:
                if self._clock.monotonic() > until:
                    await self._commands.read("LREM", keys.APPLIES, 1, json.dumps(body))
                    raise ApiError(
                        Kind.GATEWAY_TIMEOUT,
                        f"The provider did not answer in {self._within:g} s. GET /v1/{_PLACES[kind]}/{name} shows whether it took it.",
                    )
                await self._clock.sleep(POLL)
        return _checked(json.loads(text(raw)), kind, name)

    def _check(self, caller: Principal, name: str) -> None:
        caller.require(DEPLOY)
        if not names.AGENT.match(name) or not caller.may_use(name):
            raise ApiError(
                Kind.NOT_FOUND,
                f"There is no agent named '{name[:64]}' for this key. A name has lower-case letters, digits and '-'.",
                param="agent",
            )


def _checked(answer: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """The answer of a request that was done; otherwise the ApiError that its words stand for."""
    if answer.get("ok"):
        return answer
    message = str(answer.get("error") or "the provider refused it without a reason")[:2000]
    field = answer.get("field")
    param = str(field)[:200] if field else None
    owner = answer.get("owner")
    if owner:
        raise ApiError(Kind.CONFLICT, f"{message} (owned by {str(owner)[:100]})", param=param)
    if answer.get("kind") == Kind.NOT_FOUND.value:
        what = _PLACES[kind].removesuffix("s")
        raise ApiError(
            Kind.NOT_FOUND, f"There is no {what} named '{name}'.", param="agent" if what == "agent" else "name"
        )
    if answer.get("kind") in (Kind.CONFLICT.value, Kind.UNAVAILABLE.value):
        raise ApiError(Kind(answer["kind"]), message, param=param)
    raise ApiError(Kind.UNPROCESSABLE if param else Kind.INVALID_REQUEST, message, param=param)


def _refused(field: str, message: str) -> ApiError:
    return ApiError(Kind.UNPROCESSABLE, f"{field} {message}.", param=field)

"""What an owner does with a session's checkpoints: list, make, restore, fork. Layer: gateway, called by `routes/control_files.py`."""

from __future__ import annotations

from typing import Any

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_api.ledger.records import SessionRecord
from moorage_api.wire import checkpoints as wire
from moorage_api.wire.checkpoints import Checkpoint, Restore, Save
from moorage_gateway.activation import Activation, Wanted
from moorage_gateway.auth import INVOKE, Principal
from moorage_gateway.checkpoints import Checkpoints, Damaged
from moorage_gateway.clock import Clock
from moorage_gateway.refusals import unavailable
from moorage_gateway.session_control import SessionControl
from moorage_gateway.session_records import StoredSession
from moorage_gateway.sessions import Place, Sessions
from moorage_gateway.upstream import Route, ShimLost, ShimRefused, Shims

SAVE_S = 120.0
RESTORE_S = 600.0


class SessionFiles:
    """Another tenant's or user's session is NOT_FOUND in every method; a store or Redis that is away is UNAVAILABLE.

    `acquire_s`: how long a sandbox is waited for.
    """

    def __init__(
        self,
        control: SessionControl,
        sessions: Sessions,
        checkpoints: Checkpoints,
        activation: Activation,
        shims: Shims,
        clock: Clock,
        acquire_s: float,
    ) -> None:
        self._control = control
        self._sessions = sessions
        self._checkpoints = checkpoints
        self._activation = activation
        self._shims = shims
        self._clock = clock
        self._acquire_s = acquire_s

    async def list(self, caller: Principal, session_id: str, *, agent: str | None = None) -> list[dict[str, Any]]:
        """The session's checkpoints, newest first."""
        with unavailable("Checkpoints cannot be listed"):
            found = await self._control.record(caller, session_id, agent)
            return [_view(one) for one in await self._checkpoints.all(found.tenant, found.partition)]

    async def save(self, caller: Principal, session_id: str, *, agent: str | None = None) -> dict[str, Any]:
        """A checkpoint of the files as they are now; of a session whose sandbox has ended, the one made then. CONFLICT without either."""
        caller.require(INVOKE)
        with unavailable("A checkpoint cannot be made"):
            found = await self._control.record(caller, session_id, agent)
            return _view(await self._saved(caller, found))

    async def restore(
        self, caller: Principal, session_id: str, checkpoint: str | None, *, agent: str | None = None
    ) -> dict[str, Any]:
        """Puts a checkpoint's files (None: the newest's) in place of the session's. SESSION_BUSY while something runs."""
        caller.require(INVOKE)
        with unavailable("The session cannot be restored"):
            found = await self._control.record(caller, session_id, agent)
            one = await self._chosen(found, checkpoint)
            route = await self._route(await self._place(caller, found.agent, session_id))
            call = Restore(session=route.session_key, epoch=route.epoch, checkpoint=one.id, deadline=RESTORE_S)
            try:
                await self._shims.restore(route, call)
            except ShimRefused as refusal:
                raise self._refused(route, refusal) from refusal
            except ShimLost as fault:
                raise self._ended(route) from fault
            return _view(one)

    async def fork(
        self,
        caller: Principal,
        session_id: str,
        checkpoint: str | None,
        new_id: str | None,
        *,
        agent: str | None = None,
    ) -> dict[str, Any]:
        """A new session of the same agent that begins with a checkpoint's files (None: as they are now). CONFLICT when `new_id` is taken.

        Its responses are its own: none of the old session's is a previous one there.
        """
        caller.require(INVOKE)
        with unavailable("The session cannot be forked"):
            found = await self._control.record(caller, session_id, agent)
            named = new_id if new_id is not None else names.new_session_id()
            if names.SESSION.match(named) is None:
                raise ApiError(Kind.INVALID_PARAMETERS, "Malformed identifier.", param="agent_session_id")
            partition = names.partition(caller.tenant, found.agent, caller.user, named)
            there = await self._sessions.look(caller.tenant, partition)
            if there is not None and not _is_fresh_fork(there):
                raise _taken()
            one = await (self._saved(caller, found) if checkpoint is None else self._chosen(found, checkpoint))
            # The files first: a session that is there is one that can be used. What a copy that broke off left is this id's own.
            key = names.session_key(caller.tenant, partition)
            try:
                await self._checkpoints.copy(found.tenant, found.partition, one, partition, key)
            except Damaged as fault:
                raise _damaged(one.id) from fault
            await self._opened(await self._place(caller, found.agent, named))
            return await self._control.get(caller, named, agent=found.agent)

    async def _opened(self, place: Place) -> None:
        """The new session, which begins from its checkpoint. CONFLICT when somebody else began one of that id meanwhile."""
        ledger = self._sessions.ledger
        await self._sessions.guarded(lambda: ledger.open_session(place.session_key, place.identity, restore=True))
        await self._sessions.durable(place)
        now = await ledger.session(place.session_key)
        if now is None or not (now.restore or now.state == "archived"):
            raise _taken()

    async def _place(self, caller: Principal, agent: str, session_id: str) -> Place:
        return await self._sessions.resolve(
            caller, agent, session_id=session_id, previous_response_id=None, conversation=None
        )

    async def _saved(self, caller: Principal, found: SessionRecord | StoredSession) -> Checkpoint:
        """A checkpoint of the files as they are: the one that was made when its sandbox ended, else one of now."""
        if isinstance(found, SessionRecord) and found.state == "new":
            raise ApiError(Kind.CONFLICT, "The session has no files yet: send it a request first.", param="id")
        if isinstance(found, SessionRecord) and found.state in ("hibernated", "archived"):
            asleep = await (
                self._checkpoints.newest(found.tenant, found.partition)
                if found.state == "archived"
                else self._checkpoints.get(found.tenant, found.partition, found.saved)
            )
            if asleep is not None:
                return asleep
        route = await self._route(await self._place(caller, found.agent, found.session))
        call = Save(session=route.session_key, epoch=route.epoch, why="asked", deadline=SAVE_S)
        try:
            made = await self._shims.save(route, call)
        except ShimRefused as refusal:
            raise self._refused(route, refusal) from refusal
        except ShimLost as fault:
            raise self._ended(route) from fault
        return await self._chosen(found, made.id)

    async def _route(self, place: Place) -> Route:
        """A bound sandbox of the session, woken if need be."""
        wanted = Wanted(place.session_key, place.identity, named=True)
        return await self._activation.acquire(wanted, deadline=self._clock.monotonic() + self._acquire_s)

    def _ended(self, route: Route) -> ApiError:
        self._activation.forget(route.session_key)
        return ApiError(Kind.UNAVAILABLE, "The session's sandbox ended meanwhile: try again.", retry_after=1)

    async def _chosen(self, found: SessionRecord | StoredSession, checkpoint: str | None) -> Checkpoint:
        if checkpoint is None:
            one = await self._checkpoints.newest(found.tenant, found.partition)
        elif wire.ID.match(checkpoint) is None:
            raise ApiError(Kind.INVALID_PARAMETERS, "Malformed identifier.", param="checkpoint")
        else:
            one = await self._checkpoints.get(found.tenant, found.partition, checkpoint)
        if one is None:
            raise ApiError(
                Kind.NOT_FOUND,
                "There is no such checkpoint. GET …/checkpoints lists the session's.",
                param="checkpoint",
            )
        return one

    def _refused(self, route: Route, refusal: ShimRefused) -> ApiError:
        match refusal.word:
            case "busy":
                return ApiError(
                    Kind.SESSION_BUSY, "A turn or a request of this session is running: wait for its end.", param="id"
                )
            case "damaged":
                return _damaged(refusal.detail)
            case "unfit":
                return ApiError(Kind.UNPROCESSABLE, f"Its files cannot be saved: {refusal.detail}", param="id")
            case "not_kept":
                return ApiError(Kind.UNAVAILABLE, f"Not now: {refusal.detail}", retry_after=5)
        self._activation.forget(route.session_key)
        return ApiError(Kind.UNAVAILABLE, "The session moves to another sandbox: try again.", retry_after=1)


def _view(one: Checkpoint) -> dict[str, Any]:
    return {
        "id": one.id,
        "object": "session.checkpoint",
        "created_at": one.created // 1000,
        "quiet": one.quiet,
        "reason": one.why,
        "files": one.files,
        "bytes": one.octets,
    }


def _damaged(which: str) -> ApiError:
    return ApiError(
        Kind.UNPROCESSABLE, f"The checkpoint is damaged; choose an older one. ({which})", param="checkpoint"
    )


def _taken() -> ApiError:
    return ApiError(Kind.CONFLICT, "There is a session of that id: choose another.", param="agent_session_id")


def _is_fresh_fork(found: SessionRecord | StoredSession) -> bool:
    """Whether a session is a fork that nobody has used: the same request once more makes it anew, and a lost answer comes again."""
    return isinstance(found, SessionRecord) and found.restore and found.epoch == 0

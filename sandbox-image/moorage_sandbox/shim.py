"""The shim: the rules by which one sandbox serves one session, one attempt at a time (turns.md §3). Layer: the engine's top.

`routes.py` turns HTTP into these calls, `main.py` composes. Every check that refuses stands before the first change, and
nothing awaits between a check and what it permits, so calls that come together meet in some order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from moorage_api.wire.checkpoints import Restore, Save, Saved
from moorage_api.wire.shim import Announcement, Attach, Bind, Drain, Start, Stop
from moorage_sandbox import prompt
from moorage_sandbox.attempt import Attempt, Parts
from moorage_sandbox.binding import Binding, BindingFile
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.errors import NotReady, Refused
from moorage_sandbox.files import Files
from moorage_sandbox.keeping import Keeping, NotKept
from moorage_sandbox.owner import Owner
from moorage_sandbox.server import Answer


class Busy(Exception):
    """A call for a quiet sandbox that came while something ran, or after newer activity."""


class Shim:
    """One sandbox's state: binding, highest fence, the attempt. `bound` is called when a binding was accepted."""

    def __init__(
        self, config: ShimConfig, file: BindingFile, parts: Parts, keeping: Keeping, *, bound: Callable[[Bind], None]
    ) -> None:
        self._starting = asyncio.Lock()
        self._files = Files(keeping, parts.agent, parts.output, self._starting, self.retire)
        self._saved_at = parts.clock.wall_ms()
        self._config = config
        self._file = file
        self._parts = parts
        self._told_bound = bound
        self._known = file.load()
        self._restarted = self._known is not None and self._known.sandbox == config.sandbox
        self._bound = _as_call(self._known) if self._known is not None and self._restarted else None
        if self._bound is not None:
            parts.output.session = self._bound.session_id
        self._lost = file.load_begun(config.sandbox)
        self._awaiting = self._restarted
        """Until a gateway has answered, a restarted shim may be one whose session lives elsewhere by now."""
        self._fence = self._lost
        self._stopped = 0
        self._floor = 0
        self._attempt: Attempt | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._relays = 0
        self._draining = False
        self._last_active = parts.clock.wall_ms()
        self.pids: list[int] = []
        """The processes of this sandbox as the machine sees them: this one and init."""
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolves with the reason once this sandbox must end."""

    # -- binding

    def bind(self, call: Bind) -> dict[str, Any]:
        """Binds the sandbox, for ever, to one session. Raises Refused; OSError when the volume takes no binding.

        One whose files come from a checkpoint is bound when they are there: until then nobody is told of it, this volume neither.
        """
        self._serving()
        known = self._known
        if known is not None and known.session != call.session:
            raise Refused("other_session", "this volume belongs to another session")
        if call.epoch < max(self._floor, 0 if known is None else known.epoch):
            raise Refused("stale_epoch", "a higher epoch of this session is known")
        if self._draining:
            raise Refused("draining", "this sandbox is about to end")
        if self._bound is None:
            self._files.require(call)
        binding = Binding(
            call.session, call.epoch, self._config.sandbox, call.tenant, call.agent, call.session_id, call.user
        )
        if binding != known:
            self._file.save(binding)
            self._known = binding
        self._bound = call
        self._parts.output.session = call.session_id
        self._told_bound(call)
        return {"bound": True, "epoch": call.epoch}

    def require(self, session: str, epoch: int) -> Bind:
        """The binding, when it is exactly this session and epoch. Raises Refused."""
        self._serving()
        bound = self._bound
        if bound is None:
            raise Refused("unbound", "bind the sandbox first")
        if bound.session != session:
            raise Refused("other_session", "this sandbox serves another session")
        if epoch < bound.epoch:
            raise Refused("stale_epoch", f"the sandbox is bound with epoch {bound.epoch}")
        if epoch > bound.epoch:
            raise Refused("unbound", "bind the sandbox with this epoch first")
        return bound

    # -- attempts

    async def start(self, call: Start, answer: Answer) -> tuple[Attempt, Owner]:
        """Begins the attempt `call.fence`, or attaches to it from 0. Raises Refused, NotReady, ControlLost."""
        bound = self.require(call.session, call.epoch)
        self._fenced(call.fence, starts=True)
        self._quiet_no_more()
        try:
            async with asyncio.timeout(call.deadline), self._starting:
                return await self._begin(call, answer, bound)
        except TimeoutError as error:
            raise NotReady("an earlier start took all the time") from error
        except NotReady:
            self._quiet_no_more()  # then it is not the agent's fault
            raise

    async def _begin(self, call: Start, answer: Answer, bound: Bind) -> tuple[Attempt, Owner]:
        self._fenced(call.fence, starts=True)
        if self._attempt is not None and self._attempt.begun == call.fence:
            return self._attempt, self._own(self._attempt, answer, 0)
        if call.fence == self._lost:
            raise Refused("unknown", "this attempt was lost when the shim restarted")
        if self._attempt is not None and self._attempt.end is None:
            self._attempt.conclude("stopped", "a later attempt began")
            await self._attempt.settle()
        if call.workspace == "restore":
            await self._files.before_turn(call, bound, lambda: not self._relays)
        process = await self._parts.agent.ready(self._config.ready_timeout)
        self.require(call.session, call.epoch)
        self._fenced(call.fence, starts=True)
        attempt = Attempt(call, process, self._parts, ended=self._active)
        headers, body = prompt.of_turn(call, bound, process.port, self._config.contract)
        self._note_begun(call.fence)
        self._attempt = attempt
        owner = self._own(attempt, answer, 0)
        attempt.run(headers, body)
        return attempt, owner

    def attach(self, call: Attach, answer: Answer) -> tuple[Attempt, Owner]:
        """Gives the running attempt to a new owner. Raises Refused: `unknown` when it, or what it is asked for, is lost."""
        self._serving()
        self._fenced(call.fence)
        attempt = self._attempt
        if attempt is None or attempt.begun != call.begun or attempt.turn != call.turn:
            raise Refused("unknown", "no such attempt here", status=404)
        return attempt, self._own(attempt, answer, call.src)

    async def stop(self, call: Stop) -> None:
        """Ends the turn's attempt; on return none of its processes lives and none can begin under this fence."""
        self._serving()
        self._fenced(call.fence)
        self._stopped = max(self._stopped, call.fence)
        attempt = self._attempt
        if self._stopping is None and attempt is not None and attempt.turn == call.turn and attempt.end is None:
            self._stopping = asyncio.get_running_loop().create_task(self._end_attempt(attempt, call.grace))
        if self._stopping is not None:
            # The one who asked may leave; the kill goes on.
            await asyncio.shield(self._stopping)
        elif self._parts.agent.tainted:
            await self._parts.agent.reset()

    async def _end_attempt(self, attempt: Attempt, grace: float) -> None:
        try:
            attempt.conclude("stopped", "the turn was stopped")
            await attempt.settle()
            await self._parts.agent.term(grace)
            await self._parts.agent.reset()
            self._parts.agent.warm()
        finally:
            self._stopping = None

    def _own(self, attempt: Attempt, answer: Answer, src: int) -> Owner:
        owner = attempt.attach(answer, src)
        if owner is None:
            raise Refused("unknown", f"the frames after {src} are gone", status=404)
        self._active()
        return owner

    def _fenced(self, fence: int, *, starts: bool = False) -> None:
        if fence < self._fence or (starts and fence <= self._stopped):
            raise Refused("fenced", "the turn has a later owner, or was stopped")
        self._fence = fence

    def _note_begun(self, fence: int) -> None:
        try:
            self._file.save_begun(self._config.sandbox, fence)
        except OSError as fault:
            # A full volume must not keep the agent from working; it only costs a restarted shim its memory.
            self._parts.output.shim(f"the attempt's name could not be stored: {fault}")

    async def close(self) -> None:
        """Ends what waits for files."""
        await self._files.close()

    # -- calls past the boundary

    def calling(self) -> tuple[Bind, str, int] | None:
        """The binding, and the turn and name of the attempt that runs (empty, 0: none does); None while unbound."""
        attempt = self._attempt if self._attempt is not None and self._attempt.end is None else None
        if self._bound is None:
            return None
        return self._bound, "" if attempt is None else attempt.turn, 0 if attempt is None else attempt.begun

    def trace_of(self, begun: int) -> str:
        """The traceparent that the attempt `begun` was started with; empty where it does not run, or has none."""
        attempt = self._attempt
        if attempt is None or not begun or attempt.begun != begun:
            return ""
        return attempt.traceparent

    def break_off(self, begun: int, why: str) -> bool:
        """Ends the attempt `begun` before its agent sees that an answer has no end (turns.md §6). False: it does not run."""
        attempt = self._attempt
        if attempt is None or attempt.begun != begun or attempt.end is not None:
            return False
        attempt.conclude("boundary", why)
        self._parts.agent.condemn()
        return True

    # -- quiet

    @asynccontextmanager
    async def relaying(self, session: str, epoch: int) -> AsyncIterator[Bind]:
        """Counts an open relay. Raises Refused."""
        bound = self.require(session, epoch)
        self._quiet_no_more()
        self._relays += 1
        self._active()
        try:
            yield bound
        finally:
            self._relays -= 1
            self._active()

    def drain(self, call: Drain) -> None:
        """From here nothing starts any more. Raises Busy, Refused."""
        self.require(call.session, call.epoch)
        if self._draining:
            return
        if not self._quiet or self._last_active > call.idle_before:
            raise Busy
        self._draining = True

    def cease(self, reason: str) -> bool:
        """From here nothing starts any more and what ran has ended; whether there is something that no checkpoint has seen."""
        unsaved = not self._draining and not self.over.done() and (self.unsaved_since > 0 or self._files.busy)
        self._draining = True
        if self._attempt is not None:
            self._attempt.conclude("orphaned", reason)
        return unsaved and self._bound is not None

    # -- checkpoints

    async def save(self, call: Save) -> Saved:
        """A checkpoint of the session's files. Raises Busy (one that must be quiet, or the last one before a drain), Refused (`not_kept`
        among others)."""
        bound = self.require(call.session, call.epoch)
        if (call.quiet and not self._quiet) or (call.why == "hibernate" and not self._draining):
            raise Busy
        active, began = self._last_active, self._parts.clock.wall_ms()

        def still_quiet() -> bool:
            return self._quiet and self._last_active == active

        try:
            saved = await self._files.save(call, bound, still_quiet)
        except NotKept as fault:
            raise Refused("unfit" if fault.unfit else "not_kept", str(fault), status=503) from fault
        self._saved_at = began - 1
        return saved

    async def restore(self, call: Restore) -> str:
        """Replaces the session's files; what starts meanwhile waits. Raises Busy, Refused (`not_kept`, `damaged`)."""
        self.require(call.session, call.epoch)
        self._quiet_no_more()
        if not self._quiet:
            raise Busy
        try:
            return await self._files.replace(call.checkpoint, call.deadline)
        except NotKept as fault:
            raise Refused("damaged" if fault.damaged else "not_kept", str(fault), status=503) from fault
        finally:
            self._active()

    @property
    def unsaved_since(self) -> int:
        """Epoch ms of the last activity that no checkpoint has seen; 0: there is none, or one is being made."""
        if self._bound is None or self._files.busy:
            return 0
        active = self._last_active if self._quiet else self._parts.clock.wall_ms()
        return active if active > self._saved_at else 0

    @property
    def binding(self) -> Bind | None:
        """The call that bound this sandbox."""
        return self._bound

    @property
    def _quiet(self) -> bool:
        running = self._attempt is not None and self._attempt.end is None
        return not (running or self._relays or self._starting.locked())

    def _quiet_no_more(self) -> None:
        if self._draining:
            raise Refused("draining", "this sandbox is about to end")

    def _active(self) -> None:
        self._last_active = self._parts.clock.wall_ms()

    # -- announcements and the end

    def announcement(self) -> Announcement:
        """What gateways are told. A sandbox on a volume of session S that nobody bound yet is `unbound` *with* a session."""
        running = self._attempt if self._attempt is not None and self._attempt.end is None else None
        known = self._known
        return Announcement(
            sandbox=self._config.sandbox,
            session=None if known is None else known.session,
            epoch=0 if known is None else known.epoch,
            turn=None if running is None else running.turn,
            begun=0 if running is None else running.begun,
            state="bound" if self.is_bound else "unbound",
            endpoint=self._config.endpoint,
            secret=self._config.secret,
            session_id="" if known is None else known.session_id,
            user="" if known is None else known.user,
            pids=self.pids,
        )

    @property
    def is_bound(self) -> bool:
        """This very sandbox was bound, by this process or by one before a restart."""
        return self._bound is not None

    def answered(self, epoch: int) -> None:
        """A gateway answered an announcement with the highest epoch it knows of the session."""
        self._floor = max(self._floor, epoch)
        if self.is_bound and self._known is not None and epoch > self._known.epoch:
            self.retire("the session is bound elsewhere with a higher epoch")
        self._awaiting = False

    def _serving(self) -> None:
        if self.over.done():
            raise Refused("starting", "this sandbox is ending", status=503)
        if self._awaiting:
            raise Refused("starting", "no gateway has answered since the restart", status=503)

    def tick(self) -> None:
        """Looks at the clocks of the attempt."""
        if self._attempt is not None:
            self._attempt.tick()

    def retire(self, reason: str) -> None:
        """Stops everything, for good. `over` tells whoever composed this to kill and to end the process."""
        if self.over.done():
            return
        self._parts.output.shim(f"this sandbox ends: {reason}")
        if self._attempt is not None:
            self._attempt.conclude("orphaned", reason)
        self.over.set_result(reason)

    def status(self) -> dict[str, Any]:
        """What an operator wants to see."""
        now = self.announcement()
        state = "retired" if self.over.done() else "draining" if self._draining else now.state
        return {
            "sandbox": now.sandbox,
            "session": now.session,
            "epoch": now.epoch,
            "state": state,
            "turn": now.turn,
            "begun": now.begun,
            "fence": self._fence,
            "owned": self._attempt is not None and self._attempt.owned,
            "relays": self._relays,
            "last_active": self._last_active,
            "pids": self.pids,
            "log_tail": self._parts.output.tail(),
        }


def _as_call(known: Binding) -> Bind:
    return Bind(
        session=known.session,
        epoch=known.epoch,
        tenant=known.tenant,
        agent=known.agent,
        session_id=known.session_id,
        user=known.user,
    )

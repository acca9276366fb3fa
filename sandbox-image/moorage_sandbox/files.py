"""The session's files as its sandbox sees them: brought before it is bound, replaced, kept around turns. Layer: engine, below `shim`.

While files are replaced nothing of the agent runs, and what wants to start waits (`starting`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from moorage_api.wire.checkpoints import BEFORE, Save, Saved
from moorage_api.wire.shim import Bind, Start
from moorage_sandbox.agent import Agent
from moorage_sandbox.errors import ControlLost, NotReady, Refused
from moorage_sandbox.keeping import Keeping, NotKept
from moorage_sandbox.output import Output

BRING_SECONDS = 3600.0
"""For the files of a session that wakes from its archive: its callers wait by deadlines of their own."""
AROUND_SECONDS = 240.0
"""For the checkpoint before a turn's first attempt, and for going back to it: the gateway waits 300 s longer for such a start."""


@dataclass
class _Pending:
    """A binding that waits for its files. `there`: they are; `fault`: why not, once it is known."""

    call: Bind
    task: asyncio.Task[None] | None = None
    there: bool = False
    fault: NotKept | None = None

    @property
    def coming(self) -> bool:
        """Neither is known yet."""
        return self.task is not None and not self.task.done()


class Files:
    """`starting` is held while an attempt begins, and here while files are replaced. `retire` ends a sandbox whose files are torn."""

    def __init__(
        self, keeping: Keeping, agent: Agent, output: Output, starting: asyncio.Lock, retire: Callable[[str], None]
    ) -> None:
        self._retire = retire
        self._keeping = keeping
        self._agent = agent
        self._output = output
        self._starting = starting
        self._pending: _Pending | None = None

    @property
    def busy(self) -> bool:
        """A checkpoint is being made or brought."""
        return self._keeping.running

    def require(self, call: Bind) -> None:
        """Returns when what an unbound sandbox's `bind` asks for is there; else it begins to bring it, or tells how far that is.

        came before     | is     | answer
        ----------------|--------|-------------------------------------------
        another session | any    | other_session: its files may lie here
        nothing         |        | starting, if it asks for files
        the same        | coming | starting
        the same        | failed | damaged, not_kept; asked again it begins anew
        the same        | there  | fine

        Raises Refused.
        """
        pending = self._pending
        if pending is not None and pending.call.session != call.session:
            raise Refused("other_session", "this sandbox waits for the files of another session")
        if (pending is None and not call.restore) or (pending is not None and pending.there):
            return
        if pending is not None and not pending.coming and call.restore in ("", pending.call.restore):
            self._pending = None
            damaged, why = pending.fault is not None and pending.fault.damaged, pending.fault or "it broke off"
            raise Refused("damaged" if damaged else "not_kept", str(why), status=503)
        if pending is None or not pending.coming:
            pending = self._pending = _Pending(call)
            pending.task = asyncio.get_running_loop().create_task(self._bring(pending))
        raise Refused("starting", "the session's files are being restored", status=503)

    async def replace(self, checkpoint: str, seconds: float) -> str:
        """Kills what runs, brings the files, makes a fresh process ahead of need; the checkpoint's id. Raises NotKept."""
        try:
            async with self._starting:
                return await self._restore(checkpoint, seconds)
        finally:
            self._agent.warm()

    async def _restore(self, checkpoint: str, seconds: float) -> str:
        try:
            async with self._agent.stopped():
                return await self._keeping.restore(checkpoint, seconds)
        except (NotReady, ControlLost) as fault:
            raise NotKept(f"its processes could not be ended: {fault}") from fault
        finally:
            if self._keeping.torn:
                self._retire("its files could not be put in order after an interrupted restore")

    async def save(self, call: Save, bound: Bind, quiet: Callable[[], bool]) -> Saved:
        """A checkpoint; `quiet` is asked once all is read. The last one is made when nothing can write any more. Raises NotKept."""
        if call.why == "hibernate":
            try:
                await self._agent.finish()
            except (NotReady, ControlLost) as fault:
                raise NotKept(f"its processes could not be ended: {fault}") from fault
        return await self._keeping.save(bound, call.why, call.before, quiet, call.deadline)

    async def before_turn(self, call: Start, bound: Bind, quiet: Callable[[], bool]) -> None:
        """The first attempt's files are kept, a later one begins from them (turns.md §8). Where they cannot be, it begins as they are.

        The caller holds `starting`.
        """
        within = min(call.deadline, AROUND_SECONDS)
        try:
            if call.attempt == 1:
                await self._keeping.save(bound, "before", call.turn, quiet, within)
                return
            await self._restore(BEFORE + call.turn, within)
        except NotKept as fault:
            self._output.shim(f"retryWorkspace: the files stay as they are: {fault}")

    async def close(self) -> None:
        """Ends what waits for files."""
        self._keeping.abort()
        if self._pending is not None and self._pending.task is not None:
            self._pending.task.cancel()
            await asyncio.gather(self._pending.task, return_exceptions=True)

    async def _bring(self, pending: _Pending) -> None:
        try:
            await self.replace(pending.call.restore, BRING_SECONDS)
            pending.there = True
        except NotKept as fault:
            self._output.shim(str(fault))
            pending.fault = fault

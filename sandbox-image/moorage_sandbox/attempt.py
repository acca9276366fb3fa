"""One attempt: the request to the agent, its events as numbered frames, the one owner that reads them. Layer: engine.

    Attempt            runs as a task, ends once, keeps its frames for the next owner
      └─ Owner         the answer to one `start` or `attach`; the newest owner drops the one before

Events go from the agent's socket to the owner's in one step while the owner keeps up; else they wait in the buffer, and past its
bound in the agent's socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from moorage_api.wire import frames
from moorage_api.wire.headers import TRACEPARENT
from moorage_api.wire.hop import HopError, HopResponse, HopTimeout
from moorage_api.wire.http1 import Headers
from moorage_api.wire.shim import End, EndKind, Start
from moorage_sandbox import sse
from moorage_sandbox.agent import Agent, Process
from moorage_sandbox.buffer import FrameBuffer
from moorage_sandbox.clock import Clock
from moorage_sandbox.config import Limits
from moorage_sandbox.output import Output
from moorage_sandbox.owner import Owner
from moorage_sandbox.server import Answer

MAX_ERROR_BODY = 64 * 1024
CLEAN = frozenset({"done", "http"})
"""After these ends the agent process may serve another attempt."""


@dataclass(frozen=True)
class Parts:
    """What every attempt of a sandbox works with."""

    agent: Agent
    output: Output
    clock: Clock
    limits: Limits


class Attempt:
    """One try at a turn, named by `begun`."""

    def __init__(self, start: Start, process: Process, parts: Parts, *, ended: Callable[[], None]) -> None:
        """`ended` is called once, when `end` has been set."""
        self.turn = start.turn
        self.begun = start.fence
        self.traceparent = start.headers.get(TRACEPARENT, "")
        self.end: End | None = None
        self.ended = ended
        self._start = start
        self._process = process
        self._agent = parts.agent
        self._output = parts.output
        self._clock = parts.clock
        self._limits = parts.limits
        self._buffer = FrameBuffer(parts.limits)
        self._owner: Owner | None = None
        self._ownerless_since = parts.clock.now()
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._terminal = False

    def run(self, headers: Headers, body: bytes) -> None:
        """Begins. `end` is set once, sooner or later: every wait within has a deadline."""
        self._task = asyncio.get_running_loop().create_task(self._run(headers, body))

    # -- owners

    def attach(self, answer: Answer, src: int) -> Owner | None:
        """Gives the stream after `src` to a new owner and drops the former one. None: those frames are gone."""
        if not self._buffer.rewind(src):
            return None
        if self._owner is not None:
            self._owner.supersede()
        self._owner = Owner(answer, self._buffer, self.begun, self._limits.keepalive, moved=self._moved)
        if self.end is not None:
            self._owner.finish(self.end)
        self._moved()
        return self._owner

    def leave(self, owner: Owner) -> None:
        """An owner's stream is over, whoever ended it."""
        if self._owner is owner:
            self._owner = None
            self._buffer.owned = False
            self._ownerless_since = self._clock.now()
            self._moved()

    @property
    def owned(self) -> bool:
        """Somebody reads its frames now."""
        return self._owner is not None

    def tick(self) -> None:
        """Looks at the clock: an attempt that nobody has owned for too long ends, an ended one frees its frames."""
        if self._owner is not None or self._clock.now() - self._ownerless_since < self._limits.ownerless:
            return
        if self.end is None:
            self.conclude("orphaned", f"no owner for {self._limits.ownerless:g} s")
            self._agent.condemn()
        else:
            self._buffer.clear()

    # -- ends

    def conclude(self, kind: EndKind, detail: str) -> None:
        """Ends the attempt from outside: the request to the agent is closed at once. Killing is the caller's next step."""
        if self.end is None:
            self._agent.taint()
            self._set_end(self._tell(kind, detail))
        if self._task is not None:
            self._task.cancel()

    async def settle(self) -> None:
        """Waits until the request to the agent is closed, after `conclude`."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._limits.exit_notice)

    def _finish(self, end: End) -> None:
        if self.end is not None:
            return
        if end.kind not in CLEAN:
            self._agent.condemn()
        self._set_end(end)

    def _set_end(self, end: End) -> None:
        self.end = end
        self._ownerless_since = self._clock.now()  # from here its frames are kept as long again
        self.ended()
        if self._owner is not None:
            self._owner.finish(end)

    def _tell(self, kind: EndKind, detail: str, *, status: int | None = None, signal: int | None = None) -> End:
        return End(kind, detail, self._output.tail(), status=status, signal=signal)

    # -- the agent's stream

    async def _run(self, headers: Headers, body: bytes) -> None:
        deadline = self._start.deadline
        try:
            async with asyncio.timeout(deadline):
                end = await self._exchange(headers, body)
        except (TimeoutError, HopTimeout):
            end = self._tell("hang", f"the agent was not done within {deadline:g} s")
        except sse.TooLarge as error:
            end = self._tell("cut", str(error))
        except HopError as error:
            end = await self._broken(str(error))
        except Exception as error:
            # The outermost frame of the attempt: it must end whatever happens, or its owner would wait for ever.
            self._output.shim(f"the attempt failed inside the shim: {error!r}")
            end = self._tell("cut", f"the shim failed: {error!r}")
        self._finish(end)

    async def _exchange(self, headers: Headers, body: bytes) -> End:
        response = await self._agent.fresh.request(
            self._process.endpoint,
            "POST",
            self._start.path,
            headers,
            body,
            connect_timeout=self._limits.agent_connect,
            head_timeout=self._start.deadline,
        )
        async with response:
            if response.status != 200:
                return await self._refusal(response)
            kind = (response.header(b"content-type") or b"").lower()
            if kind.startswith(b"application/json"):
                return await self._whole(response)
            return await self._events(response)

    async def _refusal(self, response: HopResponse) -> End:
        text = b""
        with suppress(HopError):
            while len(text) < MAX_ERROR_BODY and (piece := await response.next_chunk(idle=self._limits.closing)):
                text += piece
        shown = text[:MAX_ERROR_BODY].decode("utf-8", "replace")
        return End("http", "the agent refused", self._output.tail(), status=response.status, body=shown)

    async def _whole(self, response: HopResponse) -> End:
        event = sse.from_response(await response.read(frames.MAX_EVENT))
        if event is None:
            return self._tell("cut", "the agent's answer is not an ended response")
        self._emit(event)
        return End("done")

    async def _events(self, response: HopResponse) -> End:
        parser = sse.SseParser(self._output.shim)
        while True:
            try:
                chunk = await response.next_chunk(idle=self._limits.closing if self._terminal else None)
            except HopError:
                if self._terminal:
                    return End("done", "the agent did not end its stream in good order")
                raise
            if not chunk:
                break
            for event in parser.feed(chunk):
                self._emit(event)
            if self._buffer.full:
                await self._until_room()
        return End("done") if self._terminal else await self._broken("the stream ended without a terminal event")

    def _emit(self, event: sse.Event) -> None:
        self._terminal = self._terminal or event.terminal
        line = frames.source(self._buffer.last + 1, event.data)
        self._buffer.append(line)
        if self._owner is not None:
            self._owner.offer(line)

    async def _broken(self, detail: str) -> End:
        """The agent's stream broke: was it the process that died?"""
        found = await self._agent.how_it_ended(self._process, self._limits.exit_notice)
        if found is None:
            return self._tell("cut", detail)
        if found.oom:
            return self._tell("oom", "the agent process was killed for its memory", signal=found.signal)
        return self._tell("exit", "the agent process ended", status=found.status, signal=found.signal)

    async def _until_room(self) -> None:
        while self._buffer.full:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _moved(self) -> None:
        if self._room is not None and not self._room.done() and not self._buffer.full:
            self._room.set_result(None)

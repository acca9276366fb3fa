"""A request passed through to the agent as it is, both bodies streamed, nothing merged. Layer: I/O rim.

A client that leaves cancels the handler, and with it the request to the agent. A break of the agent's answer is passed on as a
break.

A *run* is the one request that a routine's run is, marked by its header. It reaches the agent once, may take as long as it says to begin
its answer, and there is one at a time: whoever sends another one has given the one before up. The agent of a run that is given up is ended,
since a function that sleeps in a thread does not see that its caller left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from moorage_api.wire import headers as names
from moorage_api.wire.hop import HopError, HopResponse, HopTimeout
from moorage_api.wire.shim import Bind
from moorage_sandbox import prompt
from moorage_sandbox.agent import Agent, Process
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.output import Output
from moorage_sandbox.server import Answer, Request

PREFIX = "/relay"
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
RUN_SECONDS = names.RUN_SECONDS.encode()
ANSWERED = names.ANSWERED.encode()
GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL for the agent of a run that was given up: that of a cancelled turn."""


class Relay:
    """Passes requests under PREFIX to the agent process."""

    def __init__(self, config: ShimConfig, agent: Agent, output: Output) -> None:
        self._config = config
        self._agent = agent
        self._output = output
        self._run: asyncio.Task[object] | None = None

    async def serve(self, request: Request, answer: Answer, bound: Bind) -> None:
        """Answers with the agent's answer. Raises NotReady before anything was sent."""
        seconds = request.header(RUN_SECONDS)
        if not seconds.isdigit():
            await self._serve(request, answer, bound, self._config.limits.relay_head)
            return
        async with self._alone():
            await self._serve(request, answer, bound, float(seconds), run=True)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        before, ours = self._run, asyncio.current_task()
        self._run = ours
        if before is not None:
            before.cancel()
            await asyncio.wait([before], timeout=self._config.limits.control)
        try:
            yield
        finally:
            if self._run is ours:
                self._run = None

    async def _serve(
        self, request: Request, answer: Answer, bound: Bind, head_seconds: float, *, run: bool = False
    ) -> None:
        process = await self._agent.ready(self._config.ready_timeout)
        try:
            try:
                response = await self._ask(request, bound, process, head_seconds, run=run)
            except HopTimeout:
                answer.send(504, b'{"error":"agent_timeout"}')
                return
            except HopError as fault:
                await self._failed(answer, process, fault)
                return
            async with response:
                await self._pass_on(response, answer)
        except asyncio.CancelledError:
            if run:
                self._agent.dismiss(GRACE_SECONDS)
            raise

    async def _ask(
        self, request: Request, bound: Bind, process: Process, head_seconds: float, *, run: bool
    ) -> HopResponse:
        path = request.path.removeprefix(PREFIX) or "/"
        pool = self._agent.fresh if run else self._agent.relays
        return await pool.request(
            process.endpoint,
            request.method,
            f"{path}?{request.query}" if request.query else path,
            prompt.of_relay(request.headers, bound, process.port),
            (request.whole() or request.chunks()) if request.has_body else None,
            connect_timeout=self._config.limits.agent_connect,
            head_timeout=head_seconds,
            retry_stale=request.method in REPEATABLE,
        )

    async def _failed(self, answer: Answer, process: Process, fault: HopError) -> None:
        found = await self._agent.how_it_ended(process, self._config.limits.exit_notice)
        body: dict[str, object] = {"error": "agent_exit", "detail": str(fault), "log_tail": self._output.tail()}
        if found is not None:
            body |= {"status": found.status, "signal": found.signal, "oom": found.oom}
        answer.send(502, orjson.dumps(body))

    async def _pass_on(self, response: HopResponse, answer: Answer) -> None:
        headers = prompt.end_to_end(response.headers)
        if response.status >= 400:  # its body may read like a refusal of ours
            headers.append((ANSWERED, b"agent"))
        answer.start(response.status, headers)
        try:
            while True:
                if not response.arrived:
                    answer.flush()
                piece = await response.next_chunk()
                if response.exhausted:
                    return answer.end(piece)
                if not answer.write(piece):
                    await answer.drain()
        except HopError as fault:
            # Without `end` the connection is broken off: the caller must not take a part for the whole.
            self._output.shim(f"a relayed answer broke off: {fault}")

"""Runs the agent for one request and tells it as wire events. Layer: agent server; between the adapters and the routes."""

from __future__ import annotations

import copy
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from moorage import events
from moorage._context import Context
from moorage.adapters import Adapter
from moorage.serve import shapes
from moorage.serve.inbound import Ask
from moorage.serve.rendering import Rendering, Wire
from moorage.serve.settings import Settings
from moorage.serve.state import StateFile


class Turn:
    """One run of the agent. `events()` is read once; closing it stops the agent, and `cancelled()` then tells the end."""

    def __init__(
        self,
        ask: Ask,
        adapter: Adapter,
        settings: Settings,
        *,
        response_id: str,
        session: str,
        history: list[dict[str, Any]],
        keep_state: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ask = ask
        self.response_id = response_id
        self.session = session
        self._adapter = adapter
        self._clock = clock
        self._file = StateFile(settings.state_root, session) if keep_state else None
        self._before = self._file.load(self._turn_id) if self._file else {}
        self.context = Context(
            session=session,
            workspace=settings.workspace,
            response_id=response_id,
            history=history,
            user=ask.user,
            attempt=ask.attempt,
            metadata=ask.body.get("metadata") or {},
            cancelled=threading.Event(),
            state=copy.deepcopy(self._before),
            headers=ask.headers,
            request=ask.body,
        )
        self._rendering = Rendering(
            shapes.response(response_id, created_at=int(clock()), body=ask.body, model=settings.agent, session=session)
        )

    @property
    def _turn_id(self) -> str:
        return self.ask.turn or self.response_id

    @property
    def response(self) -> Wire:
        """The response as it stands."""
        return self._rendering.response

    async def events(self) -> AsyncGenerator[list[Wire], None]:
        """Wire events in order, as the agent makes them, up to and with the one that ends the response.

        An exception of the agent is an answer: it ends the response `failed`, with its traceback on stderr.
        """
        yield self._rendering.start()
        try:
            async with aclosing(self._adapter.run(self.ask.items, self.session, self.context)) as produced:
                async for event in produced:
                    if isinstance(event, events.State):
                        self.context.state.clear()
                        self.context.state.update(event.value)
                    told = self._rendering.feed(event)
                    if told:
                        yield told
                    if isinstance(event, events.Error):
                        yield self._rendering.fail(self._clock(), event.code, event.message)
                        return
                    if isinstance(event, events.Done):
                        yield self._complete(event.incomplete)
                        return
            yield self._complete(None)
        except (
            Exception,
            SystemExit,
        ) as fault:  # user code: whatever it raises must become an answer, never end the server
            traceback.print_exception(fault, file=sys.stderr)
            sys.stderr.flush()
            if self._rendering.ended:
                return  # raised while it was closed, after the end was told
            yield self._rendering.fail(self._clock(), "server_error", f"{type(fault).__name__}: {fault}")

    def cancelled(self) -> list[Wire]:
        """The end of a turn whose `events()` was closed early."""
        return [] if self._rendering.ended else self._rendering.cancel(self._clock())

    def _complete(self, incomplete: str | None) -> list[Wire]:
        if self._file is not None:
            self._file.save(self._turn_id, self._before, self.context.state)
        return self._rendering.complete(self._clock(), incomplete)

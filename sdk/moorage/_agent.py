"""`HostedAgent`: the one thing an agent's program makes. Layer: SDK, public."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from moorage import adapters
from moorage.serve.flags import PROTOCOLS, Flags


class HostedAgent:
    """An agent as Moorage hosts it: `HostedAgent(agent=my_agent).serve()`.

    `agent` is a function `agent(items, ctx)`: sync, async, or a generator of either kind; it returns or yields text, typed events
    (`moorage.events`) or output items. `items` is the new input only, earlier items are in `ctx.history`. Or it is an agent of the
    Microsoft Agent Framework or a compiled LangGraph graph as it is, or a function without parameters that makes one of these two at
    a process's first turn. `invocations` is a function of one request, or an ASGI application, that serves `/invocations`.

    The manifest is the truth. What is left out here it decides alone; a flag given here that differs from it makes the sandbox not
    ready, with the field named. Raises TypeError or ValueError for what no manifest could make right.
    """

    def __init__(
        self,
        agent: object = None,
        *,
        protocol: str | Sequence[str] | None = None,
        session_isolation: bool | None = None,
        durable_state: bool | None = None,
        file_system: bool | None = None,
        invocations: Callable[..., Any] | None = None,
    ) -> None:
        if agent is None and invocations is None:
            raise TypeError("give agent=, a function agent(items, ctx), or invocations=, a function of one request")
        if invocations is not None and not callable(invocations):
            raise TypeError(
                f"invocations is a {type(invocations).__name__}; give a function of one request or an ASGI application"
            )
        self._adapter = None if agent is None else adapters.adapt(agent)
        self._invocations = invocations
        self._flags = Flags(
            protocols=_protocols(protocol),
            serves=tuple(
                name
                for name, served in (("responses", agent is not None), ("invocations", invocations is not None))
                if served
            ),
            session_isolation=session_isolation,
            durable_state=durable_state,
            file_system=file_system,
        )
        for name in self._flags.protocols or ():
            if name not in self._flags.serves:
                argument = "agent=" if name == "responses" else "invocations="
                raise ValueError(f"protocol names {name}, which needs {argument}")

    def serve(self) -> None:
        """Serves the agent on `PORT` (8088) until SIGTERM: under Moorage as one sandbox's server, alone as the same contract.

        Call it last, in the main thread: what is imported before it is shared by all sandboxes.
        """
        from moorage.serve import server

        wanted = self._flags.protocols or self._flags.serves
        server.serve(
            self._flags,
            self._adapter if "responses" in wanted else None,
            self._invocations if "invocations" in wanted else None,
        )


def _protocols(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    named = (given,) if isinstance(given, str) else tuple(given)
    for name in named:
        if name not in PROTOCOLS:
            raise ValueError(f"protocol {name!r} is not known; use {' or '.join(PROTOCOLS)}")
    return named

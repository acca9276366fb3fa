"""A framework's function tools as steps of the journal: what one did is not done again by a later attempt. Layer: SDK, under the adapters.

A tool is a step under its own name and arguments. What a model is to know of one that must not run (its outcome is lost, or an earlier
attempt did something else in its place) is `Told`: a result that it can act on, as any other.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from moorage._errors import AlreadyDone, OutcomeUnknown
from moorage._steps import step
from moorage_api.wire.calls import TOOLBOXES_URL

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__moorage_read_only__"
JOURNALED = "__moorage_journaled__"


def read_only(tool: F) -> F:
    """Marks a function that a framework is given as a tool: it changes nothing, or what it changes are steps of its own.

        @moorage.read_only
        def look_up(order: str) -> str: ...

    It is then run again by a later attempt, and may call `moorage.step` itself; every other tool is a step as a whole. Put it nearest
    to the function, under a framework's own decorator.
    """
    setattr(tool, MARK, True)
    return tool


def reads_only(function: Any) -> bool:
    """Whether it, or what it wraps, is marked."""
    while isinstance(function, partial):
        function = function.func
    return (
        bool(getattr(function, MARK, False) or getattr(inspect.unwrap(function), MARK, False))
        if callable(function)
        else False
    )


def mark_journaled(function: Any) -> None:
    """Marks what calls a toolbox: its journal has the call, so that it is no step as well."""
    setattr(function, JOURNALED, True)


def at_toolbox(url: object) -> bool:
    """Whether an MCP client's URL is one of a toolbox of this sandbox."""
    here = os.environ.get(TOOLBOXES_URL, "")
    return bool(here) and isinstance(url, str) and url.startswith(f"{here}/")


@dataclass(frozen=True)
class Told:
    """What a model gets in place of a result: a name and a sentence, and what an earlier attempt did where there is that."""

    error: str
    message: str
    call: Any = None
    result: Any = None

    def as_json(self, text: Callable[[Any], Any]) -> dict[str, Any]:
        """For a model; `text` makes readable what was kept as the result."""
        told = {"error": self.error, "message": self.message}
        if self.call is not None:
            told["call"] = self.call
        if self.result is not None:
            told["result"] = text(self.result)
        return told


def step_tool(tool: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The function as a tool whose call is a step, for a framework that is called within a function of one's own.

        @function_tool                 # of the OpenAI Agents SDK, for one
        @moorage.step_tool
        async def charge(order: str) -> str: ...

    Name, arguments and docstring stay. It returns JSON of at most 8 MiB; where it must not run, `{"error": "outcome_unknown", …}` or
    `{"error": "already_done_in_earlier_attempt", …}` as text, for the model to act on. A blocking function gets a thread. Agents that
    `HostedAgent` takes as they are need none of this. The call raises what `moorage.step` raises but OutcomeUnknown and AlreadyDone.
    """
    signature = inspect.signature(tool)

    @functools.wraps(tool)
    async def made(*args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            if inspect.iscoroutinefunction(tool):
                return await tool(*args, **kwargs)
            return await asyncio.to_thread(tool, *args, **kwargs)

        given = signature.bind(*args, **kwargs).arguments
        found = await once(tool.__name__, given, run, lambda result: result, ())
        return json.dumps(found.as_json(lambda kept: kept), ensure_ascii=False) if isinstance(found, Told) else found

    return made


async def once(
    name: str,
    arguments: Mapping[str, Any],
    run: Callable[[], Awaitable[Any]],
    pack: Callable[[Any], Any],
    passing: tuple[type[Exception], ...],
) -> Any:
    """What `run` gave, packed as JSON by `pack`, in this attempt or an earlier one; or `Told`.

    Exceptions of the kinds `passing` are how a framework goes elsewhere, no outcome: they pass through, and a later attempt runs the
    tool again to meet them. Raises StepFailed for what else `run` raises, the same in every attempt.
    """
    passed: list[Exception] = []

    async def effect(_arguments: Mapping[str, Any]) -> Any:
        try:
            return {"result": pack(await run())}
        except passing as gone:
            passed.append(gone)
            return {"passed": type(gone).__name__}

    try:
        kept = await step(name, effect, arguments)
    except OutcomeUnknown as lost:
        return Told("outcome_unknown", f"{lost} Look whether it has happened before you call it again.")
    except AlreadyDone as earlier:
        given = (earlier.arguments or {}).get("args")  # of long ones only a digest is kept
        call = given[0] if given else None
        if earlier.failure is not None:
            result: Any = str(earlier.failure)
        else:
            result = (earlier.result or {}).get("result")
        return Told("already_done_in_earlier_attempt", str(earlier), call, result)
    if "result" in kept:
        return kept["result"]
    if passed:
        raise passed[0]
    return pack(await run())

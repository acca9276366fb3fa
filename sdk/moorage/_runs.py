"""A routine applied, and its run while it goes on. Layer: SDK client, under `_client`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from moorage import _errors
from moorage._transport import Http

Json = dict[str, Any]

POLL_S = 0.2
"""Between two looks at a routine that was applied."""
LOOK_S = 1.0
"""Between two looks at the run."""
MOST = 500
"""Runs among which it is looked for: the most that are kept."""


async def apply(http: Http, manifest: Json, *, timeout: float) -> Json:
    """See `AsyncClient.apply_routine`."""
    from moorage_api.kinds import Routine, documents

    try:
        routine = documents.parse_any(manifest)
    except documents.ManifestError as wrong:
        raise _errors.Misuse(f"The manifest is not valid: {wrong}.") from wrong
    if not isinstance(routine, Routine):
        raise _errors.Misuse(f"The manifest is of a {routine.kind}, and a Routine is applied here.")
    place, until = f"/v1/routines/{routine.name}", time.monotonic() + timeout
    applied = await http.json("PUT", place, body=manifest)
    while True:
        try:
            found: Json = await http.json("GET", place)
        except _errors.ApiStatusError as refused:
            if refused.status != 404:
                raise
            found = {}
        if found.get("revision") == applied["revision"]:
            return found | {"warnings": applied["warnings"]}
        if time.monotonic() > until:
            message = f"The platform has taken {routine.name}, and does not run it yet."
            raise _errors.NotReady(message, conditions=[], hint=f"See `kubectl describe routine {routine.name}`.")
        await asyncio.sleep(POLL_S)


class Platform(Protocol):
    """What of a client is needed."""

    async def get_routine(self, routine: str) -> Json: ...

    async def list_runs(self, routine: str, *, limit: int = 20) -> list[Json]: ...

    def follow_response(self, agent: str, response_id: str, *, after: int = -1) -> AsyncGenerator[Json, None]: ...


async def follow(client: Platform, routine: str, run: str) -> AsyncGenerator[Json, None]:
    """See `AsyncClient.follow_run`."""
    clock = asyncio.get_running_loop().time
    agent, told, read = str((await client.get_routine(routine))["agent"]), None, set[str]()
    events: AsyncGenerator[Json, None] | None = None
    coming: asyncio.Task[Json | None] | None = None
    try:
        while True:
            found = await _found(client, routine, run)
            if found.get("progress") not in (None, told):
                told = found["progress"]
                yield {"type": "routine.progress", "progress": told}
            if events is None:
                new = next((each for each in found["response_ids"] if each not in read), None)
                if new is not None:
                    read.add(new)
                    events = client.follow_response(agent, new)
                elif found["outcome"] is not None:
                    yield {"type": "routine.run", "run": found}
                    return
                else:
                    await asyncio.sleep(LOOK_S)
            until = clock() + LOOK_S
            while events is not None and (left := until - clock()) > 0:
                coming = coming or asyncio.create_task(_next(events))
                await asyncio.wait({coming}, timeout=left)
                if not coming.done():
                    break
                event, coming = coming.result(), None
                if event is not None:
                    yield event
                else:
                    await events.aclose()
                    events = None
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        if events is not None:
            await events.aclose()


async def _found(client: Platform, routine: str, run: str) -> Json:
    for limit in (20, MOST):
        for one in await client.list_runs(routine, limit=limit):
            if one["id"] == run:
                return one
    raise _errors.Misuse(f"There is no run {run} of {routine}.", hint=f"See `moorage routines history {routine}`.")


async def _next(events: AsyncGenerator[Json, None]) -> Json | None:
    """The next event; None after the last, and where the response was deleted."""
    try:
        return await anext(events, None)
    except _errors.ApiStatusError as refused:
        if refused.status != 404:
            raise
        return None

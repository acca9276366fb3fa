"""`/responses`: create, and for an agent that runs alone retrieve, stream again, cancel, delete and input items.

Layer: agent server. On the platform the gateway keeps responses, and only create is used (protocols.md §12.2). A foreground run is
tied to its connection: the agent is read as fast as the client reads, and stopped when the client leaves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs

from moorage.adapters import Adapter
from moorage.serve import asgi, inbound
from moorage.serve.inbound import Ask
from moorage.serve.kept import Kept, Shelf
from moorage.serve.settings import Settings
from moorage.serve.turns import Turn
from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_api.wire import headers as h

CANCEL_SECONDS = 10.0
_SSE = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"


def frame(event: Mapping[str, Any]) -> bytes:
    """One server-sent event, as one write."""
    kind: str = event["type"]
    return b"event: " + kind.encode() + b"\ndata: " + asgi.encode(event) + b"\n\n"


class Responses:
    """The routes under `/responses`. Owns the background runs; `close` ends them."""

    def __init__(self, adapter: Adapter, settings: Settings, *, keep_state: bool) -> None:
        self._adapter = adapter
        self._settings = settings
        self._keep_state = keep_state
        self._running = 0
        self._shelf = Shelf(max_count=settings.max_kept, max_bytes=settings.max_kept_bytes)

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send, rest: str) -> None:
        """Serves one request; `rest` is the path after `/responses`. Raises ApiError and ClientGone."""
        method = scope["method"]
        parts = [part for part in rest.split("/") if part]
        match (method, parts):
            case ("POST", []):
                raw = await asgi.read_body(receive, self._settings.max_body)
                await self._create(inbound.ask(raw, asgi.headers_of(scope)), receive, send)
            case ("GET", [response_id]):
                await self._retrieve(self._find(response_id), scope, receive, send)
            case ("DELETE", [response_id]):
                self._find(response_id)
                self._delete(response_id)
                await asgi.answer_json(send, {"id": response_id, "object": "response", "deleted": True})
            case ("POST", [response_id, "cancel"]):
                await asgi.answer_json(send, await self._cancel(self._find(response_id)))
            case ("GET", [response_id, "input_items"]):
                await asgi.answer_json(send, _page(self._find(response_id).items, scope))
            case (_, [] | [_] | [_, "cancel" | "input_items"]):
                raise ApiError(Kind.METHOD_NOT_ALLOWED, f"{method} is not served here.")
            case _:
                raise ApiError(Kind.NOT_FOUND, "Nothing is served at this path.")

    async def close(self) -> None:
        """Cancels the background runs and waits for them."""
        tasks = self._shelf.running()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _create(self, ask: Ask, receive: asgi.Receive, send: asgi.Send) -> None:
        if self._running >= self._settings.max_running:
            raise ApiError(Kind.AT_CAPACITY, f"{self._running} turns are running here; try again shortly.")
        previous = self._previous(ask)
        self._running += 1
        try:
            turn = self._turn(ask, previous)
            if ask.background:
                self._running += 1  # counted by the run itself, which outlives this request
                await self._background(turn, send, receive)
            elif ask.stream:
                await asgi.while_connected(receive, self._stream(turn, send))
            else:
                response = await asgi.while_connected(receive, self._collect(turn))
                await asgi.answer_json(send, response, headers=self._named(turn))
        finally:
            self._running -= 1

    def _previous(self, ask: Ask) -> Kept | None:
        if ask.previous_response_id is None or ask.history is not None or ask.platform:
            return None
        kept = self._shelf.get(ask.previous_response_id)
        if kept is None or not kept.ended:
            raise ApiError(
                Kind.PREVIOUS_NOT_FOUND,
                f"Previous response {ask.previous_response_id!r} is not known here (responses are kept in memory only).",
                param="previous_response_id",
            )
        return kept

    def _turn(self, ask: Ask, previous: Kept | None) -> Turn:
        session = self._settings.session or ask.session or (previous.session if previous else names.new_session_id())
        fresh = names.new_response_id(names.partition("local", self._settings.agent, ask.user or "local", session))
        self._settings.workspace.mkdir(parents=True, exist_ok=True)
        return Turn(
            ask,
            self._adapter,
            self._settings,
            response_id=ask.response_id or fresh,
            session=session,
            history=ask.history if ask.history is not None else (previous.context() if previous else []),
            keep_state=self._keep_state,
        )

    def _named(self, turn: Turn) -> list[tuple[bytes, bytes]]:
        return [(h.AGENT_SESSION_ID.encode(), turn.session.encode("latin-1", "replace"))]

    def _keep(self, turn: Turn) -> None:
        if turn.ask.store and not turn.ask.platform:
            self._shelf.put(
                turn.response_id, Kept(turn.response, _identified(turn), turn.context.history, turn.session, ended=True)
            )

    async def _collect(self, turn: Turn) -> dict[str, Any]:
        async with aclosing(turn.events()) as told:
            async for _ in told:
                pass
        self._keep(turn)
        return turn.response

    async def _stream(self, turn: Turn, send: asgi.Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*_SSE, *self._named(turn)]})
        pulse = _Pulse(send, self._settings.keep_alive)
        beating = asyncio.create_task(pulse.beat())
        try:
            async with aclosing(turn.events()) as told:
                async for events in told:
                    for event in events:
                        await pulse.write(frame(event))
            self._keep(turn)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"" if turn.ask.platform else _DONE})

    async def _background(self, turn: Turn, send: asgi.Send, receive: asgi.Receive) -> None:
        kept = Kept(
            turn.response,
            _identified(turn),
            turn.context.history,
            turn.session,
            background=True,
            stream=turn.ask.stream,
        )
        self._shelf.put(turn.response_id, kept)
        kept.task = asyncio.create_task(self._detached(turn, kept))
        if turn.ask.stream:
            await asgi.while_connected(receive, self._follow(kept, -1, send))
        else:
            await asgi.answer_json(send, kept.response, headers=self._named(turn))

    async def _detached(self, turn: Turn, kept: Kept) -> None:
        try:
            async with aclosing(turn.events()) as told:
                async for events in told:
                    kept.response = turn.response
                    await kept.append([frame(event) for event in events])
                    if kept.log_size > self._settings.max_log_bytes:
                        break  # nobody bounds a background run's output but this
        finally:
            self._running -= 1
            ending = turn.cancelled()
            kept.response = turn.response
            await kept.append([frame(event) for event in ending])
            await kept.end()
            if self._shelf.get(turn.response_id) is kept:
                self._shelf.put(turn.response_id, kept)

    async def _follow(self, kept: Kept, after: int, send: asgi.Send) -> None:
        named = (h.AGENT_SESSION_ID.encode(), kept.session.encode("latin-1", "replace"))
        await send({"type": "http.response.start", "status": 200, "headers": [*_SSE, named]})
        pulse = _Pulse(send, self._settings.keep_alive)
        beating = asyncio.create_task(pulse.beat())
        try:
            async for data in kept.follow(after):
                await pulse.write(data)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        await send({"type": "http.response.body", "body": _DONE})

    def _find(self, response_id: str) -> Kept:
        kept = self._shelf.get(response_id)
        if kept is None:
            raise ApiError(Kind.NOT_FOUND, f"No response {response_id!r} is kept here.")
        return kept

    async def _retrieve(self, kept: Kept, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        query = _query(scope)
        if query.get("stream", "false").lower() != "true":
            await asgi.answer_json(send, kept.response)
            return
        if not (kept.background and kept.stream):
            raise ApiError(
                Kind.INVALID_REQUEST,
                "Only a response created with background and stream can be streamed again.",
                param="stream",
            )
        after = _number(query, "starting_after", -1)
        await asgi.while_connected(receive, self._follow(kept, after, send))

    async def _cancel(self, kept: Kept) -> dict[str, Any]:
        if kept.response["status"] == "cancelled":
            return kept.response
        if not kept.background or kept.task is None:
            raise ApiError(Kind.INVALID_REQUEST, "Cannot cancel a synchronous response.")
        if kept.ended:
            raise ApiError(Kind.INVALID_REQUEST, f"Cannot cancel a response that is {kept.response['status']}.")
        kept.task.cancel()
        await asyncio.wait({kept.task}, timeout=CANCEL_SECONDS)
        return kept.response

    def _delete(self, response_id: str) -> None:
        kept = self._find(response_id)
        if kept.background and not kept.ended:
            raise ApiError(Kind.INVALID_REQUEST, "The response is still running: cancel it first.")
        self._shelf.drop(response_id)


class _Pulse:
    """Writes frames, and a comment when none was written for a while, so that silence can be told from death."""

    def __init__(self, send: asgi.Send, every: float) -> None:
        self._send = send
        self._every = every
        self._last = time.monotonic()

    async def write(self, data: bytes) -> None:
        self._last = time.monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def beat(self) -> None:
        while True:
            silent = time.monotonic() - self._last
            if silent >= self._every:
                await self.write(_KEEP_ALIVE)
                silent = 0.0
            await asyncio.sleep(self._every - silent)


def _identified(turn: Turn) -> list[dict[str, Any]]:
    """Input items as they are listed: each with an id; output indexes count up from 0, so these count from far away."""
    base = 1_000_000
    return [
        item if item.get("id") else {**item, "id": names.item_id(turn.response_id, base + index, "msg")}
        for index, item in enumerate(turn.ask.items)
    ]


def _query(scope: asgi.Scope) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.lstrip("-").isdecimal():
        raise ApiError(Kind.INVALID_PARAMETERS, f"{name} must be a number.", param=name)
    return int(text)


def _page(items: list[dict[str, Any]], scope: asgi.Scope) -> dict[str, Any]:
    """A list envelope: newest first unless `order=asc`, at most `limit` after the item `after`."""
    query = _query(scope)
    limit = _number(query, "limit", 20)
    order = query.get("order", "desc")
    if not 1 <= limit <= 100:
        raise ApiError(Kind.INVALID_PARAMETERS, "limit must be from 1 to 100.", param="limit")
    if order not in ("asc", "desc"):
        raise ApiError(Kind.INVALID_PARAMETERS, "order must be asc or desc.", param="order")
    listed = items if order == "asc" else items[::-1]
    ids = [item["id"] for item in listed]
    after = query.get("after")
    if after is not None:
        if after not in ids:
            raise ApiError(Kind.INVALID_PARAMETERS, f"after names no item of this response: {after!r}.", param="after")
        listed = listed[ids.index(after) + 1 :]
    page = listed[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(listed) > limit,
    }

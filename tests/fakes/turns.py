"""Turns in memory: an echoing agent behind the interface of `moorage_gateway.turns.service.Turns`.

Limits: one process, no store, no attempts; a turn's text is its input's words, one delta a word, `pace` seconds apart. `gate`, when
given, holds every turn before its first delta until it is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_gateway.auth import Principal
from moorage_gateway.sessions import Place
from moorage_gateway.turns.outcomes import Outcome
from moorage_gateway.turns.response_body import Template, response_body
from moorage_gateway.turns.service import StoredTurn, TurnRequest

ENDED = ("completed", "failed", "incomplete", "cancelled")


@dataclass
class FakeTurn:
    """One turn; `log` holds its events, `changed` is set at each."""

    request: TurnRequest
    place: Place
    template: Template
    status: str = "in_progress"
    output: list[dict[str, Any]] = field(default_factory=list)
    outcome: Outcome | None = None
    log: list[bytes] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    feedback: list[dict[str, Any]] = field(default_factory=list)
    readers: int = 0

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def response(self) -> dict[str, Any]:
        return response_body(
            self.template,
            status=self.status,
            output=self.output,
            outcome=self.outcome,
            completed_at=self.template.created_at,
        )

    def emit(self, kind: str, **body: Any) -> None:
        self.log.append(orjson.dumps({"type": kind, "sequence_number": len(self.log), **body}))
        self.changed.set()


class FakeTurns:
    """See the module. `requests` keeps what was accepted, `delivered_ids` what was handed over whole."""

    def __init__(self, *, pace: float = 0.0, gate: asyncio.Event | None = None) -> None:
        self.turns: dict[str, FakeTurn] = {}
        self.by_key: dict[str, str] = {}
        self.requests: list[TurnRequest] = []
        self.delivered_ids: list[str] = []
        self._pace = pace
        self._gate = gate

    async def accept(self, caller: Principal, place: Place, request: TurnRequest) -> str:
        self.requests.append(request)
        key = request.idempotency_key
        if key is not None and key in self.by_key:
            joined = self.turns[self.by_key[key]]
            if joined.request.body_hash != request.body_hash:
                raise ApiError(Kind.IDEMPOTENCY_CONFLICT, "This Idempotency-Key was used with another body.")
            return joined.request.response_id
        template = Template(
            response_id=request.response_id,
            created_at=request.created_at,
            model=str(request.body.get("model") or place.agent),
            agent=place.agent,
            revision=place.revision,
            session_id=place.session_id,
            body=request.body,
        )
        turn = self.turns[request.response_id] = FakeTurn(request, place, template)
        if key is not None:
            self.by_key[key] = request.response_id
        turn.emit("response.created", response=turn.response())
        turn.task = asyncio.create_task(self._run(turn))
        return request.response_id

    async def follow(
        self, response_id: str, *, tenant: str, after: int = -1, quick: Callable[[bytes], bool] | None = None
    ) -> AsyncIterator[tuple[int, bytes]]:
        turn = self._turn(response_id, tenant)
        turn.readers += 1
        index = min(after + 1, len(turn.log) - 1) if turn.ended else after + 1
        try:
            while True:
                while index < len(turn.log):
                    yield index, turn.log[index]
                    index += 1
                if turn.ended:
                    return
                turn.changed.clear()
                await turn.changed.wait()
                while quick is not None and not turn.ended and index < len(turn.log) and quick(turn.log[index]):
                    index += 1
        finally:
            turn.readers -= 1

    async def wait(self, response_id: str, *, tenant: str) -> dict[str, Any]:
        async for _ in self.follow(response_id, tenant=tenant):
            pass
        return self._turn(response_id, tenant).response()

    async def get(self, response_id: str, *, tenant: str) -> StoredTurn | None:
        turn = self.turns.get(response_id)
        if turn is None or not turn.request.store:
            return None
        place, request = turn.place, turn.request
        return StoredTurn(
            response=turn.response(),
            input_items=request.input_items,
            tenant=place.tenant,
            user=place.user,
            agent=place.agent,
            session_id=place.session_id,
            background=request.background,
            stream=request.stream,
            store=request.store,
            ended=turn.ended,
        )

    async def cancel(self, response_id: str, *, tenant: str) -> dict[str, Any]:
        turn = self._turn(response_id, tenant)
        if not turn.ended:
            assert turn.task is not None
            turn.task.cancel()
            await asyncio.wait([turn.task])
            self._end(turn, "cancelled")
        return turn.response()

    async def delete(self, response_id: str, *, tenant: str) -> None:
        del self.turns[response_id]

    async def record(self, response_id: str, *, tenant: str) -> dict[str, Any] | None:
        turn = self._turn(response_id, tenant)
        return {"id": response_id, "agent": turn.place.agent, "attempts": [{"number": 1}], "feedback": turn.feedback}

    async def add_feedback(self, response_id: str, feedback: dict[str, Any], *, tenant: str) -> dict[str, Any]:
        self._turn(response_id, tenant).feedback.append(feedback)
        return feedback

    def delivered(self, response_id: str) -> None:
        self.delivered_ids.append(response_id)

    async def aclose(self) -> None:
        """Ends what runs."""
        tasks = [turn.task for turn in self.turns.values() if turn.task is not None and not turn.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _turn(self, response_id: str, tenant: str) -> FakeTurn:
        turn = self.turns[response_id]
        assert turn.place.tenant == tenant
        return turn

    async def _run(self, turn: FakeTurn) -> None:
        turn.emit("response.in_progress", response=turn.response())
        item_id = names.item_id(turn.request.response_id, 0, "msg")
        item: dict[str, Any] = {
            "id": item_id,
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        turn.emit("response.output_item.added", output_index=0, item=dict(item))
        at = {"item_id": item_id, "output_index": 0, "content_index": 0}
        turn.emit("response.content_part.added", **at, part=dict(part))
        if self._gate is not None:
            await self._gate.wait()
        for word in _words(turn.request.input_items):
            if self._pace:
                await asyncio.sleep(self._pace)
            part["text"] += word
            turn.emit("response.output_text.delta", **at, delta=word, logprobs=[])
        turn.emit("response.output_text.done", **at, text=part["text"], logprobs=[])
        turn.emit("response.content_part.done", **at, part=dict(part))
        item |= {"status": "completed", "content": [dict(part)]}
        turn.emit("response.output_item.done", output_index=0, item=dict(item))
        turn.output = [item]
        self._end(turn, "completed")

    def _end(self, turn: FakeTurn, status: str) -> None:
        turn.status = status
        usage = {
            "input_tokens": 1,
            "output_tokens": 1,
            "total_tokens": 2,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        turn.outcome = Outcome(status=status, usage=usage)
        terminal = "response.completed" if status == "completed" else "response.failed"
        turn.emit(terminal, response=turn.response())


def _words(items: list[dict[str, Any]]) -> list[str]:
    texts = [
        part.get("text", "")
        for item in items
        if item["type"] == "message"
        for part in item["content"]
        if isinstance(part, dict)
    ]
    words = " ".join(texts).split(" ")
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)]

"""The Responses API in raw ASGI: create, follow, retrieve, cancel, delete, input items, record, journal, feedback. Layer: gateway, rim.

Called by the dispatcher with a classified Route and a verified caller. A turn is detached from its connection: a caller that
leaves ends only this reader of its log. Whose response it is, is compared on every use; another's is a 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from moorage_api import names
from moorage_api.errors import ApiError, Kind
from moorage_api.wire import headers as wire
from moorage_gateway import conversation, facts, feedback, inbound, request
from moorage_gateway.approvals import is_answer
from moorage_gateway.audit import Entry, Origin
from moorage_gateway.auth import DEPLOY, INVOKE
from moorage_gateway.clock import Clock
from moorage_gateway.inbound import Operation, Route
from moorage_gateway.refusals import unavailable
from moorage_gateway.routes import answers
from moorage_gateway.routes.departure import Departure
from moorage_gateway.routes.doors import ApprovalDoor, AuditDoor, JournalDoor, SessionDoor, TurnsDoor
from moorage_gateway.routes.sse import SseWriter
from moorage_gateway.sessions import Place
from moorage_gateway.turns.service import StoredTurn, TurnRequest

FEEDBACK_BYTES = 64 * 1024


class Responses:
    """Serves every route whose operation is not `invoke`."""

    def __init__(
        self,
        turns: TurnsDoor,
        sessions: SessionDoor,
        audit: AuditDoor,
        journal: JournalDoor,
        approvals: ApprovalDoor,
        clock: Clock,
        *,
        json_limits: request.JsonLimits,
        comment_seconds: float,
    ) -> None:
        self._turns = turns
        self._sessions = sessions
        self._audit = audit
        self._journal = journal
        self._approvals = approvals
        self._clock = clock
        self._limits = json_limits
        self._comment_seconds = comment_seconds
        self._handlers: dict[Operation, Callable[[Route, Any, Any, Any], Awaitable[None]]] = {
            Operation.CREATE: self._create,
            Operation.RETRIEVE: self._retrieve,
            Operation.STREAM: self._stream_again,
            Operation.CANCEL: self._cancel,
            Operation.DELETE: self._delete,
            Operation.INPUT_ITEMS: self._input_items,
            Operation.RECORD: self._record,
            Operation.JOURNAL: self._journaled,
            Operation.FEEDBACK: self._feedback,
        }

    async def __call__(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request. Raises ApiError or CallerLeft before the answer has begun."""
        await self._handlers[route.operation](route, scope, receive, send)

    # Create

    async def _create(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        known = facts.of(scope)
        raw = await answers.read_body(scope, receive, self._limits.size)
        create = request.parse_create(raw, self._limits)
        place = await self._sessions.resolve(
            known.principal,
            _agent(route, create),
            session_id=_session(scope, create),
            previous_response_id=create.previous_response_id,
            conversation=create.conversation,
        )
        known.agent, known.session_id = place.agent, place.session_id
        if "responses" not in place.entry.protocols:
            raise ApiError(Kind.NOT_FOUND, f"Agent {place.agent} does not serve responses; see GET /v1/agents.")
        items = create.items
        if any(map(is_answer, items)):
            items = await self._approvals.answered(place.session_key, items)
        turn = self._turn_request(scope, raw, create, items, place)
        response_id = await self._turns.accept(known.principal, place, turn)
        if (
            response_id != turn.response_id
            and (joined := await self._turns.get(response_id, tenant=known.principal.tenant)) is not None
        ):
            known.session_id = joined.session_id
        known.response_id = response_id
        if create.stream:
            await self._follow(scope, receive, send, response_id, after=-1)
        elif create.background:
            found = await self._turns.get(response_id, tenant=known.principal.tenant)
            if found is None:
                raise ApiError(Kind.NOT_FOUND, "The response was deleted while it was created.")
            await answers.send_json(send, 200, found.response, _headers(known))
            self._delivered(scope, response_id)
        else:
            await self._answer(scope, receive, send, response_id)

    def _turn_request(
        self, scope: Any, raw: bytes, create: request.Create, items: list[dict[str, Any]], place: Place
    ) -> TurnRequest:
        lines = scope["headers"]
        known = facts.of(scope)
        response_id = names.new_response_id(place.partition)
        down = inbound.handed_down(lines)
        down[wire.TRACEPARENT] = known.traceparent
        return TurnRequest(
            response_id=response_id,
            body=create.body,
            input_items=conversation.with_ids(items, response_id),
            stream=create.stream,
            background=create.background,
            store=create.store,
            idempotency_key=request.idempotency_key(inbound.find(lines, wire.IDEMPOTENCY_KEY.encode())),
            retry_count=request.retry_count(inbound.find(lines, wire.RETRY_COUNT.encode())),
            body_hash=request.body_hash(scope["method"], scope["path"], raw),
            headers=down,
            trace_id=known.trace_id,
            created_at=self._clock.now_ms() // 1000,
        )

    async def _answer(self, scope: Any, receive: Any, send: Any, response_id: str) -> None:
        """The final object in one piece. A failed turn is a 200 with status failed: a 5xx would make stock clients repeat it."""
        async with Departure(scope, receive) as caller:
            response = await self._turns.wait(response_id, tenant=facts.of(scope).principal.tenant)
        if caller.left:
            raise answers.CallerLeft
        await answers.send_json(send, 200, response, _headers(facts.of(scope)))
        self._delivered(scope, response_id)

    async def _follow(self, scope: Any, receive: Any, send: Any, response_id: str, *, after: int) -> None:
        """The events after `after` to the end. A caller that leaves ends this reader, not the turn."""
        known = facts.of(scope)
        exchange, tenant = answers.exchange_of(scope), known.principal.tenant
        writer = SseWriter(send, _headers(known), silence=self._comment_seconds, exchange=exchange)
        async with Departure(scope, receive) as caller:
            events: Any = self._turns.follow(response_id, tenant=tenant, after=after, quick=writer.quick)
            async with aclosing(events), writer:
                async for _, data in events:
                    await writer.event(data)
            await writer.done()
        if caller.left:
            raise answers.CallerLeft
        self._delivered(scope, response_id)

    def _delivered(self, scope: Any, response_id: str) -> None:
        """The whole answer was handed over; a caller that left before it ended may still join by its retry."""
        if answers.still_here(scope):
            self._turns.delivered(response_id)

    # What is there already

    async def _owned(self, route: Route, scope: Any) -> StoredTurn:
        known = facts.of(scope)
        caller, response_id = known.principal, route.response_id or ""
        caller.require(INVOKE)
        found = await self._turns.get(response_id, tenant=known.principal.tenant)
        if (
            found is None
            or not caller.owns(found.tenant, found.user)
            or not caller.may_use(found.agent)
            or (route.agent is not None and route.agent != found.agent)
        ):
            raise ApiError(Kind.NOT_FOUND, f"Response with id '{response_id}' not found.", param="response_id")
        known.agent, known.session_id, known.response_id = found.agent, found.session_id, response_id
        return found

    async def _retrieve(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        found = await self._owned(route, scope)
        await answers.send_json(send, 200, found.response, _headers(facts.of(scope)))
        if found.ended:
            self._delivered(scope, found.response["id"])

    async def _stream_again(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        await self._owned(route, scope)
        after = -1 if route.starting_after is None else route.starting_after
        await self._follow(scope, receive, send, route.response_id or "", after=after)

    async def _cancel(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        """Any turn may be cancelled, foreground too; of an ended one the outcome is answered (protocols.md §12.6, 7)."""
        await self._owned(route, scope)
        known = facts.of(scope)
        async with self._recorded(known, "response.cancel"):
            response = await self._turns.cancel(known.response_id, tenant=known.principal.tenant)
        await answers.send_json(send, 200, response, _headers(known))

    async def _delete(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        found = await self._owned(route, scope)
        known = facts.of(scope)
        if not found.ended:
            raise ApiError(Kind.INVALID_REQUEST, "The response is still running; cancel it, then delete it.")
        async with self._recorded(known, "response.delete"):
            await self._turns.delete(known.response_id, tenant=known.principal.tenant)
        await answers.send_json(
            send, 200, {"id": known.response_id, "object": "response", "deleted": True}, _headers(known)
        )

    async def _input_items(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        found = await self._owned(route, scope)
        page = conversation.page_of(found.input_items, route.page or inbound.Page())
        await answers.send_json(send, 200, page, _headers(facts.of(scope)))

    async def _record(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        await self._owned(route, scope)
        known = facts.of(scope)
        record = await self._turns.record(known.response_id, tenant=known.principal.tenant)
        if record is None:
            raise ApiError(Kind.NOT_FOUND, "There is no record of this response.", param="response_id")
        await answers.send_json(send, 200, record, _headers(known))

    async def _journaled(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        """What the agent says to its models is its developer's: the caller whose response it is must have that right too."""
        found, known = await self._owned(route, scope), facts.of(scope)
        known.principal.require(DEPLOY)
        if not found.ended:
            raise ApiError(Kind.CONFLICT, "The response is still running: its journal is whole when it has ended.")
        with unavailable("The journal cannot be read"):
            journal = await self._journal.document(known.principal.tenant, known.response_id)
        if journal is None:
            message = "The journal of this response is gone: it is kept for half an hour after the response's end."
            raise ApiError(Kind.NOT_FOUND, message, param="response_id")
        await answers.send_json(send, 200, journal, _headers(known))

    async def _feedback(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        raw = await answers.read_body(scope, receive, FEEDBACK_BYTES)
        given = feedback.parse(request.parse_object(raw, self._limits))
        await self._owned(route, scope)
        known = facts.of(scope)
        tenant, user = known.principal.tenant, known.principal.user
        async with self._recorded(known, "response.feedback"):
            kept = await self._turns.add_feedback(known.response_id, {**given, "by": user}, tenant=tenant)
        await answers.send_json(send, 200, kept, _headers(known))

    def _recorded(self, known: facts.Facts, action: str) -> AbstractAsyncContextManager[Entry]:
        origin = Origin(known.request_id, known.trace_id)
        return self._audit.recording(known.principal, action, known.response_id, origin)


def _agent(route: Route, create: request.Create) -> str:
    agent = route.agent or create.agent
    if agent is None:
        raise ApiError(Kind.INVALID_REQUEST, "model must name the agent; GET /v1/models lists yours.", param="model")
    return agent


def _session(scope: Any, create: request.Create) -> str | None:
    """The session the body or the header names; a header is checked as the body's field was."""
    given = inbound.find(scope["headers"], wire.AGENT_SESSION_ID.encode())
    if given is None:
        return create.session_id
    named = given.decode("latin-1")
    if names.SESSION.match(named) is None:
        raise ApiError(Kind.INVALID_PARAMETERS, inbound.MALFORMED, param=wire.AGENT_SESSION_ID)
    if create.session_id is not None and create.session_id != named:
        raise ApiError(
            Kind.INVALID_REQUEST, "agent_session_id and x-agent-session-id differ; send one.", param="agent_session_id"
        )
    return named


def _headers(known: facts.Facts) -> answers.Headers:
    return [(wire.AGENT_SESSION_ID.encode(), known.session_id.encode())]

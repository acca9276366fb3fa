"""One `tools/call`, prepared and made. Layer: engine; I/O by the upstream.

What goes wrong is a tool's result that says so, recorded like any other: the agent's model reads it and decides. Only an effect that was
sent and whose answer was lost has no result: its outcome is unknown, and stays so (turns.md §6).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from moorage_api.ledger.journal import MAX_CALL, Outcome, Permits
from moorage_gateway.journal.answers import Answer
from moorage_gateway.journal.kinds import NoOutcome, Outlet
from moorage_gateway.tools import results, rpc
from moorage_gateway.tools.approving import Approval, held
from moorage_gateway.tools.definitions import MOST_LIST
from moorage_gateway.tools.fingerprints import lasting
from moorage_gateway.tools.names import place_of
from moorage_gateway.tools.servers import CALL_ID, ConsentNeeded, ToolFault, ToolRefusal

if TYPE_CHECKING:
    from moorage_gateway.tools.kind import Reached

_TRACE = ("traceparent", "tracestate", "baggage")
PLACE_S = 30.0
"""For one of `concurrency` places to come free."""
AGAIN = 1
"""Further tries of a tool that may be run again, when its answer was lost early."""


@dataclass(frozen=True)
class ToolCall:
    """One prepared call. `name` is what agents call the tool, `theirs` what its server does."""

    reached: Reached
    message: rpc.Message
    name: str
    theirs: str
    fingerprint: str

    @property
    def permits(self) -> Permits:
        """See Prepared."""
        return self.reached.upstream.permits(self.theirs)

    @property
    def bounded(self) -> None:
        """It costs nothing that is counted."""
        return None

    @property
    def what(self) -> dict[str, str]:
        """See Prepared."""
        return {"kind": "tool", "toolbox": self.reached.toolbox, "tool": self.name}

    @property
    def tool(self) -> str:
        """Tools of one name in one toolbox are one; where it may be run again, another call of it follows unseen."""
        return f"tool {self.reached.toolbox} {self.name}" if self.permits != "again" else ""

    @property
    def call(self) -> str:
        """Its arguments as JSON."""
        if not self.tool:
            return ""
        shown = orjson.dumps(self._arguments(), option=orjson.OPT_SORT_KEYS).decode()
        return shown if len(shown) <= MAX_CALL else shown[: MAX_CALL - 1] + "…"

    def shown(self, answer: Answer) -> Answer:
        """See Rendering."""
        return shown_result(self.message, answer)

    def unknown(self) -> Answer:
        """See Prepared."""
        return rpc.result(results.unknown(self.name, self.reached.upstream.name))

    def earlier(self, call: str, answer: Answer | None) -> Answer:
        """See Prepared."""
        found = None if answer is None else orjson.loads(answer.body)["result"]
        if found is not None and results.waits_for_consent(found):
            return rpc.result(found)  # that call was not made, and this one would have been told the same
        return rpc.result(results.earlier(self.name, call, found))

    async def perform(self, outlet: Outlet) -> None:
        """See Performed."""
        outlet.note(Outcome({"call_id": outlet.call_id}))
        found = rpc.result(await self._found(outlet))
        outlet.begin(found.status, found.headers, streams=False)
        outlet.put(found.body)

    async def _found(self, outlet: Outlet) -> dict[str, Any]:
        gate, upstream = self.reached.gate, self.reached.upstream.name
        left_alone = gate.closed(self.reached.now())
        if left_alone:
            text = (
                f"'{self.name}' was not called: {upstream} has failed {gate.failures} times in a row and is left alone for another "
                f"{max(1, round(left_alone))} s. Go on without it, or try again then."
            )
            return results.failed("left_alone", text)
        try:
            async with asyncio.timeout(PLACE_S):
                await gate.places.acquire()
        except TimeoutError:
            text = f"'{self.name}' was not called: all {gate.rules[0]} places of {upstream} are taken. Try again later."
            return results.failed("at_capacity", text)
        try:
            return await self._waits(outlet) or await self._tried(outlet)
        finally:
            gate.places.release()

    async def _waits(self, outlet: Outlet) -> dict[str, Any] | None:
        """What is told in place of a call that a person has not approved. By hand a person makes it."""
        reached, whose = self.reached, self.reached.whose
        if not reached.upstream.asks(self.theirs) or whose.by_hand:
            return None
        place = f"{reached.upstream.name} {self.theirs} {place_of(reached.upstream.spec)}"
        said = orjson.dumps(self._arguments()).decode()
        wanted = Approval(self.fingerprint, place, outlet.call_id, reached.toolbox, self.name, said)
        return await held(reached.approves, whose, wanted)

    async def _tried(self, outlet: Outlet) -> dict[str, Any]:
        left = AGAIN if self.permits == "again" else 0
        while True:
            sent = False

            async def sending() -> None:
                nonlocal sent
                await outlet.sending()
                sent = True

            try:
                if await self._held_back():
                    text = (
                        f"'{self.name}' was not called: its server describes it otherwise than it did when it was approved. Somebody who "
                        "runs this platform has to approve it anew; go on without it."
                    )
                    return results.failed("held_back", text)
                found = await self.reached.server().call(
                    self.theirs, self._arguments(), self._meta(outlet), self.reached.seconds, sending
                )
            except ToolRefusal as no:
                self.reached.gate.good()
                return results.failed("refused", f"'{self.name}' was refused by its server: {no}")
            except ToolFault as fault:
                self.reached.failed(fault)
                if left and not (fault.late or fault.large or fault.final or fault.status):
                    left -= 1
                    continue
                return self._without(fault, sent and fault.sent)
            self.reached.gate.good()
            return results.checked(found, self.name)

    async def _held_back(self) -> bool:
        """Whether it is pinned, and another now. Raises ToolFault, ToolRefusal."""
        reached = self.reached
        pinned = reached.upstream.spec["pin"].get(self.theirs)
        if pinned is None:
            return False
        now = await reached.seen.of(self.theirs, lambda: reached.server(MOST_LIST), reached.seconds)
        return now != str(pinned)

    def _without(self, fault: ToolFault, sent: bool) -> dict[str, Any]:
        """What is said in place of a result; `sent`: the call itself may have reached the server. Raises NoOutcome where that is all that
        is known."""
        upstream = self.reached.upstream.name
        if isinstance(fault, ConsentNeeded):
            return results.consent(self.name, upstream, fault.user, fault.link)
        if fault.large and sent:
            text = (
                f"'{self.name}' was called, and its result is dropped: {fault}. It is not called again by itself; ask for less, if it can "
                "be asked for less without doing it twice."
            )
            return results.failed("too_large", text)
        told = fault.final or (fault.status and not fault.lost)
        if sent and not told and self.permits == "once":
            raise NoOutcome(str(fault))
        word = "late" if fault.late else "refused" if told else "unreachable"
        done = "It may have been carried out." if sent and not told else "It was not carried out."
        if sent and fault.status >= 500 and not fault.lost:
            done = "Whether anything was carried out, its server did not say."
        return results.failed(word, f"'{self.name}' gave no result: {upstream}: {fault}. {done}")

    def _arguments(self) -> dict[str, Any]:
        found = self.message.params.get("arguments")
        return found if isinstance(found, dict) else {}

    def _meta(self, outlet: Outlet) -> dict[str, Any]:
        said = self.message.meta
        trace = {name: said[name] for name in _TRACE if isinstance(said.get(name), str)}
        return {**lasting(said), **trace, CALL_ID: outlet.call_id}


def shown_result(message: rpc.Message, answer: Answer) -> Answer:
    """What this request's client reads of an answer: of a refusal that is no tool's, a tool error, so that a model hears of it."""
    text = rpc.refusal_text(answer)
    return rpc.shown(message, answer if text is None else rpc.result(results.failed("refused", text)))

"""Frames of one attempt into log entries, and what an end without an outcome means. Layer: pure but for the held turn it reads.

Called by the engine; a broken stream goes on from `src`, a takeover passes over what a former owner logged.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from moorage_api.ledger.records import Entry
from moorage_api.wire.shim import Acknowledged, End, Frame, Source
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.normalise import Normaliser, Outcome
from moorage_gateway.turns.rules import Fault


class SourceReader:
    """Turns frames into log entries; knows the last source seen, so that a broken stream goes on from there."""

    def __init__(self, held: Held, normaliser: Normaliser, *, position: int) -> None:
        self._held = held
        self.normaliser = normaliser
        self.src = 0
        self.started = bool(held.attempts and held.attempts[-1].get("started"))
        self._position = position
        self._entries: list[Entry] = []
        self._outcome_at: float | None = None
        self.contradicted = False

    def read(self, frames: Sequence[Frame]) -> End | None:
        """Normalises; what an earlier owner of this attempt already logged is passed over silently."""
        held, logged = self._held, len(self._held.log)
        for frame in frames:
            if isinstance(frame, Source):
                if frame.src <= self.src:
                    continue
                self.src = frame.src
                for event in self.normaliser.feed(orjson.loads(frame.data)):
                    # A copy: orjson's own bytes keep their place in a block of over 1 KB, and a log of such pieces takes ten times
                    # its size and a page fault an event.
                    data = bytes(memoryview(orjson.dumps(event)))
                    if self._position >= logged:
                        self._entries.append(Entry(held.begun, frame.src, data))
                    elif held.log[self._position].data != data:
                        self.contradicted = True  # a former owner closed the log over this attempt
                    self._position += 1
            elif isinstance(frame, Acknowledged):
                self.started = True
                if held.attempts and not held.attempts[-1].get("started"):
                    held.attempts[-1] = held.attempts[-1] | {"started": True}
            else:
                return frame
        return None

    def drain(self) -> list[Entry]:
        """What `read` produced since the last call."""
        entries, self._entries = self._entries, []
        return entries

    def linger(self, now: float, limit: float) -> bool:
        """Whether the stream has stayed open for `limit` seconds after the agent's terminal event."""
        if self._outcome_at is None:
            self._outcome_at = now
        return now - self._outcome_at >= limit


def void(_: object) -> None:
    """Drops a result that a watcher has no use for."""


def failed(code: str, message: str) -> Outcome:
    """A `failed` outcome of ours; `code` goes into the message too, since the protocol's codes are a closed set."""
    return Outcome(status="failed", error={"code": "server_error", "message": f"{message} [{code}]"})


def ending(end: End, normaliser: Normaliser) -> tuple[Outcome, Normaliser | None] | Fault | None:
    """What the end of an attempt without a terminal event means.

    kind                 | meaning
    ---------------------|------------------------------------------------------------
    http                 | the agent answered an error itself: an answer, never retried
    done, cut            | the stream ended early: an agent fault
    exit, oom, hang      | an agent fault
    stopped, superseded  | another owner, or a cancel: nothing of ours to decide
    orphaned             | the shim gave the attempt up without an owner: platform
    boundary             | an answer from outside broke off after the agent saw its beginning: platform
    """
    if end.kind == "http":
        detail = (end.body or "")[:2000]
        return failed("agent_error", f"The agent answered {end.status}: {detail}"), normaliser
    if end.kind in ("stopped", "superseded"):
        return None
    if end.kind == "done":
        return Fault("cut", "the agent's stream ended without a terminal event", tuple(end.log_tail))
    return Fault(end.kind, end.detail, tuple(end.log_tail))

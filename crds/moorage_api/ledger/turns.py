"""The gateway's door to turns: one method a script of `turn_scripts` or `loss_scripts`, typed. No decisions in here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moorage_api.ledger import keys, loss_scripts, records, turn_scripts
from moorage_api.ledger.records import Entry, SessionIdentity, TurnRecord, text
from moorage_api.ledger.script import LEASE_MS, PostingRunner

ENDED_TTL_S = (
    1800  # an ended, stored turn stays readable in Redis: longer than the 15 minutes a counted retry may join it
)
IDEMPOTENCY_TTL_S = 24 * 3600 + 3600  # 24 h past the end (turns.md §1), a turn's own time added
RETRY_TTL_S = 900  # faults.md F36
WATCH_TTL_S = 6  # readers renew it more often than every third of this


@dataclass(frozen=True)
class Acceptance:
    """What `accept` writes, all in one script. `queued` events are used when the turn must wait its place; `meta` is a JSON object."""

    response: str
    session: str
    identity: SessionIdentity
    queue_limit: int
    deadline_ms: int
    meta: str
    input: str
    running_events: Sequence[str]
    queued_events: Sequence[str]
    idempotency: str = ""
    idempotency_hash: str = ""
    retry: str = ""
    retry_count: int = 0


@dataclass(frozen=True)
class Accepted:
    """`word`: OK, JOIN, CONFLICT, DELETED, FOREIGN, FULL. With OK also the state and the fence.

    State `running`: the asker owns it; `taken`: it was sent again, and another owner has the turn by now.
    """

    word: str
    response: str = ""
    state: str = ""
    fence: int = 0
    accepted: int = 0  # ms, Redis' own


class TurnLedger:
    """Turns in Redis. Every method may raise `Lost` or `Unreachable`; the words it returns are its script's."""

    def __init__(self, runner: PostingRunner) -> None:
        self._runner = runner

    async def accept(self, a: Acceptance) -> Accepted:
        """**F** Turn, first events, key, owner or queue place and due, in one."""
        out = await self._runner.run(
            turn_scripts.ACCEPT,
            a.response,
            a.session,
            a.identity.tenant,
            LEASE_MS,
            a.queue_limit,
            a.deadline_ms,
            a.meta,
            a.input,
            a.idempotency,
            a.idempotency_hash,
            IDEMPOTENCY_TTL_S,
            a.retry,
            a.retry_count,
            RETRY_TTL_S,
            a.identity.to_json(),
            json.dumps(list(a.running_events)),
            json.dumps(list(a.queued_events)),
        )
        words = [text(x) for x in out]
        if words[0] == "OK":
            return Accepted("OK", words[1], words[2], int(words[3]), int(words[4]))
        return Accepted(words[0], words[1] if len(words) > 1 else "")

    async def begin(self, response: str, fence: int, *, epoch: int, attempt: dict[str, Any]) -> tuple[str, int, int]:
        """**F** Permits one `start`. Returns (word, fence = begun, attempt number); a word other than OK permits nothing."""
        out = await self._runner.run(turn_scripts.BEGIN, response, fence, LEASE_MS, epoch, json.dumps(attempt))
        word = text(out[0])
        return (word, int(out[1]), int(out[2])) if word == "OK" else (word, 0, 0)

    async def note(self, response: str, fence: int, index: int, attempt: dict[str, Any]) -> str:
        """Writes how attempt `index` (from 0) ended over how it began."""
        return text((await self._runner.run(turn_scripts.NOTE, response, fence, index, json.dumps(attempt)))[0])

    async def append(self, response: str, fence: int, first: int, entries: Sequence[Entry]) -> tuple[str, int]:
        """Logs a group; only after OK may any client see it. GAP: the log's length is not `first`. Returns (word, length)."""
        raw = [e.encode() for e in entries]
        out = await self._runner.run(turn_scripts.APPEND, response, fence, first, *raw)
        word = text(out[0])
        return word, int(out[1]) if word in ("OK", "GAP") else 0

    def append_soon(
        self,
        response: str,
        fence: int,
        group: Callable[[], tuple[int, Sequence[Entry]] | None],
        landed: Callable[[list[Any] | None], None],
    ) -> None:
        """`append` without waiting. `group` is called as it leaves and gives the first index and the entries, or None for nothing.

        `landed` gets None or the words of the reply, of which only `[b"OK", …]` is good news; on any other `append` says what it was.
        """

        def args() -> list[str | bytes | int] | None:
            leaving = group()
            return None if leaving is None else [response, fence, leaving[0], *[entry.encode() for entry in leaving[1]]]

        self._runner.post(turn_scripts.APPEND, args, landed)

    async def decide(
        self,
        response: str,
        fence: int,
        outcome: str,
        index: int,
        terminal: bytes | str,
        *,
        attempt: tuple[int, dict[str, Any]] | None = None,
    ) -> tuple[str, str, int, str]:
        """**F** Fixes the outcome, and how an attempt (index from 0, record) ended. Returns (word, outcome, ended in ms, calls).

        `calls` is what the turn's calls add up to (`records.CALLS`), empty without any. CANCEL: it must be decided `cancelled`; nothing
        was written.
        """
        number, record = (-1, "") if attempt is None else (attempt[0], json.dumps(attempt[1]))
        out = await self._runner.run(turn_scripts.DECIDE, response, fence, outcome, index, terminal, number, record)
        word = text(out[0])
        return (word, text(out[1]), int(out[2]), text(out[3])) if word == "OK" else (word, "", 0, "")

    async def close(self, response: str, *, stored: bool) -> str:
        """Shows the end to everyone and starts the session's next turn. Any gateway may."""
        out = await self._runner.run(turn_scripts.CLOSE, response, ENDED_TTL_S if stored else 0)
        return text(out[0])

    async def flushed(self, response: str) -> None:
        """An `unflushed` turn's response is stored now."""
        await self._runner.run(turn_scripts.FLUSHED, response, ENDED_TTL_S)

    async def cancel(self, response: str, outcome: str, index: int, terminal: str) -> tuple[str, str]:
        """**F** FLAGGED (its owner will decide), CLOSING (a waiting turn, decided here), ENDED, GAP or ABSENT."""
        out = await self._runner.run(turn_scripts.CANCEL, response, outcome, index, terminal)
        return text(out[0]), text(out[1]) if len(out) > 1 else ""

    async def acquire(self, response: str) -> tuple[str, TurnRecord | None]:
        """**F** Takes over a turn without a live owner; the record comes with the new fence."""
        out = await self._runner.run(turn_scripts.ACQUIRE, response, LEASE_MS)
        word = text(out[0])
        return word, TurnRecord.parse(response, out[1]) if word == "OK" else None

    async def renew(self, held: Sequence[tuple[str, int]]) -> list[str]:
        """A word for each (response, fence): OK, CANCEL, FENCED or STATE."""
        flat = [x for pair in held for x in pair]
        out = await self._runner.run(turn_scripts.RENEW, LEASE_MS, *flat)
        return [text(x) for x in out[0]]

    async def release(self, response: str, fence: int) -> None:
        """Hands a turn back, due now."""
        await self._runner.run(turn_scripts.RELEASE, response, fence)

    async def delivered(self, response: str) -> None:
        """A caller has the whole answer."""
        await self._runner.run(turn_scripts.DELIVERED, response)

    async def restore(
        self,
        record: TurnRecord,
        identity: SessionIdentity,
        session: dict[str, str],
        entries: Sequence[Entry],
        attempts: Sequence[dict[str, Any]],
    ) -> str:
        """**F** After a loss: writes turn, log and session anew from an owner's memory."""
        out = await self._runner.run(
            loss_scripts.RESTORE,
            record.response,
            record.fence,
            LEASE_MS,
            record.session,
            identity.to_json(**session),
            json.dumps(record.raw),
            len(entries),
            *[e.encode() for e in entries],
            *[json.dumps(a) for a in attempts],
        )
        return text(out[0])

    async def bar(self, response: str) -> str:
        """Forbids `restore` of a turn that was given up as lost."""
        return text((await self._runner.run(loss_scripts.BAR, response, 7 * 24 * 3600))[0])

    async def forget(self, response: str) -> str:
        """Removes an ended turn's keys."""
        return text((await self._runner.run(turn_scripts.FORGET, response))[0])

    async def discard(self, response: str, fence: int) -> str:
        """Drops a turn that came back with an old Redis although its end is stored."""
        return text((await self._runner.run(loss_scripts.DISCARD, response, fence))[0])

    async def probe(self) -> None:
        """Raises `Lost` if Redis lost something since this process last wrote."""
        await self._runner.run(loss_scripts.PROBE)

    async def turn(self, response: str) -> TurnRecord | None:
        """The turn as Redis holds it."""
        return TurnRecord.parse(response, await self._runner.read("HGETALL", keys.turn(response)))

    async def log(self, response: str, first: int = 0, last: int = -1) -> list[Entry]:
        """Log entries from `first` to `last`, both inclusive (-1: the end)."""
        raw = await self._runner.read("LRANGE", keys.log(response), first, last)
        return [Entry.decode(x) for x in raw]

    async def watch(self, response: str) -> None:
        """For `WATCH_TTL_S` from now HINT_LOG tells that this log grew."""
        await self._runner.read("SET", keys.watch(response), "1", "EX", WATCH_TTL_S)

    async def length(self, response: str) -> int:
        """How many events are logged."""
        return int(await self._runner.read("LLEN", keys.log(response)))

    async def attempts(self, response: str) -> list[dict[str, Any]]:
        """The attempts of a turn, oldest first."""
        raw = await self._runner.read("LRANGE", keys.attempts(response), 0, -1)
        return [json.loads(x) for x in raw]

    async def due(self, now_ms: int, limit: int) -> list[str]:
        """Turns that want a look now, oldest first."""
        raw = await self._runner.read("ZRANGEBYSCORE", keys.DUE, "-inf", now_ms, "LIMIT", 0, limit)
        return [text(x) for x in raw]

    async def unflushed(self, limit: int) -> list[str]:
        """Ended turns whose response is not stored."""
        return [text(x) for x in await self._runner.read("ZRANGE", keys.UNFLUSHED, 0, limit - 1)]


def is_live(state: str) -> bool:
    """Whether a turn in this state has not ended."""
    return state in records.LIVE

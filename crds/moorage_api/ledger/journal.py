"""The gateway's door to the journal of a turn: one method a script of `journal_scripts`, typed. No decisions in here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from moorage_api.ledger import journal_scripts, keys
from moorage_api.ledger.records import text
from moorage_api.ledger.script import LEASE_MS, Runner

MAX_ENTRIES = 2_000
"""Of one turn: an agent that loops over its model meets this before it fills Redis."""

MAX_CALL = 4096
"""Characters of a call's text that are kept to be shown."""

Permits = Literal["again", "once", "joins"]


@dataclass(frozen=True)
class Bounds:
    """What a call may cost: requests and tokens a minute, and tokens a turn, of one purse; 0 is no limit. `shut`: nothing is made now.

    `purse` names what is counted together, as `TENANT/ENDPOINT`.
    """

    purse: str = ""
    requests: int = 0
    tokens: int = 0
    turn_tokens: int = 0
    shut: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a made call turned out to be: `what` joins the entry's words, `sums` its turn's, `tokens` were spent of its purse.

    `request`: what was asked, as its kind keeps it for replays; empty where it is too large.
    """

    what: dict[str, str] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    request: bytes = b""


NOTHING = Outcome()


@dataclass(frozen=True)
class Binding:
    """Who asks: a sandbox as its shim proved it, and the session and epoch it says it is bound to."""

    sandbox: str
    session: str
    epoch: int
    tenant: str
    agent: str


@dataclass(frozen=True)
class Asking:
    """One call of an attempt. `number` is the shim's; `resent`: it was sent before, to whomever. Without a turn `response` is empty.

    `permits`: `once` is an effect, which is never made again where its outcome is not known; `joins` is one that its maker's death leaves
    to another, since whoever is asked again knows it as the same (a turn of another agent). `what` tells people and traces what it is.
    `tool` is what an effect calls, as its agent knows it, so that a later attempt's other effect of it does not follow
    unseen (turns.md §6); of a call that may be made again, what it has in common with those whose entry it may take in a
    later attempt; empty where neither rule holds. `call` is the call as the agent can read it, shown to
    whoever is turned away to it: at most `MAX_CALL` characters.
    """

    response: str
    begun: int
    number: int
    fingerprint: str
    permits: Permits
    resent: bool
    what: dict[str, str]
    bounds: Bounds = Bounds()
    tool: str = ""
    call: str = ""


@dataclass(frozen=True)
class Started:
    """What `start` found.

    word     | meaning
    ---------|--------------------------------------------------------------------------
    RUN      | the asker makes the call, as try number `tried`; `octets` of answers are in the journal already
    WAIT     | somebody makes it
    DONE     | `answer` is the recorded one
    UNKNOWN  | it was made, with an outcome nobody knows
    FREE     | no turn: make the call, nothing is recorded
    UNBOUND  | the sandbox is not (or no longer) this session's
    BEHIND   | the ledger knows less than the asker: it has lost something, and is being told again
    ABSENT   | the turn is another session's
    FENCED   | a later attempt runs
    STATE    | the turn runs no more
    CANCEL   | the turn is being cancelled
    OTHER    | this number was another request
    FULL     | the journal holds MAX_ENTRIES
    SHUT     | its bounds say that nothing is made now
    RATE     | its purse is empty for `wait` ms; `short`: of requests or tokens
    SPENT    | the turn has spent what it may
    HELD     | an effect of the same tool of an earlier attempt has not been met: ask again, `waited` once that was long enough
    EARLIER  | turned away: `answer` is what became of that effect, `call` what it was; EARLIER_UNKNOWN: nobody knows what became of it
    """

    word: str
    entry: str = ""
    tried: int = 0
    octets: int = 0
    answer: bytes = b""
    what: dict[str, str] = field(default_factory=dict)
    short: str = ""
    wait: int = 0
    call: str = ""


@dataclass(frozen=True)
class Reported:
    """What `report` found: OK; SUPERSEDED, ABSENT (or none of its session's), NONE (it began no such call).

    The first time also `what` the entry is, as it was begun, and the Redis time at which its lease would have ended (ms); 0 else.
    """

    word: str
    what: dict[str, str] = field(default_factory=dict)
    lease: int = 0


@dataclass(frozen=True)
class Recorded:
    """An entry as the journal holds it."""

    entry: str
    state: str
    tried: int
    what: dict[str, str]


@dataclass(frozen=True)
class Kept(Recorded):
    """An entry with what the journal holds of its request and its answer; empty where it holds none."""

    request: bytes
    answer: bytes


class JournalLedger:
    """Journals in Redis. Every method may raise `Lost` or `Unreachable`; the words it returns are its script's."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def start(
        self,
        binding: Binding,
        asking: Asking,
        executor: str,
        *,
        settling: bool = False,
        lease_ms: int = LEASE_MS,
        waited: bool = False,
    ) -> Started:
        """**F** for effects. Permits one call by `executor`, or says what became of it. `settling`: nobody's lease is taken now. `waited`:
        it was HELD for as long as may be."""
        out = await self._runner.run(
            journal_scripts.START,
            binding.sandbox,
            binding.session,
            binding.epoch,
            binding.tenant,
            binding.agent,
            asking.response,
            asking.begun,
            asking.number,
            asking.fingerprint,
            asking.permits,
            int(asking.resent),
            executor,
            lease_ms,
            json.dumps(asking.what),
            MAX_ENTRIES,
            int(settling),
            int(asking.bounds.shut),
            asking.bounds.purse,
            asking.bounds.requests,
            asking.bounds.tokens,
            asking.bounds.turn_tokens,
            asking.tool,
            asking.call[:MAX_CALL],
            int(waited),
        )
        word = text(out[0])
        match word:
            case "RUN":
                return Started(word, text(out[1]), int(out[2]), octets=int(out[3]))
            case "WAIT":
                return Started(word, text(out[1]), int(out[2]))
            case "DONE" | "UNKNOWN":
                what = json.loads(out[4]) if out[4] else {}
                return Started(word, text(out[1]), int(out[2]), answer=bytes(out[3]), what=what)
            case "EARLIER" | "EARLIER_UNKNOWN":
                return Started(word, text(out[1]), int(out[2]), answer=bytes(out[3]), call=text(out[4]))
            case "RATE":
                return Started(word, short=text(out[1]), wait=int(out[2]))
            case _:
                return Started(word)

    async def complete(
        self,
        asking: Asking,
        started: Started,
        executor: str,
        *,
        state: str,
        answer: bytes,
        outcome: Outcome = NOTHING,
    ) -> str:
        """**F** The outcome (`completed` or `unknown`). OK, SUPERSEDED (another try counts), ABSENT (no such turn)."""
        return text((await self._end(asking, started, executor, state, answer, outcome, None))[0])

    async def report(
        self, asking: Asking, started: Started, executor: str, *, state: str, answer: bytes, by: Binding,
        outcome: Outcome = NOTHING,
    ) -> Reported:  # fmt: skip
        """**F** `complete` of a call that the attempt `by` made by itself."""
        word, *told = await self._end(asking, started, executor, state, answer, outcome, by)
        if len(told) != 2 or not told[1]:
            return Reported(text(word))
        return Reported(text(word), json.loads(told[0] or "{}"), int(told[1]))

    async def _end(
        self, asking: Asking, started: Started, executor: str, state: str, answer: bytes, outcome: Outcome,
        by: Binding | None,
    ) -> list[Any]:  # fmt: skip
        return await self._runner.run(
            journal_scripts.COMPLETE,
            asking.response,
            started.entry,
            executor,
            started.tried,
            state,
            answer,
            json.dumps(asking.what | outcome.what),
            asking.bounds.purse,
            asking.bounds.requests,
            asking.bounds.tokens,
            outcome.tokens,
            by.session if by else "",
            by.sandbox if by else "",
            outcome.request,
            MAX_ENTRIES,
            *(x for pair in outcome.sums.items() for x in pair),
        )

    async def spend(self, asking: Asking, tokens: int) -> None:
        """What a call has spent that no entry will tell of."""
        bounds = asking.bounds
        await self._runner.run(
            journal_scripts.SPEND, asking.response, bounds.purse, bounds.requests, bounds.tokens, tokens
        )

    async def drop(self, response: str, started: Started, executor: str) -> str:
        """The call had no outcome, and may be made again. OK or SUPERSEDED."""
        out = await self._runner.run(journal_scripts.DROP, response, started.entry, executor, started.tried)
        return text(out[0])

    async def hold(self, held: Sequence[tuple[str, str, str]]) -> list[str]:
        """A word for each (response, entry, executor): OK or LOST."""
        flat = [x for each in held for x in each]
        out = await self._runner.run(journal_scripts.HOLD, LEASE_MS, *flat)
        return [text(x) for x in out[0]]

    async def making(self, response: str, entry: str) -> tuple[str, int]:
        """Who makes this call (empty: there is none), and bytes of answers that the journal of its turn holds."""
        executor = await self._runner.read("HGET", keys.journal(response), f"{entry}.x")
        held = await self._runner.read("HGET", keys.journal_numbers(response), "octets")
        return text(executor or b""), int(held or 0)

    async def progress(self, response: str) -> int:
        """How many entries have ended."""
        return int(await self._runner.read("HGET", keys.journal_numbers(response), "done") or 0)

    async def entries(self, response: str) -> list[Recorded]:
        """The journal, in the order of first starts."""
        order = [text(x) for x in await self._runner.read("LRANGE", keys.journal_order(response), 0, -1)]
        wanted = [f"{entry}.{part}" for entry in order for part in "sth"]
        flat = [text(x) for x in await self._runner.read("HMGET", keys.journal(response), *wanted)] if order else []
        return [
            Recorded(entry, flat[3 * n], int(flat[3 * n + 1] or 0), json.loads(flat[3 * n + 2] or "{}"))
            for n, entry in enumerate(order)
        ]

    async def answer(self, response: str, entry: str) -> bytes:
        """What the journal holds of one entry's answer; empty where it holds none."""
        return bytes(await self._runner.read("HGET", keys.journal(response), f"{entry}.a") or b"")

    async def whole(self, response: str) -> list[Kept]:
        """The journal with everything in it, in the order of first starts: megabytes."""
        found: list[Kept] = []
        for entry in await self.entries(response):
            held = await self._runner.read("HMGET", keys.journal(response), f"{entry.entry}.q", f"{entry.entry}.a")
            request, answer = (bytes(x) if x else b"" for x in held)
            found.append(Kept(entry.entry, entry.state, entry.tried, entry.what, request, answer))
        return found

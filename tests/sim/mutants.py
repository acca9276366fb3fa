"""Each rule of turns.md taken out on purpose. The simulation must notice every one (docs/simulation.md has the table).

A mutant changes the text of scripts, raises a flag (a rule of the simulated shims or of the gateway's pace), or puts a class
without the rule in the place of the product's. Where two rules guard the same thing, both are taken out, and `rule` says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage_api.ledger.records import Entry, SessionRecord, TurnRecord
from moorage_gateway.lifecycle import Lifecycle
from moorage_gateway.turns.engine import Engine
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.keeper import Keeper
from moorage_gateway.turns.lost import LostSweep, lost_document
from moorage_gateway.turns.readers import Readers
from moorage_gateway.turns.service import Turns
from sim.world import Mutations, Schedule


@dataclass(frozen=True)
class Mutant:
    """`rule`: what was taken out, and its place in turns.md. `kind`: the schedules that meet it; `story` (traps.py): so do they."""

    name: str
    rule: str
    kind: str
    scripts: Mutations = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    parts: Mapping[str, Any] = field(default_factory=dict)
    story: str = ""
    calls: str = ""  # as `Schedule.calls`
    first: int = 1  # the seed to begin with: one that is known to meet it

    def schedule(self, seed: int) -> Schedule:
        """A schedule without the rule."""
        return Schedule(
            seed,
            self.kind,
            mutations=self.scripts,
            flags=self.flags,
            parts=self.parts,
            calls=self.calls,
            story=self.story,
        )


def lua(name: str, rule: str, kind: str, script: str, old: str, new: str = "", *, story: str = "") -> Mutant:
    """A mutant that changes one place of one script."""
    return Mutant(name, rule, kind, {script: ((old, new),)}, story=story)


def called(name: str, rule: str, script: str, *changes: tuple[str, str], calls: str = "any", first: int = 1) -> Mutant:
    """A mutant of a script of the journal."""
    return Mutant(name, rule, "kills", {script: changes}, calls=calls, first=first)


def part(name: str, rule: str, kind: str, role: str, without: Any, *, story: str = "") -> Mutant:
    """A mutant that puts another class in the place of the product's."""
    return Mutant(name, rule, kind, parts={role: without}, story=story)


class ShowsFirst(Engine):
    """Publishes before the log acknowledged."""

    async def _append(self, held: Held, entries: list[Entry]) -> None:
        first = len(held.log)
        held.logged(entries)
        word, _ = await self._insist(held, lambda: self._ledger.append(held.response, held.fence, first, entries))
        if word != "OK":
            held.interrupt(fenced=True)
            self._stay(held)


class JoinsGroups(Engine):
    """What the lane had in the air is sent again together with what waited behind it."""

    async def _append_groups(self, held: Held, groups: list[list[Entry]]) -> None:
        await self._append(held, [entry for group in groups for entry in group])


class SettlesBlindly(Engine):
    """Stores what it decided long ago without a look at what became of the turn."""

    async def _look_again(self, held: Held) -> None:
        pass


class ForgetsLog(Engine):
    """A later attempt is not compared with what was logged."""

    async def _begin(self, held: Held, route: Any, record: dict[str, Any]) -> str:
        if held.attempts:
            record["base"] = 1
        return await super()._begin(held, route, record)


class TakesOverAnew(Engine):
    """A takeover begins an attempt instead of attaching to the one that runs."""

    async def drive(self, held: Held) -> None:
        held.taken_over = False
        await super().drive(held)


class StaysForNobody(Keeper):
    """A foreground turn that is not stored runs on without readers."""

    async def _abandoned(self) -> None:
        return


class HoldsTwice(Keeper):
    """A turn that is held is held again."""

    def hold(self, held: Held) -> None:
        self._held.pop(held.response, None)
        super().hold(held)


class RestoresTheEnded(Keeper):
    """After a loss a turn is written anew although its end is stored."""

    async def _stands(self, held: Held) -> bool:
        return False


class TakesTheEnded(Keeper):
    """A turn of this generation is taken though its end is stored."""

    async def _ended_before(self, record: TurnRecord, tenant: str, response: str) -> bool:
        return record.generation != self._generation() and await self._store.has(tenant, response)


class SweepsAtOnce(LostSweep):
    """Gives up at the first look, not after 30 s."""

    async def _look(self, response: str) -> int:
        self._suspects[response] = float("-inf")
        return await super()._look(response)


class SweepsWithoutBar(LostSweep):
    """Gives up without forbidding `restore`, and although a response is stored."""

    async def _look(self, response: str) -> int:
        if self._held(response) is not None or await self._ledger.turn(response) is not None:
            self._suspects.pop(response, None)
            return 0
        since = self._suspects.setdefault(response, self._clock.monotonic())
        accepted = await self._store.accepted(response)
        if self._clock.monotonic() - since < 30.0 or accepted is None:
            return 0
        await self._store.put_lost("dev", response, lost_document(response, accepted, self._clock.now_ms()))
        await self._store.settled(response)
        return 1


class NothingPastTheEnd(Readers):
    """A cursor past the end gets nothing."""

    async def follow(
        self, response: str, *, tenant: str, after: int = -1, quick: Callable[[bytes], bool] | None = None
    ) -> AsyncIterator[tuple[int, bytes]]:
        async for number, data in super().follow(response, tenant=tenant, after=after, quick=quick):
            if number > after:
                yield number, data


class AcceptsWithoutProof(Turns):
    """The object `accepted` is not written."""

    async def _prove(self, request: Any, meta: dict[str, Any], *, queued: bool) -> None:
        return


class JoinsWithoutProof(Turns):
    """Whoever joins a turn does not see to its object `accepted`."""

    async def _prove_joined(self, response_id: str, tenant: str) -> None:
        return


class LeavesDraining(Lifecycle):
    """A drain whose gateway died is nobody's."""

    async def drain(self, record: SessionRecord, idle_before: int, reason: str) -> bool:
        return record.state != "draining" and await super().drain(record, idle_before, reason)


FENCE = "if v[2] ~= FENCE then return reply('FENCED', v[2]) end"
LENGTH = "if have >= FIRST + n then return reply('OK', have) end\nif have ~= FIRST then return reply('GAP', have) end"
GUARD = "stored[1] ~= LEDGER or stored[2] ~= GEN"
WITNESS = " or tonumber(call('GET', 'wit:' .. WHO) or '0') < TOLD then"
STALE = "if v[1] ~= '{}' or v[2] ~= A[2] then return reply('STALE') end"
SETTLE = (
    "if NAMED == '1' and live(tonumber(call('HGET', 'ledger', 'settle') or '0')) then return answer('SETTLING', s) end"
)
TAKEN = "(old[1] == 'running' and not untouched) and 'taken' or old[1]"
CLOSED = "if v[1] ~= 'closing' then\n  if v[2] then return reply('OK', v[1]) end\n  return reply('STATE', v[1])\nend"
DRAINED = "if (v[3] and v[3] ~= '') or call('LLEN', 'q:' .. S) > 0 then return reply('BUSY') end"
DELETED = "if (v[4] and v[4] ~= '') or call('LLEN', 'q:' .. A[1]) > 0 then return reply('BUSY') end"
KNOWN = (
    "if v[1] and not older and (tonumber(v[2]) > EPOCH or (v[3] and v[3] ~= '')) then return reply('KNOWN', v[1]) end"
)
PREV = "if v[1] == 'running' and v[7] == FENCE and v[3] == WHO then return reply('OK', v[2], v[6]) end"

MUTANTS = (
    # §1
    lua("guard-ledger", "every write checks the ledger (§1 a)", "redis", "*", f"if {GUARD}{WITNESS}", "if false then"),
    lua("guard-witness", "every write checks the writer's witness (§1 a)", "redis", "*", WITNESS, " then"),
    lua("lease-void", "an end over 10 s ahead is void (§1)", "kills", "*", "lease > MS and lease <= MS + 10000", "lease > MS"),
    lua("begin-again", "`begin` sent again answers the same (§1 c)", "kills", "begin", PREV),
    lua("accept-again", "`accept` sent again does not own what was taken over (§1 c)", "kills", "accept", TAKEN, "old[1]", story="an acceptance"),
    lua("join-again", "a counted retry sent again joins again (§1 c)", "kills", "accept", " or seen[3] == R)", ")", story="answers break"),
    # §2
    lua("accept-key", "the key is looked at in the script that accepts (§2 row 2)", "kills", "accept", "if IDEM ~= '' then\n  local seen", "if false then\n  local seen"),
    lua("accept-queue", "turns of one session run one at a time (§2 row 2)", "kills", "accept", "local waits = (have[2] and have[2] ~= '') or call('LLEN', q) > 0", "local waits = false"),
    lua("queue-bound", "the queue is bounded (§2 row 2)", "kills", "accept", "if waits and call('LLEN', q) >= LIMIT then return reply('FULL') end"),
    lua("accept-deleted", "a deleted session takes no turn (§2 row 2)", "kills", "accept", "if have[1] == 'deleted' then return reply('DELETED') end", story="sessions are"),
    part("accepted-object", "the object `accepted` comes before the answer (§2 row 3)", "redis", "turns", AcceptsWithoutProof, story="the acceptor"),
    part("joined-object", "whoever joins sees to that object (§2 row 3)", "redis", "turns", JoinsWithoutProof, story="the acceptor"),
    lua("begin-fence", "`begin` carries the fence (§2 row 5)", "kills", "begin", FENCE),
    lua("begin-cancel", "no attempt of a cancelled turn (§2 row 5)", "kills", "begin", "if v[4] == '1' then return reply('CANCEL') end", story="a cancel comes"),
    lua("begin-generation", "no attempt in a later generation (§2 row 5, §7)", "redis", "begin", "if v[5] ~= GEN then return reply('GENERATION') end"),
    lua("begin-epoch", "an attempt begins for the binding of now (§2 row 5)", "kills", "begin", "if place[1] ~= 'claimed' or place[2] ~= EPOCH then return reply('EPOCH') end"),
    lua("session-fence", "a turn's fence is above its predecessor's (§1, §3)", "kills", "begin", "math.max(tonumber(v[2]), tonumber(place[3] or '0'))", "v[2]"),
    lua("append-fence", "log writes carry the fence (§2 row 6)", "kills", "append", FENCE, story="a write of"),
    lua("append-length", "a group is appended only at its own index (§2 row 6)", "kills", "append", LENGTH),
    part("same-group", "a group of events is sent again as it was (§1 c)", "kills", "engine", JoinsGroups),
    part("log-first", "log before publish (§2 row 6)", "kills", "engine", ShowsFirst),
    lua("decide-cancel", "a set cancel makes it cancelled (§2 row 7)", "kills", "decide", "if v[3] == '1' and OUTCOME ~= 'cancelled' then return reply('CANCEL') end", story="a cancel comes"),
    Mutant("decide-fence", "`decide` carries the fence, and the terminal event's index (§2 row 7; each is the other's twin)", "kills", {"decide": ((FENCE, ""), ("if have ~= INDEX then return reply('GAP', have) end", ""))}, story="an end is"),
    lua("close-once", "close only what was decided, once (§2 row 9)", "kills", "close", CLOSED),
    lua("close-queue", "close starts the next turn (§2 row 9)", "kills", "close", "    next_turn(v[4])\n", "    call('HSET', s, 'running', '')\n"),
    lua("acquire-fence", "a takeover raises the fence (§2)", "kills", "acquire", "'fence', int(fence_after(v[2])), 'owner', WHO", "'owner', WHO", story="a cancelled turn"),
    lua("acquire-lease", "a live lease is not taken (§2)", "kills", "acquire", "  if live(tonumber(v[4])) then\n    return reply('HELD', v[3], v[4])\n  end\n"),
    part("takeover", "a takeover is not an attempt (§2)", "kills", "engine", TakesOverAnew, story="a cancelled turn"),
    Mutant("hold-once", "one drive a turn and process (§2; without `accept-again`, its twin)", "kills", {"accept": ((TAKEN, "old[1]"),)}, parts={"keeper": HoldsTwice}, story="an acceptance"),
    part("abandoned", "not stored, foreground: cancelled 10 s after its last reader (§2)", "kills", "keeper", StaysForNobody, story="readers"),
    lua("cancel-flag", "cancel of a running turn is flagged (§2)", "kills", "cancel", "call('HSET', t, 'cancel', '1')"),
    lua("retry-delivered", "a counted retry joins only what was not wholly answered (§2)", "kills", "accept", "if seen[1] and not seen[2] and", "if seen[1] and", story="answers break"),
    lua("retry-joins", "a counted retry joins (§2)", "kills", "accept", "then join = r end", "then join = nil end", story="answers break"),
    # §3, §4
    Mutant("start-kills", "`start` first kills the earlier attempt (§3)", "kills", flags=frozenset({"no_kill"}), story="a cancelled turn"),
    Mutant("shim-fence", "`start`, `attach`, `stop` under a lower fence are refused (§3)", "kills", flags=frozenset({"no_fence"}), story="a start"),
    part("compare", "a later attempt is compared with the log (§4)", "kills", "engine", ForgetsLog),
    part("cursor-past", "a cursor past the end gets the terminal event (§4)", "kills", "readers", NothingPastTheEnd),
    # §5
    Mutant("claim-pops", "a pooled sandbox is popped, and taken only while ready (§5; each is the other's twin)", "kills", {"claim": (("local id = call('LPOP', pool)\n", "local id = call('LINDEX', pool, 0)\n"), ("x.state == 'ready' and ", ""))}),
    Mutant("offered-once", "an id is offered once a ledger, and taken only while ready (§1; each is the other's twin)", "kills", {"offer": (("if call('SADD', 'offered', x.sandbox) == 0 then return reply('SEEN') end", ""),), "claim": (("x.state == 'ready' and ", ""),)}, story="offers"),
    lua("claim-generation", "a pool's rest of an earlier generation is not taken (§5)", "redis", "claim", " and x.generation == GEN", "", story="rolled back over claims"),
    lua("ready-epoch", "`ready` only for the waking epoch (§5)", "kills", "ready", "if v[1] ~= 'waking' or v[2] ~= EPOCH then return reply('STALE') end", story="sessions are"),
    lua("gone-sandbox", "a death moves only the session it is the sandbox of (§5)", "redis", "gone", "h[2] ~= A[1] or ", "", story="rolled back over a death"),
    lua("gone-kept", "a woken workspace is kept though its new sandbox died unbound (§5)", "kills", "gone", " and h[4] ~= '1'", ""),
    lua("drain-turn", "no drain under a turn, running or waiting (§5)", "kills", "drain", DRAINED, story="a drain comes"),
    part("drain-resumed", "a drain whose gateway died goes on (§5)", "kills", "lifecycle", LeavesDraining, story="who drains"),
    lua("undrain-epoch", "`undrain` only of the drain it belongs to (§5)", "kills", "undrain", STALE.format("draining"), story="a busy"),
    lua("hibernated-epoch", "`hibernated` only of the drain it belongs to (§5)", "kills", "hibernated", STALE.format("draining"), story="a hibernation"),
    lua("delete-busy", "a session with turns is not deleted (§5)", "kills", "delete", DELETED, story="sessions are"),
    # §6
    called("call-number", "a request sent again under its number is the same call (§6)", "journal_start", ("e, fresh, turned = call('HGET', jn, named), false, false", "e, fresh, turned = false, false, false")),
    called("call-count", "equal calls of one attempt are counted (§6)", "journal_start", ("(call('HGET', jn, counted) or '0')", "'0'")),
    called("call-recorded", "a recorded call is answered, not made (§6)", "journal_start", ("if h[1] == 'completed' or h[1] == 'unknown' then", "if h[1] == 'unknown' then")),
    called("call-unknown", "an outcome that is unknown stays so (§6)", "journal_start", ("if h[1] == 'completed' or h[1] == 'unknown' then", "if h[1] == 'completed' then"), ("local unknown = lost or (h[1] and ONCE)", "local unknown = lost or (h[1] == 'started' and ONCE)"), calls="long", first=22),
    called("call-lease", "a call with a live lease is waited for (§6)", "journal_start", ("if A[16] == '1' or live(tonumber(h[4])) then\n    name()", "if false then\n    name()"), calls="long", first=33),
    called("call-held", "the lease of a call in flight is renewed (§6)", "journal_hold", ("call('HSET', j, e .. '.l', int(MS + LEASE))", ""), calls="long", first=27),
    called("call-once", "an effect whose lease is over is not made again (§6)", "journal_start", ("local unknown = lost or (h[1] and ONCE)", "local unknown = lost"), first=24),
    called("call-fence", "an attempt that is over is permitted nothing, by its fence and by its binding (§6; each is the other's twin)", "journal_start", ("if v[2] ~= BEGUN then return reply('FENCED') end", ""), ("if place[4] ~= A[4] or place[5] ~= A[5] or place[2] ~= X or place[3] ~= EPOCH\n  or (place[1] ~= 'claimed' and place[1] ~= 'draining') then return reply('UNBOUND') end", ""), first=29),
    called("call-cancel", "a cancelled or ended turn is permitted nothing (§6)", "journal_start", ("if v[1] ~= 'running' then return reply('STATE', v[1]) end", ""), ("if v[3] == '1' then return reply('CANCEL') end", ""), first=22),
    called("call-executor", "only who makes a call, in its latest try, ends it (§6)", "journal_complete", ("if h[1] and (h[2] ~= A[3] or h[3] ~= TRY) then return reply('SUPERSEDED', h[1]) end", ""), calls="long", first=20),
    called("call-divergence", "another effect of a later attempt is turned away (§6)", "journal_start", ("local other = new and ONCE and not h[1] and not lost and unmet()", "local other = false")),
    called("call-held-back", "what is turned away waits for the earlier one's outcome (§6)", "journal_start", ("if A[16] == '1' or live(tonumber(o[3])) then return reply('HELD', entry) end", ""), first=12),
    Mutant("call-lost", "after a loss a later attempt's effect may have been done before (§7)", "redis", {"journal_start": (("(A[11] == '1' or later)", "A[11] == '1'"),)}, calls="any", first=31),
    # §7
    part("look-again", "a decision that is not fresh is stored only while it stands (§7)", "redis", "engine", SettlesBlindly, story="rolled back over a decision"),
    lua("settle", "10 s after a loss no claim of a session a caller names (§7)", "redis", "claim", SETTLE),
    lua("announce-epoch", "of announcements the highest epoch wins (§7)", "redis", "announce", " or known > EPOCH then", " then", story="cut off"),
    lua("label-known", "labels come after announcements (§7)", "redis", "label", KNOWN),
    Mutant("restore-bar", "a turn given up as lost is not restored (§7; without `restore-ended`, its twin)", "redis", {"restore": (("if call('EXISTS', 'lost:' .. R) == 1 then return reply('LOST') end", ""),)}, parts={"keeper": RestoresTheEnded}, story="given up"),
    lua("restore-fence", "restore only over a fence not above mine (§7)", "redis", "restore", "if v[1] and tonumber(v[1]) > FENCE then return reply('FENCED', v[1]) end", story="a former"),
    lua("restore-deleted", "nothing brings a deleted session back (§7)", "redis", "restore", "if have[1] == 'deleted' then", "if false then", story="deleted while"),
    part("restore-ended", "a response already stored stands (§7)", "redis", "keeper", RestoresTheEnded, story="ended"),
    part("take-ended", "a turn whose end is stored is not run again, whatever a rolled-back Redis says (§7)", "redis", "keeper", TakesTheEnded, story="shown, and"),
    part("sweep-waits", "given up after 30 s without owner or record (§7)", "redis", "sweep", SweepsAtOnce, story="an owner"),
    part("sweep-bar", "given up only if not stored, barred before the object `lost` (§7)", "redis", "sweep", SweepsWithoutBar, story="stored, and"),
)  # fmt: skip

"""Each rule of turns.md taken out on purpose. The simulation must notice every one (docs/simulation.md has the table).

A mutant is a change to a script's text, a flag of the simulated shims (the rule is theirs), or another engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage_api.ledger.records import Entry
from moorage_gateway.turns.engine import Engine
from moorage_gateway.turns.held import Held


@dataclass(frozen=True)
class Mutant:
    """`rule`: what was taken out, and its place in turns.md. `kind`: the schedules that meet it."""

    name: str
    rule: str
    kind: str
    scripts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    engine: Any = Engine


class ShowsFirst(Engine):
    """Publishes before the log acknowledged."""

    async def _append(self, held: Held, entries: list[Entry]) -> None:
        before = len(held.log)
        held.logged(entries)
        shown, held.log = held.log, held.log[:before]
        held.feed.publish()
        held.log = shown
        try:
            first = before
            word, _ = await self._insist(held, lambda: self._ledger.append(held.response, held.fence, first, entries))
            if word != "OK":
                held.interrupt(fenced=True)
                self._stay(held)
        except BaseException:
            raise


class ForgetsLog(Engine):
    """A later attempt is not compared with what was logged."""

    async def _begin(self, held: Held, route: Any, record: dict[str, Any]) -> str:
        if held.attempts:
            record["base"] = 1
        return await super()._begin(held, route, record)


MUTANTS = (
    Mutant("append-fence", "log writes carry the fence (§2 row 6)", "kills", {"append": ("if v[2] ~= FENCE then return reply('FENCED', v[2]) end", "")}),
    Mutant("append-length", "a group is appended only at its own index (§2 row 6)", "kills", {"append": ("if have >= FIRST + n then return reply('OK', have) end\nif have ~= FIRST then return reply('GAP', have) end", "")}),
    Mutant("decide-cancel", "a set cancel makes it cancelled (§2 row 7)", "kills", {"decide": ("if v[3] == '1' and OUTCOME ~= 'cancelled' then return reply('CANCEL') end", "")}),
    Mutant("begin-generation", "no attempt in a later generation (§7)", "redis", {"begin": ("if v[5] ~= GEN then return reply('GENERATION') end", "")}),
    Mutant("guard-ledger", "every write checks the ledger (§1 a)", "redis", {"*": ("if stored[1] ~= LEDGER or stored[2] ~= GEN or tonumber(call('GET', 'wit:' .. WHO) or '0') < TOLD then", "if false then")}),
    Mutant("guard-witness", "every write checks the witness (§1 a)", "redis", {"*": (" or tonumber(call('GET', 'wit:' .. WHO) or '0') < TOLD then", " then")}),
    Mutant("acquire-fence", "a takeover raises the fence (§2)", "kills", {"acquire": ("'fence', int(fence_after(v[2])), 'owner', WHO", "'owner', WHO")}),
    Mutant("accept-key", "the key is stored in the script that accepts (§2 row 2)", "kills", {"accept": ("if IDEM ~= '' then\n  local seen", "if false then\n  local seen")}),
    Mutant("accept-queue", "turns of one session run one at a time (§2)", "kills", {"accept": ("local waits = (have[2] and have[2] ~= '') or call('LLEN', q) > 0", "local waits = false")}),
    Mutant("close-queue", "close starts the next turn (§2 row 9)", "kills", {"close": ("    next_turn(v[4])\n", "    call('HSET', s, 'running', '')\n")}),
    Mutant("claim-twice", "claim pops, and a shim takes one session ever (§3, §5)", "kills", {"claim": ("local id = call('LPOP', pool)\n", "local id = call('LINDEX', pool, 0)\n")}, frozenset({"no_session"})),
    Mutant("start-kills", "start first kills the earlier attempt (§3)", "kills", {}, frozenset({"no_kill"})),
    Mutant("shim-fence", "start, attach, stop under a lower fence are refused (§3)", "kills", {"begin": ("if v[2] ~= FENCE then return reply('FENCED', v[2]) end", "")}, frozenset({"no_fence"})),
    Mutant("log-first", "log before publish (§2 row 6)", "kills", {}, frozenset(), ShowsFirst),
    Mutant("compare", "a later attempt is compared with the log (§4)", "kills", {}, frozenset(), ForgetsLog),
    Mutant("restore-bar", "a turn given up as lost is not restored (§7)", "redis", {"restore": ("if call('EXISTS', 'lost:' .. R) == 1 then return reply('LOST') end", "")}),
    Mutant("restore-fence", "restore only over a fence not above mine (§7)", "redis", {"restore": ("if v[1] and tonumber(v[1]) > FENCE then return reply('FENCED', v[1]) end", "")}),
    Mutant("ready-epoch", "ready only for the waking epoch (§5)", "kills", {"ready": ("if v[1] ~= 'waking' or v[2] ~= EPOCH then return reply('STALE') end", "")}),
    Mutant("cancel-flag", "cancel of a running turn is flagged (§2)", "kills", {"cancel": ("call('HSET', t, 'cancel', '1')", "")}),
    Mutant("close-once", "close only what was decided (§2 row 9)", "kills", {"close": ("if v[1] ~= 'closing' then\n  if v[2] then return reply('OK', v[1]) end\n  return reply('STATE', v[1])\nend", "")}),
)  # fmt: skip

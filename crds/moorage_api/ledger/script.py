"""What every script shares: who writes, whether Redis lost something, and the clock.

A script's text is preamble + body. The preamble implements turns.md §1: it refuses with `LOSS` when the ledger is not the one
the writer knows, or when this writer's witness counter is below what it was last told (Redis was rolled back), and raises
that counter. `{clock}` is Redis TIME in the product; the simulation puts its own clock there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

LEASE_MS = 10_000  # turns.md §1: leases are 10 s …
RENEW_S = 3.0  # … renewed every 3 s
SETTLE_MS = 10_000  # turns.md §7: no claim of a named session for 10 s after a loss

REDIS_CLOCK = "redis.call('TIME')"

PREAMBLE = """
local LEDGER, GEN, WHO, TOLD = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local A = {}
for i = 5, #ARGV do A[i - 4] = ARGV[i] end
local clock = {clock}
local US = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local MS = math.floor(US / 1000)
local function int(x) return string.format('%.0f', x) end
local function call(...) return redis.call(...) end
local function get(key, ...)
  local out = call('HMGET', key, ...)
  for i, v in ipairs(out) do if v == false then out[i] = nil end end
  return out
end
local stored = call('HMGET', 'ledger', 'id', 'generation')
if stored[1] ~= LEDGER or stored[2] ~= GEN or tonumber(call('GET', 'wit:' .. WHO) or '0') < TOLD then
  return {-1, 'LOSS'}
end
local WIT = call('INCR', 'wit:' .. WHO)
local function reply(...) return {WIT, ...} end
local function fence_after(old) return math.max(tonumber(old or '0') + 1, US) end
local function live(lease) return lease > MS and lease <= MS + 10000 end
"""


@dataclass(frozen=True)
class Script:
    """One guarded script. `effect`: its loss would break a promise (the **F** scripts of turns.md §1)."""

    name: str
    body: str
    effect: bool = False
    bare: bool = False  # without the preamble: only for founding a ledger

    def text(self, clock: str = REDIS_CLOCK) -> str:
        """The Lua to load; `clock` is an expression that gives {seconds, microseconds}."""
        if self.bare:
            return self.body.replace("{clock}", clock)
        return PREAMBLE.replace("{clock}", clock) + self.body


class LedgerError(Exception):
    """Root of what a ledger call can raise.

    LedgerError
      ├─ Lost         Redis lost writes (LOSS): the ledger must be founded anew
      └─ Unreachable  no answer; the script may or may not have run
    """


class Lost(LedgerError):
    """This ledger is not the one we wrote to (flushed, rolled back, or founded anew by another writer)."""


class Unreachable(LedgerError):
    """Redis gave no answer in time. Sending the same script again is safe (turns.md §1 c)."""


Landed: TypeAlias = Callable[[list[Any] | None], None]
Arguments: TypeAlias = Callable[[], Sequence[str | bytes | int] | None]


class Runner(Protocol):
    """How scripts and reads reach Redis: the gateway's pipelining client, the operator's, the simulation's.

    `run` adds the writer's identity and witness, raises `Lost` or `Unreachable`, and returns the reply after the witness.
    """

    async def run(self, script: Script, *args: str | bytes | int) -> list[Any]: ...

    async def read(self, *command: str | bytes | int) -> Any: ...


class PostingRunner(Runner, Protocol):
    """A runner that also takes what nobody waits for: an owner's events, many times a second."""

    def post(self, script: Script, args: Arguments, landed: Landed) -> None:
        """`run` without a task of its own; it may leave a little later, together with others.

        `args` is called as it leaves: what came up to then goes along. None takes the call back. Otherwise `landed` is called once, later,
        with the reply or None for whatever `run` raises. Neither may raise.
        """


# Makes a ledger where none is, or a later generation after a loss. Not guarded: it *makes* what the guard checks.
# ARGV: who, new id, known id, known generation, told witness, stored generation (from the object store), settle ms
FOUND = Script(
    "found",
    """
local WHO, NEW, KNOWN, GEN, TOLD, STORED = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = {clock}
local MS = math.floor((tonumber(clock[1]) * 1000000 + tonumber(clock[2])) / 1000)
local now = redis.call('HMGET', 'ledger', 'id', 'generation', 'since', 'settle')
local id, gen = now[1], tonumber(now[2] or '0')
local wit = tonumber(redis.call('GET', 'wit:' .. WHO) or '0')
local same = id and id == KNOWN and gen == GEN and wit >= TOLD
local newer = id and gen > GEN and gen >= STORED
if same or newer then
  redis.call('SET', 'wit:' .. WHO, string.format('%.0f', math.max(wit, TOLD)))
  return {id, gen, math.max(wit, TOLD), now[4], 0}
end
gen = math.max(gen, GEN, STORED) + 1
local settle = MS
if gen > 1 then settle = MS + tonumber(ARGV[7]) end
redis.call('HSET', 'ledger', 'id', NEW, 'generation', string.format('%.0f', gen), 'since', string.format('%.0f', MS),
  'settle', string.format('%.0f', settle))
redis.call('DEL', 'offered')
redis.call('SET', 'wit:' .. WHO, string.format('%.0f', math.max(wit, TOLD)))
return {NEW, gen, math.max(wit, TOLD), string.format('%.0f', settle), 1}
""",
    bare=True,
)

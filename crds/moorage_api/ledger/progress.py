"""How far a turn says that it is: the field `progress` of its hash, gone with it. Layer: the floor; one script and its door."""

from __future__ import annotations

import json
from dataclasses import dataclass

from moorage_api.ledger import keys
from moorage_api.ledger.journal import Binding
from moorage_api.ledger.records import text
from moorage_api.ledger.script import Runner, Script
from moorage_api.wire.calls import Progress

# Only the attempt that is the turn's newest may say it, and its last word may come when the turn has just ended.
# A: sandbox, S, epoch, tenant, agent, R, begun, progress (JSON)
TELL = Script(
    "progress_tell",
    """
local place = get('s:' .. A[2], 'sandbox', 'epoch', 'tenant', 'agent')
if place[1] ~= A[1] or place[2] ~= A[3] or place[3] ~= A[4] or place[4] ~= A[5] then return reply('UNBOUND') end
local t = 't:' .. A[6]
local v = get(t, 'session', 'begun')
if v[1] ~= A[2] or v[2] ~= A[7] then return reply('FENCED') end
call('HSET', t, 'progress', A[8], 'progressed', int(MS))
return reply('OK')
""",
)


@dataclass(frozen=True)
class Told:
    """What was said last, and when (ms since 1970)."""

    text: str
    fraction: float | None
    at: int


class ProgressLedger:
    """Raises LedgerError."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def tell(self, by: Binding, response: str, begun: int, said: Progress) -> str:
        """Keeps it in place of what was said before. OK, FENCED or UNBOUND."""
        where = (by.sandbox, by.session, by.epoch, by.tenant, by.agent)
        out = await self._runner.run(TELL, *where, response, begun, said.model_dump_json())
        return text(out[0])

    async def of(self, response: str) -> Told | None:
        """What a turn said last; None where it said nothing, or ended long ago."""
        said, at = await self._runner.read("HMGET", keys.turn(response), "progress", "progressed")
        return None if said is None else Told(**json.loads(said), at=int(at))

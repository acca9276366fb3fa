"""Which session a tool server keeps for an agent's session: one, whichever gateway asks it. Layer: the floor.

    hash `mcp:PLACE`    version (of MCP), id (the server's), used (Redis ms)

PLACE is a digest of (upstream, agent's session). Nothing here has to last: where it is lost, the server is begun with anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moorage_api.ledger.records import text
from moorage_api.ledger.script import Runner, Script

KEPT_MS = 20 * 60 * 1000
"""After its last use: longer than until its goodbye."""

# Who comes first with a session has it for all. A: place, version, the server's id ('' = one is only looked for), ms
USE = Script(
    "tool_sessions_use",
    """
local key = 'mcp:' .. A[1]
local held = get(key, 'version', 'id')
if not held[2] then
  if A[3] == '' then return reply('', '') end
  held = {A[2], A[3]}
  call('HSET', key, 'version', A[2], 'id', A[3])
end
call('HSET', key, 'used', int(MS))
call('PEXPIRE', key, A[4])
return reply(held[1], held[2])
""",
)

# A: place, the server's id, for how long nobody may have used it (ms; 0: whoever did)
END = Script(
    "tool_sessions_end",
    """
local key = 'mcp:' .. A[1]
local held = get(key, 'id', 'used')
if held[1] ~= A[2] or MS - tonumber(held[2]) < tonumber(A[3]) then return reply('STAYS') end
call('DEL', key)
return reply('OK')
""",
)


@dataclass(frozen=True)
class ServerSession:
    """One of them."""

    version: str
    id: str = field(repr=False)


class ToolSessionLedger:
    """Raises LedgerError."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def use(self, place: str, begun: ServerSession | None = None) -> ServerSession | None:
        """The session there, which counts as used; where there is none, `begun` is it from now on."""
        version, id = (begun.version, begun.id) if begun is not None else ("", "")
        out = [text(each) for each in await self._runner.run(USE, place, version, id, KEPT_MS)]
        return ServerSession(out[0], out[1]) if out[1] else None

    async def end(self, place: str, id: str, idle_ms: int = 0) -> bool:
        """It is nobody's any more; False where it is another one, is gone, or was used within `idle_ms`."""
        return text((await self._runner.run(END, place, id, idle_ms))[0]) == "OK"

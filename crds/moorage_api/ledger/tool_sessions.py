"""Which session a tool server keeps for an agent's session: one, whichever gateway asks it. Layer: the floor.

    hash `mcp:PLACE`    version (of MCP), id (the server's), title (what it called itself), used (Redis ms)

PLACE is a digest of (upstream, agent's session). Nothing here has to last: where it is lost, the server is begun with anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moorage_api.ledger.records import text
from moorage_api.ledger.script import Runner, Script

KEPT_MS = 20 * 60 * 1000
"""After its last use: longer than until its goodbye."""

# Who comes first with a session has it for all. A: place, version, the server's id ('' = one is only looked for), title, ms
USE = Script(
    "tool_sessions_use",
    """
local key = 'mcp:' .. A[1]
local held = get(key, 'version', 'id', 'title')
if not held[2] then
  if A[3] == '' then return reply('', '', '') end
  held = {A[2], A[3], A[4]}
  call('HSET', key, 'version', A[2], 'id', A[3], 'title', A[4])
end
call('HSET', key, 'used', int(MS))
call('PEXPIRE', key, A[5])
return reply(held[1], held[2], held[3] or '')
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
    """One of them. `title`: who goes on in it does not greet the server, and so does not hear what it calls itself."""

    version: str
    id: str = field(repr=False)
    title: str = ""


class ToolSessionLedger:
    """Raises LedgerError."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def use(self, place: str, begun: ServerSession | None = None) -> ServerSession | None:
        """The session there, which counts as used; where there is none, `begun` is it from now on."""
        said = begun or ServerSession("", "")
        out = await self._runner.run(USE, place, said.version, said.id, said.title, KEPT_MS)
        found = ServerSession(*map(text, out))
        return found if found.id else None

    async def end(self, place: str, id: str, idle_ms: int = 0) -> bool:
        """It is nobody's any more; False where it is another one, is gone, or was used within `idle_ms`."""
        return text((await self._runner.run(END, place, id, idle_ms))[0]) == "OK"

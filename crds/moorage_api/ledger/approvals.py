"""Calls of tools that a person must approve: asked for by a gateway, answered by a caller, let through once. Layer: the floor.

    hash `ap:SESSION`   id → JSON: state, print (what makes it the same call), call (id of the one that was let through), response (in whose
                        output it is asked), box, tool, args, reason, at, till (ms), gen

pending → approved | refused, approved → used. One that is past `till` counts for nothing, nor does one from before a loss of Redis: what
became of it since, nobody knows, so a person is asked anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from moorage_api.ledger import keys
from moorage_api.ledger.records import fields, text
from moorage_api.ledger.script import Runner, Script

MOST_PENDING = 16
"""Of one session."""
MOST_KEPT = 64
"""Of one session, with those that were answered."""
MOST_ARGUMENTS = 64 * 1024
"""Bytes of a call that a person is asked about: it is shown whole."""
PENDING_MS = 24 * 3600 * 1000
"""How long a request waits for its answer."""
ANSWERED_MS = 3600 * 1000
"""How long an answer counts."""

# A: session, print, id of the call, response, box, tool, arguments, id for a new request, most pending, most kept, ms it waits
LOOK = Script(
    "approvals_look",
    """
local key, PRINT, CALL = 'ap:' .. A[1], A[2], A[3]
local all, stale, kept, pending = call('HGETALL', key), {}, 0, 0
local ids, by = {}, {}
for i = 1, #all, 2 do
  local a = cjson.decode(all[i + 1])
  if a.till <= MS or a.gen ~= GEN then
    stale[#stale + 1] = all[i]
  else
    kept = kept + 1
    if a.state == 'pending' then pending = pending + 1 end
    if a.print == PRINT and (a.state ~= 'used' or a.call == CALL) then ids[a.state], by[a.state] = all[i], a end
  end
end
if by.used then return reply('APPROVED', ids.used) end
if by.approved then
  local a = by.approved
  a.state, a.call, a.args = 'used', CALL, ''
  call('HSET', key, ids.approved, cjson.encode(a))
  return reply('APPROVED', ids.approved)
end
if by.pending then
  if by.pending.response ~= A[4] then
    by.pending.response = A[4]
    call('HSET', key, ids.pending, cjson.encode(by.pending))
  end
  return reply('PENDING', ids.pending)
end
if by.refused then return reply('REFUSED', ids.refused, by.refused.reason) end
if pending >= tonumber(A[9]) or kept >= tonumber(A[10]) then return reply('FULL') end
for _, id in ipairs(stale) do call('HDEL', key, id) end
local a = {state = 'pending', print = PRINT, call = '', response = A[4], box = A[5], tool = A[6], args = A[7], reason = '', at = MS,
  till = MS + tonumber(A[11]), gen = GEN}
call('HSET', key, A[8], cjson.encode(a))
call('PEXPIRE', key, A[11])
return reply('PENDING', A[8])
""",
    effect=True,
)

# A: session, id, approve (1 | 0), reason, ms the answer counts
ANSWER = Script(
    "approvals_answer",
    """
local key, id, YES = 'ap:' .. A[1], A[2], A[3] == '1'
local found = call('HGET', key, id)
if not found then return reply('NONE') end
local a = cjson.decode(found)
if a.till <= MS or a.gen ~= GEN then return reply('NONE') end
if a.state == 'pending' then
  a.state, a.reason, a.till = YES and 'approved' or 'refused', A[4], MS + tonumber(A[5])
  call('HSET', key, id, cjson.encode(a))
elseif YES ~= (a.state ~= 'refused') then
  return reply('ANSWERED')
end
return reply('OK', a.box, a.tool, a.args)
""",
    effect=True,
)


@dataclass(frozen=True)
class Request:
    """A call that is to be approved. `print_`: what makes it the same call; `arguments`: JSON."""

    print_: str
    call: str
    response: str
    box: str
    tool: str
    arguments: str


class ApprovalLedger:
    """By session key. Raises LedgerError."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def look(self, session: str, request: Request, new: str) -> tuple[str, str, str]:
        """(word, id, reason): APPROVED, for this call and no other; REFUSED; PENDING, under `new` where nobody had asked; FULL."""
        r = request
        out = await self._runner.run(
            LOOK, session, r.print_, r.call, r.response, r.box, r.tool, r.arguments, new, MOST_PENDING, MOST_KEPT, PENDING_MS
        )  # fmt: skip
        word, found, reason = [*map(text, out), "", ""][:3]
        return word, found, reason

    async def answer(self, session: str, id: str, *, approve: bool, reason: str) -> tuple[str, str, str, str]:
        """(word, box, tool, arguments): OK; NONE, it waits no more; ANSWERED, otherwise. The same answer again is OK."""
        out = await self._runner.run(ANSWER, session, id, int(approve), reason, ANSWERED_MS)
        word, box, tool, arguments = [*map(text, out), "", "", ""][:4]
        return word, box, tool, arguments

    async def asked(self, session: str, response: str) -> list[tuple[str, dict[str, Any]]]:
        """What waits for an answer and was asked for last in that turn, by id; the oldest first."""
        found = fields(await self._runner.read("HGETALL", keys.approvals(session)))
        every = ((id, json.loads(body)) for id, body in found.items())
        waiting = [(id, a) for id, a in every if a["state"] == "pending" and a["response"] == response]
        return sorted(waiting, key=lambda each: (each[1]["at"], each[0]))

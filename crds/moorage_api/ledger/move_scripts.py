"""The scripts of a session whose sandbox, or whose volume, is out of reach for too long (turns.md §5; docs/decisions/0043).

Nobody has proved the sandbox's death, so its volume is never used again: the session gets another epoch, which the sandbox's own cannot
reach, and begins from its newest checkpoint. Fields of `s:KEY` besides `session_scripts`': out (why the provider gave its volume up),
stuck (why it waits for it nevertheless). Hash `left`: volume → session that has left it.
"""

from __future__ import annotations

from moorage_api.ledger.script import Script

HEARD_MS = 30_000  # a bound shim announces itself every 10 s (turns.md §3)

# The provider cannot reach a sandbox, or a volume, any more. One that waits in a pool is nobody's from here. A session's gateway decides
# whether it moves. One whose shim is heard of, and whose end nobody asked for, works on: a node may be cut off from its API server alone.
# A: sandbox ("": there is none), S (where there is none), volume, reason
OUT_OF_REACH = Script(
    "out_of_reach",
    """
local ID, S, VOLUME = A[1], A[2], A[3]
if ID ~= '' then
  local x = get('x:' .. ID, 'session', 'tenant', 'agent', 'revision')
  if not x[2] then return reply('UNKNOWN') end
  S = x[1] or ''
  if S == '' then
    call('LREM', 'pool:' .. x[2] .. '/' .. x[3] .. '/' .. x[4], 0, ID)
    call('DEL', 'x:' .. ID)
    return reply('FREE')
  end
end
local s = 's:' .. S
local v = get(s, 'state', 'volume', 'out', 'bound', 'announced')
if v[2] ~= VOLUME or (v[1] ~= 'claimed' and v[1] ~= 'draining' and v[1] ~= 'waking') then return reply('STALE') end
if ID == '' and v[1] ~= 'waking' then return reply('STALE') end  -- it got one since, there or elsewhere
if v[3] and v[3] ~= '' then return reply('OK') end
local heard = (v[4] or '') ~= '' and MS - tonumber(v[5] or '0') < {heard}
if ID ~= '' and heard and call('HEXISTS', 'doomed', ID) == 0 then return reply('HEARD') end
call('HSET', s, 'out', A[4])
call('ZADD', 'sessions:due', int(MS), S)
return reply('OK')
""".replace("{heard}", str(HEARD_MS)),
)

# Its newest checkpoint was read whole (RESTORE 1), or it has no files to lose (0): another epoch, and no volume. A: S, epoch, volume, RESTORE
MOVE = Script(
    "move",
    """
local S, VOLUME = A[1], A[3]
local s = 's:' .. S
local v = get(s, 'state', 'epoch', 'volume', 'sandbox', 'out', 'restore')
if call('HGET', 'left', VOLUME) == S and v[3] ~= VOLUME then return reply('OK') end
if v[2] ~= A[2] or v[3] ~= VOLUME or (v[5] or '') == '' then return reply('STALE') end
if v[1] ~= 'claimed' and v[1] ~= 'draining' and v[1] ~= 'waking' then return reply('STALE') end
local kept = (A[4] == '1' or v[6] == '1') and '1' or ''
if v[4] and v[4] ~= '' and call('EXISTS', 'x:' .. v[4]) == 1 then
  call('HSET', 'x:' .. v[4], 'session', '')
  call('HSETNX', 'doomed', v[4], v[5])
end
call('HSET', s, 'state', kept == '1' and 'archived' or 'new', 'restore', kept, 'epoch', int(fence_after(v[2])), 'volume', '', 'kept', '',
  'bound', '', 'saved', '', 'sandbox', '', 'endpoint', '', 'secret', '', 'out', '', 'stuck', '', 'reason', v[5])
call('HSET', 'left', VOLUME, S)
call('ZREM', 'waking', S)
call('ZADD', 'sessions:due', int(MS), S)
call('PUBLISH', 'hint:provider', 'left')
call('PUBLISH', 'hint:routes', S)
return reply('OK')
""",
    effect=True,
)

# It has files, and no checkpoint that can be used: it waits for its volume, and whoever calls it is told why. A: S, epoch, volume, why
STAY = Script(
    "stay",
    """
local s = 's:' .. A[1]
local v = get(s, 'epoch', 'volume', 'out')
if v[1] ~= A[2] or v[2] ~= A[3] or (v[3] or '') == '' then return reply('STALE') end
call('HSET', s, 'stuck', A[4])
call('PUBLISH', 'hint:routes', A[1])
return reply('OK')
""",
)

# The provider has given up that volume: it is to go as soon as nothing holds it. A: volume
ABANDONED = Script(
    "abandoned",
    """
call('HDEL', 'left', A[1])
return reply('OK')
""",
)

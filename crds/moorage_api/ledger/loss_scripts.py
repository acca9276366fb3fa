"""The scripts of a ledger that Redis has lost, or brought back old: who knows of sessions and turns writes them anew (turns.md §7).

The hashes are those of `session_scripts` and `turn_scripts`. Each script checks everything before its first write, and sent again writes
nothing.
"""

from __future__ import annotations

from moorage_api.ledger.script import Script
from moorage_api.ledger.session_scripts import ROUTE
from moorage_api.ledger.turn_scripts import NEXT

# A bound shim announces itself: routes return from this after a loss; the highest epoch wins (turns.md §7).
# A: S, epoch, descriptor JSON, session JSON. Answers the epoch known: above the shim's own, it stops everything.
ANNOUNCE = Script(
    "announce",
    ROUTE
    + """
local S, EPOCH, x, who = A[1], tonumber(A[2]), cjson.decode(A[3]), cjson.decode(A[4])
local s = 's:' .. S
-- A sandbox is bound once: one that was given to another session gets no further one, whatever it says of itself.
local given = call('HGET', 'x:' .. x.sandbox, 'session')
if given and given ~= '' and given ~= S then return reply('STOP', int(EPOCH + 1)) end
local v = get(s, 'state', 'epoch', 'sandbox', 'bound')
local known = tonumber(v[2] or '0')
if v[1] == 'deleted' or known > EPOCH then return reply('STOP', int(math.max(known, EPOCH + 1))) end
if v[1] and known == EPOCH then
  if v[3] == x.sandbox and (v[1] == 'claimed' or v[1] == 'draining') then
    call('HSET', s, 'announced', int(MS))
    if not v[4] or v[4] == '' then call('HSET', s, 'bound', int(MS), 'restore', '') end
    return reply('OK', A[2])
  end
  return reply('STOP', int(EPOCH + 1))
end
call('HSET', 'x:' .. x.sandbox, 'sandbox', x.sandbox, 'tenant', x.tenant, 'agent', x.agent, 'revision', x.revision, 'endpoint',
  x.endpoint, 'secret', x.secret, 'volume', x.volume, 'pids', x.pids, 'generation', GEN, 'state', 'claimed', 'session', S)
call('SADD', 'offered', x.sandbox)
call('HSET', s, 'tenant', who.tenant, 'agent', who.agent, 'user', who.user, 'session', who.session, 'partition', who.partition)
if not v[1] then call('HSET', s, 'running', '', 'created', int(MS)) end
route(s, x)
call('HSET', s, 'state', 'claimed', 'epoch', A[2], 'bound', int(MS), 'active', int(MS), 'announced', int(MS), 'reason', '',
  'restore', '', 'out', '', 'stuck', '')
call('ZREM', 'waking', S)
call('ZADD', 'sessions:' .. who.tenant, int(MS), S)
call('ZADD', 'sessions:due', int(MS), S)
call('PUBLISH', 'hint:routes', S)
return reply('RESTORED', A[2])
""",
    effect=True,
)

# After a loss the provider gives back what its volumes are labelled with: a workspace without a sandbox.
# A: S, epoch, volume, revision, session JSON
LABEL = Script(
    "label",
    """
local S, EPOCH, who = A[1], tonumber(A[2]), cjson.decode(A[5])
local s = 's:' .. S
local v = get(s, 'state', 'epoch', 'volume', 'bound')
if v[1] == 'deleted' then return reply('DELETED') end
if v[1] == 'hibernated' and v[2] == A[2] and v[3] == A[3] then return reply('OK') end
if v[1] == 'archived' and tonumber(v[2]) >= EPOCH then return reply('KNOWN', v[1]) end  -- this volume is about to go
local older = v[1] == 'hibernated' and tonumber(v[2]) < EPOCH  -- the highest epoch wins among labels too
if v[1] and not older and (tonumber(v[2]) > EPOCH or (v[3] and v[3] ~= '')) then return reply('KNOWN', v[1]) end
call('HSET', s, 'state', 'hibernated', 'epoch', A[2], 'volume', A[3], 'revision', A[4], 'tenant', who.tenant, 'agent', who.agent,
  'user', who.user, 'session', who.session, 'partition', who.partition, 'bound', int(MS), 'sandbox', '', 'saved', '')
if not v[1] then call('HSET', s, 'running', '', 'created', int(MS), 'active', int(MS)) end
call('ZADD', 'sessions:' .. who.tenant, int(MS), S)
call('ZADD', 'sessions:due', int(MS), S)
call('PUBLISH', 'hint:routes', S)
return reply('OK')
""",
)

# After a loss an owner writes its turn anew from memory: absent, or fence not above mine (turns.md §7).
# A: R, fence, lease, S, session JSON, turn fields JSON, number of log entries, entry…, attempt record…
RESTORE = Script(
    "restore",
    """
local R, FENCE, LEASE, S, N = A[1], tonumber(A[2]), tonumber(A[3]), A[4], tonumber(A[7])
local t, e, a, s = 't:' .. R, 'e:' .. R, 'a:' .. R, 's:' .. S
local v = get(t, 'fence', 'owner', 'state')
if call('EXISTS', 'lost:' .. R) == 1 then return reply('LOST') end
if v[1] and tonumber(v[1]) > FENCE then return reply('FENCED', v[1]) end
if v[3] and v[3] ~= 'running' and v[3] ~= 'queued' and v[3] ~= 'closing' then return reply('STATE', v[3]) end
local who, fields = cjson.decode(A[5]), cjson.decode(A[6])
call('DEL', t, e, a)
for k, x in pairs(fields) do call('HSET', t, k, x) end
call('HSET', t, 'fence', A[2], 'owner', WHO, 'lease', int(MS + LEASE), 'session', S)
for i = 8, 7 + N do call('RPUSH', e, A[i]) end
for i = 8 + N, #A do call('RPUSH', a, A[i]) end
call('ZADD', 'due', int(MS + LEASE), R)
local have = get(s, 'state', 'epoch')
if have[1] == 'deleted' then
  -- Deleted while nobody knew of this turn: it ends as every turn of a deleted session, and does not bring that back.
  call('HSET', t, 'cancel', '1')
  call('ZADD', 'due', int(MS), R)
  if who.sandbox and who.sandbox ~= '' then call('HSET', 'doomed', who.sandbox, 'session deleted') end
  call('PUBLISH', 'hint:turns', R)
  return reply('OK')
end
if not have[1] or tonumber(have[2] or '0') < tonumber(who.epoch) then
  for k, x in pairs(who) do call('HSET', s, k, x) end
  call('HSET', s, 'out', '', 'stuck', '')  -- said of the volume that a lower epoch had
  if who.sandbox and who.sandbox ~= '' then  -- without its descriptor nobody could prove its death
    call('HSET', 'x:' .. who.sandbox, 'sandbox', who.sandbox, 'tenant', who.tenant, 'agent', who.agent, 'revision', who.revision,
      'endpoint', who.endpoint, 'secret', who.secret, 'volume', who.volume, 'pids', '[]', 'generation', GEN, 'state', 'claimed',
      'session', S)
    call('SADD', 'offered', who.sandbox)
  end
  call('ZADD', 'sessions:' .. who.tenant, int(MS), S)
  call('ZADD', 'sessions:due', int(MS), S)
end
call('LREM', 'q:' .. S, 0, R)
-- A turn accepted before this one came back gives way while it has begun nothing; else both end, but only one is the session's.
local now = call('HGET', s, 'running')
local other = now and now ~= '' and now ~= R and get('t:' .. now, 'state', 'begun', 'fence', 'deadline') or {}
if other[1] == 'running' and other[2] == '0' then
  call('HSET', 't:' .. now, 'state', 'queued', 'owner', '', 'lease', '0', 'fence', int(fence_after(other[3])))
  call('LPUSH', 'q:' .. S, now)
  call('ZADD', 'due', other[4], now)
  other = {}
end
if other[1] ~= 'running' and other[1] ~= 'closing' then call('HSET', s, 'running', R) end
return reply('OK')
""",
    effect=True,
)

# Bars `restore` of a turn that was given up as lost (its object `lost` is written first). A: R, ttl s
BAR = Script(
    "bar",
    """
if call('EXISTS', 't:' .. A[1]) == 1 then return reply('PRESENT') end
call('SET', 'lost:' .. A[1], '1', 'EX', A[2])
return reply('OK')
""",
)

# A turn that Redis brought back although its end is stored: its keys go, the session's next turn runs. A: R, fence
DISCARD = Script(
    "discard",
    NEXT
    + """
local R = A[1]
local v = get('t:' .. R, 'state', 'fence', 'session')
if not v[1] then return reply('OK') end
if v[2] ~= A[2] then return reply('FENCED') end
call('DEL', 't:' .. R, 'e:' .. R, 'a:' .. R, 'j:' .. R, 'jl:' .. R, 'jn:' .. R)
call('ZREM', 'due', R)
local s, q = 's:' .. v[3], 'q:' .. v[3]
call('LREM', q, 0, R)
if call('HGET', s, 'running') == R then
  outlive(s, v[2])
  next_turn(v[3])
end
return reply('OK')
""",
)

# Asks for nothing: an idle process learns of a loss by it. No args.
PROBE = Script("probe", "return reply('OK')")

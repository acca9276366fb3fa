"""The scripts of a session and its sandboxes (turns.md §5): offer, claim, wake, ready, gone, drain, archive, delete.

Hash `s:KEY`: tenant, agent, user, session, partition, state, epoch, sandbox, endpoint, secret, volume, revision, running, active,
created, bound, kept (1: the volume was its workspace before this binding), restore (1: its files are in a checkpoint, if anywhere, and on no volume),
saved (the checkpoint that was made when its last sandbox had ended everything), fence (highest of its turns), reason, announced (ms),
out and stuck (`move_scripts`).
States: new → claimed → draining → hibernated → waking → claimed; archived; deleted.
Hash `x:ID`: sandbox, tenant, agent, revision, endpoint, secret, volume, pids, generation, state (ready, claimed), session.
"""

from __future__ import annotations

from moorage_api.ledger.script import Script

ROUTE = """
local function route(s, x)
  call('HSET', s, 'sandbox', x.sandbox, 'endpoint', x.endpoint, 'secret', x.secret, 'volume', x.volume, 'revision', x.revision)
end
local function fields(key, names)
  local v, out = call('HMGET', key, unpack(names)), {}
  for i, n in ipairs(names) do out[n] = v[i] or '' end
  return out
end
local function answer(word, s)
  local v = get(s, 'state', 'epoch', 'sandbox', 'endpoint', 'secret', 'bound', 'reason', 'volume', 'kept', 'restore', 'stuck')
  for i = 1, 11 do if not v[i] then v[i] = '' end end
  if v[11] ~= '' then v[7] = v[11] end
  return reply(word, v[1], v[2] == '' and '0' or v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10])
end
local function fileless(s)
  return call('HGET', s, 'restore') == '1' and 'archived' or 'new'
end
"""

# A ready sandbox enters its pool, once in a ledger. A: descriptor JSON
OFFER = Script(
    "offer",
    """
local x = cjson.decode(A[1])
if call('SADD', 'offered', x.sandbox) == 0 then return reply('SEEN') end
call('HSET', 'x:' .. x.sandbox, 'sandbox', x.sandbox, 'tenant', x.tenant, 'agent', x.agent, 'revision', x.revision, 'endpoint',
  x.endpoint, 'secret', x.secret, 'volume', x.volume, 'pids', x.pids, 'generation', GEN, 'state', 'ready', 'session', '')
call('RPUSH', 'pool:' .. x.tenant .. '/' .. x.agent .. '/' .. x.revision, x.sandbox)
return reply('OK')
""",
)

# The one way to a sandbox: the live route, else a ready one from the pool, else the provider is asked (turns.md §5).
# `NAMED`: a caller named this session, so after a loss its own sandbox may still announce itself (turns.md §7).
# A: S, revision, named (0/1)
CLAIM = Script(
    "claim",
    ROUTE
    + """
local S, REVISION, NAMED = A[1], A[2], A[3]
local s = 's:' .. S
local v = get(s, 'state', 'epoch', 'tenant', 'agent', 'volume')
if not v[1] then return reply('ABSENT') end
if v[1] == 'claimed' then
  local at = get(s, 'sandbox', 'bound', 'kept')
  if call('HGET', 'x:' .. (at[1] or ''), 'session') == S then
    -- After a roll-back this may be a binding that was given up since: until it is bound again, the one that lives may say so.
    local unbound = (not at[2] or at[2] == '') and NAMED == '1'
    if unbound and live(tonumber(call('HGET', 'ledger', 'settle') or '0')) then return answer('SETTLING', s) end
    return answer('ROUTE', s)
  end
  -- Its sandbox is proved dead, or became another session's while Redis was an old one: it never was, or is no longer, this one's.
  local has_files = (at[2] and at[2] ~= '') or at[3] == '1'
  v[1] = has_files and 'hibernated' or fileless(s)
  if not has_files then v[5] = '' end
  call('HSET', s, 'state', v[1], 'volume', v[5] or '', 'sandbox', '', 'endpoint', '', 'secret', '', 'out', '', 'stuck', '')
end
if v[1] == 'deleted' or v[1] == 'draining' or v[1] == 'waking' then return answer(string.upper(v[1]), s) end
if NAMED == '1' and live(tonumber(call('HGET', 'ledger', 'settle') or '0')) then return answer('SETTLING', s) end
local epoch = int(fence_after(v[2]))
if (v[1] == 'new' or v[1] == 'archived') and (v[5] or '') == '' then
  local pool = 'pool:' .. v[3] .. '/' .. v[4] .. '/' .. REVISION
  local id = call('LPOP', pool)
  while id do
    local x = fields('x:' .. id, {'sandbox', 'endpoint', 'secret', 'volume', 'revision', 'state', 'generation'})
    if x.state == 'ready' and x.generation == GEN then
      call('HSET', 'x:' .. id, 'state', 'claimed', 'session', S)
      route(s, x)
      call('HSET', s, 'state', 'claimed', 'epoch', epoch, 'bound', '', 'reason', '', 'claimed', int(MS), 'announced', int(MS),
        'kept', '', 'saved', '', 'out', '', 'stuck', '')
      call('XADD', 'claims', 'MAXLEN', '~', '10000', '*', 'session', S, 'sandbox', id, 'epoch', epoch)
      call('ZADD', 'sessions:due', int(MS), S)
      call('PUBLISH', 'hint:provider', 'claim')
      call('PUBLISH', 'hint:routes', S)
      return answer('CLAIMED', s)
    end
    id = call('LPOP', pool)
  end
end
call('HSET', s, 'state', 'waking', 'epoch', epoch, 'revision', REVISION, 'bound', '', 'saved', '', 'out', '', 'stuck', '',
  'asked', int(MS))
call('ZADD', 'waking', int(MS), S)
call('PUBLISH', 'hint:provider', 'waking')
return answer('WAKING', s)
""",
    effect=True,
)

# The provider's answer to `waking`; stale: it destroys what it made. A: S, epoch, descriptor JSON
READY = Script(
    "ready",
    ROUTE
    + """
local S, EPOCH, x = A[1], A[2], cjson.decode(A[3])
local s = 's:' .. S
local v = get(s, 'state', 'epoch', 'sandbox', 'volume')
if v[1] == 'claimed' and v[2] == EPOCH and v[3] == x.sandbox then return reply('OK') end
if v[1] ~= 'waking' or v[2] ~= EPOCH then return reply('STALE') end
call('HSET', 'x:' .. x.sandbox, 'sandbox', x.sandbox, 'tenant', x.tenant, 'agent', x.agent, 'revision', x.revision, 'endpoint',
  x.endpoint, 'secret', x.secret, 'volume', x.volume, 'pids', x.pids, 'generation', GEN, 'state', 'claimed', 'session', S)
call('SADD', 'offered', x.sandbox)
route(s, x)
-- The volume it had before is its workspace, bound again or not: `gone` must not give it away. A fresh one is not: what it had is lost, and
-- must come from a checkpoint.
local had = (v[4] or '') ~= ''
call('HSET', s, 'state', 'claimed', 'reason', '', 'out', '', 'stuck', '', 'claimed', int(MS), 'announced', int(MS), 'kept',
  had and v[4] == x.volume and '1' or '')
if had and v[4] ~= x.volume then call('HSET', s, 'restore', '1') end
call('ZREM', 'waking', S)
call('ZADD', 'sessions:due', int(MS), S)
call('PUBLISH', 'hint:routes', S)
return reply('OK')
""",
    effect=True,
)

# The provider could not make it: the reason reaches whoever waits; the demand stays. A: S, epoch, reason
UNREADY = Script(
    "unready",
    """
local s = 's:' .. A[1]
local v = get(s, 'state', 'epoch')
if v[1] ~= 'waking' or v[2] ~= A[2] then return reply('STALE') end
call('HSET', s, 'reason', A[3])
call('PUBLISH', 'hint:routes', A[1])
return reply('OK')
""",
)

# The shim took the binding, and has the session's files: from here the volume is this session's. A: S, epoch
BOUND = Script(
    "bound",
    """
local s = 's:' .. A[1]
local v = get(s, 'state', 'epoch', 'bound')
if v[1] ~= 'claimed' or v[2] ~= A[2] then return reply('STALE') end
if not v[3] or v[3] == '' then call('HSET', s, 'bound', int(MS), 'restore', '') end
return reply('OK')
""",
)

# A sandbox is thought dead or is no longer wanted: the provider ends it and proves it with `gone`. The first reason stands.
# A: sandbox, reason
DOOM = Script(
    "doom",
    """
call('HSETNX', 'doomed', A[1], A[2])
call('PUBLISH', 'hint:provider', 'doomed')
return reply('OK')
""",
)

# Every process of a sandbox was seen dead. Its session keeps the volume, if it was ever bound. A: sandbox, reason
GONE = Script(
    "gone",
    ROUTE
    + """
local x = 'x:' .. A[1]
local v = get(x, 'session', 'tenant', 'agent', 'revision')
call('HDEL', 'doomed', A[1])
if v[2] then call('LREM', 'pool:' .. v[2] .. '/' .. v[3] .. '/' .. v[4], 0, A[1]) end
call('DEL', x)
local S = v[1] or ''
if S == '' then return reply('OK', '', '') end
local s = 's:' .. S
local h = get(s, 'state', 'sandbox', 'bound', 'kept')
if h[2] ~= A[1] or (h[1] ~= 'claimed' and h[1] ~= 'draining') then return reply('OK', S, '') end
local state = 'hibernated'
if (not h[3] or h[3] == '') and h[4] ~= '1' then
  state = fileless(s)
  call('HSET', s, 'volume', '')
end
call('HSET', s, 'state', state, 'sandbox', '', 'endpoint', '', 'secret', '', 'reason', A[2], 'out', '', 'stuck', '')
call('ZADD', 'sessions:due', int(MS), S)
call('PUBLISH', 'hint:routes', S)
return reply('OK', S, state)
""",
    effect=True,
)

# No turn running or waiting, idle since (ms, 0: whatever): the shim may be asked. A: S, epoch, idle before
DRAIN = Script(
    "drain",
    """
local S, IDLE = A[1], tonumber(A[3])
local s = 's:' .. S
local v = get(s, 'state', 'epoch', 'running', 'active')
if v[2] ~= A[2] then return reply('STALE') end
if v[1] == 'draining' then return reply('OK') end
if v[1] ~= 'claimed' then return reply('STALE') end
if (v[3] and v[3] ~= '') or call('LLEN', 'q:' .. S) > 0 then return reply('BUSY') end
if IDLE > 0 and tonumber(v[4] or '0') > IDLE then return reply('BUSY') end
call('HSET', s, 'state', 'draining')
call('PUBLISH', 'hint:routes', S)
return reply('OK')
""",
    effect=True,
)

# The shim said busy: back to claimed. A: S, epoch
UNDRAIN = Script(
    "undrain",
    """
local s = 's:' .. A[1]
local v = get(s, 'state', 'epoch')
if v[1] == 'claimed' and v[2] == A[2] then return reply('OK') end
if v[1] ~= 'draining' or v[2] ~= A[2] then return reply('STALE') end
call('HSET', s, 'state', 'claimed', 'active', int(MS))
call('PUBLISH', 'hint:routes', A[1])
return reply('OK')
""",
)

# The shim is quiet: workspace kept, sandbox to be ended. A: S, epoch, reason, checkpoint made of it ("" for none)
HIBERNATED = Script(
    "hibernated",
    """
local s = 's:' .. A[1]
local v = get(s, 'state', 'epoch', 'sandbox')
if v[1] == 'hibernated' and v[2] == A[2] then return reply('OK') end
if v[1] ~= 'draining' or v[2] ~= A[2] then return reply('STALE') end
call('HSET', s, 'state', 'hibernated', 'sandbox', '', 'endpoint', '', 'secret', '', 'reason', A[3], 'saved', A[4], 'out', '',
  'stuck', '')
call('HSET', 'x:' .. v[3], 'session', '')
call('HSET', 'doomed', v[3], A[3])
call('PUBLISH', 'hint:provider', 'doomed')
call('PUBLISH', 'hint:routes', A[1])
return reply('OK')
""",
    effect=True,
)

# The checkpoint that has all its files was verified: the volume goes, the next call begins from it. A: S, epoch, checkpoint
ARCHIVE = Script(
    "archive",
    """
local S = A[1]
local s = 's:' .. S
local v = get(s, 'state', 'epoch', 'running', 'volume', 'saved')
if v[1] == 'archived' and v[2] == A[2] then return reply('OK') end
if v[1] ~= 'hibernated' or v[2] ~= A[2] or A[3] == '' or v[5] ~= A[3] then return reply('STALE') end
if (v[3] and v[3] ~= '') or call('LLEN', 'q:' .. S) > 0 then return reply('BUSY') end
if v[4] and v[4] ~= '' then call('HSET', 'archived', S, v[4]) end
call('HSET', s, 'state', 'archived', 'volume', '', 'kept', '', 'bound', '', 'restore', '1')
call('PUBLISH', 'hint:provider', 'archived')
call('PUBLISH', 'hint:routes', S)
return reply('OK')
""",
    effect=True,
)

# The provider removed the volume of an archived session. A: S, volume
UNKEPT = Script(
    "unkept",
    """
if call('HGET', 'archived', A[1]) == A[2] then call('HDEL', 'archived', A[1]) end
return reply('OK')
""",
)

# A session exists without a turn (created by API, or a fork whose files are in a checkpoint: `restore` 1). A: S, tenant, session JSON
OPEN = Script(
    "open",
    """
local s = 's:' .. A[1]
local who = cjson.decode(A[3])
local v = get(s, 'state', 'user', 'agent')
if v[1] == 'deleted' then return reply('DELETED') end
if v[1] then
  if v[2] ~= who.user or v[3] ~= who.agent then return reply('FOREIGN') end
  return reply('OK', v[1])
end
call('HSET', s, 'state', who.restore == '1' and 'archived' or 'new', 'restore', who.restore or '', 'epoch', '0', 'tenant', A[2], 'agent', who.agent, 'user', who.user, 'session', who.session,
  'partition', who.partition, 'revision', who.revision, 'running', '', 'created', int(MS), 'active', int(MS))
call('ZADD', 'sessions:' .. A[2], int(MS), A[1])
call('ZADD', 'sessions:due', int(MS), A[1])
return reply('OK', call('HGET', s, 'state'))
""",
)

# Asks for a drain at the next look. A: S
STOP = Script(
    "stop",
    """
local s = 's:' .. A[1]
local v = get(s, 'state', 'running')
if not v[1] then return reply('ABSENT') end
if (v[2] and v[2] ~= '') or call('LLEN', 'q:' .. A[1]) > 0 then return reply('BUSY') end
if v[1] == 'claimed' then
  call('HSET', s, 'stop', '1')
  call('ZADD', 'sessions:due', '0', A[1])
end
return reply('OK', v[1])
""",
)

# Ends a session for good: nothing new is accepted, running and waiting turns are cancelled by the caller, files go.
# A: S
DELETE = Script(
    "delete",
    """
local s = 's:' .. A[1]
local v = get(s, 'state', 'sandbox', 'tenant', 'running')
if not v[1] then return reply('ABSENT') end
if (v[4] and v[4] ~= '') or call('LLEN', 'q:' .. A[1]) > 0 then return reply('BUSY') end
if v[1] ~= 'deleted' then
  call('HSET', s, 'state', 'deleted', 'deleted', int(MS))
  if v[2] and v[2] ~= '' then call('HSET', 'doomed', v[2], 'session deleted') end
  call('ZREM', 'waking', A[1])
  call('ZREM', 'sessions:due', A[1])
  call('ZREM', 'sessions:' .. v[3], A[1])
  call('ZADD', 'deletes', int(MS), A[1])
  call('PUBLISH', 'hint:provider', 'deletes')
  call('PUBLISH', 'hint:routes', A[1])
end
return reply('OK')
""",
    effect=True,
)

# The provider removed the files. The tombstone stays a while, so that a late accept still finds `deleted`. A: S, ttl s
REMOVED = Script(
    "removed",
    """
call('ZREM', 'deletes', A[1])
if call('HGET', 's:' .. A[1], 'state') == 'deleted' then
  call('HSET', 's:' .. A[1], 'volume', '')
  call('EXPIRE', 's:' .. A[1], A[2])
  call('DEL', 'q:' .. A[1])
end
return reply('OK')
""",
)

# The next look at a session, unless somebody asked for an earlier one since `seen` was read: a stop, a claim. A: S, seen, next (ms)
DEFER = Script(
    "defer",
    """
local at = tonumber(call('ZSCORE', 'sessions:due', A[1]) or '-1')
if at ~= tonumber(A[2]) and at ~= tonumber(A[3]) then return reply('SOONER') end
call('ZADD', 'sessions:due', A[3], A[1])
return reply('OK')
""",
)

# One catalog entry; unchanged entries write nothing. A: field, JSON (empty: remove), the catalog's hash (none: that of agents)
PUBLISH = Script(
    "publish",
    """
local K = A[3] or 'catalog'
local old = call('HGET', K, A[1])
if old == A[2] or (not old and A[2] == '') then return reply('SAME') end
if A[2] == '' then call('HDEL', K, A[1]) else call('HSET', K, A[1], A[2]) end
call('INCR', 'catalog:version')
call('PUBLISH', 'hint:catalog', A[1])
return reply('OK')
""",
)

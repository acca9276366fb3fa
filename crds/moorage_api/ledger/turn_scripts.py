"""The scripts of a turn: accept, begin, append, decide, close, and who owns it (turns.md §2).

Hash `t:R`: state, session, fence, owner, lease (ms), attempt, begun, prev, cancel, deadline (ms), meta (JSON), input, outcome,
terminal (log entry), generation, accepted (ms), unflushed, delivered, joined, ended (ms).
States: queued → running → closing → completed | failed | incomplete | cancelled.
Each script checks everything before its first write, and sent again answers the same and writes nothing.
"""

from __future__ import annotations

from moorage_api.ledger.script import Script

# The head of a session's queue runs next, owned by nobody yet: whoever looks first takes it. The session remembers the fence of
# the turn that ends (`outlive`): `begin` goes above it.
NEXT = """
local function outlive(s, fence)
  if tonumber(fence) > tonumber(call('HGET', s, 'fence') or '0') then call('HSET', s, 'fence', fence) end
end
local function next_turn(S)
  local s, q = 's:' .. S, 'q:' .. S
  local nxt = call('LPOP', q)
  while nxt and call('HGET', 't:' .. nxt, 'state') ~= 'queued' do nxt = call('LPOP', q) end
  call('HSET', s, 'running', nxt or '')
  if nxt then
    local n = 't:' .. nxt
    call('HSET', n, 'state', 'running', 'owner', '', 'lease', '0', 'fence', int(fence_after(call('HGET', n, 'fence'))))
    call('ZADD', 'due', int(MS), nxt)
    call('PUBLISH', 'hint:turns', nxt)
  end
end
"""

# Everything an accepted turn needs, in one: turn, first events, key, owner or queue place, due (turns.md §2 row 2).
# A: R, S, tenant, lease, queue limit, deadline, meta, input, idem key, idem hash, idem ttl s, retry key, retry count,
#    retry ttl s, session JSON, events if it runs (JSON list), events if it waits (JSON list)
ACCEPT = Script(
    "accept",
    """
local R, S, TENANT, LEASE, LIMIT = A[1], A[2], A[3], tonumber(A[4]), tonumber(A[5])
local IDEM, IDEM_HASH, RETRY = A[9], A[10], A[12]
local t, s, q = 't:' .. R, 's:' .. S, 'q:' .. S
local old = get(t, 'state', 'fence', 'owner', 'begun', 'accepted')
if old[1] then
  -- Sent again: the asker still owns it only if nobody took it over meanwhile, with a log and a fence it does not know.
  local untouched = old[3] == WHO and old[4] == '0' and call('LLEN', 'e:' .. R) == #cjson.decode(A[16])
  return reply('OK', R, (old[1] == 'running' and not untouched) and 'taken' or old[1], old[2], old[5])
end
if IDEM ~= '' then
  local seen = get(IDEM, 'response', 'hash')
  if seen[1] then
    if seen[2] == IDEM_HASH then return reply('JOIN', seen[1]) end
    return reply('CONFLICT', seen[1])
  end
end
local join = nil
if tonumber(A[13]) > 0 and RETRY ~= '' then
  local r = call('GET', RETRY)
  if r then
    local seen = get('t:' .. r, 'state', 'delivered', 'joined')
    if seen[1] and not seen[2] and (not seen[3] or seen[3] == R) then join = r end
  end
end
if join then
  call('HSET', 't:' .. join, 'joined', R)  -- by which request: sent again, it joins again; no other retry does
  return reply('JOIN', join)
end
local who = cjson.decode(A[15])
local have = get(s, 'state', 'running', 'user', 'agent')
if have[1] == 'deleted' then return reply('DELETED') end
if have[1] and (have[3] ~= who.user or have[4] ~= who.agent) then return reply('FOREIGN') end
local waits = (have[2] and have[2] ~= '') or call('LLEN', q) > 0
if waits and call('LLEN', q) >= LIMIT then return reply('FULL') end
if not have[1] then
  call('HSET', s, 'state', 'new', 'epoch', '0', 'tenant', TENANT, 'agent', who.agent, 'user', who.user, 'session',
    who.session, 'partition', who.partition, 'revision', who.revision, 'running', '', 'created', int(MS))
  call('ZADD', 'sessions:' .. TENANT, int(MS), S)
end
call('HSET', s, 'active', int(MS))
call('ZADD', 'sessions:due', int(MS), S)
local fence, state, owner, lease, events = fence_after(0), 'running', WHO, MS + LEASE, cjson.decode(A[16])
if waits then
  state, owner, lease, events = 'queued', '', 0, cjson.decode(A[17])
  call('RPUSH', q, R)
  call('ZADD', 'due', A[6], R)
else
  call('HSET', s, 'running', R)
  call('ZADD', 'due', int(lease), R)
end
call('HSET', t, 'state', state, 'session', S, 'fence', int(fence), 'owner', owner, 'lease', int(lease), 'attempt', '0',
  'begun', '0', 'cancel', '0', 'deadline', A[6], 'meta', A[7], 'input', A[8], 'generation', GEN, 'accepted', int(MS))
for _, e in ipairs(events) do call('RPUSH', 'e:' .. R, '0 0 ' .. e) end
if IDEM ~= '' then
  call('HSET', IDEM, 'response', R, 'hash', IDEM_HASH)
  call('EXPIRE', IDEM, A[11])
end
if RETRY ~= '' then call('SET', RETRY, R, 'EX', A[14]) end
return reply('OK', R, state, int(fence), int(MS))
""",
    effect=True,
)

# Permits `start` at the shim: attempt + 1, fence up; binds the session's epoch (turns.md §2 row 5).
# A: R, fence, lease, epoch, attempt record JSON
BEGIN = Script(
    "begin",
    """
local R, FENCE, LEASE, EPOCH = A[1], A[2], tonumber(A[3]), A[4]
local t = 't:' .. R
local v = get(t, 'state', 'fence', 'owner', 'cancel', 'generation', 'attempt', 'prev', 'session')
if not v[1] then return reply('ABSENT') end
if v[1] == 'running' and v[7] == FENCE and v[3] == WHO then return reply('OK', v[2], v[6]) end
if v[2] ~= FENCE then return reply('FENCED', v[2]) end
if v[1] ~= 'running' then return reply('STATE', v[1]) end
if v[4] == '1' then return reply('CANCEL') end
if v[5] ~= GEN then return reply('GENERATION') end
local s = 's:' .. v[8]
local place = get(s, 'state', 'epoch', 'fence')
if place[1] ~= 'claimed' or place[2] ~= EPOCH then return reply('EPOCH') end
-- A shim compares the fences of all turns of its session: above the last turn's too, should Redis' clock have jumped back.
local fence, attempt = int(fence_after(math.max(tonumber(v[2]), tonumber(place[3] or '0')))), int(tonumber(v[6]) + 1)
call('HSET', t, 'fence', fence, 'begun', fence, 'prev', FENCE, 'attempt', attempt, 'lease', int(MS + LEASE))
call('ZADD', 'due', int(MS + LEASE), R)
call('HSET', s, 'bound', int(MS), 'active', int(MS), 'fence', fence)
call('RPUSH', 'a:' .. R, A[5])
return reply('OK', fence, attempt)
""",
    effect=True,
)

# Puts how the running attempt ended beside how it began: A: R, fence, index, attempt record JSON
NOTE = Script(
    "note",
    """
local v = get('t:' .. A[1], 'state', 'fence')
if not v[1] then return reply('ABSENT') end
if v[2] ~= A[2] then return reply('FENCED', v[2]) end
if tonumber(A[3]) < call('LLEN', 'a:' .. A[1]) then call('LSET', 'a:' .. A[1], A[3], A[4]) end
return reply('OK')
""",
)

# A log that nobody reads elsewhere tells nobody that it grew: else every gateway would hear of every delta of all.
_TELL = """
local function tell(R)
  if call('EXISTS', 'watch:' .. R) == 1 then call('PUBLISH', 'hint:log', R) end
end
"""

# Appends a group of events before anyone sees them (turns.md §2 row 6). A: R, fence, first index, entry…
APPEND = Script(
    "append",
    _TELL
    + """
local R, FENCE, FIRST = A[1], A[2], tonumber(A[3])
local v = get('t:' .. R, 'state', 'fence')
if not v[1] then return reply('ABSENT') end
if v[2] ~= FENCE then return reply('FENCED', v[2]) end
if v[1] ~= 'running' then return reply('STATE', v[1]) end
local e, n = 'e:' .. R, #A - 3
local have = call('LLEN', e)
if have >= FIRST + n then return reply('OK', have) end
if have ~= FIRST then return reply('GAP', have) end
for i = 4, #A do call('RPUSH', e, A[i]) end
tell(R)
return reply('OK', have + n)
""",
)

# Fixes outcome and terminal event, with how the last attempt ended; a set cancel makes it cancelled (turns.md §2 row 7).
# A: R, fence, outcome, index of the terminal event, terminal event JSON, index of the attempt (-1: none), attempt record JSON
DECIDE = Script(
    "decide",
    """
local R, FENCE, OUTCOME, INDEX = A[1], A[2], A[3], tonumber(A[4])
local t = 't:' .. R
local v = get(t, 'state', 'fence', 'cancel', 'outcome', 'ended', 'calls')
if not v[1] then return reply('ABSENT') end
if v[2] ~= FENCE then return reply('FENCED', v[2]) end
if v[1] ~= 'running' then
  if v[4] then return reply('OK', v[4], v[5] or '0', v[6] or '') end
  return reply('STATE', v[1])
end
if v[3] == '1' and OUTCOME ~= 'cancelled' then return reply('CANCEL') end
local have = call('LLEN', 'e:' .. R)
if have ~= INDEX then return reply('GAP', have) end
call('HSET', t, 'state', 'closing', 'outcome', OUTCOME, 'terminal', '0 0 ' .. A[5], 'ended', int(MS))
-- What its calls added up to is fixed here too: a later one must not change the stored bytes.
local calls, n = '', get('jn:' .. R, 'done', 's:input_tokens', 's:output_tokens', 's:cached_tokens')
if n[1] then
  calls = n[1] .. ' ' .. (n[2] or '0') .. ' ' .. (n[3] or '0') .. ' ' .. (n[4] or '0')
  call('HSET', t, 'calls', calls)
end
local a = 'a:' .. R
if tonumber(A[6]) >= 0 and tonumber(A[6]) < call('LLEN', a) then call('LSET', a, A[6], A[7]) end
return reply('OK', OUTCOME, int(MS), calls)
""",
    effect=True,
)

# Ends a turn in everyone's eyes and lets the next one of its session run (turns.md §2 row 9).
# A: R, expiry s (0: keep, the response is not stored yet)
CLOSE = Script(
    "close",
    NEXT
    + _TELL
    + """
local R = A[1]
local t, e = 't:' .. R, 'e:' .. R
local v = get(t, 'state', 'outcome', 'terminal', 'session', 'fence')
if not v[1] then return reply('ABSENT') end
if v[1] ~= 'closing' then
  if v[2] then return reply('OK', v[1]) end
  return reply('STATE', v[1])
end
call('RPUSH', e, v[3])
call('HSET', t, 'state', v[2], 'owner', '', 'lease', '0')
call('ZREM', 'due', R)
local s, q = 's:' .. v[4], 'q:' .. v[4]
call('LREM', q, 0, R)
local now = get(s, 'state', 'running')
if now[1] then
  call('HSET', s, 'active', int(MS))
  if now[2] == R then
    outlive(s, v[5])
    next_turn(v[4])
  end
end
if tonumber(A[2]) > 0 then
  for _, k in ipairs({t, e, 'a:' .. R, 'j:' .. R, 'jl:' .. R, 'jn:' .. R}) do call('EXPIRE', k, A[2]) end
else
  call('ZADD', 'unflushed', int(MS), R)
  call('HSET', t, 'unflushed', '1')
end
tell(R)
return reply('OK', v[2])
""",
)

# The response of an ended turn is stored after all: its keys may go. A: R, expiry s
FLUSHED = Script(
    "flushed",
    """
local R = A[1]
call('ZREM', 'unflushed', R)
if call('HDEL', 't:' .. R, 'unflushed') == 1 then
  for _, k in ipairs({'t:' .. R, 'e:' .. R, 'a:' .. R, 'j:' .. R, 'jl:' .. R, 'jn:' .. R}) do call('EXPIRE', k, A[2]) end
end
return reply('OK')
""",
)

# Stops a turn at any point (turns.md §2, Cancel). A waiting turn is decided here, with the terminal event the caller made.
# A: R, outcome for a waiting turn, index of its terminal event, terminal event JSON
CANCEL = Script(
    "cancel",
    """
local R = A[1]
local t = 't:' .. R
local v = get(t, 'state', 'fence', 'session', 'outcome', 'cancel')
if not v[1] then return reply('ABSENT') end
if v[1] == 'running' then
  if v[5] ~= '1' and A[2] == 'cancelled' then
    call('HSET', t, 'cancel', '1')
    call('ZADD', 'due', int(MS), R)
    call('PUBLISH', 'hint:turns', R)
  end
  return reply('FLAGGED')
end
if v[1] ~= 'queued' then return reply('ENDED', v[4]) end
local have = call('LLEN', 'e:' .. R)
if have ~= tonumber(A[3]) then return reply('GAP', have) end
call('HSET', t, 'state', 'closing', 'outcome', A[2], 'terminal', '0 0 ' .. A[4], 'fence', int(fence_after(v[2])),
  'ended', int(MS))
call('LREM', 'q:' .. v[3], 0, R)
call('ZADD', 'due', int(MS), R)
call('PUBLISH', 'hint:turns', R)
return reply('CLOSING', A[2])
""",
    effect=True,
)

# Takes a turn whose lease is over, 0 or void; raises the fence (turns.md §2, Takeover). A: R, lease
ACQUIRE = Script(
    "acquire",
    """
local R, LEASE = A[1], tonumber(A[2])
local t = 't:' .. R
local v = get(t, 'state', 'fence', 'owner', 'lease')
if not v[1] then
  call('ZREM', 'due', R)
  return reply('ABSENT')
end
if v[1] ~= 'running' and v[1] ~= 'closing' then return reply('STATE', v[1]) end
if v[3] ~= WHO or not live(tonumber(v[4])) then
  if live(tonumber(v[4])) then
    return reply('HELD', v[3], v[4])
  end
  call('HSET', t, 'fence', int(fence_after(v[2])), 'owner', WHO, 'lease', int(MS + LEASE))
  call('ZADD', 'due', int(MS + LEASE), R)
end
return reply('OK', call('HGETALL', t))
""",
    effect=True,
)

# Renews leases, many at once. A: lease, then R, fence pairs. Answers a word a turn: OK, CANCEL, FENCED, STATE.
RENEW = Script(
    "renew",
    """
local LEASE, out = tonumber(A[1]), {}
for i = 2, #A, 2 do
  local t = 't:' .. A[i]
  local v = get(t, 'state', 'fence', 'cancel')
  if v[2] ~= A[i + 1] then
    out[#out + 1] = 'FENCED'
  elseif v[1] ~= 'running' and v[1] ~= 'closing' then
    out[#out + 1] = 'STATE'
  else
    call('HSET', t, 'lease', int(MS + LEASE), 'owner', WHO)
    call('ZADD', 'due', int(MS + LEASE), A[i])
    out[#out + 1] = v[3] == '1' and 'CANCEL' or 'OK'
  end
end
return reply(out)
""",
)

# Hands a turn back, due now (a draining gateway). A: R, fence
RELEASE = Script(
    "release",
    """
local v = get('t:' .. A[1], 'state', 'fence')
if v[2] ~= A[2] then return reply('FENCED') end
if v[1] == 'running' or v[1] == 'closing' then
  call('HSET', 't:' .. A[1], 'lease', '0', 'owner', '')
  call('ZADD', 'due', int(MS), A[1])
  call('PUBLISH', 'hint:turns', A[1])
end
return reply('OK')
""",
)

# A caller got the whole answer: no counted retry may join it any more (turns.md §2, Joining). A: R
DELIVERED = Script(
    "delivered",
    """
if call('EXISTS', 't:' .. A[1]) == 1 then call('HSET', 't:' .. A[1], 'delivered', '1') end
return reply('OK')
""",
)

# Removes an ended turn altogether (delete). A: R
FORGET = Script(
    "forget",
    """
local v = get('t:' .. A[1], 'state')
if v[1] == 'queued' or v[1] == 'running' or v[1] == 'closing' then return reply('STATE', v[1]) end
call('DEL', 't:' .. A[1], 'e:' .. A[1], 'a:' .. A[1], 'j:' .. A[1], 'jl:' .. A[1], 'jn:' .. A[1])
call('ZREM', 'unflushed', A[1])
return reply('OK')
""",
)

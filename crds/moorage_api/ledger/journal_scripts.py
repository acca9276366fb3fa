"""The scripts of the journal at the boundary: start, complete, drop, hold (turns.md §6).

One call of an attempt is an *entry* `FINGERPRINT.N`: N counts equal requests of one attempt, so that the next attempt's N-th one meets it.

    hash `j:R`   of entry E: `E.s` state, `E.x` executor, `E.t` try, `E.l` lease (ms), `E.h` what it is (JSON), `E.a` answer,
                 `E.c` the call as its agent can read it (of effects that name a tool), `E.q` what was asked (for replays)
    list `jl:R`  entries in the order they were first started
    hash `jn:R`  `BEGUN:NUMBER` → entry; `c:BEGUN:FINGERPRINT` → how many; `octets` of answers in `j:R`; `done`: ended entries;
                 `s:NAME` what completed calls add up to, as tokens; `p:PURSE` what the turn has spent of one purse;
                 of calls that name a tool `kn:TOOL` → how many entries, `k:I:TOOL` → the I-th, `u:BEGUN:E` → met in that attempt
    hash `rate:PURSE`  a token bucket: `r` requests and `t` tokens left at `at` (ms); expires when it would be full again

States: started → completed | unknown. An executor is one run of one gateway, named by a random word, or the attempt that makes the call by
itself. The three keys expire and go with the turn's others (`turn_scripts`). Each script checks everything before its first write, and sent
again answers the same (a call outside of any turn takes another request of its purse).

Divergence (turns.md §6): in a later attempt an effect without an entry is HELD while an earlier attempt's effect of the same tool has not been
met; asked again `waited`, it is turned away to the oldest such entry: its number is `!FINGERPRINT!ENTRY` from then on, that entry counts as
met, and no entry of its own is made. What is held or turned away takes nothing of a purse. A call that may be made again takes the
oldest one instead (`~FINGERPRINT~ENTRY`), if no other call is open: it differs from that one in clock readings alone.
"""

from __future__ import annotations

from moorage_api.ledger.script import Script

# Buckets hold a minute's worth. Tokens are known when a call has ended: they are taken then, below nothing if need be, and the debt is
# filled first. `RPM`, `TPM`: a minute's requests and tokens, 0 for no limit.
_BUCKET = """
local function bucket(purse, RPM, TPM)
  local h = get('rate:' .. purse, 'r', 't', 'at')
  local gone = h[3] and math.max(0, MS - tonumber(h[3])) or 0
  return math.min(RPM, (tonumber(h[1] or RPM)) + gone * RPM / 60000), math.min(TPM, (tonumber(h[2] or TPM)) + gone * TPM / 60000)
end
local function keep(purse, RPM, TPM, r, t)
  local lack, key = 0, 'rate:' .. purse
  if RPM > 0 then lack = (RPM - r) / RPM * 60000 end
  if TPM > 0 then lack = math.max(lack, (TPM - t) / TPM * 60000) end
  if lack <= 0 then call('DEL', key) return end
  call('HSET', key, 'r', string.format('%.4f', r), 't', string.format('%.4f', t), 'at', int(MS))
  call('PEXPIRE', key, int(math.ceil(lack)))
end
local function spend(purse, RPM, TPM, tokens)
  if TPM <= 0 or tokens <= 0 then return end
  local r, t = bucket(purse, RPM, TPM)
  keep(purse, RPM, TPM, r, t - tokens)
end
"""

# Permits one call, or says what became of it. Without a turn (R empty) only the binding is looked at, and nothing is written.
# A: sandbox, S, epoch, tenant, agent, R, begun, number, fingerprint, permits (again | once | joins), sent before (0 | 1), executor, lease,
#    what it is (JSON), most entries, settling (1: no lease counts as over, turns.md §7), and its bounds: shut (1: nothing is made), purse,
#    requests and tokens a minute, tokens of this purse a turn (0: no limit); then tool ('' = none), the call as its agent can read it,
#    waited (1: it was HELD as long as may be)
START = Script(
    "journal_start",
    _BUCKET
    + """
local X, S, EPOCH, R, BEGUN, FP, EFFECT, TOOL = A[1], A[2], A[3], A[6], A[7], A[9], A[10] ~= 'again', A[22]
local place = get('s:' .. S, 'state', 'sandbox', 'epoch', 'tenant', 'agent')
-- Redis was emptied or rolled back, and nobody has written this anew yet (turns.md §7): asked again, it will know.
if not place[1] or tonumber(place[3] or '0') < tonumber(EPOCH) then return reply('BEHIND') end
if place[4] ~= A[4] or place[5] ~= A[5] or place[2] ~= X or place[3] ~= EPOCH
  or (place[1] ~= 'claimed' and place[1] ~= 'draining') then return reply('UNBOUND') end
local PURSE, RPM, TPM = A[18], tonumber(A[19]), tonumber(A[20])
-- Its bounds; the last that is asked, for it takes one request where all is well.
local function bounded()
  if A[17] == '1' then return reply('SHUT') end
  if RPM <= 0 and TPM <= 0 then return nil end
  local r, t = bucket(PURSE, RPM, TPM)
  local wait, short = 0, ''
  if RPM > 0 and r < 1 then wait, short = (1 - r) * 60000 / RPM, 'requests' end
  if TPM > 0 and t < 1 and (1 - t) * 60000 / TPM > wait then wait, short = (1 - t) * 60000 / TPM, 'tokens' end
  if wait > 0 then return reply('RATE', short, int(math.ceil(wait))) end
  if RPM > 0 then keep(PURSE, RPM, TPM, r - 1, t) end
  return nil
end
if R == '' then return bounded() or reply('FREE') end
local t, j, jl, jn = 't:' .. R, 'j:' .. R, 'jl:' .. R, 'jn:' .. R
local v = get(t, 'state', 'begun', 'cancel', 'generation', 'session', 'attempt')
if not v[1] then return reply('BEHIND') end
if v[5] ~= S then return reply('ABSENT') end
if tonumber(v[2]) < tonumber(BEGUN) then return reply('BEHIND') end
if v[2] ~= BEGUN then return reply('FENCED') end
local named, counted = BEGUN .. ':' .. A[8], 'c:' .. BEGUN .. ':' .. FP
local e, fresh, turned = call('HGET', jn, named), false, false
if e then
  local sign = string.match(e, '^[!~]')
  turned = sign == '!'
  if sign then e = string.sub(e, 2) end
  if string.sub(e, 1, #FP + 1) ~= FP .. (sign or '.') then return reply('OTHER') end
  if sign then e = string.sub(e, #FP + 2) end
else
  fresh = true
  e = FP .. '.' .. (call('HGET', jn, counted) or '0')
end
local later = tonumber(v[6] or '0') > 1
local function met(entry)
  if TOOL ~= '' or later then call('HSET', jn, 'u:' .. BEGUN .. ':' .. entry, '1') end
end
local function name()
  if fresh then
    call('HSET', jn, named, e)
    call('HINCRBY', jn, counted, 1)
    met(e)
  end
end
-- What a call that is turned away gets: the outcome of another one, which somebody may still be making.
local function away(entry)
  local o = get(j, entry .. '.s', entry .. '.t', entry .. '.l', entry .. '.c')
  if not o[1] then return reply('HELD', entry) end
  if o[1] == 'started' then
    if A[16] == '1' or live(tonumber(o[3])) then return reply('HELD', entry) end
    call('HSET', j, entry .. '.s', 'unknown', entry .. '.x', '', entry .. '.a', '')
    call('HINCRBY', jn, 'done', 1)
    o[1] = 'unknown'
  end
  local word = o[1] == 'completed' and 'EARLIER' or 'EARLIER_UNKNOWN'
  return reply(word, entry, o[2] or '0', call('HGET', j, entry .. '.a') or '', o[4] or '')
end
if turned then return away(e) end
-- Whether this attempt asked for the same call and was told that its outcome is not known: then its agent has looked for itself, and what
-- an earlier attempt did after it had been told so is no call that this one passed over. Each entry of a call is looked at once.
local told, upto = {}, {}
local function looked(other)
  local same, n = string.match(other, '^(.*)%.(%d+)$')
  n = tonumber(n)
  while not told[same] and (upto[same] or 0) < n do
    local k = upto[same] or 0
    local before = same .. '.' .. k
    if call('HGET', j, before .. '.s') == 'unknown' and call('HEXISTS', jn, 'u:' .. BEGUN .. ':' .. before) == 1 then told[same] = k end
    upto[same] = k + 1
  end
  return told[same] ~= nil and told[same] < n
end
-- An entry of the same tool that an earlier attempt made and this one has not met; the oldest.
local function unmet()
  for i = 0, tonumber(call('HGET', jn, 'kn:' .. TOOL) or '0') - 1 do
    local other = call('HGET', jn, 'k:' .. i .. ':' .. TOOL)
    if call('HEXISTS', jn, 'u:' .. BEGUN .. ':' .. other) == 0 and call('HEXISTS', j, other .. '.s') == 1 and not looked(other) then
      return other
    end
  end
end
-- Whether another call of this attempt waits for its answer: then which of two is meant cannot be told.
local function open()
  for _, other in ipairs(call('LRANGE', jl, 0, -1)) do
    if call('HGET', j, other .. '.s') == 'started' and call('HEXISTS', jn, 'u:' .. BEGUN .. ':' .. other) == 1 then return true end
  end
end
local new = later and fresh and TOOL ~= ''
if new and not EFFECT and call('HEXISTS', j, e .. '.s') == 0 then
  local other = unmet()
  if other and not open() then
    call('HSET', jn, named, '~' .. FP .. '~' .. other)
    met(other)
    e, fresh = other, false
  end
end
local h = get(j, e .. '.s', e .. '.x', e .. '.t', e .. '.l')
if h[1] == 'completed' or h[1] == 'unknown' then
  name()
  local a = get(j, e .. '.a', e .. '.h')
  return reply(h[1] == 'completed' and 'DONE' or 'UNKNOWN', e, h[3] or '0', a[1] or '', a[2] or '')
end
if h[1] == 'started' then
  if h[2] == A[12] then return reply('RUN', e, h[3], call('HGET', jn, 'octets') or '0') end
  if A[16] == '1' or live(tonumber(h[4])) then
    name()
    return reply('WAIT', e, h[3], h[4])
  end
end
if v[1] ~= 'running' then return reply('STATE', v[1]) end
if v[3] == '1' then return reply('CANCEL') end
-- A loss may have taken the entry of an effect that was sent before, or that an earlier attempt made: it is never made twice (turns.md §7).
local lost = not h[1] and EFFECT and (A[11] == '1' or later) and v[4] ~= GEN
local other = new and EFFECT and not h[1] and not lost and unmet()
if other then
  if A[24] ~= '1' then return reply('HELD', other) end
  call('HSET', jn, named, '!' .. FP .. '!' .. other)
  met(other)
  return away(other)
end
if not h[1] and call('LLEN', jl) >= tonumber(A[15]) then return reply('FULL') end
local unknown = lost or (h[1] and A[10] == 'once')
if not unknown then
  local spent = call('HGET', jn, 'p:' .. PURSE)
  if tonumber(A[21]) > 0 and spent and tonumber(spent) >= tonumber(A[21]) then return reply('SPENT', spent) end
  local no = bounded()
  if no then return no end
end
name()
if not h[1] then
  call('HSET', j, e .. '.h', A[14])
  call('RPUSH', jl, e)
  if TOOL ~= '' then
    if EFFECT then call('HSET', j, e .. '.c', A[23]) end
    call('HSET', jn, 'k:' .. int(call('HINCRBY', jn, 'kn:' .. TOOL, 1) - 1) .. ':' .. TOOL, e)
  end
end
if unknown then
  call('HSET', j, e .. '.s', 'unknown', e .. '.x', '', e .. '.t', h[3] or '0', e .. '.a', '')
  call('HINCRBY', jn, 'done', 1)
  return reply('UNKNOWN', e, h[3] or '0', '', call('HGET', j, e .. '.h') or '')
end
local try = int(tonumber(h[3] or '0') + 1)
call('HSET', j, e .. '.s', 'started', e .. '.x', A[12], e .. '.t', try, e .. '.l', int(MS + tonumber(A[13])))
return reply('RUN', e, try, call('HGET', jn, 'octets') or '0')
""",
    effect=True,
)

# The outcome of a call by whoever made it, also for an old attempt or after the end. An entry that Redis has lost is written anew.
# An attempt that made the call by itself says who it is; an entry that is not there is written for it only in its own session's turn, and
# only where this ledger is younger than the turn, so that there was something to lose: else NONE, it never began such a call. What an
# entry is stays as it was begun.
# A: R, entry, executor, try, state (completed | unknown), answer, what it is (JSON), purse, its requests and tokens a minute, tokens spent,
#    session and sandbox of the attempt (else empty), what was asked (may be empty), most entries, then pairs: a name, and what this call
#    adds to the turn's sum of it. Answers, beside OK and of a call that its attempt made, what it is and when its lease ended: once.
COMPLETE = Script(
    "journal_complete",
    _BUCKET
    + """
local R, e, TRY = A[1], A[2], A[4]
local t, j, jn = 't:' .. R, 'j:' .. R, 'jn:' .. R
local left = call('PTTL', t)
if left == -2 then return reply('ABSENT') end
local h = get(j, e .. '.s', e .. '.x', e .. '.t', e .. '.l')
if h[1] and (h[2] ~= A[3] or h[3] ~= TRY) then return reply('SUPERSEDED', h[1]) end
if h[1] and h[1] ~= 'started' then return reply('OK') end
local BY = A[12] ~= ''
if not h[1] then
  if BY and (call('HGET', t, 'session') ~= A[12] or get('s:' .. A[12], 'sandbox')[1] ~= A[13]) then return reply('ABSENT') end
  if BY and (call('HGET', t, 'generation') == GEN or call('LLEN', 'jl:' .. R) >= tonumber(A[15])) then return reply('NONE') end
  call('RPUSH', 'jl:' .. R, e)
end
if not (h[1] and BY) then call('HSET', j, e .. '.h', A[7]) end
call('HSET', j, e .. '.s', A[5], e .. '.x', A[3], e .. '.t', TRY, e .. '.a', A[6])
call('HDEL', j, e .. '.l')
if A[14] ~= '' then call('HSET', j, e .. '.q', A[14]) end
call('HINCRBY', jn, 'octets', #A[6] + #A[14])
call('HINCRBY', jn, 'done', 1)
for i = 16, #A, 2 do call('HINCRBY', jn, 's:' .. A[i], A[i + 1]) end
if tonumber(A[11]) > 0 then call('HINCRBY', jn, 'p:' .. A[8], A[11]) end
spend(A[8], tonumber(A[9]), tonumber(A[10]), tonumber(A[11]))
if left > 0 then
  for _, k in ipairs({j, jn, 'jl:' .. R}) do call('PEXPIRE', k, int(left)) end
end
if BY then return reply('OK', call('HGET', j, e .. '.h') or '', h[4] or '') end
return reply('OK')
""",
    effect=True,
)

# Its executor says that the call had no outcome and may be made again: nothing was sent, or it is one that may. A: R, entry, executor, try
DROP = Script(
    "journal_drop",
    """
local j, e = 'j:' .. A[1], A[2]
local h = get(j, e .. '.s', e .. '.x', e .. '.t')
if not h[1] then return reply('OK') end
if h[1] ~= 'started' or h[2] ~= A[3] or h[3] ~= A[4] then return reply('SUPERSEDED', h[1]) end
call('HDEL', j, e .. '.s', e .. '.x', e .. '.t', e .. '.l', e .. '.h', e .. '.c')
call('LREM', 'jl:' .. A[1], 0, e)
return reply('OK')
""",
)

# Renews the leases of calls in flight, many at once. A: lease, then R, entry, executor. Answers a word a call: OK or LOST.
HOLD = Script(
    "journal_hold",
    """
local LEASE, out = tonumber(A[1]), {}
for i = 2, #A, 3 do
  local j, e = 'j:' .. A[i], A[i + 1]
  local h = get(j, e .. '.s', e .. '.x')
  if h[1] == 'started' and h[2] == A[i + 2] then
    call('HSET', j, e .. '.l', int(MS + LEASE))
    out[#out + 1] = 'OK'
  else
    out[#out + 1] = 'LOST'
  end
end
return reply(out)
""",
)

# What a call has spent that no entry tells of: outside of a turn, or broken off. Sent once: a second time it would be taken again.
# A: R, purse, requests and tokens a minute, tokens spent
SPEND = Script(
    "journal_spend",
    _BUCKET
    + """
if A[1] ~= '' and call('EXISTS', 't:' .. A[1]) == 1 then
  local fresh = call('EXISTS', 'jn:' .. A[1]) == 0
  call('HINCRBY', 'jn:' .. A[1], 'p:' .. A[2], A[5])
  local left = call('PTTL', 't:' .. A[1])
  if fresh and left > 0 then call('PEXPIRE', 'jn:' .. A[1], int(left)) end
end
spend(A[2], tonumber(A[3]), tonumber(A[4]), tonumber(A[5]))
return reply('OK')
""",
)

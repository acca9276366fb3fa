"""The scripts of routines. A routine is its spec in `catalog:routines`, its state at `rt:FIELD`, and one place in `routines:due`.

Whoever takes a due routine has it for a while and puts its next state back under the version that it took: of two that had it, one
succeeds, and so of two that saw one due time one claims it. Who dies in between leaves it due again.

A version is a time (us) and more than the one before it: what the store was told under a later version counts, after a loss too.
"""

from __future__ import annotations

from moorage_api.ledger.script import Script

# ARGV: field, spec ("" takes it away)
PUBLISH_ROUTINE = Script(
    "publish_routine",
    """
local old = call('HGET', 'catalog:routines', A[1])
if old == A[2] or (not old and A[2] == '') then return reply('SAME') end
if A[2] == '' then call('HDEL', 'catalog:routines', A[1]) else call('HSET', 'catalog:routines', A[1], A[2]) end
if A[2] ~= '' then call('HSETNX', 'rt:' .. A[1], 'since', int(MS)) end
call('ZADD', 'routines:due', int(MS), A[1])
call('PUBLISH', 'hint:routines', A[1])
return reply('OK')
""",
    effect=True,
)

# ARGV: how many at most, for how long (ms). Reply: now (ms), then field, spec, version, state, published (ms) of each
TAKE_ROUTINES = Script(
    "take_routines",
    """
local out = {int(MS)}
for _, field in ipairs(call('ZRANGEBYSCORE', 'routines:due', '-inf', int(MS), 'LIMIT', 0, A[1])) do
  call('ZADD', 'routines:due', int(MS + tonumber(A[2])), field)
  local state = call('HMGET', 'rt:' .. field, 'version', 'state', 'since')
  out[#out + 1] = field
  out[#out + 1] = call('HGET', 'catalog:routines', field) or ''
  out[#out + 1] = state[1] or '0'
  out[#out + 1] = state[2] or ''
  out[#out + 1] = state[3] or int(MS)
end
return reply(unpack(out))
""",
)

# ARGV: field, version it was taken under, state ("" forgets the routine), next look (ms, "" leaves it), what is shown of it
PUT_ROUTINE = Script(
    "put_routine",
    """
local key = 'rt:' .. A[1]
if (call('HGET', key, 'version') or '0') ~= A[2] then return reply('MOVED') end
if A[3] == '' then
  if call('HEXISTS', 'catalog:routines', A[1]) == 1 then return reply('MOVED') end
  call('DEL', key)
  call('ZREM', 'routines:due', A[1])
  return reply('OK')
end
local version = int(fence_after(A[2]))
call('HSET', key, 'version', version, 'state', A[3], 'shown', A[5])
if A[4] ~= '' then
  call('ZADD', 'routines:due', A[4], A[1])
  if tonumber(A[4]) <= MS then call('PUBLISH', 'hint:routines', A[1]) end
end
return reply('OK', version)
""",
    effect=True,
)

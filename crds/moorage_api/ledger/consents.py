"""Users' consents on their way: links that are asked for, what a browser brings back, and who may renew a token. Layer: the floor.

    string `oauth:ask:PLACE`    the link that this user was given last for this upstream
    string `oauth:link:LINK`    JSON: whose, for what; its `browser` is the digest of the one that began with it
    hash   `oauth:state:STATE`  `body`, and `taker`: who took it
    hash   `oauth:asked:R`      id of an item → JSON (box, link): what a turn's calls waited for
    string `oauth:lock:PLACE`   who renews, or writes, this user's tokens now
    hash   `oauth:wrong:TENANT` TOOLBOX/UPSTREAM → JSON: what of its manifest an authorization server does not take

PLACE is a digest of (tenant, user, toolbox, upstream). Nothing here has to last: consents themselves are objects in the store, and where a
link is lost the next call makes a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage_api.ledger import keys
from moorage_api.ledger.records import fields, text
from moorage_api.ledger.script import Runner, Script

LINK_MS = 15 * 60 * 1000
"""How long a link may be begun with, and how long its user has at the authorization server."""
ASKED_MS = 24 * 3600 * 1000
"""How long a turn that has not ended keeps what its calls waited for."""
MOST_ASKED = 16
"""Items of one turn."""
LOCK_MS = 60_000
"""Longer than a token server and the store have together."""
WRONG_S = 24 * 3600
"""How long it is told what is wrong with a manifest, after that was seen last."""
MOST_WRONG = 1000
"""Upstreams of a tenant of which it is."""

# One link for as long as it is good for half its time, for the same terms and not begun with, so that a turn's calls name the same one.
# A: place, new link, its body (JSON), ms, response ('' = none), id of the item, item (JSON without its link), most items, ms they are kept
ASK = Script(
    "consents_ask",
    """
local ask, ms = 'oauth:ask:' .. A[1], tonumber(A[4])
local id = call('GET', ask)
local held = id and call('GET', 'oauth:link:' .. id)
local was = held and cjson.decode(held)
if not was or was.browser or was.binding ~= cjson.decode(A[3]).binding or call('PTTL', 'oauth:link:' .. id) < ms / 2 then
  id = A[2]
  call('SET', 'oauth:link:' .. id, A[3], 'PX', A[4])
  call('SET', ask, id, 'PX', A[4])
end
if A[5] ~= '' then
  local key = 'oauth:asked:' .. A[5]
  if call('HEXISTS', key, A[6]) == 1 or call('HLEN', key) < tonumber(A[8]) then
    local item = cjson.decode(A[7])
    item.link = id
    call('HSET', key, A[6], cjson.encode(item))
    call('PEXPIRE', key, A[9])
  end
end
return reply(id)
""",
)

# The first browser that begins with a link is the only one that may. A: link, digest of the browser, state, body (JSON), ms
BEGIN = Script(
    "consents_begin",
    """
local key = 'oauth:link:' .. A[1]
local found = call('GET', key)
if not found then return reply('NONE') end
local link = cjson.decode(found)
if link.browser and link.browser ~= A[2] then return reply('TAKEN') end
link.browser = A[2]
call('SET', key, cjson.encode(link), 'KEEPTTL')
call('HSET', 'oauth:state:' .. A[3], 'body', A[4])
call('PEXPIRE', 'oauth:state:' .. A[3], A[5])
return reply('OK')
""",
)

# A state counts once: for whoever takes it first. A: state, taker
TAKE = Script(
    "consents_take",
    """
local key = 'oauth:state:' .. A[1]
local s = get(key, 'body', 'taker')
if not s[1] or (s[2] and s[2] ~= A[2]) then return reply('NONE') end
call('HSET', key, 'taker', A[2])
return reply('OK', s[1])
""",
)

# A: link, place
DONE = Script(
    "consents_done",
    """
call('DEL', 'oauth:link:' .. A[1])
if call('GET', 'oauth:ask:' .. A[2]) == A[1] then call('DEL', 'oauth:ask:' .. A[2]) end
return reply('OK')
""",
)

# A: place, holder, ms. Answers OK and the Redis time (ms): what is written under this lock has no lower version.
LOCK = Script(
    "consents_lock",
    """
local key = 'oauth:lock:' .. A[1]
local held = call('GET', key)
if held and held ~= A[2] then return reply('BUSY', '0') end
call('SET', key, A[2], 'PX', A[3])
return reply('OK', int(MS))
""",
)

# Takes nothing: one that is sent twice finds no lock that the first one took. A: place, holder, ms
KEEP = Script(
    "consents_keep",
    """
if call('GET', 'oauth:lock:' .. A[1]) ~= A[2] then return reply('LOST') end
call('PEXPIRE', 'oauth:lock:' .. A[1], A[3])
return reply('OK')
""",
)

# A: place, holder
UNLOCK = Script(
    "consents_unlock",
    """
if call('GET', 'oauth:lock:' .. A[1]) == A[2] then call('DEL', 'oauth:lock:' .. A[1]) end
return reply('OK')
""",
)

# Each has its own time (`Wrong.at`): where there is no room, those that are over make some.
# A: tenant, TOOLBOX/UPSTREAM, what is wrong (JSON; '' = nothing any more), most of them, ms, since when they count (epoch s)
WRONG = Script(
    "consents_wrong",
    """
local key, most = 'oauth:wrong:' .. A[1], tonumber(A[4])
if A[3] == '' then
  call('HDEL', key, A[2])
  return reply('OK')
end
local known = call('HEXISTS', key, A[2]) == 1
if not known and call('HLEN', key) >= most then
  local held = call('HGETALL', key)
  for i = 1, #held, 2 do
    if cjson.decode(held[i + 1]).at < tonumber(A[6]) then call('HDEL', key, held[i]) end
  end
end
if known or call('HLEN', key) < most then
  call('HSET', key, A[2], A[3])
  call('PEXPIRE', key, A[5])
end
return reply('OK')
""",
)


@dataclass(frozen=True)
class Item:
    """What a turn's output names. `id` is the same for each call that waits for the same consent."""

    response: str
    id: str
    box: str


@dataclass(frozen=True)
class Wrong:
    """What of an upstream's `oauth` an authorization server, or the server itself, does not take. `oauth`: names the one it is about
    (`named`); `at`: when it was seen last (epoch s)."""

    says: str
    oauth: str
    at: int


def named(oauth: Mapping[str, Any]) -> str:
    """A digest of an upstream's `oauth` as the wire has it."""
    return hashlib.sha256(json.dumps(oauth, sort_keys=True).encode()).hexdigest()


class ConsentLedger:
    """Raises LedgerError."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def ask(self, place: str, new: str, body: dict[str, Any], item: Item) -> str:
        """The link to give that user: `new`, or the one that was given lately."""
        shown = json.dumps({"box": item.box})
        out = await self._runner.run(
            ASK, place, new, json.dumps(body), LINK_MS, item.response, item.id, shown, MOST_ASKED, ASKED_MS
        )
        return text(out[0])

    async def link(self, link: str) -> dict[str, Any] | None:
        """Whose it is, and for what; None once it is over."""
        found = await self._runner.read("GET", keys.consent_link(link))
        return json.loads(text(found)) if found else None

    async def begin(self, link: str, browser: str, state: str, body: dict[str, Any]) -> str:
        """OK; NONE: no such link (any more); TAKEN: another browser began with it."""
        return text((await self._runner.run(BEGIN, link, browser, state, json.dumps(body), LINK_MS))[0])

    async def take(self, state: str, taker: str) -> dict[str, Any] | None:
        """What was begun under that state; None for everybody but the first `taker`."""
        out = [text(each) for each in await self._runner.run(TAKE, state, taker)]
        return json.loads(out[1]) if out[0] == "OK" else None

    async def done(self, link: str, place: str) -> None:
        """The link has served."""
        await self._runner.run(DONE, link, place)

    async def lock(self, place: str, holder: str) -> int:
        """Redis time (ms) for the holder; 0 while somebody else is."""
        out = [text(each) for each in await self._runner.run(LOCK, place, holder, LOCK_MS)]
        return int(out[1])

    async def keep(self, place: str, holder: str) -> bool:
        """Held from now on for as long as at first, where it is still held; else nothing."""
        return text((await self._runner.run(KEEP, place, holder, LOCK_MS))[0]) == "OK"

    async def holder(self, place: str) -> str:
        """Who holds the lock; empty: nobody."""
        found = await self._runner.read("GET", keys.consent_lock(place))
        return text(found) if found else ""

    async def unlock(self, place: str, holder: str) -> None:
        """Lets go, where it is still held."""
        await self._runner.run(UNLOCK, place, holder)

    async def wrong(self, tenant: str, toolbox: str, upstream: str, found: Wrong | None) -> None:
        """What of that upstream's manifest is wrong; None: nothing."""
        said, since = (json.dumps(vars(found)), found.at - WRONG_S) if found is not None else ("", 0)
        await self._runner.run(WRONG, tenant, f"{toolbox}/{upstream}", said, MOST_WRONG, 1000 * WRONG_S, since)

    async def wrongs(self, tenant: str, now: float) -> dict[tuple[str, str], Wrong]:
        """What was seen within `WRONG_S` of `now` (epoch s), by toolbox and upstream."""
        found = fields(await self._runner.read("HGETALL", keys.consents_wrong(tenant)))
        every = ((name.partition("/"), Wrong(**json.loads(body))) for name, body in found.items())
        return {(box, upstream): each for (box, _, upstream), each in every if each.at >= now - WRONG_S}

    async def asked(self, response: str) -> list[tuple[str, dict[str, Any]]]:
        """What that turn's calls waited for, by the items' ids."""
        found = fields(await self._runner.read("HGETALL", keys.consents_asked(response)))
        return sorted((id, json.loads(body)) for id, body in found.items())

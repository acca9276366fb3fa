"""Who waits for the answer of a routine's invocation. Layer: the floor; two scripts and their door.

An invocation is sent once, by the gateway that holds its lease, and only while that gateway lives can its answer come. Who finds the lease
free takes it, and so says that the former holder's answer counts no more: that one learns it when it renews. Each that takes it gets a
fence, more than all before it: what it writes down counts over what one before it did, whenever that lands.
"""

from __future__ import annotations

from typing import Literal

from moorage_api.ledger.records import text
from moorage_api.ledger.script import LEASE_MS, Runner, Script

FORGOTTEN_MS = 600_000
"""A lease that nobody renews is gone after so long."""

# A: invocation, how long (ms), `take` (from nobody, or from one whose time is over), `keep` (else one's own, or a lost one) or `free`
HOLD_RUN = Script(
    "hold_run",
    """
local k = 'ri:' .. A[1]
local v = get(k, 'who', 'until', 'cancel', 'fence')
if v[1] and v[1] ~= WHO and (A[3] ~= 'take' or tonumber(v[2]) > MS) then return reply('HELD') end
if A[3] == 'free' then call('DEL', k) return reply('OK') end
local own = v[1] == WHO and (A[3] == 'keep' or tonumber(v[2]) > MS)
local fence = own and v[4] or int(fence_after(v[4]))
call('HSET', k, 'who', WHO, 'until', int(MS + tonumber(A[2])), 'fence', fence)
call('PEXPIRE', k, FORGOTTEN)
return reply(v[3] and 'CANCEL' or 'OK', fence)
""".replace("FORGOTTEN", str(FORGOTTEN_MS)),
    effect=True,
)

# A: invocation
STOP_RUN = Script(
    "stop_run",
    """
local k = 'ri:' .. A[1]
local v = get(k, 'until')
if not v[1] or tonumber(v[1]) <= MS then return reply('GONE') end
call('HSET', k, 'cancel', '1')
return reply('OK')
""",
    effect=True,
)

Word = Literal["OK", "CANCEL", "HELD"]


class RunLeases:
    """Raises LedgerError."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def take(self, invocation: str) -> int:
        """It is the caller's for `LEASE_MS`: its fence; 0 while another gateway holds it."""
        return (await self._hold(invocation, "take"))[1]

    async def keep(self, invocation: str) -> Word:
        """For another `LEASE_MS`. CANCEL: and somebody wants it to end; HELD: another gateway has taken it."""
        return (await self._hold(invocation, "keep"))[0]

    async def free(self, invocation: str) -> None:
        """Nobody waits any more."""
        await self._hold(invocation, "free")

    async def stop(self, invocation: str) -> bool:
        """Asks its holder to end it; False where nobody holds it."""
        out = await self._runner.run(STOP_RUN, invocation)
        return text(out[0]) == "OK"

    async def _hold(self, invocation: str, how: str) -> tuple[Word, int]:
        out = await self._runner.run(HOLD_RUN, invocation, LEASE_MS, how)
        fence = int(out[1]) if len(out) > 1 else 0
        match text(out[0]):
            case "OK":
                return "OK", fence
            case "CANCEL":
                return "CANCEL", fence
            case _:
                return "HELD", 0

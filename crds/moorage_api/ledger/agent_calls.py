"""What a session remembers of the agents that it calls: where each conversation stands. Layer: the floor; one script and its door."""

from __future__ import annotations

from moorage_api.ledger import keys
from moorage_api.ledger.records import text
from moorage_api.ledger.script import Runner, Script

KEPT_S = 30 * 24 * 3600
"""As long as a session is kept by default. Forgotten, the called agent begins a new conversation, with the files it had."""

# A: key, place (TOOLBOX/UPSTREAM), response, seconds
REMEMBER = Script(
    "agent_calls_remember",
    """
call('HSET', A[1], A[2], A[3])
call('EXPIRE', A[1], A[4])
return reply('OK')
""",
)


class AgentCallLedger:
    """Raises LedgerError."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def last(self, session: str, place: str) -> str:
        """The last response that an agent gave that session there; empty: none."""
        return text(await self._runner.read("HGET", keys.called(session), place))

    async def remember(self, session: str, place: str, response: str) -> None:
        """From now on it is that one."""
        await self._runner.run(REMEMBER, keys.called(session), place, response, KEPT_S)

"""Where the lines of agents' stdout and stderr come from. Layer: gateway, a seam; the platform gives the source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class LogLine:
    """One line. `time` in epoch ms; `session` is the session id, empty for lines of no session (start of a pool sandbox)."""

    time: int
    stream: str
    text: str
    session: str = ""


class LogSource(Protocol):
    """Lines that a provider keeps."""

    def lines(
        self, tenant: str, agent: str, *, session_key: str | None, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """The last `tail` lines of the agent (of one session), then, with `follow`, new ones without end.

        An async generator: closing it frees what it holds. It never gathers more than a bounded number of lines.
        """


class MemoryLogs:
    """A source that holds lines in memory, for tests and for providers without one."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str, str, LogLine]] = []

    def add(self, tenant: str, agent: str, session_key: str, line: LogLine) -> None:
        """One more line."""
        self._lines.append((tenant, agent, session_key, line))

    async def lines(
        self, tenant: str, agent: str, *, session_key: str | None, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """See `LogSource.lines`; never follows, since nothing comes."""
        found = [
            line
            for owner, name, key, line in self._lines
            if (owner, name) == (tenant, agent) and session_key in (None, key)
        ]
        for line in found[-tail:] if tail else ():
            yield line

"""Where the lines of agents' stdout and stderr come from. Layer: gateway, a seam; the platform gives the source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from moorage_api.pod_tokens import PodTokens

AGENT_LABEL = "moorage.dev/agent"
CONTAINER = "shim"
"""Of a sandbox's pod, as the operator makes it: this container prints what the agent says, a JSON object a line."""
MOST_PODS = 50
"""That `kubectl logs --follow` is to read at a time: without a word it refuses more than five."""


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

    def elsewhere(self, tenant: str, agent: str, sandbox: str, *, tail: int, follow: bool) -> str:
        """The command that shows the same where this source has no lines; "" where `lines` has them.

        `sandbox`: its lines alone, "" for those of every sandbox.
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

    def elsewhere(self, tenant: str, agent: str, sandbox: str, *, tail: int, follow: bool) -> str:
        """See `LogSource.elsewhere`: they are here."""
        return ""


class Cluster(Protocol):
    """What the catalog holds of it."""

    @property
    def pod_tokens(self) -> PodTokens | None:
        """With the namespaces of each tenant; None where sandboxes are no pods, or nobody has said yet."""


class PodLogs:
    """Of sandboxes in pods, whose output their cluster keeps: gateways have no right there."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def lines(
        self, tenant: str, agent: str, *, session_key: str | None, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """See `LogSource.lines`; there are none."""
        none: tuple[LogLine, ...] = ()
        for line in none:
            yield line

    def elsewhere(self, tenant: str, agent: str, sandbox: str, *, tail: int, follow: bool) -> str:
        """See `LogSource.elsewhere`. One command for each namespace of the tenant's: which of them has the agent no gateway knows."""
        said = self._cluster.pod_tokens
        if said is None:
            return ""
        which = sandbox or f"--selector {AGENT_LABEL}={agent}"
        more = f" --tail={tail}" + (" --follow" if follow else "")
        if not sandbox:
            more += " --prefix" + (f" --max-log-requests={MOST_PODS}" if follow else "")
        spaces = sorted(space for space, owner in said.namespaces.items() if owner == tenant) or ["NAMESPACE"]
        return "\n".join(f"kubectl logs --namespace {space} {which} --container {CONTAINER}{more}" for space in spaces)

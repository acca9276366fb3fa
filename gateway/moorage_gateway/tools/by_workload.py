"""A server that is opened by the gateway's own identity in the cluster. Layer: engine; I/O by the tokens."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_gateway.models.identity import NoToken, Workload, WorkloadTokens
from moorage_gateway.tools.servers import ToolFault


@dataclass(frozen=True)
class WorkloadToken:
    """See `moorage_gateway.tools.authorized.TokenSource`: the platform's own token, got without a secret."""

    tokens: WorkloadTokens
    workload: Workload

    @property
    def grant(self) -> str:
        """See TokenSource."""
        return ""

    async def get(self, seconds: float) -> str:
        """See TokenSource."""
        try:
            return await self.tokens.get(self.workload, seconds)
        except NoToken as why:
            raise ToolFault(str(why), sent=False, late=why.late, final=why.final) from None

    def drop(self, token: str) -> None:
        """See TokenSource."""
        self.tokens.drop(self.workload, token)

    async def unfit(self, word: str) -> None:
        """See TokenSource: whoever calls is told, and there is nobody else to ask."""

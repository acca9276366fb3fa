"""An upstream of a manifest as a server that can be asked: of its type, with what opens it. Layer: composition; a further type is a branch
here and a class behind `ToolServer`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_api.catalog import ToolboxEntry, tool_credential_name
from moorage_api.kinds import quantities
from moorage_api.ledger.tool_sessions import ToolSessionLedger
from moorage_gateway.clock import Clock
from moorage_gateway.consents.flow import Consents
from moorage_gateway.consents.shapes import is_per_user, terms
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.models.credentials import Credentials
from moorage_gateway.models.identity import Workload, WorkloadTokens
from moorage_gateway.tools.agents import AgentUpstream, Asks, Manner
from moorage_gateway.tools.authorized import Authorized, TokenSource
from moorage_gateway.tools.by_workload import WorkloadToken
from moorage_gateway.tools.documents import Documents
from moorage_gateway.tools.http_api import ApiPlace, ApiUpstream
from moorage_gateway.tools.mcp import Eras, Known, McpUpstream, Place
from moorage_gateway.tools.names import Upstream, place_of
from moorage_gateway.tools.opening import Opening, by_credential, by_token
from moorage_gateway.tools.per_user import Users, UserToken
from moorage_gateway.tools.servers import ToolFault, ToolServer, Whose
from moorage_gateway.tools.sessions import Sessions
from moorage_gateway.tools.shared_sessions import SharedSessions
from moorage_gateway.tools.sse import SseUpstream
from moorage_gateway.tools.stdio import Programs, StdioPlace, StdioUpstream
from moorage_gateway.tools.tokens import Ordered, Tokens, ordered


@dataclass(frozen=True)
class OfUsers:
    """What upstreams are opened with by their users' own tokens: `users` knows whose turn one is."""

    consents: Consents
    users: Users


@dataclass(frozen=True)
class Openers:
    """What upstreams are opened with: values of Secrets, the gateway's own identity, users' own tokens."""

    credentials: Credentials
    identity: WorkloadTokens
    of_users: OfUsers


class Making:
    """Makes them, and holds what this process remembers of servers. `version` is told to them."""

    def __init__(
        self,
        upstreams: Upstreams,
        openers: Openers,
        clock: Clock,
        *,
        asks: Asks,
        programs: Programs,
        remembers: ToolSessionLedger,
        version: str,
    ) -> None:
        self._upstreams = upstreams
        self._programs = programs
        self._openers = openers
        self._clock = clock
        self._asks = asks
        self._version = version
        self.sessions = Sessions(clock.monotonic, clock.sleep)
        self._known = Known(Eras(), self.sessions, SharedSessions(remembers, clock.monotonic))
        self._documents = Documents(upstreams, clock.monotonic)
        self._tokens = Tokens(upstreams, clock.monotonic)

    def made(self, entry: ToolboxEntry, upstream: Upstream, most: int | None, whose: Whose) -> ToolServer:
        """The upstream, for one call: `most` bytes of an answer, else the manifest's. Raises ToolFault when what opens it is missing."""
        spec = upstream.spec
        key = f"{entry.field}/{upstream.name} {place_of(spec)}"
        size = most or quantities.octets(str(spec["maxResult"]))
        if spec.get("agent"):
            return self._agent(entry, upstream, size, whose)
        if spec.get("stdio"):
            at = StdioPlace(entry.tenant, entry.name, upstream.name, entry.places.get(upstream.name), size)
            return StdioUpstream(at, self._programs)

        def opened(opening: Opening, grant: str = "") -> ToolServer:
            if spec.get("openapi"):
                where = ApiPlace(key, spec["openapi"], opening, size, upstream.may)
                return ApiUpstream(where, self._upstreams, self._documents)
            spoken = spec["mcp"]
            at_url = Place(key, str(spoken["url"]), opening, size, _kept_for(whose.session, spec, grant))
            if spoken.get("transport") == "sse":
                return SseUpstream(at_url, self._upstreams, self._version)
            return McpUpstream(at_url, self._upstreams, self._known, self._version)

        def authorized(tokens: TokenSource, *secrets: str) -> ToolServer:
            return Authorized(
                tokens,
                make=lambda token: opened(by_token(token, *secrets), tokens.grant),
                again=lambda tool: upstream.permits(tool) == "again",
                now=self._clock.monotonic,
            )

        oauth, named, identity = spec.get("oauth"), spec.get("credential"), spec.get("workloadIdentity")
        if oauth:
            secret = self._secret(entry, upstream, oauth["clientSecret"])
            return authorized(self._tokens_of(entry, upstream, key, secret, whose), secret)
        if identity:
            workload = Workload(entry.tenant, f"toolboxes/{key}", identity)
            return authorized(WorkloadToken(self._openers.identity, workload))
        return opened(by_credential(named, self._secret(entry, upstream, named)) if named else Opening())

    def _tokens_of(self, entry: ToolboxEntry, upstream: Upstream, key: str, secret: str, whose: Whose) -> TokenSource:
        if is_per_user(upstream.spec):
            wanted, mine = terms(entry.name, upstream.spec, secret), self._openers.of_users
            return UserToken(mine.consents, mine.users, entry.tenant, whose, wanted)
        return Ordered(self._tokens, ordered(key, upstream.spec["oauth"], secret))

    def _agent(self, entry: ToolboxEntry, upstream: Upstream, size: int, whose: Whose) -> ToolServer:
        said = upstream.spec["agent"]
        manner = Manner(
            entry.tenant, str(said["name"]), f"{entry.name}/{upstream.name}", whose, fresh=said["session"] == "fresh"
        )
        return AgentUpstream(manner, str(said["description"]), size, self._asks)

    def _secret(self, entry: ToolboxEntry, upstream: Upstream, named: dict[str, Any]) -> str:
        found = self._openers.credentials.get(tool_credential_name(entry.tenant, entry.name, upstream.name))
        if found is None:
            text = f"the platform found no usable value '{named['key']}' of secret '{named['secret']}'"
            raise ToolFault(text, sent=False, final=True)
        return found


def _kept_for(session: str, spec: dict[str, Any], grant: str) -> str:
    """For whom a server keeps a session: an agent's session, and what opens the server. One that was begun as somebody is nobody else's,
    also where a manifest names another account, or a user consents anew with another one. Empty without an agent's session."""
    if not session:
        return ""
    opened_by = [spec.get("credential"), spec.get("oauth"), spec.get("workloadIdentity"), grant]
    return f"{session} {hashlib.sha256(orjson.dumps(opened_by, option=orjson.OPT_SORT_KEYS)).hexdigest()}"

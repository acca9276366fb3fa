"""Tokens of model endpoints and tool servers by workload identity: a projected service-account token, shown to the provider's token
endpoint.

Layer: engine; I/O by the token server and one folder. The file is read at each exchange: the kubelet replaces it. What came is kept
(`kept_token.py`). A projected token is shown at the hosts alone that the platform's settings name, whatever a
manifest says, and for its tenant's manifests only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from moorage_api.catalog import EndpointEntry
from moorage_api.upstream_places import authority, named
from moorage_gateway import token_requests
from moorage_gateway.kept_token import Got, KeptToken
from moorage_gateway.models.asking import Upstreams
from moorage_gateway.models.credentials import MOST, usable
from moorage_gateway.token_requests import Client, TokenFault

MOST_HELD = 1000
"""Tokens that one gateway keeps."""

_JWT_CLIENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_ACCESS = "urn:ietf:params:oauth:token-type:access_token"


class NoToken(Exception):
    """`str()` says why there is none; never what was shown, nor what came. `late`: out of time. `final`: asking again changes nothing."""

    def __init__(self, detail: str, *, late: bool = False, final: bool = False) -> None:
        super().__init__(detail)
        self.late = late
        self.final = final


@dataclass(frozen=True)
class Workload:
    """Whose token: `whose` is one endpoint or upstream of a tenant's, `described` its manifest's `workloadIdentity`."""

    tenant: str
    whose: str
    described: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, bytes]:
        """Whose, by what its manifest says."""
        return self.whose, orjson.dumps(self.described, option=orjson.OPT_SORT_KEYS)


def of_endpoint(endpoint: EndpointEntry) -> Workload:
    """A model endpoint's."""
    return Workload(endpoint.tenant, f"models/{endpoint.field}", endpoint.spec["workloadIdentity"])


class WorkloadTokens:
    """Those of this process. `folder`: a file TENANT_NAME each; `hosts`: where they may be shown, as HOST:PORT; `now` in seconds that only
    go forward."""

    def __init__(
        self, upstreams: Upstreams, folder: Path | None, hosts: frozenset[str], now: Callable[[], float]
    ) -> None:
        self._upstreams = upstreams
        self._folder = folder
        self._hosts = hosts
        self._now = now
        self._held: OrderedDict[tuple[str, bytes], KeptToken] = OrderedDict()

    async def get(self, workload: Workload, seconds: float) -> str:
        """A bearer token for it. Raises NoToken."""
        key = workload.key
        held = self._held.setdefault(key, KeptToken(self._now, NoToken))
        self._held.move_to_end(key)
        while len(self._held) > MOST_HELD:
            self._held.popitem(last=False)
        try:
            got = await held.get(lambda: self._asked(workload.tenant, workload.described), seconds)
        except TimeoutError:
            raise NoToken("its token server did not answer in time", late=True) from None
        if got.refusal:
            raise NoToken(got.refusal, final=True)
        return got.token

    def drop(self, workload: Workload, token: str) -> None:
        """It is not accepted any more."""
        held = self._held.get(workload.key)
        if held is not None:
            held.drop(token)

    async def _asked(self, tenant: str, described: Mapping[str, Any]) -> Got:
        url = str(described["tokenUrl"])
        host = named(*authority(url))
        if host not in self._hosts:
            raise NoToken(
                f"tokens of workloads may not be shown at {host}: the chart's workloadIdentity.hosts names where they may",
                final=True,
            )
        shown = self._shown(tenant, str(described["token"]))
        if shown is None:
            raise NoToken(
                f"the platform has no projected token '{described['token']}' for tenant '{tenant}': the chart's workloadIdentity.tokens "
                "names those there are",
                final=True,
            )
        try:
            said = await token_requests.ask(
                self._upstreams, Client(url, "", "", in_form=False), _fields(described, shown)
            )
        except TokenFault as fault:
            raise NoToken(f"its token server: {fault}", late=fault.late, final=fault.final) from None
        if said.status >= 500:
            raise NoToken(said.refusal)
        token = said.token()
        if token is None or not said.is_bearer:
            return Got(refusal=said.refusal if token is None else "its token server gave no bearer token")
        return Got(token, said.lasts)

    def _shown(self, tenant: str, name: str) -> str | None:
        """On a file system in memory, so that a read does not wait."""
        if self._folder is None:
            return None
        try:
            with (self._folder / f"{tenant}_{name}").open("rb") as file:
                return usable(file.read(MOST).decode("ascii"))
        except (OSError, UnicodeDecodeError):
            return None


def _fields(said: Mapping[str, Any], shown: str) -> list[tuple[str, str]]:
    fields = sorted(said["parameters"].items())
    fields += [("client_id", str(said["clientId"]))] if said.get("clientId") else []
    fields += [("scope", " ".join(said["scopes"]))] if said["scopes"] else []
    match said["grant"]:
        case "clientAssertion":
            kind = [
                ("grant_type", "client_credentials"),
                ("client_assertion_type", _JWT_CLIENT),
                ("client_assertion", shown),
            ]
        case "jwtBearer":
            kind = [("grant_type", _JWT_GRANT), ("assertion", shown)]
        case _:
            kind = [
                ("grant_type", _EXCHANGE),
                ("subject_token", shown),
                ("subject_token_type", _JWT),
                ("requested_token_type", _ACCESS),
            ]
            kind += [("audience", str(said["audience"]))] if said.get("audience") else []
    return [*kind, *fields]

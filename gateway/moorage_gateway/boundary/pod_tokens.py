"""A pod's projected service-account token, verified offline: token and time in, pod out. Layer: gateway; pure.

Called by `proofs.py` for the sandbox port and the egress proxy. Nothing of a token goes into a reason: reasons are logged.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from moorage_api.pod_tokens import PodTokens
from moorage_api.tokens import MAX_POD_TOKEN, BuildIdentity, Identity

LEEWAY_S = 30.0
"""How far the clocks of the API server and of a gateway may be apart."""
CACHED = 4096
ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}
"""By type of key. Which one a key verifies with is never the token's to say."""

log = logging.getLogger(__name__)


class NotProven(Exception):
    """The token proves nothing here; `str()` says why, for logs and for the sandbox."""


@dataclass(frozen=True)
class Pod:
    """Which pod a token was made for, and when it holds (epoch seconds)."""

    namespace: str
    name: str
    service_account: str
    begins: float
    expires: float


class PodTokenVerifier:
    """Verifies by one published set. What was verified is remembered until it expires, the `cached` most lately seen."""

    def __init__(self, said: PodTokens, *, cached: int = CACHED) -> None:
        self.said = said
        self._keys = _usable(said.jwks["keys"])
        self._cached = cached
        self._known: OrderedDict[bytes, Pod] = OrderedDict()  # by a hash of the token, so that no token is kept

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def read(self, token: str, now: float) -> Pod:
        """The pod that `token` was made for, which may still be any pod. `now` in epoch seconds. Raises NotProven."""
        if len(token) > MAX_POD_TOKEN:
            raise NotProven("the pod token is too long")
        known_by = hashlib.sha256(token.encode()).digest()
        pod = self._known.pop(known_by, None) or self._verified(token)
        if now >= pod.expires + LEEWAY_S:
            raise NotProven("the pod token has expired")
        if now < pod.begins - LEEWAY_S:
            raise NotProven("the pod token does not hold yet")
        self._known[known_by] = pod
        while len(self._known) > self._cached:
            self._known.popitem(last=False)
        return pod

    def _verified(self, token: str) -> Pod:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._keys.get(kid) if isinstance(kid, str) else None
            if key is None:
                raise NotProven("the pod token is signed by no key of the cluster")
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self.said.audience,
                issuer=self.said.issuer,
                # Times are judged by `read`, whose clock is its caller's.
                options={
                    "require": ["exp", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.InvalidAudienceError:
            raise NotProven("the pod token is for another audience") from None
        except jwt.InvalidIssuerError:
            raise NotProven("the pod token is of another issuer") from None
        except jwt.MissingRequiredClaimError:
            raise NotProven("the pod token lacks its issuer, its audience or its end") from None
        except jwt.PyJWTError:  # its text may quote the token
            raise NotProven("the pod token is not one that the cluster has signed") from None
        return _pod(claims)


def check(pod: Pod, identity: Identity, namespaces: Mapping[str, str]) -> None:
    """Raises NotProven unless it is this sandbox's own pod, in a namespace of its tenant."""
    if namespaces.get(pod.namespace) != identity.tenant:
        raise NotProven("the pod token is of a namespace that is not the tenant's")
    if pod.name != identity.sandbox:
        raise NotProven("the pod token is another pod's")


def check_build(pod: Pod, identity: BuildIdentity, namespaces: Mapping[str, str]) -> None:
    """Raises NotProven unless it is a pod of this build's Job, whose names the cluster makes out of the Job's."""
    if namespaces.get(pod.namespace) != identity.tenant:
        raise NotProven("the pod token is of a namespace that is not the tenant's")
    if not pod.name.startswith(f"{identity.job}-") or pod.service_account != identity.account:
        raise NotProven("the pod token is another pod's")


def _usable(keys: list[Mapping[str, Any]]) -> dict[str, jwt.PyJWK]:
    """By key id. A set may hold keys of other kinds: they verify nothing here, and the others still do."""
    found: dict[str, jwt.PyJWK] = {}
    for key in keys:
        algorithm = ALGORITHMS.get(key["kty"])
        if algorithm is None or key.get("alg", algorithm) != algorithm or key.get("crv", "P-256") != "P-256":
            continue
        try:
            found[key["kid"]] = jwt.PyJWK(dict(key), algorithm)
        except jwt.PyJWTError:
            log.warning("a key of the cluster cannot be read; what it has signed is refused")
    return found


def _pod(claims: Mapping[str, Any]) -> Pod:
    of = _inner(claims, "kubernetes.io")
    namespace, name = of.get("namespace"), _inner(of, "pod").get("name")
    account = _inner(of, "serviceaccount").get("name")
    if not (isinstance(namespace, str) and isinstance(name, str) and isinstance(account, str) and account):
        raise NotProven("the pod token is bound to no pod")
    return Pod(namespace, name, account, _time(claims.get("nbf", 0)), _time(claims["exp"]))


def _inner(claims: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = claims.get(name)
    return found if isinstance(found, dict) else {}


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NotProven("the pod token has a time that is none")
    return float(value)

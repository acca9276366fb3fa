"""What the tokens of a cluster's pods are verified with: the operator publishes it, gateways read it. Layer: the floor; stdlib only.

A projected service-account token is bound to one pod and to our audience; with the cluster's public keys it is verified offline,
so that gateways need no right in the cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_KEYS = 64
PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members of a JSON Web Key that hold what only the signer may know (RFC 7518 §6)."""


@dataclass(frozen=True)
class PodTokens:
    """Raises ValueError for what cannot be meant: nothing to compare with, or a key that is not public.

    `jwks` is the cluster's key set as its API server publishes it (`{"keys": [...]}`), `namespaces` says whose each namespace is
    (namespace → tenant): a pod elsewhere is nobody's.
    """

    issuer: str
    audience: str
    jwks: Mapping[str, Any]
    namespaces: Mapping[str, str]

    def __post_init__(self) -> None:
        if not (isinstance(self.issuer, str) and self.issuer and isinstance(self.audience, str) and self.audience):
            raise ValueError("issuer and audience are needed: without them any token of the cluster would do")
        keys = self.jwks.get("keys") if isinstance(self.jwks, Mapping) else None
        if not isinstance(keys, list) or len(keys) > MAX_KEYS:
            raise ValueError(f"jwks has a list 'keys' of at most {MAX_KEYS} keys")
        for key in keys:
            _public(key)
        named = self.namespaces
        if not isinstance(named, Mapping) or not all(isinstance(each, str) and each for each in named.values()):
            raise ValueError("namespaces says of each namespace whose it is")

    @classmethod
    def nobody(cls) -> PodTokens:
        """Verifies no token at all: for whoever was told to ask for one and could not read how."""
        return cls("none", "none", {"keys": []}, {})

    def to_json(self) -> str:
        """The text `from_json` reads."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> PodTokens:
        """Raises ValueError for anything `to_json` would not write; fields unknown here are passed over."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("not an object")
        try:
            return cls(data["issuer"], data["audience"], data["jwks"], data["namespaces"])
        except KeyError as missing:
            raise ValueError(f"{missing.args[0]} is missing") from None


def _public(key: object) -> None:
    """Raises ValueError, which names no value of the key."""
    if not isinstance(key, Mapping) or not isinstance(key.get("kty"), str) or not isinstance(key.get("kid"), str):
        raise ValueError("every key has kty and kid")
    if key["kty"] == "oct" or PRIVATE & key.keys():
        raise ValueError("a key of jwks is not a public one: publish the cluster's public keys only")

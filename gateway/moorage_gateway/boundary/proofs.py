"""Who a sandbox is, by what its shim shows: one place for the sandbox port and the egress proxy. Layer: gateway; no I/O.

published        | shown                             | it is
-----------------|-----------------------------------|--------------------------------------
nothing          | anything                          | NotReady
token key        | a token we signed                 | the sandbox named there
key, pod tokens  | such a token and a pod token      | the same, if the pod is that sandbox
any              | anything else                     | NotProven

Builds are told apart by their token: a sandbox's is no build's, and a build's no sandbox's. They exist where pods do.
"""

from __future__ import annotations

import logging
from typing import Protocol

from moorage_api import tokens
from moorage_api.pod_tokens import PodTokens
from moorage_gateway.boundary import pod_tokens
from moorage_gateway.boundary.pod_tokens import NotProven
from moorage_gateway.clock import Clock

log = logging.getLogger(__name__)


class Published(Protocol):
    """What the catalog holds of the platform."""

    @property
    def token_key(self) -> str | None:
        """The key (hex) that sandbox tokens are signed with, None before it was read."""

    @property
    def pod_tokens(self) -> PodTokens | None:
        """What pod tokens are verified with, None where sandboxes are no pods."""


class NotReady(NotProven):
    """Nobody can be identified yet: the provider has not published its key."""


class Proofs:
    """Identifies sandboxes by what is published now."""

    def __init__(self, published: Published, clock: Clock) -> None:
        self._published = published
        self._clock = clock
        self._verifier: pod_tokens.PodTokenVerifier | None = None

    def identify(self, token: str | None, pod_token: str | None) -> tokens.Identity:
        """Raises NotReady, NotProven."""
        identity = tokens.verify(token, self._key()) if token else None
        if identity is None:
            raise NotProven("the sandbox token is missing or not ours")
        said = self._published.pod_tokens
        if said is None:
            return identity
        try:
            if not pod_token:
                raise NotProven("the pod token is missing")
            pod = self._verifier_of(said).read(pod_token, self._clock.now_ms() / 1000)
            pod_tokens.check(pod, identity, said.namespaces)
        except NotProven as why:
            # Whoever shows a token of ours is a sandbox set up wrongly, or somebody with another's token.
            log.info("sandbox %s of %s/%s is refused: %s", identity.sandbox, identity.tenant, identity.agent, why)
            raise
        return identity

    def is_build(self, token: str) -> bool:
        """Whether a token is a build's, proven or not. Raises NotReady."""
        return tokens.verify_build(token, self._key()) is not None

    def identify_build(self, token: str | None, pod_token: str | None) -> tokens.BuildIdentity:
        """Who a build is. Raises NotReady, NotProven."""
        identity = tokens.verify_build(token, self._key()) if token else None
        said = self._published.pod_tokens
        if identity is None or said is None:
            raise NotProven("the build's token is missing or not ours")
        try:
            if not pod_token:
                raise NotProven("the pod token is missing")
            pod = self._verifier_of(said).read(pod_token, self._clock.now_ms() / 1000)
            pod_tokens.check_build(pod, identity, said.namespaces)
        except NotProven as why:
            log.info("build %s of %s/%s is refused: %s", identity.job, identity.tenant, identity.agent, why)
            raise
        return identity

    def identify_either(self, token: str | None, pod_token: str | None) -> None:
        """That somebody is a sandbox or a build. Raises NotReady, NotProven."""
        if token and self.is_build(token):
            self.identify_build(token, pod_token)
        else:
            self.identify(token, pod_token)

    def secret(self, identity: tokens.Identity) -> str:
        """The secret of an identified sandbox whose shim knows only the hash of it."""
        return tokens.sandbox_secret(identity.sandbox, self._key())

    def _key(self) -> str:
        key = self._published.token_key
        if key is None:
            raise NotReady("the platform is not ready to check sandboxes: try again")
        return key

    def _verifier_of(self, said: PodTokens) -> pod_tokens.PodTokenVerifier:
        """A new one for a new set: what a key verified is forgotten with the key."""
        if self._verifier is None or self._verifier.said is not said:
            self._verifier = pod_tokens.PodTokenVerifier(said)
        return self._verifier

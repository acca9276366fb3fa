"""Volumes as claims: what `machine.PodMachine` does that concerns no pod. Layer: I/O.

A claim is made with its first pod; which session it holds is noted on it, and that a session has left it for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moorage_api import names
from moorage_api.ledger.records import Descriptor, SessionIdentity
from moorage_api.provider.base import Revision
from moorage_operator import marks
from moorage_operator.kube import CLAIMS, Kube
from moorage_operator.observed import Observed, plain


class Claims:
    """Of the watched namespaces. `tenants`: namespace → tenant."""

    def __init__(self, kube: Kube, observed: Observed, tenants: Mapping[str, str]) -> None:
        self._kube = kube
        self._observed = observed
        self._tenants = tenants
        self._making: set[str] = set()

    def create_volume(self, revision: Revision) -> str:
        """See Machine. The claim is made with its first pod."""
        return names.new_sandbox_id().replace("sb-", "ws-", 1)

    def has_volume(self, tenant: str, agent: str, volume: str) -> bool:
        """See Machine. One that its session has left is none."""
        found = self._claim(tenant, agent, volume)
        return found is not None and not marks.left(found)

    def bound(self, tenant: str, agent: str, volume: str) -> tuple[str, int] | None:
        """See Machine."""
        found = self._claim(tenant, agent, volume)
        return marks.bound(found, tenant) if found is not None else None

    async def remove_volume(self, tenant: str, agent: str, volume: str) -> None:
        """See Machine."""
        found = self._claim(tenant, agent, volume)
        if found is not None:
            await self._kube.delete(CLAIMS, found["metadata"]["namespace"], volume, uid=uid(found))
            self._observed.claims.drop(found)

    def volumes(self) -> list[tuple[str, str, str]]:
        """See Machine."""
        return sorted(
            (self._tenant(one), marks.text(one, "labels", marks.AGENT), one["metadata"]["name"])
            for one in self._observed.claims
            if marks.is_ours(one) and marks.text(one, "labels", marks.SANDBOX) not in self._making
        )

    def origin(self, tenant: str, agent: str, volume: str) -> tuple[str, str] | None:
        """See Machine. One that its session has left is nobody's, wherever it came from."""
        found = self._claim(tenant, agent, volume)
        if found is None or marks.left(found):
            return None
        return marks.text(found, "labels", marks.SANDBOX), marks.text(found, "annotations", marks.LEDGER)

    def label(self, tenant: str, agent: str, volume: str) -> SessionIdentity | None:
        """See Machine."""
        found = self._claim(tenant, agent, volume)
        return marks.identity(found) if found is not None else None

    async def set_label(self, one: Descriptor, epoch: int, identity: SessionIdentity) -> None:
        """See Machine."""
        found = self._claim(one.tenant, one.agent, one.volume)
        if found is None:
            return
        key = names.session_key(one.tenant, identity.partition)
        note = {"metadata": {"annotations": marks.noted(key, epoch, identity)}}
        self._observed.claims.put(
            plain(await self._kube.merge(CLAIMS, found["metadata"]["namespace"], one.volume, note))
        )

    async def _give_up(self, claim: Mapping[str, Any]) -> None:
        """The label first: whoever comes after us must not take it for the session's."""
        meta, lost = claim["metadata"], {"metadata": {"labels": {marks.WORKSPACE: marks.LOST_FILES}}}
        await self._kube.merge(CLAIMS, meta["namespace"], meta["name"], lost)
        await self._kube.delete(CLAIMS, meta["namespace"], meta["name"], uid=uid(claim))
        self._observed.claims.drop(claim)

    def _claim(self, tenant: str, agent: str, volume: str) -> Mapping[str, Any] | None:
        for namespace, owner in self._tenants.items():
            found = self._observed.claims.get((namespace, volume)) if owner == tenant else None
            if found is not None and marks.holds_for(found, tenant, agent):
                return found
        return None

    def _tenant(self, body: Mapping[str, Any]) -> str:
        namespace = str(body["metadata"]["namespace"])
        return self._tenants.get(namespace, namespace)


def uid(body: Mapping[str, Any]) -> str:
    """Which object was looked at: a look that is old ends no other one of its name."""
    return str(body["metadata"].get("uid", ""))

"""One of several replicas works: a Lease, held by renewing it. Layer: pure decision, and the loop around it.

The usual bounds of Kubernetes' own components: a holder renews every 2 s, gives up after 10 s without success, and may be followed 15 s
after its last renewal *as its follower's own clock saw it come*: the clocks of two machines are never compared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moorage_operator.kube import LEASES, Kube, KubeError

log = logging.getLogger(__name__)

LASTS_SECONDS = 15
RENEW_SECONDS = 2.0
GIVE_UP_SECONDS = 10.0


@dataclass(frozen=True)
class Watched:
    """A lease as last read: who holds it, its version, and when (by this process' clock) that version was first seen."""

    holder: str
    version: str
    since: float


def may_take(watched: Watched, me: str, *, now: float) -> bool:
    """Whether `me` may write itself in: it holds it, nobody does, or its holder was silent for too long."""
    return watched.holder in (me, "") or now - watched.since >= LASTS_SECONDS


class Lease:
    """Holds one Lease object. `held` waits for it; `lost`, called at once after it, returns when it is no longer surely held."""

    def __init__(
        self, kube: Kube, namespace: str, name: str, me: str, *, now: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._me = me
        self._now = now
        self._wall = wall
        self._watched: Watched | None = None

    async def held(self) -> None:
        """Waits until it is ours."""
        while True:
            if await self._try():
                return
            await asyncio.sleep(RENEW_SECONDS)

    async def lost(self) -> None:
        """Renews it; returns when that failed for `GIVE_UP_SECONDS`, or another one holds it."""
        renewed = self._now()
        while (left := renewed + GIVE_UP_SECONDS - self._now()) > 0:
            await asyncio.sleep(min(RENEW_SECONDS, left))
            asked = self._now()  # what was written then lasts from then
            try:
                async with asyncio.timeout(max(0.0, renewed + GIVE_UP_SECONDS - asked)):
                    mine = await self._try()
            except TimeoutError:
                return
            if mine:
                renewed = asked
            elif self._watched is not None and self._watched.holder != self._me:
                return

    async def release(self) -> None:
        """Gives it back, so that another replica need not wait."""
        try:
            body = await self._kube.get(LEASES, self._namespace, self._name)
            if body is not None and (body.get("spec") or {}).get("holderIdentity") == self._me:
                body["spec"]["holderIdentity"] = ""
                await self._kube.replace(LEASES, body)
        except KubeError as fault:
            log.info("the lease was not given back (%s): it runs out", fault.message)

    async def _try(self) -> bool:
        """One look: takes or renews it where that is allowed. False when it is another's or the API server does not answer."""
        try:
            body = await self._kube.get(LEASES, self._namespace, self._name)
            if body is None:
                made = self._body({"metadata": {"name": self._name, "namespace": self._namespace}}, taken=True)
                self._note(await self._kube.create(LEASES, made))
                return True
            self._note(body)
            assert self._watched is not None
            if not may_take(self._watched, self._me, now=self._now()):
                return False
            fresh = self._body(body, taken=self._watched.holder != self._me)
            self._note(await self._kube.replace(LEASES, fresh))
            return True
        except KubeError as fault:
            log.debug("the lease: %s", fault.message)
            return False

    def _note(self, body: dict[str, Any]) -> None:
        holder = str((body.get("spec") or {}).get("holderIdentity") or "")
        version = str(body["metadata"].get("resourceVersion", ""))
        if self._watched is None or self._watched.version != version:
            self._watched = Watched(holder, version, self._now())

    def _body(self, body: dict[str, Any], *, taken: bool) -> dict[str, Any]:
        at = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(body.get("spec") or {})
        spec |= {"holderIdentity": self._me, "leaseDurationSeconds": LASTS_SECONDS, "renewTime": at}
        if taken:
            spec |= {"acquireTime": at, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": body["metadata"], "spec": spec}

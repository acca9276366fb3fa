"""Configuration that comes through the gateway: applied to the cluster as `moorage-api`, answered by request id. Layer: I/O.

The gateway has validated it; the cluster decides. A field that somebody else manages is not taken away (hostedagent.md, "Who writes
configuration").
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from moorage_api.errors import Kind
from moorage_api.kinds import ManifestError, parse
from moorage_api.ledger.provider import ApplyRequest, ProviderLedger
from moorage_api.ledger.script import LedgerError
from moorage_api.provider.revisions import revision_of
from moorage_operator.kube import AGENTS, ROUTINES, Kube, KubeError

log = logging.getLogger(__name__)

API_MANAGER = "moorage-api"
PAUSE_SECONDS = 0.3
_KINDS = {"HostedAgent": AGENTS, "Routine": ROUTINES}


class Applies:
    """Serves apply requests one at a time. `tenants`: namespace → tenant."""

    def __init__(self, ledger: ProviderLedger, kube: Kube, tenants: Mapping[str, str]) -> None:
        self._ledger = ledger
        self._kube = kube
        self._tenants = tenants

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            try:
                await self.serve()
            except LedgerError as fault:
                log.warning("apply requests wait: %s", fault)
            await asyncio.sleep(PAUSE_SECONDS)

    async def serve(self) -> None:
        """Answers everything that waits. Raises LedgerError."""
        while (request := await self._ledger.next_apply()) is not None:
            await self._ledger.answer(request.id, await self._answer(request))

    async def _answer(self, request: ApplyRequest) -> dict[str, Any]:
        namespace = next((name for name, tenant in self._tenants.items() if tenant == request.tenant), None)
        if namespace is None:
            known = ", ".join(sorted(set(self._tenants.values())))
            return _no(
                f"no watched namespace belongs to the tenant {request.tenant} (there are: {known})", Kind.NOT_FOUND
            )
        try:
            if request.verb == "delete":
                return await self._delete(namespace, request)
            meta = {"name": request.agent, "namespace": namespace}
            body = {
                "apiVersion": "moorage.dev/v1alpha1",
                "kind": request.kind,
                "metadata": meta,
                "spec": request.manifest["spec"],
            }
            made = await self._kube.apply(_KINDS[request.kind], body, manager=API_MANAGER, force=False)
        except KubeError as fault:
            return _refusal(fault)
        log.info("%s %s applied by %s", request.kind, request.agent, request.by)
        revision = _revision(made) if request.kind == "HostedAgent" else ""
        return {"ok": True, "revision": revision, "generation": int(made["metadata"].get("generation", 0))}

    async def _delete(self, namespace: str, request: ApplyRequest) -> dict[str, Any]:
        kind = _KINDS[request.kind]
        found = await self._kube.get(kind, namespace, request.agent)
        if found is None:
            return _no(f"there is no {request.kind} {request.agent}", Kind.NOT_FOUND)
        managers = {
            one.get("manager")
            for one in found["metadata"].get("managedFields") or ()
            if one.get("subresource") != "status"
        }
        others = sorted(str(manager) for manager in managers - {API_MANAGER})
        if others:
            message = f"{request.agent} is managed by {', '.join(others)}; delete it there"
            return {"ok": False, "error": message, "owner": others[0]}
        await self._kube.delete(kind, namespace, request.agent, uid=found["metadata"]["uid"])
        return {"ok": True}


def _revision(body: dict[str, Any]) -> str:
    """The revision that the applied object names; "" where its source has to be resolved first."""
    try:
        spec = parse({name: body[name] for name in ("apiVersion", "kind", "metadata", "spec")}).spec
    except (ManifestError, KeyError):
        return ""
    return revision_of(spec, spec.image) if spec.image is not None else ""


def _no(message: str, kind: Kind) -> dict[str, Any]:
    return {"ok": False, "error": message, "kind": kind.value}


def _refusal(fault: KubeError) -> dict[str, Any]:
    if fault.status == 409:
        return {"ok": False, "error": fault.message, "owner": "another field manager"}
    if fault.status in (400, 422):
        return {"ok": False, "error": fault.message, "field": None}
    return _no(f"the cluster: {fault.message}", Kind.UNAVAILABLE)

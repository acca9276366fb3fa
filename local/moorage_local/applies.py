"""Configuration that comes through the API: taken from the ledger, deployed, kept in the state folder, answered.

Layer: local. The gateway validated and asks; the answer goes back under the request's id (design.md, "Who writes configuration").
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from moorage_api.errors import Kind
from moorage_api.kinds import ManifestError, Routine, parse, parse_any
from moorage_api.ledger.provider import ApplyRequest
from moorage_api.ledger.script import LedgerError
from moorage_api.provider.base import Ledger
from moorage_local import manifests
from moorage_local.deployments import Deployments, Refused
from moorage_local.endpoints import Endpoints

log = logging.getLogger(__name__)

_PAUSE = 0.5
_WITHIN = 25.0  # the gateway waits 30 s


class Applies:
    """Serves apply requests one at a time. `owned`: (tenant, agent) that a manifest file of the folder owns, with the file.

    `tenant`: the one whose routines this platform runs.
    """

    def __init__(
        self, ledger: Ledger, deployments: Deployments, folder: Path, endpoints: Endpoints, tenant: str
    ) -> None:
        self.owned: dict[tuple[str, str], Path] = {}
        self._ledger = ledger
        self._deployments = deployments
        self._folder = folder
        self._endpoints = endpoints
        self._tenant = tenant
        self._routines: dict[str, Routine] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Has it look now."""
        self._wake.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._wake.clear()
            with contextlib.suppress(LedgerError):
                while (request := await self._ledger.next_apply()) is not None:
                    await self._ledger.answer(request.id, await self._answer(request))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE):
                    await self._wake.wait()

    async def restore(self) -> None:
        """Deploys what was kept; what no longer works says so in its conditions."""
        self._routines = manifests.saved_routines(self._folder, self._tenant)
        self._endpoints.apply(self._routines)
        for tenant, found in manifests.saved(self._folder):
            if (tenant, found.agent.name) in self.owned:
                continue
            with contextlib.suppress(Refused):
                await self._deployments.deploy(tenant, found.agent, base=None)

    async def _answer(self, request: ApplyRequest) -> dict[str, Any]:
        if request.kind == Routine.__name__:
            return self._routine(request)
        owner = self.owned.get((request.tenant, request.agent))
        if owner is not None:
            message = f"{request.agent} comes from a file of this platform's folder; change it there"
            return {"ok": False, "error": message, "owner": str(owner)}
        try:
            async with asyncio.timeout(_WITHIN):
                if request.verb == "delete":
                    return await self._delete(request)
                agent = parse(request.manifest)
                revision = await self._deployments.deploy(request.tenant, agent, base=None)
        except ManifestError as error:
            return {"ok": False, "error": str(error), "field": error.field}
        except Refused as error:
            return {"ok": False, "error": str(error), "field": error.field}
        except TimeoutError:
            return {
                "ok": False,
                "error": f"the source was not there within {_WITHIN:g} s",
                "kind": Kind.UNAVAILABLE.value,
            }
        manifests.save(self._folder, request.tenant, agent)
        log.info("%s deployed by %s as revision %s", agent.name, request.by, revision)
        return {"ok": True, "revision": revision}

    async def _delete(self, request: ApplyRequest) -> dict[str, Any]:
        known = await self._deployments.withdraw(request.tenant, request.agent)
        if not manifests.forget(self._folder, request.tenant, request.agent) and not known:
            return {"ok": False, "error": f"there is no agent {request.agent}", "kind": Kind.NOT_FOUND.value}
        return {"ok": True}

    def _routine(self, request: ApplyRequest) -> dict[str, Any]:
        name = request.agent
        if request.tenant != self._tenant:
            return {"ok": False, "error": f"this machine runs routines of the tenant {self._tenant} only"}
        file = self._endpoints.file_of(name)
        if file is not None:
            return {
                "ok": False,
                "error": f"{name} comes from a file of this platform's folder; change it there",
                "owner": str(file),
            }
        if request.verb == "delete":
            manifests.forget(self._folder, self._tenant, name, Routine.__name__)
            if self._routines.pop(name, None) is None:
                return {"ok": False, "error": f"there is no routine {name}", "kind": Kind.NOT_FOUND.value}
            self._endpoints.apply(self._routines)
            return {"ok": True}
        try:
            routine = parse_any(request.manifest)
        except ManifestError as error:
            return {"ok": False, "error": str(error), "field": error.field}
        assert isinstance(routine, Routine)  # the gateway has looked
        why = self._endpoints.refusal(routine)
        if why is not None:
            return {"ok": False, "error": why, "field": why.partition(":")[0]}
        manifests.save(self._folder, self._tenant, routine)
        self._routines[name] = routine
        said = self._endpoints.apply(self._routines)
        log.info("routine %s applied by %s", name, request.by)
        return {"ok": True, "warnings": [one for one in said if one.startswith(f"routine {name},")]}

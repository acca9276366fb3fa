"""Programs of toolboxes as pods: observe → decide → apply, at every look. Layer: the operator's middle.

pod                          | what is done                          | standing
-----------------------------|---------------------------------------|-----------------------------------------------
not there                    | account and policy stand, it is made  | waits
made otherwise than now      | removed, to be made as it should be   | waits
ended (evicted, node lost)   | removed                               | waits
ready                        | nothing                               | its place: the pod's own address
starting, failing            | nothing                               | waits, with why and its last lines
nobody wants it              | removed                               |
the last of its toolbox gone | account and policy are removed        |
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

from moorage_api.printed import shown
from moorage_api.wire.stdio import PORT
from moorage_operator import marks, objects, pods, program_objects
from moorage_operator.kube import ACCOUNTS, PODS, POLICIES, SECRETS, Kind, Kube, KubeError, Object
from moorage_operator.program_objects import Program
from moorage_operator.settings import Settings

log = logging.getLogger(__name__)

LAST_LINES = 5
NOTED = 100
"""Refusals of the cluster that are told."""

_UNOWNED: Object = {"metadata": {"ownerReferences": None}}
_GUARDS = {marks.OURS: marks.MANAGER, marks.PART: marks.PROGRAM}

Guards: TypeAlias = Mapping[tuple[Kind, str, str], Mapping[str, Any]]
"""Accounts and policies by kind, namespace and name."""


@dataclass(frozen=True)
class Standing:
    """`place`: where gateways reach it; `waits`: why they cannot, for people."""

    place: str = ""
    waits: str = ""


class Programs:
    """Runs them."""

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings
        self._noted: set[str] = set()

    async def look(self, wanted: Iterable[Program]) -> dict[tuple[str, str, str], Standing]:
        """One look at all of them, by namespace, toolbox and upstream. Raises KubeError."""
        found = {(one.namespace, one.name): one for one in wanted}
        held: dict[tuple[str, str], Mapping[str, Any]] = {}
        kept = {(one.namespace, one.toolbox) for one in found.values()}
        for namespace in self._settings.namespaces:
            async for body in self._kube.each(PODS, namespace, labels={marks.PART: marks.PROGRAM}):
                name = str(body["metadata"]["name"])
                held[namespace, name] = body
                kept.add((namespace, marks.text(body, "labels", marks.TOOLBOX)))  # while a pod ends it is guarded
                if (namespace, name) not in found:
                    await self._remove(body)
        guards = await self._guards(kept)
        return {
            (one.namespace, one.toolbox, one.upstream): await self._standing(one, held.get(where), guards)
            for where, one in found.items()
        }

    async def _guards(self, kept: Set[tuple[str, str]]) -> Guards:
        """Accounts and policies of programs, as they are; those of no toolbox in `kept`, by namespace and name, are removed."""
        found: dict[tuple[Kind, str, str], Mapping[str, Any]] = {}
        for kind in (POLICIES, ACCOUNTS):
            for namespace in self._settings.namespaces:
                async for body in self._kube.each(kind, namespace, labels=_GUARDS):
                    toolbox, name = marks.text(body, "labels", marks.TOOLBOX), str(body["metadata"]["name"])
                    if name != program_objects.guard(toolbox):
                        continue  # somebody's own, with our labels
                    if (namespace, toolbox) in kept:
                        found[kind, namespace, name] = body
                    else:
                        await self._unguarded(kind, body)
        return found

    async def _unguarded(self, kind: Kind, body: Mapping[str, Any]) -> None:
        meta = body["metadata"]
        if meta.get("deletionTimestamp"):
            return
        try:
            await self._kube.delete(kind, meta["namespace"], meta["name"], uid=meta["uid"])
        except KubeError as fault:
            if not fault.status:
                raise
            if fault.message not in self._noted and len(self._noted) < NOTED:  # once, not at every look
                self._noted.add(fault.message)
                log.warning("%s of a toolbox without programs stays: %s", meta["name"], fault.message)

    async def _standing(self, one: Program, body: Mapping[str, Any] | None, guards: Guards) -> Standing:
        try:
            missing, seen = await self._secrets(one)
            if missing:
                if body is not None:
                    await self._remove(body)
                return Standing(waits=missing)
            one = Program(one.namespace, one.tenant, one.toolbox, one.upstream, one.server, one.owner, seen)
            await self._guard(one, guards)
            if body is None:
                await self._kube.create(PODS, program_objects.pod(one, self._settings))
                return Standing(waits="its pod is being made")
            return await self._looked(one, body)
        except KubeError as fault:
            if not fault.status:
                raise
            return Standing(waits=f"the cluster refuses what it needs: {fault.message}")

    async def _looked(self, one: Program, body: Mapping[str, Any]) -> Standing:
        seen = pods.seen(body)
        if marks.text(body, "annotations", marks.MADE) != program_objects.made(one, self._settings):
            await self._remove(body)
            return Standing(waits="its manifest or a secret has changed; its pod is made anew")
        phase = (body.get("status") or {}).get("phase")
        if phase in ("Failed", "Succeeded"):
            await self._remove(body)
            return Standing(waits=f"{seen.reason}; it is made anew")
        if seen.state == "ready":
            host = f"[{seen.address}]" if ":" in seen.address else seen.address
            return Standing(place=f"http://{host}:{PORT}")
        lines = await self._kube.log_tail(one.namespace, one.name, program_objects.CONTAINER, LAST_LINES)
        return Standing(waits=": ".join([seen.reason, *([shown("\n".join(lines))] if lines else [])]))

    async def _secrets(self, one: Program) -> tuple[str, str]:
        """Why its secrets cannot be used, and what names their values: with a key, so that nobody can try values by it."""
        key, digest = bytes.fromhex(self._settings.token_key.get_secret_value()), hashlib.sha256()
        for name, named in sorted(one.server.secrets.items()):
            try:
                secret = await self._kube.get(SECRETS, one.namespace, named.secret)
            except KubeError as fault:
                if fault.status != 403:
                    raise
                return f"{name}: {forbidden(named.secret)}", ""
            value = ((secret or {}).get("data") or {}).get(named.key)
            if not value:
                what = f"has no value {named.key!r}" if secret is not None else "is not there"
                return f"{name}: the Secret {named.secret} {what} in the namespace {one.namespace}", ""
            digest.update(f"{name}\0".encode() + base64.b64decode(str(value)) + b"\0")
        return "", hmac.digest(key, b"moorage program's secrets v1\0" + digest.digest(), "sha256").hex()[:32]

    async def _guard(self, one: Program, guards: Guards) -> None:
        """Account and policy stand before the pod; nothing is written where they do."""
        for kind, body in (
            (ACCOUNTS, program_objects.account(one)),
            (POLICIES, program_objects.policy(one, self._settings)),
        ):
            held = guards.get((kind, one.namespace, body["metadata"]["name"]))
            if held is None or not objects.stands(held, body):
                await self._kube.apply(kind, body, manager=marks.MANAGER)
            if held is not None and held["metadata"].get(
                "ownerReferences"
            ):  # by an older operator: it must outlive those
                await self._kube.merge(kind, one.namespace, held["metadata"]["name"], _UNOWNED)

    async def _remove(self, body: Mapping[str, Any]) -> None:
        meta = body["metadata"]
        if not meta.get("deletionTimestamp"):
            await self._kube.delete(PODS, meta["namespace"], meta["name"], uid=meta["uid"])


def forbidden(secret: str) -> str:
    """A Secret that the chart does not let the operator read."""
    return (
        f"the operator may not read the Secret {secret}: name it under models.secrets (or toolboxes.secrets) in the chart's "
        "values, which lets it read that one and no other"
    )

"""The API server as the operator speaks to it: plain objects in and out. Layer: I/O rim; the only module that imports a Kubernetes client.

Raw calls with the official client's credentials, TLS and rotation: its typed objects would cost 100 MB (packages.md §2). Watches go
over its connections, and everything where a proxy is in between; else calls go over `direct`.

    KubeError (OSError)   the server said no, or did not answer; `status` 0 when there was no answer, `reason` is Kubernetes' word
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes.aio.client.api_client import ApiClient

from moorage_operator.direct import Direct

Object: TypeAlias = dict[str, Any]
CALL_SECONDS = 15.0
CONNECT_SECONDS = 10.0
WATCH_SECONDS = 240.0
"""A watch is begun anew after so long."""
SILENT_SECONDS = 100.0
"""A watch that says nothing for so long is dead: servers send a bookmark about once a minute."""
AGAIN_SECONDS = (0.05, 0.1, 0.2)
"""Pauses before a write that met a conflict is sent again, each up to half longer by chance: as when many pods count against one quota."""
PAGE = 500
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class Kind:
    """A resource: API version and plural, as paths have them."""

    api: str
    plural: str

    def path(self, namespace: str | None, name: str = "", part: str = "") -> str:
        """The URL path of a collection or an object, or a part of it (`status`, `log`)."""
        root = f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"
        inner = f"/namespaces/{quote(namespace)}" if namespace else ""
        rest = "".join(f"/{quote(piece)}" for piece in (name, part) if piece)
        return f"{root}{inner}/{self.plural}{rest}"


AGENTS = Kind("moorage.dev/v1alpha1", "hostedagents")
ENDPOINTS = Kind("moorage.dev/v1alpha1", "modelendpoints")
TOOLBOXES = Kind("moorage.dev/v1alpha1", "toolboxes")
ROUTINES = Kind("moorage.dev/v1alpha1", "routines")
SECRETS = Kind("v1", "secrets")
EVENTS = Kind("v1", "events")
PODS = Kind("v1", "pods")
CLAIMS = Kind("v1", "persistentvolumeclaims")
ACCOUNTS = Kind("v1", "serviceaccounts")
NAMESPACES = Kind("v1", "namespaces")
POLICIES = Kind("networking.k8s.io/v1", "networkpolicies")
JOBS = Kind("batch/v1", "jobs")
LEASES = Kind("coordination.k8s.io/v1", "leases")


class KubeError(OSError):
    """A call that did not do what was asked."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class Kube:
    """Calls on one API server. Every method may raise KubeError; each waits at most `CALL_SECONDS`.

    `direct`: what calls go over; None: the client's own connections.
    """

    def __init__(self, api: ApiClient, direct: Direct | None = None) -> None:
        self._api = api
        self._direct = direct
        self.calls = 0  # requests sent (performance.md P3)
        self.writes = 0

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """One object; None when it is not there."""
        try:
            return await self._json("GET", kind.path(namespace, name))
        except KubeError as fault:
            if fault.status == 404:
                return None
            raise

    async def each(self, kind: Kind, namespace: str, *, labels: Mapping[str, str]) -> AsyncIterator[Object]:
        """All objects with these labels."""
        async for items, _ in self.pages(kind, namespace, labels=labels):
            for item in items:
                yield item

    async def pages(
        self, kind: Kind, namespace: str, *, labels: Mapping[str, str]
    ) -> AsyncIterator[tuple[list[Object], str]]:
        """All objects with these labels, a page at a time, with the version of the whole list."""
        selector = ",".join(f"{key}={text}" for key, text in labels.items())
        query = [("limit", str(PAGE)), *([("labelSelector", selector)] if selector else [])]
        more = ""
        while True:
            page = await self._json(
                "GET", kind.path(namespace), query=[*query, *([("continue", more)] if more else [])]
            )
            named = {
                "apiVersion": page.get("apiVersion", kind.api),
                "kind": str(page.get("kind", "")).removesuffix("List"),
            }  # lists leave both out
            yield (
                [{**named, **item} for item in page.get("items", [])],
                str(page.get("metadata", {}).get("resourceVersion", "")),
            )
            more = page.get("metadata", {}).get("continue", "")
            if not more:
                return

    async def watch(self, kind: Kind, namespace: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        """What changes after `version` (ADDED, MODIFIED, DELETED, BOOKMARK; the object), until the server or `WATCH_SECONDS` end it.

        KubeError 410: the server no longer knows that version.
        """
        query = [("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", version)]
        limits = aiohttp.ClientTimeout(total=WATCH_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
        try:
            answer = await self._ask("GET", kind.path(namespace), query, None, "application/json", limits)
            if answer.status >= 300:
                raise _refusal(answer.status, bytes(await answer.read()))
            with contextlib.closing(answer.response):
                async for line in answer.response.content:
                    told, body = _event(line)
                    if told == "ERROR":
                        raise _refusal(int(body.get("code") or 0), json.dumps(body).encode())
                    yield told, body
        except TimeoutError:
            return
        except KubeError:
            raise
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as fault:
            raise KubeError(0, "NoAnswer", f"the watch broke off: {type(fault).__name__}") from fault

    async def create(self, kind: Kind, body: Object) -> Object:
        """Makes an object; KubeError 409 (`AlreadyExists`) when it is there."""
        return await self._written("POST", kind.path(body["metadata"]["namespace"]), body=body)

    async def apply(self, kind: Kind, body: Object, *, manager: str, force: bool = True) -> Object:
        """Server-side apply. Without `force` a field that another manager owns is KubeError 409 (`Conflict`)."""
        meta = body["metadata"]
        query = [("fieldManager", manager), ("force", "true" if force else "false")]
        return await self._json(
            "PATCH", kind.path(meta["namespace"], meta["name"]), query=query, body=body, content=APPLY
        )

    async def merge(self, kind: Kind, namespace: str, name: str, body: Object, *, part: str = "") -> Object:
        """Changes some fields (`part`: `status`)."""
        return await self._written("PATCH", kind.path(namespace, name, part), body=body, content=MERGE)

    async def replace(self, kind: Kind, body: Object) -> Object:
        """Writes an object back; KubeError 409 when it was changed since it was read."""
        meta = body["metadata"]
        return await self._json("PUT", kind.path(meta["namespace"], meta["name"]), body=body)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "", grace: int | None = None) -> None:
        """Asks for an object's end; none there is fine. `uid`: only this very one. `grace`: seconds for a pod."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._written("DELETE", kind.path(namespace, name), body=options)
        except KubeError as fault:
            if fault.status != 404:
                raise

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> tuple[str, ...]:
        """The last lines a container printed; () when there are none to be had."""
        query = [("container", container), ("tailLines", str(lines)), ("limitBytes", "65536")]
        try:
            text = await self.call("GET", PODS.path(namespace, pod, "log"), query=query)
        except KubeError:
            return ()
        return tuple(text.decode(errors="replace").splitlines())

    async def public_keys(self) -> Object:
        """The keys that service-account tokens are signed with, as a JSON Web Key Set."""
        return await self._json("GET", "/openid/v1/jwks")

    async def issuer(self) -> str:
        """Who signs service-account tokens."""
        return str((await self._json("GET", "/.well-known/openid-configuration"))["issuer"])

    async def _written(self, method: str, path: str, *, body: Object, content: str = "application/json") -> Object:
        """A write that says nothing of versions: what met another one is sent again, `AGAIN_SECONDS` apart."""
        for pause in AGAIN_SECONDS:
            try:
                return await self._json(method, path, body=body, content=content)
            except KubeError as fault:
                if fault.status != 409 or fault.reason != "Conflict":
                    raise
            await asyncio.sleep(pause * random.uniform(1.0, 1.5))
        return await self._json(method, path, body=body, content=content)

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Object | None = None,
        content: str = "application/json",
    ) -> Object:
        raw = await self.call(method, path, query=query, body=body, content=content)
        found = orjson.loads(raw or b"{}")
        return found if isinstance(found, dict) else {}

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Object | None = None,
        content: str = "application/json",
    ) -> bytes:
        """One request and what the server said; all but watches go through here."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                if self._direct is not None:
                    status, raw = await self._over(self._direct, method, path, query, body, content)
                else:
                    answer = await self._ask(method, path, query, body, content, CALL_SECONDS)
                    status, raw = answer.status, bytes(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as fault:
            raise KubeError(0, "NoAnswer", f"the API server does not answer: {type(fault).__name__}") from fault
        if status < 300:
            return raw
        raise _refusal(status, raw)

    async def _over(
        self,
        direct: Direct,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        body: Object | None,
        content: str,
    ) -> tuple[int, bytes]:
        self._count(method)
        target = f"{path}?{urlencode(query)}" if query else path
        sent = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        return await direct.ask(method, target, sent, content, connect=CONNECT_SECONDS, within=CALL_SECONDS)

    def _count(self, method: str) -> None:
        self.calls += 1
        self.writes += method != "GET"

    async def _ask(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        body: Object | None,
        content: str,
        timeout: float | aiohttp.ClientTimeout,
    ) -> Any:
        """The head of an answer, over the client's connections."""
        self._count(method)
        heads = {"Accept": "application/json, */*", "Content-Type": content}
        # The body is plain already: the client would walk through all of it.
        _, url, sent, _, _ = await self._api.param_serialize(
            method, path, query_params=list(query), header_params=heads, auth_settings=["BearerToken"]
        )
        ask: Any = self._api.rest_client.request
        return await ask(method, url, sent, body, _request_timeout=timeout)


def _event(line: bytes) -> tuple[str, Object]:
    """One line of a watch. Raises ValueError for what is no event of an object."""
    event = orjson.loads(line)
    told, body = (event.get("type"), event.get("object")) if isinstance(event, dict) else (None, None)
    if not isinstance(told, str) or not isinstance(body, dict):
        raise ValueError("no event")
    if told != "ERROR" and not isinstance(body.get("metadata"), dict):
        raise ValueError("an event of no object")
    return told, body


def _refusal(status: int, raw: bytes) -> KubeError:
    try:
        said = json.loads(raw)
        return KubeError(status, str(said.get("reason") or status), str(said.get("message") or status))
    except (ValueError, AttributeError):
        return KubeError(status, str(status), raw[:500].decode(errors="replace"))

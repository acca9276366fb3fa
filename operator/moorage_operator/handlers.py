"""What kopf watches for us: objects as they are now, put on their shelves. Layer: rim; the only module that imports kopf.

kopf lists and watches, reconnects and logs in. It writes nothing: no finalizers, no annotations, no events; handlers that could fail
do not exist, since it would only log that. The first event of the operator's own Lease comes after all its lists, which is how we know
them whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import kopf

from moorage_operator import kube, marks
from moorage_operator.observed import Observed, Shelf
from moorage_operator.settings import Settings

# A watch is begun anew after so long; a dead connection is noticed sooner, by kopf's own bound of silence. Not as the server's timeout: kopf
# would ask for it as a broken number, which API servers refuse.
WATCH_SECONDS = 240.0
CONNECT_SECONDS = 10.0


def registry(observed: Observed, settings: Settings, whole: asyncio.Event) -> kopf.OperatorRegistry:
    """The handlers. `whole` is set when every list has been read."""
    made = kopf.OperatorRegistry()
    shelves = {
        kube.AGENTS: observed.agents,
        kube.PODS: observed.pods,
        kube.CLAIMS: observed.claims,
        kube.ACCOUNTS: observed.guards,
        kube.POLICIES: observed.guards,
    }
    for kind, shelf in shelves.items():
        _watch(made, kind, shelf, settings.namespaces)

    @kopf.on.event(*_selector(kube.LEASES), registry=made, when=_is(settings.namespace, settings.lease_name))
    def _lease(**_: Any) -> None:
        whole.set()

    @kopf.on.login(registry=made)
    def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    return made


def configuration() -> kopf.OperatorSettings:
    """kopf as a scheduler: bounded, silent, and writing nothing."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.persistence.finalizer = (
        "moorage.dev/never-set"  # kopf adds one for handlers of deletion only, and there are none
    )
    made.scanning.disabled = True
    made.queueing.worker_limit = 16
    made.networking.request_timeout = kube.CALL_SECONDS
    made.networking.connect_timeout = CONNECT_SECONDS
    made.networking.enforce_retry_after = True
    made.watching.client_timeout = WATCH_SECONDS
    made.watching.connect_timeout = CONNECT_SECONDS
    return made


def _watch(made: kopf.OperatorRegistry, kind: kube.Kind, shelf: Shelf, namespaces: tuple[str, ...]) -> None:
    ours = {} if kind is kube.AGENTS else {marks.OURS: marks.MANAGER}

    # An index is filled from the first list before any event is handled.
    @kopf.index(*_selector(kind), registry=made, labels=ours, id=f"seen-{kind.plural}")
    def _seen(body: kopf.Body, namespace: str | None, **_: Any) -> dict[str, bool]:
        if namespace in namespaces:
            shelf.put(_plain(body))
        return {}

    @kopf.on.event(*_selector(kind), registry=made, labels=ours, id=f"told-{kind.plural}")
    def _told(event: kopf.RawEvent, namespace: str | None, **_: Any) -> None:
        if namespace not in namespaces:
            return
        body = _plain(event["object"])
        if event["type"] == "DELETED":
            shelf.drop(body)
        else:
            shelf.put(body)


def _selector(kind: kube.Kind) -> tuple[str, ...]:
    group, _, version = kind.api.rpartition("/")
    return (group, version, kind.plural) if group else (version, kind.plural)


def _is(namespace: str, name: str) -> Any:
    def same(body: kopf.Body, **_: Any) -> bool:
        meta = body["metadata"]
        return (meta.get("namespace"), meta.get("name")) == (namespace, name)

    return same


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """A plain copy without what nobody here reads: managed fields are half of a pod."""
    found = dict(body)
    meta = dict(found["metadata"])
    meta.pop("managedFields", None)
    found["metadata"] = meta
    return found

"""What kopf watches for us: objects as they are now, put on their shelves. Layer: rim; the only module that imports kopf.

kopf watches, reconnects and logs in. It writes nothing: no finalizers, no annotations, no events; handlers that could fail do not exist,
since it would only log that. A watch that kopf gave up, or an event that was lost, costs nothing but time: `relisting` looks at everything.
"""

from __future__ import annotations

from typing import Any

import kopf

from moorage_operator import kube, marks
from moorage_operator.observed import Observed, Shelf, plain
from moorage_operator.settings import Settings

# A watch is begun anew after so long; a dead connection is noticed sooner, by kopf's own bound of silence. Not as the server's timeout:
# kopf would ask for it as a broken number, which API servers refuse.
WATCH_SECONDS = 240.0
CONNECT_SECONDS = 10.0


def registry(observed: Observed, settings: Settings) -> kopf.OperatorRegistry:
    """The handlers."""
    made = kopf.OperatorRegistry()
    for kind, shelf in observed.shelves.items():
        _watch(made, kind, shelf, settings.namespaces)

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

    @kopf.on.event(*_selector(kind), registry=made, labels=ours, id=f"told-{kind.plural}")
    def _told(event: kopf.RawEvent, namespace: str | None, **_: Any) -> None:
        if namespace not in namespaces:
            return
        body = plain(event["object"])
        if event["type"] == "DELETED":
            shelf.drop(body)
        else:
            shelf.put(body)


def _selector(kind: kube.Kind) -> tuple[str, ...]:
    group, _, version = kind.api.rpartition("/")
    return (group, version, kind.plural) if group else (version, kind.plural)

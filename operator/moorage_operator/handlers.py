"""What kopf watches for us: what people write, put on its shelf. Layer: rim; the only module that imports kopf.

Objects of our own are `following`'s. kopf watches, reconnects and logs in. It writes nothing: no finalizers, no annotations, no events;
handlers that could fail do not exist, since it would only log that. A watch that kopf gave up, or an event that was lost, costs nothing but
time: `relisting` looks at everything.
"""

from __future__ import annotations

from typing import Any

import kopf

from moorage_operator import kube
from moorage_operator.observed import Observed, Shelf, plain
from moorage_operator.settings import Settings

# kopf gives each object that changes a worker, which waits for more until IDLE_SECONDS are over: with its own 5 s, WORKERS of them let
# three objects a second through. Ours never wait for anything, so that this many are many.
WORKERS = 512
IDLE_SECONDS = 0.5


def registry(observed: Observed, settings: Settings) -> kopf.OperatorRegistry:
    """The handlers."""
    made = kopf.OperatorRegistry()
    _watch(made, kube.AGENTS, observed.agents, settings.namespaces)

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
    made.persistence.diffbase_storage = _NoEssence()
    made.persistence.progress_storage = _NoProgress()
    made.queueing.worker_limit = WORKERS
    made.queueing.idle_timeout = IDLE_SECONDS
    made.networking.request_timeout = kube.CALL_SECONDS
    made.networking.connect_timeout = kube.CONNECT_SECONDS
    made.networking.enforce_retry_after = True
    # A dead connection is noticed sooner, by kopf's own bound of silence. Not as the server's timeout: kopf would ask for it as a broken
    # number, which API servers refuse.
    made.watching.client_timeout = kube.WATCH_SECONDS
    made.watching.connect_timeout = kube.CONNECT_SECONDS
    return made


def _watch(made: kopf.OperatorRegistry, kind: kube.Kind, shelf: Shelf, namespaces: tuple[str, ...]) -> None:
    # A coroutine that never waits: kopf would run a plain function in a thread.
    @kopf.on.event(*_selector(kind), registry=made, id=f"told-{kind.plural}")
    async def _told(event: kopf.RawEvent, namespace: str | None, **_: Any) -> None:
        # Looked at here: a filter of kopf's costs more than all that follows.
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


class _NoEssence(kopf.DiffBaseStorage):
    """What an object was before, which nobody here asks for: kopf would copy each object whole, twice an event, to have it."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept on objects."""


class _NoProgress(kopf.ProgressStorage):
    """How far handlers came, which there is nothing to be said of: all of them are over at once."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept on objects."""

    def purge(self, **_: Any) -> None:
        """Nothing was kept."""

    def touch(self, **_: Any) -> None:
        """Nothing is kept on objects."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence

"""What the operator's own objects become, followed by watches of our own: one a kind and namespace. Layer: I/O rim.

kopf watches what people write; it takes a millisecond and more of CPU to tell of one change, and a session is six or seven changes of pods
and claims (decision 16). A watch goes on from the version that a list, or the event before, had; one that is too old begins with a list
again. What it misses nevertheless, `relisting` finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from moorage_operator import marks
from moorage_operator.kube import AGENTS, Kind, Kube, KubeError, Object
from moorage_operator.observed import Observed, Shelf, plain
from moorage_operator.relisting import relist_one

AGAIN_SECONDS = (0.2, 5.0)
"""After a watch that failed: the first pause, and the longest."""
GONE = 410

log = logging.getLogger(__name__)


async def follow(kube: Kube, observed: Observed, versions: Mapping[tuple[Kind, str], str]) -> None:
    """Follows every kind but people's, from these versions, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for (kind, namespace), version in versions.items():
            if kind is not AGENTS:
                shelf = observed.shelves[kind]
                group.create_task(_follow(kube, shelf, kind, namespace, version), name=f"watch {kind.plural}")


async def _follow(kube: Kube, shelf: Shelf, kind: Kind, namespace: str, version: str) -> None:
    pause = AGAIN_SECONDS[0]
    while True:
        try:
            version = version or await relist_one(kube, shelf, kind, namespace)
            async for told, body in kube.watch(kind, namespace, version):
                version = body["metadata"].get("resourceVersion") or version
                _take(shelf, told, body)
                pause = AGAIN_SECONDS[0]
            await asyncio.sleep(AGAIN_SECONDS[0])  # a server that ends each watch at once is not asked in a loop
        except KubeError as fault:
            if fault.status == GONE:
                version = ""  # more has happened since than the server remembers
            log.info("watching %s of %s again: %s", kind.plural, namespace, fault.message)
            await asyncio.sleep(pause)
            pause = min(pause * 2, AGAIN_SECONDS[1])


def _take(shelf: Shelf, told: str, body: Object) -> None:
    """What is held stays followed whatever became of its labels: one that was taken off hides nothing."""
    if told == "BOOKMARK" or not (marks.is_ours(body) or shelf.holds(body)):
        return
    if told == "DELETED":
        shelf.drop(plain(body))
    else:
        shelf.put(plain(body))

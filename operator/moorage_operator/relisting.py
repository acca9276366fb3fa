"""A look at everything of ours that the cluster holds: at the start, and now and then, whatever was told. Layer: I/O.

One paged LIST a kind and namespace. What is on a shelf and not in its list is asked for by name before it counts as gone: it may have
been made since.
"""

from __future__ import annotations

from moorage_operator import marks
from moorage_operator.kube import AGENTS, Kind, Kube
from moorage_operator.observed import Observed, Shelf, name_of, plain


async def relist(kube: Kube, observed: Observed, namespaces: tuple[str, ...]) -> dict[tuple[Kind, str], str]:
    """Brings every shelf to what the cluster holds; the version of each list. Raises KubeError."""
    return {
        (kind, namespace): await relist_one(kube, shelf, kind, namespace)
        for kind, shelf in observed.shelves.items()
        for namespace in namespaces
    }


async def relist_one(kube: Kube, shelf: Shelf, kind: Kind, namespace: str) -> str:
    """The same for one kind of one namespace."""
    labels = {} if kind is AGENTS else {marks.OURS: marks.MANAGER}
    listed, version = set(), ""
    async for items, of in kube.pages(kind, namespace, labels=labels):
        version = of
        for body in items:
            shelf.put(plain(body))
            listed.add(name_of(body))
    for name in shelf.names(namespace) - listed:
        held = shelf.get(name)
        if held is None:
            continue
        found = await kube.get(kind, *name)
        if found is not None:
            shelf.put(plain(found))
        else:
            shelf.drop(held)
    return version

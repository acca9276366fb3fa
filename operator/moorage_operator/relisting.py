"""A look at everything of ours that the cluster holds: at the start, and now and then, whatever was told. Layer: I/O.

One paged LIST a kind and namespace. What is on a shelf and not in its list is asked for by name before it counts as gone: it may have
been made since.
"""

from __future__ import annotations

from moorage_operator import marks
from moorage_operator.kube import AGENTS, Kube
from moorage_operator.observed import Observed, name_of, plain


async def relist(kube: Kube, observed: Observed, namespaces: tuple[str, ...]) -> None:
    """Brings every shelf to what the cluster holds. Raises KubeError."""
    for kind, shelf in observed.shelves.items():
        labels = {} if kind is AGENTS else {marks.OURS: marks.MANAGER}
        for namespace in namespaces:
            listed = set()
            async for body in kube.each(kind, namespace, labels=labels):
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

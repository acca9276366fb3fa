"""What the cluster holds of ours, as last told: pods, claims, agents, and who waits for a change. Layer: floor; no I/O.

Filled by the watches (`handlers`), by looks at everything (`relisting`), and by the operator's own writes where it must not wait for
the watch to come round.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from moorage_operator import marks
from moorage_operator.kube import ACCOUNTS, AGENTS, CLAIMS, PODS, POLICIES

Object: TypeAlias = Mapping[str, Any]
Name: TypeAlias = tuple[str, str]  # namespace, name
REMEMBERED = 4096


class Shelf:
    """Objects of one kind. `changed` is called after each change with the object's name."""

    def __init__(self, changed: Callable[[Name], None]) -> None:
        self._held: dict[Name, Object] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()  # uids; an old list may still show them
        self._changed = changed

    def put(self, body: Object) -> None:
        """An object as it is now; an older version than the one held is passed over, and one that is gone."""
        name = name_of(body)
        held = self._held.get(name)
        older = held is not None and _uid(held) == _uid(body) and _version(held) > _version(body)
        if older or _uid(body) in self._gone:
            return
        self._held[name] = body
        self._changed(name)

    def drop(self, body: Object) -> None:
        """An object that is gone; another one of the same name stays."""
        name = name_of(body)
        held = self._held.get(name)
        if held is not None and _uid(held) == _uid(body):
            del self._held[name]
        self._gone[_uid(body)] = None
        while len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        self._changed(name)

    def get(self, name: Name) -> Object | None:
        """The object, or None."""
        return self._held.get(name)

    def names(self, namespace: str) -> set[Name]:
        """The names held of one namespace."""
        return {name for name in self._held if name[0] == namespace}

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)


class Observed:
    """Everything of ours. `waiting` gives an event that the next change of one pod sets."""

    def __init__(self) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._waiters: dict[Name, set[asyncio.Event]] = {}
        self.pods = Shelf(self._told)
        self.claims = Shelf(self._told)
        self.agents = Shelf(self._told)
        self.accounts = Shelf(self._told)
        self.policies = Shelf(self._told)
        self.shelves = {
            AGENTS: self.agents,
            PODS: self.pods,
            CLAIMS: self.claims,
            ACCOUNTS: self.accounts,
            POLICIES: self.policies,
        }

    async def change(self, name: Name, within: float) -> bool:
        """Waits for a change of the pod of that name; False after `within` seconds."""
        event = asyncio.Event()
        self._waiters.setdefault(name, set()).add(event)
        try:
            async with asyncio.timeout(within):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            left = self._waiters[name]
            left.discard(event)
            if not left:
                del self._waiters[name]
        return True

    def _told(self, name: Name) -> None:
        for event in self._waiters.get(name, ()):
            event.set()
        self.wake()


def plain(body: Object) -> dict[str, Any]:
    """A plain copy without what nobody here reads: managed fields are half of a pod."""
    found = dict(body)
    meta = dict(found["metadata"])
    meta.pop("managedFields", None)
    found["metadata"] = meta
    return found


def name_of(body: Object) -> Name:
    """Namespace and name."""
    meta = body["metadata"]
    return meta.get("namespace", ""), meta["name"]


def sandbox_of(pod: Object) -> str:
    """The sandbox in a pod of ours."""
    return marks.text(pod, "labels", marks.SANDBOX)


def _uid(body: Object) -> str:
    return str(body["metadata"].get("uid", ""))


def _version(body: Object) -> int:
    version = str(body["metadata"].get("resourceVersion", ""))
    return (
        int(version) if version.isdigit() else 0
    )  # opaque by contract; a server whose versions are no numbers is taken at its word

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
from moorage_operator.kube import ACCOUNTS, AGENTS, CLAIMS, JOBS, PODS, POLICIES

Object: TypeAlias = Mapping[str, Any]
Name: TypeAlias = tuple[str, str]  # namespace, name
REMEMBERED = 4096


class Shelf:
    """Objects of one kind. `changed` is called after each change with the object as it was and as it is; None where there is none."""

    def __init__(self, changed: Callable[[Object | None, Object | None], None]) -> None:
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
        self._changed(held, body)

    def drop(self, body: Object) -> None:
        """An object that is gone; another one of the same name stays."""
        name = name_of(body)
        held = self._held.get(name)
        mine = held is not None and _uid(held) == _uid(body)
        if mine:
            del self._held[name]
        self._gone[_uid(body)] = None
        while len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        if mine:
            self._changed(held, None)

    def get(self, name: Name) -> Object | None:
        """The object, or None."""
        return self._held.get(name)

    def holds(self, body: Object) -> bool:
        """Whether this very object is held, as it is or was."""
        held = self._held.get(name_of(body))
        return held is not None and _uid(held) == _uid(body)

    def names(self, namespace: str) -> set[Name]:
        """The names held of one namespace."""
        return {name for name in self._held if name[0] == namespace}

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)


class Observed:
    """Everything of ours.

    `wake` is called when a pod went, `news` when people changed a HostedAgent. Nobody is called for anything else: whoever waits for a pod
    hears by `change`, and the rest of what changes is mostly our own doing.
    """

    def __init__(self) -> None:
        self.wake: Callable[[], None] = _nobody
        self.news: Callable[[], None] = _nobody
        self.asked = 0
        """How often people made, changed or removed a HostedAgent: while it stands, they want the same."""
        self._waiters: dict[Name, set[asyncio.Event]] = {}
        self.pods = Shelf(self._pod)
        self.claims = Shelf(self._claim)
        self._claims_of: dict[tuple[str, str], dict[Name, Object]] = {}
        self.stripped: set[Name] = set()
        """Claims that a label was taken off by hand, by which they are found."""
        self.agents = Shelf(self._agent)
        self.accounts = Shelf(_passed_over)
        self.policies = Shelf(_passed_over)
        self.jobs = Shelf(_passed_over)
        self.shelves = {
            AGENTS: self.agents,
            PODS: self.pods,
            CLAIMS: self.claims,
            ACCOUNTS: self.accounts,
            POLICIES: self.policies,
            JOBS: self.jobs,
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

    def nudge(self, name: Name) -> None:
        """Whoever waits for a change of that pod has news of another kind."""
        for event in self._waiters.get(name, ()):
            event.set()

    def claims_of(self, namespace: str, agent: str) -> list[Object]:
        """The claims of one agent."""
        return list(self._claims_of.get((namespace, agent), {}).values())

    def _claim(self, was: Object | None, now: Object | None) -> None:
        if was is not None:
            key, name = _agent_of(was), name_of(was)
            of = self._claims_of[key]
            del of[name]
            if not of:
                del self._claims_of[key]
            self.stripped.discard(name)
        if now is not None:
            self._claims_of.setdefault(_agent_of(now), {})[name_of(now)] = now
            if not (marks.is_ours(now) and marks.text(now, "labels", marks.AGENT)):
                self.stripped.add(name_of(now))

    def _pod(self, was: Object | None, now: Object | None) -> None:
        for one in (was, now):
            if one is not None:
                self.nudge(name_of(one))
        if now is None:
            self.wake()

    def _agent(self, was: Object | None, now: Object | None) -> None:
        if was is None or now is None or _generation(was) != _generation(now):  # else it is its status, which we wrote
            self.asked += 1
            self.news()


def _nobody() -> None:
    """Nobody has asked to be told yet."""


def _passed_over(_: Object | None, __: Object | None) -> None:
    """Nobody waits for it: it is looked at in its time."""


def plain(body: Object) -> dict[str, Any]:
    """A plain copy without what nobody here reads: managed fields, and what a pod is made of but for its images, are most of it."""
    found = dict(body)
    if found.get("kind") == "Pod":
        made_of = (found.get("spec") or {}).get("containers") or ()
        found["spec"] = {"containers": [{"name": one["name"], "image": one.get("image", "")} for one in made_of]}
    meta = dict(found["metadata"])
    meta.pop("managedFields", None)
    found["metadata"] = meta
    return found


def name_of(body: Object) -> Name:
    """Namespace and name."""
    meta = body["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _agent_of(body: Object) -> tuple[str, str]:
    return name_of(body)[0], marks.text(body, "labels", marks.AGENT)


def sandbox_of(pod: Object) -> str:
    """The sandbox in a pod of ours: its name, which nobody can edit."""
    return name_of(pod)[1]


def _uid(body: Object) -> str:
    return str(body["metadata"].get("uid", ""))


def _generation(body: Object) -> tuple[str, int]:
    """Which object, and how often people changed it."""
    return _uid(body), int(body["metadata"].get("generation", 0))


def _version(body: Object) -> int:
    version = str(body["metadata"].get("resourceVersion", ""))
    return (
        int(version) if version.isdigit() else 0
    )  # opaque by contract; a server whose versions are no numbers is taken at its word

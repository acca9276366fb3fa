"""How changes reach the operator: by kopf what people write, which keeps and writes nothing; by watches of our own the rest."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest

from moorage_operator import following, handlers, marks
from moorage_operator.kube import PODS, Kind, KubeError
from moorage_operator.observed import Observed, name_of
from moorage_operator.settings import Settings

pytestmark = pytest.mark.unit

OBJECTS_A_SECOND = 500
LABELS = {marks.OURS: marks.MANAGER}


def settings() -> Settings:
    return Settings(
        redis_url="redis://none", token_key="ab" * 32, namespace="moorage", namespaces=("one",), sandbox_image="s",
        sandbox_url="http://h:1", gateway_cidr="10.0.0.1/32",
    )  # fmt: skip


def pod(**meta: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "one", "name": "a", "uid": "u", "resourceVersion": "1", "labels": LABELS, **meta}}


def test_a_worker_that_waits_for_more_of_its_object_does_not_hold_up_hundreds_of_others() -> None:
    queueing = handlers.configuration().queueing
    assert queueing.worker_limit is not None, "a bound there is"
    assert queueing.worker_limit / queueing.idle_timeout >= OBJECTS_A_SECOND


def test_kopf_keeps_nothing_of_an_object_and_copies_none() -> None:
    persistence: Any = handlers.configuration().persistence
    body, patch = pod(annotations={"note": "x"}), {}
    assert persistence.diffbase_storage.build(body=body, extra_fields=None) == {}
    assert persistence.diffbase_storage.fetch(body=body) is None
    persistence.diffbase_storage.store(body=body, patch=patch, essence={})
    persistence.progress_storage.touch(body=body, patch=patch, value="now")
    persistence.progress_storage.store(key="told", record=None, body=body, patch=patch)
    persistence.progress_storage.purge(key="told", body=body, patch=patch)
    assert persistence.progress_storage.fetch(key="told", body=body) is None
    assert patch == {}


async def test_what_kopf_tells_of_people_is_shelved_in_the_loop_itself_and_only_of_namespaces_that_are_watched() -> (
    None
):
    observed = Observed()
    told = [one.fn for one in handlers.registry(observed, settings())._watching.get_all_handlers()]
    assert len(told) == 1 and inspect.iscoroutinefunction(told[0])
    await told[0](event={"type": "ADDED", "object": pod(labels={})}, namespace="one")
    await told[0](event={"type": "ADDED", "object": pod(namespace="two")}, namespace="two")
    assert [name_of(one) for one in observed.agents] == [("one", "a")]
    await told[0](event={"type": "DELETED", "object": pod()}, namespace="one")
    assert len(observed.agents) == 0


Event = tuple[str, dict[str, Any]]


class Server:
    """What an API server says to lists and watches: the script of each watch in turn, then silence. Limits: one kind, one namespace."""

    def __init__(self, *watches: list[Event] | KubeError, lists: list[dict[str, Any]] | None = None) -> None:
        self._watches = list(watches)
        self._lists = lists or []
        self.from_versions: list[str] = []
        self.lists = 0

    async def watch(self, kind: Kind, namespace: str, version: str) -> AsyncIterator[Event]:
        self.from_versions.append(version)
        if not self._watches:
            await asyncio.Event().wait()
        script = self._watches.pop(0)
        if isinstance(script, KubeError):
            raise script
        for event in script:
            yield event

    async def pages(self, kind: Kind, namespace: str, *, labels: Any) -> AsyncIterator[tuple[list[Any], str]]:
        self.lists += 1
        yield self._lists, "900"

    async def get(self, kind: Kind, namespace: str, name: str) -> None:
        return None


async def followed(server: Server, observed: Observed, watches: int) -> None:
    """Follows pods until so many watches have begun."""
    kube: Any = server
    task = asyncio.ensure_future(following.follow(kube, observed, {(PODS, "one"): "5"}))
    async with asyncio.timeout(20):
        while len(server.from_versions) < watches:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def version(text: str, **meta: Any) -> dict[str, Any]:
    return pod(resourceVersion=text, **meta)


async def test_a_watch_goes_on_where_the_one_before_was_when_it_ended() -> None:
    observed = Observed()
    mark = {"metadata": {"resourceVersion": "8"}}
    server = Server([("ADDED", version("6")), ("MODIFIED", version("7")), ("BOOKMARK", mark)], [])
    await followed(server, observed, 3)
    assert server.from_versions == ["5", "8", "8"] and server.lists == 0
    held = observed.pods.get(("one", "a"))
    assert held is not None and held["metadata"]["resourceVersion"] == "7"


async def test_what_others_made_and_what_is_gone_is_not_kept() -> None:
    observed = Observed()
    others = version("7", name="b", uid="v", labels={})
    server = Server([("ADDED", version("6")), ("ADDED", others), ("DELETED", version("8"))])
    await followed(server, observed, 2)
    assert len(observed.pods) == 0


async def test_what_is_held_is_followed_whatever_became_of_its_labels() -> None:
    observed = Observed()
    namesake = version("9", name="b", uid="another", labels={})
    server = Server(
        [("ADDED", version("6")), ("MODIFIED", version("7", labels={}))],
        [("ADDED", version("6", name="b", uid="v")), ("DELETED", version("8", name="b", uid="v", labels={})), ("ADDED", namesake)],
    )  # fmt: skip
    await followed(server, observed, 3)
    held = observed.pods.get(("one", "a"))
    assert held is not None and held["metadata"]["resourceVersion"] == "7"
    assert len(observed.pods) == 1, "one that went stays gone, and another of its name is nobody's"


async def test_a_version_that_the_server_has_forgotten_begins_with_a_list() -> None:
    observed = Observed()
    observed.pods.put(version("4", name="gone", uid="g"))
    server = Server(KubeError(410, "Expired", "too old"), lists=[version("890")])
    await followed(server, observed, 2)
    assert server.from_versions == ["5", "900"] and server.lists == 1
    assert [name_of(one) for one in observed.pods] == [("one", "a")]


async def test_a_server_that_does_not_answer_is_asked_again_from_the_same_version() -> None:
    server = Server(KubeError(0, "NoAnswer", "away"), KubeError(503, "Unavailable", "busy"))
    await followed(server, Observed(), 3)
    assert server.from_versions == ["5", "5", "5"] and server.lists == 0

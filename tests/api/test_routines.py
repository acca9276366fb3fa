"""Routines on a real API server: what an operator brings to the gateways, and what it says of runs and of what is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from api import shown
from api.test_kubectl import GOLDEN
from api.world import Means, World, until, world_of
from cluster.node.control import ControlPlane
from moorage_api.ledger import keys
from moorage_api.ledger.routines import Standing
from moorage_operator.kube import ROUTINES

pytestmark = [pytest.mark.api, pytest.mark.routines, pytest.mark.timeout(180)]

DUE = 1_790_000_000_000
WRONG = {
    "mars": ({"timeZone": "Mars/Olympus"}, "Mars/Olympus"),
    "never": ({"schedule": "0 6 31 2 *"}, "schedule"),
    "unnamed": ({"input": "{{ nobody }}"}, "nobody"),
    "untold": ({"alerts": [{"name": "ops", "url": {"secret": "absent", "key": "url"}}]}, "absent"),
    "unfilled": ({"protocol": "invocations", "input": None, "body": {"deep": [{"since": "{{ nobody }}"}]}}, "nobody"),
}
"""Name → what is wrong with it, and a word of what the operator says."""
REFUSED = (
    ({"alerts": [{"name": "ops", "type": "pager", "url": {"secret": "s", "key": "url"}}]}, "pager"),
    ({"body": {"x": 1}}, "body and protocol invocations belong together"),
    ({"protocol": "invocations", "input": None}, "body and protocol invocations belong together"),
    ({"protocol": "invocations", "body": {}}, "input and items are for protocol responses"),
    ({"input": None}, "exactly one of input and items"),
)
"""What the API server does not take, and a word of what it says."""
INVOKED = {"protocol": "invocations", "input": None, "body": {"Deep": [{"x": 1, "due": "{{ scheduledTime }}"}]}}


def document(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """An object as a person writes it."""
    whole = {"agent": "worker", "schedule": "0 6 * * 1-5", "timeZone": "Europe/Berlin", "input": "look", **spec}
    whole = {field: value for field, value in whole.items() if value is not None}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": "Routine", "metadata": meta, "spec": whole}


async def stands(world: World, name: str, **how: Any) -> None:
    """As gateways write it down after a run."""
    await world.redis.hset(keys.routine(f"dev/{name}"), "shown", Standing(**how).to_json())


async def status(world: World, name: str) -> dict[str, Any]:
    body = await world.kube.get(ROUTINES, world.namespace, name)
    return dict((body or {}).get("status") or {})


async def condition(world: World, name: str) -> dict[str, Any]:
    held = (await status(world, name)).get("conditions", ())
    return next((dict(one) for one in held if one["type"] == "Ready"), {})


async def test_an_object_says_when_its_routine_is_due_how_its_last_run_ended_and_what_is_wrong(
    plane: ControlPlane, means: Means, numbers: Iterator[int]
) -> None:
    async with world_of(means, f"routines-{next(numbers)}", 11) as world:

        async def kubectl(*words: str, given: str | None = None) -> str:
            return await asyncio.to_thread(plane.kubectl, *words, "--namespace", world.namespace, given=given)

        for name, (spec, _) in WRONG.items():
            await kubectl("apply", "-f", "-", given=json.dumps(document(name, world.namespace, **spec)))
        for spec, word in REFUSED:
            with pytest.raises(RuntimeError, match=word):
                await kubectl("apply", "-f", "-", given=json.dumps(document("nowhere", world.namespace, **spec)))
        for name, spec in (("triage", {}), ("invoked", INVOKED)):
            await kubectl("apply", "-f", "-", given=json.dumps(document(name, world.namespace, **spec)))
        world.start()
        await until("both are published", lambda: _has(world, "dev/triage", "dev/invoked"))
        for name, (_, word) in WRONG.items():
            await until(f"{name} says {word}", lambda name=name, word=word: _says(world, name, word))  # type: ignore[misc]
            assert (await condition(world, name))["reason"]
        assert set(await world.redis.hkeys(keys.ROUTINES)) == {b"dev/triage", b"dev/invoked"}, (
            "what is wrong runs nowhere"
        )
        entry = json.loads(await world.redis.hget(keys.ROUTINES, "dev/invoked") or b"{}")
        assert entry["spec"]["body"] == INVOKED["body"] and entry["spec"]["protocol"] == "invocations"
        assert "POST /invocations" in await kubectl("explain", "routine.spec.protocol")
        await kubectl("delete", "routine", "invoked")

        await stands(world, "triage", next=DUE + 86_400_000, last=DUE, outcome="succeeded", response="caresp_1")
        await until("the run is told", lambda: _is(world, "triage", "lastOutcome", "succeeded"))
        assert await events(kubectl) == [], "a run that succeeded is no event"
        for number in (1, 2):
            last = DUE + number * 86_400_000
            await stands(
                world, "triage", next=last + 86_400_000, last=last, outcome="failed", response="caresp_2",
                failures=number, error="it met a wall",
            )  # fmt: skip
            await until("the failure is told", lambda number=number: _is(world, "triage", "failures", number))  # type: ignore[misc]
        told = await events(kubectl)
        assert [one["reason"] for one in told] == ["RunFailed"] * 2, told
        assert all(one["type"] == "Warning" and "it met a wall" in one["message"] for one in told)
        table = shown.table(await kubectl("get", "routines", "triage"))
        assert table == (GOLDEN.with_name("golden-routines.txt")).read_text(encoding="utf-8"), table

        # Another operator finds that all is said, and the owner of a status that was wiped gets it back, without a further event.
        await kubectl(
            "patch", "routine", "triage", "--subresource=status", "--type=merge", "-p", '{"status": {"lastRun": null}}'
        )
        await until("it is told again", lambda: _is(world, "triage", "lastRun", "2026-09-23T14:13:20Z"))
        assert len(await events(kubectl)) == 2
        await kubectl("delete", "routine", "triage")
        await until("it runs no more", lambda: _gone(world, "dev/triage"))


async def events(kubectl: Any) -> list[dict[str, Any]]:
    """Of routines, the oldest first."""
    found = json.loads(await kubectl("get", "events", "--field-selector", "involvedObject.kind=Routine", "-o", "json"))
    return list(found["items"])


async def _has(world: World, *fields: str) -> bool:
    return all([await world.redis.hexists(keys.ROUTINES, field) for field in fields])


async def _gone(world: World, field: str) -> bool:
    return not await world.redis.hexists(keys.ROUTINES, field)


async def _says(world: World, name: str, word: str) -> bool:
    found = await condition(world, name)
    return found.get("status") == "False" and word in str(found.get("message"))


async def _is(world: World, name: str, field: str, wanted: Any) -> bool:
    return (await status(world, name)).get(field) == wanted

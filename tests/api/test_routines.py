"""Routines on a real API server: what an operator brings to the gateways, and what it says of runs and of what is wrong."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from api import shown
from api.states import GOLDEN
from api.test_model_endpoints import secret
from api.world import SECRETS, Means, World, until, world_of
from cluster.node.control import ControlPlane
from fakes.routine_world import HandClock, NobodyTold, PlayedTurns
from moorage_api.ledger import keys
from moorage_api.ledger.routines import RoutineLedger, Standing
from moorage_gateway.routines.desk import Desk
from moorage_gateway.routines.history import History
from moorage_gateway.routines.holds import Holds
from moorage_gateway.routines.scheduling import Scheduler
from moorage_gateway.store.memory import MemoryStore
from moorage_operator.kube import ROUTINES

pytestmark = [pytest.mark.api, pytest.mark.routines, pytest.mark.timeout(180)]

DUE = 1_790_000_000_000


def alert(secret: str, key: str = "url", **more: Any) -> dict[str, Any]:
    return {"alerts": [{"name": "ops", "url": {"secret": secret, "key": key}, **more}]}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "mars": ({"timeZone": "Mars/Olympus"}, "spec.timeZone: 'Mars/Olympus'"),
    "never": ({"schedule": "0 6 31 2 *"}, "spec.schedule: "),
    "unnamed": ({"input": "{{ nobody }}"}, "spec.input: {{ nobody }}"),
    "large": (
        {"input": None, "items": [{"type": "message", "content": "x" * 300_000}]},
        "spec.items: is larger than 256Ki",
    ),
    "plain": (alert("hooks", "plain"), "spec.alerts[0].url: the target ops is not allowed: is spoken to without TLS"),
    "private": (
        alert("hooks", "private"),
        "spec.alerts[0].url: the target ops is not allowed: leads to a private address",
    ),
    "unfilled": (
        {"protocol": "invocations", "input": None, "body": {"deep": [{"since": "{{ nobody }}"}]}},
        "spec.body: {{ nobody }}",
    ),
    "early": ({"agent": "nowhere"}, "spec.agent: there is no agent 'nowhere' yet"),
}
"""Name → what is wrong with it, and what its condition says."""
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "paged": (alert("hooks", type="pager"), "pager"),
    "huge": ({"input": "x" * 300_000}, r"spec\.input"),
    "bodied": ({"body": {"x": 1}}, "body and protocol invocations belong together"),
    "bodiless": ({"protocol": "invocations", "input": None}, "body and protocol invocations belong together"),
    "both": ({"protocol": "invocations", "body": {}}, "input and items are for protocol responses"),
    "silent": ({"input": None}, "exactly one of input and items"),
    "never": ({"schedule": None}, "exactly one of schedule, every and at"),
}
"""Name → what the API server itself takes no such thing for, and a word of what it says."""
HOOKS = {
    "plain": "http://hooks.example.com/secret-part",
    "private": "https://10.0.0.5/secret-part",
    "named": "http://hooks.inside:8080/secret-part",
}
INVOKED = {"protocol": "invocations", "input": None, "body": {"Deep": [{"x": 1, "due": "{{ scheduledTime }}"}]}}


def document(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """An object as a person writes it."""
    whole = {"agent": "worker", "schedule": "0 6 * * 1-5", "timeZone": "Europe/Berlin", "input": "look", **spec}
    meta = {"name": name, "namespace": namespace}
    given = {field: value for field, value in whole.items() if value is not None}
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": "Routine", "metadata": meta, "spec": given}


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

        async def apply(name: str, **spec: Any) -> None:
            await kubectl(
                "apply", "--server-side", "-f", "-", given=json.dumps(document(name, world.namespace, **spec))
            )

        for name, (spec, word) in REFUSED.items():
            with pytest.raises(RuntimeError, match=word):
                await apply(name, **spec)
        await world.kube.create(SECRETS, secret(world, "gateway-credentials", None))
        await world.kube.create(SECRETS, secret(world, "hooks", HOOKS))
        for name, (spec, _) in WRONG.items():
            await apply(name, **spec)
        await apply("triage", **alert("hooks", "named"))
        world.start(MOORAGE_GATEWAY_CREDENTIALS="gateway-credentials", MOORAGE_ALLOWED_UPSTREAMS="hooks.inside:8080")
        for name, said in {"triage": "spec.agent: ", **{name: said for name, (_, said) in WRONG.items()}}.items():
            await until(f"{name} says {said}", lambda name=name, said=said: _says(world, name, said))  # type: ignore[misc]
            assert (await condition(world, name))["reason"]
        assert await world.redis.hkeys(keys.ROUTINES) == [], "what is wrong runs nowhere, nor what has no agent yet"
        await apply("invoked", **INVOKED)
        await world.apply("worker")
        await until("both are published", lambda: _has(world, "dev/triage", "dev/invoked"))
        entry = json.loads(await world.redis.hget(keys.ROUTINES, "dev/invoked") or b"{}")
        assert entry["spec"]["body"] == INVOKED["body"] and entry["spec"]["protocol"] == "invocations"
        assert "POST /invocations" in await kubectl("explain", "routine.spec.protocol")
        await kubectl("delete", "routine", "invoked")
        await until("and says so", lambda: _ready(world, "triage"))
        await until("the other is gone again", lambda: _gone(world, "dev/invoked"))
        assert await world.redis.hkeys(keys.ROUTINES) == [b"dev/triage"]
        everything = await kubectl("get", "routines,events", "-o", "json") + world.logs()
        assert "secret-part" not in everything and "10.0.0.5" not in everything

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
        await kubectl("delete", "hostedagent", "worker")
        gone = "spec.agent: there is no agent 'worker' any more"
        await until("its agent is gone", lambda: _says(world, "triage", gone))
        assert await _has(world, "dev/triage"), "its runs fail, and people are told"
        await kubectl("delete", "routine", "triage")
        await until("it runs no more", lambda: _gone(world, "dev/triage"))


async def test_a_routine_keeps_its_state_while_its_secret_is_gone_and_ends_with_its_object(
    means: Means, numbers: Iterator[int]
) -> None:
    """The scheduler is a gateway's own; turns are played, and the one here goes on for as long as the test's clock stands."""
    async with world_of(means, f"routines-{next(numbers)}", 11) as world:
        await world.kube.create(SECRETS, secret(world, "gateway-credentials", None))
        await world.kube.create(SECRETS, secret(world, "hooks", {"url": "https://hooks.example.com/secret-part"}))
        await world.kube.create(ROUTINES, document("triage", world.namespace, **alert("hooks")))
        await world.apply("worker")
        clock, ledger = HandClock(), RoutineLedger(world.gateway)
        turns, store = PlayedTurns(clock, random.Random(1), lasts_ms=1), MemoryStore()
        history, parts = History(store), (Holds(store), NobodyTold(), Nothing())
        scheduler = asyncio.create_task(Scheduler(ledger, turns, history, *parts, clock).run())  # type: ignore[arg-type]
        desk = Desk(ledger, history, clock)
        try:
            world.start(MOORAGE_GATEWAY_CREDENTIALS="gateway-credentials")
            await until("it is published", lambda: _has(world, "dev/triage"))
            await until("it is known", lambda: desk.run("dev", "triage"))
            await until("and runs", lambda: _runs(desk))
            assert await desk.suspend("dev", "triage", suspended=True)
            before = await desk.get("dev", "triage")
            await world.kube.delete(SECRETS, world.namespace, "hooks")
            absent = "spec.alerts[0].url: the Secret hooks is not there"
            await until("its object says so", lambda: _says(world, "triage", absent))
            assert await _has(world, "dev/triage"), "its state would go with it"
            said = await condition(world, "triage")
            assert said["reason"] == "CredentialMissing" and said["message"].endswith("suspended: no due time is run")
            held = await world.kube.get(SECRETS, world.namespace, "gateway-credentials")
            assert held is not None and not held.get("data"), "who may not be told any more is not told"
            await world.kube.create(SECRETS, secret(world, "hooks", {"url": "https://hooks.example.com/secret-part"}))
            await until("it is back", lambda: _because(world, "triage", "Suspended"))
            after = await desk.get("dev", "triage")
            assert before is not None and after is not None and after.state.run == before.state.run
            assert after.state.suspended and turns.cancelled == []
            clock.ms += 1000
            await until("its run ends as any", lambda: history.newest("dev", "triage", 5))
            assert [run.outcome for run in await history.newest("dev", "triage", 5)] == ["succeeded"]
            await world.kube.delete(ROUTINES, world.namespace, "triage")
            await until("it ends with its object", lambda: _gone(world, "dev/triage"))
        finally:
            scheduler.cancel()
            await asyncio.gather(scheduler, return_exceptions=True)


class Nothing:
    """Redis loses nothing here."""

    async def recover(self) -> None:
        raise AssertionError("nothing was lost")


async def _runs(desk: Desk) -> bool:
    shown = await desk.get("dev", "triage")
    return shown is not None and shown.state.run is not None and shown.state.run.phase == "running"


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
    return found.get("status") == "False" and str(found.get("message")).startswith(word)


async def _because(world: World, name: str, reason: str) -> bool:
    return (await condition(world, name)).get("reason") == reason


async def _ready(world: World, name: str) -> bool:
    return (await condition(world, name)).get("status") == "True"


async def _is(world: World, name: str, field: str, wanted: Any) -> bool:
    return (await status(world, name)).get(field) == wanted

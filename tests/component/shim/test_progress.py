"""How far the agent says that it is, at its door: answered at once, the newest handed on."""

from __future__ import annotations

import json

import pytest

from component.shim.test_boundary import agent, door, gateways, hang_up, refuse, seen, world
from fakes.shim_world import until
from moorage_api.wire import calls as wire

__all__ = ["agent", "gateways", "world"]

pytestmark = pytest.mark.component

PLACE = "/steps/progress"


def words(gateways) -> list[str]:
    return [json.loads(body)["text"] for call, body in seen(gateways) if call.target == wire.PROGRESS]


async def test_of_many_words_the_newest_comes_and_no_number_is_taken(world, gateways, agent):
    stream = await world.start([["wait", world.gate("go")]])
    await stream.acknowledged()
    for n in range(1, 31):
        assert (await agent.post(door(world, PLACE), json={"text": f"{n} of 30"})).status_code == 202
    await until(lambda: "30 of 30" in words(gateways))
    assert len(words(gateways)) < 30
    (call, _), *_ = seen(gateways)
    assert call.begun and call.number == 0 and call.turn
    await agent.post(door(world), json={"model": "m"})
    assert seen(gateways)[-1][0].number == 1
    world.pass_gate("go")


async def test_a_word_is_sent_again_to_who_answers(world, gateways, agent):
    stream = await world.start([["wait", world.gate("go")]])
    await stream.acknowledged()
    for each in gateways:
        each.plan = [hang_up, refuse(wire.AGAIN)]
    await agent.post(door(world, PLACE), json={"text": "once"})
    await until(lambda: len(words(gateways)) >= 5)
    assert set(words(gateways)) == {"once"}
    world.pass_gate("go")


async def test_outside_of_an_attempt_nothing_is_said(world, gateways, agent):
    assert (await agent.post(door(world, PLACE), json={"text": "early"})).status_code == 202
    assert (await agent.post(door(world, PLACE), content=b"x" * 5000)).status_code == 413
    await agent.post(door(world), json={"model": "m"})
    assert words(gateways) == []

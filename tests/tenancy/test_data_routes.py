"""Every data route × every URL form × every response id of somebody else: 404, and nothing happens (T1, S1).

The routes are the gateway's own table; a verb added there is attacked here without a line of this file changing.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any

import pytest

from fakes.tenancy_calls import ATTACKERS, FORMS, UNKNOWN_RESPONSE, body_of, calls
from moorage_gateway import inbound

pytestmark = pytest.mark.tenancy

RESPONSES = ("finished", "running", "in a conversation", "unstored", "deleted")


def test_every_verb_of_the_table_is_attacked() -> None:
    verbs = {verb for _, verb in calls()}
    assert verbs == set(inbound._BELOW_ID)
    operations = {op for methods in inbound._BELOW_ID.values() for op in methods.values()}
    assert operations | {inbound.Operation.CREATE, inbound.Operation.STREAM, inbound.Operation.INVOKE} == set(
        inbound.Operation
    )


def test_every_url_form_leads_to_the_same_routes() -> None:
    for form, (method, verb) in itertools.product(FORMS, calls()):
        path = FORMS[form].format(agent="shapes") + f"/{UNKNOWN_RESPONSE}" + (f"/{verb}" if verb else "")
        found = inbound.classify(method, path, b"", [])
        assert isinstance(found, inbound.Route), (form, path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attacker", ATTACKERS)
def test_a_foreign_response_is_a_404_on_every_route(world: Any, attacker: str, form: str) -> None:
    door = world.door(attacker)
    for which, agent in itertools.product(RESPONSES, ("shapes", "paced")):
        base = FORMS[form].format(agent=agent)
        for method, verb in calls():
            path = f"{base}/{world.ids[which]}" + (f"/{verb}" if verb else "")
            queries = ("", "?stream=true", "?stream=true&starting_after=0") if (method, verb) == ("GET", "") else ("",)
            for query in queries:
                answer = door.ask(method, path + query, body_of(verb))
                assert answer.status == 404, (method, path, query, answer.raw)
                assert answer.error["code"] == "not_found"


@pytest.mark.parametrize("attacker", ATTACKERS)
def test_a_foreign_response_is_told_from_an_unknown_one_by_nothing_in_the_answer(world: Any, attacker: str) -> None:
    door = world.door(attacker)
    varying = ("date", "x-request-id", "x-trace-id", "traceparent", "content-length")
    for method, verb in calls():
        told = []
        for which in ("finished", "running"):
            for one in (world.ids[which], _nearly(world.ids[which])):
                path = f"/v1/agents/shapes/responses/{one}" + (f"/{verb}" if verb else "")
                answer = door.ask(method, path, body_of(verb))
                headers = {k: v for k, v in answer.headers.items() if k not in varying}
                told.append((answer.status, answer.raw.replace(one.encode(), b"ID"), sorted(headers)))
        assert all(one == told[0] for one in told), (method, verb, told)


@pytest.mark.parametrize("attacker", ATTACKERS)
def test_a_foreign_response_is_not_told_from_an_unknown_one_by_the_time_it_takes(world: Any, attacker: str) -> None:
    """An id carries 190 random bits, so time cannot be used to find one; still the two answers should not lie apart."""
    door, theirs = world.door(attacker), world.ids["finished"]
    took: dict[str, list[float]] = {theirs: [], _nearly(theirs): []}
    for _ in range(60):
        for one, times in took.items():
            began = time.perf_counter()
            door.ask("GET", f"/v1/agents/shapes/responses/{one}")
            times.append(time.perf_counter() - began)
    first, second = (statistics.median(times) for times in took.values())
    assert abs(first - second) < max(0.004, 0.6 * min(first, second)), (first, second)


@pytest.mark.parametrize("attacker", ATTACKERS)
@pytest.mark.parametrize("which", RESPONSES)
def test_a_foreign_previous_response_is_answered_as_an_unknown_one(world: Any, attacker: str, which: str) -> None:
    door = world.door(attacker)
    told = []
    for one in (world.ids[which], UNKNOWN_RESPONSE):
        answer = door.ask("POST", "/v1/agents/paced/responses", {"input": "1 0", "previous_response_id": one})
        told.append((answer.status, answer.error))
    assert told[0] == told[1]
    assert told[0][0] == 400 and told[0][1]["code"] == "previous_response_not_found"


def test_a_response_under_another_agents_address_is_a_404(world: Any) -> None:
    ann = world.door("ann")
    for form in (f for f in FORMS if "{agent}" in FORMS[f]):
        path = FORMS[form].format(agent="paced") + "/" + world.ids["finished"]
        assert ann.ask("GET", path).status == 404


def test_what_was_attacked_is_still_there_and_still_its_owners(world: Any) -> None:
    ann = world.door("ann")
    running = ann.ask("GET", f"/v1/responses/{world.ids['running']}").body
    assert running["status"] == "in_progress"
    finished = ann.ask("GET", f"/v1/responses/{world.ids['finished']}").body
    assert finished["status"] == "completed"
    record = ann.ask("GET", f"/v1/agents/shapes/responses/{world.ids['finished']}/record").body
    assert not record.get("feedback")


def _nearly(response_id: str) -> str:
    """An id that nobody has, in the same session as this one."""
    return response_id[:-8] + ("a" * 8 if not response_id.endswith("a" * 8) else "b" * 8)

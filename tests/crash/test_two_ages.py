"""A gateway of an older commit beside today's platform, as while a release is upgraded: one ledger, one store, the same sandboxes.

Limits: on one machine, on today's libraries; operators, pods and the chart are tried on a cluster (`cluster/test_upgrade.py`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from crash.kills import LONG_ASKS, words
from crash.stream import Seen
from fakes import then
from fakes.platform import Gateway, Platform

pytestmark = [pytest.mark.crash, pytest.mark.long, pytest.mark.timeout(600)]
AGENT = "paced"


@pytest.fixture(scope="module")
def code() -> Iterator[dict[str, str]]:
    """The environment of a process of then."""
    with then.code() as found:
        yield found


@pytest.fixture
def older(struck: Platform, code: dict[str, str]) -> Iterator[Gateway]:
    found = struck.start_gateway(code)
    yield found
    if found.process.poll() is None:
        found.end()


def test_gateways_of_both_ages_carry_one_session(struck: Platform, older: Gateway) -> None:
    session, previous = f"ages-{uuid.uuid4().hex}", None
    for url in (struck.url, older.url) * 2:
        with struck.client(AGENT, url=url, timeout=120) as client:
            goes_on = {} if previous is None else {"previous_response_id": previous}
            extra = {"agent_session_id": session}
            answer = client.responses.create(model=AGENT, input="5 10", extra_body=extra, **goes_on)
        assert (answer.status, answer.output_text) == ("completed", words(5))
        previous = answer.id


@pytest.mark.parametrize("how", ["drained", "killed"])
def test_a_turn_of_then_is_taken_over_by_a_gateway_of_today(struck: Platform, older: Gateway, how: str) -> None:
    seen = Seen()

    def act(deltas: int) -> None:
        if deltas == 5:
            older.process.terminate() if how == "drained" else older.process.kill()

    with struck.client(AGENT, url=older.url, timeout=120) as client:
        asked = {"model": AGENT, "input": LONG_ASKS[AGENT]}
        seen.read(client.responses.create(**asked, stream=True, background=True), act)
    assert older.process.wait(timeout=90) == (0 if how == "drained" else -9)
    while not seen.ended:
        with struck.client(AGENT, timeout=120) as client:
            seen.read(client.responses.retrieve(seen.response_id, stream=True, starting_after=seen.last))
    seen.check()
    assert seen.events[-1].type == "response.completed" and len(struck.record(AGENT, seen.response_id)["attempts"]) == 1


def test_a_turn_of_today_is_read_at_a_gateway_of_then(struck: Platform, older: Gateway) -> None:
    with struck.client(AGENT, timeout=120) as client:
        begun = client.responses.create(model=AGENT, input="40 25", background=True)
    seen = Seen()
    with struck.client(AGENT, url=older.url, timeout=120) as client:
        assert seen.read(client.responses.retrieve(begun.id, stream=True))
        assert client.responses.retrieve(begun.id).output_text == words(40)
    seen.check()

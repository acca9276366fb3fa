"""`kill -9` of the gateway that owns a turn: another one attaches; the caller comes back by cursor or by its key."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from crash.kills import LONG_ASKS, words
from crash.stream import Seen
from fakes.platform import Gateway, Platform, poll

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]


def by_cursor(platform: Platform, gateway: Gateway, agent: str, background: bool, reached: threading.Barrier) -> Seen:
    seen = Seen()

    def act(deltas: int) -> None:
        if deltas == 5:
            reached.wait(timeout=60)

    with platform.client(agent, url=gateway.url, timeout=120) as client:
        stream = client.responses.create(model=agent, input=LONG_ASKS[agent], stream=True, background=background)
        assert not seen.read(stream, act), "the gateway was to die under this stream"
    go_on(platform, agent, seen)
    return seen


def go_on(platform: Platform, agent: str, seen: Seen) -> None:
    """Reads to the end by cursor."""
    with platform.client(agent, timeout=120) as client:
        while not seen.ended:
            seen.read(client.responses.retrieve(seen.response_id, stream=True, starting_after=seen.last))


def by_key(
    platform: Platform, gateway: Gateway, agent: str, reached: threading.Barrier
) -> openai.types.responses.Response:
    key = f"key-{uuid.uuid4().hex}"
    session = f"crash-{uuid.uuid4().hex}"
    arguments = {
        "model": agent,
        "input": LONG_ASKS[agent],
        "extra_headers": {"Idempotency-Key": key},
        "extra_body": {"agent_session_id": session},
    }

    def meet() -> None:
        poll("the turn runs", lambda: platform.pids(agent, session), within=60)
        reached.wait(timeout=60)

    waiter = threading.Thread(target=meet)
    waiter.start()
    with platform.client(agent, url=gateway.url, timeout=120) as client, pytest.raises(openai.APIConnectionError):
        client.responses.create(**arguments)
    waiter.join(timeout=60)
    with platform.client(agent, timeout=120) as client:
        return client.responses.create(**arguments)


def test_a_killed_gateway_is_not_noticed_by_who_comes_back(struck: Platform) -> None:
    for _ in range(2):
        gateway = struck.start_gateway()
        reached = threading.Barrier(5)

        def blow(gateway: Gateway = gateway, reached: threading.Barrier = reached) -> None:
            reached.wait(timeout=60)
            gateway.kill()

        with ThreadPoolExecutor(5) as pool:
            killer = pool.submit(blow)
            streams = [
                pool.submit(by_cursor, struck, gateway, agent, background, reached)
                for agent, background in (("paced", True), ("rechunked", False), ("other", True))
            ]
            keyed = pool.submit(by_key, struck, gateway, "paced", reached)
            killer.result(timeout=120)
            for future in streams:
                seen = future.result(timeout=180)
                seen.check()
                assert seen.breaks >= 1 and seen.events[-1].type == "response.completed"
                # A takeover is not an attempt: the one that ran went on under its new owner.
                agent = str(seen.events[-1].response.model)
                assert len(struck.record(agent, seen.response_id)["attempts"]) == 1
            answer = keyed.result(timeout=180)
            assert answer.status == "completed" and answer.output_text == words(150)
            assert len(struck.record("paced", answer.id)["attempts"]) == 1


def test_a_draining_gateway_hands_its_turns_over(struck: Platform) -> None:
    gateway = struck.start_gateway()
    seen = Seen()
    told = threading.Event()

    def act(deltas: int) -> None:
        if deltas == 5 and not told.is_set():
            told.set()
            gateway.process.terminate()

    with struck.client("paced", url=gateway.url, timeout=120) as client:
        seen.read(client.responses.create(model="paced", input="200 30", stream=True, background=True), act)
    go_on(struck, "paced", seen)
    seen.check()
    assert gateway.process.wait(timeout=90) == 0
    assert len(struck.record("paced", seen.response_id)["attempts"]) == 1

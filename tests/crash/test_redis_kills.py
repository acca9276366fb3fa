"""`kill -9` of Valkey under running turns: streams pause and go on; nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from crash.kills import LONG_ASKS, words
from crash.stream import Seen
from fakes.platform import Platform, poll

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]


def run(platform: Platform, agent: str, background: bool, reached: threading.Barrier) -> Seen:
    seen = Seen()

    def act(deltas: int) -> None:
        if deltas == 4:
            reached.wait(timeout=60)

    with platform.client(agent, timeout=120) as client:
        seen.read(client.responses.create(model=agent, input=LONG_ASKS[agent], stream=True, background=background), act)
        while not seen.ended:
            seen.read(client.responses.retrieve(seen.response_id, stream=True, starting_after=seen.last))
    return seen


def test_a_restarted_valkey_is_not_noticed(struck: Platform) -> None:
    for _ in range(2):
        reached = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            calls = [
                pool.submit(run, struck, a, b, reached)
                for a, b in (("paced", True), ("rechunked", False), ("other", False))
            ]
            reached.wait(timeout=60)
            os.kill(struck.valkey_pid(), signal.SIGKILL)
            for call in calls:
                seen = call.result(timeout=120)
                seen.check()
                agent = str(seen.events[-1].response.model)
                assert seen.events[-1].type == "response.completed"
                assert len(struck.record(agent, seen.response_id)["attempts"]) == 1
                if agent != "other":
                    assert seen.events[-1].response.output_text == words(150)
    with struck.client("paced") as client:
        stored = client.responses.create(model="paced", input="3 5")
    assert stored.status == "completed"


def test_a_valkey_that_dies_as_it_starts_is_started_again(struck: Platform) -> None:
    before = struck.valkey_pid()
    os.kill(before, signal.SIGKILL)
    (starting,) = poll("the next one starts", lambda: set(struck.valkey_pids()) - {before}, every=0.001)
    os.kill(starting, signal.SIGKILL)
    poll("it was met as it started", lambda: b"as it was started" in struck.log.read_bytes())
    with struck.client("paced", max_retries=5) as client:
        assert client.responses.create(model="paced", input="3 5").status == "completed"

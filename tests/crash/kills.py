"""One struck call: what is called, what is killed and when; run through the stock client, judged by what it saw and the record."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import openai

from crash.stream import Seen
from fakes.platform import Platform, poll

ASKS = {"paced": "40 25", "rechunked": "40 20", "other": "25 30"}
LONG_ASKS = {"paced": "150 40", "rechunked": "150 40", "other": "150 40"}  # for blows that take a moment to prepare


def words(count: int) -> str:
    """What paced and rechunked say when asked for so many words."""
    return "".join(f"w{n} " for n in range(count))


INTERRUPTED = {"sandbox_lost", "exit", "oom", "lost", "cut", "orphaned", "not_ready"}


@dataclass(frozen=True)
class Strike:
    """`at`: how many deltas were seen before the kill, 0 for none; `victim`: all, or one of the sandbox's processes."""

    agent: str
    mode: str  # plain, stream, background
    at: int
    victim: str  # all, shim, init, agent

    def __str__(self) -> str:
        return f"{self.agent}-{self.mode}-{self.at}-{self.victim}"


def strikes(seed: int, count: int) -> list[Strike]:
    """`count` strikes spread over agents, modes, victims and points, the same for the same seed."""
    dice = random.Random(seed)
    agents, modes, victims = (
        ("paced", "rechunked", "other"),
        ("plain", "stream", "background"),
        ("all", "init", "agent", "shim"),
    )
    whole = [(a, m, v) for a in agents for m in modes for v in victims]
    dice.shuffle(whole)
    points = {"paced": 40, "rechunked": 12, "other": 25}
    chosen = [whole[n % len(whole)] for n in range(count)]
    return [Strike(a, m, dice.choice((0, dice.randrange(1, points[a]), points[a])), v) for a, m, v in chosen]


def strike(platform: Platform, one: Strike) -> dict[str, Any] | None:
    """Runs one call and strikes it. None: the kill hit no running attempt, so it does not count. Raises AssertionError."""
    session = f"crash-{uuid.uuid4().hex}"
    with platform.client(one.agent, timeout=120) as client:
        seen = _struck_call(platform, client, one, session)
    seen.check()
    record = platform.record(one.agent, seen.response_id)
    reasons = [a["reason"] for a in record["attempts"]]
    status, said = platform.call(f"/v1/sessions/{session}?agent={one.agent}", method="DELETE")
    assert status in (200, 202, 204), (status, said)  # hundreds that idle would be most of what a long run measures
    if len(reasons) < 2:
        assert seen.events[-1].type == "response.completed", (one, record)
        return None
    _judge(one, seen, record)
    return record


def _struck_call(platform: Platform, client: openai.OpenAI, one: Strike, session: str) -> Seen:
    arguments: dict[str, Any] = {
        "model": one.agent,
        "input": ASKS[one.agent],
        "extra_body": {"agent_session_id": session},
    }
    seen = Seen()
    killer = threading.Thread(target=_kill_when_active, args=(platform, one, session))
    if one.mode == "plain":
        killer.start()
        response = client.responses.create(**arguments)
        killer.join(timeout=60)
        seen.read(client.responses.retrieve(response.id, stream=True))
        return seen
    struck = threading.Event()

    def act(deltas: int) -> None:
        if deltas >= one.at and not struck.is_set():
            struck.set()
            _kill(platform, one, session)

    if one.at == 0:
        killer.start()
    stream = client.responses.create(stream=True, background=one.mode == "background", **arguments)
    seen.read(stream, None if one.at == 0 else act)
    if one.at == 0:
        killer.join(timeout=60)
    return seen


def _judge(one: Strike, seen: Seen, record: dict[str, Any]) -> None:
    reasons = [a["reason"] for a in record["attempts"]]
    assert reasons[-1] == "completed" and set(reasons[:-1]) <= INTERRUPTED, (one, record)
    for attempt in record["attempts"]:
        assert attempt["started_at"] <= attempt["ended_at"], record
    assert seen.events[-1].type == "response.completed", (one, seen.events[-1])
    output = [i for i in seen.events[-1].response.output if i.type == "message"]
    text = ["".join(p.text for p in i.content) for i in output]
    if one.agent != "other":
        assert text == [words(40)], (one, text)
        assert output[0].status == "completed"
        return
    # Other words each attempt: what was open ended `incomplete`, the whole of the last attempt follows. A message that was whole before
    # the kill (the blow fell between its end and the response's) stays as it was seen.
    whole = ["".join(f"a{k}.{n} " for n in range(25)) for k in range(1, len(reasons) + 1)]
    assert text[-1] == whole[-1] and output[-1].status == "completed", (one, text)
    for item, said in zip(output[:-1], text, strict=False):
        assert item.status == "incomplete" or (item.status == "completed" and said in whole), (one, output)


def _kill_when_active(platform: Platform, one: Strike, session: str) -> None:
    poll("a sandbox of the session", lambda: platform.pids(one.agent, session), within=60, every=0.01)
    if one.mode == "plain":
        # No events are seen here: the point in the call is a moment after its sandbox is there.
        threading.Event().wait(one.at * 0.02)
    _kill(platform, one, session)


def _kill(platform: Platform, one: Strike, session: str) -> None:
    pids = platform.pids(one.agent, session)
    shim, init = (pids + [0, 0])[:2]
    chosen = {"all": pids, "shim": [shim], "init": [init], "agent": children(init)}[one.victim]
    for pid in chosen:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Of a process, on this machine."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(p) for p in file.read().split()]
    return []


def wait_quiet(seconds: float) -> None:
    """Lets pools refill between blows, so that each blow meets a platform that works."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        threading.Event().wait(0.05)

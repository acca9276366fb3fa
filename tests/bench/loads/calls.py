"""A model call through shim and gateway beside the same call direct, its replay, its bytes in the journal, and a turn's commands.

The shim is its own server and boundary in a process, without an agent behind it (`scripted_door.py`); the turn is a real one of the
gateway's, played by a scripted sandbox that holds it open. The model answers at once, so that nothing hides what is added.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import redis.asyncio as aioredis

from bench import figures, pace, processes, subjects
from bench.effort import Effort
from bench.report import Line
from bench.subjects import AGENT, COMMANDS, TENANT, Gateway, Stage
from bench.workers import Worker
from moorage_api import tokens
from moorage_api.catalog import EndpointEntry
from moorage_api.kinds import ModelEndpoint
from moorage_api.ledger import keys
from moorage_api.ledger.provider import ProviderLedger
from moorage_gateway.ledger_client import LedgerClient

T = TypeVar("T")

TEXT = "y" * 900  # a request of about 1 KB
BODY = json.dumps({"model": "m-1", "messages": [{"role": "user", "content": TEXT}]}).encode()
CALLS = 10
"""Of the turn whose commands are counted."""
HELD, BEAT_US = (
    60,
    4_000_000,
)  # the turn runs until it is cancelled; an attempt that says nothing for 15 s counts as lost
HOLD_US = 700_000
"""That turn lasts: ten calls at once must have been made."""
GATE = 30
PATH = f"/v1/agents/{AGENT}/responses"
REPLAYED = "moorage_calls_replayed"


def measure(stage: Stage, effort: Effort) -> list[Line]:
    """All lines; the gateway is started anew, with the model's host allowed."""
    with (
        _model() as port,
        contextlib.closing(Worker(subjects.HERE / "scripted_door.py", core=processes.cores()[0])) as doors,
    ):
        stage.gateway.close()
        stage.gateway = Gateway(
            stage.folder,
            stage.valkey.url,
            relaxed=stage.relaxed,
            env={"MOORAGE_ALLOWED_UPSTREAMS": f"127.0.0.1:{port}"},
        )
        desk = _Desk(stage, port, secrets.token_hex(32), doors)
        desk.run(desk.publish)
        stage.warm([_session(number) for number in range(effort.repetitions)])
        lines = _added(desk, effort)
        return [*lines, _commands(desk, effort)]


def _added(desk: _Desk, effort: Effort) -> list[Line]:
    """Latency and CPU of calls one after the other, then of the same calls from the journal."""
    stage, many = desk.stage, min(effort.requests, 1_500)
    direct, through, costs, replays, octets, paces = [], [], [], [], [], []
    text, idle = subjects.request("/v1/chat/completions", BODY), _idle([stage.gateway.pid, desk.doors.pid])
    for number in range(effort.repetitions):
        turn = desk.turn(_session(number))
        found = stage.load.run(target=f"127.0.0.1:{desk.port}", requests=[text], count=many)
        direct.append(figures.percentile(found["wait_us"], 50) / 1000)
        target, pids = desk.door(turn), [stage.gateway.pid, desk.doors.pid]
        desk.first(target)
        before, began = processes.cpu(pids), time.monotonic()
        found = stage.load.run(target=target, requests=[desk.call], count=many)
        spent = processes.cpu(pids) - before - idle * (time.monotonic() - began)
        costs.append(spent / many * 1000)
        through.append(figures.percentile(found["wait_us"], 50) / 1000)
        paces.append(pace.now())
        octets.append(desk.run(desk.octets(turn)) / (many + 1))
        # A door of its own numbers from 1 again, so each call meets the entry that this number named.
        known = stage.gateway.metric(REPLAYED)
        found = stage.load.run(target=desk.door(turn), requests=[desk.call], count=many)
        replays.append(figures.percentile(found["wait_us"], 50) / 1000)
        if stage.gateway.metric(REPLAYED) - known != many:
            raise RuntimeError("calls that should have come from the journal were made")
        desk.cancel(turn)
    added = figures.spread([a - b for a, b in zip(through, direct, strict=True)])
    cost, replay, size = figures.spread(costs), figures.spread(replays), figures.spread(octets)
    base = f"direct to the model {figures.short(figures.median(direct))} ms"
    each = f"{many} calls, 1 KB, one at a time"
    return [
        Line("call-added-p50", added.middle, "ms", goal=1.0, note=f"{added}; {base}; {each}"),
        Line(
            "call-cpu",
            cost.middle,
            "ms/call",
            goal=1.2,
            note=f"{cost}; gateway and shim, less what they spend idle",
            pace=figures.median(paces),
        ),
        Line("call-replay-p50", replay.middle, "ms", goal=1.0, note=f"{replay}; shim, gateway, Valkey"),
        Line(
            "call-journal-bytes", size.middle, "bytes/call", note=f"{size}; Redis' memory, 1 KB asked, 0.6 KB answered"
        ),
    ]


def _idle(pids: list[int]) -> float:
    """CPU seconds a second that these processes spend by themselves."""
    before, began = processes.cpu(pids), time.monotonic()
    time.sleep(3)  # not a wait for a state: the idle time is what is measured
    return (processes.cpu(pids) - before) / (time.monotonic() - began)


def _commands(desk: _Desk, effort: Effort) -> Line:
    """Commands of a whole streamed turn with `CALLS` unstreamed calls, less those of an idle time as long."""
    stage, gateway, turns = desk.stage, desk.stage.gateway, max(10, effort.turns // 6)
    before, began = gateway.metric(COMMANDS), time.monotonic()
    for _ in range(turns):
        with desk.streamed(_session(0), gap_us=HOLD_US) as turn:
            stage.load.run(target=desk.door(turn), requests=[desk.call], connections=CALLS, each=1)
    busy, spent = gateway.metric(COMMANDS) - before, time.monotonic() - began
    before = gateway.metric(COMMANDS)
    time.sleep(spent)  # not a wait for a state: the idle time is what is measured
    idle = gateway.metric(COMMANDS) - before
    note = f"{turns} turns; minus an idle time as long"
    return Line("call-turn-commands", round((busy - idle) / turns, 1), "commands/turn", goal=GATE, gate=GATE, note=note)


@dataclass(frozen=True)
class _Turn:
    """One that runs."""

    response: str
    session: str
    epoch: int
    sandbox: str
    begun: int


@dataclass
class _Desk:
    """What a provider and an agent would say, said by the bench."""

    stage: Stage
    port: int
    key: str
    doors: Worker

    @property
    def call(self) -> str:
        """The request at the shim's door."""
        return subjects.request("/models/m/v1/chat/completions", BODY)

    def run(self, work: Callable[[aioredis.Redis], Coroutine[Any, Any, T]]) -> T:
        """With a connection of its own, whose commands are not the gateway's."""

        async def do() -> T:
            redis = aioredis.Redis.from_url(self.stage.valkey.url)
            try:
                return await work(redis)
            finally:
                await redis.aclose()

        return asyncio.run(do())

    async def publish(self, redis: aioredis.Redis) -> None:
        """The endpoint, the agent that may use it, and a key whose signatures we can make."""
        client = LedgerClient(redis, who="bench-provider")
        await client.found()
        ledger = ProviderLedger(client)
        await ledger.set_token_key(self.key)
        document = {"apiVersion": "moorage.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": "m"}}
        spec = {"protocol": "openai", "baseUrl": f"http://127.0.0.1:{self.port}/v1"}
        endpoint = ModelEndpoint.model_validate({**document, "spec": spec}, by_alias=True, by_name=False)
        await ledger.publish_endpoint(EndpointEntry(TENANT, "m", endpoint.wire_spec()))
        await ledger.publish(subjects.entry(models=["m"]))

    def first(self, target: str) -> None:
        """Returns when a call is answered: the gateway has heard of agent, endpoint and key."""
        until = time.monotonic() + subjects.START_SECONDS
        while (found := _ask(target.rpartition(":")[2], "/models/m/v1/chat/completions", "POST", BODY))[0] != 200:
            if time.monotonic() > until:
                raise RuntimeError(f"no call is answered: {found}")
            time.sleep(0.1)

    def turn(self, session: str) -> _Turn:
        """A background turn whose attempt runs until it is cancelled."""
        body = {"input": f"script {HELD} {BEAT_US}", "background": True, "agent_session_id": session}
        status, data = _ask(str(self.stage.gateway.port), PATH, "POST", json.dumps(body).encode(), key=self.stage.key)
        if status != 200:
            raise RuntimeError(f"the turn was not accepted: {status} {data[:200]!r}")
        return self.run(self._running(str(json.loads(data)["id"])))

    @contextlib.contextmanager
    def streamed(self, session: str, gap_us: int) -> Iterator[_Turn]:
        """A streamed turn whose attempt runs for at least `gap_us`; the context ends with its stream."""
        body = {"input": f"script 1 {gap_us}", "stream": True, "agent_session_id": session}
        with contextlib.closing(_connection(str(self.stage.gateway.port), 60.0)) as connection:
            connection.request("POST", PATH, body=json.dumps(body), headers=_headers(self.stage.key))
            answer = connection.getresponse()
            line = b""
            while not line.startswith(b"data:"):
                line = answer.readline()
                if not line:
                    raise RuntimeError(f"the turn did not begin: {answer.status}")
            yield self.run(self._running(str(json.loads(line[5:])["response"]["id"])))
            if b"response.completed" not in answer.read():
                raise RuntimeError("the turn did not end well")

    def _running(self, response: str) -> Callable[[aioredis.Redis], Coroutine[Any, Any, _Turn]]:
        """See `run`: the turn once its attempt runs."""

        async def look(redis: aioredis.Redis) -> _Turn:
            until = time.monotonic() + subjects.START_SECONDS
            while time.monotonic() < until:
                session_key, begun = await redis.hmget(keys.turn(response), "session", "begun")  # type: ignore[misc]
                if begun and int(begun):
                    name = session_key.decode()
                    epoch, sandbox = await redis.hmget(keys.session(name), "epoch", "sandbox")  # type: ignore[misc]
                    return _Turn(response, name, int(epoch), sandbox.decode(), int(begun))
                await asyncio.sleep(0.01)
            raise RuntimeError("the turn's attempt did not begin")

        return look

    def cancel(self, turn: _Turn) -> None:
        """Ends it."""
        _ask(
            str(self.stage.gateway.port),
            f"{PATH}/{turn.response}/cancel",
            "POST",
            b"",
            key=self.stage.key,
        )

    def door(self, turn: _Turn) -> str:
        """Where the load generator reaches a shim's door for that turn; its calls are numbered from 1."""
        token = tokens.sign(tokens.Identity(turn.sandbox, TENANT, AGENT, "r1", "v"), self.key)
        gateway = f"http://127.0.0.1:{self.stage.gateway.sandbox_port}"
        self.doors.send(
            {
                "gateway": gateway, "token": token, "session": turn.session, "epoch": turn.epoch, "turn": turn.response,
                "begun": turn.begun, "port": subjects.free_port(),
            }
        )  # fmt: skip
        return f"127.0.0.1:{self.doors.line(subjects.ANSWER_SECONDS)['port']}"

    @staticmethod
    def _names(turn: _Turn) -> tuple[str, str, str]:
        response = turn.response
        return keys.journal(response), keys.journal_order(response), keys.journal_numbers(response)

    def octets(self, turn: _Turn) -> Callable[[aioredis.Redis], Coroutine[Any, Any, int]]:
        """See `run`: bytes of Redis' memory that the turn's journal takes."""

        async def look(redis: aioredis.Redis) -> int:
            sizes = [await redis.memory_usage(name, samples=0) for name in self._names(turn)]
            return sum(int(size or 0) for size in sizes)

        return look


@contextlib.contextmanager
def _model() -> Iterator[int]:
    child = processes.start(
        [sys.executable, subjects.HERE / "scripted_model.py"], core=processes.cores()[0], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        port = int(child.stdout.readline() or 0)
        if not port:
            raise RuntimeError("the scripted model did not start")
        yield port
    finally:
        processes.end(child)


def _session(number: int) -> str:
    return f"bench-calls-{number:04d}"


def _connection(port: str, seconds: float) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", int(port), timeout=seconds)


def _headers(key: str) -> dict[str, str]:
    return {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})


def _ask(port: str, path: str, method: str, body: bytes, *, key: str = "") -> tuple[int, bytes]:
    """Status and body."""
    with contextlib.closing(_connection(port, 60.0)) as connection:
        connection.request(method, path, body=body or None, headers=_headers(key))
        answer = connection.getresponse()
        return answer.status, answer.read()

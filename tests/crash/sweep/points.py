"""One point of the sweep: an agent's run, what is killed in it and when, and what must be true afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from crash.kills import children
from crash.stream import Seen
from crash.sweep.rows import Ground, Row
from fakes.platform import Gateway, Platform, poll

EVENTS = (*(f"q{n}" for n in range(1, 6)), *(f"e{n}" for n in range(1, 6)))
EDGES = ("asked", "answered")
ALONE = ("q1", "q3")
"""Questions that are asked with nothing else open."""
BESIDE = {"q4": 2, "q5": 2}
"""Questions that are carried together, where that is more than one."""


@dataclass(frozen=True)
class Blow:
    """What is killed, at which edge of which event, how much later. `lost`: an effect that was asked for does not happen."""

    event: str
    edge: str
    victim: str  # all, init, agent, shim; valkey; gateway
    after_ms: int = 0
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.victim}@{self.event}-{self.edge}+{self.after_ms}{'-lost' * self.lost}"


@dataclass(frozen=True)
class Point:
    """A run and its blows, one after the other."""

    agent: str
    mode: str  # same, clock, fresh
    background: bool
    blows: tuple[Blow, ...]

    def __str__(self) -> str:
        return f"{self.agent}-{self.mode}{'-background' * self.background}-{','.join(map(str, self.blows))}"


def points(seed: int, count: int, rows: Sequence[Row], victims: Sequence[str]) -> list[Point]:
    """Each agent, event, edge and mode in turn; the rest by dice. The same for the same seed."""
    dice = random.Random(f"{seed} {victims}")
    whole = [
        (row.name, mode, event, edge)
        for row in rows
        for mode in ("same", "same", "clock", "fresh")
        for event in EVENTS
        for edge in EDGES
    ]
    found: list[Point] = []
    while len(found) < count:
        dice.shuffle(whole)
        for agent, mode, event, edge in whole:
            blows = [_blow(dice, event, edge, victims)]
            if victims[0] == "all" and dice.random() < 0.25:
                blows.append(_blow(dice, dice.choice(EVENTS), dice.choice(EDGES), victims))
            found.append(Point(agent, mode, dice.random() < 0.3, tuple(blows)))
    return found[:count]


def _blow(dice: random.Random, event: str, edge: str, victims: Sequence[str]) -> Blow:
    late = 0 if edge == "asked" else dice.choice((0, 0, 1, 3, 8, 20))
    victim = dice.choice(victims)
    lost = edge == "asked" and event.startswith("e") and victim == "all" and dice.random() < 0.5
    return Blow(event, edge, victim, late, lost)


@dataclass
class Striker:
    """Waits for the events of one run, and strikes."""

    ground: Ground
    point: Point
    run: str
    session: str
    other: Gateway | None = None
    struck: list[Blow] = field(default_factory=list)
    _aimed: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, event: str, edge: str) -> str:
        """One edge of one event. `lost`: the effect must not happen."""
        with self._lock:
            if len(self.struck) >= len(self.point.blows):
                return ""
            blow = self.point.blows[len(self.struck)]
            if blow.event != event:
                return ""
            if edge == "asked" and blow.victim in ("all", "init", "agent", "shim"):
                self._aim(blow)  # not when it is struck: that would be later than the edge
            if blow.edge != edge:
                return ""
            threading.Event().wait(blow.after_ms / 1000)
            self._strike(blow)
            self.struck.append(blow)
            return "lost" if blow.lost else ""

    def _aim(self, blow: Blow) -> None:
        """Processes are held, not numbered: a number may be another's by the time of the blow."""
        self.let_go()
        pids = self.ground.platform.pids(self.point.agent, self.session)
        shim, init = (pids + [0, 0])[:2]
        for pid in {"all": pids, "shim": [shim], "init": [init], "agent": children(init)}[blow.victim]:
            with contextlib.suppress(OSError):
                self._aimed.append(os.pidfd_open(pid))

    def let_go(self) -> None:
        """Of the processes that are held."""
        while self._aimed:
            os.close(self._aimed.pop())

    def _strike(self, blow: Blow) -> None:
        match blow.victim:
            case "valkey":
                os.kill(self.ground.platform.valkey_pid(), signal.SIGKILL)
            case "gateway":
                assert self.other is not None
                self.other.kill()
            case _:
                for held in self._aimed:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(held, signal.SIGKILL)


class Strikers:
    """Tells each run's striker of its events."""

    def __init__(self, ground: Ground) -> None:
        self._runs: dict[str, Striker] = {}
        ground.models.watch = lambda edge, text: self._see(text.split()[0], text.split()[1], edge)
        ground.effects.watch = lambda edge, key: self._see(key.partition("-")[0], f"e{key.rpartition('-')[2]}", edge)

    def add(self, striker: Striker) -> None:
        """From now on it hears."""
        self._runs[striker.run] = striker

    def remove(self, striker: Striker) -> None:
        """It hears nothing more."""
        self._runs.pop(striker.run, None)

    def _see(self, run: str, event: str, edge: str) -> str:
        striker = self._runs.get(run)
        return striker.see(event, edge) if striker is not None else ""


def strike(ground: Ground, strikers: Strikers, point: Point) -> int:
    """Runs one point and judges it; how many of its blows fell. Raises AssertionError."""
    run, platform = uuid.uuid4().hex[:12], ground.platform
    gateway = platform.start_gateway() if point.blows[0].victim == "gateway" else None
    before = platform.valkey_pid()
    striker = Striker(ground, point, run, f"sweep-{run}", gateway)
    strikers.add(striker)
    try:
        seen = _called(platform, striker, gateway)
        seen.check()
        assert seen.events[-1].type == "response.completed", (str(point), seen.events[-1])
        _judge(ground, striker, seen)
    finally:
        strikers.remove(striker)
        striker.let_go()
        if gateway is not None and gateway.process.poll() is None:
            gateway.kill()
    if striker.struck and striker.struck[0].victim == "valkey":
        poll("Valkey runs again", lambda: platform.valkey_pid() != before)
    status, said = platform.call(f"/v1/sessions/{striker.session}?agent={point.agent}", method="DELETE")
    assert status in (200, 202, 204), (status, said)
    return len(striker.struck)


def _called(platform: Platform, striker: Striker, gateway: Gateway | None) -> Seen:
    point, seen = striker.point, Seen()
    url = gateway.url if gateway is not None else None
    with platform.client(point.agent, url=url, timeout=120) as client:
        stream = client.responses.create(
            model=point.agent, input=f"{striker.run} {point.mode}", stream=True, background=point.background,
            extra_body={"agent_session_id": striker.session},
        )  # fmt: skip
        if seen.read(stream):
            return seen
    for _ in range(20):
        with platform.client(point.agent, timeout=120) as client:
            if seen.read(client.responses.retrieve(seen.response_id, stream=True, starting_after=seen.last)):
                break
    return seen


def _judge(ground: Ground, striker: Striker, seen: Seen) -> None:
    point, run = striker.point, striker.run
    told = (str(point), [str(blow) for blow in striker.struck])
    keys = [f"{run}-{n}" for n in range(1, 6)]
    done = [ground.effects.counts[key] for key in keys]
    assert done == [1] * 5, (told, done)
    texts = [each["text"] for each in ground.models.asked if each["text"].startswith(f"{run} ")]
    final = [item for item in seen.events[-1].response.output if item.type == "message"]
    text = final[-1].content[0].text
    assert final[-1].status == "completed", (told, final)
    again = len(texts) - len(set(texts))
    gateway = point.blows[0].victim == "gateway"
    assert again <= (BESIDE.get(point.blows[0].event, 1) if gateway else 0), (told, texts)
    lines = [line.strip() for line in text.splitlines()]
    if point.mode == "clock" and not gateway:
        alone = [text.split()[1] for text in texts if text.split()[1] in ALONE]
        assert sorted(alone) == list(ALONE), (told, texts)
    if point.mode != "same":
        assert [line for line in lines if line.startswith("did ")] == [f"did {key}" for key in keys], (told, lines)
        return
    assert len(set(texts)) == 5, (told, texts)
    answers = [[f"answer {n} to {run} q{k}" for n in ground.models.numbers(f"{run} q{k}")] for k in range(1, 6)]
    did = [[f"did {key}"] for key in keys]
    order = [answers[0], did[0], answers[1], did[1], did[2], answers[2], did[3], answers[3], answers[4], did[4]]
    assert len(lines) == len(order), (told, lines)
    assert all(line in may for line, may in zip(lines, order, strict=True)), (told, lines, order)
    if not gateway:
        assert len(final) == 1, (told, final)

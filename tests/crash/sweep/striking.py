"""Runs one point of the sweep: waits for its events, strikes, and reads what the client sees. Layer: I/O."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import uuid
from dataclasses import dataclass, field
from typing import Protocol

from crash.kills import children
from crash.stream import Seen
from crash.sweep.judging import judge
from crash.sweep.points import SANDBOX, Blow, Point
from crash.sweep.rows import Ground, Servers
from fakes.platform import Gateway, Platform, poll


class Weapon(Protocol):
    """What blows fall with."""

    def aim(self, blow: Blow) -> None:
        """At the edge before the blow's own, or at that: who is meant. More than once for one blow: the last counts."""

    def fall(self, blow: Blow) -> None:
        """Strikes."""


@dataclass
class Striker:
    """Waits for the events of one run, and strikes. `struck`: the blows that fell."""

    point: Point
    run: str
    weapon: Weapon
    struck: list[Blow] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, event: str, edge: str) -> str:
        """One edge of one event. `lost`: the effect must not happen."""
        with self._lock:
            if len(self.struck) >= len(self.point.blows):
                return ""
            blow = self.point.blows[len(self.struck)]
            if blow.event != event:
                return ""
            if edge == "asked":
                self.weapon.aim(blow)  # not when it is struck: that would be later than the edge
            if blow.edge != edge:
                return ""
            threading.Event().wait(blow.after_ms / 1000)
            self.weapon.fall(blow)
            self.struck.append(blow)
            return "lost" if blow.lost else ""


class Strikers:
    """Tells each run's striker of its events."""

    def __init__(self, servers: Servers) -> None:
        self._runs: dict[str, Striker] = {}
        servers.models.watch = lambda edge, text: self._see(text.split()[0], text.split()[1], edge)
        servers.effects.watch = lambda edge, key: self._see(key.partition("-")[0], f"e{key.rpartition('-')[2]}", edge)

    def add(self, striker: Striker) -> None:
        """From now on it hears."""
        self._runs[striker.run] = striker

    def remove(self, striker: Striker) -> None:
        """It hears nothing more."""
        self._runs.pop(striker.run, None)

    def _see(self, run: str, event: str, edge: str) -> str:
        striker = self._runs.get(run)
        return striker.see(event, edge) if striker is not None else ""


@dataclass
class Signals:
    """SIGKILL to processes of this machine: a session's sandbox, Valkey, the gateway that was started for it."""

    platform: Platform
    agent: str
    session: str
    gateway: Gateway | None
    _held: list[int] = field(default_factory=list)

    def aim(self, blow: Blow) -> None:
        """Processes are held, not numbered: a number may be another's by the time of the blow."""
        if blow.victim not in SANDBOX:
            return
        self.let_go()
        pids = self.platform.pids(self.agent, self.session)
        shim, init = (pids + [0, 0])[:2]
        for pid in {"all": pids, "shim": [shim], "init": [init], "agent": children(init)}[blow.victim]:
            with contextlib.suppress(OSError):
                self._held.append(os.pidfd_open(pid))

    def fall(self, blow: Blow) -> None:
        """Whoever of them is gone already is no matter."""
        if blow.victim == "valkey":
            os.kill(self.platform.valkey_pid(), signal.SIGKILL)
        elif self.gateway is not None:
            self.gateway.kill()
        for held in self._held:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(held, signal.SIGKILL)

    def let_go(self) -> None:
        """Of the processes that are held."""
        while self._held:
            os.close(self._held.pop())


def strike(ground: Ground, strikers: Strikers, point: Point) -> tuple[int, int]:
    """Runs one point and judges it; how many of its blows fell, how many effects were told as unknown. Raises AssertionError."""
    run, platform = uuid.uuid4().hex[:12], ground.platform
    session, agent = f"sweep-{run}", point.row.name
    gateway = platform.start_gateway() if point.blows[0].victim == "gateway" else None
    before = platform.valkey_pid()
    weapon = Signals(platform, agent, session, gateway)
    striker = Striker(point, run, weapon)
    strikers.add(striker)
    try:
        unknown = judge(ground, point, run, _called(platform, point, run, session, gateway))
    finally:
        strikers.remove(striker)
        weapon.let_go()
        if gateway is not None and gateway.process.poll() is None:
            gateway.kill()
    if striker.struck and striker.struck[0].victim == "valkey":
        poll("Valkey runs again", lambda: set(platform.valkey_pids()) - {before})
    status, said = platform.call(f"/v1/sessions/{session}?agent={agent}", method="DELETE")
    assert status in (200, 202, 204), (status, said)
    return len(striker.struck), unknown


def _called(platform: Platform, point: Point, run: str, session: str, gateway: Gateway | None) -> Seen:
    agent, seen = point.row.name, Seen()
    with platform.client(agent, url=gateway.url if gateway is not None else None, timeout=120) as client:
        stream = client.responses.create(
            model=agent, input=f"{run} {point.mode}", stream=True, background=point.background,
            extra_body={"agent_session_id": session},
        )  # fmt: skip
        if seen.read(stream):
            return seen
    for _ in range(20):
        with platform.client(agent, timeout=120) as client:
            if seen.read(client.responses.retrieve(seen.response_id, stream=True, starting_after=seen.last)):
                break
    return seen

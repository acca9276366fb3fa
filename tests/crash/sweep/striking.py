"""Runs one point of the sweep: waits for its events, strikes, and reads what the client sees. Layer: I/O."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import uuid
from dataclasses import dataclass, field

from crash.kills import children
from crash.stream import Seen
from crash.sweep.judging import judge
from crash.sweep.points import SANDBOX, Blow, Point
from crash.sweep.rows import Ground
from fakes.platform import Gateway, Platform, poll


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
            if edge == "asked" and blow.victim in SANDBOX:
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
        pids = self.ground.platform.pids(self.point.row.name, self.session)
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


def strike(ground: Ground, strikers: Strikers, point: Point) -> tuple[int, int]:
    """Runs one point and judges it; how many of its blows fell, how many effects were told as unknown. Raises AssertionError."""
    run, platform = uuid.uuid4().hex[:12], ground.platform
    gateway = platform.start_gateway() if point.blows[0].victim == "gateway" else None
    before = platform.valkey_pid()
    striker = Striker(ground, point, run, f"sweep-{run}", gateway)
    strikers.add(striker)
    try:
        seen = _called(platform, striker, gateway)
        unknown = judge(ground, point, run, seen)
    finally:
        strikers.remove(striker)
        striker.let_go()
        if gateway is not None and gateway.process.poll() is None:
            gateway.kill()
    if striker.struck and striker.struck[0].victim == "valkey":
        poll("Valkey runs again", lambda: platform.valkey_pid() != before)
    status, said = platform.call(f"/v1/sessions/{striker.session}?agent={point.row.name}", method="DELETE")
    assert status in (200, 202, 204), (status, said)
    return len(striker.struck), unknown


def _called(platform: Platform, striker: Striker, gateway: Gateway | None) -> Seen:
    point, seen = striker.point, Seen()
    url = gateway.url if gateway is not None else None
    with platform.client(point.row.name, url=url, timeout=120) as client:
        stream = client.responses.create(
            model=point.row.name, input=f"{striker.run} {point.mode}", stream=True, background=point.background,
            extra_body={"agent_session_id": striker.session},
        )  # fmt: skip
        if seen.read(stream):
            return seen
    for _ in range(20):
        with platform.client(point.row.name, timeout=120) as client:
            if seen.read(client.responses.retrieve(seen.response_id, stream=True, starting_after=seen.last)):
                break
    return seen

"""The external writes of an operator, named and numbered, and an end of the process before or after one of them. Layer: I/O rim.

Writes are numbered from the moment the switch is set, whatever they are: which of several tasks writes first may differ between two runs.
Renewals of the lease are not counted, since each is as the one before, nor is what each look at everything says again, nor is taking a
request off its list: the write that follows is.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moorage_api.ledger import loss_scripts, move_scripts, session_scripts
from moorage_api.ledger.script import FOUND, REDIS_CLOCK, Script
from moorage_operator.kube import Kube, KubeError
from moorage_operator.ledger import LedgerRunner

Side = Literal["before", "after"]
POINTS = "points"
"""The property of a test's report that says at how many points operators were killed."""
READS = frozenset(
    "GET HGET HGETALL LRANGE LLEN ZRANGE SCAN SMEMBERS EXISTS EVAL_RO PING CLIENT HELLO SELECT LPOP".split()
)
REPEATED = frozenset(
    {"HSET platform pod_tokens"}
)  # at each look at everything: how many there are, a run's length decides
HINTS = frozenset({"PUBLISH"})  # kept by nobody
PATH = re.compile(r"^/apis?/(?:[\w.]+/)?v\w+(?:/namespaces/[^/]+)?/(?P<kind>\w+)(?:/[^/]+(?:/(?P<part>\w+))?)?")


@dataclass(frozen=True)
class Point:
    """An instant: before or after the `number`th write."""

    number: int
    side: Side

    def __str__(self) -> str:
        return f"{self.side} write {self.number}"


class Points:
    """Numbers writes once `switch` is there, names each in `record`, and kills this process at `end`."""

    def __init__(self, switch: Path, record: Path, end: Point | None) -> None:
        self._switch = switch
        self._record = record
        self._end = end
        self._begun = 0
        self._told: set[str] = set()

    def begin(self, name: str) -> int:
        """A write is about to leave. Its number; 0 while nothing is counted, and of what is said again now and then."""
        again = name in self._told
        if name in REPEATED:
            self._told.add(name)
        if again or not self._switch.exists():
            return 0
        self._begun += 1
        self._die_at(Point(self._begun, "before"), name)
        return self._begun

    def undone(self, number: int) -> None:
        """It was answered that nothing was done: a further try is the same write."""
        self._begun -= bool(number)

    def landed(self, number: int, name: str) -> None:
        """It was answered."""
        if number:
            self._die_at(Point(number, "after"), name)
            self._note(name)

    def _die_at(self, point: Point, name: str) -> None:
        if point == self._end:
            self._note(f"died {point.side} {name}")
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, line: str) -> None:
        with self._record.open("a") as record:
            record.write(f"{line}\n")


class Counted(Kube):
    """Calls on an API server, with the writes numbered by `points`, which is set before the first call."""

    points: Points

    async def call(self, method: str, path: str, **more: Any) -> bytes:
        """As the operator's own."""
        name = _of_kube(method, PATH.search(path))
        if name is None:
            return await super().call(method, path, **more)
        at = self.points.begin(name)
        try:
            answer = await super().call(method, path, **more)
        except KubeError as fault:
            if fault.status:  # an answer as well
                self.points.landed(at, name)
            raise
        self.points.landed(at, name)
        return answer


class CountedLedger(LedgerRunner):
    """The operator's ledger, with its writes numbered by `points`, which is set before the first call."""

    points: Points

    async def send(self, command: tuple[Any, ...], *, effect: bool = False) -> Any:
        """As the operator's own."""
        name = _of_redis(command)
        if name is None:
            return await super().send(command, effect=effect)
        at = self.points.begin(name)
        try:
            answer = await super().send(command, effect=effect)
        except Exception:
            self.points.undone(at)
            raise
        self.points.landed(at, name)
        return answer


def _of_kube(method: str, found: re.Match[str] | None) -> str | None:
    if method == "GET" or found is None:
        return None
    if found["kind"] == "leases" and method != "POST":
        return None
    return f"{method} {found['kind']}" + (f"/{found['part']}" if found["part"] else "")


def _of_redis(command: tuple[Any, ...]) -> str | None:
    verb = str(command[0]).upper()
    if verb in READS or verb in HINTS:
        return None
    if verb in ("EVAL", "EVALSHA"):
        return _NAMES.get(str(command[1]), verb)
    field = f" {command[2]}" if verb == "HSET" else ""
    return f"{verb} {str(command[1]).partition(':')[0]}{field}"


def _scripts() -> dict[str, str]:
    """Text and hash of each script of sessions → its name."""
    found = {}
    named = (*vars(session_scripts).values(), *vars(move_scripts).values(), *vars(loss_scripts).values())
    for script in (FOUND, *(one for one in named if isinstance(one, Script))):
        text = script.text(REDIS_CLOCK)
        found[text] = script.name
        found[hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()] = script.name
    return found


_NAMES = _scripts()

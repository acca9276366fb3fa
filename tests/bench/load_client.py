"""The load generator: a process of its own that runs one job a line of JSON on stdin, and answers each with one line on stdout.

Job: {"target": "host:port" or "unix:/path", "requests": [text, …], "connections": n, and as needed
      "count": requests in all, "seconds": longest duration, "cpu": {"pids": […], "seconds": spend}, "each": requests a connection,
      "mark": text an event must hold to be timed}
Answer: {"requests", "errors", "statuses", "seconds", "cpu", "wait_us": […], "first_us": […], "marked_us": […],
         "events", "merged", "delay_us": […]}

Closed loop: each connection sends its next request when its last answer ended. A request's texts go round by connection. `merged`
counts events that came in one HTTP chunk with another; delays come from `@NANOSECONDS@` marks that the upstream put into events.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, cast

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import processes
from bench.answers import AnswerReader

MARK = re.compile(rb"@(\d+)@")
KEPT = 200_000  # samples of one job
SAMPLE_SECONDS = 0.05
STUCK_SECONDS = 30.0  # without any byte, or past the job's end: something is lost, and the job fails


class Job:
    """One job's bounds and results."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.target = str(wanted["target"])
        self.texts = [text.encode() for text in wanted["requests"]]
        self.connections = int(wanted.get("connections", 1))
        self.left = int(wanted.get("count", 2**62))
        self.each = int(wanted.get("each", 2**62))
        self.seconds = float(wanted.get("seconds", 60))
        self.spend = wanted.get("cpu")
        self.mark = str(wanted.get("mark", "")).encode()
        self.stopped = False
        self.heard_at = time.perf_counter()
        self.open = 0
        self.done = asyncio.Event()
        self.requests = self.errors = self.events = self.merged = 0
        self.statuses: dict[int, int] = {}
        self.waits: list[float] = []
        self.firsts: list[float] = []
        self.marked: list[float] = []  # to the first event that holds the mark
        self.delays: list[float] = []

    def take(self) -> bool:
        """Whether one more request may begin."""
        if self.stopped or self.left <= 0:
            return False
        self.left -= 1
        return True

    def answer(self, seconds: float, cpu: float | None) -> dict[str, Any]:
        """The line for stdout."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "statuses": self.statuses,
            "seconds": seconds,
            "cpu": cpu,
            "wait_us": self.waits,
            "first_us": self.firsts,
            "marked_us": self.marked,
            "events": self.events,
            "merged": self.merged,
            "delay_us": self.delays,
        }


class Connection(asyncio.Protocol):
    """One connection of a job."""

    def __init__(self, job: Job, text: bytes) -> None:
        self._job = job
        self._text = text
        self._reader = AnswerReader(self._piece, self._ended)
        self._transport: asyncio.Transport | None = None
        self._began = 0.0
        self._first = self._unmarked = True
        self._each = job.each
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._next()

    def data_received(self, data: bytes) -> None:
        self._job.heard_at = time.perf_counter()
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._job.errors += 1
        self._job.open -= 1
        if self._job.open == 0:
            self._job.done.set()

    def _next(self) -> None:
        assert self._transport is not None
        if self._each <= 0 or not self._job.take():
            self._transport.close()
            return
        self._each -= 1
        self._busy = self._first = self._unmarked = True
        self._began = time.perf_counter()
        self._transport.write(self._text)

    def _piece(self, data: bytes) -> None:
        job = self._job
        if self._first:
            self._first = False
            if len(job.firsts) < KEPT:
                job.firsts.append((time.perf_counter() - self._began) * 1e6)
        if job.mark:
            self._stream(data)

    def _stream(self, data: bytes) -> None:
        now, job = time.monotonic_ns(), self._job
        whole = [event for event in data.split(b"\n\n") if event and not event.startswith(b":")]
        job.events += len(whole)
        job.merged += max(0, len(whole) - 1)
        for event in whole:
            if job.mark not in event:
                continue
            if self._unmarked and len(job.marked) < KEPT:
                self._unmarked = False
                job.marked.append((time.perf_counter() - self._began) * 1e6)
            if (found := MARK.search(event)) is not None and len(job.delays) < KEPT:
                job.delays.append((now - int(found.group(1))) / 1000)

    def _ended(self, status: int) -> None:
        job = self._job
        self._busy = False
        job.requests += 1
        job.statuses[status] = job.statuses.get(status, 0) + 1
        if len(job.waits) < KEPT:
            job.waits.append((time.perf_counter() - self._began) * 1e6)
        self._next()


async def run(job: Job) -> dict[str, Any]:
    """One job from its first connection to the end of its last answer."""
    loop = asyncio.get_running_loop()
    pids = job.spend["pids"] if job.spend else []
    before, began = processes.cpu(pids), time.perf_counter()
    job.open = job.connections
    for number in range(job.connections):
        text = job.texts[number % len(job.texts)]
        await _connect(loop, job, text)
    say({"notice": "open"})
    while not job.done.is_set():
        try:
            async with asyncio.timeout(SAMPLE_SECONDS):
                await job.done.wait()
        except TimeoutError:
            spent = job.spend is not None and processes.cpu(pids) - before >= job.spend["seconds"]
            now = time.perf_counter()
            job.stopped = job.stopped or spent or now - began >= job.seconds
            if now - job.heard_at > STUCK_SECONDS or now - began > job.seconds + STUCK_SECONDS:
                raise RuntimeError(f"{job.open} connections wait for an answer after {job.requests} answers") from None
    return job.answer(time.perf_counter() - began, processes.cpu(pids) - before if pids else None)


async def _connect(loop: asyncio.AbstractEventLoop, job: Job, text: bytes) -> None:
    def make() -> Connection:
        return Connection(job, text)

    if job.target.startswith("unix:"):
        await loop.create_unix_connection(make, job.target[5:])
    else:
        host, _, port = job.target.rpartition(":")
        await loop.create_connection(make, host, int(port))


def say(line: dict[str, Any]) -> None:
    """One line to whoever ordered the job, whole: an unbuffered stdout takes what the pipe takes, and forgets the rest."""
    left = memoryview(json.dumps(line).encode() + b"\n")
    while left:
        left = left[os.write(sys.stdout.fileno(), left) :]


def main() -> None:
    """Jobs until stdin ends."""
    gc.disable()
    for line in sys.stdin:
        try:
            say(uvloop.run(run(Job(json.loads(line)))))
        except Exception as error:
            say({"failed": f"{type(error).__name__}: {error}"})
        gc.collect()


if __name__ == "__main__":
    main()

"""Relayed streams: events that were merged on the way, how late they are, and what a thousand open streams cost (P11, P12)."""

from __future__ import annotations

import threading

from bench import figures, processes
from bench.effort import Effort
from bench.report import Line
from bench.subjects import BODY, Stage, request

SESSION = "bench-stream-0001"
PACED = 16
GAP_US = 10_000
MARK = '"tick"'
MEGA = 2**20


def paced(stage: Stage, effort: Effort) -> list[Line]:
    """16 streams with 10 ms gaps. Merged: events that shared a chunk, which is one write of the hop; the upstream never does that."""
    stage.warm([SESSION])
    path = f"/sse/{effort.events}/{GAP_US}"
    targets = {
        "direct": (stage.sandboxes.direct, request(f"/invocations{path}", BODY)),
        "gateway": (stage.gateway.target, stage.invoke(path, SESSION)),
    }
    merged = dict.fromkeys(targets, 0)
    events = 0

    def measure(name: str) -> float:
        nonlocal events
        target, text = targets[name]
        found = stage.load.run(target=target, requests=[text], connections=PACED, each=1, mark=MARK)
        if found["events"] != PACED * effort.events:
            raise RuntimeError(f"{name}: {found['events']} of {PACED * effort.events} events arrived")
        merged[name] += found["merged"]
        events += found["events"] if name == "gateway" else 0
        return figures.percentile(found["delay_us"], 99) / 1000

    late = figures.alternated(effort.repetitions, list(targets), measure)
    ours, base = figures.spread(late["gateway"]), figures.spread(late["direct"])
    return [
        Line(
            "paced-merged", merged["gateway"], "events", goal=0, gate=0, note=f"of {events}; direct {merged['direct']}"
        ),
        Line("paced-delay-p99", ours.middle, "ms", goal=3, note=f"{ours}; direct {figures.short(base.middle)} ms"),
    ]


def open_streams(stage: Stage, effort: Effort) -> list[Line]:
    """Resident memory of the gateway with 1,000 streams open, over what it was before; one event a second each."""
    gateway = stage.restart_gateway()
    stage.warm([SESSION])
    idle = processes.rss(gateway.pid)
    text = stage.invoke(f"/sse/{effort.stream_seconds}/1000000/spread", SESSION)
    stage.load.begin(target=gateway.target, requests=[text], connections=effort.streams, each=1, mark=MARK, seconds=60)
    highest, over = 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.2):
            highest = max(highest, processes.rss(gateway.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        found = stage.load.result()
    finally:
        over.set()
        watcher.join()
    grown = (highest - idle) / MEGA
    late = figures.percentile(found["delay_us"], 99) / 1000
    return [
        Line(
            "open-streams-memory",
            grown,
            "MB",
            goal=40,
            gate=40,
            note=f"{effort.streams} streams, {figures.short(grown * 1024 / effort.streams)} KB each; idle {idle / MEGA:.0f} MB",
        ),
        Line("open-streams-delay-p99", late, "ms", goal=20, note=f"{found['events']} events, {found['merged']} merged"),
    ]

"""How much a run measures: the full effort that is recorded, or the quick one that only guards the gates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Bounds of every bench: nothing here depends on how fast the machine is, but for `cpu_seconds`, which `longest` ends."""

    repetitions: int = 5  # alternated rounds
    cpu_seconds: float = 2.0  # spent by the subject in one repetition: /proc counts in ticks of 10 ms
    longest: float = 30.0  # seconds of one repetition
    requests: int = 1_000  # of a latency repetition
    turns: int = 200  # of a latency repetition
    deltas: int = 500  # of one stream
    events: int = 300  # of one paced stream
    streams: int = 1_000
    stream_seconds: int = 8
    hits: int = 10_000
    starts: int = 30  # sessions started from the pool
    claims: int = 200  # sessions of a cluster, ten a second; the gate on the operator's CPU wants as many
    colds: int = 90  # without a pool
    crowds: int = 5  # of many sessions at once
    agents: int = 100
    routines: int = 10_000
    quiet_seconds: float = 20.0


QUICK = Effort(
    repetitions=3,
    cpu_seconds=0.5,
    longest=10.0,
    requests=300,
    turns=60,
    deltas=150,
    events=100,
    stream_seconds=5,
    hits=3_000,
    starts=8,
    colds=20,
    crowds=1,
    agents=20,
    routines=2_000,
    quiet_seconds=5.0,
)
FULL = Effort()

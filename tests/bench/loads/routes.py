"""What a route costs in Redis commands, on a hit and on a miss (P13). Counted in our own client, where a script counts one."""

from __future__ import annotations

import time

from bench.effort import Effort
from bench.report import Line
from bench.subjects import COMMANDS, Stage

SESSIONS = [f"bench-route-{number:04d}" for number in range(24)]
HOW = "moorage_redis_commands, minus an idle time as long"
CONNECTIONS = 8


def commands(stage: Stage, effort: Effort) -> list[Line]:
    """Commands a relayed request: first on routes the gateway knows, then by a fresh gateway on bound sessions it does not know."""
    stage.warm(SESSIONS)
    texts = [stage.invoke("/json", session) for session in SESSIONS[:CONNECTIONS]]
    hit = per_unit(stage, effort.hits, {"requests": texts, "connections": CONNECTIONS, "count": effort.hits})
    stage.restart_gateway()
    stage.warm(SESSIONS[:1])  # the first request of a process also reads the key
    texts = [stage.invoke("/json", session) for session in SESSIONS[1:]]
    miss = per_unit(stage, len(texts), {"requests": texts, "connections": len(texts), "each": 1})
    return [
        Line(
            "route-hit-commands",
            round(hit, 1),
            "commands/request",
            goal=0,
            gate=0,
            note=f"{effort.hits} requests; {HOW}",
        ),
        Line("route-miss-commands", round(miss, 1), "commands/request", goal=1, note=f"{len(texts)} sessions; {HOW}"),
    ]


def per_unit(stage: Stage, units: int, job: dict[str, object]) -> float:
    """Redis commands of a job, less those the gateway sends by itself in as long a time, for each unit.

    Those are a few a second and not even: what is below a command in twenty units is theirs, so callers round to tenths.
    """
    gateway = stage.gateway
    before, began = gateway.metric(COMMANDS), time.monotonic()
    stage.load.run(target=gateway.target, **job)
    busy, spent = gateway.metric(COMMANDS) - before, time.monotonic() - began
    before = gateway.metric(COMMANDS)
    time.sleep(max(spent, 1.0))  # not a wait for a state: the idle time is what is measured
    idle = (gateway.metric(COMMANDS) - before) * spent / max(spent, 1.0)
    return (busy - idle) / units

"""Kubernetes, on the stub cluster: claims from the pool and past it, one by one and in crowds, what the operator pays, and its restart.

P1–P5, P14 and P15. What is real and what stands in: `stub_cluster`. Sessions stay until the end, so each bench meets those before it; the
restart meets them all.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import redis

from bench import figures, pace, processes
from bench.effort import Effort
from bench.report import Line
from bench.stub_cluster import Cluster, Statuses, stub_cluster
from fakes.audit import Request

RATE = 10.0  # sessions a second
POOL, MOST = 20, 120
CROWD, COLD_CROWD, COLD_CROWDS = 80, 100, 3  # so that the restart meets a thousand sessions
AGENT_RATE = 20.0
STALLED, STALLED_SECONDS = 10, 4.0  # an operator gives its lease up after 10 s without an API server
RESYNC = 5.0
STATUS = "hostedagents/status"
MEGA = 2**20
WHERE = "stub; etcd without fsync"


def measure(effort: Effort) -> list[Line]:
    """All of it, on one cluster."""
    with stub_cluster() as cluster:
        before = _valkey(cluster)
        lines = [
            _machine(),
            *_warm(cluster, effort),
            *_stalled(cluster),
            *_cold(cluster, effort),
            *_crowds(cluster, effort),
        ]
        memory = (_valkey(cluster) - before) / cluster.sessions / 1000
        lines.append(Line("cluster-valkey-memory", memory, "kB/session", note=f"{cluster.sessions} sessions"))
        return [*lines, *_agents(cluster, effort), *_quiet(cluster, effort), *_restarts(cluster, effort)]


def _warm(cluster: Cluster, effort: Effort) -> list[Line]:
    """P1, P3 and the operator's CPU: sessions out of a pool that is refilled, ten a second."""
    cluster.apply("warm", {"min": POOL, "max": MOST})
    cluster.until_ready("warm", POOL)
    cluster.claim("warm", 1)  # the scripts are loaded, a connection is open
    cluster.until_noted()
    cluster.until_ready("warm", POOL)
    audit = cluster.audit()
    cpu, theirs = processes.cpu([cluster.operator.pid]), processes.cpu(cluster.plane.pids())
    with pace.watched() as paced:
        found = _clean(cluster.claim("warm", effort.claims, rate=RATE))
        cluster.until_ready("warm", POOL)
        cluster.until_noted()
    cpu = (processes.cpu([cluster.operator.pid]) - cpu) / effort.claims * 1000
    theirs = (processes.cpu(cluster.plane.pids()) - theirs) / effort.claims * 1000
    writes = audit.writes()
    waits = [one["accepted_ms"] for one in found["claims"]]
    return [
        Line("cluster-claim-p50", figures.median(waits), "ms", goal=10, note=_note(found, WHERE)),
        Line("cluster-claim-p99", figures.percentile(waits, 99), "ms", goal=30, note=_note(found, WHERE)),
        Line("cluster-claim-writes", len(writes) / effort.claims, "writes/claim", goal=8, gate=8, note=_said(writes)),
        Line(
            "cluster-operator-cpu",
            cpu,
            "ms/session",
            goal=5,
            gate=10,
            note=f"{effort.claims} sessions with their refill, {RATE:g}/s",
            pace=paced(),
        ),
        Line("cluster-api-server-cpu", theirs, "ms/session", note="API server and etcd, the stand-ins' requests too"),
    ]


def _said(writes: Sequence[Request]) -> str:
    """How many of which."""
    kinds = Counter(f"{one.verb} {one.kind}" for one in writes)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _stalled(cluster: Cluster) -> list[Line]:
    """No claim waits for an API server: all are met while it is stopped."""
    with cluster.plane.stalled():
        found = cluster.claim("warm", STALLED, within=STALLED_SECONDS)
    cluster.until_ready("warm", POOL)
    return [
        Line(
            "cluster-claim-api-calls",
            len(found["failed"]),
            "claims",
            goal=0,
            gate=0,
            note=f"of {STALLED} claims, those that were not met while the API server was stopped",
        )
    ]


def _cold(cluster: Cluster, effort: Effort) -> list[Line]:
    """P4 and P5: sessions of an agent without a pool, ten a second and a hundred at once."""
    cluster.apply("cold", {"min": 0, "max": 1})
    cluster.until_ready("cold", 0)
    cluster.claim("cold", 1)
    cluster.until_noted()
    audit, before = cluster.audit(), len(cluster.standing.served)
    found = _clean(cluster.claim("cold", effort.colds, rate=RATE))
    cluster.until_noted()
    writes, theirs = audit.writes(), [1000 * one for one in cluster.standing.served[before:]]
    shown = sum(1 for one in writes if one.kind == STATUS)
    waits, stub = [one["accepted_ms"] for one in found["claims"]], figures.median(theirs)
    rates, lasts = [], []
    for _ in range(min(effort.crowds, COLD_CROWDS)):
        crowd = _clean(cluster.claim("cold", COLD_CROWD))
        lasts.append(figures.percentile([one["accepted_ms"] for one in crowd["claims"]], 99))
        rates.append(COLD_CROWD / max(one["accepted_ms"] for one in crowd["claims"]) * 1000)
        cluster.until_noted()
    rate, last = figures.spread(rates), figures.spread(lasts)
    return [
        Line(
            "cluster-cold-p50",
            figures.median(waits) - stub,
            "ms",
            goal=15,
            note=f"without the stub's own {stub:.0f} ms; p99 with it {figures.percentile(waits, 99):.0f}; {WHERE}",
        ),
        Line(
            "cluster-cold-writes",
            (len(writes) - shown) / effort.colds,
            "writes/session",
            goal=3,
            gate=3,
            note=f"{effort.colds} sessions: {_said(writes)}; the agent's status, at most once a second, is not counted",
        ),
        Line(
            "cluster-cold-crowd-rate",
            rate.middle,
            "sessions/s",
            note=f"{rate}; {COLD_CROWD} at once, goal at least 80; {WHERE}",
        ),
        Line("cluster-cold-crowd-p99", last.middle / 1000, "s", goal=1.5, note=f"{last.scaled(0.001)}; {WHERE}"),
    ]


def _crowds(cluster: Cluster, effort: Effort) -> list[Line]:
    """P2: eighty sessions at once out of a pool of as many."""
    cluster.apply("warm", {"min": CROWD, "max": MOST})
    middles, lasts, failed, double, refused, commands = [], [], 0, 0, 0, 0
    for _ in range(effort.crowds):
        cluster.until_ready("warm", CROWD)
        found = cluster.claim("warm", CROWD)
        waits = [one["accepted_ms"] for one in found["claims"]]
        middles.append(figures.median(waits))
        lasts.append(figures.percentile(waits, 99))
        failed += len(found["failed"])
        double += len(found["claims"]) - len({one["sandbox"] for one in found["claims"]})
        refused += len(found["refused"])
        commands = max(commands, *(one["commands"] for one in found["claims"]))
        cluster.until_noted()
    cluster.until_ready("warm", CROWD)  # what follows is not to be measured beside the refill
    middle, last, of = figures.spread(middles), figures.spread(lasts), f"of {effort.crowds * CROWD}"
    return [
        Line("cluster-crowd-p50", middle.middle, "ms", note=f"{middle}; {CROWD} at once; {WHERE}"),
        Line("cluster-crowd-p99", last.middle, "ms", goal=600, note=f"{last}; {CROWD} at once; {WHERE}"),
        Line(
            "cluster-claim-commands",
            commands,
            "commands",
            goal=1,
            gate=1,
            note=f"the most {of} until the shim has accepted, the pool being full; one more notes it",
        ),
        Line("cluster-crowd-failed", failed, "sessions", goal=0, gate=0, note=of),
        Line("cluster-crowd-double", double, "sessions", goal=0, gate=0, note=f"{of}; two sessions in one sandbox"),
        Line("cluster-crowd-refused", refused, "bindings", goal=0, gate=0, note=f"{of}; by a shim"),
    ]


def _agents(cluster: Cluster, effort: Effort) -> list[Line]:
    """P14: HostedAgents made twenty a second, from when the API server has taken one until its status says so."""
    statuses = Statuses(cluster.api)
    made: dict[str, float] = {}
    cpu, began = processes.cpu([cluster.operator.pid]), time.monotonic()
    try:
        with pace.watched() as paced:
            for number in range(effort.agents):
                cluster.until_time(began + number / AGENT_RATE)
                cluster.apply(f"agent-{number}", {"min": 0, "max": 1})
                made[f"agent-{number}"] = time.monotonic()
            cluster.until("every status was written", lambda: made.keys() <= statuses.ready.keys())
        cpu = (processes.cpu([cluster.operator.pid]) - cpu) / effort.agents * 1000
    finally:
        statuses.close()
    first = [(statuses.first[name] - at) * 1000 for name, at in made.items()]
    ready = [(statuses.ready[name] - at) * 1000 for name, at in made.items()]
    for name in made:
        cluster.remove(name)
    cluster.until_agents(2)
    at = f"{effort.agents} at {AGENT_RATE:g}/s, {cluster.sessions} sessions beside them; {WHERE}"
    return [
        Line("cluster-status-p50", figures.median(first), "ms", goal=25, note=at),
        Line("cluster-status-p99", figures.percentile(first, 99), "ms", goal=60, note=at),
        Line("cluster-status-ready-p50", figures.median(ready), "ms", note="until the condition Ready"),
        Line("cluster-status-cpu", cpu, "ms/agent", goal=5, gate=10, note=at, pace=paced()),
    ]


def _quiet(cluster: Cluster, effort: Effort) -> list[Line]:
    """What the operator holds and spends while nothing happens."""
    pid, audit = cluster.operator.pid, cluster.audit()
    cpu, began = processes.cpu([pid]), time.monotonic()
    cluster.until_time(began + effort.quiet_seconds)
    share = (processes.cpu([pid]) - cpu) / (time.monotonic() - began) * 100
    at = f"{cluster.sessions} sessions"
    return [
        Line("cluster-operator-memory", processes.rss(pid) / MEGA, "MB", goal=160, gate=160, note=f"RSS; {at}"),
        Line("cluster-operator-idle", share, "% of a core", note=f"{at}; {len(audit.writes())} writes meanwhile"),
    ]


def _restarts(cluster: Cluster, effort: Effort) -> list[Line]:
    """P15: an operator that starts: until it leads and has taken every sandbox over, and what it asks and writes."""
    seconds, writes = [], 0
    pods = cluster.pods()
    lists: Counter[str] = Counter()
    for _ in range(effort.crowds):
        audit = cluster.audit()
        seconds.append(-cluster.restart(RESYNC))
        cluster.until_leads(pods)
        seconds[-1] += time.monotonic()
        lists = Counter(one.kind for one in audit.requests() if one.verb == "list")

        def looked(audit: Any = audit, before: int = lists["hostedagents"]) -> bool:
            """It has looked at everything once more since."""
            return sum(1 for one in audit.requests() if (one.verb, one.kind) == ("list", "hostedagents")) >= before + 2

        cluster.until("it has looked at everything twice", looked, every=500)
        writes += len(audit.writes())
    took, at = figures.spread(seconds), f"{cluster.sessions} sessions, {pods} pods"
    pages = ", ".join(f"{count} {kind}" for kind, count in sorted(lists.items()))
    return [
        Line("cluster-restart", took.middle, "s", goal=5, note=f"{took}; {at}, from its start with imports; {WHERE}"),
        Line("cluster-restart-writes", writes, "writes", goal=0, gate=0, note=f"{effort.crowds} restarts; {at}"),
        Line("cluster-restart-lists", sum(lists.values()), "requests", note=f"pages of 500: {pages}"),
    ]


def _machine() -> Line:
    """How busy this machine is, and how fast, so that figures of two runs can be compared."""
    cost, load = figures.spread(pace.samples(9)), os.getloadavg()[0]
    note = f"{cost}; CPU of a fixed piece of work; load average {load:.1f} on {os.cpu_count()} cores"
    return Line("cluster-machine", cost.middle, "ms", note=note)


def _clean(found: dict[str, Any]) -> dict[str, Any]:
    """Claims none of which failed. Raises RuntimeError."""
    if found["failed"]:
        raise RuntimeError(f"{len(found['failed'])} sessions got no sandbox: {found['failed'][0]}")
    return found


def _note(found: dict[str, Any], where: str) -> str:
    bound: Sequence[float] = [one["bound_ms"] for one in found["claims"]]
    dry = sum(1 for one in found["claims"] if one["commands"] > 1)
    said = f"{dry} found the pool empty; noted in the ledger after {figures.median(bound):.1f}"
    return f"{len(bound)} sessions at {RATE:g}/s; {said}; {where}"


def _valkey(cluster: Cluster) -> float:
    with redis.Redis.from_url(cluster.valkey.url) as client:
        return float(client.info("memory")["used_memory"])

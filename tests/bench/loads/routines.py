"""What routines cost: ten thousand that wait, and a hundred that are due at once (docs/routines.md). One gateway, a real Valkey.

A run counts as claimed when its turn is accepted, which comes after the claim: the record's own time, by the ledger's clock.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import redis.asyncio as aioredis

from bench import figures, processes
from bench.effort import Effort
from bench.report import Line
from bench.subjects import AGENT, COMMANDS, TENANT, Stage
from fakes.platform import poll
from moorage_api.catalog import RoutineEntry
from moorage_api.kinds import Routine, parse_any
from moorage_api.kinds.agent import API_VERSION
from moorage_api.ledger.routines import RoutineLedger
from moorage_gateway.ledger_client import LedgerClient

DUE = 100
SETTLE_S = 300.0
AHEAD_S = 4


def measure(stage: Stage, effort: Effort) -> list[Line]:
    """Idle before and after they were published; then the hundred."""
    pid, seconds = stage.gateway.pid, effort.quiet_seconds
    before, held, kept = _idle(stage, seconds), processes.rss(pid), _memory(stage)
    began = time.monotonic()
    asyncio.run(
        _publish(stage.valkey.url, [_entry(f"idle-{n:05d}", schedule="0 0 1 1 *") for n in range(effort.routines)])
    )
    published = time.monotonic() - began
    poll("all were looked at", lambda: asyncio.run(_settled(stage.valkey.url)), within=SETTLE_S, every=0.5)
    settled = time.monotonic() - began
    after = _idle(stage, seconds)
    each = (processes.rss(pid) - held) / effort.routines
    redis = (_memory(stage) - kept) / effort.routines
    waits = _due(stage)
    found = figures.spread(waits)
    return [
        Line(
            "routines-idle-cpu", after[0], "% of a core", goal=1, gate=2,
            note=f"{effort.routines} routines that wait, {seconds:g} s; {before[0]:.2f} % without any",
        ),
        Line("routines-idle-commands", after[1], "commands/s", note=f"{before[1]:.1f} without any"),
        Line("routines-gateway-memory", each, "bytes/routine", note="of the gateway's resident memory"),
        Line("routines-redis-memory", redis, "bytes/routine", note="used_memory: spec, state, and its place in the order"),
        Line(
            "routines-load", settled, "s",
            note=f"until each had its first look; published after {published:.1f} s, one by one",
        ),
        Line("routines-due-p50", found.middle, "ms", note=f"{found}; {DUE} due at one instant, until each one's turn is accepted"),
        Line("routines-due-p99", figures.percentile(waits, 99), "ms", goal=250, note="the last but one of them"),
    ]  # fmt: skip


def _idle(stage: Stage, seconds: float) -> tuple[float, float]:
    """Percent of a core, and commands a second, of a gateway that nobody calls."""
    pid, cpu = stage.gateway.pid, processes.cpu([stage.gateway.pid])
    commands, began = stage.gateway.metric(COMMANDS), time.monotonic()
    time.sleep(seconds)  # not a wait for a state: the idle time is what is measured
    spent = time.monotonic() - began
    return (processes.cpu([pid]) - cpu) / spent * 100, (stage.gateway.metric(COMMANDS) - commands) / spent


def _entry(name: str, **spec: Any) -> RoutineEntry:
    whole = {"agent": AGENT, "input": "script 1 0", "session": "fresh", **spec}
    made = parse_any({"apiVersion": API_VERSION, "kind": "Routine", "metadata": {"name": name}, "spec": whole})
    assert isinstance(made, Routine)
    return RoutineEntry(TENANT, name, made.wire_spec())


async def _publish(url: str, entries: Sequence[RoutineEntry]) -> None:
    client = LedgerClient(aioredis.Redis.from_url(url), who="bench-routines")
    try:
        await client.found()
        ledger = RoutineLedger(client)
        for entry in entries:
            await ledger.publish(entry)
    finally:
        await client.aclose()


async def _settled(url: str) -> bool:
    """Whether nothing is due: each has had its look."""
    client = LedgerClient(aioredis.Redis.from_url(url), who="bench-routines")
    try:
        await client.found()
        earliest = await RoutineLedger(client).earliest()
        return earliest is not None and earliest > time.time() * 1000 + 20_000
    finally:
        await client.aclose()


def _memory(stage: Stage) -> int:
    async def used() -> int:
        async with aioredis.Redis.from_url(stage.valkey.url) as redis:
            return int((await redis.info("memory"))["used_memory"])

    return asyncio.run(used())


def _due(stage: Stage) -> list[float]:
    """Milliseconds from the instant until each was claimed, by their histories."""
    at = (datetime.now(UTC) + timedelta(seconds=AHEAD_S)).replace(microsecond=0)
    asyncio.run(_publish(stage.valkey.url, [_entry(f"due-{n:03d}", at=at.isoformat()) for n in range(DUE)]))

    def over() -> list[dict[str, Any]] | None:
        files = list((stage.folder / "store").glob(f"routines/{TENANT}/due-*/*.json"))
        return [json.loads(file.read_bytes()) for file in files] if len(files) == DUE else None

    runs = poll("all of them ran", over, within=120, every=0.2)
    failed = [run for run in runs if run["outcome"] != "succeeded"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {DUE} runs did not succeed: {failed[0]}")
    return [_accepted(stage, run["responses"][0]) - run["slot"] for run in runs]


def _accepted(stage: Stage, response: str) -> float:
    """When the turn was persisted, in milliseconds since 1970."""
    host, _, port = stage.gateway.target.partition(":")
    asked = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        path = f"/v1/agents/{AGENT}/responses/{response}/record"
        asked.request("GET", path, headers={"authorization": f"Bearer {stage.key}"})
        answer = asked.getresponse()
        found = json.loads(answer.read())
    finally:
        asked.close()
    if answer.status != 200:
        raise RuntimeError(f"no record of {response}: {found}")
    return float(found["accepted_at"])

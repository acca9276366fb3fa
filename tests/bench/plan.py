"""Which benches there are, which set-up each needs, and how a run goes through them. One set-up serves the benches that share it.

A bench that cannot run here gives a "skipped" line with the reason. One that breaks gives a "broken" line, which fails the run; the
others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from bench import subjects
from bench.effort import Effort
from bench.loads import (
    calls,
    checkpoints,
    cluster,
    node,
    relay,
    routes,
    routines,
    sandboxes,
    streams,
    tool_search,
    turns,
)
from bench.report import Line, skipped
from moorage_api.ledger.script import LedgerError

RELAXED = "-everysec"
SANDBOXES = 160  # scripted ones; more sessions than all benches together name


@dataclass(frozen=True)
class Bench:
    """One bench. `setup`: `always` or `everysec` (a stage with that fsync), or `real` (it makes what it needs)."""

    name: str
    setup: str
    measure: Callable[..., list[Line]]


def relaxed(measure: Callable[[Any, Effort], list[Line]]) -> Callable[[Any, Effort], list[Line]]:
    """The same bench on `appendfsync everysec`: recorded beside the promise, so without goals and gates."""

    def run_relaxed(stage: subjects.Stage, effort: Effort) -> list[Line]:
        return [replace(line, name=f"{line.name}{RELAXED}", goal=None, gate=None) for line in measure(stage, effort)]

    return run_relaxed


BENCHES: tuple[Bench, ...] = (
    Bench("relay-cpu", "always", relay.cpu),
    Bench("relay-latency", "always", relay.latency),
    Bench("relay-first-event", "always", relay.first_event),
    Bench("paced", "always", streams.paced),
    Bench("route", "always", routes.commands),
    Bench("open-streams", "always", streams.open_streams),
    Bench("turn", "always", turns.turn),
    Bench("delta", "always", turns.delta),
    Bench("turn-first-event", "always", turns.first_event),
    Bench("call", "always", calls.measure),
    Bench("routines", "always", routines.measure),
    Bench("turn-everysec", "everysec", relaxed(turns.turn)),
    Bench("delta-everysec", "everysec", relaxed(turns.delta)),
    Bench("turn-first-event-everysec", "everysec", relaxed(turns.first_event)),
    Bench("sandbox", "real", sandboxes.measure),
    Bench("checkpoint", "real", checkpoints.measure),
    Bench("cluster", "real", cluster.measure),
    Bench("tool-search", "real", tool_search.measure),
)
# Only with `--node`: it starts a Kubernetes node, of which there is one a machine.
NODE_BENCHES: tuple[Bench, ...] = (Bench("cluster-node", "real", node.measure),)


def chosen(asked: Sequence[str]) -> list[Bench]:
    """The benches that `--only` means, in their order; all when nothing was asked. Each name is a bench, else the beginning of
    benches' names, else a line's name, which begins with the name of its bench."""
    if not asked:
        return list(BENCHES)
    meant: set[str] = set()
    for name in asked:
        exact = {bench.name for bench in BENCHES if bench.name == name}
        begun = {bench.name for bench in BENCHES if bench.name.startswith(name)}
        meant |= exact or begun or _of_line(name)
    return [bench for bench in BENCHES if bench.name in meant]


def _of_line(line: str) -> set[str]:
    """The bench that gives this line: the longest name that it begins with, of the same fsync setting."""
    plain, is_relaxed = line.removesuffix(RELAXED), line.endswith(RELAXED)
    owners = [
        bench.name
        for bench in BENCHES
        if bench.name.endswith(RELAXED) == is_relaxed and plain.startswith(bench.name.removesuffix(RELAXED))
    ]
    return {max(owners, key=len)} if owners else set()


def run(benches: Sequence[Bench], effort: Effort, say: Callable[[str], None]) -> list[Line]:
    """The lines of all of them, in order."""
    lines: list[Line] = []
    for setup, group in groupby(benches, key=lambda bench: bench.setup):
        if setup == "real":
            for bench in group:
                lines += _one(bench, effort, say)
        else:
            with subjects.stage(SANDBOXES, fsync=setup) as stage:
                for bench in group:
                    lines += _one(bench, effort, say, stage)
    return lines


def _one(bench: Bench, effort: Effort, say: Callable[[str], None], *stage: subjects.Stage) -> list[Line]:
    say(f"bench: {bench.name} …")
    began = time.monotonic()
    try:
        lines = bench.measure(*stage, effort)
    except subjects.CannotRun as reason:
        lines = skipped([bench.name], str(reason))
    except (RuntimeError, OSError, TimeoutError, LedgerError) as error:
        lines = [Line(bench.name, None, "", note=f"{type(error).__name__}: {error}", broken=True)]
    say(f"bench: {bench.name} took {time.monotonic() - began:.0f} s")
    return lines

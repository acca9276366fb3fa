"""Durable turns: CPU and Redis commands a turn and a delta, and what durability adds to the first event (issue's Performance section).

A turn writes its input, lease, log and outcome before and while it is streamed. The agent is scripted; only the gateway's CPU counts.
"""

from __future__ import annotations

from bench import figures, pace, processes
from bench.effort import Effort
from bench.loads import routes
from bench.report import Line
from bench.subjects import BODY, COMMANDS, Stage, request

SESSIONS = [f"bench-turn-{number:04d}" for number in range(32)]
TURNS_AT_ONCE = 8
GAP_US = 10_000
MARK = "output_text.delta"


def turn(stage: Stage, effort: Effort) -> list[Line]:
    """CPU and Redis commands of a streamed turn with one delta; 8 sessions, each its next turn when the last one ended."""
    stage.warm(SESSIONS[:TURNS_AT_ONCE])
    texts = [stage.turn(session, 1, 0) for session in SESSIONS[:TURNS_AT_ONCE]]
    costs, rates, paces = [], [], []
    for _ in range(effort.repetitions):
        found = stage.load.run(
            target=stage.gateway.target,
            requests=texts,
            connections=TURNS_AT_ONCE,
            cpu={"pids": [stage.gateway.pid], "seconds": effort.cpu_seconds},
            seconds=effort.longest,
        )
        costs.append(found["cpu"] / found["requests"] * 1000)
        rates.append(found["requests"] / found["seconds"])
        paces.append(pace.now())
    commands = routes.per_unit(
        stage, effort.turns, {"requests": texts, "connections": TURNS_AT_ONCE, "count": effort.turns}
    )
    ours = figures.spread(costs)
    return [
        Line(
            "turn-cpu",
            ours.middle,
            "ms/turn",
            goal=3,
            gate=6,
            note=f"{ours}; {figures.short(figures.median(rates))} turns/s",
            pace=figures.median(paces),
        ),
        Line("turn-commands", round(commands, 1), "commands/turn", note=f"{effort.turns} turns; {routes.HOW}"),
    ]


def delta(stage: Stage, effort: Effort) -> list[Line]:
    """CPU and Redis commands of one more delta: 32 streams with 10 ms gaps, long turns less short ones."""
    stage.warm(SESSIONS)
    costs, commands, late, usual, paces = [], [], [], [], []
    merged = events = 0
    for _ in range(effort.repetitions):
        points = []
        for count in (1, effort.deltas):
            before = stage.gateway.metric(COMMANDS), processes.cpu([stage.gateway.pid])
            texts = [stage.turn(session, count, GAP_US) for session in SESSIONS]
            found = stage.load.run(
                target=stage.gateway.target, requests=texts, connections=len(texts), each=1, mark=MARK
            )
            after = stage.gateway.metric(COMMANDS), processes.cpu([stage.gateway.pid])
            points.append((count * len(texts), after[1] - before[1], after[0] - before[0]))
        costs.append(figures.slope(points[0][:2], points[1][:2]) * 1e6)
        commands.append(figures.slope((points[0][0], points[0][2]), (points[1][0], points[1][2])))
        late.append(figures.percentile(found["delay_us"], 99) / 1000)
        paces.append(pace.now())
        usual.append(figures.percentile(found["delay_us"], 50) / 1000)
        merged += found["merged"]
        events += found["events"]
    ours = figures.spread(costs)
    return [
        Line(
            "delta-cpu",
            ours.middle,
            "us/delta",
            goal=60,
            gate=120,
            note=f"{ours}; 32 streams, 10 ms gaps",
            pace=figures.median(paces),
        ),
        Line(
            "delta-commands", round(figures.median(commands), 2), "commands/delta", note=str(figures.spread(commands))
        ),
        Line("delta-delay-p99", figures.median(late), "ms", note=str(figures.spread(late))),
        Line("delta-merged", merged, "events", goal=0, gate=0, note=f"of {events}"),
    ]


def first_event(stage: Stage, effort: Effort) -> list[Line]:
    """From the request to the first event, and from the agent's delta to the caller, one turn at a time, less the direct stream."""
    stage.warm(SESSIONS[:1])
    targets = {
        "direct": (stage.sandboxes.direct, request("/invocations/sse/1/0", BODY), '"tick"'),
        "gateway": (stage.gateway.target, stage.turn(SESSIONS[0], 1, 0), MARK),
    }
    delays: dict[str, list[float]] = {name: [] for name in targets}
    tails: dict[str, list[float]] = {name: [] for name in targets}

    def measure(name: str) -> float:
        target, text, mark = targets[name]
        found = stage.load.run(target=target, requests=[text], count=effort.turns, mark=mark)
        delays[name].append(figures.percentile(found["delay_us"], 50) / 1000)
        tails[name].append(figures.percentile(found["first_us"], 99) / 1000)
        return figures.percentile(found["first_us"], 50) / 1000

    middles = figures.alternated(effort.repetitions, list(targets), measure)

    def added(found: dict[str, list[float]]) -> figures.Spread:
        return figures.spread([a - b for a, b in zip(found["gateway"], found["direct"], strict=True)])

    lines = []
    for label, found in (
        ("turn-first-event-added-p50", middles),
        ("turn-first-event-added-p99", tails),
        ("turn-first-event-delta-added-p50", delays),
    ):
        one = added(found)
        lines.append(Line(label, one.middle, "ms", note=str(one)))
    return lines

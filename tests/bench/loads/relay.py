"""The relay hop beside nginx and nothing: CPU a request, throughput a core, added latency, first event (P8–P10)."""

from __future__ import annotations

from bench import figures
from bench.effort import Effort
from bench.report import Line, skipped
from bench.subjects import ANSWERED, BODY, CannotRun, Nginx, Stage, request

SESSION = "bench-relay-0001"
CONNECTIONS = 32
SHORT, EVENTS = "/json", "/sse/20/0"
MICRO, MILLI = 1e6, 1e-3


def cpu(stage: Stage, effort: Effort) -> list[Line]:
    """CPU of the subject's processes a request: 32 keep-alive connections, 1 KB POST → 270 B JSON, access log and key check on."""
    stage.warm([SESSION])
    nginx, why = _nginx(stage)
    subjects = ["gateway", *(["nginx"] if nginx else [])]
    rates: dict[str, list[float]] = {name: [] for name in subjects}

    def measure(name: str) -> float:
        ours = name == "gateway"
        pids = [stage.gateway.pid] if ours or nginx is None else nginx.pids
        answered = stage.gateway.metric(ANSWERED)
        found = stage.load.run(
            target=stage.gateway.target if ours or nginx is None else nginx.target,
            requests=[stage.invoke(SHORT, SESSION) if ours else _plain(SHORT)],
            connections=CONNECTIONS,
            cpu={"pids": pids, "seconds": effort.cpu_seconds},
            seconds=effort.longest,
        )
        if ours and stage.gateway.metric(ANSWERED) - answered != found["requests"]:
            raise RuntimeError("the gateway counted another number of requests than the load generator")
        rates[name].append(found["requests"] / found["seconds"])
        return float(found["cpu"]) / float(found["requests"]) * MICRO

    try:
        costs = figures.alternated(effort.repetitions, subjects, measure)
    finally:
        if nginx is not None:
            nginx.close()
    ours = figures.spread(costs["gateway"])
    lines = [
        Line("relay-cpu", ours.middle, "us/request", goal=150, gate=600, note=str(ours)),
        Line("relay-cpu-requests-per-core", MICRO / ours.middle, "requests/s of CPU", note="goal at least 6000"),
        Line(
            "relay-cpu-throughput",
            figures.median(rates["gateway"]),
            "requests/s",
            note=str(figures.spread(rates["gateway"])),
        ),
    ]
    if nginx is None:
        return lines + skipped(["relay-cpu-nginx", "relay-cpu-ratio-to-nginx"], why)
    theirs, times = figures.spread(costs["nginx"]), figures.ratio(costs["gateway"], costs["nginx"])
    return [
        *lines,
        Line("relay-cpu-nginx", theirs.middle, "us/request", note=str(theirs)),
        Line("relay-cpu-ratio-to-nginx", times.middle, "times", note=f"95 % interval {times}"),
    ]


def latency(stage: Stage, effort: Effort) -> list[Line]:
    """What a hop adds to the time of one request at a time."""
    return _added(stage, effort, "relay-latency", SHORT, "wait_us", goals=(0.30, 1.0), count=effort.requests)


def first_event(stage: Stage, effort: Effort) -> list[Line]:
    """What a hop adds to the first of 20 server-sent events."""
    return _added(stage, effort, "relay-first-event", EVENTS, "first_us", goals=(0.4, 1.5), count=effort.requests // 2)


def _added(
    stage: Stage, effort: Effort, name: str, path: str, field: str, *, goals: tuple[float, float], count: int
) -> list[Line]:
    stage.warm([SESSION])
    nginx, why = _nginx(stage)
    targets = {
        "direct": (stage.sandboxes.direct, _plain(path)),
        "gateway": (stage.gateway.target, stage.invoke(path, SESSION)),
    }
    if nginx is not None:
        targets["nginx"] = (nginx.target, _plain(path))
    tails: dict[str, list[float]] = {name: [] for name in targets}

    def measure(subject: str) -> float:
        target, text = targets[subject]
        found = stage.load.run(target=target, requests=[text], count=count)
        tails[subject].append(figures.percentile(found[field], 99) * MILLI)
        return figures.percentile(found[field], 50) * MILLI

    try:
        middles = figures.alternated(effort.repetitions, list(targets), measure)
    finally:
        if nginx is not None:
            nginx.close()
    lines = []
    for subject in [one for one in targets if one != "direct"]:
        own = subject == "gateway"
        for percent, found, goal in ((50, middles, goals[0]), (99, tails, goals[1])):
            added = figures.spread([a - b for a, b in zip(found[subject], found["direct"], strict=True)])
            base = figures.short(figures.median(found["direct"]))
            label = f"{name}-added-p{percent}" + ("" if own else f"-{subject}")
            lines.append(Line(label, added.middle, "ms", goal=goal if own else None, note=f"{added}; direct {base} ms"))
    return lines if nginx is not None else lines + skipped([f"{name}-added-p50-nginx", f"{name}-added-p99-nginx"], why)


def _plain(path: str) -> str:
    return request(f"/invocations{path}", BODY)


def _nginx(stage: Stage) -> tuple[Nginx | None, str]:
    try:
        return Nginx(stage.folder, stage.sandboxes.socket(0)), ""
    except CannotRun as reason:
        return None, str(reason)

"""Kubernetes, on the real node: an idle session's next request, from the call until its agent's first word (P6).

The session's pod is gone and its claim is there; gateway, operator and Valkey run beside the node on this machine. No core is pinned: the
kubelet and everything it starts want both.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import figures
from bench.effort import Effort
from bench.report import Line
from bench.subjects import CannotRun
from cluster import made
from cluster.node import build, door
from cluster.node.node import Node
from cluster.operated import Operated, operated
from fakes.platform import poll

AGENT = "idler"
MILLI = 1e3


def measure(effort: Effort) -> list[Line]:
    """One session, put to sleep and woken again and again."""
    try:
        build.check_programs()
    except build.Missing as why:
        raise CannotRun(f"no Kubernetes node on this machine: {why}") from why
    with _node() as node, tempfile.TemporaryDirectory(prefix="moorage-bench-") as folder:
        sandbox = made.sandbox_image(node)
        image = made.agent_image(node)
        made.hosted_agents(node)
        with operated(node, image, sandbox, Path(folder), "moorage-bench") as world:
            return _idle(world, effort)


@contextmanager
def _node() -> Iterator[Node]:
    """The node that is up, else one of its own."""
    kept = door.running()
    if kept is not None:
        yield Node(kept)
        return
    with Node.started(Path(tempfile.mkdtemp(prefix="moorage-node-"))) as started:
        yield started


def _idle(world: Operated, effort: Effort) -> list[Line]:
    world.apply(AGENT, pool={"min": 0, "max": 1}, session={"idleTimeout": "3s"})
    world.until_ready(AGENT)
    cold = _first_word(world)
    waits = []
    for _ in range(effort.repetitions):
        poll("no pod is left", lambda: not world.pods(AGENT), within=90)
        waits.append(_first_word(world))
    found, at = figures.spread(waits), f"{effort.repetitions} wakes; node; etcd without fsync"
    return [
        Line("cluster-node-wake", found.middle, "ms", goal=950, note=f"{found}; claim and image present; {at}"),
        Line(
            "cluster-node-cold",
            cold,
            "ms",
            note="the first session of an agent without a pool, its claim made anew; once",
        ),
    ]


def _first_word(world: Operated) -> float:
    """Milliseconds from the call until the agent's first word is here; the answer is read to its end."""
    began, first = time.perf_counter(), 0.0
    session = {"x-agent-session-id": "bench-idle-session"}
    with world.client.responses.create(
        model=AGENT, input="hi", stream=True, extra_headers=session, timeout=90
    ) as stream:
        for event in stream:
            if event.type == "response.output_text.delta" and not first:
                first = time.perf_counter() - began
    if not first:
        raise RuntimeError("the agent said nothing")
    return first * MILLI

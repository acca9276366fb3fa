"""Kubernetes, on the real node: an idle session's next request, from the call until its agent's first word, by milestones (P6); and
checkpoints of the tree of `checkpoints.py`, on a claim of a pod's (P19, P20).

The session's pod is gone and its claim is there; gateway, operator and Valkey run beside the node on this machine. No core is pinned: the
kubelet and everything it starts want both.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis

from bench import figures, milestones, pod_watch
from bench.effort import Effort
from bench.milestones import Change
from bench.report import Line
from bench.subjects import CannotRun
from chart import helm
from cluster import made
from cluster.desk import TENANT, USER
from cluster.node import build, door
from cluster.node.node import Node
from cluster.operated import Operated, operated
from cluster.plain_pod import PlainPods
from fakes.platform import poll
from moorage_api import names
from moorage_api.ledger import keys
from moorage_operator import marks

AGENT, SESSION = "idler", "bench-idle-session"
MILLI = 1e3
CHECKPOINT_SECONDS = 600
"""For the pod that plants the tree, saves and restores it; minutes of it are the planting."""
CHECKPOINTS = """
import dataclasses, json
from bench.effort import Effort
from bench.loads import checkpoints
print(json.dumps([dataclasses.asdict(line) for line in checkpoints.measure(Effort(repetitions=REPETITIONS))]))
"""


@dataclass(frozen=True)
class Wake:
    """One call of a session without a pod: how long it took to each milestone, in ms."""

    at: dict[str, float]

    @property
    def first_word(self) -> float:
        return self.at["first-byte"]


def measure(effort: Effort) -> list[Line]:
    """One session, put to sleep and woken again and again; then checkpoints in a pod."""
    try:
        build.check_programs()
        helm.binary()
    except (build.Missing, helm.NoHelm) as why:
        raise CannotRun(f"no Kubernetes node on this machine: {why}") from why
    with _node() as node, tempfile.TemporaryDirectory(prefix="moorage-bench-") as folder:
        sandbox = made.sandbox_image(node)
        image = made.agent_image(node)
        made.hosted_agents(node)
        with operated(node, image, sandbox, Path(folder), "moorage-bench") as world:
            lines = _idle(world, effort)
        image = made.checkpoint_bench_image(node)
        with PlainPods.opened(node, image, "moorage-bench-checkpoints") as pods:
            return [*lines, *_checkpoints(pods, effort)]


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
    with pod_watch.watching(world.node.kubeconfig, world.namespace, f"{marks.AGENT}={AGENT}") as changes:
        cold = _wake(world, changes)
        waits = []
        for _ in range(effort.repetitions):
            poll("no pod is left", lambda: not world.pods(AGENT), within=90)
            waits.append(_wake(world, changes))
    found, at = (
        figures.spread([one.first_word for one in waits]),
        f"{effort.repetitions} wakes; node; etcd without fsync",
    )
    return [
        Line("cluster-node-wake", found.middle, "ms", goal=950, note=f"{found}; claim and image present; {at}"),
        *_by_milestones(waits),
        Line(
            "cluster-node-cold",
            cold.first_word,
            "ms",
            note="the first session of an agent without a pool, its claim made anew; once",
        ),
    ]


def _by_milestones(waits: Sequence[Wake]) -> list[Line]:
    """The medians, each from the call; beside the whole's goal, the wake without the pod's start (performance.md P6)."""
    lines = []
    for name in milestones.NAMES[:-1]:
        found = figures.spread([one.at[name] for one in waits])
        lines.append(Line(f"cluster-node-wake-{name}", found.middle, "ms", note=f"{found}; from the call"))
    # A shim that a gateway heard of is claimed before the pod's condition is written: the start is over then.
    beside = [one.first_word - (min(one.at["pod-ready"], one.at["claimed"]) - one.at["pod-made"]) for one in waits]
    found = figures.spread(beside)
    note = f"{found}; the wake without the time from pod-made to claimed, or to pod-ready where that comes first"
    return [*lines, Line("cluster-node-wake-beside-pod", found.middle, "ms", goal=300, note=note)]


def _wake(world: Operated, changes: Sequence[Change]) -> Wake:
    """A call that finds no pod; its answer is read to its end."""
    heard: dict[str, float] = {}
    response = ""
    began = time.time() * MILLI
    with world.client.responses.create(
        model=AGENT, input="hi", stream=True, extra_headers={"x-agent-session-id": SESSION}, timeout=90
    ) as stream:
        for event in stream:
            heard.setdefault(event.type, time.time() * MILLI)
            if event.type == "response.created":
                response = event.response.id
    if milestones.HEARD["first-byte"] not in heard:
        raise RuntimeError("the agent said nothing")
    path = f"/agents/{AGENT}/responses/{response}/record"
    record = world.client.get(path, cast_to=dict[str, Any])
    (attempt,) = record["attempts"]
    own = attempt["sandbox"]
    poll("its pod is ready", lambda: any(one.ready for one in list(changes) if one.pod == own), within=10)
    return Wake(milestones.reached(began, heard, record, _claimed(world), own, list(changes)))


def _claimed(world: Operated) -> float:
    """When the session got its sandbox, in epoch ms; the ledger's word, which no door of the gateway shows."""
    key = names.session_key(TENANT, names.partition(TENANT, AGENT, USER, SESSION))
    with redis.Redis.from_url(world.desk.redis_url) as ledger:
        return float(ledger.hget(keys.session(key), "claimed") or 0)


def _checkpoints(pods: PlainPods, effort: Effort) -> list[Line]:
    """The lines of `checkpoints.py` from within a pod, recorded beside the goals: gates are this machine's own bench's."""
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "tree"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }  # fmt: skip
    pods.apply(claim)
    code = CHECKPOINTS.replace("REPETITIONS", str(effort.repetitions))
    said = pods.run("checkpoints", code, claim="tree", within=CHECKPOINT_SECONDS)
    lines = [Line(**one) for one in json.loads(said.splitlines()[-1])]
    return [replace(one, name=f"cluster-node-{one.name}", gate=None, note=f"in a pod; {one.note}") for one in lines]
